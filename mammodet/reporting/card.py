"""The model card: what a model is, what was measured of it, and what these figures do not say.

Facts come from `metrics.json` alone (Mitchell et al., Model Cards for Model Reporting, FAT* 2019).
"""

from collections.abc import Iterator

from mammodet.errors import InputError
from mammodet.evaluation.results import LEVELS, NO_BOXES, Metrics, ModelResult, Protocol, Record
from mammodet.records import LABELS
from mammodet.reporting.report_tables import headline_table, strata_tables
from mammodet.reporting.tables import VOID, escape, interval, number, to_markdown, words

FEW_PATIENTS = 100
FEW_CASES = 30
FEW_IN_STRATUM = 10
INTENDED_USE = (
    "For research. Not a medical device: it has no clearance or approval, and its output must not be used to diagnose, "
    "to screen, or to decide on the care of a patient.",
    "Figures hold for data like that named under the protocol. On other scanners, populations or ways of selecting "
    "patients they must be measured again.",
)
Facts = list[tuple[str, str]]


def model_card(metrics: Metrics, model_index: int = 0) -> str:
    """The card of the model at this position as Markdown, with everything escaped that came with the data.

    Raises InputError: there is no such model in the metrics.
    """
    if not 0 <= model_index < len(metrics.models):
        raise InputError(f"model_index {model_index}: the metrics hold {len(metrics.models)} models, counted from 0")
    model = metrics.models[model_index]
    void = f": {VOID}" if model.not_a_result else ""
    lines = [f"# Model card: {escape(model.name)}{void}"]
    lines += _list("Intended use", INTENDED_USE)
    lines += _list("The model", _lines(model_facts(metrics, model)))
    lines += _list("Protocol", _lines(protocol_facts(metrics.protocol)))
    lines += ["", f"## Headline figures{void}", "", *to_markdown(headline_table(model))]
    strata = strata_tables([model])
    lines += ["", f"## Figures by stratum{void}", *([] if strata else ["", "Nothing was measured."])]
    for table in strata:
        lines += ["", f"### {escape(table.title)}", "", *to_markdown(table)]
    lines += _list("Known limits", known_limits(metrics, model))
    return "\n".join(lines) + "\n"


def _list(title: str, items: tuple[str, ...] | list[str]) -> list[str]:
    return ["", f"## {title}", "", *(f"- {escape(item)}" for item in items)]


def _lines(facts: Facts) -> list[str]:
    return [f"{name}: {value}" for name, value in facts]


def _titled(record: Record) -> Facts:
    """The fields of a record that have a title and are known."""
    fields = type(record).model_fields.items()
    found = [(field.title, getattr(record, name)) for name, field in fields if field.title]
    return [(title, words(value)) for title, value in found if value is not None]


def model_facts(metrics: Metrics, model: ModelResult) -> Facts:
    """What the model is and what it was trained on, as far as the metrics say."""
    facts, common = model.protocol, metrics.protocol
    shown = [("kind", model.kind), *_titled(facts)]
    for mine, theirs, what in (
        (facts.trained_on_data_hash, common.ground_truth_hash, "data"),
        (facts.trained_on_split_hash, common.split_hash, "split"),
    ):
        if mine and theirs:
            same = "the same as evaluated on" if mine == theirs else "not the same as evaluated on"
            shown.append((f"{what} of the training", same))
    return shown


def protocol_facts(facts: Protocol) -> Facts:
    """The protocol's facts, without overrides and versions, which stand elsewhere."""
    return _titled(facts)


def alarms(metrics: Metrics) -> list[str]:
    """What must not be overlooked: rules that were overridden, and patients seen in training."""
    found = [f"Override: {text}" for text in metrics.protocol.overrides]
    return found + [text for model in metrics.models for text in _alarms(model)]


def _alarms(model: ModelResult) -> list[str]:
    found = [f"{model.name}: {VOID}: {model.not_a_result}."] if model.not_a_result else []
    seen = model.protocol.patients_seen_in_training
    if seen:
        found.append(f"{model.name}: {seen} of these patients were in training. Its figures say nothing of new ones.")
    return found


def known_limits(metrics: Metrics, model: ModelResult) -> list[str]:
    """What the figures of a model do not say, as far as that follows from the facts."""
    found = [f"Override: {text}" for text in metrics.protocol.overrides]
    found += [*_alarms(model), *([] if model.detects else [NO_BOXES])]
    found += _limits_of_data(metrics.protocol, with_boxes=model.detects)
    found += [*_limits_of_training(model), *_limits_of_cases(model), *_missing_figures(model), *_limits_of_masks(model)]
    return list(dict.fromkeys([*found, *metrics.notes, *model.notes]))


def _limits_of_data(facts: Protocol, *, with_boxes: bool) -> Iterator[str]:
    if facts.split_subset != "test":
        subset = facts.split_subset
        yield f"Evaluated on the subset {subset}, not on a test set." if subset else "No named test subset."
    if facts.n_patients < FEW_PATIENTS:
        yield f"Few patients ({facts.n_patients}): the intervals are wide, and rare kinds of lesions may be absent."
    if not facts.resamples:
        yield "No intervals were computed: how far chance moves these figures is not known."
    if not facts.n_normal_images:
        yield "No image without a lesion: specificity and false positives on normal images are not known."
    if with_boxes and facts.n_images_without_boxes:
        yield (
            f"{facts.n_images_without_boxes} images hold a lesion without a place; they take no part in AP and FROC."
        )
    if with_boxes and facts.n_ignored_regions:
        yield f"{facts.n_ignored_regions} ignored regions count neither as lesions nor as background."


def _limits_of_training(model: ModelResult) -> Iterator[str]:
    facts = model.protocol
    if facts.patients_seen_in_training is None:
        yield "Whether the model has seen these patients is not known for all: leakage could not be checked."
    if facts.box_masks:
        shape = "the ellipse inside it" if facts.box_masks == "ellipse" else "the box filled in"
        yield (
            f"Training lesions of which only a box is known taught outlines as {shape} (data.box_masks): the model's "
            "outlines of such lesions are guesses. Agreement of outlines is scored on drawn contours alone."
        )
    if not facts.calibration:
        yield "No calibration: scores are not probabilities."


def _limits_of_cases(model: ModelResult) -> Iterator[str]:
    """Levels and strata that rest on few cases."""
    for level, label, figures in model.labels():
        for kind, count in (("positive", figures.n_positive), ("negative", figures.n_negative)):
            if count < FEW_CASES:
                yield f"Few {kind} cases of {label} at the level of the {level} ({count})."
    for question, answers in model.classes.items():
        rare = [f"{row.name} ({row.support})" for row in answers.per_class if row.support < FEW_CASES]
        if rare:
            yield f"Few images of these classes of {question}: {', '.join(rare)}."
    small = [
        f"{row.variable} {row.value} ({row.n_patients})" for row in model.strata if row.n_patients < FEW_IN_STRATUM
    ]
    if small:
        yield f"Strata of fewer than {FEW_IN_STRATUM} patients: {', '.join(small)}."
    found = [
        (row.sensitivity_at_1.value, row)
        for row in model.strata
        if row.sensitivity_at_1 and row.sensitivity_at_1.value is not None
    ]
    if len(found) > 1:
        value, worst = min(found, key=lambda item: item[0])
        between = interval(worst.sensitivity_at_1.ci95 if worst.sensitivity_at_1 else None)
        yield (
            f"Lowest sensitivity at 1 FPPI of all strata: {number(value)}{f' ({between})' if between else ''} at "
            f"{worst.variable} {worst.value}."
        )


def _missing_figures(model: ModelResult) -> Iterator[str]:
    detection = model.detection
    places = {
        "box AP": detection is not None and detection.bbox.AP50.value is not None,
        "mask AP": detection is not None and detection.segm is not None and detection.segm.AP50.value is not None,
        "FROC": model.froc is not None and model.froc.cpm.value is not None,
        "agreement of masks": model.masks is not None and model.masks.dice is not None,
    }
    there = {
        **(places if model.detects else {}),
        "figures by stratum": bool(model.strata),
        **{f"{level} level": bool(model.level(level)) for level in LEVELS},
        **{f"label {name}": any(name == label for _, label, _ in model.labels()) for name in LABELS},
    }
    missing = [what for what, known in there.items() if not known]
    if missing:
        yield f"Not measured: {', '.join(missing)}."


def _limits_of_masks(model: ModelResult) -> Iterator[str]:
    if model.masks:
        yield model.masks.note
        if model.masks.n_without_contour:
            yield (
                f"{model.masks.n_without_contour} of the lesions that were found have no drawn contour (but a circle "
                "or a box), and no part in the agreement of masks."
            )
