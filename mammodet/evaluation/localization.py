"""The part of the metrics that is about places: AP, FROC, strata, and the agreement of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mammodet.evaluation.average_precision import AveragePrecision, Kind
from mammodet.evaluation.bootstrap import Estimates, Measure
from mammodet.evaluation.cases import cases
from mammodet.evaluation.flat import FlatLesions, Ints, flat_detections, flat_lesions, lesion_rles, take_detections
from mammodet.evaluation.froc import (
    BAND_FPPI,
    DENOMINATORS,
    FPPI_POINTS,
    Curve,
    CurveMaker,
    FalsePositives,
    Froc,
    FrocFigures,
    denominator_images,
    whole_curve,
)
from mammodet.evaluation.masks import IMAGE_FIGURES, PAIR_FIGURES, MaskAgreement, MeanFigures, mask_agreement
from mammodet.evaluation.matching import MATCH_RULES, Matches, match_all
from mammodet.evaluation.options import Options
from mammodet.evaluation.roc import score_figures
from mammodet.evaluation.sizes import size_bins
from mammodet.evaluation.strata import Stratum, make_strata
from mammodet.records import LABELS, Dataset, Geometry, ImagePrediction

_PLURALS: dict[Geometry, str] = {"contour": "contours", "circle": "circles", "box": "boxes"}


@dataclass(frozen=True, slots=True)
class LesionOutcome:
    """What became of a lesion: the strongest detection that finds it, whatever its score; None where none does.

    Attributes:
        threshold_fppi: false positives per image at that score.
    """

    image: int
    position: int
    score: float | None
    threshold_fppi: float | None
    agreement: dict[str, float | None]


class Localization:
    """Figures of one model, as measures for the bootstrap and as a section of metrics.json.

    Args:
        predictions: one per image of the data set, in its order.
        clusters: int (images,), the patient of each image.
    """

    def __init__(
        self, dataset: Dataset, predictions: Sequence[ImagePrediction], clusters: Ints, options: Options
    ) -> None:
        self._dataset, self._options, self._clusters = dataset, options, clusters
        self._found, self._lesions = flat_detections(dataset, predictions), flat_lesions(dataset)
        self.with_masks = has_masks(self._found.rles, self._lesions)
        kinds: tuple[Kind, ...] = ("bbox", "segm") if self.with_masks else ("bbox",)
        self._sizes = size_bins(dataset, self._found, self._lesions)
        self._strata = make_strata(dataset, self._lesions, self._sizes)
        self._masks = lesion_rles(dataset, self._lesions) if self.with_masks or "mask" in options.match else None
        rules = [rule for rule in MATCH_RULES if self.with_masks or not rule.startswith("mask")]
        self._rules = tuple(dict.fromkeys([options.match, *rules]))
        self._matches = {rule: self._match(rule) for rule in self._rules}
        self._froc: dict[tuple[str, str], Froc] = {}
        curves = [*self._rule_curves(), *self._stratum_curves(), *self._category_curves()]
        self._stratum_labels: dict[int, str] = {}
        self.measures: list[Measure] = [
            AveragePrecision(dataset, self._found, self._lesions, clusters, kinds, self._sizes),
            FrocFigures(curves),
            *self._stratum_scores(predictions),
        ]
        self._agreement: MaskAgreement | None = None
        if self.with_masks:
            self._agreement = mask_agreement(
                dataset,
                predictions,
                self._found,
                self._lesions,
                self._matches[options.match],
                score_threshold=options.mask_score,
            )
            images = self._lesions.images[self._agreement.lesions]
            self.measures += [
                MeanFigures("masks/pairs", PAIR_FIGURES, self._agreement.pairs, clusters[images]),
                MeanFigures("masks/images", IMAGE_FIGURES, self._agreement.per_image, clusters[self._agreement.images]),
            ]

    def _match(self, rule: str) -> Matches:
        return match_all(self._found, self._lesions, rule, masks=self._masks, count_seconds=self._options.count_seconds)

    def _rule_curves(self) -> list[Curve]:
        curves = []
        self._maker: CurveMaker
        self._false: FalsePositives
        for rule in self._rules:
            maker = CurveMaker(self._found, self._lesions, self._matches[rule], self._clusters)
            for denominator in DENOMINATORS:
                false = maker.false_positives(denominator_images(self._dataset, denominator))
                main = (rule, denominator) == (self._options.match, self._options.denominator)
                curves.append(maker.curve(_curve_name(rule, denominator), false, grid=BAND_FPPI if main else ()))
                self._froc[rule, denominator] = whole_curve(maker, self._dataset, self._lesions, rule, denominator)
                if main:
                    self._maker, self._false = maker, false
        return curves

    def _stratum_curves(self) -> list[Curve]:
        scored = denominator_images(self._dataset, self._options.denominator)
        return [
            self._maker.curve(
                _stratum_name(stratum),
                self._maker.false_positives(scored & stratum.images) if stratum.of_images else self._false,
                stratum.lesions,
            )
            for stratum in self._strata
        ]

    def _category_curves(self) -> list[Curve]:
        """Detections of a category against its lesions alone, where there are several."""
        curves: list[Curve] = []
        if len(self._dataset.categories) < 2:
            return curves
        scored = denominator_images(self._dataset, self._options.denominator)
        for number, name in enumerate(self._dataset.categories, start=1):
            found = take_detections(self._found, np.flatnonzero(self._found.categories == number))
            chosen = np.flatnonzero((self._lesions.categories == number) | self._lesions.ignored)
            lesions = FlatLesions(
                self._lesions.images[chosen],
                self._lesions.boxes_xyxy[chosen],
                self._lesions.categories[chosen],
                self._lesions.ignored[chosen],
                tuple(self._lesions.lesions[row] for row in chosen),
            )
            masks = [self._masks[row] for row in chosen] if self._masks is not None else None
            matches = match_all(
                found, lesions, self._options.match, masks=masks, count_seconds=self._options.count_seconds
            )
            maker = CurveMaker(found, lesions, matches, self._clusters)
            curves.append(maker.curve(f"froc_by_category/{name}", maker.false_positives(scored)))
        return curves

    def _stratum_scores(self, predictions: Sequence[ImagePrediction]) -> list[Measure]:
        measures: list[Measure] = []
        by_label = {label: cases(self._dataset, predictions, "image", label) for label in LABELS}
        label = next((label for label, one in by_label.items() if 0 < one.labels.sum() < len(one)), None)
        if label is None:
            return measures
        chosen = by_label[label]
        for number, stratum in enumerate(self._strata):
            if stratum.of_images:
                inside = stratum.images[chosen.images]
                measures.append(score_figures(_stratum_name(stratum), chosen.take(inside), self._clusters))
                self._stratum_labels[number] = label
        return measures

    @property
    def n_lesions(self) -> int:
        """Lesions to be found."""
        return int((~self._lesions.ignored).sum())

    @property
    def n_ignored(self) -> int:
        """Regions that count neither way."""
        return int(self._lesions.ignored.sum())

    def notes(self) -> list[str]:
        """What a reader must know of the masks and of odd detections."""
        notes = []
        geometries = geometries_of(self._lesions)
        if self.with_masks and geometries != {"contour"}:
            kinds = " and ".join(_PLURALS[geometry] for geometry in sorted(geometries))
            notes.append(
                f"The ground-truth masks are {kinds}: mask AP tells the agreement with those, not with a drawn outline."
            )
        sizes_hw = np.array([record.size_hw for record in self._dataset.images], dtype=np.float64).reshape(-1, 2)
        limits = np.tile(sizes_hw[self._found.images][:, ::-1], 2)
        inside = np.clip(self._found.boxes_xyxy, 0, limits)
        odd = int(((inside[:, 2:] - inside[:, :2]).min(axis=1, initial=np.inf) <= 0).sum())
        if odd:
            notes.append(f"{odd} detections are empty or lie outside of their image: they count like any other.")
        return notes

    def to_json(self, estimates: Estimates) -> dict[str, Any]:
        """`detection`, `ap_by_size`, `froc`, `froc_others`, `froc_by_category`, `strata`, `masks`."""
        main = (self._options.match, self._options.denominator)
        curve = self._froc[main]
        name = _curve_name(*main)
        band = [estimates.spread(f"{name}/band@{point:.6g}") for point in BAND_FPPI]
        froc = {**self._froc_section(estimates, *main), "curve": curve.corners()}
        if all(item is not None for item in band):
            froc["band"] = {
                "fppi": list(BAND_FPPI),
                "low": [item[0] for item in band if item],
                "high": [item[1] for item in band if item],
            }
        return {
            "detection": self._detection(estimates),
            "ap_by_size": self._by_size(estimates),
            "froc": froc,
            "froc_others": [self._froc_section(estimates, *key) for key in self._froc if key != main],
            "froc_by_category": {
                category: _points(estimates, f"froc_by_category/{category}")
                for category in self._dataset.categories
                if len(self._dataset.categories) > 1
            },
            "strata": [self._stratum(estimates, number) for number in range(len(self._strata))],
            "masks": self._mask_section(estimates),
        }

    def _detection(self, estimates: Estimates) -> dict[str, Any]:
        section: dict[str, Any] = {"bbox": {}}
        for name in self.measures[0].names:
            group, _, rest = name.partition("/")
            if group == "detection":
                kind, _, figure = rest.partition("/")
                _put(section.setdefault(kind, {}), figure, estimates, name)
        return section

    def _by_size(self, estimates: Estimates) -> list[dict[str, Any]]:
        binned = self._sizes.bin_of_lesions()
        rows = []
        for label in self._sizes.labels:
            count = sum(
                one == label and not ignored for one, ignored in zip(binned, self._lesions.ignored, strict=True)
            )
            row: dict[str, Any] = {"size": label, "n_lesions": count}
            for name in self.measures[0].names:
                if name.startswith(f"ap_by_size/{label}/"):
                    _put(row, "_".join(name.rsplit("/", 2)[1:]), estimates, name)
            rows.append(row)
        return [row for row in rows if row["n_lesions"]]

    def _froc_section(self, estimates: Estimates, rule: str, denominator: str) -> dict[str, Any]:
        curve = self._froc[rule, denominator]
        return {
            "match": rule,
            "denominator": denominator,
            "duplicates": self._options.duplicates,
            "n_images": curve.images,
            "n_lesions": curve.lesions,
            **_points(estimates, _curve_name(rule, denominator)),
        }

    def _stratum(self, estimates: Estimates, number: int) -> dict[str, Any]:
        stratum = self._strata[number]
        name = _stratum_name(stratum)
        wanted = stratum.lesions & ~self._lesions.ignored
        images = np.flatnonzero(stratum.images) if stratum.of_images else np.unique(self._lesions.images[wanted])
        row: dict[str, Any] = {
            "variable": stratum.variable,
            "value": stratum.value,
            "n_images": len(images),
            "n_lesions": int(wanted.sum()),
            "n_patients": len(np.unique(self._clusters[images])),
        }
        _put(row, "sensitivity_at_1", estimates, f"{name}/sensitivity@1")
        _put(row, "cpm", estimates, f"{name}/cpm")
        if number in self._stratum_labels:
            row["label"] = self._stratum_labels[number]
            _put(row, "roc_auc", estimates, f"{name}/roc_auc")
        return row

    def _mask_section(self, estimates: Estimates) -> dict[str, Any] | None:
        found = self._agreement
        if found is None:
            return None
        if not len(found.pairs):
            note = (
                "No outline could be compared: no lesion with a drawn contour was found; the ground truth is "
                f"{' and '.join(_PLURALS[one] for one in sorted(geometries_of(self._lesions))) or 'empty'}."
            )
            return {"n_pairs": 0, "n_without_contour": found.n_without_contour, "note": note}
        section: dict[str, Any] = {"n_pairs": len(found.pairs), "n_without_contour": found.n_without_contour}
        for figure in PAIR_FIGURES:
            _put(section, figure, estimates, f"masks/pairs/{figure}")
        section["n_without_distance"] = int(np.isnan(found.pairs[:, 2]).sum())
        per_image: dict[str, Any] = {"n_images": len(found.images), "score_threshold": found.score_threshold}
        for figure in IMAGE_FIGURES:
            _put(per_image, figure, estimates, f"masks/images/{figure}")
        section["per_image"] = per_image
        section["note"] = (
            f"Per lesion: the detection that finds it by {self._options.match}, at any score, against its contour; "
            "lesions that no detection finds are not in these means. Per image: all masks of score "
            f"{found.score_threshold:g} or more against all contours of an image with lesions; nothing found is Dice 0."
        )
        return section

    def outcomes(self) -> list[LesionOutcome]:
        """What became of each lesion to be found, under the chosen rule."""
        matches = self._matches[self._options.match]
        curve = self._froc[self._options.match, self._options.denominator]
        by_lesion = {int(lesion): row for row, lesion in enumerate(matches.lesion) if lesion >= 0}
        agreement: dict[int, dict[str, float | None]] = {}
        if self._agreement is not None:
            for lesion, values in zip(self._agreement.lesions, self._agreement.pairs, strict=True):
                agreement[int(lesion)] = {
                    name: None if np.isnan(value) else float(value)
                    for name, value in zip(PAIR_FIGURES, values, strict=True)
                }
        rising = -curve.thresholds  # from minus infinity on
        outcomes = []
        first = np.searchsorted(self._lesions.images, self._lesions.images, side="left")
        for number in np.flatnonzero(~self._lesions.ignored):
            row = by_lesion.get(int(number))
            score = float(self._found.scores[row]) if row is not None else None
            place = int(np.searchsorted(rising, -score, side="left")) if score is not None else 0
            outcomes.append(
                LesionOutcome(
                    image=int(self._lesions.images[number]),
                    position=int(number - first[number]),
                    score=score,
                    threshold_fppi=float(curve.fppi[place]) if score is not None else None,
                    agreement=agreement.get(int(number), {}),
                )
            )
        return outcomes


def has_masks(found: Sequence[Any] | None, lesions: FlatLesions) -> bool:
    """Whether there are masks on both sides; boxes alone are none."""
    return bool(found) and bool(geometries_of(lesions) - {"box"})


def geometries_of(lesions: FlatLesions) -> set[Geometry]:
    """How far the masks of the lesions to be found can be trusted."""
    return {lesion.geometry if lesion.rle else "box" for lesion in lesions.lesions if not lesion.ignore}


def _curve_name(rule: str, denominator: str) -> str:
    return f"froc/{rule}/{denominator}"


def _stratum_name(stratum: Stratum) -> str:
    return f"strata/{stratum.variable}/{stratum.value}"


def _put(row: dict[str, Any], key: str, estimates: Estimates, name: str) -> None:
    row[key] = estimates.value(name)
    row[f"{key}_ci95"] = estimates.interval(name)


def _points(estimates: Estimates, name: str) -> dict[str, Any]:
    points = [
        {
            "fppi": point,
            "sensitivity": estimates.value(f"{name}/sensitivity@{point:g}"),
            "ci95": estimates.interval(f"{name}/sensitivity@{point:g}"),
        }
        for point in FPPI_POINTS
    ]
    return {"points": points, "cpm": estimates.value(f"{name}/cpm"), "cpm_ci95": estimates.interval(f"{name}/cpm")}
