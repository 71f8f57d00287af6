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


def to_int8(path: Path, data: Path, *, force: bool) -> str:
    """Exchange the convolutions of a detector's body and pyramid for 8-bit ones, in place (Jacob et al., CVPR 2018).

    Each channel of the weights has a scale of its own; between the layers the range is that of `IMAGES` training
    images. In float32 remain what loses most or gains least: the first convolution, grouped ones, proposals and heads.

    Args:
        path: ONNX file of `export_onnx`.
        data: folder with `train.json`, and `val.json` to compare AP50 on.
        force: keep it although AP50 falls by more than `LIMIT`.
    Returns:
        AP50 of boxes on the validation images before and after.
    Raises:
        InputError: no detector; a data set of other categories, or without lesions; a loss above `LIMIT`, or nothing
            found before.
    """
    onnx, quantization = needed("onnx"), needed("onnxruntime.quantization")
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
    ranges = _Images(predictor, train, data)
    graph = onnx.load(str(path)).graph
    body = [node.name for node in graph.node if node.op_type == "Conv" and node.name.startswith("/backbone")]
    grouped = {node.name for node in graph.node for each in node.attribute if each.name == "group" and each.i > 1}
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        disabled = logging.root.manager.disable
        logging.disable(logging.WARNING)  # advice for graphs that were not prepared; torch's exporter has folded ours
        try:
            quantization.quantize_static(
                str(path),
                str(temporary),
                ranges,
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_quantize=[name for name in body[1:] if name not in grouped],
                per_channel=True,
                reduce_range=True,  # 7 bits: sums of two products fit 16 bits on processors without VNNI
                weight_type=quantization.QuantType.QInt8,
            )
        finally:
            logging.disable(disabled)
        after = _ap50(temporary, validation, data)
        if (before == 0 or before - after > LIMIT) and not force:
            raise InputError(
                f"--int8: box AP50 on {data / 'val.json'} falls from {before:.3f} to {after:.3f}; expected at least "
                f"{max(before - LIMIT, 0):.3f}, and more than 0 before. Nothing was written: leave --int8 out, or keep "
                "it all the same: --force"
            )
    return f"box AP50 on {data / 'val.json'}: {before:.3f} in float32, {after:.3f} in 8 bits"


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
