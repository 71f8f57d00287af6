"""The Python API, and that docs/python.md says what it does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SMALL

import mammodet
import mammodet.config
from mammodet.commands import evaluate
from mammodet.data.coco import read_coco
from mammodet.errors import InputError
from mammodet.evaluation.results import Metrics

ROOT = Path(__file__).parent.parent
TINY = [*SMALL, "train.epochs=1", "train.validate_every=1", "data.num_workers=0", "data.image.max_size=64"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, phantom_root: Path) -> Path:
    """A folder with a trained model, films, and an archive, as docs/python.md has them."""
    folder = tmp_path_factory.mktemp("api ö")
    mammodet.train(
        ROOT / "configs/phantom/quickstart.yaml", f"data.root={phantom_root}", *TINY, f"output_dir={folder}/output"
    )
    (folder / "films").mkdir()
    for number, record in enumerate(read_coco(phantom_root / "test.json").images[:3], 1):
        (folder / f"films/mdb00{number}.png").write_bytes((phantom_root / record.file_name).read_bytes())
    (folder / "all-mias").symlink_to(phantom_root.parent / "archive")
    return folder


def test_import_brings_no_torch() -> None:
    code = "import sys, mammodet; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_every_example_of_the_page_runs(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = mammodet.config.load_config
    monkeypatch.setattr(mammodet.config, "load_config", lambda path, overrides: load(path, [*TINY, *overrides]))
    monkeypatch.chdir(work)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert Path(str(names["best"])) == Path("run/best.ckpt")
    assert Path("predictions.json").is_file()
    metrics = names["metrics"]
    assert isinstance(metrics, Metrics)
    assert metrics.protocol.resamples == 200
    assert metrics.models[0].protocol.patients_seen_in_training == 0
    picture = names["picture"]
    assert isinstance(picture, np.ndarray)
    assert picture.ndim == 3


def test_one_image_is_the_same_as_a_file_an_array_in_a_folder_and_in_a_list(work: Path) -> None:
    model = mammodet.load(work / "output/best.ckpt", device="cpu")
    path = work / "films/mdb001.png"
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    found = [
        model.predict(path)[0],
        model.predict(str(work / "films"))[0],
        model.predict(pixels)[0],
        model.predict([work / "films/mdb002.png", pixels, path])[1],
        model.predict([path, pixels])[0],
    ]
    for one in found:
        assert one.scores == found[0].scores
        np.testing.assert_array_equal(one.detections.boxes_xyxy, found[0].detections.boxes_xyxy)
    assert found[0].masks is not None
    assert found[0].masks.shape == (len(found[0].detections), *pixels.shape)
    assert found[0].draw(captions=False).shape == (*pixels.shape, 3)


def test_results_are_what_the_command_evaluates(work: Path, phantom_root: Path, tmp_path: Path) -> None:
    truth = phantom_root / "test.json"
    results = mammodet.load(work / "output/best.ckpt", "cpu").predict(truth)
    assert len(results) == len(read_coco(truth).images)
    assert [each.prediction.image_id for each in results] == [image.image_id for image in read_coco(truth).images]
    assert len(results.to_coco()) == sum(len(each.detections) for each in results)
    assert results.patients
    path = results.save(tmp_path / "predictions.json")
    arguments = ["--ground-truth", truth, "--predictions", path, "--output", tmp_path / "eval", "--no-report"]
    assert evaluate.main([*map(str, arguments), "--resamples", "0"]) == 0


def test_unreadable_files_are_skipped_and_named(work: Path, tmp_path: Path) -> None:
    model = mammodet.load(work / "output/best.ckpt", "cpu")
    whole = (work / "films/mdb001.png").read_bytes()
    (tmp_path / "cut ü.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "whole.png").write_bytes(whole)
    results = model.predict([tmp_path / "cut ü.png", tmp_path / "whole.png"])
    assert [each.file_name for each in results] == ["whole.png"]
    assert [each.file_name for each in results.skipped] == ["cut ü.png"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8)), "type float64; expected a grey image"),
        (np.zeros((8, 8, 3), np.uint8), r"shape \(8, 8, 3\)"),
        ([], "the list is empty"),
        ("nowhere.png", "nowhere.png: no such file or folder"),
        (["nowhere.png"], "no such file or folder"),
    ],
)
def test_what_is_no_image_is_refused(work: Path, images: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mammodet.load(work / "output/best.ckpt", "cpu").predict(images)  # type: ignore[arg-type]


def test_dataset_needs_its_root(work: Path, phantom_root: Path) -> None:
    model, dataset = mammodet.load(work / "output/best.ckpt", "cpu"), mammodet.read_dataset(phantom_root / "test.json")
    with pytest.raises(InputError, match="give root="):
        model.predict(dataset)
    by_file, by_object = model.predict(phantom_root / "test.json"), model.predict(dataset, root=phantom_root)
    assert [each.scores for each in by_object] == [each.scores for each in by_file]


@pytest.mark.parametrize(
    ("archive", "options", "message"),
    [
        ("mia", {}, "no such archive; there are mias"),
        ("mias", {"fold": 3}, "--fold: did you mean --folds"),
        ("mias", {"folds": "many"}, "invalid int value"),
        ("mias", {"jobs": 0}, "--jobs 0: expected a whole number of 1 or more"),
    ],
)
def test_convert_refuses_as_the_command_does(
    work: Path, tmp_path: Path, archive: str, options: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        mammodet.convert(archive, work / "all-mias", tmp_path / "data", **options)
