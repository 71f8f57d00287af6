"""Patches on disk: files, splits, what is replaced, faults, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_patches import ONE, SPLIT, box_lesion, cut, film, image, write_data

from mammodet.commands.patches import main
from mammodet.data.coco import data_hash, read_coco
from mammodet.data.images import read_image, write_png
from mammodet.errors import InputError
from mammodet.patches import PatchOptions
from mammodet.patches.cut import file_trace
from mammodet.patches.plan import Patch
from mammodet.patches.write import make_patches
from mammodet.trace import Trace


def folder_of_three(tmp_path: Path) -> Path:
    """A holdout and a fold: images 1 and 2 are train and val, in the fold the other way round; 3 is test."""
    root = tmp_path / "data ü"
    lesion = box_lesion((20, 10, 32, 18), pathology="benign")
    one, two = image(1, lesion, split="train"), image(2, lesion, split="val")
    test = image(3, lesion, split="test")
    write_data(root, one, two, test)
    for name, split, subset, record in (
        ("train.json", "holdout", "train", one),
        ("val.json", "holdout", "val", two),
        ("test.json", "holdout", "test", test),
        ("fold0_train.json", "fold0", "train", replace(two, split="train")),
        ("fold0_val.json", "fold0", "val", replace(one, split="val")),
    ):
        write_data(root, record, name=name, split={**SPLIT, "name": split, "subset": subset})
    (root / "splits.json").write_text(json.dumps({"hash": SPLIT["hash"]}))
    return root


def test_every_file_keeps_its_split_and_its_patients(tmp_path):
    root, out = folder_of_three(tmp_path), tmp_path / "out"
    make_patches(root, out, PatchOptions(), progress=False)
    ids = {record.file_name: record.image_id for record in read_coco(out / "all.json").images}
    assert sorted(ids.values()) == list(range(1, len(ids) + 1))
    for path in sorted(root.glob("*.json")):
        if path.name == "splits.json":
            assert json.loads((out / "splits.json").read_text()) == json.loads(path.read_text())
            continue
        before, after = read_coco(path), read_coco(out / path.name)
        assert after.info["split"] == before.info["split"]
        assert after.info["archive"] == "test"
        assert after.info["patches"]["data_hash"] == data_hash(before)
        subset_of = {record.patient_id: record.split for record in before.images}
        assert {(record.patient_id, record.split) for record in after.images} == set(subset_of.items())
        assert all(ids[record.file_name] == record.image_id for record in after.images)


def test_jobs_and_order_change_nothing(tmp_path):
    records = [image(number, box_lesion((14 + number, 10, 26, 18))) for number in range(1, 6)] + [image(6), image(7)]
    first, second = write_data(tmp_path / "a", *records), write_data(tmp_path / "b", *records[::-1])
    make_patches(first, tmp_path / "x", PatchOptions(jobs=1), progress=False)
    make_patches(second, tmp_path / "y", PatchOptions(jobs=4), progress=False)
    names = sorted(path.name for path in (tmp_path / "x/images").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "y/images").iterdir())
    assert len(names) == 5 * 3 + 7 * 2
    for name in names:
        assert (tmp_path / "x/images" / name).read_bytes() == (tmp_path / "y/images" / name).read_bytes()
    one, other = (
        {r.file_name: replace(r, image_id=0) for r in read_coco(tmp_path / p).images}
        for p in ("x/all.json", "y/all.json")
    )
    assert one == other


def test_patches_of_an_earlier_run_are_replaced_and_other_files_stay(tmp_path):
    root, out = folder_of_three(tmp_path), tmp_path / "out"
    make_patches(root, out, PatchOptions(per_lesion=3), progress=False)
    (out / "images/mine.png").write_bytes(b"mine")
    make_patches(root / "train.json", out, PatchOptions(per_lesion=1, negatives=0), progress=False)
    assert sorted(path.name for path in out.iterdir()) == ["images", "summary.json", "train.json"]
    assert sorted(path.name for path in (out / "images").iterdir()) == ["im1_lesion1.png", "mine.png"]
    again = (out / "train.json").read_bytes()
    make_patches(root / "train.json", out, PatchOptions(per_lesion=1, negatives=0), progress=False)
    assert (out / "train.json").read_bytes() == again


def test_a_damaged_image_leaves_no_table_behind(tmp_path):
    root, out = folder_of_three(tmp_path), tmp_path / "out"
    make_patches(root, out, PatchOptions(), progress=False)
    content = (root / "images/im2.png").read_bytes()
    (root / "images/im2.png").write_bytes(content[:50])
    write_png(root / "images/im3.png", film((48, 60)))
    with pytest.raises(InputError, match="2 faults") as caught:
        make_patches(root, out, PatchOptions(), progress=False)
    assert "im2.png: is cut short" in str(caught.value)
    assert "the file is 48x60, its record says 48x64" in str(caught.value)
    assert list(out.glob("*.json")) == []


def test_another_data_set_is_never_overwritten(tmp_path):
    root = folder_of_three(tmp_path)
    other = write_data(tmp_path / "other", image(1, box_lesion((20, 10, 32, 18))))
    before = (other / "all.json").read_bytes()
    with pytest.raises(InputError, match=r"holds another data set \(all.json is none of patches\)"):
        make_patches(root, other, PatchOptions(), progress=False)
    assert (other / "all.json").read_bytes() == before
    for output, message in (
        (root, "is the folder of the data set itself"),
        (root / "images", "its images would lie among those of the data set"),
        (root / "images/patches", "its images would lie among those of the data set"),
        (root / "splits.json", "is a file"),
    ):
        with pytest.raises(InputError, match=message):
            make_patches(root, output, PatchOptions(), progress=False)
    make_patches(root, root / "patches", PatchOptions(), progress=False)  # beside images/ they are safe


def test_names_keep_folders_apart_and_must_differ(tmp_path):
    lesion = box_lesion((20, 10, 32, 18))
    records = [image(1, lesion, file_name="images/benign/1.png"), image(2, lesion, file_name="images/malignant/1.png")]
    _, made = cut(tmp_path, *records, **ONE)
    assert sorted(record.file_name for record in made.values() if record) == ["images/malignant/1_lesion1.png"]
    names = [record.file_name for record in read_coco(tmp_path / "out/all.json").images]
    assert names == ["images/benign/1_lesion1.png", "images/malignant/1_lesion1.png"]
    twins = [image(1, lesion, file_name="images/a.png"), image(2, lesion, file_name="images/A.bmp")]
    with pytest.raises(InputError, match=r"image 'images/A.bmp': another image has the name 'A' too"):
        cut(tmp_path / "twins", *twins, **ONE)


def test_faults_of_options_are_told_at_once():
    with pytest.raises(InputError) as caught:
        PatchOptions(context=0.5, output_size=0, per_lesion=0, negatives=-1, hard_score=2, classes="kind", jobs=0)
    assert len(str(caught.value).splitlines()) == 7
    for text in ("--context 0.5: expected a number from 1", "--per-lesion 0", "--classes kind: expected one of tumor"):
        assert text in str(caught.value)
    with pytest.raises(InputError, match="--context nan"):
        PatchOptions(context=float("nan"))


def test_faults_of_the_data_are_told_at_once(tmp_path):
    with pytest.raises(InputError, match=r"holds no train.json"):
        make_patches(tmp_path, tmp_path / "out", PatchOptions())
    root = write_data(tmp_path / "in", image(1), image(2, box_lesion((0, 0, 9, 9), ignore=True)))
    (root / "images/im2.png").unlink()
    with pytest.raises(InputError, match="2 faults") as caught:
        make_patches(root, tmp_path / "out", PatchOptions())
    assert "image 'images/im2.png': no such file" in str(caught.value)
    assert "none of its 2 images has a lesion with a place" in str(caught.value)
    write_data(root, name="all.json")
    with pytest.raises(InputError, match="it holds no image"):
        make_patches(root, tmp_path / "out", PatchOptions())
    assert not (tmp_path / "out").exists()


def test_classes_that_no_lesion_knows_are_refused(tmp_path):
    root = write_data(tmp_path / "in", image(1, box_lesion((20, 10, 32, 18), abnormality="nodule")))
    with pytest.raises(InputError, match="no lesion has the attribute 'pathology'; choose tumor or category"):
        make_patches(root, tmp_path / "out", PatchOptions(classes="abnormality+pathology"))


def test_tables_of_two_conversions_are_refused(tmp_path):
    root = folder_of_three(tmp_path)
    write_data(root, image(1, box_lesion((20, 10, 32, 19)), split="train"), name="train.json")
    with pytest.raises(InputError, match=r"train.json: image 'images/im1.png' differs from that in all.json"):
        make_patches(root, tmp_path / "out", PatchOptions())


def test_phantoms_give_patches_of_every_lesion_and_of_normal_tissue(phantom_root, tmp_path):
    summary = make_patches(phantom_root, tmp_path, PatchOptions(output_size=64), progress=False)
    before, after = read_coco(phantom_root / "all.json"), read_coco(tmp_path / "all.json")
    lesions = sum(not lesion.ignore for record in before.images for lesion in record.lesions)
    made = [record for record in after.images if record.labels["tumor"] == 1]
    assert 2 * lesions <= len(made) <= 3 * lesions
    assert len(after.images) > len(made) + len(before.images)
    assert sum(summary.tables[f"{name}.json"] for name in ("train", "val", "test")) == len(after.images)
    for record in made[:5]:
        trace = Trace.from_json(record.trace)
        source = next(one for one in before.images if one.file_name in record.notes[-1])
        pixels = read_image(phantom_root / source.file_name)
        assert np.array_equal(trace.image_forward(pixels), read_image(tmp_path / record.file_name))


def run_tool(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_tool_cuts_and_prints_a_table(tmp_path, capsys):
    root = folder_of_three(tmp_path)
    options = ("--fixed", "--size", 16, "--output-size", 8, "--per-lesion", 2, "--negatives", 1)
    assert run_tool("--data", root, "--output", tmp_path / "out", *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("9 patches of 8x8 px")
    assert [line.split() for line in lines[1:4]] == [
        ["class", "train", "val", "test", "all"],
        ["normal", "1", "1", "1", "3"],
        ["tumor", "2", "2", "2", "6"],
    ]
    assert "train.json 3" in lines[4]
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["classes"]["tumor"] == {"test": 2, "train": 2, "val": 2}


def test_tool_refuses_a_size_without_fixed(tmp_path):
    with pytest.raises(InputError, match="--size 64: is the size of --fixed patches"):
        run_tool("--data", tmp_path, "--output", tmp_path / "out", "--size", 64)


def test_file_trace_has_no_resize_where_none_is_needed():
    patch = Patch("lesion", 1, (3, 4), 16, lesion=0)
    assert [step.name for step in file_trace(image(1), patch, 16).steps] == ["crop"]
    assert file_trace(image(1), patch, 8).output_size_hw == (8, 8)
