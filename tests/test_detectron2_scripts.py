"""docs/detectron2_scripts.md: its script runs, and COCOEvaluator's figures are ours."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_detectron2 import lesion, write_small

from mammodet.data.coco import read_coco, write_coco
from mammodet.data.detectron2_catalog import dataset_dicts, register
from mammodet.data.predictions import match_to_dataset, read_predictions
from mammodet.detectron2_install import require_detectron2
from mammodet.evaluation.average_precision import AveragePrecision, average_precision
from mammodet.evaluation.bootstrap import Bootstrap
from mammodet.evaluation.flat import flat_detections, flat_lesions
from mammodet.evaluation.sizes import size_bins
from mammodet.geometry import mask_to_rle, rle_box
from mammodet.records import Dataset, ImageRecord, Lesion

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # NumPy to detectron2
]
ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "detectron2_scripts.md"
SIZE = (240, 280)
CATEGORIES = ("mass", "calcification")


@pytest.fixture
def name(tmp_path):
    """A name that is free in detectron2's catalogs after the test."""
    require_detectron2()
    from detectron2.data import DatasetCatalog, MetadataCatalog

    yield "scripts_test"
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.pop("scripts_test", None)


def ellipse(box):
    """The mask of an ellipse in a box."""
    x1, y1, x2, y2 = box
    rows, columns = np.ogrid[0.5 : SIZE[0], 0.5 : SIZE[1]]
    across, down = (columns - (x1 + x2) / 2) / (x2 - x1), (rows - (y1 + y2) / 2) / (y2 - y1)
    return across**2 + down**2 <= 0.25


def random_box(rng, least=8, most=140):
    sides = rng.integers(least, most, 2)
    corner = rng.integers(0, np.array(SIZE[::-1]) - sides)
    return np.array([*corner, *(corner + sides)], dtype=float)


def random_dataset(rng, images=40) -> Dataset:
    """None to three lesions an image, small to large, one in six to be ignored; ids in no order."""
    records = []
    for number in rng.permutation(images):
        lesions = []
        for _ in range(rng.integers(0, 4)):
            rle = mask_to_rle(ellipse(random_box(rng)))
            category = CATEGORIES[rng.integers(2)]
            lesions.append(Lesion(category, rle_box(rle), rle, "contour", ignore=bool(rng.random() < 1 / 6)))
        records.append(ImageRecord(int(number) + 1, f"{number}.png", SIZE, f"P{number // 2}", lesions=tuple(lesions)))
    return Dataset(CATEGORIES, tuple(records))


def detections(rng, record, extra=2):
    """Lesions of a record moved and stretched, some of another category, and false ones; boxes in eighths of a px."""
    from detectron2.structures import Boxes, Instances

    boxes, classes = [], []
    for truth in record.lesions:
        sides = np.array(truth.box_xyxy[2:]) - truth.box_xyxy[:2]
        for _ in range(rng.integers(0, 3)):
            shift = np.concatenate([sides, sides]) * rng.normal(0, 0.06, 4)
            box = np.round((truth.box_xyxy + shift) * 8) / 8
            box = np.clip(box, 0, [SIZE[1], SIZE[0]] * 2)
            if (box[2:] - box[:2]).min() > 1:
                boxes.append(box)
                classes.append(CATEGORIES.index(truth.category) if rng.random() < 0.9 else rng.integers(2))
    for _ in range(rng.integers(0, extra + 1)):
        boxes.append(random_box(rng))
        classes.append(rng.integers(2))
    instances = Instances(SIZE)
    instances.pred_boxes = Boxes(torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32))
    instances.scores = torch.tensor(rng.random(len(boxes)), dtype=torch.float32)
    instances.pred_classes = torch.tensor(np.array(classes), dtype=torch.int64)
    masks = [torch.from_numpy(ellipse(box)) for box in boxes]
    instances.pred_masks = torch.stack(masks) if masks else torch.zeros((0, *SIZE), dtype=torch.bool)
    return instances


def one_detection(score):
    """A mass at (40, 40) to (80, 80)."""
    from detectron2.structures import Boxes, Instances

    instances = Instances(SIZE)
    instances.pred_boxes = Boxes(torch.tensor([[40.0, 40, 80, 80]]))
    instances.scores, instances.pred_classes = torch.tensor([score]), torch.tensor([0])
    mask = torch.zeros((1, *SIZE), dtype=torch.bool)
    mask[:, 40:80, 40:80] = True
    instances.pred_masks = mask
    return instances


def coco_evaluator(name, output, found, **more):
    """detectron2's figures of these detections, by image id; its results file lies in `output`."""
    from detectron2.evaluation import COCOEvaluator

    evaluator = COCOEvaluator(name, output_dir=str(output), distributed=False, **more)
    evaluator.reset()
    for number, instances in found.items():
        evaluator.process([{"image_id": number}], [{"instances": instances}])
    return evaluator.evaluate()


def import_results(truth, output):
    """The results file through mammodet import, as the page says."""
    tool = runpy.run_path(str(ROOT / "tools" / "import_predictions.py"))
    arguments = ["--ground-truth", truth, "--source", output / "coco_instances_results.json"]
    arguments += ["--output", output / "predictions.json", "--image-score", "max"]
    assert tool["main"](["detectron2", *map(str, arguments)]) == 0
    return output / "predictions.json"


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_all_twelve_figures_of_cocoevaluator_are_ours(tmp_path, name, seed, fast):
    rng = np.random.default_rng(seed)
    dataset = random_dataset(rng)
    write_coco(dataset, tmp_path / "test.json")
    register(name, tmp_path / "test.json")
    found = {record.image_id: detections(rng, record) for record in dataset.images}
    flood = found[dataset.images[0].image_id] = detections(rng, dataset.images[0], extra=600)
    assert min(np.bincount(flood.pred_classes)) > 100  # more than count
    flood.scores *= 0.3
    theirs = coco_evaluator(name, tmp_path, found, use_fast_impl=fast)
    predictions = read_predictions(import_results(tmp_path / "test.json", tmp_path))
    matched = match_to_dataset(predictions.images, dataset)
    flat, lesions = flat_detections(dataset, matched), flat_lesions(dataset)
    bins, one = size_bins(dataset, flat, lesions), np.zeros(len(dataset.images), dtype=np.int64)
    measure = AveragePrecision(dataset, flat, lesions, one, ("bbox", "segm"), bins)
    kinds, sizes = measure.results(Bootstrap(1, 0, 0))
    assert [label.partition(" ")[0] for label, _ in sizes] == ["small", "medium", "large"]
    for number, kind in enumerate(("bbox", "segm")):
        over_all = [kinds[kind].AP, kinds[kind].AP50, kinds[kind].AP75]
        ours = [figure.value for figure in (*over_all, *(figures[2 * number] for _, figures in sizes))]
        assert np.multiply(ours, 100).tolist() == pytest.approx(
            [theirs[kind][key] for key in ("AP", "AP50", "AP75", "APs", "APm", "APl")], abs=1e-9
        )
        assert 10 < theirs[kind]["AP"] < 85
        assert all(theirs[kind][key] > 0 for key in ("APs", "APm", "APl"))


def test_the_results_file_goes_through_import_and_evaluation(tmp_path, name):
    rng = np.random.default_rng(2)
    dataset = random_dataset(rng, images=16)
    labelled = tuple(replace(one, labels={"tumor": int(bool(one.lesions))}) for one in dataset.images)
    write_coco(Dataset(CATEGORIES, labelled), tmp_path / "test.json")
    register(name, tmp_path / "test.json")
    theirs = coco_evaluator(name, tmp_path, {one.image_id: detections(rng, one) for one in labelled})
    predictions = import_results(tmp_path / "test.json", tmp_path)
    tool = runpy.run_path(str(ROOT / "tools" / "evaluate.py"))
    arguments = ["--ground-truth", tmp_path / "test.json", "--predictions", predictions, "--output", tmp_path / "eval"]
    assert tool["main"]([*map(str, arguments), "--resamples", "100", "--no-report"]) == 0
    (model,) = json.loads((tmp_path / "eval" / "metrics.json").read_text())["models"]
    for kind in ("bbox", "segm"):
        figures = model["detection"][kind]
        assert figures["AP"]["value"] * 100 == pytest.approx(theirs[kind]["AP"], abs=1e-9)
        low, high = figures["AP"]["ci95"]
        assert low < figures["AP"]["value"] < high
    assert model["image"]["tumor"]["n_positive"] == sum(one.labels["tumor"] == 1 for one in labelled)


def test_images_with_a_lesion_without_a_place_part_the_figures(tmp_path, name):
    place = lesion((40, 40, 80, 80), size_hw=SIZE)
    known, lost = ImageRecord(1, "a.png", SIZE, lesions=(place,)), ImageRecord(2, "b.png", SIZE, unlocalized=True)
    dataset = Dataset(CATEGORIES, (known, lost))
    write_coco(dataset, tmp_path / "test.json")
    register(name, tmp_path / "test.json")
    theirs = coco_evaluator(name, tmp_path, {1: one_detection(0.5), 2: one_detection(0.9)})
    matched = match_to_dataset(read_predictions(import_results(tmp_path / "test.json", tmp_path)).images, dataset)
    # The stronger detection is false for COCOEvaluator: precision 1/2 at every recall.
    assert theirs["bbox"]["AP"] == pytest.approx(50)
    assert average_precision(dataset, matched, "bbox").AP.value == pytest.approx(1)


def test_a_box_without_a_mask_needs_the_task_named(tmp_path, name):
    bare = lesion((40, 40, 80, 80), mask=False, size_hw=SIZE)
    write_coco(Dataset(CATEGORIES, (ImageRecord(1, "a.png", SIZE, lesions=(bare,)),)), tmp_path / "test.json")
    register(name, tmp_path / "test.json")
    found = {1: one_detection(0.5)}
    with pytest.raises(KeyError, match="segmentation"):
        coco_evaluator(name, tmp_path, found)
    assert coco_evaluator(name, tmp_path, found, tasks=("bbox",))["bbox"]["AP"] == pytest.approx(100)


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_script_of_the_page_runs(tmp_path, phantom_root):
    script = blocks()[0]
    variables = {
        **{"DATA": f"Path({str(phantom_root)!r})", "OUTPUT": f"Path({str(tmp_path / 'run ö')!r})", "WEIGHTS": "''"},
        **{"ITERATIONS": "4", "SIZE": "64", "BATCH": "2", "WORKERS": "1", "RESAMPLES": "100"},
    }
    for variable, value in variables.items():
        script, count = re.subn(rf"^{variable} = .*$", lambda _, line=f"{variable} = {value}": line, script, flags=re.M)
        assert count == 1, variable
    (tmp_path / "train_net.py").write_text(script, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(tmp_path / "train_net.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    output = tmp_path / "run ö"
    assert (output / "model_final.pth").is_file()
    found, dataset = read_predictions(output / "predictions.json"), read_coco(phantom_root / "test.json")
    assert [one.file_name for one in found.images] == [one.file_name for one in dataset.images]
    train = read_coco(phantom_root / "train.json")
    assert found.model["patients"] == sorted({one.patient_id for one in train.images})
    (model,) = json.loads((output / "evaluation" / "metrics.json").read_text())["models"]
    assert set(model["detection"]["bbox"]["AP"]) == {"value", "ci95"}
    assert (output / "evaluation" / "report.html").is_file()
    # Lesion-free images were kept: those of the file, as detectron2 says itself.
    assert f"Serializing {len(train.images)} elements" in done.stdout


def test_the_lazy_config_of_the_page_makes_a_mapper(tmp_path):
    require_detectron2()
    from detectron2.config import LazyCall, instantiate
    from detectron2.data import transforms
    from omegaconf import OmegaConf

    from mammodet.config import ImageConfig
    from mammodet.data.detectron2_mapper import MammogramMapper

    loader = OmegaConf.create({"train": {}}, flags={"allow_objects": True})
    known = {"L": LazyCall, "T": transforms, "ImageConfig": ImageConfig, "MammogramMapper": MammogramMapper}
    exec(blocks()[1], {**known, "dataloader": loader})
    mapper = instantiate(loader.train.mapper)
    write_small(tmp_path)
    item = dataset_dicts(read_coco(tmp_path / "train.json"), tmp_path)[0]
    sample = mapper(item)
    assert 800 <= sample["image"].shape[1] <= 1024
    assert sample["instances"].gt_masks.tensor.shape[1:] == sample["image"].shape[1:]
    assert not torch.equal(sample["image"][0], sample["image"][2])
