"""Several answers about one image joined into one: of flipped or resized versions, or of several detectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mammodet.config import DetectorConfig, DetectorModelConfig, ModelConfig, TestTimeConfig
from mammodet.engine.answers import to_float32
from mammodet.geometry import box_iou, mask_to_rle, rle_to_mask
from mammodet.modeling.second_boxes import inside_others, softened
from mammodet.records import Detections, ImagePrediction, ImageRecord, Rle
from mammodet.trace import Trace

_NESTED = 0.5  # of the smaller box's area in another one: of tiles, both are one lesion


@dataclass(frozen=True, slots=True)
class Look:
    """An image as a network sees it: float32 (C, H, W) in [0, 1], and the trace that leads back.

    `native` is the same in native pixels, where tiles are asked for and these are finer.
    """

    image: NDArray[np.float32]
    trace: Trace
    record: ImageRecord
    native: "Look | None" = None


@dataclass(frozen=True, slots=True)
class View:
    """A version of an image that a detector also looks at: flipped left-right, and resized by `scale`."""

    flip: bool = False
    scale: float = 1.0

    def of(self, look: Look) -> Look:
        """The image in this version; its trace leads back to the same native pixels."""
        steps = Trace(look.trace.output_size_hw)
        if self.flip:
            steps = steps.then("flip")
        if self.scale != 1:
            steps = steps.then("resize", *(max(round(side * self.scale), 1) for side in steps.native_size_hw))
        image = np.stack([steps.image_forward(channel) for channel in look.image])
        return replace(look, image=image, trace=replace(look.trace, steps=(*look.trace.steps, *steps.steps)))


def views_of(config: TestTimeConfig) -> list[View]:
    """All versions that a config asks for."""
    return [View(flip, scale) for scale in config.scales for flip in ((False, True) if config.flip else (False,))]


def tiles_of(look: Look, side: int) -> list[Look]:
    """Tiles of an image's native pixels, none of them empty; each lesion up to a quarter of `side` is whole in one."""
    native = look.native
    if native is None:
        return []
    height, width = native.trace.output_size_hw
    tiles = []
    for top in _starts(height, side):
        for left in _starts(width, side):
            image = native.image[:, top : top + side, left : left + side]
            if image.max() > 0.05:
                trace = native.trace.then("crop", left, top, image.shape[2], image.shape[1])
                tiles.append(Look(np.ascontiguousarray(image), trace, native.record))
    return tiles


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin: evenly spaced, overlapping by a quarter of their side or more."""
    count = int(np.ceil(max(length - side, 0) / (0.75 * side))) + 1
    return [round(start) for start in np.linspace(0, max(length - side, 0), count)]


def with_tiles(whole: ImagePrediction, looks: Sequence[Look], answers: Sequence[ImagePrediction]) -> ImagePrediction:
    """An answer with the detections of tiles, too; its scores of the image stay.

    What touches a seam may be a part of a lesion: another tile or the whole image has it whole. Of nested or
    overlapping detections the strongest stays.

    Args:
        looks: the tiles, and what was answered for each.
    """
    parts = [whole.detections]
    if looks:
        borders = np.array([look.trace.boxes_backward([(0, 0, *look.image.shape[:0:-1])])[0] for look in looks])
        outer = np.concatenate([borders[:, :2].min(axis=0), borders[:, 2:].max(axis=0)])
        for border, answer in zip(borders, answers, strict=True):
            boxes = answer.detections.boxes_xyxy
            cut = (np.abs(boxes - border) < 0.01 * (border[2] - border[0])) & (np.abs(border - outer) > 1)
            parts.append(answer.detections.at(np.flatnonzero(~cut.any(axis=1))))
    joined = Detections.joined(parts, with_masks=whole.detections.rles is not None).in_order()
    nested = inside_others(joined.boxes_xyxy, joined.category_ids, _NESTED)
    return replace(whole, detections=joined.at(np.flatnonzero(~nested)))


def fuse(answers: Sequence[ImagePrediction], iou: float) -> ImagePrediction:
    """One answer: the mean of the images' scores, and fused detections.

    Args:
        answers: about the same image, at least one.
        iou: box IoU from which on detections are taken for one.
    """
    if len(answers) == 1:
        return answers[0]
    return replace(mean_of(answers), detections=fuse_detections([answer.detections for answer in answers], iou))


def fused(parts: Sequence[Sequence[ImagePrediction]], model: ModelConfig, *, soften: bool) -> list[ImagePrediction]:
    """Answers of several versions or models about the same images as one each; with `soften` by `soften_answer`."""
    answers = [fuse(each, model.test_time.fuse_iou) for each in zip(*parts, strict=True)]
    if soften and isinstance(model, DetectorModelConfig):
        return [soften_answer(each, model.detector) for each in answers]
    return answers


def fuse_detections(parts: Sequence[Detections], iou: float) -> Detections:
    """Fused boxes of several answers, after weighted boxes fusion (Solovyev et al., Image and Vision Computing 2021).

    The strongest detection that is left leads a cluster: all of its category that overlap it by more than `iou`. Each
    answer speaks with its strongest detection in the cluster, so that its weaker ones beside it do not pull the score
    down. Box: their mean, weighted by their scores. Score: their sum over the number of answers. Mask: the pixels with
    at least half of the weight.
    """
    with_masks = all(part.rles is not None for part in parts)
    found = Detections.joined(parts, with_masks=with_masks)
    boxes, scores, categories, rles = found.boxes_xyxy, found.scores, found.category_ids, found.rles or ()
    sources = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    order = np.argsort(-scores, kind="stable")
    left = np.ones(len(boxes), dtype=bool)
    clusters: list[NDArray[np.intp]] = []
    for index in order:
        if not left[index]:
            continue
        near = box_iou(boxes[index : index + 1], boxes)[0] > iou
        members = order[(left & near & (categories == categories[index]))[order]]  # the strongest first
        members = members if len(members) else np.array([index])  # a box without area overlaps not even itself
        left[members] = False
        _, firsts = np.unique(sources[members], return_index=True)
        clusters.append(members[np.sort(firsts)])
    if not clusters:
        return Detections.empty(with_masks=with_masks)
    joined = np.array([to_float32(scores[cluster].sum() / len(parts)) for cluster in clusters])
    ranked = [clusters[place] for place in np.argsort(-joined, kind="stable")]
    masks = [_fused_mask([rles[index] for index in cluster], scores[cluster]) for cluster in ranked] if rles else None
    return Detections(
        np.stack([_weighted(boxes[cluster], scores[cluster]) for cluster in ranked]),
        -np.sort(-joined, kind="stable"),
        np.array([categories[cluster[0]] for cluster in ranked], dtype=np.int64),
        masks,
    )


def soften_answer(answer: ImagePrediction, config: DetectorConfig) -> ImagePrediction:
    """An answer whose detections are softened as `soft_nms_sigma` says; the image's scores stay."""
    found = answer.detections
    if config.soft_nms_sigma is None or not len(found):
        return answer
    scores = softened(found.boxes_xyxy, found.category_ids, found.scores, config.soft_nms_sigma)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= config.score_threshold]
    exact = np.array([to_float32(score) for score in scores[order]], dtype=np.float64)
    return replace(answer, detections=replace(found.at(order), scores=exact))


def _weighted(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the first axis; equal weights where all are 0."""
    mean: NDArray[np.float64] = np.average(values, axis=0, weights=weights if weights.sum() > 0 else None)
    return mean


def _fused_mask(rles: Sequence[Rle], scores: NDArray[np.float64]) -> Rle:
    if len(rles) == 1:
        return rles[0]
    return mask_to_rle(_weighted(np.stack([rle_to_mask(rle) for rle in rles]).astype(np.float64), scores) >= 0.5)


def mean_of(answers: Sequence[ImagePrediction]) -> ImagePrediction:
    """The mean of several answers' probabilities for one image."""
    first = answers[0]
    return replace(
        first,
        scores=_mean([answer.scores for answer in answers]),
        scores_by_rule={
            rule: _mean([answer.scores_by_rule[rule] for answer in answers]) for rule in first.scores_by_rule
        },
        class_scores={name: _mean([answer.class_scores[name] for answer in answers]) for name in first.class_scores},
    )


def _mean(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: to_float32(sum(each[name] for each in scores) / len(scores)) for name in scores[0]}
