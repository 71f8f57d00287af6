"""An exported detector in 8 bits: faster where the processor multiplies these (docs/speed.md)."""

import logging
import warnings
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mammodet.data.coco import read_coco
from mammodet.data.prepared import prepare_record
from mammodet.engine.exported import ExportedPredictor, needed
from mammodet.errors import InputError
from mammodet.evaluation.validation import detector_figures
from mammodet.files import atomic_path
from mammodet.records import Dataset, ImagePrediction

#: Training images that say how large the values between layers become.
IMAGES = 32
#: The most that AP50 may fall.
LIMIT = 0.01
#: How the names of the convolutions in 8 bits begin: those of body and pyramid, proposals, masks.
PARTS = ("/backbone", "/rpn/head/conv", "/roi_heads/mask_head", "/roi_heads/mask_predictor/conv5_mask")
KINDS = ["Conv", "ConvTranspose"]


def to_int8(path: Path, data: Path, *, force: bool) -> str:
    """Exchange most of a detector's convolutions for 8-bit ones, in place, once AP50 is compared.

    Args:
        path: ONNX file of `export_onnx`.
        data: folder with `train.json` for `quantize`, and `val.json` to compare AP50 on.
        force: keep it although AP50 falls by more than `LIMIT`.
    Returns:
        AP50 of boxes on the validation images before and after.
    Raises:
        InputError: no detector; a data set of other categories, or without lesions; a loss above `LIMIT`, or nothing
            found before.
    """
    predictor = ExportedPredictor(path)
    if not predictor.config.model.detects:
        raise InputError("--int8: a classifier has no AP50 to compare; export it in float32: leave --int8 out")
    train, validation = (read_coco(data / f"{subset}.json") for subset in ("train", "val"))
    if validation.categories != predictor.facts.categories:
        raise InputError(
            f"{data / 'val.json'}: its categories are {list(validation.categories)}, those of the model "
            f"{list(predictor.facts.categories)}; give --int8 a data set of these (mammodet subset --category renames)"
        )
    before = _ap50(path, validation, data)
    with atomic_path(path) as temporary:
        quantize(path, temporary, train, data)
        after = _ap50(temporary, validation, data)
        if (before == 0 or before - after > LIMIT) and not force:
            raise InputError(
                f"--int8: box AP50 on {data / 'val.json'} falls from {before:.3f} to {after:.3f}; expected at least "
                f"{max(before - LIMIT, 0):.3f}, and more than 0 before. Nothing was written: leave --int8 out, or keep "
                "it all the same: --force"
            )
    return f"box AP50 on {data / 'val.json'}: {before:.3f} in float32, {after:.3f} in 8 bits"


def quantize(path: Path, output: Path, dataset: Dataset, root: Path) -> None:
    """Exchange most of a detector's convolutions for 8-bit ones (Jacob et al., CVPR 2018).

    Each channel of the weights has a scale of its own; what goes into a convolution has the range that it takes on
    `IMAGES` images. In float32 remain what loses most or gains least: the first convolution, grouped ones, and what
    gives scores, boxes and masks their last form.
    """
    quantization = needed("onnxruntime.quantization")
    graph = needed("onnx").load(str(path)).graph
    body = [node for node in graph.node if node.op_type in KINDS and node.name.startswith(PARTS)]
    grouped = {node.name for node in graph.node for each in node.attribute if each.name == "group" and each.i > 1}
    chosen = [node for node in body[1:] if node.name not in grouped]
    # OpenVINO computes in float32 what has a zero point, so that only what a ReLU has cut at 0 is unsigned.
    unsigned: set[str] = set()
    for node in graph.node:
        if node.op_type in ("Relu", "Clip") or (node.op_type == "MaxPool" and node.input[0] in unsigned):
            unsigned.update(node.output)
    signed = {"quant_type": quantization.QuantType.QInt8, "symmetric": True}
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # advice for graphs that were not prepared; torch's exporter has folded ours
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantization.quantize_static(
                str(path),
                str(output),
                _Images(ExportedPredictor(path), dataset, root),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=KINDS,
                nodes_to_quantize=[node.name for node in chosen],
                per_channel=True,
                reduce_range=True,  # 7 bits: sums of two products fit 16 bits on processors without VNNI
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                extra_options={
                    "OpTypesToExcludeOutputQuantization": KINDS,
                    "TensorQuantOverrides": {
                        node.input[0]: [signed] for node in chosen if node.input[0] not in unsigned
                    },
                },
            )
    finally:
        logging.disable(disabled)


class _Images:
    """Inputs of a detector, one at a time, as ONNX Runtime's `CalibrationDataReader` gives them."""

    def __init__(self, predictor: ExportedPredictor, dataset: Dataset, root: Path) -> None:
        step = max(len(dataset.images) // IMAGES, 1)
        images = tqdm(dataset.images[::step][:IMAGES], desc="ranges of values", unit="image")
        self.left = (prepare_record(root, predictor.config.data.image, record)[0][None] for record in images)

    def get_next(self) -> dict[str, Any] | None:
        """The next input, None after the last."""
        image = next(self.left, None)
        return None if image is None else {"image": image}


def _ap50(path: Path, dataset: Dataset, root: Path) -> float:
    predictions = ExportedPredictor(path).predict(dataset, root, force=True)
    shown = tqdm(predictions, desc="comparing", unit="image", total=len(dataset.images))
    figures = detector_figures(dataset, [each for each in shown if isinstance(each, ImagePrediction)])
    if "bbox_AP50" not in figures:
        raise InputError(f"{root / 'val.json'}: holds no lesion with a place, so that AP50 cannot be compared")
    return figures["bbox_AP50"]
