"""A trained model as one ONNX graph, with all else that prediction needs in its metadata (docs/speed.md)."""

import json
import logging
import shutil
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList

from mammodet.engine.exported import FORMAT, KEY, OnnxRuntime, needed
from mammodet.engine.pack import without_folders
from mammodet.engine.predict import Predictor
from mammodet.errors import InputError
from mammodet.evaluation.calibration_file import to_json as calibration_to_json
from mammodet.export.int8 import to_int8
from mammodet.files import atomic_path, file_hash
from mammodet.modeling.classifier import ImageClassifier
from mammodet.modeling.image_head import STRIDES
from mammodet.modeling.mammo_rcnn import MammoRCNN
from mammodet.modeling.torchvision_detector import TorchvisionDetector

OPSET = 18
DIVISOR = 32  # sides of a padded image, as torchvision pads them
TRACED_HW, CHECKED_HW = (224, 160), (150, 288)
#: How far the graph may be from torch on the image that checks it: boxes in pixels, all else in its own unit.
TOLERANCES = {"boxes": 0.1, "scores": 1e-3, "labels": 0, "masks": 0.01, "logits": 1e-3}


class DetectorGraph(nn.Module):
    """A detector as it is traced: an image (1, C, H, W) in [0, 1] of any size to a tuple in the order of `names`."""

    def __init__(self, model: MammoRCNN) -> None:
        super().__init__()
        self.model = model
        self.names = ["boxes", "scores", "labels", *(["masks"] if model.with_masks else [])]
        self.names += ["logits"] if model.image_head is not None else []

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Boxes (n, 4), scores (n,), labels (n,), masks (n, 1, M, M), logits (1, T)."""
        detector: Any = self.model.detector.model
        height, width = image.shape[-2:]
        padding = (0, -width % DIVISOR, 0, -height % DIVISOR)
        seen = (image - detector.transform.image_mean[0]) / detector.transform.image_std[0]
        batch, sizes_hw = functional.pad(seen, padding), [(height, width)]
        features = detector.backbone(batch)
        proposals, _ = detector.rpn(ImageList(batch, sizes_hw), features, None)
        found, _ = detector.roi_heads(features, proposals, sizes_hw, None)
        answers = [found[0][name] for name in ("boxes", "scores", "labels", "masks") if name in self.names]
        if self.model.image_head is not None:
            inside = functional.pad(torch.ones_like(image[:, 0]), padding) > 0
            levels = list(features.values())
            answers.append(
                self.model.image_head.pool(
                    [levels[level] for level in self.model.image_head.levels],
                    [inside[:, ::stride, ::stride] for stride in STRIDES],
                )
            )
        return tuple(answers)


class ClassifierGraph(nn.Module):
    """A classifier as it is traced: images (B, C, side, side), of one breast where views are joined, to logits."""

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.model, self.names = model, ["logits"]

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Logits (B, sum of widths); (1, sum of widths) of a breast."""
        model = self.model
        features = model.network((images - model.pixels.mean) / model.pixels.std)
        if model.views != "none":
            features = model.join(features, torch.ones_like(features[:, 0], dtype=torch.bool)[None])
        return (model.answer(features),)


def export_onnx(checkpoint: Path, output: Path, *, int8: Path | None = None, force: bool = False) -> list[str]:
    """Write a checkpoint as an ONNX file, whole or not at all, once it answers as torch does.

    Args:
        int8: folder of the data set by which it is put in 8 bits after that, see `to_int8`.
        force: of `to_int8`.
    Returns:
        how far the largest answer of each kind is from torch's, one line each; AP50 of 8 bits.
    Raises:
        InputError: a model that cannot be exported, or whose graph answers otherwise.
    """
    onnx = needed("onnx")
    predictor = Predictor.from_checkpoint(checkpoint, "cpu")
    model, config = predictor.model, predictor.config
    graph: DetectorGraph | ClassifierGraph
    if isinstance(model, ImageClassifier):
        graph = ClassifierGraph(model)
        sizes_hw = [(model.side, model.side)] * 2
    elif isinstance(model.detector, TorchvisionDetector):
        graph, sizes_hw = DetectorGraph(model), [TRACED_HW, CHECKED_HW]
    else:
        raise InputError(
            f"{checkpoint}: a network of detectron2 cannot be exported. What can: detectors with "
            "model.detector.backend=torchvision, and classifiers"
        )
    facts = replace(
        predictor.facts,
        config=without_folders(config.to_dict()),
        packed_from=(*predictor.facts.packed_from, file_hash(checkpoint)),
    )
    content = {
        "format": FORMAT,
        "outputs": graph.names,
        "facts": facts.to_json(),
        "calibration": calibration_to_json(predictor.calibration) if predictor.calibration else None,
        "card": predictor.card.model_dump(mode="json") if predictor.card else None,
    }
    traced, checked = (_example(len(config.data.image.channels), size_hw) for size_hw in sizes_hw)
    with atomic_path(output) as temporary:
        _trace(graph.eval(), traced, temporary, f"{checkpoint}: its network")
        proto = onnx.load(str(temporary))
        onnx.helper.set_model_props(proto, {KEY: json.dumps(content)})
        onnx.save(proto, str(temporary))
        lines = _check(graph, temporary, checked, str(checkpoint))
        return [*lines, to_int8(temporary, int8, force=force)] if int8 is not None else lines


def export_openvino(checkpoint: Path, output: Path, **options: Any) -> list[str]:
    """As `export_onnx`, in OpenVINO's own format: `output`, an XML file, and its weights beside it."""
    openvino = needed("openvino")
    with tempfile.TemporaryDirectory() as folder:
        lines = export_onnx(checkpoint, Path(folder) / "model.onnx", **options)
        model = openvino.Core().read_model(str(Path(folder) / "model.onnx"))
        openvino.save_model(model, str(Path(folder) / "model.xml"), compress_to_fp16=False)
        for suffix in (".bin", ".xml"):  # the one that names the model last
            with atomic_path(output.with_suffix(suffix)) as temporary:
                shutil.copyfile(Path(folder) / f"model{suffix}", temporary)
    return lines


def _trace(graph: nn.Module, image: Tensor, path: Path, where: str) -> None:
    names: Any = graph.names
    classifies = isinstance(graph, ClassifierGraph)
    axes = {"image": {0: "images"} if classifies else {2: "height", 3: "width"}}
    axes |= {name: {0: "images" if classifies else "found"} for name in names if name != "logits" or classifies}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # of the tracer, about sizes that are constant here
            # The exporter of torch.export knows no sizes that depend on the data, as those of detections do.
            torch.onnx.export(
                graph,
                (image,),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=names,
                dynamic_axes=axes,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise InputError(f"{where} holds what ONNX does not know ({str(error).splitlines()[0]})") from None


def _check(graph: nn.Module, path: Path, image: Tensor, where: str) -> list[str]:
    with torch.inference_mode():
        names: Any = graph.names
        expected = dict(zip(names, (answer.numpy() for answer in graph(image)), strict=True))
    found = OnnxRuntime(path)(image.numpy())
    lines = []
    for name, values in expected.items():
        same = values.shape == found[name].shape
        far = float(np.abs(values - found[name]).max(initial=0)) if same else np.inf
        if far > TOLERANCES[name]:
            raise InputError(f"{where}: its graph answers otherwise than torch: {name} differ by {far:.3g}")
        lines.append(f"{name} differ by at most {far:.2g} from torch's")
    return lines


def _example(channels: int, size_hw: tuple[int, int]) -> Tensor:
    """A smooth image (1, channels, H, W) in [0, 1], with bright spots."""
    generator = torch.Generator().manual_seed(0)
    spots = torch.rand((1, channels, 9, 7), generator=generator) ** 3
    return functional.interpolate(spots, size_hw, mode="bicubic").clamp(0, 1)
