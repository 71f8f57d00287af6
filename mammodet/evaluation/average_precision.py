"""COCO average precision of boxes and masks, equal to pycocotools' to the last digit, and weighted by patient.

pycocotools keeps its matches inside Python objects, image by image. Here they are flat arrays, so that a resample of
the patients costs one pass over them and not a new evaluation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mammodet.evaluation.bootstrap import Bootstrap
from mammodet.evaluation.flat import Bools, FlatDetections, FlatLesions, Ints, flat_detections, flat_lesions
from mammodet.evaluation.flat import lesion_rles as masks_of
from mammodet.evaluation.matching import (
    Floats,
    Pairs,
    hulls,
    make_pairs,
    pair_box_iou,
    pair_mask_iou,
    pair_rows,
    rank_within,
    rounds,
)
from mammodet.evaluation.results import Figure, KindPrecision, fill
from mammodet.evaluation.sizes import SizeBins, box_sides_xywh
from mammodet.geometry import rle_area
from mammodet.records import Dataset, ImagePrediction, Masks, Rle

Kind = Literal["bbox", "segm"]
_Places = NDArray[np.int32]
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST_DETECTIONS = 100  # per image and category


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of the detections of a category, in falling order of score, at each IoU threshold."""

    clusters: _Places  #: of each detection but those that count neither way at any threshold
    hits: tuple[_Places, ...]  #: positions of those that find a lesion, per threshold
    passed: tuple[_Places, ...]  #: positions of those that count neither way, per threshold
    passed_before: tuple[_Places, ...]  #: how many of those stand before each hit, per threshold
    targets: Ints  #: cluster of each lesion to be found


class AveragePrecision:
    """AP50:95, AP50 and AP75, per category and per size, for any weights of the patients.

    Images on which a lesion is known but has no place take no part; ignored regions count neither way. A lesion
    without a mask stands with its box for one.

    Args:
        clusters: int (images,), the patient of each image.
        kinds: `bbox`, `segm`.
        sizes: bins of lesion size that get figures of their own; None for none.
    """

    def __init__(
        self,
        dataset: Dataset,
        found: FlatDetections,
        lesions: FlatLesions,
        clusters: Ints,
        kinds: Sequence[Kind] = ("bbox",),
        sizes: SizeBins | None = None,
    ) -> None:
        self._names, self._several = dataset.categories, len(dataset.categories) > 1
        self._kinds, self._sizes = tuple(kinds), sizes
        ids = np.array([record.image_id for record in dataset.images], dtype=np.int64)
        image_ranks = np.empty(len(ids), dtype=np.int64)
        image_ranks[np.argsort(ids, kind="stable")] = np.arange(len(ids))
        masks = masks_of(dataset, lesions) if "segm" in self._kinds else ()
        self._categories = [
            _category(number, found, lesions, masks, clusters, image_ranks, self._kinds, sizes)
            for number in range(1, len(self._names) + 1)
        ]

    def results(self, bootstrap: Bootstrap) -> tuple[dict[Kind, KindPrecision], list[tuple[str, list[Figure]]]]:
        """Of each kind over all sizes; and for each size its name, and AP and AP50 of each kind."""
        figures = iter(bootstrap.figures(self, "average precision"))
        kinds: dict[Kind, KindPrecision] = {}
        for kind in self._kinds:
            over_all = list(islice(figures, 3))
            by_category = (
                dict(zip(self._names, islice(figures, len(self._names)), strict=True)) if self._several else {}
            )
            kinds[kind] = fill(KindPrecision, over_all, AP50_by_category=by_category)
        labels = self._sizes.labels if self._sizes else ()
        by_size = [(label, list(islice(figures, 2 * len(self._kinds)))) for label in labels]
        return kinds, by_size

    def row(self, weights: Floats) -> Floats:
        """All figures for one set of weights (clusters,), as `results` takes them; NaN without a lesion to be found."""
        figures: list[float] = []
        for kind in self._kinds:
            precision, valid = self._precision(kind, weights)
            figures += [_mean(precision[:, :, valid]), _mean(precision[0][:, valid]), _mean(precision[5][:, valid])]
            if self._several:
                figures += [
                    _mean(precision[0, :, number]) if valid[number] else np.nan for number in range(len(self._names))
                ]
        for label in self._sizes.labels if self._sizes else ():
            for kind in self._kinds:
                precision, valid = self._precision(f"{kind}/{label}", weights)
                figures += [_mean(precision[:, :, valid]), _mean(precision[0][:, valid])]
        return np.array(figures)

    def _precision(self, key: str, weights: Floats) -> tuple[Floats, Bools]:
        """Interpolated precision (thresholds, recalls, categories), and which categories have a lesion to be found."""
        precision = np.zeros((len(THRESHOLDS), len(RECALLS), len(self._categories)))
        valid = np.zeros(len(self._categories), dtype=bool)
        for number, category in enumerate(self._categories):
            outcome = category[key]
            wanted = weights[outcome.targets].sum()
            valid[number] = wanted > 0
            if wanted > 0:
                total = np.cumsum(weights[outcome.clusters])
                for step in range(len(THRESHOLDS)):
                    precision[step, :, number] = _interpolate(outcome, step, weights, total, wanted)
        return precision, valid


def _interpolate(outcome: _Outcome, step: int, weights: Floats, total: Floats, wanted: float) -> Floats:
    """Precision at each of the 101 recalls: only at a hit does recall grow, and precision peak."""
    hits = outcome.hits[step]
    values = np.zeros(len(RECALLS))
    if not len(hits):
        return values
    true = np.cumsum(weights[outcome.clusters[hits]])
    passed = np.concatenate([[0.0], np.cumsum(weights[outcome.clusters[outcome.passed[step]]])])
    false = total[hits] - true - passed[outcome.passed_before[step]]
    precision = true / (false + true + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(true / wanted, RECALLS, side="left")
    reached = places < len(hits)
    values[reached] = precision[places[reached]]
    return values


def _mean(values: Floats) -> float:
    return float(np.mean(np.ascontiguousarray(values).ravel())) if values.size else float("nan")


def _category(
    number: int,
    found: FlatDetections,
    lesions: FlatLesions,
    masks: Sequence[Rle],
    clusters: Ints,
    image_ranks: Ints,
    kinds: Sequence[Kind],
    sizes: SizeBins | None,
) -> dict[str, _Outcome]:
    """By kind, and by kind and size."""
    rows = np.flatnonzero(found.categories == number)
    ranks = rank_within(found.images[rows])
    rows, ranks = rows[ranks < MOST_DETECTIONS], ranks[ranks < MOST_DETECTIONS]
    targets = np.flatnonzero(lesions.categories == number)
    images, target_images = found.images[rows], lesions.images[targets]
    order = np.lexsort((ranks, image_ranks[images], -found.scores[rows]))
    found_rles = found.rles.at(rows) if found.rles is not None and "segm" in kinds else Masks([], [])
    target_rles = [masks[int(row)] for row in targets] if found_rles else []
    pairs = make_pairs(
        images,
        target_images,
        hulls(found.boxes_xyxy[rows], found_rles),
        hulls(lesions.boxes_xyxy[targets], target_rles),
    )
    crowd = lesions.ignored[targets]
    found_xywh, target_xywh = box_sides_xywh(found.boxes_xyxy[rows]), box_sides_xywh(lesions.boxes_xyxy[targets])
    overlaps: dict[str, Floats] = {}
    for kind in kinds:
        if kind == "bbox":
            overlap = pair_box_iou(found_xywh[pairs.found], target_xywh[pairs.lesion], crowd[pairs.lesion])
        else:
            overlap = pair_mask_iou(pairs, found_rles, target_rles, crowd)
        overlaps[kind] = overlap
    outcomes = {}
    for kind in kinds:
        for label, inside, fits in _bins(sizes, kind, found, rows, targets):
            ignored = crowd | ~inside
            matched = _match(pairs, images, overlaps[kind], ignored, crowd)
            on_ignored = np.where(matched >= 0, _take(ignored, matched), ~fits[:, None])
            kept = order[~on_ignored[order].all(axis=1)]
            outcomes[label] = _outcome(
                clusters[images[kept]], matched[kept], on_ignored[kept], clusters[target_images[~ignored]]
            )
    return outcomes


def _bins(
    sizes: SizeBins | None, kind: Kind, found: FlatDetections, rows: Ints, targets: Ints
) -> list[tuple[str, Bools, Bools]]:
    """(name, lesions (m,) inside, detections (n,) inside) of all sizes, then of each bin."""
    bins = [(str(kind), np.ones(len(targets), dtype=bool), np.ones(len(rows), dtype=bool))]
    if sizes is None:
        return bins
    if sizes.by_area and kind == "segm" and found.rles is not None:
        own = np.array([rle_area(rle) for rle in found.rles.at(rows)], dtype=np.float64)
    else:
        own = sizes.of_detections[rows]
    for label, (low, high) in zip(sizes.labels, sizes.ranges, strict=True):
        of_lesions = sizes.of_lesions[targets]
        bins.append((f"{kind}/{label}", (of_lesions >= low) & (of_lesions <= high), (own >= low) & (own <= high)))
    return bins


def _take(values: Bools, places: _Places) -> Bools:
    return values[places] if len(values) else np.zeros(places.shape, dtype=bool)


def _match(pairs: Pairs, groups: Ints, overlap: Floats, ignored: Bools, crowd: Bools) -> _Places:
    """The lesion that each detection takes at each threshold (n, thresholds), by the rules of pycocotools.

    The best free lesion to be found, else the best free region to ignore; of equal ones, the last. Crowds stay free.
    """
    least = np.minimum(THRESHOLDS, 1 - 1e-10)
    taken = np.full((len(groups), len(least)), -1, dtype=np.int32)
    free = np.ones((len(ignored), len(least)), dtype=bool)
    steps = np.arange(len(least))
    for rows in rounds(pairs, groups):
        places, begins = pair_rows(pairs, rows)
        lesion, count = pairs.lesion[places], pairs.count[rows]
        possible = (overlap[places, None] >= least) & free[lesion]
        for counted in (True, False):
            fit = np.where(possible & (ignored[lesion] != counted)[:, None], overlap[places, None], 0.0)
            best = np.maximum.reduceat(fit, begins, axis=0)
            is_best = (fit > 0) & (fit == np.repeat(best, count, axis=0))
            last = np.maximum.reduceat(np.where(is_best, np.arange(len(places))[:, None], -1), begins, axis=0)
            hit = (last >= 0) & (taken[rows] < 0)
            first, step = np.nonzero(hit)
            chosen = lesion[last[hit]]
            taken[rows[first], step] = chosen
            kept = ~crowd[chosen]
            free[chosen[kept], steps[step[kept]]] = False
    return taken


def _outcome(clusters: Ints, matched: _Places, on_ignored: Bools, targets: Ints) -> _Outcome:
    hits, passed, before = [], [], []
    for step in range(matched.shape[1]):
        hit = np.flatnonzero((matched[:, step] >= 0) & ~on_ignored[:, step]).astype(np.int32)
        skipped = np.flatnonzero(on_ignored[:, step]).astype(np.int32)
        hits.append(hit)
        passed.append(skipped)
        before.append(np.searchsorted(skipped, hit).astype(np.int32))
    return _Outcome(clusters.astype(np.int32), tuple(hits), tuple(passed), tuple(before), targets)


def average_precision(dataset: Dataset, predictions: Sequence[ImagePrediction], kind: Kind) -> KindPrecision:
    """AP50:95, AP50 and AP75 over all categories, and AP50 of each where there are several; without intervals.

    Args:
        predictions: one per image of the data set, in its order.
        kind: `bbox` or `segm`.
    Raises:
        ValueError: masks of a model that gives none.
    """
    found, lesions = flat_detections(dataset, predictions), flat_lesions(dataset)
    if kind == "segm" and found.rles is None and len(found):
        raise ValueError("mask AP: some detections have no mask")
    measure = AveragePrecision(dataset, found, lesions, np.zeros(len(dataset.images), dtype=np.int64), (kind,))
    return measure.results(Bootstrap(1, 0, 0))[0][kind]
