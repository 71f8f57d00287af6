"""The commands of `mammodet explain`, from files to pictures."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mammodet.commands import explain as tool
from mammodet.config import load_config
from mammodet.data.coco import read_coco, write_coco
from mammodet.data.images import write_png
from mammodet.engine.checked_run import prepare
from mammodet.engine.predict import Predictor
from mammodet.engine.train import train
from mammodet.errors import InputError
from mammodet.explain.cam import METHODS
from mammodet.explain.curves import run_names
from mammodet.explain.images import choose_images
from mammodet.records import Dataset
from mammodet.reporting.report_training import curves_figure

CNN = (
    "model.kind=classifier",
    "model.classifier.network=cnn",
    "model.classifier.cnn.blocks=[[8], [8]]",
    "model.classifier.cnn.dense=[16]",
    "data.image.max_size=64",
    "data.batch_size=8",
    "data.num_workers=0",
    "train.epochs=1",
    "train.warmup_steps=0",
    "train.monitor=val/loss",
    "train.monitor_mode=min",
    "train.accelerator=cpu",
)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def checkpoint(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run ü")
    heads = "model.classifier.heads={tumor: {}, density: {}}"
    return train(prepare(load_config(None, (*CNN, heads, f"data.root={phantom_root}", f"output_dir={folder}"))))


# commands


def table_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_layers_command_prints_the_table(checkpoint, capsys):
    assert tool.main(["layers", "--checkpoint", str(checkpoint), "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "network.blocks.0" in text
    assert "8 x 64 x 64" in text


@pytest.mark.parametrize("method", list(METHODS))
def test_grad_cam_command_writes_pictures_and_its_check(checkpoint, phantom_root, tmp_path, capsys, method):
    test = read_coco(phantom_root / "test.json")
    test = replace(test, images=tuple(sorted(test.images, key=lambda record: -len(record.lesions))))
    ids = [str(record.image_id) for record in test.images[:3]]
    images = ["--images", str(phantom_root / "test.json"), "--ids", *ids]
    assert tool.main(
        ["grad-cam", "--checkpoint", str(checkpoint), *images, "--target", "tumor", "--method", method,
         "--layer", "network.blocks.1", "network.blocks.4", "--output", str(tmp_path), "--device", "cpu"]
    ) == 0  # fmt: skip
    rows = table_of(tmp_path / "grad_cam.csv")
    assert [row["image_id"] for row in rows] == [number for number in ids for _ in range(2)]
    assert [row["layer"] for row in rows[:2]] == ["network.blocks.1", "network.blocks.4"]
    predictor = Predictor.from_checkpoint(checkpoint, "cpu")
    expected = list(predictor.predict(replace(test, images=test.images[:3]), phantom_root))
    for row, prediction in zip(rows[::2], expected, strict=True):
        assert float(row["score"]) == pytest.approx(prediction.scores["tumor"], abs=2e-6)
    for row, record in zip(rows[::2], test.images[:3], strict=True):
        assert row["truth"] == ("true" if record.labels["tumor"] else "false")
        assert int(row["lesions"]) == len(record.lesions)
        assert (row["peak_in_lesion"] == "") == (not record.lesions)
        with Image.open(tmp_path / row["picture"]) as picture:
            assert picture.width > 3 * 900  # three square panels 900 px high
    shown = sum(bool(record.lesions) for record in test.images[:3])
    assert shown
    assert f"{shown} of 3 images have lesions with a place" in capsys.readouterr().out


def test_grad_cam_of_a_class_takes_each_images_own(checkpoint, phantom_root, tmp_path):
    assert tool.main(
        ["grad-cam", "--checkpoint", str(checkpoint), "--images", str(phantom_root / "test.json"), "--first", "2",
         "--target", "density", "--output", str(tmp_path), "--device", "cpu"]
    ) == 0  # fmt: skip
    test = read_coco(phantom_root / "test.json")
    first = replace(test, images=test.images[:2])
    predictions = list(Predictor.from_checkpoint(checkpoint, "cpu").predict(first, phantom_root))
    for row, prediction in zip(table_of(tmp_path / "grad_cam.csv"), predictions, strict=True):
        scores = prediction.class_scores["density"]
        best = max(scores, key=lambda name: scores[name])
        assert row["target"] == f"density={best}"
        assert float(row["score"]) == pytest.approx(scores[best], abs=2e-6)


def test_feature_maps_command_draws_folders_and_single_images(checkpoint, phantom_root, tmp_path):
    image = next((phantom_root / "images").iterdir())
    common = ["feature-maps", "--checkpoint", str(checkpoint), "--device", "cpu"]
    assert tool.main([*common, "--images", str(image), "--output", str(tmp_path / "one")]) == 0
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(f"{image.stem}_network.blocks{part}.png" for part in (".1", ".4", ""))
    some = ["--first", "2", "--layer", "network.blocks.0", "--most", "3", "--output", str(tmp_path / "two")]
    assert tool.main([*common, "--images", str(phantom_root / "images"), *some]) == 0
    assert len(list((tmp_path / "two").glob("*_network.blocks.0.png"))) == 2


def test_unreadable_image_is_told_after_all_others_were_drawn(checkpoint, phantom_root, tmp_path):
    for number in (1, 2):
        write_png(tmp_path / f"in/{number}.png", RNG.integers(0, 255, (40, 30), dtype=np.uint8))
    content = (tmp_path / "in/1.png").read_bytes()
    (tmp_path / "in/1.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "in/3.png").write_bytes(b"")
    for command in (
        ["grad-cam", "--checkpoint", str(checkpoint), "--device", "cpu"],
        ["feature-maps", "--checkpoint", str(checkpoint), "--device", "cpu", "--layer", "network.blocks.0"],
        ["filters"],
    ):
        output = tmp_path / command[0]
        with pytest.raises(InputError, match=r"2 faults[\s\S]*1\.png[\s\S]*3\.png[\s\S]*1 images were drawn"):
            tool.main([*command, "--images", str(tmp_path / "in"), "--output", str(output)])
        assert len(list(output.glob("*.png"))) == 1


def test_images_are_chosen_by_id_and_number(phantom_root, tmp_path):
    path = phantom_root / "test.json"
    test = read_coco(path)
    last = test.images[-1].image_id

    def chosen(given: Path, **options: object) -> list[int]:
        return [record.image_id for record in choose_images([given], unpack_to=tmp_path, **options).dataset.images]

    assert chosen(path, ids=[last, test.images[0].image_id]) == [last, test.images[0].image_id]
    assert len(chosen(path, first=2)) == 2
    with pytest.raises(InputError, match=r"has no image of id 987654; it has \d+ images: "):
        chosen(path, ids=[987654])
    with pytest.raises(InputError, match="--first 0: expected 1 or more"):
        chosen(path, first=0)
    with pytest.raises(InputError, match="no readable image"):
        chosen(tmp_path)
    with pytest.raises(InputError, match=r"x\.txt: no such file or folder; expected images, DICOM files"):
        chosen(tmp_path / "x.txt")
    with pytest.raises(InputError, match="--ids: are image ids of a data set's JSON file"):
        chosen(phantom_root / "images", ids=[1])
    write_coco(Dataset(("lesion",), ()), tmp_path / "empty.json")
    with pytest.raises(InputError, match="no images"):
        chosen(tmp_path / "empty.json")


def test_filters_command_draws_four_images_a_page(phantom_root, tmp_path, capsys):
    images = ["--images", str(phantom_root / "all.json"), "--first", "5", "--output", str(tmp_path)]
    assert tool.main(["filters", *images, "--channels", "full", "laplacian", "--size", "64"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["filters_1.png", "filters_2.png"]
    with Image.open(tmp_path / "filters_1.png") as four, Image.open(tmp_path / "filters_2.png") as one:
        assert four.height > 2.5 * one.height
    with pytest.raises(InputError, match="'lapace' is no channel; did you mean 'laplacian'"):
        tool.main(["filters", *images, "--channels", "lapace"])
    with pytest.raises(InputError, match="--size 8: expected 32 to 8192"):
        tool.main(["filters", *images, "--size", "8"])


def test_augmented_command_draws_training_images_with_what_they_teach(phantom_root, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(f"data: {{root: {phantom_root}, image: {{max_size: 64}}}}\n", encoding="utf-8")
    records = read_coco(phantom_root / "train.json").images
    chosen = [next(record.image_id for record in records if record.lesions), records[-1].image_id]
    common = ["augmented", "--config-file", str(config), "--ids", *map(str, chosen), "--versions", "5"]
    pictures = []
    for name in ("one", "two"):
        mixed = ["data.augment.copy_paste=1", "data.augment.sizes=[48, 96]"]
        assert tool.main([*common, "--output", str(tmp_path / name), *mixed]) == 0
        files = sorted((tmp_path / name).iterdir())
        assert len(files) == len(set(chosen))
        assert all(path.name.endswith("_augmented.png") and str(path) in capsys.readouterr().out for path in files[:1])
        pictures.append([np.asarray(Image.open(path)) for path in files])
    assert all(np.array_equal(first, second) for first, second in zip(*pictures, strict=True))
    # Two rows of four and of two: 96 px high each, below their titles.
    assert all(picture.shape[0] > 2 * 96 and picture.shape[2] == 3 for picture in pictures[0])
    with pytest.raises(InputError, match=r"data\.augment: changes nothing"):
        tool.main([*common, "--output", str(tmp_path / "none"), "data.augment.enabled=false"])
    with pytest.raises(InputError, match="--versions 0: expected 1 or more"):
        tool.main([*common[:-1], "0", "--output", str(tmp_path / "none")])
    with pytest.raises(InputError, match="has no image of id 999"):
        tool.main([*common[:4], "999", "--output", str(tmp_path / "none")])


def test_filters_and_curves_need_no_torch():
    code = (
        "import sys, mammodet.explain.filters, mammodet.explain.curves, mammodet.commands.explain; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


RUN = """epoch,step,lr,train/loss,train/loss_tumor,val/loss,val/auc_tumor
1,4,0.1,2.0,2.0,1.5,0.5
2,8,0.05,1.0,1.0,,0.75
"""


def test_curves_of_several_runs_lie_over_each_other(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text(RUN)
    arguments = ["curves", str(tmp_path / "a"), str(tmp_path / "b" / "metrics.csv"), "--output", str(tmp_path / "out")]
    assert tool.main(arguments) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["curves.png", "curves.svg"]
    text = (tmp_path / "out/curves.svg").read_text(encoding="utf-8")
    assert all(f">{word}<" in text for word in ("a", "b", "loss", "val/auc_tumor", "learning rate"))
    rows = [{"epoch": 1.0, "lr": 0.1, "train/loss": 2.0, "val/loss": 1.5}, {"epoch": 2.0, "train/loss": 1.0}]
    figure = curves_figure({"a": rows, "b": rows})
    loss = figure.axes[0]
    assert [line.get_xydata().tolist() for line in loss.lines[:2]] == [[[1, 2], [2, 1]], [[1, 1.5]]]
    assert [line.get_linestyle() for line in loss.lines[:2]] == ["--", "-"]
    assert loss.lines[0].get_color() != loss.lines[2].get_color()
    # one question: its loss is the whole loss, and is not drawn again
    one = dict.fromkeys(("train/loss", "train/loss_tumor"), 2.0)
    assert [axes.get_title(loc="left") for axes in curves_figure({"a": [{"epoch": 1.0, **one}]}).axes] == ["loss"]


def test_curves_refuse_what_is_no_run(tmp_path):
    (tmp_path / "folds/fold0").mkdir(parents=True)
    (tmp_path / "folds/fold0/metrics.csv").write_text(RUN)
    output = ["--output", str(tmp_path / "out")]
    with pytest.raises(InputError, match=r"folds.metrics\.csv: no such file; .* it holds runs: fold0"):
        tool.main(["curves", str(tmp_path / "folds"), *output])
    (tmp_path / "empty.csv").write_text("epoch,lr\n")
    with pytest.raises(InputError, match=r"empty\.csv: holds no epoch"):
        tool.main(["curves", str(tmp_path / "empty.csv"), *output])
    with pytest.raises(InputError, match="2 names for 1 runs"):
        tool.main(["curves", str(tmp_path / "folds/fold0"), "--names", "x", "y", *output])


def test_runs_are_named_by_what_tells_them_apart(tmp_path):
    assert run_names([tmp_path / "x/fold0", tmp_path / "y/fold0/metrics.csv"]) == ["x/fold0", "y/fold0"]
    assert run_names([tmp_path / "x", tmp_path / "x"]) == ["x (1)", "x (2)"]
