"""The report's pictures: missed lesions, false positives, second detections, wrong labels, images without an error."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammodet.records import Dataset, ImagePrediction, ImageRecord
from mammodet.reporting import answers
from mammodet.reporting.answers import judge_answer
from mammodet.reporting.gallery import ImageReader, encode, shrink
from mammodet.reporting.overlay import OverlayOptions, facts_text, prediction_text, side_by_side, truth_text
from mammodet.reporting.ranking import Missed, Verdict, describe, judge
from mammodet.reporting.tables import Cell, Table

Judged = tuple[ImageRecord, ImagePrediction, Verdict]

MOST_MISSED_LISTED = 200
LABEL = "tumor"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which images are shown: an image is in the first list that it belongs to, worst first."""

    missed: list[Judged]
    false: list[Judged]
    second: list[Judged]
    label: list[Judged]
    clean: list[Judged]

    def __iter__(self) -> Any:
        return iter((self.missed, self.false, self.second, self.label, self.clean))


def judge_all(
    dataset: Dataset,
    predictions: Sequence[ImagePrediction],
    *,
    score_threshold: float,
    rule: str,
    count_seconds: bool = True,
) -> list[Judged]:
    """Each image with its prediction (one per image, in the data set's order) and what is wrong about that."""
    options: dict[str, Any] = {"score_threshold": score_threshold, "rule": rule, "count_seconds": count_seconds}
    return [
        (record, prediction, judge(record, prediction, label=LABEL, **options))
        for record, prediction in zip(dataset.images, predictions, strict=True)
    ]


def judge_answers(dataset: Dataset, predictions: Sequence[ImagePrediction]) -> list[Judged]:
    """As `judge_all`, of a classifier, which has no boxes: with the answers that are wrong."""
    return [
        (record, prediction, judge_answer(record, prediction))
        for record, prediction in zip(dataset.images, predictions, strict=True)
    ]


def choose_gallery(judged: Sequence[Judged], size: int) -> Choice:
    """The worst images of each kind, and clean ones, with lesions and without in turn.

    Args:
        judged: images with prediction and verdict.
        size: of all lists together. A quarter is for clean images, where there are so many; of the rest, missed
            lesions take up to a half before false positives take up to a half of what is left, then second
            detections, then wrong labels; what one kind does not need goes to the others.
    """
    clean = _clean(judged)[: max(0, size) // 4]
    room = max(0, size) - len(clean)
    kinds = [_missed(judged), _false(judged), _second(judged), _wrong_label(judged)]
    taken = [0, 0, 0, 0]
    for position, kind in enumerate(kinds):
        others = sum(len(other) for other in kinds[position + 1 :])
        left = room - sum(taken)
        taken[position] = min(len(kind), max((left + 1) // 2, left - others))
    missed, false, second, label = (kind[:count] for kind, count in zip(kinds, taken, strict=True))
    return Choice(missed, false, second, label, clean)


def _missed(judged: Sequence[Judged]) -> list[Judged]:
    """Images with a missed lesion, that which was seen least first."""

    def lowest(item: Judged) -> float:
        return min(missed.score or 0.0 for missed in item[2].missed)

    return sorted((item for item in judged if item[2].missed), key=lambda item: (lowest(item), item[0].file_name))


def _false(judged: Sequence[Judged]) -> list[Judged]:
    """Images without a missed lesion but with a false positive, the strongest first."""
    found = [item for item in judged if not item[2].missed and item[2].false_score is not None]
    return sorted(found, key=lambda item: (-(item[2].false_score or 0.0), item[0].file_name))


def _second(judged: Sequence[Judged]) -> list[Judged]:
    """Images with a second detection of a found lesion, but no other fault of boxes, the strongest first."""
    alone = [item for item in judged if not item[2].missed and item[2].false_score is None]
    found = [item for item in alone if item[2].second_score is not None]
    return sorted(found, key=lambda item: (-(item[2].second_score or 0.0), item[0].file_name))


def _wrong_label(judged: Sequence[Judged]) -> list[Judged]:
    """Images on which only the label is wrong, the furthest from the truth first."""
    found = [item for item in judged if item[2].kind == "image label" and not item[2].missed]
    alone = [item for item in found if item[2].false_score is None and item[2].second_score is None]
    return sorted(alone, key=lambda item: (-item[2].error, item[0].file_name))


def _clean(judged: Sequence[Judged]) -> list[Judged]:
    """Images without an error, the clearest first, with lesions and without in turn."""
    right = sorted((item for item in judged if item[2].is_clean), key=lambda item: item[2].error)
    turns = {True: 0, False: 0}
    placed = []
    for item in right:
        has_lesions = bool(item[0].lesions)
        placed.append((turns[has_lesions], not has_lesions, item))
        turns[has_lesions] += 1
    return [entry[2] for entry in sorted(placed, key=lambda entry: entry[:2])]


#: The kinds of pictures, in words, and the images of each.
PICTURES: dict[str, tuple[str, Callable[[Sequence[Judged]], list[Judged]]]] = {
    "missed": ("with a missed lesion", _missed),
    "false": ("with a false positive and no missed lesion", _false),
    "second": ("whose only fault of boxes is a second detection", _second),
    "label": ("on which only the answer is wrong", _wrong_label),
    "clean": ("without an error", _clean),
}


def gallery(
    judged: Sequence[Judged], choice: Choice, reader: ImageReader, options: OverlayOptions, *, budget: int
) -> dict[str, Any]:
    """One model's gallery, its pictures of `budget` bytes: cards, how many images of each kind, every missed lesion."""
    all_missed = [(record, missed) for record, _, verdict in _missed(judged) for missed in verdict.missed]
    lesions = sum(
        not lesion.ignore for record, _, verdict in judged if verdict.judged_boxes for lesion in record.lesions
    )
    cards = [[_card(*item, reader=reader, options=options, budget=budget) for item in part] for part in choice]
    rows = tuple(_missed_row(record, missed) for record, missed in all_missed[:MOST_MISSED_LISTED])
    return {
        "of_answers": not options.detects,
        "missed": cards[0],
        "false": cards[1],
        "second": cards[2],
        "label": cards[3],
        "clean": cards[4],
        "n_judged": sum(verdict.kind != "not judged" for _, _, verdict in judged),
        "n_lesions": lesions,
        "n_missed": len(all_missed),
        "n_missed_images": len(_missed(judged)),
        "n_false": len(_false(judged)),
        "n_second": len(_second(judged)),
        "n_label": len(_wrong_label(judged)),
        "n_clean": len(_clean(judged)),
        "listed": Table(("file", "image", "lesion"), ("width x height", "best score there"), rows),
    }


def _missed_row(record: ImageRecord, missed: Missed) -> tuple[tuple[str, ...], tuple[Cell, ...]]:
    x1, y1, x2, y2 = missed.lesion.box_xyxy
    size = f"{x2 - x1:.0f} x {y2 - y1:.0f} px"
    if record.spacing_mm_rc is not None:
        row_mm, column_mm = record.spacing_mm_rc
        size = f"{(x2 - x1) * column_mm:.1f} x {(y2 - y1) * row_mm:.1f} mm"
    names = (record.file_name, facts_text(record), describe(missed.lesion))
    return names, (size, "nothing there" if missed.score is None else missed.score)


def _card(
    record: ImageRecord,
    prediction: ImagePrediction,
    verdict: Verdict,
    *,
    reader: ImageReader,
    options: OverlayOptions,
    budget: int,
) -> dict[str, Any]:
    card: dict[str, Any] = {
        "file_name": record.file_name,
        "facts": facts_text(record),
        "truth": truth_text(record) if options.detects else answers.truth_text(record, prediction),
        "prediction": prediction_text(prediction, options),
        "verdict": verdict,
        "error": f"{verdict.error:.2f}",
        "picture": None,
        "failure": "",
    }
    try:
        picture = side_by_side(reader(record), record, prediction, options)
    except (OSError, ValueError) as error:
        card["failure"] = str(error)
        return card
    card["height"], card["width"] = picture.shape[:2]
    card["picture"] = "data:image/jpeg;base64," + base64.b64encode(_small_jpeg(picture, budget)).decode("ascii")
    return card


def _small_jpeg(picture: NDArray[np.uint8], budget: int) -> bytes:
    """JPEG of at most about `budget` bytes: coarser first, then smaller."""
    for quality in (86, 76, 64, 50):
        content = encode(picture, quality=quality)
        if len(content) <= budget:
            return content
    while len(content) > budget and picture.shape[1] > 300:
        picture = shrink(picture, int(picture.shape[1] * 0.75))
        content = encode(picture, quality=50)
    return content
