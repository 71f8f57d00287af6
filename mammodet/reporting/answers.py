"""The answers of a classifier beside the truth, in words; it has no boxes."""

from mammodet.evaluation.classes import in_order
from mammodet.records import ImagePrediction, ImageRecord
from mammodet.reporting.ranking import Verdict
from mammodet.targets import class_of


def judge_answer(record: ImageRecord, prediction: ImagePrediction) -> Verdict:
    """Compare the labels and classes of a prediction with those of its image.

    The error is the largest of |label - score| and of 1 - the probability of the true class.
    """
    faults: list[tuple[float, str, bool]] = []  # error, words, whether the answer is wrong
    for name, score in prediction.scores.items():
        truth = record.label(name)
        if truth is not None:
            words = f"{name} is {truth}, predicted {score:.2f}"
            faults.append((abs(truth - score), words, (score >= 0.5) != bool(truth)))
    for question, classes in prediction.class_scores.items():
        true = class_of(record, question)
        if true is not None:
            answer = answer_of(question, prediction)
            own = f", {true} {classes[true]:.2f}" if true in classes else ", which does not know the true one"
            words = f"{question} is {true}, predicted {answer} {classes[answer]:.2f}{own if answer != true else ''}"
            faults.append((1 - classes.get(true, 0.0), words, answer != true))
    if not faults:
        return Verdict(0.0, "not judged", "nothing on it that can be compared", False)
    error = min(max(fault[0] for fault in faults), 1.0)
    wrong = sorted((fault for fault in faults if fault[2]), key=lambda fault: -fault[0])
    if not wrong:
        return Verdict(error, "clean", "every answer is right", False)
    return Verdict(error, "image label", "; ".join(fault[1] for fault in wrong), False)


def answer_of(question: str, prediction: ImagePrediction) -> str:
    """The most probable class, the first in order of equal ones."""
    classes = prediction.class_scores[question]
    return max(in_order(question, tuple(classes)), key=lambda name: classes[name])


def truth_text(record: ImageRecord, prediction: ImagePrediction) -> str:
    """`ground truth: tumor 1 · density C`: the labels, and the classes that the prediction speaks of."""
    parts = [f"{name} {value}" for name, value in record.labels.items() if value is not None]
    answers = ((question, class_of(record, question)) for question in prediction.class_scores)
    parts += [f"{question} {name}" for question, name in answers if name is not None]
    return "ground truth: " + (" · ".join(parts) or "not known")


def answers_text(prediction: ImagePrediction) -> str:
    """`prediction: tumor 0.87 · density C (0.61)`."""
    parts = [f"{name} {score:.2f}" for name, score in prediction.scores.items()]
    for question, classes in prediction.class_scores.items():
        answer = answer_of(question, prediction)
        parts.append(f"{question} {answer} ({classes[answer]:.2f})")
    return "prediction: " + (" · ".join(parts) or "none")
