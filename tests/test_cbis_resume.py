"""Conversions of CBIS-DDSM that are repeated or were ended, and files that came back."""

import os

import numpy as np
import pytest
from small_cbis import run, shows, small_archive

from mammodet.data.images import read_image
from mammodet.errors import InputError


def test_file_refused_once_is_tried_again_though_it_looks_the_same(tmp_path):
    small_archive(tmp_path / "archive", layout="flat_png")
    image = min((tmp_path / "archive").rglob("*_MASK.png"))
    good, stat = image.read_bytes(), image.stat()
    image.write_bytes(bytes(len(good)))
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    first, _ = run(tmp_path / "archive", tmp_path / "out", abnormality="mass")
    assert first.counts["lesions"] == {"converted": 3, "quarantined": 1}
    image.write_bytes(good)
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second, _ = run(tmp_path / "archive", tmp_path / "out", abnormality="mass")
    assert second.counts["lesions"] == {"converted": 4, "quarantined": 0}


def test_tables_of_an_older_run_do_not_outlive_its_images(tmp_path, monkeypatch):
    small_archive(tmp_path / "archive")
    run(tmp_path / "archive", tmp_path / "out", abnormality="mass")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mammodet.converters.cbis_ddsm.convert_image", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "archive", tmp_path / "out", abnormality="mass", image={"max_size": 64})
    assert not list((tmp_path / "out").glob("*.json"))


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    small_archive(tmp_path / "archive")
    left = tmp_path / "out" / "images" / ".P_00001_RIGHT_CC.abc.tmp.png"
    left.parent.mkdir(parents=True)
    left.touch()
    run(tmp_path / "archive", tmp_path / "out", abnormality="mass")
    assert not left.exists()


def test_cases_that_no_table_speaks_of_are_told(tmp_path):
    small_archive(tmp_path / "archive", patients=5)  # P_00005 is in the test set
    (tmp_path / "archive" / "mass_case_description_test_set.csv").unlink()
    summary, _ = run(tmp_path / "archive", tmp_path / "out", abnormality="mass")
    (warning,) = [text for text in summary.warnings if "no usable row" in text]
    # Two views, each with a folder of the image and one of its lesion.
    assert warning.startswith("4 cases of the archive have no usable row in the tables")


@pytest.mark.parametrize("claimed", [True, False])
def test_mask_is_not_taken_for_a_missing_image(tmp_path, claimed):
    small_archive(tmp_path / "archive", layout="flat_png")
    folder = tmp_path / "archive" / "png"
    image = min(path for path in folder.iterdir() if path.stem.endswith("_CC"))
    mask = image.with_name(f"{image.stem}_1_MASK.png").read_bytes()
    image.unlink()
    image.with_name(f"{image.stem}_MASK.png" if claimed else image.name).write_bytes(mask)
    summary, records = run(tmp_path / "archive", tmp_path / "out", abnormality="mass")
    assert image.stem.split("_", 1)[1] not in records
    (item,) = [item for item in summary.quarantine if item.what == "image"]
    assert ("is named a mask" if claimed else "no more than two values") in item.reason


def test_of_two_copies_the_lossless_one_is_taken(tmp_path):
    small_archive(tmp_path / "both" / "z", layout="tcia")
    small_archive(tmp_path / "both" / "a", layout="kaggle_jpeg")
    run(tmp_path / "both", tmp_path / "out", abnormality="mass")
    assert {read_image(path).dtype for path in (tmp_path / "out" / "images").iterdir()} == {np.dtype(np.uint16)}


def test_damaged_copy_of_a_shared_image_is_told(tmp_path):
    truth = small_archive(tmp_path / "archive", patients=10, abnormality="both", quirks=["shared_image"])
    name = shows(truth, "shared_image")
    (damaged,) = (tmp_path / "archive").rglob(f"Mass-*_{name}/*/*/000000.dcm")
    damaged.write_bytes(damaged.read_bytes()[:300])
    summary, records = run(tmp_path / "archive", tmp_path / "out")
    assert name in records  # from the calcification set's copy
    assert [(item.what, item.name) for item in summary.quarantine] == [("file", name)]


def test_names_that_are_not_utf8_are_refused_in_words(tmp_path):
    small_archive(tmp_path / "archive", layout="flat_png")
    mask = min((tmp_path / "archive").rglob("*_MASK.png"))
    try:
        mask.rename(os.path.join(mask.parent, f"{mask.stem}_" + os.fsdecode(b"\xff.png")))
    except OSError:
        pytest.skip("this disk takes no such names")
    with pytest.raises(InputError, match="its name is not UTF-8; rename it"):
        run(tmp_path / "archive", tmp_path / "out", abnormality="mass")


def test_dicom_files_may_be_named_dicom(tmp_path):
    small_archive(tmp_path / "archive")
    for path in sorted((tmp_path / "archive").rglob("*.dcm")):
        path.rename(path.with_suffix(".dicom"))
    summary, _ = run(tmp_path / "archive", tmp_path / "out", abnormality="mass")
    assert summary.counts["lesions"] == {"converted": 4, "quarantined": 0}
