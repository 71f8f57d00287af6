"""mammodet import as a user calls it, and what evaluation makes of its file."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_import_coco import entry, found, ground_truth, write

from mammodet.data.predictions import read_predictions
from mammodet.errors import InputError
from mammodet.reporting.evaluation_files import evaluate_files

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "tools" / "import_predictions.py"


def _load():
    spec = importlib.util.spec_from_file_location("import_predictions_tool", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAIN = _load().main


def call(source_format: str, folder: Path, source: Path, *more: object) -> Path:
    """Run the tool on a small ground truth; the file that it wrote."""
    output = folder / "preds ü.json"
    arguments = ["--ground-truth", ground_truth(folder), "--source", source, "--output", output, *more]
    assert MAIN([source_format, *map(str, arguments)]) == 0
    return output


def refused(source_format: str, folder: Path, source: Path, *more: object) -> str:
    with pytest.raises(InputError) as caught:
        call(source_format, folder, source, *more)
    return str(caught.value)


def test_every_option_reaches_the_import(tmp_path, capsys):
    train = ground_truth(tmp_path / "train ä")
    (tmp_path / "w.pt").write_bytes(b"w")
    items = [entry(1, (0, 0, 300, 50), 90, 0), entry(1, (1, 2, 3, 4), 80, 5), entry(9, category_id=7)]
    items += [entry(2, (1, 2, 3, 4), score, 0, segmentation=None) for score in (30, 20)]
    source = write(tmp_path / "res ults.json", items)
    output = call(
        *("coco", tmp_path, source, "--category-map", "0=mass 5=", "7=calcification", "--name", "Netz 1"),
        *("--score-scale", "percent", "--image-score", "noisy_or", "--keep-top", 1, "--clip-boxes", "--boxes-only"),
        *("--ignore-unknown-images", "--train-json", train, "--checkpoint-file", tmp_path / "w.pt"),
    )
    read = read_predictions(output)
    assert found(read.images[0]) == ([[0, 0, 200, 50]], [0.9], [1])
    assert found(read.images[1]) == ([[1, 2, 4, 6]], [0.3], [1])
    assert [image.scores for image in read.images] == [{"tumor": pytest.approx(score)} for score in (0.9, 0.3, 0.0)]
    assert read.model["name"] == "Netz 1"
    assert read.model["patients"] == ["P1", "P2", "P3"]
    assert read.model["checkpoint_sha256"] is not None
    assert read.model["options"]["category_map"] == {"0": "mass", "5": None, "7": "calcification"}
    assert capsys.readouterr().out.splitlines() == [
        "3 images, 2 with detections; 2 detections",
        "boxes cut to the image: 1",
        "detections below --keep-top: 1",
        "detections of classes that --category-map leaves out: 1",
        "entries of unknown images, left out: 1",
        f"wrote {output}",
    ]


def test_all_columns_are_named_on_the_command_line(tmp_path):
    text = "bild;xc;yc;b;h;p;art;W;H;krebs\nim1;50;40;60;40;0.5;rund;400;100;0.25\nim2;;;;;;;;;0\nim3;;;;;;;;;0\n"
    source = write(tmp_path / "boxen.csv", text)
    output = call(
        *("csv", tmp_path, source, "--image-column", "bild", "--cx-column", "xc", "--cy-column", "yc"),
        *("--w-column", "b", "--h-column", "h", "--score-column", "p", "--category-column", "art"),
        *("--width-column", "W", "--height-column", "H", "--image-score", "malignant=krebs", "--image-score", "max"),
        *("--category-map", "rund=mass"),
    )
    read = read_predictions(output)
    # From 400 to 200 wide: centre 25, 30 wide; height as it is: 20 to 60.
    assert found(read.images[0]) == ([[10, 20, 40, 60]], [0.5], [1])
    assert read.images[0].scores == {"malignant": 0.25, "tumor": 0.5}
    columns = read.model["options"]["columns"]
    assert columns["cx"] == "xc"
    assert columns["size"] == ["W", "H"]


def test_ids_and_normalized_coordinates_are_asked_for_on_the_command_line(tmp_path):
    source = write(tmp_path / "b.tsv", "id\ta\tb\tc\td\tk\n2\t0.25\t0.25\t0.5\t0.5\tmass\n")
    output = call(
        *("csv", tmp_path, source, "--image-column", "id", "--match", "id", "--x-column", "a", "--y-column", "b"),
        *("--w-column", "c", "--h-column", "d", "--category-column", "k", "--coordinates", "normalized"),
        *("--default-score", 1),
    )
    assert found(read_predictions(output).images[1]) == ([[50, 25, 150, 75]], [1.0], [1])


@pytest.mark.parametrize(
    ("source_format", "more", "words"),
    [
        ("coco", ["--image-score", "tumor=p"], "--image-score LABEL=COLUMN: is for csv"),
        ("coco", ["--image-score", "max", "--image-score", "none"], "--image-score max none: expected one of"),
        ("coco", ["--image-score", "mean"], "--image-score mean: expected one of none, max, noisy_or"),
        ("coco", ["--category-map", "mass"], "--category-map 'mass': expected THEIRS=OURS, for instance 0=mass"),
        ("coco", ["--category-map", "0=mass", "0=calcification"], "'0' is said twice"),
        ("csv", ["--image-column", "i"], "no column is chosen"),
        (
            "csv",
            ["--image-column", "i", "--x1-column", "a", "--w-column", "b"],
            "--x1-column, --w-column: no whole box",
        ),
        (
            "csv",
            ["--image-column", "i", "--image-score", "tumor=t", "--width-column", "W"],
            "--width-column, --height-column: expected both or neither",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, source_format, more, words):
    assert words in refused(source_format, tmp_path, write(tmp_path / "r.json", []), *more)


def test_an_input_is_never_overwritten(tmp_path):
    truth, source = ground_truth(tmp_path), write(tmp_path / "r.json", [])
    for output in (truth, source):
        with pytest.raises(InputError, match="would overwrite an input"):
            MAIN(["coco", "--ground-truth", str(truth), "--source", str(source), "--output", str(output)])
    with pytest.raises(InputError, match="is a folder; name a file"):
        MAIN(["coco", "--ground-truth", str(truth), "--source", str(source), "--output", str(tmp_path)])
    assert source.read_text() == "[]"


def test_faults_leave_no_file_and_status_2(tmp_path):
    truth = ground_truth(tmp_path)
    source = write(tmp_path / "r.json", [entry(9)])
    arguments = ["--ground-truth", truth, "--source", source, "--output", tmp_path / "preds.json"]
    done = subprocess.run(
        [sys.executable, str(TOOL), "coco", *map(str, arguments)],
        **{"capture_output": True, "text": True, "check": False, "cwd": ROOT},
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {source}: 1 fault\n  - entry 0: image_id 9 is not in the ground truth")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "preds.json").exists()


def test_an_import_needs_no_torch():
    code = "import sys, mammodet.imports; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_an_imported_file_is_scored_like_our_own(tmp_path):
    # The lesion's own box on image 1, and a weaker false one on image 2.
    source = write(tmp_path / "r.json", [entry(1, (10, 20, 30, 40), 0.75), entry(2, (0, 0, 5, 5), 0.25)])
    output = call("detectron2", tmp_path, source, "--image-score", "max")
    metrics = evaluate_files(tmp_path / "test.json", [output], tmp_path / "eval", report=False, progress=False)
    figures = metrics.model_dump_json()
    assert "Leakage could not be checked" in figures
    assert metrics.models[0].detection.bbox.AP50.value == pytest.approx(1)


def test_leakage_of_an_imported_model_is_refused(tmp_path):
    source = write(tmp_path / "r.json", [entry(1)])
    output = call("coco", tmp_path, source, "--train-json", ground_truth(tmp_path / "train"))
    with pytest.raises(InputError, match="patient P1"):
        evaluate_files(tmp_path / "test.json", [output], tmp_path / "eval", report=False, progress=False)
