"""The card of a packed model: what it is, what it was trained on, what was measured of it, and where it fails."""

from collections.abc import Collection
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import Field, ValidationError

from mammodet.config.base import Section
from mammodet.config.read import read_yaml
from mammodet.errors import InputError, faults_of, raise_faults
from mammodet.evaluation.results import FrocSection, Metrics

Text = Annotated[str, Field(min_length=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Interval = tuple[Number, Number]
#: What an evaluation says, and an author does not.
_MEASURED = ("evaluated_on", "figures", "froc")


class TrainingData(Section):
    """An archive that the model learned from."""

    name: Text
    licence: Text
    citation: Text
    url: str | None = None


class Figure(Section):
    """A figure and its 95 % interval, where there is one."""

    name: Text
    value: Number
    ci95: Interval | None = None


class FrocPoint(Section):
    """Lesions found at a number of false positives per image."""

    fppi: Annotated[float, Field(gt=0, allow_inf_nan=False)]  #: false positives per image
    sensitivity: Annotated[float, Field(ge=0, le=1)]
    ci95: Interval | None = None
    #: the least score of a detection at this point; None where the evaluation does not say.
    score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    #: match, denominator: when a lesion counts as found, and which images count.
    match: str
    denominator: str

    @property
    def rate(self) -> str:
        """`1 false positive per image`."""
        return f"{self.fppi:g} false positive{'' if self.fppi == 1 else 's'} per image"


class ModelCard(Section):
    """The model card of a packed model (Mitchell et al., Model Cards for Model Reporting, FAT* 2019)."""

    title: Text  #: its name
    finds: Text  #: what, in a word or two: `masses`
    images: Text  #: on which kind: `digitised film`
    training_data: Annotated[list[TrainingData], Field(min_length=1)]
    intended_use: Annotated[list[Text], Field(min_length=1)]
    known_failures: list[Text] = Field(default=[])
    notes: list[Text] = Field(default=[])
    test_data: Text | None = None  #: name of the archive or set that `figures` are of; None: the name of its file
    #: the test set with its size; it, `figures` and `froc` come from an evaluation's metrics.json.
    evaluated_on: str | None = None
    figures: list[Figure] = Field(default=[])
    froc: FrocPoint | None = None

    def line(self) -> str:
        """What a user of the model must know, in one line."""
        text = f"{self.title}: research only; finds {self.finds}, trained on {self.images}"
        if self.froc is None:
            return f"{text}; its sensitivity was not measured"
        interval = f" ({self.froc.ci95[0]:.2f} to {self.froc.ci95[1]:.2f})" if self.froc.ci95 else ""
        return f"{text}; sensitivity {self.froc.sensitivity:.2f}{interval} at {self.froc.rate} on {self.evaluated_on}"


def card_from_json(value: Any, where: str) -> ModelCard:
    """A card from plain values. Raises InputError: with every fault at once."""
    try:
        return ModelCard.model_validate(value)
    except ValidationError as error:
        raise_faults(faults_of(error), where=where, advice="docs/starter.md shows a card.")
        raise


def read_card(path: Path) -> ModelCard:
    """A card as its author writes it: YAML, without figures. Raises InputError: faulty, or with figures of its own."""
    values = read_yaml(path)
    own = [name for name in _MEASURED if name in values]
    if own:
        raise InputError(f"{path}: names {', '.join(own)}; these come from an evaluation (--metrics metrics.json)")
    return card_from_json(values, str(path))


def with_figures(
    card: ModelCard, metrics: Metrics, checkpoints: Collection[str | None], fppi: float, where: str
) -> ModelCard:
    """The card with the headline figures of an evaluation.

    Args:
        checkpoints: SHA-256 of the model and of what it was packed from; the evaluation must be of one of them.
        fppi: the operating point's false positives per image, one of those in the evaluation's FROC.
    Raises:
        InputError: an evaluation of another model, one whose figures are no result, or one without this point.
    """
    models = {str(model.protocol.checkpoint_sha256): model for model in metrics.models}
    model = next((models[sha256] for sha256 in checkpoints if sha256 in models), None)
    if model is None:
        raise InputError(
            f"{where}: is of the checkpoints {', '.join(models)}, this one is {', '.join(map(str, checkpoints))} "
            "(SHA-256). Predict and evaluate the test set with this one"
        )
    if model.not_a_result:
        raise InputError(f"{where}: its figures are no result: {model.not_a_result}")
    facts = metrics.protocol
    place = card.test_data or PurePath(facts.ground_truth or "a data set").name
    measured = {
        "evaluated_on": f"{place}, {facts.n_images} images of {facts.n_patients} patients",
        "notes": [*card.notes, *(f"The evaluation overrode a rule: {text}" for text in facts.overrides)],
        "figures": [
            {"name": one.name, "value": one.figure.value, "ci95": one.figure.ci95}
            for one in model.figures()
            if one.place != "report" and one.figure.value is not None
        ],
        "froc": _froc_point(model.froc, fppi, where) if model.froc else None,
    }
    return card_from_json({**card.model_dump(), **measured}, where)


def _froc_point(froc: FrocSection, fppi: float, where: str) -> dict[str, Any]:
    sensitivity = froc.at(fppi)
    if sensitivity is None or sensitivity.value is None:
        there = ", ".join(f"{point.fppi:g}" for point in froc.points if point.sensitivity.value is not None)
        raise InputError(f"{where}: has no sensitivity at {fppi:g} false positives per image; it has those at {there}")
    curve = zip(froc.curve.fppi, froc.curve.threshold, strict=True) if froc.curve else ()
    return {
        "fppi": fppi,
        "sensitivity": sensitivity.value,
        "ci95": sensitivity.ci95,
        "score_threshold": min((threshold for x, threshold in curve if x <= fppi and threshold), default=None),
        "match": froc.match,
        "denominator": froc.denominator,
    }
