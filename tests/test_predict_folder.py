"""Prediction of folders: odd names, replaced images, two at once, scores with their digits, models that diverged."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import small_dicom
import torch
from small_calibration import write_checkpoint

from mammodet.commands import predict as command
from mammodet.data.coco import read_coco
from mammodet.data.inputs import gather
from mammodet.data.predictions import read_predictions
from mammodet.engine.answers import to_float32
from mammodet.engine.predict import Predictor, predict_to_folder
from mammodet.errors import InputError
from mammodet.files import locked
from mammodet.modeling.weight_files import KEY


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.ckpt")


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor.from_checkpoint(checkpoint, "cpu")


def write_image(path: Path, seed: int = 0) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64), dtype=np.uint8)
    done, content = cv2.imencode(".png", pixels)
    assert done
    path.write_bytes(content.tobytes())


def predict(predictor: Predictor, folder: Path, output: Path) -> tuple[list[str], dict[str, str]]:
    """File names that were predicted, and the others with the reason."""
    found = gather([folder], predictor.facts.categories, unpack_to=output / "unpacked")
    path, skipped = predict_to_folder(
        predictor, found.dataset, found.root, output, unreadable=found.skipped, progress=False, force=True
    )
    return [image.file_name for image in read_predictions(path).images], {one.file_name: one.reason for one in skipped}


def test_files_with_odd_names_are_skipped_with_the_reason(predictor, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("b.png", "a ä.png", "12:30.png", "c\\d.png", "\x1b[31mred.png", "line\nend.png"):
        write_image(folder / name)
    write_image(Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")))
    os.mkfifo(folder / "pipe.png")
    names, skipped = predict(predictor, folder, tmp_path / "out")
    assert names == ["a ä.png", "b.png"]
    reasons = {
        "12:30.png": "its name begins with what elsewhere is a drive's name; rename it",
        "\\x1b[31mred.png": "its name holds control characters; rename it",
        "c\\d.png": "its name holds a backslash, which is a separator elsewhere; rename it",
        "line\\nend.png": "its name holds control characters; rename it",
        "\\udcff.png": "its name is not UTF-8; rename it",
    }
    assert {name: reason for name, reason in skipped.items() if name != "pipe.png"} == reasons
    assert json.loads((tmp_path / "out" / "skipped.json").read_text())[0].keys() == {"file_name", "reason"}


def test_what_is_no_mammogram_is_skipped_with_the_reason_unless_forced(predictor, phantom_root, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(phantom_root / read_coco(phantom_root / "test.json").images[0].file_name, folder / "a.png")
    write_image(folder / "noise.png")
    found = gather([folder], predictor.facts.categories, unpack_to=tmp_path / "unpacked")
    path, skipped = predict_to_folder(predictor, found.dataset, found.root, tmp_path / "out", progress=False)
    assert [image.file_name for image in read_predictions(path).images] == ["a.png"]
    assert [(each.file_name, "no mammogram" in each.reason) for each in skipped] == [("noise.png", True)]
    names, skipped = predict(predictor, folder, tmp_path / "forced")
    assert (names, skipped) == (["a.png", "noise.png"], {})
    (_, forced) = read_predictions(tmp_path / "forced" / "predictions.json").images
    assert any("no mammogram" in warning for warning in forced.warnings)


def test_linked_folders_are_looked_into_once_and_hidden_ones_are_not(tmp_path):
    for folder in ("elsewhere/exam", "in/.trash"):
        (tmp_path / folder).mkdir(parents=True)
    write_image(tmp_path / "elsewhere/exam/a.png", 1)
    write_image(tmp_path / "in/.trash/b.png", 2)
    write_image(tmp_path / "in/c.png", 3)
    (tmp_path / "in/exam").symlink_to(tmp_path / "elsewhere/exam")
    (tmp_path / "elsewhere/exam/up").symlink_to(tmp_path / "in")
    found = gather([tmp_path / "in"], ("lesion",), unpack_to=tmp_path / "zip")
    assert sorted(record.file_name for record in found.dataset.images) == ["c.png", "exam/a.png"]


def test_an_image_that_was_replaced_is_predicted_again(predictor, tmp_path, monkeypatch):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        write_image(folder / f"{number}.png", number)
    run, calls = Predictor._run, []

    def stopped(self, samples):
        calls.extend(look.record.file_name for (look,) in samples)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(self, samples)

    monkeypatch.setattr(Predictor, "_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        predict(predictor, folder, tmp_path / "out")
    calls[:] = ["0", "1"]
    with pytest.raises(KeyboardInterrupt):  # the same images: goes on with the third
        predict(predictor, folder, tmp_path / "out")
    monkeypatch.setattr(Predictor, "_run", run)
    write_image(folder / "0.png", 9)
    predict(predictor, folder, tmp_path / "out")
    predict(predictor, folder, tmp_path / "fresh")
    one, other = (read_predictions(tmp_path / name / "predictions.json").images for name in ("out", "fresh"))
    assert [image.scores for image in one] == [image.scores for image in other]


DYING = """
import os, signal, sys
from multiprocessing import active_children
from pathlib import Path
from mammodet.config import Config
from mammodet.data.inputs import gather
from mammodet.engine.facts import RunFacts
from mammodet.engine.predict import Predictor, predict_to_folder
from mammodet.records import Detections, ImagePrediction

class Dying(Predictor):
    def __init__(self):
        self.config, self.checkpoint, self.device, self.stack = Config(), None, "cpu", None
        self.facts = RunFacts(self.config.to_dict(), ("mass",), "0" * 64, None)

    def _run(self, images, *, soften=True):
        name = images[0][0].record.file_name
        if name == sys.argv[3]:
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[3] == "a worker at " + name:
            active_children()[0].kill()
            active_children()[0].join()
        print("predicted", name)
        empty = Detections.empty(with_masks=True)
        return [ImagePrediction.of(look.record, {"tumor": int(name[0]) / 7}, empty) for (look,) in images]

folder, output = Path(sys.argv[1]), Path(sys.argv[2])
found = gather([folder], ["mass"], unpack_to=output / "unpacked")
shard = tuple(map(int, sys.argv[4].split("/"))) if sys.argv[4] else None
predict_to_folder(Dying(), found.dataset, folder, output, num_workers=2, progress=False, force=True, shard=shard)
"""


def start_dying(folder: Path, output: Path, dies_at: str = "", shard: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-c", DYING, str(folder), str(output), dies_at, shard]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """The exit status, and which images were predicted."""
    said, _ = process.communicate()
    return process.returncode, re.findall(r"predicted (\d)", said)


def test_a_killed_process_loses_no_image_that_is_done(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(5):
        write_image(folder / f"{number}.png", number)

    def run(output, dies_at):
        return ended(start_dying(folder, tmp_path / output, dies_at))

    assert run("out", "3.png") == (-signal.SIGKILL, ["0", "1", "2"])
    assert run("out", "4.png") == (-signal.SIGKILL, ["3"])
    assert run("out", "") == (0, ["4"])
    assert run("whole", "") == (0, ["0", "1", "2", "3", "4"])
    names = ("out", "whole")
    one, other = ((tmp_path / name / "predictions.json").read_bytes() for name in names)
    assert one == other


def test_a_killed_worker_loses_no_image_that_is_done(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(8):
        write_image(folder / f"{number}.png", number)
    process = start_dying(folder, tmp_path / "out", "a worker at 1.png")
    said, _ = process.communicate()
    done = re.findall(r"predicted (\d)", said)
    assert process.returncode == 1
    assert done[:2] == ["0", "1"]
    assert f"predictions.partial.jsonl holds {len(done)} images" in said
    assert "--num-workers" in said
    assert ended(start_dying(folder, tmp_path / "out")) == (0, list("01234567")[len(done) :])
    assert ended(start_dying(folder, tmp_path / "whole"))[0] == 0
    one, other = ((tmp_path / name / "predictions.json").read_bytes() for name in ("out", "whole"))
    assert one == other


def test_what_was_forced_before_an_interruption_is_refused_without_force(
    predictor, phantom_root, tmp_path, monkeypatch
):
    folder = tmp_path / "images"
    folder.mkdir()
    write_image(folder / "a.png")  # noise
    shutil.copy(phantom_root / read_coco(phantom_root / "test.json").images[0].file_name, folder / "b.png")
    run = Predictor._run

    def stopped(self, samples):
        if any(look.record.file_name == "b.png" for (look,) in samples):
            raise KeyboardInterrupt
        return run(self, samples)

    monkeypatch.setattr(Predictor, "_run", stopped)
    with pytest.raises(KeyboardInterrupt):
        predict(predictor, folder, tmp_path / "out")
    monkeypatch.setattr(Predictor, "_run", run)
    found = gather([folder], predictor.facts.categories, unpack_to=tmp_path / "unpacked")
    path, skipped = predict_to_folder(predictor, found.dataset, found.root, tmp_path / "out", progress=False)
    assert [image.file_name for image in read_predictions(path).images] == ["b.png"]
    assert [each.file_name for each in skipped] == ["a.png"]


def test_no_table_holds_a_patient_id_where_they_are_hashed(checkpoint, tmp_path):
    key = tmp_path / "patient.key"
    key.write_text("k" * 40)
    (tmp_path / "in").mkdir()
    for name in ("a_L_CC.png", "a_R_CC.png"):
        write_image(tmp_path / "in" / name)
    given = ["--checkpoint", str(checkpoint), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    # the pattern finds a patient id that no other cell holds
    given += ["--pattern", r"(?P<patient>_)(?P<laterality>L|R)_", "--patient-key", str(key), "--force"]
    assert command.main(given) == 0
    for name in ("images.csv", "breasts.csv", "patients.csv"):
        with open(tmp_path / "out" / name, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows
        assert {row["patient_id"][:5] for row in rows} == {row["exam"][:5] for row in rows} == {"hmac-"}


def test_nothing_that_is_written_names_anyone_where_it_is_deidentified(checkpoint, tmp_path, capsys):
    key = tmp_path / "patient.key"
    key.write_text("k" * 40)
    folder = tmp_path / "in"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 4095, (64, 64)).astype(np.uint16)
    for number in range(3):
        values = {"PatientID": "Doe7", "PatientName": "Doe^Jane", "StudyInstanceUID": "1.2.777", "Modality": "MG"}
        values |= {"SOPInstanceUID": f"1.2.777.{number}", "BurnedInAnnotation": ["YES", "NO", "NO"][number]}
        values |= {"ImageLaterality": "L", "ViewPosition": ["CC", "MLO", "XCCL"][number]}
        small_dicom.save(folder / f"Doe_{number}.dcm", small_dicom.image(pixels, 12, **values))
    (folder / "Doe_cut.dcm").write_bytes((folder / "Doe_0.dcm").read_bytes()[:300])
    (folder / "Doe_letter.txt").write_text("")
    output = tmp_path / "out"
    given = ["--checkpoint", checkpoint, "--input", folder, "--output", output, "--force", "--overlays", "--deidentify"]
    with pytest.raises(SystemExit):
        command.main([str(each) for each in given])
    given = [str(each) for each in (*given, "--patient-key", key)]
    with pytest.raises(SystemExit):
        command.main([*given, "--dicom", "sr"])
    capsys.readouterr()
    assert command.main(given) == 1
    shown = capsys.readouterr()
    assert "Doe_letter.txt" in shown.out  # on the screen, where the reason stands
    assert "Doe_cut.dcm" in shown.err
    written = [path for path in output.rglob("*") if path.is_file()]
    for path in written:
        assert b"Doe" not in path.read_bytes()
        assert b"1.2.777" not in path.read_bytes()
        assert "Doe" not in path.name
    assert len(list((output / "overlays").glob("*.jpg"))) == 3
    images = read_predictions(output / "predictions.json").images
    assert {image.patient_id[:5] for image in images} == {image.file_name[:5] for image in images} == {"hmac-"}
    assert sorted(any("Burned In" in warning for warning in image.warnings) for image in images) == [False, False, True]
    with open(output / "patients.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["exam"][:5], row["images"], row["special"][:12]) == ("hmac-", "3", "L XCCL: hmac")
    assert command.main(given) == 1  # links of an earlier run are in nobody's way


def test_of_a_thousand_hostile_files_each_is_listed_and_the_good_ones_are_predicted(checkpoint, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    write_image(folder / "good.png")
    good = (folder / "good.png").read_bytes()
    header = struct.pack(">4sIIBBBBB", b"IHDR", 200_000, 200_000, 16, 0, 0, 0, 0)
    hostile = {
        "empty.png": b"",
        "text.png": b"=1+1",
        "cut.png": good[:60],
        "bomb.png": good[:12] + header + struct.pack(">I", zlib.crc32(header)) + good[33:],
        "png.dcm": good,
        "preamble.dcm": bytes(128) + b"DICM" + b"\xff" * 40,
        "png.jpg": good[:20],
        "page.html": b"<script>alert(1)</script>",
        "table.csv": b"=cmd()",
    }
    for number in range(100):
        for name, content in hostile.items():
            (folder / f"{number:02}_{name}").write_bytes(content)
        os.mkfifo(folder / f"{number:02}_pipe.png")
    write_image(folder / "zz_good.png", 1)
    given = [
        "--checkpoint",
        checkpoint,
        "--input",
        folder,
        "--output",
        tmp_path / "out",
        "--force",
        "--num-workers",
        "0",
    ]
    assert command.main([str(each) for each in given]) == 1
    with open(tmp_path / "out" / "images.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["file_name"] for row in rows}) == 1000 + 2
    assert [row["file_name"] for row in rows if row["status"] == "predicted"] == ["good.png", "zz_good.png"]
    assert all(row["reason"] for row in rows if row["status"] != "predicted")
    left_out = {row["file_name"][3:] for row in rows if row["status"] == "left out"}
    assert left_out == {"page.html", "table.csv"}
    assert len(json.loads((tmp_path / "out" / "skipped.json").read_text())) == 100 * 8
    assert [image.file_name for image in read_predictions(tmp_path / "out" / "predictions.json").images] == [
        "good.png",
        "zz_good.png",
    ]


def test_shares_of_two_processes_are_joined_and_a_killed_one_loses_nothing(tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(6):
        write_image(folder / f"{number}.png", number)
    first, second = start_dying(folder, output, "4.png", "1/2"), start_dying(folder, output, shard="2/2")
    assert (ended(first), ended(second)) == ((-signal.SIGKILL, ["0", "2"]), (0, ["1", "3", "5"]))
    assert not (output / "predictions.json").exists()
    with locked(output / "shards" / "1-of-2", "busy"):  # it is still at work
        assert ended(start_dying(folder, output)) == (1, [])
    share = output / "shards" / "2-of-2" / "predictions.partial.jsonl"
    whole = share.read_bytes()
    share.write_bytes(b'{"key": "another"}\n' + whole.partition(b"\n")[2])  # by another model
    assert ended(start_dying(folder, output)) == (1, [])
    share.write_bytes(whole)
    assert ended(start_dying(folder, output)) == (0, ["4"])
    assert list(output.rglob("*.jsonl")) == []
    assert ended(start_dying(folder, tmp_path / "alone"))[0] == 0
    one, other = ((place / "predictions.json").read_bytes() for place in (output, tmp_path / "alone"))
    assert one == other


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/", "-1/2"])
def test_a_share_that_is_none_is_refused(shard, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.main(["--input", str(tmp_path), "--output", str(tmp_path / "out"), f"--shard={shard}"])
    assert shard in capsys.readouterr().err


def test_a_share_of_files_that_each_process_would_unpack_is_refused(checkpoint, tmp_path):
    write_image(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")
    given = ["--checkpoint", str(checkpoint), "--input", str(tmp_path / "films.zip"), "--output", str(tmp_path / "out")]
    with pytest.raises(InputError, match="--shard"):
        command.main([*given, "--shard", "1/2"])
    assert not (tmp_path / "out" / "predictions.json").exists()


def test_a_second_prediction_into_one_folder_is_refused(predictor, tmp_path):
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "a.png")
    with locked(tmp_path / "out", "busy"), pytest.raises(InputError, match="another prediction writes there"):
        predict(predictor, tmp_path / "images", tmp_path / "out")
    assert predict(predictor, tmp_path / "images", tmp_path / "out") == (["a.png"], {})


@pytest.mark.parametrize("score", [1e-9, 1.5e-7, 0.1, 1 / 3, 0.99999994, 1.0, 0.0])
def test_scores_keep_the_precision_of_float32(score):
    found = to_float32(score)
    assert np.float32(found) == np.float32(score)
    assert len(repr(found)) <= 14


def test_a_model_that_diverged_is_named_with_the_image(tmp_path):
    path = write_checkpoint(tmp_path / "best.ckpt")
    content = torch.load(path, weights_only=True)
    content["state_dict"] = {
        name: tensor * 1e30 if tensor.is_floating_point() and tensor.ndim > 1 else tensor
        for name, tensor in content["state_dict"].items()
    }
    torch.save(content, path)
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "a.png")
    with pytest.raises(InputError, match=r"best\.ckpt: image 'a\.png': the model answers with NaN or infinity"):
        predict(Predictor.from_checkpoint(path, "cpu"), tmp_path / "images", tmp_path / "out")


def test_images_of_the_training_are_named_in_the_predictions(checkpoint, phantom_root, tmp_path):
    from pydantic import TypeAdapter

    from mammodet.data.seen_images import SeenImages

    dataset = read_coco(phantom_root / "test.json")
    content = torch.load(checkpoint, weights_only=True)
    shutil.copytree(phantom_root / "images", tmp_path / "images")
    first, second = (record.file_name for record in dataset.images[:2])
    (tmp_path / first).rename(tmp_path / "images" / "renamed.png")
    records = [
        type(dataset.images[0])(image_id=1, file_name="images/renamed.png", size_hw=dataset.images[0].size_hw),
        dataset.images[1],
    ]
    seen = TypeAdapter(SeenImages).dump_python(SeenImages.of(records, tmp_path), mode="json")
    content[KEY]["images"] = seen
    torch.save(content, tmp_path / "best.ckpt")
    predictor = Predictor.from_checkpoint(tmp_path / "best.ckpt", "cpu")
    path, _ = predict_to_folder(predictor, dataset, phantom_root, tmp_path / "out", progress=False)
    assert read_predictions(path).model["images_seen"] == [first, second]
