"""How wrong a prediction is for one image, so that the worst are looked at first.

This ranks pictures; it is not a metric. `mammodet.evaluation` measures, and what counts as found here follows its rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mammodet.errors import InputError
from mammodet.evaluation.flat import flat_detections, flat_lesions, lesion_rles
from mammodet.evaluation.matching import match_all, parse_rule
from mammodet.records import Dataset, ImagePrediction, ImageRecord, Lesion

DEFAULT_RULE = "iou@0.2"
Kind = Literal["missed lesion", "false positive", "second detection", "image label", "clean", "not judged"]


@dataclass(frozen=True, slots=True)
class Matches:
    """Which detection found which lesion.

    Attributes:
        found: detection to lesion, as positions in `detections` and in `record.lesions`.
        false: detections that found nothing, the strongest first; those on ignored regions are left out.
        second: detections on a lesion that another one found, whether or not they count as false.
    """

    found: dict[int, int]
    false: tuple[int, ...]
    second: frozenset[int]


@dataclass(frozen=True, slots=True)
class Missed:
    """A lesion that no detection found at the threshold; `score` is that of the best below it, None without one."""

    lesion: Lesion
    score: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with the prediction of one image.

    Attributes:
        error: the largest of the three errors, in [0, 1].
        kind: which one that is; `clean` where nothing is wrong at the threshold.
        reason: one sentence for a person.
        judged_boxes: whether lesions and false positives were compared at all.
        missed: lesions not found at the threshold.
        false_score: of the strongest false positive at or above the threshold; None without one. A second detection of
            a found lesion is none.
        second_score: of the strongest such second detection that the rule counts against the model; None without one.
    """

    error: float
    kind: Kind
    reason: str
    judged_boxes: bool
    missed: tuple[Missed, ...] = ()
    false_score: float | None = None
    second_score: float | None = None

    @property
    def is_clean(self) -> bool:
        """No lesion missed, no false positive at the threshold, the image label on the right side of 0.5."""
        return self.kind == "clean"


def match_detections(
    record: ImageRecord, prediction: ImagePrediction, rule: str = DEFAULT_RULE, *, count_seconds: bool = True
) -> Matches:
    """Match as the FROC curve does (`mammodet.evaluation.matching.match_all`); nothing on an unlocalized image.

    Args:
        record: lesions, ignored ones among them.
        prediction: of the same image.
        rule: `iou@T`, `mask_iou@T` or `center`.
        count_seconds: whether a second detection of a lesion is a false positive; else it counts neither way.
    Raises:
        InputError: another rule, or one that needs masks for a prediction without.
    """
    if not len(prediction.detections):
        return Matches({}, (), frozenset())
    dataset = Dataset(tuple(dict.fromkeys(lesion.category for lesion in record.lesions)), (record,))
    lesions, detections = flat_lesions(dataset), flat_detections(dataset, [prediction])
    try:
        masks = lesion_rles(dataset, lesions) if parse_rule(rule)[0] == "mask_iou" else None
        matched = match_all(detections, lesions, rule, masks=masks, count_seconds=count_seconds)
    except ValueError as error:
        raise InputError(f"image {record.file_name!r}: {error}") from None
    order = np.argsort(-prediction.detections.scores, kind="stable")[: len(detections)]
    false = np.flatnonzero((matched.lesion < 0) & ~matched.passed)
    return Matches(
        {int(order[row]): int(matched.lesion[row]) for row in np.flatnonzero(matched.lesion >= 0)},
        tuple(int(order[row]) for row in false),
        frozenset(int(order[row]) for row in np.flatnonzero((matched.lesion < 0) & (matched.overlapping >= 0))),
    )


def judge(
    record: ImageRecord,
    prediction: ImagePrediction,
    *,
    score_threshold: float = 0.3,
    label: str = "tumor",
    rule: str = DEFAULT_RULE,
    count_seconds: bool = True,
) -> Verdict:
    """Compare a prediction with the ground truth of its image.

    The error is the largest of

    - a missed lesion: 1 - the score of the detection matched to it (`match_detections`), 1 without any, for
      every lesion whose match is below `score_threshold`;
    - a false positive, and a second detection of a found lesion: the score of the strongest one;
    - the image label: |label - score|.

    On an image with a lesion without a place (`unlocalized`), only the image label is judged.

    Args:
        record: ground truth.
        prediction: of the same image.
        score_threshold: from which score a detection counts as made.
        label: name of the image label.
        rule, count_seconds: as in `match_detections`.
    """
    if not record.has_truth:
        return Verdict(0.0, "not judged", "no ground truth to compare with", False)
    faults: list[tuple[float, Kind, str, bool]] = []  # error, kind, words, wrong at the threshold
    missed: tuple[Missed, ...] = ()
    strongest: dict[Kind, float | None] = {}
    if not record.unlocalized:
        matches = match_detections(record, prediction, rule, count_seconds=count_seconds)
        missed = _missed(record, prediction, matches, score_threshold)
        faults += [(1 - (lesion.score or 0.0), "missed lesion", _missed_words(lesion), True) for lesion in missed]
        kinds: tuple[tuple[Kind, str], ...] = (
            ("false positive", "false positive"),
            ("second detection", "second detection of a found lesion,"),
        )
        for kind, words in kinds:
            is_second = kind == "second detection"
            scores = [prediction.detections.scores[i] for i in matches.false if (i in matches.second) == is_second]
            if scores:
                score = float(scores[0])
                faults.append((score, kind, f"{words} with score {score:.2f}", score >= score_threshold))
                strongest[kind] = score if score >= score_threshold else None
    truth, score_of_label = record.label(label), prediction.scores.get(label)
    if truth is not None and score_of_label is not None:
        words = f"image label: {label} is {truth}, predicted {score_of_label:.2f}"
        faults.append((abs(truth - score_of_label), "image label", words, (score_of_label >= 0.5) != bool(truth)))
    if not faults and record.unlocalized:
        return Verdict(0.0, "not judged", "nothing on it that can be compared", False)
    error = max((fault[0] for fault in faults), default=0.0)
    wrong = sorted((fault for fault in faults if fault[3]), key=lambda fault: -fault[0])
    judged_boxes = not record.unlocalized
    if not wrong:
        return Verdict(error, "clean", _praise(record), judged_boxes)
    reason = "; ".join(fault[2] for fault in wrong[:3])
    if len(wrong) > 3:
        reason += f"; and {len(wrong) - 3} more"
    if not judged_boxes:
        reason += " (boxes not judged: not every lesion has a place)"
    false, second = strongest.get("false positive"), strongest.get("second detection")
    return Verdict(error, wrong[0][1], reason, judged_boxes, missed, false, second)


def _missed(
    record: ImageRecord, prediction: ImagePrediction, matches: Matches, score_threshold: float
) -> tuple[Missed, ...]:
    best = {lesion: float(prediction.detections.scores[index]) for index, lesion in matches.found.items()}
    return tuple(
        Missed(lesion, best.get(position))
        for position, lesion in enumerate(record.lesions)
        if not lesion.ignore and best.get(position, -1.0) < score_threshold
    )


def _missed_words(missed: Missed) -> str:
    seen = "nothing found there" if missed.score is None else f"best matching score {missed.score:.2f}"
    return f"missed lesion ({describe(missed.lesion)}): {seen}"


def describe(lesion: Lesion) -> str:
    """Abnormality and pathology, or the category where neither is known."""
    values = [lesion.attributes.get(name) for name in ("abnormality", "pathology")]
    return ", ".join(str(value)[:60] for value in values if value not in (None, "")) or lesion.category


def _praise(record: ImageRecord) -> str:
    if record.unlocalized:
        return "the image label is right (boxes not judged: not every lesion has a place)"
    count = sum(not lesion.ignore for lesion in record.lesions)
    if not count:
        return "no lesion, and none reported"
    found = "the lesion was found" if count == 1 else f"all {count} lesions were found"
    return f"{found}, and nothing else"
