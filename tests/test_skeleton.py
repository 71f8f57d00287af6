"""The converters' skeleton, by a small archive of its own (box_archive.py)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from box_archive import BoxArchive, BoxOptions

from mammodet.converters.base import Reason, SplitOptions, Summary
from mammodet.converters.options import add_arguments
from mammodet.converters.skeleton import Made
from mammodet.data.coco import read_coco
from mammodet.data.images import write_png
from mammodet.errors import InputError

HEADER = "file,patient,side,view,x,y,width,height,malignant\n"
ALL_TRAIN = SplitOptions(0, 0, 0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four images: two boxes, one of them malignant; one normal; one box outside; one without a file."""
    folder = tmp_path / "boxes"
    folder.mkdir()
    (folder / "boxes.csv").write_text(
        HEADER
        + "a.png,1,L,CC,10,20,8,6,0\na.png,1,L,CC,30,30,50,6,1\nb.png,1,R,CC,,,,,0\nc.png,2,L,MLO,99,5,5,5,0\n"
        + "d.png,3,L,CC,1,2,3,4,0\n"
    )
    for number, name in enumerate("abc"):
        pixels = np.random.default_rng(number).integers(1, 256, (48, 40), np.uint8)
        write_png(folder / f"{name}.png", pixels)
    return folder


def run(source: Path, output: str = "out", **chosen: object) -> Summary:
    options = BoxOptions(**{"splits": ALL_TRAIN, "jobs": 1, "progress": False} | chosen)
    return BoxArchive.convert(source, source.parent / output, options)


def test_a_new_archive_is_short():
    assert len(Path(__file__).with_name("box_archive.py").read_text().splitlines()) <= 150


def test_boxes_become_lesions_and_what_is_lost_has_a_kind(source):
    summary = run(source)
    a, b, c = read_coco(source.parent / "out" / "all.json").images
    assert [lesion.box_xyxy for lesion in a.lesions] == [(10, 20, 18, 26), (30, 30, 40, 36)]  # cut at the width of 40
    assert (a.labels, b.labels) == ({"tumor": 1, "malignant": 1}, {"tumor": 0, "malignant": 0})
    assert c.unlocalized
    assert summary.by_kind() == {"no_file": 1, "outside": 1}
    assert [item.kind for item in summary.quarantine] == [Reason.NO_FILE, Reason.OUTSIDE]
    assert "quarantine             2 (no_file 1, outside 1)" in summary.to_text()
    written = json.loads((source.parent / "out" / "summary.json").read_text())
    assert written["quarantined"] == {"no_file": 1, "outside": 1}
    assert written["counts"]["boxes"] == 2


def test_images_that_lead_to_one_file_are_quarantined(source):
    (source / "b.pgm").write_bytes(b"P5 40 48 255\n" + bytes(40 * 48))
    with (source / "boxes.csv").open("a") as table:
        table.write("b.pgm,9,R,CC,,,,,1\n")
    summary = run(source)
    assert [image.file_name for image in read_coco(source.parent / "out/all.json").images] == [
        "images/a.png",
        "images/c.png",
    ]
    assert [item.name for item in summary.quarantine if item.kind == Reason.DUPLICATE] == ["images/b.png"] * 2


def test_the_model_makes_the_command_line():
    parser = argparse.ArgumentParser()
    add_arguments(parser, BoxOptions)
    assert BoxOptions.of(parser.parse_args([])) == BoxOptions()
    line = ["--category", "lesion", "--least", "5", "--views", "CC", "MLO", "--folds", "3", "--jobs", "4"]
    expected = BoxOptions(category="lesion", least=5, views=("CC", "MLO"), splits=SplitOptions(folds=3), jobs=4)
    assert BoxOptions.of(parser.parse_args(line)) == expected
    text = " ".join(parser.format_help().split())
    assert "--least PX smaller boxes are left out (2)" in text
    assert "views that are converted (default: all)" in text


def test_faults_of_options_are_told_at_once():
    with pytest.raises(InputError) as error:
        BoxOptions(category="cyst", least=0, jobs=0)
    assert str(error.value).splitlines() == [
        "--jobs 0: expected a whole number of 1 or more",
        "--category cyst: expected one of mass, lesion",
        "--least 0: expected a whole number of 1 px or more",
    ]


def test_stopped_conversion_goes_on_and_a_changed_file_is_read_again(source, monkeypatch):
    run(source, "whole")
    real, calls, stops = BoxArchive.convert_one, [], ["b.png"]

    def stopped(row, how) -> Made:
        calls.append(row.path.name)
        if row.path.name in stops:
            raise KeyboardInterrupt
        return real(row, how)

    monkeypatch.setattr(BoxArchive, "convert_one", staticmethod(stopped))
    with pytest.raises(KeyboardInterrupt):
        run(source)
    assert not list((source.parent / "out").glob("*.json"))
    calls.clear()
    stops.clear()
    run(source)
    assert calls == ["b.png", "c.png"]
    names = ("train.json", "splits.json", "quarantine.csv", "images/a.png", "images/b.png")
    for name in names:
        assert (source.parent / "out" / name).read_bytes() == (source.parent / "whole" / name).read_bytes()
    calls.clear()
    write_png(source / "b.png", np.full((48, 40), 9, np.uint8))
    run(source)
    assert calls == ["b.png"]


def test_unreadable_image_is_tried_again_and_alone_it_is_refused(source):
    good = (source / "a.png").read_bytes()
    (source / "a.png").write_bytes(b"no image")
    assert run(source).by_kind()["unreadable"] == 1
    (source / "boxes.csv").write_text(HEADER + "a.png,1,L,CC,10,20,8,6,0\n")
    with pytest.raises(InputError, match=r"no image could be converted \(a\.png: "):
        run(source, "other")
    (source / "a.png").write_bytes(good)
    assert len(read_coco(Path(run(source).output) / "train.json").images) == 1


def test_processes_give_what_threads_give(source, monkeypatch):
    run(source, "threads", jobs=2)
    monkeypatch.setattr(BoxArchive, "uses_processes", lambda self: True)
    run(source, "processes", jobs=2)
    for name in ("train.json", "quarantine.csv", "images/a.png"):
        assert (source.parent / "threads" / name).read_bytes() == (source.parent / "processes" / name).read_bytes()
