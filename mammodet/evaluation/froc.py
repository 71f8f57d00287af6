"""Free-response ROC: how many lesions are found, at how many false positives per image (Bunch et al., SPIE 1978)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import get_args

import numpy as np

from mammodet.evaluation.bootstrap import Bootstrap, percentile_interval
from mammodet.evaluation.flat import Bools, FlatDetections, FlatLesions, Ints, flat_detections, flat_lesions
from mammodet.evaluation.flat import lesion_rles as masks_of
from mammodet.evaluation.matching import Floats, Matches, match_all
from mammodet.evaluation.results import Denominator, Figure, FrocBand, FrocCurve, FrocPoint, FrocPoints
from mammodet.records import Dataset, ImagePrediction

FPPI_POINTS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
DENOMINATORS: tuple[Denominator, ...] = get_args(Denominator)
BAND_FPPI = tuple(float(value) for value in np.geomspace(0.05, 8.0, 45))
_MOST_POINTS = 4000  # of a curve in metrics.json
_SLACK = 1e-9  # of a count of false positives, against rounding in fppi * images


def denominator_images(dataset: Dataset, denominator: str) -> Bools:
    """bool (images,): on which images false positives are counted, and by whose number they are divided.

    `all images` are those on which every lesion has a place; `normal images` those of them that show no lesion, no
    region to ignore and have no positive tumor label; `positive images` those with a lesion to be found.

    Raises ValueError: another denominator.
    """
    if denominator not in DENOMINATORS:
        raise ValueError(f"denominator {denominator!r}: expected one of {', '.join(DENOMINATORS)}")
    chosen = meant = [not record.unlocalized for record in dataset.images]
    if denominator == "normal images":
        meant = [not record.lesions and record.label("tumor") != 1 for record in dataset.images]
    elif denominator != "all images":
        meant = [any(not lesion.ignore for lesion in record.lesions) for record in dataset.images]
    return np.array(chosen, dtype=bool) & np.array(meant, dtype=bool)


@dataclass(frozen=True, slots=True)
class FalsePositives:
    """False positives in falling order of score."""

    clusters: Ints  #: patient of each
    #: position, among all detections in falling order of score, of the first that has the same score: a threshold that
    #: keeps one of them out keeps all of its score out.
    bounds: Ints
    images: Ints  #: patients of the images by whose number they are divided


@dataclass(frozen=True, slots=True)
class Curve:
    """What a FROC curve is counted from."""

    false: FalsePositives  #: may be shared by curves (lesions of one kind are found at the same thresholds as all)
    hits: Ints  #: positions of detections that find a lesion, among all in falling order of score
    #: hit_clusters, lesion_clusters: patients of those hits, and of the lesions to be found.
    hit_clusters: Ints
    lesion_clusters: Ints
    grid: tuple[float, ...] = ()  #: false positives per image at which sensitivity is given, besides FPPI_POINTS


class FrocFigures:
    """Sensitivities at fixed false positives per image, and their mean, of many curves, for any weights of patients."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self.curves = tuple(curves)

    def results(self, bootstrap: Bootstrap) -> list[tuple[FrocPoints, FrocBand | None]]:
        """The points of each curve, and its interval along the grid where there is one."""
        figures = iter(bootstrap.figures(self, "FROC"))
        return [
            (
                FrocPoints(
                    points=[FrocPoint(fppi=point, sensitivity=next(figures)) for point in FPPI_POINTS],
                    cpm=next(figures),
                ),
                _band(curve.grid, list(islice(figures, len(curve.grid)))),
            )
            for curve in self.curves
        ]

    def row(self, weights: Floats) -> Floats:
        """Every figure for one set of weights (clusters,), as `results` takes them; NaN without lesions or images."""
        figures: list[Floats] = []
        counted: dict[int, tuple[Floats, float]] = {}
        for curve in self.curves:
            key = id(curve.false)
            if key not in counted:
                counted[key] = (np.cumsum(weights[curve.false.clusters]), float(weights[curve.false.images].sum()))
            false, images = counted[key]
            lesions = float(weights[curve.lesion_clusters].sum())
            size = len(FPPI_POINTS) + 1 + len(curve.grid)
            if not lesions or not images:
                figures.append(np.full(size, np.nan))
                continue
            found = np.concatenate([[0.0], np.cumsum(weights[curve.hit_clusters])])
            limits = np.array([*FPPI_POINTS, *curve.grid]) * images + _SLACK
            allowed = np.searchsorted(false, limits, side="right")
            bounds = np.append(curve.false.bounds, np.iinfo(np.int64).max)[allowed]
            sensitivity = found[np.searchsorted(curve.hits, bounds)] / lesions
            points, band = sensitivity[: len(FPPI_POINTS)], sensitivity[len(FPPI_POINTS) :]
            figures.append(np.concatenate([points, [points.mean()], band]))
        return np.concatenate(figures) if figures else np.zeros(0)


def _band(grid: tuple[float, ...], figures: Sequence[Figure]) -> FrocBand | None:
    # Of a figure that is the same in all resamples, too, which has no interval of its own.
    spreads = [percentile_interval(figure.samples) for figure in figures]
    known = [spread for spread in spreads if spread is not None]
    if not grid or len(known) < len(grid):
        return None
    return FrocBand(fppi=list(grid), low=[low for low, _ in known], high=[high for _, high in known])


class CurveMaker:
    """Curves of one set of matched detections.

    Args:
        clusters: int (images,), the patient of each image.
    """

    def __init__(self, found: FlatDetections, lesions: FlatLesions, matches: Matches, clusters: Ints) -> None:
        self._found, self.lesions, self._matches, self._clusters = found, lesions, matches, clusters
        self._order = np.argsort(-found.scores, kind="stable")
        scores = found.scores[self._order]
        begins = np.append(True, scores[1:] != scores[:-1])[: len(scores)]
        self._run_start = np.maximum.accumulate(np.where(begins, np.arange(len(scores)), 0)) if len(scores) else begins

    def false_positives(self, images: Bools) -> FalsePositives:
        """Those on some of the images (images,), divided by the number of these."""
        image = self._found.images[self._order]
        is_false = (self._matches.lesion < 0) & ~self._matches.passed
        places = np.flatnonzero(is_false[self._order] & images[image])
        return FalsePositives(
            self._clusters[image[places]],
            self._run_start[places].astype(np.int64),
            self._clusters[np.flatnonzero(images)],
        )

    def curve(self, false: FalsePositives, lesions: Bools | None = None, grid: tuple[float, ...] = ()) -> Curve:
        """A curve over some of the lesions (lesions,), or all; those to ignore never count."""
        wanted = ~self.lesions.ignored if lesions is None else lesions & ~self.lesions.ignored
        lesion = self._matches.lesion[self._order]
        places = np.flatnonzero((lesion >= 0) & np.append(wanted, False)[lesion])
        return Curve(
            false,
            places,
            self._clusters[self.lesions.images[lesion[places]]],
            self._clusters[self.lesions.images[wanted]],
            grid,
        )

    def found_at(self, false: FalsePositives, fppi: float) -> tuple[Bools, float]:
        """bool (lesions,): which are found at so many false positives per image, and from which score on."""
        allowed = int(fppi * len(false.images) + _SLACK)
        bound = int(false.bounds[allowed]) if allowed < len(false.bounds) else len(self._order)
        kept, found = self._order[:bound], np.zeros(len(self.lesions), dtype=bool)
        found[self._matches.lesion[kept][self._matches.lesion[kept] >= 0]] = True
        return found, float(self._found.scores[kept[-1]]) if bound else 1.0

    def points(self, images: Bools) -> tuple[Floats, Floats, Floats]:
        """Thresholds, false positives per image and sensitivities of the whole curve, from nothing found on."""
        scores = self._found.scores[self._order]
        on_images = images[self._found.images[self._order]]
        hit = (self._matches.lesion >= 0)[self._order]
        false = ~hit & ~self._matches.passed[self._order] & on_images
        counted = hit | false
        scores, hit, false = scores[counted], hit[counted], false[counted]
        # Detections of one score stand or fall together: the curve has a point at the last of each run of equal ones.
        ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if scores.size else np.zeros(0, dtype=int)
        lesions = int((~self.lesions.ignored).sum())
        return (
            np.concatenate([[np.inf], scores[ends]]),
            np.concatenate([[0.0], np.cumsum(false)[ends] / max(int(images.sum()), 1)]),
            np.concatenate([[0.0], np.cumsum(hit)[ends] / max(lesions, 1)]),
        )


@dataclass(frozen=True, slots=True)
class Froc:
    """A FROC curve."""

    match: str  #: the rule by which a detection hits a lesion
    denominator: Denominator  #: the images on which false positives are counted
    thresholds: Floats  #: float (n,) falling; the curve starts at infinity with nothing found
    fppi: Floats  #: false positives per image at each
    sensitivity: Floats  #: share of lesions found at each
    #: lesions, images: how many were scored.
    lesions: int
    images: int

    def at(self, fppi: float) -> float | None:
        """Sensitivity at the lowest threshold that keeps to `fppi` false positives per image; None without lesions."""
        if not self.lesions or not self.images:
            return None
        within = self.fppi * self.images <= fppi * self.images + _SLACK
        return float(self.sensitivity[np.flatnonzero(within)].max(initial=0.0))

    @property
    def cpm(self) -> float | None:
        """Mean sensitivity at FPPI_POINTS; None without lesions."""
        known = [value for value in map(self.at, FPPI_POINTS) if value is not None]
        return sum(known) / len(known) if known else None

    def corners(self) -> FrocCurve:
        """Where the curve turns; the threshold is None for infinity."""
        rise = np.diff(self.sensitivity) > 0
        kept = np.flatnonzero(np.append(True, rise) | np.append(rise, True))
        if len(kept) > _MOST_POINTS:
            kept = kept[np.unique(np.linspace(0, len(kept) - 1, _MOST_POINTS).round().astype(int))]
        return FrocCurve(
            fppi=self.fppi[kept].tolist(),
            sensitivity=self.sensitivity[kept].tolist(),
            threshold=[None if np.isinf(value) else float(value) for value in self.thresholds[kept]],
        )


def froc(
    dataset: Dataset,
    predictions: Sequence[ImagePrediction],
    match: str = "iou@0.2",
    *,
    denominator: Denominator = "all images",
    count_seconds: bool = True,
) -> Froc:
    """The FROC curve over all images on which every lesion has a place, whatever the category.

    Args:
        predictions: one per image of the data set, in its order.
        match: `iou@T`, `mask_iou@T` or `center`; `mammodet.evaluation.matching.match_all` says the rest.
        denominator: one of DENOMINATORS.
        count_seconds: whether a second detection of a found lesion is a false positive; else it counts neither way.
    """
    found, lesions = flat_detections(dataset, predictions), flat_lesions(dataset)
    masks = masks_of(dataset, lesions) if match.startswith("mask") else None
    matches = match_all(found, lesions, match, masks=masks, count_seconds=count_seconds)
    maker = CurveMaker(found, lesions, matches, np.zeros(len(dataset.images), dtype=np.int64))
    return whole_curve(maker, dataset, lesions, match, denominator)


def whole_curve(
    maker: CurveMaker, dataset: Dataset, lesions: FlatLesions, match: str, denominator: Denominator
) -> Froc:
    """The curve of matched detections, with every point."""
    images = denominator_images(dataset, denominator)
    thresholds, fppi, sensitivity = maker.points(images)
    wanted = int((~lesions.ignored).sum())
    return Froc(match, denominator, thresholds, fppi, sensitivity, wanted, int(images.sum()))
