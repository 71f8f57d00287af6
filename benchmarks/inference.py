"""Engines side by side: first answer, seconds an image, peak memory, size of the file, AP50 and AUC.

Each engine runs in a process of its own, as `mammodet predict` does without workers; the processes take turns, and
ratios are of one round each. `torchvision` is the same network in torchvision's own forward, with its convolutions and
its paste of masks; `detectron2` its `DefaultPredictor` with a network of the same layers and limits and random weights.
With `--random` all see whole images at equal size; with `--film` those two do, and ours crops the breast first, at the
same scale of pixels, and keeps 300 proposals.

example:
  python benchmarks/inference.py --data data/cbis/test.json --images 40 --rounds 3
  python benchmarks/inference.py --input some/dicom/folder --engines torch onnx
  python benchmarks/inference.py --random resnet50 --size 1024 --data data/cbis/test.json --images 3 \\
      --engines detectron2 torchvision torch onnx openvino [--film]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from measuring import arguments, peak_mb

from mammodet.config import TestTimeConfig, load_config
from mammodet.data.coco import read_coco
from mammodet.data.inputs import gather
from mammodet.data.prepared import prepare_record
from mammodet.engine.answers import to_detections
from mammodet.engine.ensemble import Ensemble
from mammodet.engine.predict import Predictor
from mammodet.evaluation.validation import detector_figures
from mammodet.models import STARTER, starter_path
from mammodet.records import Dataset, ImagePrediction

ENGINES = ("detectron2", "torchvision", "torch", "torch-bf16", "onnx", "openvino")
ENGINES += ("openvino-bf16", "openvino-int8", "openvino-int8-bf16")


def main() -> int:
    """Make what the engines need, let them take turns, and print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path(STARTER), help="a detector (default: %(default)s)")
    parser.add_argument("--random", metavar="BACKBONE", help="Mask R-CNN with random weights instead, of one category")
    parser.add_argument("--size", type=int, default=1024, help="with --random: longest side of the network's input")
    parser.add_argument("--film", action="store_true", help="with --random: ours crops the breast, others do not")
    chosen_input = parser.add_mutually_exclusive_group(required=True)
    chosen_input.add_argument("--data", type=Path, help="a data set's JSON file; its images are taken evenly")
    chosen_input.add_argument("--input", type=Path, help="a folder of images without truth")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["torch", "onnx", "openvino"])
    parser.add_argument("--int8", type=Path, help="folder of the data set by which 8 bits are chosen")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # JSON of `measure`'s arguments
    chosen = parser.parse_args()
    if "detectron2" in chosen.engines and chosen.random != "resnet50":
        parser.error("--engines detectron2 needs --random resnet50: it answers with random weights of its own")
    if any("int8" in engine for engine in chosen.engines) and chosen.int8 is None:
        parser.error("an engine in 8 bits needs --int8")
    if chosen.film and chosen.random is None:
        parser.error("--film needs --random: other models say themselves how images are prepared")
    if chosen.child is not None:
        print(json.dumps(measure(chosen, **json.loads(chosen.child))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        files = _files(chosen, Path(folder))
        rounds = [{engine: _run(engine, files[engine]) for engine in chosen.engines} for _ in range(chosen.rounds)]
    print(f"load average {os.getloadavg()[0]:.1f} at the end, {os.environ.get('OMP_NUM_THREADS', 'all')} threads")
    base = chosen.engines[0]
    head = ["engine", "first answer", "s/image", f"{base} / engine", "CPU s/image", f"{base} / engine"]
    head += ["peak memory", "file", "AP50", "AUC"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for engine in chosen.engines:
        runs = [each[engine] for each in rounds]
        median = {
            name: statistics.median(run[name] for run in runs) for name in ("first_s", "image_s", "cpu_s", "peak_mb")
        }
        cells = [engine, f"{median['first_s']:.1f} s"]
        for name in ("image_s", "cpu_s"):
            ratios = [each[base][name] / each[engine][name] for each in rounds]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            cells += [f"{median[name]:.2f}", spread]
        cells += [f"{median['peak_mb']:.0f} MB", f"{runs[0]['file'] / 1e6:.0f} MB"]
        cells += ["" if runs[0][name] is None else f"{runs[0][name]:.3f}" for name in ("ap50", "auc")]
        print(f"| {' | '.join(cells)} |")
    return 0


def measure(chosen: argparse.Namespace, engine: str, path: str, began: float) -> dict[str, Any]:
    """One engine in this process, which was started at `began`, seconds since 1970."""
    dataset, root = _images(chosen, ("mass",))
    answers, seconds, work, start_all = [], [], [], time.perf_counter()
    results: Iterator[object]
    if engine == "detectron2":
        results = detectron2_answers(chosen.size, dataset, root)
    elif engine == "torchvision":
        results = plain(Predictor.from_checkpoint(Path(path), "cpu")).predict(dataset, root)
    else:
        name, *precision = engine.split("-")
        test_time = TestTimeConfig(bf16=True) if "bf16" in precision else None
        sides = film_sides(chosen.size, dataset, root) if chosen.film else []
        began += time.perf_counter() - start_all if chosen.film else 0
        predictor = Ensemble.from_checkpoints([Path(path)], "cpu", test_time, name)
        results = at_film_scale(predictor, sides, dataset, root) if sides else predictor.predict(dataset, root)
    first = 0.0
    for _ in dataset.images:
        start, start_work = time.perf_counter(), time.process_time()
        answers.append(next(results))
        seconds.append(time.perf_counter() - start)
        work.append(time.process_time() - start_work)
        first = first or time.time() - began
    whole = [answer for answer in answers if isinstance(answer, ImagePrediction)]
    figures = detector_figures(dataset, whole) if chosen.data is not None and whole else {}
    return {
        "first_s": first,
        "image_s": statistics.median(seconds[1:] or seconds),
        "cpu_s": statistics.median(work[1:] or work),
        "peak_mb": peak_mb(),
        "file": Path(path).stat().st_size,
        "ap50": figures.get("bbox_AP50"),
        "auc": figures.get("auc_tumor", figures.get("auc_malignant")),
    }


def film_sides(size: int, dataset: Dataset, root: Path) -> list[int]:
    """The longest side of each breast, where the longest side of its film is `size`."""
    image = load_config(None, ()).data.image
    sides = []
    for record in dataset.images:
        steps = prepare_record(root, image, record)[1].steps
        crop_hw = next((step.values[2:] for step in steps if step.name == "crop"), record.size_hw)
        sides.append(round(size * max(crop_hw) / max(record.size_hw)))
    return sides


def at_film_scale(predictor: Predictor, sides: Sequence[int], dataset: Dataset, root: Path) -> Iterator[object]:
    """Answers to images, each with a longest side of its own."""
    config = predictor.config
    for record, side in zip(dataset.images, sides, strict=True):
        image = config.data.image.change(max_size=side)
        predictor.config = config.change(data=config.data.change(image=image))
        yield from predictor.predict(replace(dataset, images=(record,)), root)


def plain(predictor: Predictor) -> Predictor:
    """A predictor whose network runs as torchvision's own: its order of memory, its forward, its paste of masks."""
    import torch
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    from mammodet.modeling import winograd

    winograd._AVAILABLE = False
    network: Any = predictor.model.detector.model.to(memory_format=torch.contiguous_format)

    def answer(looks: Sequence[Any], *, soften: bool = True) -> list[ImagePrediction]:
        with torch.no_grad():
            found = network([torch.from_numpy(look.image) for look in looks])
        predictions = []
        for look, each in zip(looks, found, strict=True):
            masks = each.pop("masks", None)
            if masks is not None:
                _ = paste_masks_in_image(masks, each["boxes"], look.trace.output_size_hw) >= 0.5
            arrays = {name: values.numpy() for name, values in each.items()}
            record = look.record
            detections = to_detections(arrays, look.trace)
            predictions.append(ImagePrediction(record.image_id, record.file_name, record.size_hw, {}, detections))
        return predictions

    predictor._answer = answer  # type: ignore[method-assign]
    return predictor


def detectron2_answers(size: int, dataset: Dataset, root: Path) -> Iterator[object]:
    """Answers of Mask R-CNN R50-FPN to images of this longest side, read by OpenCV as the predictor asks."""
    import cv2
    import torch
    from detectron2 import model_zoo
    from detectron2.engine import DefaultPredictor

    ours = load_config(None, ()).model.detector
    chosen = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
    chosen.MODEL.WEIGHTS, chosen.MODEL.DEVICE, chosen.MODEL.ROI_HEADS.NUM_CLASSES = "", "cpu", 1
    chosen.INPUT.MIN_SIZE_TEST = chosen.INPUT.MAX_SIZE_TEST = size
    chosen.MODEL.RPN.PRE_NMS_TOPK_TEST = ours.rpn_pre_nms_top_n
    chosen.MODEL.RPN.POST_NMS_TOPK_TEST = ours.rpn_post_nms_top_n
    chosen.MODEL.ROI_HEADS.SCORE_THRESH_TEST = ours.score_threshold
    chosen.MODEL.ROI_HEADS.NMS_THRESH_TEST = ours.nms_threshold
    chosen.TEST.DETECTIONS_PER_IMAGE = ours.max_detections
    torch.manual_seed(0)
    predictor = DefaultPredictor(chosen)
    for record in dataset.images:
        yield predictor(cv2.imread(str(root / record.file_name)))["instances"]


def _images(chosen: argparse.Namespace, categories: tuple[str, ...]) -> tuple[Dataset, Path]:
    if chosen.data is None:
        found = gather([chosen.input], categories, unpack_to=Path("nowhere"))  # a folder holds no zip
        dataset, root = found.dataset, found.root
    else:
        dataset, root = read_coco(chosen.data), chosen.data.parent
    step = max(len(dataset.images) // chosen.images, 1)
    return replace(dataset, images=dataset.images[::step][: chosen.images]), root


def _files(chosen: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """The checkpoint, made where it is to be random, and the exported model."""
    checkpoint = starter_path() if str(chosen.checkpoint) == STARTER else chosen.checkpoint
    files: dict[str, Path] = {}
    if chosen.random is not None:
        whole = _random(folder / "whole.ckpt", chosen, "data.image.crop=none")
        files = dict.fromkeys(("torchvision", "detectron2"), whole)
        ours = "model.detector.rpn_top_n_predict=300"
        checkpoint = _random(folder / "breast.ckpt", chosen, ours) if chosen.film else whole
    files = {**dict.fromkeys(("torchvision", "torch", "torch-bf16"), checkpoint), **files}
    if any(engine.startswith(("onnx", "openvino")) for engine in chosen.engines):
        from mammodet.export.onnx_export import export_onnx

        export_onnx(checkpoint, folder / "model.onnx")
        files |= dict.fromkeys(("onnx", "openvino", "openvino-bf16"), folder / "model.onnx")
    if chosen.int8 is not None:
        from mammodet.export.int8 import quantize

        files |= dict.fromkeys(("openvino-int8", "openvino-int8-bf16"), folder / "int8.onnx")
        quantize(folder / "model.onnx", folder / "int8.onnx", read_coco(chosen.int8 / "train.json"), chosen.int8)
    return files


def _random(path: Path, chosen: argparse.Namespace, setting: str) -> Path:
    import torch

    from mammodet.engine.checkpoint import save_torch
    from mammodet.engine.facts import RunFacts
    from mammodet.modeling.build import build_model
    from mammodet.modeling.weight_files import KEY

    torch.manual_seed(0)
    settings = ["model.detector.backbone.norm=FrozenBN", "model.weights=none.pth", "model.aggregation.rule=max"]
    settings += [f"model.detector.backbone.name={chosen.random}", f"data.image.max_size={chosen.size}", setting]
    config = load_config(None, settings)
    state = build_model(config, 1, load_weights=False).state_dict()
    facts = RunFacts(config.to_dict(), ("mass",), "none", None)
    save_torch({"state_dict": {f"model.{name}": value for name, value in state.items()}, KEY: facts.to_json()}, path)
    return path


def _run(engine: str, path: Path) -> dict[str, Any]:
    child = json.dumps({"engine": engine, "path": str(path), "began": time.time()})
    done = subprocess.run([sys.executable, *sys.argv, "--child", child], stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    sys.exit(main())
