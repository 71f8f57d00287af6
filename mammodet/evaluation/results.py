"""The results of an evaluation, as `metrics.json` holds them: a tree of records whose leaves are figures.

Everything that shows a result reads these records. The title of a field is the head of its column. A field that is
None was not measured; a figure whose value is None was, and is not defined on this data (docs/evaluation.md).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PrivateAttr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from mammodet.errors import InputError, faults_of, raise_faults
from mammodet.files import read_json

FORMAT: Literal["mammodet-metrics/3"] = "mammodet-metrics/3"
Level = Literal["image", "breast", "patient"]
LEVELS: tuple[Level, ...] = ("image", "breast", "patient")
Kind = Literal["detector", "classifier"]
Denominator = Literal["all images", "normal images", "positive images"]
Duplicates = Literal["false positive", "ignored"]
#: Said wherever a detector has figures of places.
NO_BOXES = "A classifier gives no boxes: it has no AP, no FROC and no outlines."


class Record(BaseModel):
    """A part of the results: frozen, without keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(Record):
    """A number with its 95 % interval; the value is None where it is not defined.

    A figure that was just measured also holds its value in each resample of the patients, (resamples,).
    """

    value: FiniteFloat | None
    ci95: tuple[FiniteFloat, FiniteFloat] | None = None
    _samples: NDArray[np.float64] = PrivateAttr(default_factory=lambda: np.zeros(0))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Figure) and (self.value, self.ci95) == (other.value, other.ci95)

    @property
    def samples(self) -> NDArray[np.float64]:
        return self._samples


#: Where a figure is shown: on the screen, on the model card too, or in the report alone.
Place = Literal["screen", "card", "report"]


def _titled(title: str, place: Place = "report", **more: Any) -> Any:
    return Field(title=title, json_schema_extra={"place": place}, **more)


_maybe = partial(_titled, default=None)


class Precision(Record):
    """Average precision (COCO)."""

    AP: Figure = _titled("AP50:95", "screen")
    AP50: Figure = _titled("AP50", "screen")
    AP75: Figure = _titled("AP75")


class KindPrecision(Precision):
    """Of boxes or masks, and of each category where there are several."""

    AP50_by_category: dict[str, Figure] = {}


class Detection(Record):
    """Average precision; of masks where both sides have some."""

    bbox: KindPrecision
    segm: KindPrecision | None = None


class SizePrecision(Record):
    """Average precision of the lesions of one size."""

    size: str
    n_lesions: int = _titled("lesions")
    bbox_ap: Figure = _titled("box AP50:95")
    bbox_ap50: Figure = _titled("box AP50")
    segm_ap: Figure | None = _maybe("mask AP50:95")
    segm_ap50: Figure | None = _maybe("mask AP50")


class FrocPoint(Record):
    """Part of the lesions that are found at a number of false positives per image."""

    fppi: float
    sensitivity: Figure


class FrocPoints(Record):
    """A FROC curve at fixed false positives per image, and the mean over these."""

    points: list[FrocPoint]
    cpm: Figure = _titled("CPM", "screen")

    def at(self, fppi: float) -> Figure | None:
        """The sensitivity at one of the points."""
        return next((point.sensitivity for point in self.points if point.fppi == fppi), None)


class FrocCurve(Record):
    """Where the curve turns; the threshold is None where nothing is called found."""

    fppi: list[FiniteFloat]
    sensitivity: list[FiniteFloat]
    threshold: list[FiniteFloat | None]


class FrocBand(Record):
    """The 95 % interval of the sensitivity along the curve."""

    fppi: list[FiniteFloat]
    low: list[FiniteFloat]
    high: list[FiniteFloat]


class FrocSection(FrocPoints):
    """FROC under one match rule and denominator; the chosen ones have the whole curve."""

    match: str
    denominator: Denominator
    duplicates: Duplicates
    n_images: int = _titled("images")
    n_lesions: int
    curve: FrocCurve | None = None
    band: FrocBand | None = None


class Stratum(Record):
    """Figures of a part of the data.

    Attributes:
        label: whose ROC AUC it is.
    """

    variable: str
    value: str
    n_images: int = _titled("images")
    n_lesions: int = _titled("lesions")
    n_patients: int = _titled("patients")
    sensitivity_at_1: Figure | None = _maybe("sensitivity at 1 FPPI")
    cpm: Figure | None = _maybe("CPM")
    label: str | None = None
    roc_auc: Figure | None = _maybe("ROC AUC")


class Overlap(Record):
    """Agreement of masks."""

    dice: Figure | None = _maybe("Dice", "screen")
    iou: Figure | None = _maybe("IoU")


class PairAgreement(Overlap):
    """Of the masks that find a lesion with its contour, one by one."""

    hd95_px: Figure | None = _maybe("HD95 (px)")
    hd95_mm: Figure | None = _maybe("HD95 (mm)", "screen")


class ImageAgreement(Overlap):
    """Of all masks of an image from a score on with all its contours."""

    n_images: int = _titled("images")
    score_threshold: float


class Masks(PairAgreement):
    """Agreement of outlines.

    Attributes:
        n_without_distance: pairs with an empty mask.
    """

    n_pairs: int = _titled("pairs")
    n_without_contour: int = _titled("found lesions without contour")
    n_without_distance: int = 0
    per_image: ImageAgreement | None = None
    note: str


class Roc(Record):
    fpr: list[FiniteFloat]
    tpr: list[FiniteFloat]


class PrecisionRecall(Record):
    recall: list[FiniteFloat]
    precision: list[FiniteFloat]


class Reliability(Record):
    """Per bin of the score: its cases, their mean score and their share of positives (None in an empty bin)."""

    edges: list[float]
    count: list[int]
    mean_score: list[FiniteFloat | None]
    share_positive: list[FiniteFloat | None]


class Probabilities(Record):
    """How far scores can be read as probabilities."""

    brier: Figure = _titled("Brier score")
    log_loss: Figure = _titled("log loss")
    ece: Figure = _titled("ECE")


class Ranking(Record):
    """How well scores part the positive cases from the negative ones."""

    roc_auc: Figure = _titled("ROC AUC", "screen")
    pr_auc: Figure = _titled("PR AUC", "screen")
    partial_auc: Figure = _titled("partial ROC AUC")
    sensitivity_at_90_specificity: Figure = _titled("sensitivity at 90 % specificity", "card")
    specificity_at_90_sensitivity: Figure = _titled("specificity at 90 % sensitivity")
    pf1: Figure = _titled("pF1")
    f1_at_half: Figure = _titled("F1 at score 0.5")
    accuracy_at_half: Figure = _titled("accuracy at score 0.5")


class Scores(Probabilities, Ranking):
    """Figures of one score per case (docs/evaluation.md defines them)."""


class AtThreshold(Record):
    """What calling a case positive from a threshold on is worth."""

    sensitivity: Figure = _titled("sensitivity", "screen")
    specificity: Figure = _titled("specificity", "screen")
    ppv: Figure = _titled("PPV", "card")
    npv: Figure = _titled("NPV", "card")
    accuracy: Figure = _titled("accuracy")
    f1: Figure = _titled("F1")
    f2: Figure = _titled("F2")


class OperatingPoint(AtThreshold):
    """A threshold that was chosen on other patients."""

    goal: str
    threshold: float = _titled("threshold")
    tp: int = _titled("TP")
    fp: int = _titled("FP")
    tn: int = _titled("TN")
    fn: int = _titled("FN")


class Calibrated(Probabilities):
    """Of the scores as probabilities, by a scaling that was fitted on other patients."""

    reliability: Reliability


class LabelResult(Scores):
    """A label at a level."""

    n_positive: int = _titled("positive cases")
    n_negative: int = _titled("negative cases")
    roc: Roc | None = None
    pr: PrecisionRecall | None = None
    reliability: Reliability
    by_rule: dict[str, Scores] = {}
    operating_points: list[OperatingPoint] = []
    calibrated: Calibrated | None = None

    @property
    def cases(self) -> str:
        return f"{self.n_positive} of {self.n_positive + self.n_negative} positive"


class OneClass(Record):
    """A class against all others."""

    precision: Figure = _titled("precision")
    recall: Figure = _titled("recall")
    f1: Figure = _titled("F1")
    roc_auc: Figure = _titled("ROC AUC")


class ClassResult(OneClass):
    """A class of a question; `predicted` is None of a class that the model does not know."""

    name: str
    support: int = _titled("true cases")
    predicted: int | None = _titled("predicted")


class AllClasses(Record):
    """Figures over all classes of a question."""

    accuracy: Figure = _titled("accuracy", "screen")
    balanced_accuracy: Figure = _titled("balanced accuracy", "screen")
    kappa: Figure = _titled("kappa", "card")
    quadratic_kappa: Figure = _titled("quadratic kappa", "screen")
    macro_precision: Figure = _titled("precision, mean over classes", "card")
    macro_f1: Figure = _titled("F1, mean over classes", "card")
    macro_roc_auc: Figure = _titled("ROC AUC, mean over classes", "screen")
    log_loss: Figure = _titled("log loss")


class QuestionResult(AllClasses):
    """A question with several classes.

    Attributes:
        classes: those of the model; true_classes: these, then those that it does not know.
        confusion: images, by true class (rows) and predicted class (columns).
    """

    n: int = _titled("images")
    n_without_truth: int
    n_without_answer: int
    classes: list[str]
    true_classes: list[str]
    ordered: bool
    confusion: list[list[int]]
    per_class: list[ClassResult]


class ModelFacts(Record):
    """What a model is, and what it was trained on, as far as its predictions say."""

    predictions: str | None = _maybe("predictions file")
    predictions_sha256: str | None = _maybe("predictions SHA-256")
    checkpoint: str | None = _maybe("checkpoint")
    checkpoint_sha256: str | None = _maybe("checkpoint SHA-256")
    imported_from: str | None = _maybe("imported from")
    architecture: str | None = _maybe("architecture")
    folds: str | None = _maybe("folds")
    patients_in_training: int | None = _maybe("patients in training")
    trained_on_data_hash: str | None = _maybe("data hash of the training")
    trained_on_split_hash: str | None = _maybe("split hash of the training")
    box_masks: Literal["ellipse", "box"] | None = _maybe("masks of lesions with a box only")
    patients_seen_in_training: int | None = _maybe("of these patients, seen in training")
    version: str | None = _maybe("version")
    calibration: str | None = _maybe("calibration")
    calibration_sha256: str | None = _maybe("calibration SHA-256")


class ModelResult(Record):
    """All figures of one model; a classifier has none of places.

    Attributes:
        not_a_result: why its figures are no result; None where they are one.
        froc_others: under the other match rules and denominators.
        image, breast, patient: by label; classes: by question.
    """

    name: str
    kind: Kind = "detector"
    not_a_result: str | None = None
    protocol: ModelFacts = ModelFacts()
    notes: list[str] = []
    detection: Detection | None = None
    ap_by_size: list[SizePrecision] = []
    froc: FrocSection | None = None
    froc_others: list[FrocSection] = []
    froc_by_category: dict[str, FrocPoints] = {}
    strata: list[Stratum] = []
    masks: Masks | None = None
    image: dict[str, LabelResult] = {}
    breast: dict[str, LabelResult] = {}
    patient: dict[str, LabelResult] = {}
    classes: dict[str, QuestionResult] = {}

    @property
    def detects(self) -> bool:
        """Whether it is a detector's."""
        return self.kind == "detector"

    def level(self, level: Level) -> dict[str, LabelResult]:
        """Figures by label."""
        return {"image": self.image, "breast": self.breast, "patient": self.patient}[level]

    def labels(self) -> Iterator[tuple[Level, str, LabelResult]]:
        """Level, label and figures."""
        for level in LEVELS:
            for label, figures in self.level(level).items():
                yield level, label, figures

    def figures(self) -> "Iterator[Named]":
        """Headline figures, and those in which two models are compared, each under a name of its own."""
        kinds = {"box": self.detection.bbox, "mask": self.detection.segm} if self.detection else {}
        for kind, precision in kinds.items():
            if precision:
                yield from _named(precision, f"{kind} ")
                for category, figure in precision.AP50_by_category.items():
                    yield Named(f"{kind} AP50 {category}", figure, place="report")
        if self.froc:
            lesions = f"{self.froc.n_lesions} lesions"
            for point in self.froc.points:
                yield Named(f"lesion sensitivity at {point.fppi:g} FPPI", point.sensitivity, cases=lesions)
            yield from _named(self.froc, "", lesions)
        for level, label, figures in self.labels():
            yield from _named(figures, f"{level}, {label}: ", figures.cases)
            for number, chosen in enumerate(figures.operating_points):
                for one in _named(chosen, f"{level}, {label} at {chosen.goal}: ", figures.cases, paired=False):
                    # the first goal labels; of the others the card tells
                    yield one._replace(place="card") if number and one.place == "screen" else one
        for question, answers in self.classes.items():
            yield from _named(answers, f"{question}: ", f"{answers.n} images")
        if self.masks:
            # The lesions that two models find are not the same, so that only whole images are compared.
            yield from _named(self.masks, "found outlines: ", f"{self.masks.n_pairs} lesions", paired=False)
            if self.masks.per_image:
                cases = f"{self.masks.per_image.n_images} images"
                yield from _named(self.masks.per_image, "outlines of images: ", cases)


class Named(NamedTuple):
    """A figure with the name under which it is shown.

    Attributes:
        cases: what it is counted on.
        place: where it is shown.
        paired: whether two models have it on the same cases.
    """

    name: str
    figure: Figure
    cases: str = ""
    place: Place = "screen"
    paired: bool = True


class Protocol(Record):
    """What was evaluated, on what and by which rules; `match`, `denominator` and `duplicates` of detectors alone."""

    ground_truth: str | None = _maybe("ground truth")
    ground_truth_hash: str | None = _maybe("ground truth hash")
    split_name: str | None = _maybe("split name")
    split_subset: str | None = _maybe("split subset")
    split_hash: str | None = _maybe("split hash")
    match: str | None = _maybe("match")
    denominator: Denominator | None = _maybe("denominator")
    duplicates: Duplicates | None = _maybe("duplicates")
    over_images: Literal["max", "mean"] = _titled("over images")
    n_images: int = _titled("images")
    n_normal_images: int = _titled("normal images")
    n_positive_images: int = _titled("positive images")
    n_images_without_boxes: int = _titled("images without boxes")
    n_patients: int = _titled("patients")
    n_images_without_patient: int = _titled("images without patient")
    n_lesions: int = _titled("lesions")
    n_ignored_regions: int = _titled("ignored regions")
    resamples: int = _titled("resamples")
    seed: int = _titled("seed")
    interval: str = Field(default="95 % percentile bootstrap over patients", title="interval")
    overrides: list[str] = []
    versions: dict[str, str] = {}


class Difference(Record):
    """A figure of two models on the same patients.

    Attributes:
        difference: second - first, with its interval.
        p: two-sided: how often, in resamples, the difference would lie on the other side of 0.
    """

    figure: str
    first: FiniteFloat
    second: FiniteFloat
    difference: Figure
    p: FiniteFloat | None
    place: Place


class Comparison(Record):
    """Two models, by name."""

    first: str
    second: str
    differences: list[Difference]


class Metrics(Record):
    """What `metrics.json` holds."""

    format: Literal["mammodet-metrics/3"] = FORMAT
    protocol: Protocol
    notes: list[str] = []
    models: Annotated[list[ModelResult], Field(min_length=1)]
    comparisons: list[Comparison] = []

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return self.model_dump(mode="json")


_READER = TypeAdapter(Metrics)
R = TypeVar("R", bound=Record)


def metrics_from_json(value: Any, where: str) -> Metrics:
    """Results from the plain values of a `metrics.json`. Raises InputError: another format, or every fault."""
    found = value.get("format") if isinstance(value, dict) else None
    if found != FORMAT:
        raise InputError(
            f"{where}: its format is {found!r:.60}, expected {FORMAT!r} (metrics.json of this version); run mammodet "
            "evaluate again on the predictions"
        )
    try:
        return _READER.validate_python(value, strict=False)
    except ValidationError as error:
        raise_faults(faults_of(error), where=where, advice="Run mammodet evaluate again.")
        raise


def read_metrics(path: Path) -> Metrics:
    """The results in a `metrics.json`; errors as `metrics_from_json`."""
    return metrics_from_json(read_json(path), str(path))


def figure_names(kind: type[Record]) -> tuple[str, ...]:
    """The fields of a record that are figures, in the order of the fields."""
    return tuple(name for name, field in kind.model_fields.items() if field.annotation in (Figure, Figure | None))


def fill(kind: type[R], figures: Sequence[Figure], **more: Any) -> R:
    """A record from its figures, in the order of `figure_names`, and its other fields."""
    return kind(**dict(zip(figure_names(kind), figures, strict=True)), **more)


def _named(record: Record, prefix: str, cases: str = "", *, paired: bool = True) -> Iterator[Named]:
    for name in figure_names(type(record)):
        figure, field = getattr(record, name), type(record).model_fields[name]
        if figure is not None:
            yield Named(f"{prefix}{field.title}", figure, cases, _place(field), paired)


def _place(field: FieldInfo) -> Place:
    extra = field.json_schema_extra
    return cast(Place, extra["place"]) if isinstance(extra, dict) else "report"
