"""Places: AP, FROC, strata, and the agreement of masks of one model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from mammodet.errors import InputError
from mammodet.evaluation.average_precision import AveragePrecision, Kind
from mammodet.evaluation.bootstrap import Bootstrap
from mammodet.evaluation.cases import cases
from mammodet.evaluation.flat import Bools, FlatLesions, Ints, flat_detections, flat_lesions, lesion_rles
from mammodet.evaluation.froc import (
    BAND_FPPI,
    DENOMINATORS,
    CurveMaker,
    FalsePositives,
    Froc,
    FrocFigures,
    denominator_images,
    whole_curve,
)
from mammodet.evaluation.masks import IMAGE_FIGURES, PAIR_FIGURES, MaskAgreement, MeanFigures, mask_agreement
from mammodet.evaluation.matching import MATCH_RULES, Floats, Matches, match_all
from mammodet.evaluation.options import Options
from mammodet.evaluation.results import (
    Detection,
    Figure,
    FrocPoints,
    FrocSection,
    ImageAgreement,
    Masks,
    SizePrecision,
    Stratum,
)
from mammodet.evaluation.roc import FIGURES, score_figures
from mammodet.evaluation.sizes import SizeBins, size_bins
from mammodet.evaluation.strata import Part, make_parts
from mammodet.records import LABELS, Dataset, Geometry, ImagePrediction

_PLURALS: dict[Geometry, str] = {"contour": "contours", "circle": "circles", "box": "boxes"}


@dataclass(frozen=True, slots=True)
class LesionOutcome:
    """What became of a lesion: the strongest detection that finds it, whatever its score; None where none does.

    Attributes:
        threshold_fppi: false positives per image at that score.
        agreement: PAIR_FIGURES, those that are known.
    """

    image: int
    position: int
    score: float | None
    threshold_fppi: float | None
    agreement: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes(Sequence[LesionOutcome]):
    """Of n lesions, in little memory: NaN stands for None, `agreements` is (n, PAIR_FIGURES)."""

    images: Ints
    positions: Ints
    scores: Floats
    fppi: Floats
    agreements: Floats

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: Any) -> Any:
        score, fppi = (None if np.isnan(column[row]) else float(column[row]) for column in (self.scores, self.fppi))
        known = zip(PAIR_FIGURES, self.agreements[row].tolist(), strict=True)
        agreement = {name: value for name, value in known if not np.isnan(value)}
        return LesionOutcome(int(self.images[row]), int(self.positions[row]), score, fppi, agreement)


class Localization:
    """Matched detections of one model, and their figures.

    Args:
        predictions: one per image of the data set, in its order.
        clusters: int (images,), the patient of each image.
    """

    def __init__(
        self, dataset: Dataset, predictions: Sequence[ImagePrediction], clusters: Ints, options: Options
    ) -> None:
        self._dataset, self._predictions, self._options, self._clusters = dataset, predictions, options, clusters
        self._found, self._lesions = flat_detections(dataset, predictions), flat_lesions(dataset)
        self.with_masks = has_masks(self._found.rles, self._lesions)
        self._masks = lesion_rles(dataset, self._lesions) if self.with_masks or "mask" in options.match else None
        self._sizes = size_bins(dataset, self._found, self._lesions)
        self._matches = self._match(options.match)
        self._maker = CurveMaker(self._found, self._lesions, self._matches, clusters)
        self._scored = denominator_images(dataset, options.denominator)
        self._agreement: MaskAgreement | None = None
        if self.with_masks:
            self._agreement = mask_agreement(
                dataset, predictions, self._found, self._lesions, self._matches, score_threshold=options.mask_score
            )

    def _match(self, rule: str) -> Matches:
        seconds = self._options.count_seconds
        return match_all(self._found, self._lesions, rule, masks=self._masks, count_seconds=seconds)

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

    def results(self, bootstrap: Bootstrap) -> dict[str, Any]:
        """The fields of `ModelResult` that are about places."""
        kinds: tuple[Kind, ...] = ("bbox", "segm") if self.with_masks else ("bbox",)
        measure = AveragePrecision(self._dataset, self._found, self._lesions, self._clusters, kinds, self._sizes)
        over_all, by_size = measure.results(bootstrap)
        del measure  # a large one
        main, *others = [section for rule in self._rules() for section in self._froc(rule, bootstrap)]
        return {
            "detection": Detection(bbox=over_all["bbox"], segm=over_all.get("segm")),
            "ap_by_size": self._by_size(by_size, kinds),
            "froc": main,
            "froc_others": others,
            "froc_by_category": self._by_category(bootstrap),
            "strata": self._strata(bootstrap),
            "masks": self._mask_results(bootstrap),
        }

    def _by_size(self, found: Sequence[tuple[str, Sequence[Figure]]], kinds: Sequence[Kind]) -> list[SizePrecision]:
        names = [f"{kind}_{name}" for kind in kinds for name in ("ap", "ap50")]
        counts = self._sizes.counts(~self._lesions.ignored)
        return [
            SizePrecision(size=label, n_lesions=counts[label], **dict(zip(names, figures, strict=True)))
            for label, figures in found
            if counts.get(label)
        ]

    def _froc(self, rule: str, bootstrap: Bootstrap) -> Iterator[FrocSection]:
        """By one match rule, the chosen denominator first where it is the chosen rule, with the whole curve."""
        maker = self._maker_by(rule)
        main = [self._options.denominator] if rule == self._options.match else []
        denominators = list(dict.fromkeys([*main, *DENOMINATORS]))
        curves = [
            maker.curve(
                maker.false_positives(denominator_images(self._dataset, one)), grid=BAND_FPPI if one in main else ()
            )
            for one in denominators
        ]
        for denominator, (points, band) in zip(denominators, FrocFigures(curves).results(bootstrap), strict=True):
            whole = whole_curve(maker, self._dataset, self._lesions, rule, denominator)
            yield FrocSection(
                points=points.points,
                cpm=points.cpm,
                match=rule,
                denominator=denominator,
                duplicates=self._options.duplicates,
                n_images=whole.images,
                n_lesions=whole.lesions,
                curve=whole.corners() if denominator in main else None,
                band=band,
            )

    def _by_category(self, bootstrap: Bootstrap) -> dict[str, FrocPoints]:
        """Detections of a category against its lesions alone, where there are several."""
        curves = []
        names = self._dataset.categories if len(self._dataset.categories) > 1 else ()
        for name in names:
            maker = self._maker_of(name)
            curves.append(maker.curve(maker.false_positives(self._scored)))
        found_points = [points for points, _ in FrocFigures(curves).results(bootstrap)]
        return dict(zip(names, found_points, strict=True))

    def _rules(self) -> list[str]:
        """The chosen match rule first."""
        rules = [rule for rule in MATCH_RULES if self.with_masks or not rule.startswith("mask")]
        return list(dict.fromkeys([self._options.match, *rules]))

    def _maker_by(self, rule: str) -> CurveMaker:
        if rule == self._options.match:
            return self._maker
        return CurveMaker(self._found, self._lesions, self._match(rule), self._clusters)

    def _maker_of(self, category: str) -> CurveMaker:
        number = self._dataset.category_id(category)
        found = self._found.at(np.flatnonzero(self._found.categories == number))
        chosen = np.flatnonzero((self._lesions.categories == number) | self._lesions.ignored)
        lesions = self._lesions.at(chosen)
        masks = [self._masks[row] for row in chosen] if self._masks is not None else None
        matches = match_all(found, lesions, self._options.match, masks=masks, count_seconds=self._options.count_seconds)
        return CurveMaker(found, lesions, matches, self._clusters)

    def lesions_at(
        self,
        fppi: float | None,
        *,
        match: str,
        denominator: str,
        category: str = "",
        variable: str = "",
        value: str = "",
    ) -> tuple[Ints, Bools, float | None]:
        """The lesions behind a sensitivity: all, of one category, or of one stratum (`variable`, `value`).

        Returns:
            int (n,) position of each one's image; bool (n,) whether it is found at so many false positives per image
            (all where `fppi` is None); the score from which on.
        Raises:
            InputError: a rule, category or stratum that has no figure here.
        """
        known = {"match": self._rules(), "category": self._dataset.categories}
        for name, given in (("match", match), ("category", category)):
            if given and given not in known[name]:
                raise InputError(f"{name} {given!r}: expected one of {', '.join(known[name])}")
        maker = self._maker_of(category) if category else self._maker_by(match)
        wanted, images = ~maker.lesions.ignored, denominator_images(self._dataset, denominator)
        if variable:
            part, _ = part_of(self._dataset, self._predictions, variable, value)
            wanted, images = wanted & part.lesions, images & part.images
        if fppi is None:
            return maker.lesions.images[wanted], wanted[wanted], None
        found, threshold = maker.found_at(maker.false_positives(images), fppi)
        return maker.lesions.images[wanted], found[wanted], threshold

    def outlined(self, per: str) -> Ints:
        """The images on which masks were compared, by `found lesion` or by `whole image`."""
        if self._agreement is None:
            return np.zeros(0, dtype=np.int64)
        return self._lesions.images[self._agreement.lesions] if per == "found lesion" else self._agreement.images

    def _strata(self, bootstrap: Bootstrap) -> list[Stratum]:
        maker, points = self._maker, list[FrocPoints]()
        every = maker.false_positives(self._scored)
        parts = make_parts(self._dataset, self._lesions, self._sizes)

        def false_positives(part: Part) -> FalsePositives:
            return maker.false_positives(self._scored & part.images) if part.of_images else every

        for _, of_variable in groupby(parts, key=lambda part: part.variable):  # one by one, for memory
            curves = [maker.curve(false_positives(part), part.lesions) for part in of_variable]
            points += [each for each, _ in FrocFigures(curves).results(bootstrap)]
        return strata(self._dataset, self._predictions, self._clusters, self._lesions, parts, bootstrap, points)

    def _mask_results(self, bootstrap: Bootstrap) -> Masks | None:
        found = self._agreement
        if found is None:
            return None
        if not len(found.pairs):
            kinds = " and ".join(_PLURALS[one] for one in sorted(geometries_of(self._lesions))) or "empty"
            note = (
                f"No outline could be compared: no lesion with a drawn contour was found; the ground truth is {kinds}."
            )
            return Masks(n_pairs=0, n_without_contour=found.n_without_contour, note=note)
        images = self._lesions.images[found.lesions]
        pairs = bootstrap.figures(MeanFigures(found.pairs, self._clusters[images]))
        per_image = bootstrap.figures(MeanFigures(found.per_image, self._clusters[found.images]))
        return Masks(
            **dict(zip(PAIR_FIGURES, pairs, strict=True)),
            n_pairs=len(found.pairs),
            n_without_contour=found.n_without_contour,
            n_without_distance=int(np.isnan(found.pairs[:, PAIR_FIGURES.index("hd95_px")]).sum()),
            per_image=ImageAgreement(
                **dict(zip(IMAGE_FIGURES, per_image, strict=True)),
                n_images=len(found.images),
                score_threshold=found.score_threshold,
            ),
            note=f"Per lesion: the detection that finds it by {self._options.match}, at any score, against its "
            "contour; lesions that no detection finds are not in these means. Per image: all masks of score "
            f"{found.score_threshold:g} or more against all contours of an image with lesions; "
            "nothing found is Dice 0.",
        )

    def outcomes(self) -> Outcomes:
        """What became of each lesion to be found, under the chosen rule."""
        rule, denominator = self._options.match, self._options.denominator
        curve: Froc = whole_curve(self._maker, self._dataset, self._lesions, rule, denominator)
        wanted, found = ~self._lesions.ignored, self._matches.lesion
        row = np.full(len(wanted), -1)
        row[found[found >= 0]] = np.flatnonzero(found >= 0)
        score = np.append(self._found.scores, np.nan)[row]
        place = np.searchsorted(-curve.thresholds, -score, side="left")  # from minus infinity on
        agreement = np.full((len(wanted), len(PAIR_FIGURES)), np.nan)
        if self._agreement is not None:
            agreement[self._agreement.lesions] = self._agreement.pairs
        images = self._lesions.images
        position = np.arange(len(images)) - np.searchsorted(images, images, side="left")
        fppi = np.append(curve.fppi, np.nan)[place]
        return Outcomes(images[wanted], position[wanted], score[wanted], fppi[wanted], agreement[wanted])


def part_of(
    dataset: Dataset, predictions: Sequence[ImagePrediction], variable: str, value: str
) -> tuple[Part, FlatLesions]:
    """A stratum, and the lesions that it is one of.

    Raises:
        InputError: no image or lesion is of that value.
    """
    lesions = flat_lesions(dataset)
    sizes = size_bins(dataset, flat_detections(dataset, predictions), lesions)
    found = next(
        (one for one in make_parts(dataset, lesions, sizes) if (one.variable, one.value) == (variable, value)), None
    )
    if found is None and variable == "lesion size" and value in sizes.bin_of_lesions():  # the only size there is
        every = np.ones(len(dataset.images), dtype=bool)
        found = Part(
            variable, value, every, np.array([one == value for one in sizes.bin_of_lesions()]), of_images=False
        )
    if found is None:
        raise InputError(f"there is no stratum {variable} {value!r}")
    return found, lesions


def classifier_strata(
    dataset: Dataset, predictions: Sequence[ImagePrediction], clusters: Ints, bootstrap: Bootstrap
) -> list[Stratum]:
    """Strata of a model without boxes: by a lesion's pathology or size there are sensitivities alone, and so none."""
    found = [prediction for prediction in predictions if len(prediction.detections)]
    if found:
        raise ValueError(
            f"the model is said to be a classifier, and yet {len(found)} images have detections, for instance "
            f"{found[0].file_name!r}; its kind should be 'detector'"
        )
    lesions = flat_lesions(dataset)
    sizes: SizeBins = size_bins(dataset, flat_detections(dataset, predictions), lesions)
    parts = [part for part in make_parts(dataset, lesions, sizes) if part.of_images]
    made = strata(dataset, predictions, clusters, lesions, parts, bootstrap)
    return made if any(one.label for one in made) else []


def strata(
    dataset: Dataset,
    predictions: Sequence[ImagePrediction],
    clusters: Ints,
    lesions: FlatLesions,
    parts: Sequence[Part],
    bootstrap: Bootstrap,
    points: Sequence[FrocPoints] = (),
) -> list[Stratum]:
    """Figures of each part: of FROC (`points` of each, or none), and ROC AUC of the first label with both classes."""
    by_label = {label: cases(dataset, predictions, "image", label) for label in LABELS}
    label = next((label for label, one in by_label.items() if 0 < one.labels.sum() < len(one)), None)
    found = []
    for number, part in enumerate(parts):
        wanted = part.lesions & ~lesions.ignored
        images = np.flatnonzero(part.images) if part.of_images else np.unique(lesions.images[wanted])
        more: dict[str, Any] = {}
        if points:
            more = {"sensitivity_at_1": points[number].at(1.0), "cpm": points[number].cpm}
        if label is not None and part.of_images:
            chosen = by_label[label].take(part.images[by_label[label].images])
            area = bootstrap.figures(score_figures(chosen, clusters))[FIGURES.index("roc_auc")]
            more |= {"label": label, "roc_auc": area}
        found.append(
            Stratum(
                variable=part.variable,
                value=part.value,
                n_images=len(images),
                n_lesions=int(wanted.sum()),
                n_patients=len(np.unique(clusters[images])),
                **more,
            )
        )
    return found


def has_masks(found: Sequence[Any] | None, lesions: FlatLesions) -> bool:
    """Whether there are masks on both sides; boxes alone are none."""
    return bool(found) and bool(geometries_of(lesions) - {"box"})


def geometries_of(lesions: FlatLesions) -> set[Geometry]:
    """How far the masks of the lesions to be found can be trusted."""
    return {lesion.geometry if lesion.rle else "box" for lesion in lesions.lesions if not lesion.ignore}
