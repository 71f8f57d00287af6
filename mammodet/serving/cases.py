"""The cases behind a figure of a report, counted as the evaluation counts them, as rows of the page's list."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from mammodet.errors import InputError, faults_of
from mammodet.evaluation.bootstrap import patient_clusters
from mammodet.evaluation.cases import KEYS, cases
from mammodet.evaluation.localization import Localization, part_of
from mammodet.evaluation.options import Options
from mammodet.evaluation.results import Denominator, Level, Metrics
from mammodet.records import Detections, ImagePrediction
from mammodet.reporting.answers import answer_of
from mammodet.reporting.report_gallery import PICTURES, judge_all, judge_answers
from mammodet.serving.study import Study
from mammodet.targets import class_of


class Query(BaseModel):
    """What a link of the report asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    #: of a label at a `level` (which `call`, from a `threshold` on, by which aggregation `rule`); images with lesions
    #: (missed at `fppi` by a rule, of a category or stratum), of a stratum, by true and predicted class of a
    #: `question`, with outlines that were compared `per` lesion or image, or of one kind of the gallery.
    cases: Literal["scores", "lesions", "images", "classes", "outlines", "pictures"]
    model: str = ""  #: of a report of several
    level: Level = "image"
    label: str = "tumor"
    call: Literal["all", "positive", "negative", "wrong", "tp", "fp", "tn", "fn"] = "all"
    threshold: float = 0.5
    rule: str | None = None
    fppi: float | None = None
    match: str = ""
    denominator: Denominator | None = None
    category: str = ""
    variable: str = ""
    value: str = ""
    question: str = ""
    true: str | None = None
    predicted: str | None = None
    wrong: bool = False
    per: Literal["found lesion", "whole image"] = "found lesion"
    of: Literal["missed", "false", "second", "label", "clean"] = "missed"


class Found(NamedTuple):
    """What the list shows: words, and each row's name and images; a threshold where the figure has one."""

    words: str
    rows: list[tuple[str, list[int]]]
    threshold: float | None = None


class CaseFinder:
    """The cases of one model of an evaluation.

    Args:
        study: its data set and predictions.
        number: of the model, among those of the metrics.
    """

    def __init__(self, study: Study, metrics: Metrics, number: int) -> None:
        self.model, facts = metrics.models[number], metrics.protocol
        self._dataset = study.inputs.dataset
        nothing = Detections.empty(with_masks=False)
        self._predictions = [
            found or ImagePrediction(record.image_id, record.file_name, record.size_hw, {}, nothing)
            for record, found in zip(self._dataset.images, study.predictions, strict=True)
        ]
        self._options = Options(
            match=facts.match or study.rule,
            denominator=facts.denominator or "all images",
            count_seconds=facts.duplicates != "ignored",
            over_images=facts.over_images,
            resamples=0,
        )

    def find(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The answer to a link, for the page.

        Raises InputError: it is no link of this report, or leads to another model's cases.
        """
        try:
            wanted = Query.model_validate(dict(query))
        except ValidationError as error:
            raise InputError(f"the link is not one of the report: {'; '.join(faults_of(error))}") from None
        if wanted.model not in ("", self.model.name):
            raise InputError(
                f"these are cases of {wanted.model}; this page shows {self.model.name}: start mammodet view without "
                "--predictions"
            )
        words, rows, threshold = getattr(self, f"_{wanted.cases}")(wanted)
        return {"words": words, "rows": [{"name": name, "images": each} for name, each in rows], "threshold": threshold}

    @cached_property
    def _places(self) -> Localization:
        return Localization(self._dataset, self._predictions, patient_clusters(self._dataset)[0], self._options)

    def _of_images(self, words: str, numbers: Iterable[Any], threshold: float | None = None) -> Found:
        chosen = sorted({int(number) for number in numbers})
        rows = [(self._dataset.images[number].file_name, [number]) for number in chosen]
        return Found(f"images {words}", rows, threshold)

    def _scores(self, wanted: Query) -> Found:
        level, label = wanted.level, wanted.label
        every = cases(self._dataset, self._predictions, level, label, self._options.over_images, wanted.rule)
        positive, called = every.labels == 1, every.scores >= wanted.threshold
        chosen = {
            "all": positive | True,
            "positive": positive,
            "negative": ~positive,
            "wrong": positive != called,
            "tp": positive & called,
            "fp": ~positive & called,
            "tn": ~positive & ~called,
            "fn": positive & ~called,
        }[wanted.call]
        members: dict[Any, list[int]] = {}
        for number, record in enumerate(self._dataset.images):
            members.setdefault(KEYS[level](record), []).append(number)
        rows = []
        for row in np.argsort(-every.scores, kind="stable"):
            if chosen[row]:
                first = self._dataset.images[every.images[row]]
                key = KEYS[level](first) or ()
                images, name = members[key], first.file_name if level == "image" else " ".join(key)
                rows.append((f"{name} \u00b7 {every.scores[row]:.3f}", images))
        from_score = "" if wanted.call in ("all", "positive", "negative") else f" from {wanted.threshold:.3f} on"
        call = {"all": "", "wrong": ", wrong"}.get(
            wanted.call, f", {wanted.call.upper() if len(wanted.call) == 2 else wanted.call}"
        )
        rule = f", by {wanted.rule}" if wanted.rule else ""
        plural = {"image": "images", "breast": "breasts", "patient": "patients"}[level]
        return Found(f"{plural}: {label}{call}{from_score}{rule}", rows)

    def _lesions(self, wanted: Query) -> Found:
        images, found, threshold = self._places.lesions_at(
            wanted.fppi,
            match=wanted.match or self._options.match,
            denominator=wanted.denominator or self._options.denominator,
            category=wanted.category,
            variable=wanted.variable,
            value=wanted.value,
        )
        of = " ".join(part for part in (wanted.category, wanted.variable, wanted.value) if part)
        kind = f"lesions{f' ({of})' if of else ''}"
        if wanted.fppi is None:
            return self._of_images(f"with {kind}: {len(images)}", images)
        missed = images[~found]
        rule = f" by {wanted.match}" if wanted.match not in ("", self._options.match) else ""
        rule += f" on {wanted.denominator}" if wanted.denominator not in (None, self._options.denominator) else ""
        words = f"with missed {kind} at {wanted.fppi:g} FPPI{rule}: {len(missed)} of {len(images)}"
        return self._of_images(words, missed, threshold)

    def _images(self, wanted: Query) -> Found:
        part, lesions = part_of(self._dataset, self._predictions, wanted.variable, wanted.value)
        numbers = np.flatnonzero(part.images) if part.of_images else lesions.images[part.lesions & ~lesions.ignored]
        return self._of_images(f"of {wanted.variable} {wanted.value}", numbers)

    def _classes(self, wanted: Query) -> Found:
        numbers = []
        for number, (record, prediction) in enumerate(zip(self._dataset.images, self._predictions, strict=True)):
            true = class_of(record, wanted.question)
            if true is None or not prediction.class_scores.get(wanted.question):
                continue
            predicted = answer_of(wanted.question, prediction)
            if (
                wanted.true in (None, true)
                and wanted.predicted in (None, predicted)
                and not (wanted.wrong and true == predicted)
            ):
                numbers.append(number)
        parts = [f"true {wanted.true}"] if wanted.true is not None else []
        parts += [f"predicted {wanted.predicted}"] if wanted.predicted is not None else []
        return self._of_images(", ".join([f"by {wanted.question}", *parts, *(["wrong"] * wanted.wrong)]), numbers)

    def _outlines(self, wanted: Query) -> Found:
        numbers = self._places.outlined(wanted.per)
        return self._of_images(f"with outlines compared, per {wanted.per}", numbers)

    def _pictures(self, wanted: Query) -> Found:
        if self.model.kind == "classifier":
            judged = judge_answers(self._dataset, self._predictions)
        else:
            judged = judge_all(
                self._dataset,
                self._predictions,
                score_threshold=wanted.threshold,
                rule=self._options.match,
                count_seconds=self._options.count_seconds,
            )
        words, choose = PICTURES[wanted.of]
        place = {record.image_id: number for number, record in enumerate(self._dataset.images)}
        numbers = [place[item[0].image_id] for item in choose(judged)]
        return self._of_images(f"{words} from {wanted.threshold:.2f} on", numbers, wanted.threshold)
