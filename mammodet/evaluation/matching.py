"""Which detection finds which lesion, for all images at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from mammodet.errors import InputError
from mammodet.evaluation.flat import Bools, FlatDetections, FlatLesions, Ints
from mammodet.geometry import as_boxes, box_area, box_iou
from mammodet.records import Rle

Floats = NDArray[np.float64]
#: Pairs that are looked at in one go, and most that may touch: they bound the memory (about 500 MB).
_BLOCK, _MOST_PAIRS = 2**20, 5 * 10**6
_BLOCK_MASKS = 2**12
MATCH_RULES = ("iou@0.1", "iou@0.2", "iou@0.5", "center", "mask_iou@0.5")  # reported beside the chosen one


def parse_rule(match: str) -> tuple[str, float]:
    """`iou@T` and `mask_iou@T` with 0 < T <= 1, or `center`, as (kind, T). Raises ValueError: anything else."""
    kind, _, digits = match.partition("@")
    if match == "center":
        return "center", 0.0
    try:
        threshold = float(digits)
    except ValueError:
        threshold = 0.0
    if kind not in ("iou", "mask_iou") or not 0 < threshold <= 1:
        raise ValueError(
            f"match rule {match!r}: expected center, iou@T or mask_iou@T with T above 0 and at most 1, as in iou@0.2"
        )
    return kind, threshold


def match_quality(boxes: NDArray[np.float64], lesions: NDArray[np.float64], match: str) -> Floats:
    """How well each box (n, 4) fits each lesion's box (m, 4): (n, m), 0 where it is no match.

    Under `center` a match is a centre inside the lesion's box, and the nearer centre fits better.

    Args:
        match: `iou@T` or `center`.
    """
    kind, threshold = parse_rule(match)
    if kind == "center":
        first, second = np.meshgrid(np.arange(len(boxes)), np.arange(len(lesions)), indexing="ij")
        fit = _centre_quality(as_boxes(boxes)[first.ravel()], as_boxes(lesions)[second.ravel()])
        return fit.reshape(len(boxes), len(lesions))
    if kind != "iou":
        raise ValueError(f"match rule {match!r}: needs masks; expected iou@T or center for boxes")
    overlap = box_iou(boxes, lesions)
    return np.where(overlap >= threshold, overlap, 0.0)


def _centre_quality(boxes: Floats, lesions: Floats) -> Floats:
    """Of pairs of boxes (n, 4) and (n, 4): (n,)."""
    centres, middles = (boxes[:, :2] + boxes[:, 2:]) / 2, (lesions[:, :2] + lesions[:, 2:]) / 2
    inside = ((centres >= lesions[:, :2]) & (centres <= lesions[:, 2:])).all(axis=1)
    size = np.sqrt(np.maximum(box_area(lesions), 1e-9))
    return np.where(inside, 1 / (1 + np.linalg.norm(centres - middles, axis=1) / size), 0.0)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Every detection beside each lesion of its group (an image, or a category on an image) that it touches."""

    #: found, lesion: int (p,), positions; sorted by `found`, within it by `lesion`.
    found: Ints
    lesion: Ints
    #: start, count: int (n,): which rows belong to each detection.
    start: Ints
    count: Ints

    def where(self, kept: Bools) -> "Pairs":
        """Some of the pairs (p,)."""
        count = np.bincount(self.found[kept], minlength=len(self.count)).astype(np.int64)
        return Pairs(self.found[kept], self.lesion[kept], np.cumsum(count) - count, count)


def make_pairs(found_groups: Ints, lesion_groups: Ints, found_boxes: Floats, lesion_boxes: Floats) -> Pairs:
    """Pairs of equal group number whose boxes (xyxy) share a point, if only of their borders.

    Raises InputError: more than `_MOST_PAIRS`.
    """
    order = np.argsort(lesion_groups, kind="stable")
    ranked = lesion_groups[order]
    first = np.searchsorted(ranked, found_groups, "left")
    beside = np.searchsorted(ranked, found_groups, "right") - first
    parts: list[tuple[Ints, Ints]] = []
    blocks = np.cumsum(beside) // _BLOCK
    total = 0
    for rows in np.split(np.arange(len(found_groups)), np.flatnonzero(np.diff(blocks)) + 1):
        found = np.repeat(rows, beside[rows])
        begins = np.cumsum(beside[rows]) - beside[rows]
        lesion = order[first[found] + np.arange(len(found)) - np.repeat(begins, beside[rows])]
        one, two = found_boxes[found], lesion_boxes[lesion]
        touch = ((one[:, :2] <= two[:, 2:]) & (two[:, :2] <= one[:, 2:])).all(axis=1)
        parts.append((found[touch], lesion[touch]))
        total += int(touch.sum())
        if total > _MOST_PAIRS:
            raise InputError(
                f"more than {_MOST_PAIRS} pairs of a detection and a lesion that touch; expected fewer: "
                "keep the strongest few hundred detections of each image"
            )
    found, lesion = (np.concatenate([np.zeros(0, dtype=np.int64), *part]) for part in zip(*parts, strict=True))
    count = np.bincount(found, minlength=len(found_groups)).astype(np.int64)
    return Pairs(found, lesion, np.cumsum(count) - count, count)


def hulls(boxes_xyxy: Floats, masks: Sequence[Rle] | None) -> Floats:
    """Boxes (n, 4), widened to hold their masks: other programs' boxes may leave theirs out."""
    if not masks:
        return boxes_xyxy
    widened = boxes_xyxy.copy()
    for start in range(0, len(masks), _BLOCK_MASKS):  # for a mask is large while it is looked at
        rows = slice(start, start + _BLOCK_MASKS)
        block = [masks[row] for row in range(len(masks))[rows]]
        own = np.asarray(coco_mask.toBbox(block)).reshape(-1, 4)
        widened[rows, :2] = np.minimum(boxes_xyxy[rows, :2], own[:, :2])
        widened[rows, 2:] = np.maximum(boxes_xyxy[rows, 2:], own[:, :2] + own[:, 2:])
    return widened


def pair_box_iou(found_xywh: Floats, lesion_xywh: Floats, crowd: Bools) -> Floats:
    """IoU (p,) of pairs of boxes, in the arithmetic of pycocotools; for a crowd, the share of the detection inside."""
    low = np.maximum(found_xywh[:, :2], lesion_xywh[:, :2])
    high = np.minimum(found_xywh[:, 2:] + found_xywh[:, :2], lesion_xywh[:, 2:] + lesion_xywh[:, :2])
    sides = np.maximum(high - low, 0)
    shared = sides[:, 0] * sides[:, 1]
    area, other = found_xywh[:, 2] * found_xywh[:, 3], lesion_xywh[:, 2] * lesion_xywh[:, 3]
    union = np.where(crowd, area, area + other - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def pair_mask_iou(pairs: Pairs, found: Sequence[Rle], lesions: Sequence[Rle], crowd: Bools) -> Floats:
    """IoU (p,) of pairs of masks, by pycocotools; for a crowd (per lesion), the share of the detection inside."""
    values = np.zeros(len(pairs.found))

    def beside(row: np.int64) -> tuple[int, ...]:
        return tuple(pairs.lesion[pairs.start[row] : pairs.start[row] + pairs.count[row]].tolist())

    # one call for a run of detections that touch the same lesions
    for targets, run in groupby(np.flatnonzero(pairs.count > 0), beside):
        rows = [int(row) for row in run]
        regions = [int(crowd[row]) for row in targets]
        overlap = coco_mask.iou([found[row] for row in rows], [lesions[row] for row in targets], regions)
        start = pairs.start[rows[0]]
        values[start : start + len(rows) * len(targets)] = np.asarray(overlap).ravel()
    return values


def rank_within(groups: Ints) -> Ints:
    """Position (n,) of each row among the rows of its group, in the order in which they stand."""
    order = np.argsort(groups, kind="stable")
    ranked = groups[order]
    begins = np.concatenate([[True], ranked[1:] != ranked[:-1]]) if len(ranked) else np.zeros(0, dtype=bool)
    first = np.maximum.accumulate(np.where(begins, np.arange(len(ranked)), 0)) if len(ranked) else ranked
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[order] = np.arange(len(ranked)) - first
    return ranks


def rounds(pairs: Pairs, groups: Ints, scores: Floats | None = None) -> list[Ints]:
    """Detections that have a lesion beside them, divided so that each group gives one to each round, in its order.

    Args:
        scores: with them, each group gives all of one score to each round.
    """
    rows = np.flatnonzero(pairs.count > 0)
    if scores is None:
        ranks = rank_within(groups[rows])
    else:
        # rows of a group stand together, in falling order of score
        begins = np.append(True, (np.diff(groups[rows]) != 0) | (np.diff(scores[rows]) != 0))[: len(rows)]
        runs = np.cumsum(begins) - 1
        ranks = rank_within(groups[rows[begins]])[runs]
    order = np.argsort(ranks, kind="stable")
    ends = np.cumsum(np.bincount(ranks))
    return [part for part in np.split(rows[order], ends) if len(part)]


def pair_rows(pairs: Pairs, rows: Ints) -> tuple[Ints, Ints]:
    """The pairs of some detections, and where each detection's begin among them."""
    count = pairs.count[rows]
    begins = np.cumsum(count) - count
    within = np.arange(int(count.sum())) - np.repeat(begins, count)
    return np.repeat(pairs.start[rows], count) + within, begins


def assign(pairs: Pairs, groups: Ints, scores: Floats, quality: Floats, n_lesions: int) -> Ints:
    """The lesion that each detection takes: its best among those still free, each group's strongest detections first.

    Of detections of one score in a group none comes first: as many as can be find a lesion each, and of all ways to do
    so the one of the greatest summed quality is taken.

    Args:
        groups, scores: of each detection, sorted by falling score within a group.
        quality: (p,) of each pair, in [0, 1], 0 where it is no match; of equal ones, the first lesion is taken.
    Returns:
        int (n,), -1 where no lesion is taken.
    """
    taken = np.full(len(groups), -1, dtype=np.int64)
    free = np.ones(n_lesions, dtype=bool)
    pairs, quality = pairs.where(quality > 0), quality[quality > 0]
    for rows in rounds(pairs, groups, scores):
        places, begins = pair_rows(pairs, rows)
        fit = np.where(free[pairs.lesion[places]], quality[places], 0.0)
        best = np.maximum.reduceat(fit, begins)
        count = pairs.count[rows]
        is_best = (fit == np.repeat(best, count)) & (fit > 0)
        place = np.minimum.reduceat(np.where(is_best, np.arange(len(fit)), len(fit)), begins)
        hit = best > 0
        rows, lesion = rows[hit], pairs.lesion[places[place[hit]]]
        # Two of one score want the same lesion: the whole run of that score in that group is looked at again.
        contested = np.isin(groups[rows], groups[rows][_repeated(lesion)])
        again = rows[contested]  # those of a group stand together
        for run in np.split(again, np.flatnonzero(np.diff(groups[again])) + 1) if len(again) else ():
            places, _ = pair_rows(pairs, run)
            places = places[free[pairs.lesion[places]]]
            chosen = _largest_matching(pairs.found[places], pairs.lesion[places], quality[places])
            taken[pairs.found[places[chosen]]] = pairs.lesion[places[chosen]]
            free[pairs.lesion[places[chosen]]] = False
        taken[rows[~contested]] = lesion[~contested]
        free[lesion[~contested]] = False
    return taken


def _repeated(values: Ints) -> Bools:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray(counts[places] > 1, dtype=bool)


def _largest_matching(found: Ints, lesion: Ints, quality: Floats) -> Ints:
    """Which pairs (p,) make the largest matching, and of those of that size the one of the greatest summed quality."""
    # here, since importing SciPy takes a while, and most files have no two equal scores that want one lesion
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    rows, first = np.unique(found, return_inverse=True)
    columns, second = np.unique(lesion, return_inverse=True)
    # Each detection also has a place of its own, so dear that it is taken only where no lesion is left.
    own = np.arange(len(rows))
    cost = np.concatenate([2 - quality, np.full(len(rows), 2.0 * len(rows) + 2)])
    places = (np.concatenate([first, own]), np.concatenate([second, len(columns) + own]))
    graph = csr_array((cost, places), shape=(len(rows), len(columns) + len(rows)))
    one, two = min_weight_full_bipartite_matching(graph)
    real = two < len(columns)
    keys = first * len(columns) + second
    return np.flatnonzero(np.isin(keys, one[real].astype(np.int64) * len(columns) + two[real]))


@dataclass(frozen=True, slots=True)
class Matches:
    """What became of each detection under a match rule."""

    lesion: Ints  #: int (n,), position of the lesion that it finds; -1 for none
    #: bool (n,): finds none and lies on a region to ignore (or is a second detection, where those are not counted):
    #: counts neither way.
    passed: Bools
    overlapping: Ints  #: int (n,), the lesion that it fits best, free or not; -1 for none


def match_all(
    found: FlatDetections,
    lesions: FlatLesions,
    match: str,
    *,
    masks: Sequence[Rle] | None = None,
    count_seconds: bool = True,
) -> Matches:
    """Match detections to lesions, whatever their categories.

    The highest-scoring detection takes its best free lesion; each lesion is found once. Detections of one score find as
    many lesions as they can (`assign`). A detection that finds none and matches an ignored region, or has its centre in
    one, counts neither way.

    Args:
        masks: of the lesions, for the rule `mask_iou@T`.
        count_seconds: whether a second detection of a found lesion is a false positive; else it counts neither way.
    Raises:
        ValueError: a rule that needs masks where there are none.
    """
    with_masks = parse_rule(match)[0] == "mask_iou"
    pairs = make_pairs(
        found.images,
        lesions.images,
        hulls(found.boxes_xyxy, found.rles if with_masks else None),
        hulls(lesions.boxes_xyxy, masks if with_masks else None),
    )
    quality = _quality(pairs, found, lesions, match, masks)
    ignored = lesions.ignored[pairs.lesion]
    taken = assign(pairs, found.images, found.scores, np.where(ignored, 0.0, quality), len(lesions))
    # A region can be much larger than any detection inside it, so that their IoU alone says nothing.
    centred = _centre_quality(found.boxes_xyxy[pairs.found], lesions.boxes_xyxy[pairs.lesion]) > 0
    on_ignored = np.zeros(len(found), dtype=bool)
    on_ignored[pairs.found[ignored & ((quality > 0) | centred)]] = True
    overlapping = assign_each(pairs, np.where(ignored, 0.0, quality))
    passed = on_ignored if count_seconds else on_ignored | (overlapping >= 0)
    return Matches(taken, passed & (taken < 0), overlapping)


def assign_each(pairs: Pairs, quality: Floats) -> Ints:
    """The lesion that each detection fits best, whether others take it or not; -1 for none."""
    best = np.full(len(pairs.start), -1, dtype=np.int64)
    order = np.lexsort((-pairs.lesion, quality))  # the best last, so that it stays
    order = order[quality[order] > 0]
    best[pairs.found[order]] = pairs.lesion[order]
    return best


def _quality(
    pairs: Pairs, found: FlatDetections, lesions: FlatLesions, match: str, masks: Sequence[Rle] | None
) -> Floats:
    kind, threshold = parse_rule(match)
    first, second = found.boxes_xyxy[pairs.found], lesions.boxes_xyxy[pairs.lesion]
    if kind == "center":
        return _centre_quality(first, second)
    if kind == "mask_iou":
        if found.rles is None or masks is None:
            raise ValueError(f"match rule {match!r}: the predictions hold no masks; choose iou@T or center")
        overlap = pair_mask_iou(pairs, found.rles, masks, np.zeros(len(lesions), dtype=bool))
    else:
        shared = np.clip(np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2]), 0, None)
        area = shared.prod(axis=1)
        union = box_area(first) + box_area(second) - area
        overlap = np.divide(area, union, out=np.zeros_like(area), where=union > 0)
    return np.where(overlap >= threshold, overlap, 0.0)
