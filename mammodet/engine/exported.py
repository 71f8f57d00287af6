"""Prediction with an exported model, by ONNX Runtime or OpenVINO and without torch (docs/speed.md)."""

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mammodet.config import make_config
from mammodet.engine.answers import answers_to_predictions
from mammodet.engine.facts import RunFacts
from mammodet.engine.fusion import Look
from mammodet.engine.predict import Predictor
from mammodet.errors import InputError
from mammodet.evaluation.calibration_file import from_json as calibration_from_json
from mammodet.files import check_is_file, file_hash, parse_json
from mammodet.modeling.second_boxes import Found
from mammodet.models.card import card_from_json
from mammodet.records import ImagePrediction

FORMAT = "mammodet-onnx/1"
KEY = "mammodet"  # of the metadata: a JSON object with format, outputs, facts, calibration and card
SUFFIXES = {".onnx": "onnx", ".xml": "openvino"}  # of exported models, and the engine that each is for


class Network(Protocol):
    """A graph that an engine has loaded; `metadata` is the text under `KEY`, None where there is none."""

    metadata: str | None

    def __call__(self, image: NDArray[np.float32]) -> Found:
        """Outputs by name for float32 (B, C, H, W)."""
        ...


class OnnxRuntime:
    """An ONNX file in ONNX Runtime, on the CPU in float32. Raises InputError: `bf16`, which it cannot do there."""

    def __init__(self, path: Path, *, bf16: bool = False) -> None:
        if bf16:
            raise InputError(
                f"--bf16: ONNX Runtime computes {path} in float32; leave --bf16 out, or give --engine openvino or the "
                "checkpoint that it was made from"
            )
        runtime = needed("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = _threads()
        options.log_severity_level = 3
        self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.metadata = self.session.get_modelmeta().custom_metadata_map.get(KEY)

    def __call__(self, image: NDArray[np.float32]) -> Found:
        """See `Network`."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, {"image": image}), strict=True))


class OpenVino:
    """An ONNX file, or a model of OpenVINO's own, in OpenVINO on the CPU, in float32 or bfloat16.

    Raises InputError: `bf16` on a processor without units for it, where OpenVINO would compute in float32.
    """

    def __init__(self, path: Path, *, bf16: bool = False) -> None:
        core = needed("openvino").Core()
        if bf16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise InputError("--bf16: this processor has no units for bfloat16 (AMX or AVX-512 BF16); leave --bf16 out")
        model = core.read_model(str(path))
        place = ["framework", KEY]
        self.metadata = str(model.get_rt_info(place).value) if model.has_rt_info(place) else None
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": _threads()}
        hints["INFERENCE_PRECISION_HINT"] = "bf16" if bf16 else "f32"
        self.model = core.compile_model(model, "CPU", hints)
        self.names = parse_json(self.metadata, str(path))["outputs"] if self.metadata else []

    def __call__(self, image: NDArray[np.float32]) -> Found:
        """See `Network`."""
        answers = self.model({"image": image})
        return {name: np.array(answers[place]) for place, name in enumerate(self.names)}


ENGINES: Mapping[str, type[OnnxRuntime] | type[OpenVino]] = {"onnx": OnnxRuntime, "openvino": OpenVino}


class ExportedPredictor(Predictor):
    """An exported model, ready to look at images.

    Args:
        engine: `onnx` or `openvino`; None for that of the file's kind.
        device: `auto` or `cpu`.
        bf16: compute in bfloat16.
    Raises:
        InputError: no exported model, damaged, an engine that is not installed or cannot do `bf16`, or another device.
    """

    def __init__(self, path: Path, engine: str | None = None, device: str = "auto", *, bf16: bool = False) -> None:
        check_is_file(path, "an exported model")
        own = SUFFIXES.get(path.suffix.lower())
        if own is None or (own, engine) == ("openvino", "onnx"):
            raise InputError(
                f"{path}: --engine {engine} takes {'.onnx' if engine == 'onnx' else '.onnx or .xml'}; write it by: "
                f"mammodet export {path if own is None else 'CHECKPOINT'} --format onnx --output model.onnx"
            )
        if device not in ("auto", "cpu"):
            raise InputError(f"device {device!r}: exported models run on the CPU; take the checkpoint for a GPU")
        self.engine, self.device = engine or own, "cpu"
        try:
            self.network: Network = ENGINES[self.engine](path, bf16=bf16)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # each engine has kinds of its own for a damaged file
            reason = str(error).strip().splitlines()[0][:200]
            raise InputError(f"{path}: cannot be read by {self.engine}; it is damaged ({reason})") from None
        content = _read(self.network.metadata, path)
        self.facts = RunFacts.from_json(content["facts"], path)
        self.config = make_config(self.facts.config, where=f"in {path}")
        if self.config.model.detects and self.config.model.test_time.bf16 != bf16:
            test_time = self.config.model.test_time.change(bf16=bf16)
            self.config = self.config.change(model=self.config.model.change(test_time=test_time))
        self.stack = self.facts.stack
        self.checkpoint = (path, file_hash(path))
        if content.get("calibration") is not None:
            self.calibration = calibration_from_json(content["calibration"], f"{path}: calibration")
        if content.get("card") is not None:
            self.card = card_from_json(content["card"], f"{path}: card")

    def _answer(self, looks: Sequence[Look], *, soften: bool = True) -> list[ImagePrediction]:
        found: list[Found] = []
        logits: NDArray[np.float32] | None
        if not self.config.model.detects:
            batch = np.stack([_padded(look.image, self.config.data.image.max_size) for look in looks])
            answer = self.network(batch)["logits"]  # one for all, where the views of a breast are joined
            logits = np.broadcast_to(answer, (len(looks), answer.shape[1]))
        else:
            found = [self.network(look.image[None]) for look in looks]
            parts = [each.pop("logits") for each in found if "logits" in each]
            logits = np.concatenate(parts) if parts else None
        records, traces = [look.record for look in looks], [look.trace for look in looks]
        return answers_to_predictions(found, logits, records, traces, self.config, self.stack, soften=soften)

    def describe(self) -> dict[str, Any]:
        """As of a checkpoint, with the engine."""
        return {**super().describe(), "engine": self.engine}


def needed(name: str) -> Any:
    """A package that the default installation lacks. Raises InputError: it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"needs the package {name}, which is not installed: pip install {name}") from None


def _threads() -> int:
    """As many as the process may use; the environment's OMP_NUM_THREADS limits them, as it does torch's."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(given) if given.isdigit() and int(given) else cores


def _read(text: str | None, path: Path) -> dict[str, Any]:
    if text is None:
        raise InputError(f"{path}: was not written by mammodet export: it says nothing of how images are prepared")
    content = parse_json(text, f"{path}: metadata")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: its metadata are not of the format {FORMAT!r}; export the model again")
    return content


def _padded(image: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Black at the right and the bottom, as `ImageClassifier.padded`."""
    return np.pad(image, ((0, 0), (0, side - image.shape[1]), (0, side - image.shape[2])))
