"""The part of the metrics that is about questions with several classes: density, BI-RADS, the archive's own class."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mammodet.evaluation.bootstrap import Bootstrap
from mammodet.evaluation.flat import Ints
from mammodet.evaluation.results import AllClasses, ClassResult, OneClass, QuestionResult, figure_names, fill
from mammodet.records import Dataset, ImagePrediction
from mammodet.targets import class_of

Floats = NDArray[np.float64]
FIGURES, CLASS_FIGURES = figure_names(AllClasses), figure_names(OneClass)
#: Classes that have an order, by question. BI-RADS 0 (incomplete) stands nowhere on its scale.
SCALES: Mapping[str, Sequence[Sequence[str]]] = {
    "density": (("A", "B", "C", "D"), ("1", "2", "3", "4"), ("I", "II", "III", "IV"), ("F", "G", "D")),
    "birads": (("1", "2", "3", "4", "4A", "4B", "4C", "5", "6"),),
}


class ClassFigures:
    """The figures of `AllClasses`, and of `OneClass` for each class.

    The predicted class is the most probable one; of equal ones the first in the classes' order.

    - `accuracy`; `balanced_accuracy`: mean recall of the classes that have cases.
    - `kappa`: agreement beyond chance (Cohen, 1960); `quadratic_kappa`: the same with a mistake weighing as the square
      of the steps between the two classes (Cohen, 1968); NaN without `ranks`.
    - `macro_precision`, `macro_f1`: means over the classes that have cases; the precision of a class
      that is never predicted counts as 0 there.
    - `macro_roc_auc`: mean of the classes' `roc_auc`, where it is defined.
    - `log_loss`: mean of -log of the probability of the true class; NaN where a true class is none of the model's.
    - of each class `precision` (NaN where it is never predicted), `recall` and `f1` (NaN without cases), `roc_auc`: its
      probability, its cases against all others (NaN without cases of both kinds, and of a class without probability).

    Args:
        truth: int (n,), position of the true class; from k on those that the model cannot answer, which are errors.
        probabilities: float (n, k), of the model's classes.
        clusters: int (n,), the patient of each case.
        ranks: place of each true class on a scale, those of the model first; None for classes without an order.
    """

    def __init__(
        self, truth: ArrayLike, probabilities: ArrayLike, clusters: ArrayLike, *, ranks: Sequence[int] | None = None
    ) -> None:
        positions, values = np.asarray(truth, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
        self._known = values.shape[1]
        self.n_classes = max(self._known, int(positions.max(initial=-1)) + 1, len(ranks or ()))
        self._clusters: Ints = np.asarray(clusters, dtype=np.int64)
        self._cells = positions * self._known + values.argmax(axis=1) if len(values) else positions
        self._ranks = None if ranks is None else np.asarray(ranks, dtype=np.float64)
        self._areas = _OneVersusRest(positions, values, self._clusters)
        self._surprise: Floats | None = None
        if not (positions >= self._known).any():
            chosen = values[np.arange(len(values)), positions]
            self._surprise = -np.log(np.clip(chosen, np.finfo(np.float64).eps, 1.0))

    def confusion(self, weights: Floats | None = None) -> Floats:
        """Weight of the cases by true class (rows, `n_classes`) and predicted class (columns, k)."""
        weight = None if weights is None else weights[self._clusters]
        counted = np.bincount(self._cells, weight, minlength=self.n_classes * self._known)
        return counted.astype(np.float64).reshape(self.n_classes, self._known)

    def row(self, weights: Floats) -> Floats:
        """Every figure for one set of weights (clusters,); NaN where it is not defined."""
        table = np.zeros((self.n_classes, self.n_classes))
        table[:, : self._known] = self.confusion(weights)
        total = float(table.sum())
        if not total:
            return np.full(len(FIGURES) + len(CLASS_FIGURES) * self.n_classes, np.nan)
        support, predicted, hits = table.sum(axis=1), table.sum(axis=0), np.diag(table)
        there = support > 0
        recall, precision = _ratio(hits, support), _ratio(hits, predicted)
        f1 = np.where(there, _ratio(2 * hits, support + predicted), np.nan)
        areas = np.full(self.n_classes, np.nan)
        areas[: self._known] = self._areas.row(weights)
        defined = areas[~np.isnan(areas)]
        chance = np.outer(support, predicted) / total
        over_all = {
            "accuracy": float(hits.sum()) / total,
            "balanced_accuracy": float(recall[there].mean()),
            "kappa": _kappa(table, chance, 1 - np.eye(self.n_classes)),
            "quadratic_kappa": np.nan,
            "macro_precision": float(np.nan_to_num(precision[there]).mean()),
            "macro_f1": float(f1[there].mean()),
            "macro_roc_auc": float(defined.mean()) if len(defined) else np.nan,
            "log_loss": np.nan,
        }
        if self._ranks is not None:
            over_all["quadratic_kappa"] = _kappa(table, chance, (self._ranks[:, None] - self._ranks) ** 2)
        if self._surprise is not None:
            over_all["log_loss"] = float((weights[self._clusters] * self._surprise).sum()) / total
        each = np.stack([precision, recall, f1, areas], axis=1)
        return np.concatenate([[over_all[name] for name in FIGURES], each.ravel()])


class _OneVersusRest:
    """ROC AUC of each class against all others; equal probabilities count half.

    Cases are sorted once, the most probable first, class after class in one flat array. A set of weights then needs
    its running sum over that array, and looks at the cases of each class alone: how much of the others ranks below.
    """

    def __init__(self, truth: Ints, probabilities: Floats, clusters: Ints) -> None:
        order = np.argsort(-probabilities.T, axis=1, kind="stable")
        values = np.take_along_axis(probabilities.T, order, axis=1)
        self._count, cases = values.shape
        first = np.ones(values.shape, dtype=bool)  # of a run of equal probabilities
        first[:, 1:] = values[:, 1:] != values[:, :-1]
        starts = np.append(np.flatnonzero(first), values.size)
        self._clusters = clusters[order].ravel()
        self._true = np.flatnonzero(truth[order] == np.arange(self._count)[:, None])
        self._owner = self._true // max(cases, 1)
        run = np.searchsorted(starts, self._true, side="right")
        # In the flat array, and among its true cases alone: begin and end of a case's run, and end of its class.
        self._marks: Sequence[Ints] = (starts[run - 1], starts[run], (self._owner + 1) * cases)
        self._true_marks: Sequence[Ints] = tuple(np.searchsorted(self._true, mark) for mark in self._marks)

    def row(self, weights: Floats) -> Floats:
        """Areas (classes,) for weights (clusters,)."""
        weight = weights[self._clusters[self._true]]
        every = _ranked_below(weights[self._clusters], self._marks)
        own = _ranked_below(weight, self._true_marks)
        positive = self._per_class(weight)
        total = float(weights[self._clusters[: len(self._clusters) // max(self._count, 1)]].sum())
        return _ratio(self._per_class(weight * (every - own)), positive * (total - positive))

    def _per_class(self, values: Floats) -> Floats:
        return np.bincount(self._owner, values, minlength=self._count).astype(np.float64)


def _ranked_below(weight: Floats, marks: Sequence[Ints]) -> Floats:
    """Weight between the end of a run and that of its class, and half of that in the run."""
    summed = np.append(0.0, np.cumsum(weight))
    begin, end, last = (summed[mark] for mark in marks)
    return last - end + (end - begin) / 2


def _ratio(part: Floats, whole: Floats) -> Floats:
    """NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _kappa(table: Floats, chance: Floats, cost: Floats) -> float:
    expected = float((cost * chance).sum())
    return 1 - float((cost * table).sum()) / expected if expected else float("nan")


def scale_ranks(question: str, classes: Sequence[str]) -> list[int] | None:
    """Place of each class on the scale of the question; None where the question, or one of the classes, has none.

    >>> scale_ranks("density", ("D", "A", "C"))
    [3, 0, 2]
    """
    for scale in SCALES.get(question, ()):
        if all(name.upper() in scale for name in classes):
            return [scale.index(name.upper()) for name in classes]
    return None


def in_order(question: str, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes in the order of their scale, else of their names: of equal probabilities the first one counts."""
    ranks = scale_ranks(question, classes)
    return (
        tuple(sorted(classes)) if ranks is None else tuple(one for _, one in sorted(zip(ranks, classes, strict=True)))
    )


def class_results(
    dataset: Dataset, predictions: Sequence[ImagePrediction], clusters: Ints, bootstrap: Bootstrap
) -> tuple[dict[str, QuestionResult], list[str]]:
    """Figures of every question that a model answers with classes, per image, and what a reader must know of them.

    Args:
        predictions: one per image of the data set, in its order.
        clusters: int (images,), the patient of each image.
    Raises:
        ValueError: two images have other classes of one question.
    """
    results: dict[str, QuestionResult] = {}
    notes: list[str] = []
    for question in dict.fromkeys(name for prediction in predictions for name in prediction.class_scores):
        own = _model_classes(question, predictions)
        truths = [class_of(record, question) for record in dataset.images]
        answers = [prediction.class_scores.get(question) for prediction in predictions]
        cases = [
            (position, truth, answer)
            for position, (truth, answer) in enumerate(zip(truths, answers, strict=True))
            if truth is not None and answer
        ]
        if not cases:
            notes.append(f"{question}: no image has both an answer and a known class, so that nothing is measured.")
            continue
        without_truth = sum(truth is None and bool(answer) for truth, answer in zip(truths, answers, strict=True))
        without_answer = sum(not answer for answer in answers)
        unknown = Counter(truth for _, truth, _ in cases if truth not in own)
        notes += _notes(question, without_truth, without_answer, unknown)
        classes = (*own, *sorted(unknown))
        place = {one: number for number, one in enumerate(classes)}
        ranks = scale_ranks(question, classes)
        measure = ClassFigures(
            [place[truth] for _, truth, _ in cases],
            [[answer[one] for one in own] for _, _, answer in cases],
            clusters[[position for position, _, _ in cases]],
            ranks=ranks,
        )
        figures = iter(bootstrap.figures(measure, question))
        table = measure.confusion().astype(int)
        results[question] = fill(
            QuestionResult,
            list(islice(figures, len(FIGURES))),
            n=len(cases),
            n_without_truth=without_truth,
            n_without_answer=without_answer,
            classes=list(own),
            true_classes=list(classes),
            ordered=ranks is not None,
            confusion=table.tolist(),
            per_class=[
                fill(
                    ClassResult,
                    list(islice(figures, len(CLASS_FIGURES))),
                    name=name,
                    support=int(table[number].sum()),
                    predicted=int(table[:, number].sum()) if number < len(own) else None,
                )
                for number, name in enumerate(classes)
            ],
        )
    return results, notes


def _notes(question: str, without_truth: int, without_answer: int, unknown: Mapping[str, int]) -> list[str]:
    notes = []
    if without_truth:
        notes.append(f"{question}: {without_truth} images do not say their class and are left out.")
    if without_answer:
        notes.append(f"{question}: {without_answer} images have no answer and are left out.")
    if unknown:
        listed = ", ".join(f"{name} ({unknown[name]})" for name in sorted(unknown))
        notes.append(
            f"{question}: {sum(unknown.values())} images are of a class that the model does not know, each of which "
            f"counts as an error: {listed}."
        )
    return notes


def _model_classes(name: str, predictions: Sequence[ImagePrediction]) -> tuple[str, ...]:
    """The classes that a model answers with: in the order of their scale, else in its own."""
    first: ImagePrediction | None = None
    for prediction in predictions:
        if not prediction.class_scores.get(name):
            continue
        first = first or prediction
        theirs = prediction.class_scores[name]
        if set(theirs) != set(first.class_scores[name]):
            raise ValueError(
                f"class scores of {name}: image {prediction.file_name!r} has the classes {sorted(theirs)}, image "
                f"{first.file_name!r} has {sorted(first.class_scores[name])}; expected the same for every image"
            )
    return in_order(name, tuple(first.class_scores[name])) if first else ()
