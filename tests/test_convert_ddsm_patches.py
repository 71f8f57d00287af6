"""The converter of DDSM patches: a tiny archive by hand, every kind of damage, resumption, and a phantom archive."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mammodet.converters.base import SplitOptions, Summary
from mammodet.converters.ddsm_patches import CLASSES, PatchOptions, convert
from mammodet.converters.options import add_arguments
from mammodet.data.coco import read_coco
from mammodet.data.images import read_image
from mammodet.errors import InputError
from mammodet.phantom import ddsm_patches as phantom
from mammodet.phantom.ddsm_patches import encode_example, frame_record, write_ddsm_patches
from mammodet.records import ImageRecord

SIZE = 4
NO_VAL = SplitOptions(0, 0, 0)


def patch(grey: int) -> np.ndarray:
    """Rows and columns can be told apart: a turned patch is another one."""
    return (grey + np.arange(SIZE * SIZE).reshape(SIZE, SIZE)).astype(np.uint8)


def write_training(source: Path, number: int, *patches: tuple[int, int]) -> Path:
    """A TFRecord file of (grey, label); returns its path."""
    folder = source / f"training10_{number}"
    folder.mkdir(parents=True)
    path = folder / f"training10_{number}.tfrecords"
    path.write_bytes(b"".join(frame_record(encode_example(patch(grey), label)) for grey, label in patches))
    return path


def write_arrays(source: Path, prefix: str, *patches: tuple[int, int]) -> None:
    folder = source / f"{prefix}10_data"
    folder.mkdir(parents=True)
    np.save(folder / f"{prefix}10_data.npy", np.stack([patch(grey) for grey, _ in patches])[..., None])
    np.save(source / f"{prefix}10_labels.npy", np.array([label for _, label in patches]))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "ddsm"
    write_training(folder, 0, (10, 0), (20, 1), (30, 2))
    write_training(folder, 1, (40, 3), (50, 4))
    write_arrays(folder, "cv", (60, 0), (70, 3))
    write_arrays(folder, "test", (80, 0), (90, 2))
    return folder


def run(source: Path, **chosen: object) -> tuple[Summary, list[ImageRecord]]:
    options = PatchOptions(**{"size": SIZE, "split": "given", "splits": NO_VAL, "jobs": 2, "progress": False} | chosen)  # type: ignore[arg-type]
    output = source.parent / "out"
    summary = convert(source, output, options)
    return summary, list(read_coco(output / "all.json").images)


def test_patches_become_images_with_classes_and_labels(source: Path) -> None:
    summary, records = run(source)
    found = [
        (record.file_name, record.class_name, record.label("tumor"), record.label("malignant")) for record in records
    ]
    assert found == [
        ("images/train/000000.png", "negative", 0, 0),
        ("images/train/000001.png", "benign calcification", 1, 0),
        ("images/train/000002.png", "benign mass", 1, 0),
        ("images/train/000003.png", "malignant calcification", 1, 1),
        ("images/train/000004.png", "malignant mass", 1, 1),
        ("images/val/000000.png", "negative", 0, 0),
        ("images/val/000001.png", "malignant calcification", 1, 1),
        ("images/test/000000.png", "negative", 0, 0),
        ("images/test/000001.png", "benign mass", 1, 0),
    ]
    assert [record.split for record in records] == ["train"] * 5 + ["val"] * 2 + ["test"] * 2
    # A known lesion without a place; a patch is never cropped to a breast.
    assert [record.unlocalized for record in records] == [record.label("tumor") == 1 for record in records]
    assert records[0].breast_box_xyxy == (0, 0, SIZE, SIZE)
    output = source.parent / "out"
    np.testing.assert_array_equal(read_image(output / records[1].file_name), patch(20))
    np.testing.assert_array_equal(read_image(output / records[6].file_name), patch(70))
    assert not summary.quarantine


def test_every_run_says_that_patients_are_not_known(source: Path) -> None:
    summary, records = run(source)
    assert "PATIENTS ARE NOT KNOWN" in summary.warnings[0]
    assert len({record.patient_id for record in records}) == len(records)
    assert {record.source for record in records} == {"DDSM patches"}
    info = json.loads((source.parent / "out" / "train.json").read_text())["info"]
    assert info["archive"] == "DDSM patches (patients not known)"
    assert "val holds no benign calcification, no benign mass, no malignant mass" in summary.to_text()


def test_missing_files_are_named_and_the_rest_is_converted(source: Path) -> None:
    shutil.rmtree(source / "test10_data")
    (source / "test10_labels.npy").unlink()
    summary, records = run(source)
    assert len(records) == 7
    assert (
        "files of the archive that are not there: training10_2.tfrecords, training10_3.tfrecords, "
        "training10_4.tfrecords, test10_data.npy" in summary.to_text()
    )


def test_combined_makes_one_test_set_of_both_arrays(source: Path) -> None:
    summary, records = run(source, split="combined", splits=SplitOptions(0, 0.23, 0))
    sides = {record.file_name.split("/")[1]: set[str]() for record in records}
    for record in records:
        sides[record.file_name.split("/")[1]].add(str(record.split))
    assert sides == {"train": {"train", "val"}, "val": {"test"}, "test": {"test"}}
    assert "validation is a part of the training patches" in summary.to_text()


def test_equal_pixels_are_counted_and_share_a_patient(tmp_path: Path) -> None:
    source = tmp_path / "ddsm"
    write_training(source, 0, (10, 0), (10, 0), (20, 1), (30, 2))
    write_arrays(source, "test", (20, 2), (10, 0))
    summary, records = run(source)
    # 10 is once more in train; 10 and 20 lie in both.
    assert summary.checks["identical patches"] == {"more in train": 1, "train and test": 2}
    assert records[0].patient_id == records[1].patient_id == "ddsm_patch_train_000000"
    assert records[4].patient_id == "ddsm_patch_test_000000"
    text = summary.to_text()
    assert "train/000000 = train/000001 = test/000001" in text
    assert "train/000002.png (benign calcification) = images/test/000000.png (benign mass)" in text


def test_damaged_record_is_quarantined_alone(source: Path) -> None:
    path = source / "training10_0" / "training10_0.tfrecords"
    content = bytearray(path.read_bytes())
    length = len(content) // 3
    content[length + 40] ^= 1
    path.write_bytes(content)
    summary, records = run(source)
    assert [record.file_name for record in records[:3]] == [f"images/train/{n:06d}.png" for n in (0, 2, 3)]
    (item,) = summary.quarantine
    assert item.name == "training10_0.tfrecords record 1"
    assert item.reason == (
        f"training10_0.tfrecords: record 1 at byte {length}: the checksum of its content is wrong: the file is damaged "
        "here"
    )


def test_file_that_is_cut_short_loses_its_rest_only(source: Path) -> None:
    path = source / "training10_0" / "training10_0.tfrecords"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 5])
    summary, records = run(source)
    assert [record.class_name for record in records[:4]] == [CLASSES[label] for label in (0, 1, 3, 4)]
    (item,) = summary.quarantine
    assert item.what == "rest of a file"
    assert f"record 2 at byte {len(content) // 3 * 2}: the file is cut short" in item.reason


def test_array_that_is_cut_short_loses_its_rest_only(source: Path) -> None:
    path = source / "test10_data" / "test10_data.npy"
    path.write_bytes(path.read_bytes()[:-1])
    summary, records = run(source)
    assert [record.class_name for record in records if record.split == "test"] == ["negative"]
    assert "test10_data.npy: is cut short: 1 of 2 patches are whole" in summary.to_text()


def test_labels_that_contradict_or_are_unknown_are_quarantined(source: Path) -> None:
    path = source / "training10_1" / "training10_1.tfrecords"
    message = encode_example(patch(99), 2)
    place = message.index(b"label_normal") + len(b"label_normal") + 6  # behind the head of its Int64List
    assert message[place] == 1
    lying = message[:place] + b"\0" + message[place + 1 :]
    path.write_bytes(frame_record(lying) + frame_record(encode_example(patch(98), 7)) + frame_record(b"\x0a\x05abc"))
    summary, records = run(source)
    assert sum(record.split == "train" for record in records) == 3
    assert [item.reason for item in summary.quarantine] == [
        "training10_1.tfrecords record 0: label 2 (benign mass) contradicts label_normal 0",
        "training10_1.tfrecords record 1: label 7; expected one of 0 negative, 1 benign calcification, 2 benign mass, "
        "3 malignant calcification, 4 malignant mass",
        f"training10_1.tfrecords record 2 at byte {path.read_bytes().index(b'abc') - 14}: is no patch (it is "
        "no tf.train.Example)",
    ]
    assert summary.counts["patches"] == {"found": 10, "converted": 7, "quarantined": 3}


def test_patches_of_another_size_are_quarantined(source: Path) -> None:
    with pytest.raises(InputError, match=r"record 0: has 4x4 pixels; expected 299x299 of one channel \(--size"):
        run(source, size=299)


def save(source: Path, name: str, array: np.ndarray) -> None:
    np.save(source / name, array, allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "array", "what"),
    [
        ("test10_labels.npy", np.array([0, 1, 2]), "test10_data.npy has 2 patches, test10_labels.npy 3 labels"),
        ("test10_labels.npy", np.array([0.0, 1.0]), "is float64"),
        ("test10_labels.npy", np.array([0, None]), "holds Python objects"),
        ("test10_data/test10_data.npy", np.zeros((2, 4, 4, 3), np.uint8), r"uint8 \(2, 4, 4, 3\); expected"),
        ("test10_data/test10_data.npy", np.zeros((2, 4, 4), np.float32), "is float32"),
    ],
)
def test_arrays_of_another_kind_are_refused(source: Path, name: str, array: np.ndarray, what: str) -> None:
    save(source, name, array)
    with pytest.raises(InputError, match=what):
        run(source)


def test_column_order_and_a_column_of_labels_are_read(source: Path) -> None:
    data = np.load(source / "cv10_data" / "cv10_data.npy")
    np.save(source / "cv10_data" / "cv10_data.npy", np.asfortranarray(data[..., 0]))
    np.save(source / "cv10_labels.npy", np.array([[0], [1]], np.uint8))
    _, records = run(source)
    assert [record.class_name for record in records if record.split == "val"] == ["negative", "benign calcification"]
    np.testing.assert_array_equal(read_image(source.parent / "out" / records[6].file_name), patch(70))


def test_labels_without_patches_two_editions_and_differing_copies_are_refused(source: Path) -> None:
    copy = source / "copy"
    shutil.copytree(source / "training10_0", copy)
    assert len(run(source)[1]) == 9  # an exact copy is no fault
    (copy / "training10_0.tfrecords").write_bytes(b"")
    with pytest.raises(InputError, match=r"copy/training10_0\.tfrecords"):
        run(source)
    shutil.rmtree(copy)
    (source / "training9_0.tfrecords").write_bytes(b"")
    with pytest.raises(InputError, match=r"several editions \(10, 9\)"):
        run(source)
    (source / "training9_0.tfrecords").unlink()
    (source / "test10_labels.npy").unlink()
    with pytest.raises(InputError, match=r"test10_labels\.npy is missing"):
        run(source)


def test_source_without_patches_is_told_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "readme.md").write_text("x")
    with pytest.raises(InputError, match=r"no patches; expected training10_0\.tfrecords .* Found: readme\.md"):
        run(tmp_path / "s")


@pytest.mark.parametrize("chosen", [{"split": "random"}, {"size": 0}, {"jobs": 0}, {"splits": SplitOptions(0, 1, 0)}])
def test_options_out_of_range_are_refused(source: Path, chosen: dict[str, object]) -> None:
    with pytest.raises(InputError):
        run(source, **chosen)


def test_interrupted_run_goes_on_and_ends_as_an_uninterrupted_one(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mammodet.converters.ddsm_patches as converter

    run(source)
    output = source.parent / "out"
    whole = {path.relative_to(output): path.read_bytes() for path in output.rglob("*.*") if path.suffix != ".jsonl"}
    shutil.rmtree(output)
    written: list[Path] = []
    write = converter.write_png

    def stop_at_the_fifth(path: Path, pixels: np.ndarray) -> None:
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(path)
        write(path, pixels)

    monkeypatch.setattr(converter, "write_png", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        run(source, jobs=1)
    assert not (output / "all.json").exists()
    first = set(written)
    written.clear()
    monkeypatch.setattr(converter, "write_png", lambda path, pixels: (written.append(path), write(path, pixels)))
    run(source, jobs=1)
    assert len(written) == 5
    assert not first & set(written)
    again = {path.relative_to(output): path.read_bytes() for path in output.rglob("*.*") if path.suffix != ".jsonl"}
    assert again == whole
    # A file that has changed is read anew.
    np.save(source / "cv10_labels.npy", np.array([0, 1]))
    written.clear()
    _, records = run(source, jobs=1)
    assert [path.parent.name for path in written] == ["val", "val"]
    assert records[6].class_name == "benign calcification"


def test_command_line_becomes_options() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, PatchOptions)
    line = "--split combined --size 64 --test-fraction 0.1 --val-fraction 0.2 --folds 3 --seed 4 --jobs 5"
    expected = PatchOptions(size=64, split="combined", splits=SplitOptions(0.1, 0.2, 3, 4), jobs=5)
    assert PatchOptions.of(parser.parse_args(line.split())) == expected


def test_phantom_archive_is_converted_as_it_says(tmp_path: Path) -> None:
    made = write_ddsm_patches(tmp_path / "p", images=40, size=32, progress=False)
    assert made.classes["val"] == {"negative": 3, "benign calcification": 3}
    assert phantom.CLASSES == CLASSES
    summary, records = run(tmp_path / "p", size=32)
    assert {name: summary.counts[f"class in {name}"] for name in ("train", "val", "test")} == made.classes
    assert {record.source for record in records} == {"phantom"}
    assert all(str(record.patient_id).startswith("phantom_patch_") for record in records)
    assert summary.counts["patches"] == {"found": 40, "converted": 40, "quarantined": 0}


def test_phantom_depends_on_its_seed_alone(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_ddsm_patches(tmp_path / name, images=20, seed=seed, size=32, progress=False)
    files = [
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*10*")
            if path.is_file()
        }
        for name in "abc"
    ]
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_phantom_replaces_only_its_own(tmp_path: Path) -> None:
    write_ddsm_patches(tmp_path, images=20, size=32, progress=False)
    write_ddsm_patches(tmp_path, images=21, size=32, progress=False)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds mine\.txt"):
        write_ddsm_patches(tmp_path, images=20, size=32, progress=False)
    with pytest.raises(InputError, match="--images 3: expected a whole number of 20 or more"):
        write_ddsm_patches(tmp_path / "x", images=3)
