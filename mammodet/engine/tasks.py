"""The two tasks, and the only place where one is chosen: what differs between detector and classifier lies in them."""

from __future__ import annotations

from typing import Any

from mammodet.config import Config
from mammodet.data.dataset import Batch
from mammodet.engine.classifier_task import ClassifierTask
from mammodet.engine.detector_task import DetectorTask
from mammodet.errors import InputError
from mammodet.modeling.aggregation import LogisticStack
from mammodet.modeling.build import Model
from mammodet.modeling.mammo_rcnn import ModelOutput
from mammodet.records import ImagePrediction

_TASKS: dict[str, Any] = {"detector": DetectorTask(), "classifier": ClassifierTask()}


def task_of(config: Config) -> DetectorTask | ClassifierTask:
    """What `model.kind` is about."""
    task: DetectorTask | ClassifierTask = _TASKS[config.model.kind]
    return task


def run_model(config: Config, model: Model, batch: Batch) -> ModelOutput:
    """The model's answer to a batch: losses in training mode; of a classifier, losses and logits in both modes."""
    output: ModelOutput = _TASKS[config.model.kind].run(model, batch)
    return output


def to_predictions(
    config: Config, model: Model, output: ModelOutput, batch: Batch, stack: LogisticStack | None = None
) -> list[ImagePrediction]:
    """Predictions of a batch.

    Args:
        output: of the model in eval mode.
        stack: a detector's learned aggregation, where it is fitted.
    Raises:
        InputError: the model answers with NaN or infinity.
    """
    for index, record in enumerate(batch.records):
        answers = [] if output.logits is None else [output.logits[index]]
        answers += [output.detections[index][key] for key in ("boxes", "scores")] if output.detections else []
        if not all(bool(answer.isfinite().all()) for answer in answers):
            raise InputError(
                f"image {record.file_name!r}: the model answers with NaN or infinity; its training diverged, or its "
                "weights are damaged. Take another checkpoint"
            )
    found: list[ImagePrediction] = _TASKS[config.model.kind].predictions(config, model, output, batch, stack)
    return found
