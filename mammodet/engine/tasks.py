"""The two tasks, and the only place where one is chosen: what differs between detector and classifier lies in them."""

from typing import Any

from mammodet.config import Config
from mammodet.data.dataset import Batch
from mammodet.engine.answers import answers_to_predictions
from mammodet.engine.classifier_task import ClassifierTask
from mammodet.engine.detector_task import DetectorTask
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
    output: ModelOutput, batch: Batch, config: Config, stack: LogisticStack | None = None, *, soften: bool = True
) -> list[ImagePrediction]:
    """Predictions of a batch: `answers_to_predictions` of a model's output in eval mode."""
    detections = [
        {
            name: (values.detach().float() if values.is_floating_point() else values).cpu().numpy()
            for name, values in found.items()
        }
        for found in output.detections
    ]
    logits = output.logits.detach().float().cpu().numpy() if output.logits is not None else None
    return answers_to_predictions(detections, logits, batch.records, batch.traces, config, stack, soften=soften)
