"""The mini-MIAS converter: Info.txt line by line, coordinates by hand, quirks, and a whole archive."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from mammodet.commands.convert import main
from mammodet.converters import mias
from mammodet.converters.base import SplitOptions
from mammodet.converters.mias import MiasOptions, convert, find_archive
from mammodet.converters.mias.table import parse_info
from mammodet.data.coco import read_coco
from mammodet.data.dataset_files import dataset_names, fold_numbers
from mammodet.data.images import read_image
from mammodet.errors import InputError
from mammodet.geometry import rle_area, rle_to_mask
from mammodet.phantom.mias import write_mias_archive

SIZE = 128
FILE_QUIRKS = ("missing_image", "missing_line", "truncated_image")
NO_SPLIT = SplitOptions(0, 0, 0)


def film(size: int = SIZE) -> np.ndarray:
    """Half an ellipse on the left; the right third is background."""
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[0.5:size, 0.5:size]
    breast = ((rows - size / 2) / (0.45 * size)) ** 2 + (columns / (0.6 * size)) ** 2 <= 1
    return (6 + 3 * rng.random((size, size)) + breast * (80 + 60 * rng.random((size, size)))).astype(np.uint8)


def write_film(path: Path, pixels: np.ndarray | None = None) -> None:
    _, content = cv2.imencode(path.suffix, np.ascontiguousarray(film() if pixels is None else pixels))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.tobytes())


def archive(folder: Path, *lines: str, names: tuple[str, ...] | None = None, suffix: str = ".pgm") -> Path:
    """A folder with Info.txt and a film for every name in it."""
    source = folder / "all-mias"
    source.mkdir(parents=True)
    (source / "Info.txt").write_text("REFERENCE NUMBERS\n\n" + "\n".join(lines) + "\n")
    for name in names if names is not None else sorted({line.split()[0] for line in lines}):
        write_film(source / f"{name}{suffix}")
    return source


def run(source: Path, output: Path, categories: str = "lesion", splits: SplitOptions = NO_SPLIT, **more):
    options = MiasOptions(categories=categories, splits=splits, jobs=1, progress=False, **({"table_size": SIZE} | more))
    summary = convert(source, output, options)
    dataset = read_coco(output / "all.json")
    return summary, {Path(record.file_name).stem: record for record in dataset.images}, dataset


def reasons(summary) -> list[tuple[str, str]]:
    return [(item.what, item.name) for item in summary.quarantine]


# Info.txt


def test_patients_are_pairs_of_films():
    entries, _ = parse_info("\n".join(f"mdb{number:03d} G NORM" for number in (1, 2, 3, 321, 322)))
    assert [entry.patient for entry in entries.values()] == [1, 1, 2, 161, 161]


def test_synthetic_patients_are_never_taken_for_real_ones(tmp_path):
    write_mias_archive(tmp_path / "in", patients=2, size=128, progress=False)
    summary, records, _ = run(tmp_path / "in", tmp_path / "out")
    assert summary.archive == "phantom"
    assert {record.patient_id for record in records.values()} == {"phantom_001", "phantom_002"}


# Coordinates


def test_circle_counts_y_from_the_bottom(tmp_path):
    source = archive(tmp_path, "mdb001 G CIRC B 20 100 3")
    _, records, dataset = run(source, tmp_path / "out")
    (lesion,) = records["mdb001"].lesions
    # Centre pixel: column 20, row 127 - 100 = 27; a disc of 29 pixel centres, 7 wide.
    assert lesion.box_xyxy == (17, 24, 24, 31)
    mask = rle_to_mask(lesion.rle)
    assert mask.shape == (SIZE, SIZE)
    assert rle_area(lesion.rle) == 29
    assert np.argwhere(mask).mean(axis=0).tolist() == [27, 20]
    assert lesion.geometry == "circle"
    assert lesion.category == "lesion"
    assert dict(lesion.attributes) == {
        "abnormality": "circumscribed_mass",
        "pathology": "benign",
        "circle_xyr": [20.5, 27.5, 3.0],
    }
    assert dataset.categories == ("lesion",)


def test_circle_at_the_edge_is_cut_off(tmp_path):
    _, records, _ = run(archive(tmp_path, "mdb001 G CIRC B 0 64 10"), tmp_path / "out")
    assert records["mdb001"].lesions[0].box_xyxy == (0, 53, 11, 74)


def test_image_record_holds_what_the_archive_says(tmp_path):
    _, records, _ = run(archive(tmp_path, "mdb001 G NORM", "mdb004 D SPIC M 20 60 9"), tmp_path / "out")
    normal, abnormal = records["mdb001"], records["mdb004"]
    assert (normal.image_id, normal.patient_id, normal.laterality, normal.view) == (1, "mias_001", "R", "MLO")
    assert (normal.density, normal.size_hw, normal.labels) == ("G", (SIZE, SIZE), {"tumor": 0, "malignant": 0})
    assert (normal.unlocalized, normal.lesions, normal.source) == (False, (), "mini-MIAS")
    assert (abnormal.image_id, abnormal.patient_id, abnormal.laterality) == (4, "mias_002", "L")
    assert abnormal.labels == {"tumor": 1, "malignant": 1}
    assert normal.spacing_mm_rc == (1.6, 1.6)  # 0.2 mm at 1024 px
    assert np.array_equal(read_image(tmp_path / "out" / normal.file_name), film())


def test_worst_of_several_lines_labels_the_image(tmp_path):
    source = archive(tmp_path, "mdb144 F MISC B 20 40 8", "mdb144 F MISC M 20 80 8", "mdb002 F ARCH B 20 60 5")
    _, records, _ = run(source, tmp_path / "out")
    assert len(records["mdb144"].lesions) == 2
    assert records["mdb144"].labels == {"tumor": 1, "malignant": 1}
    assert records["mdb002"].labels == {"tumor": 1, "malignant": 0}
    assert records["mdb144"].has_complete_boxes


def test_finding_without_a_place_makes_a_positive_unlocalized_image(tmp_path):
    source = archive(
        tmp_path, "mdb216 D CALC M *NOTE 3*", "mdb059 F CIRC B", "mdb001 F CIRC B", "mdb001 F CIRC B 20 60 9"
    )
    _, records, _ = run(source, tmp_path / "out")
    assert records["mdb216"].labels == {"tumor": 1, "malignant": 1}
    assert records["mdb059"].labels == {"tumor": 1, "malignant": 0}
    assert [records[name].unlocalized for name in ("mdb216", "mdb059", "mdb001")] == [True, True, True]
    assert [len(records[name].lesions) for name in ("mdb216", "mdb059", "mdb001")] == [0, 0, 1]


def test_circles_outside_their_images_warn_of_another_size(tmp_path):
    summary, _, _ = run(archive(tmp_path, "mdb001 G CIRC B 535 425 30", "mdb002 D NORM"), tmp_path / "out")
    assert any("written for films of another size" in warning for warning in summary.warnings)


LIT = {
    "mdb001": (50, 70, 8),
    "mdb002": (40, 40, 10),
    "mdb003": (30, 90, 9),
    "mdb004": (45, 60, 9),
    "mdb005": (60, 75, 7),
    "mdb006": (35, 60, 9),
}


def lit_archive(folder: Path, change) -> Path:
    """Films of 128x128 with a bright disc each, where Info.txt has its circle; `change` makes copies of them."""
    lines = [f"{name} G CIRC B {x} {y} {radius}" for name, (x, y, radius) in LIT.items()]
    source = archive(folder, *lines, "mdb007 D NORM", names=("mdb007",))
    for name, (x, y, radius) in LIT.items():
        pixels = film()
        cv2.circle(pixels, (x, SIZE - 1 - y), radius, 255, -1)
        write_film(source / f"{name}.pgm", change(pixels))
    write_film(source / "mdb007.pgm", change(film()))
    return source


@pytest.mark.parametrize("side", [96, 160])
def test_circles_of_resized_copies_are_rescaled(tmp_path, monkeypatch, side):
    source = lit_archive(tmp_path, lambda pixels: cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA))
    monkeypatch.setattr("mammodet.converters.mias.TABLE_SIZE", SIZE)
    summary, records, _ = run(source, tmp_path / "out", table_size=None)
    factor = side / SIZE
    for name, (x, y, radius) in LIT.items():
        wanted = ((x + 0.5) * factor, (SIZE - y - 0.5) * factor, radius * factor)
        assert records[name].lesions[0].attributes["circle_xyr"] == pytest.approx(wanted)
    assert any("were rescaled from 128x128" in warning for warning in summary.warnings)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda pixels: pixels[16:112, 16:112], "the masses fit better if they were cut or padded in the middle"),
        (lambda pixels: np.pad(pixels, 16), "the masses fit better if they were cut or padded in the middle"),
        (lambda pixels: pixels[32:, :96], "are brighter than their surround if they were resized"),
        (lambda pixels: pixels[:, :96], "is 128x96 (height x width)"),
        (lambda pixels: np.full((96, 96), 7, np.uint8), "only 0 are brighter"),
    ],
)
def test_films_that_were_not_resized_are_refused(tmp_path, monkeypatch, change, reason):
    monkeypatch.setattr("mammodet.converters.mias.TABLE_SIZE", SIZE)
    with pytest.raises(InputError, match="no image could be converted") as caught:
        run(lit_archive(tmp_path, change), tmp_path / "out", table_size=None)
    assert reason in str(caught.value)


def test_too_few_masses_prove_nothing_unless_the_user_says_it(tmp_path, monkeypatch):
    monkeypatch.setattr("mammodet.converters.mias.TABLE_SIZE", 2 * SIZE)
    source = archive(tmp_path, "mdb001 G CIRC B 100 140 20", "mdb002 D NORM")
    with pytest.raises(InputError, match=r"1 masses are too few to prove .* --table-size 256, if .* --table-size 128"):
        run(source, tmp_path / "out", table_size=None)
    _, records, _ = run(source, tmp_path / "out", table_size=256)
    assert records["mdb001"].lesions[0].attributes["circle_xyr"] == [50.25, 57.75, 10]
    with pytest.raises(InputError, match="--table-size 3: expected a whole number of 16 px or more"):
        run(source, tmp_path / "out", table_size=3)


def test_film_of_another_size_is_refused_beside_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("mammodet.converters.mias.TABLE_SIZE", SIZE)
    source = lit_archive(tmp_path, lambda pixels: pixels)
    write_film(source / "mdb005.pgm", film(96))
    write_film(source / "mdb004.pgm", film(160))
    summary, records, _ = run(source, tmp_path / "out", table_size=None)
    assert set(records) == {"mdb001", "mdb002", "mdb003", "mdb006", "mdb007"}
    assert all("the films have several sizes (96, 160)" in item.reason for item in summary.quarantine)


def test_names_of_the_full_database_are_told(tmp_path):
    source = archive(tmp_path, "mdb001 G CIRC B 50 70 10", names=("mdb001lm", "mdb002rm"))
    with pytest.raises(InputError, match=r"mdb001lm.pgm, mdb002rm.pgm are named like the films of the full MIAS"):
        run(source, tmp_path / "out")
    write_film(source / "mdb001.pgm")
    summary, records, _ = run(source, tmp_path / "out")
    assert set(records) == {"mdb001"}
    assert reasons(summary) == [("image", "mdb001lm"), ("image", "mdb002rm")]


@pytest.mark.parametrize(
    ("circle", "reason"),
    [
        ("120 60 3", "lies on background: 0 % of it on the breast"),
        ("500 60 3", "lies outside the image (128x128 px, height x width)"),
        ("20 900 3", "lies outside the image"),
        ("20 60 0", "has no radius"),
        ("20 60 65", "is larger than the image"),
    ],
)
def test_circle_that_cannot_be_is_quarantined_and_the_image_stays_positive(tmp_path, circle, reason):
    summary, records, _ = run(archive(tmp_path, f"mdb212 G CALC B {circle}", "mdb001 G NORM"), tmp_path / "out")
    record = records["mdb212"]
    assert record.lesions == ()
    assert record.unlocalized
    assert record.labels == {"tumor": 1, "malignant": 0}
    (item,) = summary.quarantine
    assert (item.what, item.name) == ("circle", "mdb212 ({}, {}, radius {})".format(*circle.split()))
    assert reason in item.reason
    assert record.notes == (f"circle quarantined: {item.reason}",)
    text = (tmp_path / "out" / "quarantine.csv").read_text().split("\n")
    assert text[0] == "what,name,file,reason,kind"
    assert len(text) == 3


# Categories


def test_mass_scheme_makes_other_findings_regions_to_ignore(tmp_path):
    source = archive(
        tmp_path,
        "mdb001 G CIRC B 20 60 9",
        "mdb002 G CALC B 20 60 9",
        "mdb003 G SPIC M 20 40 8",
        "mdb003 G ASYM B 20 80 8",
        "mdb004 G CIRC B 20 40 8",
        "mdb004 G ARCH M 20 80 8",
        "mdb005 G NORM",
    )
    summary, records, dataset = run(source, tmp_path / "out", "mass")
    assert dataset.categories == ("mass",)
    labels = {name: (record.labels["tumor"], record.labels["malignant"]) for name, record in records.items()}
    assert labels == {
        "mdb001": (1, 0),
        "mdb002": (None, None),  # a calcification: whether there is a mass, too, is not known
        "mdb003": (1, 1),
        "mdb004": (1, None),  # a benign mass, and something malignant that is none
        "mdb005": (0, 0),
    }
    assert [lesion.ignore for lesion in records["mdb003"].lesions] == [False, True]
    assert [records[f"mdb00{k}"].has_complete_boxes for k in range(1, 6)] == [True, False, False, False, True]
    assert records["mdb004"].notes == ("finding left out: architectural_distortion (malignant)",)
    assert summary.counts["ignored regions"] == 3


def test_abnormality_scheme_has_six_categories(tmp_path):
    source = archive(tmp_path, "mdb001 G ARCH B 20 60 9", "mdb002 G CALC B 20 60 9")
    _, records, dataset = run(source, tmp_path / "out", "abnormality")
    assert len(dataset.categories) == 6
    assert records["mdb001"].lesions[0].category == "architectural_distortion"
    assert records["mdb002"].lesions[0].category == "calcification"


def test_unknown_scheme_is_refused(tmp_path):
    with pytest.raises(InputError, match="--categories all: expected one of lesion, mass, abnormality"):
        convert(tmp_path, tmp_path / "out", MiasOptions(categories="all"))


# Files


def test_missing_truncated_and_extra_images_are_quarantined(tmp_path):
    source = archive(tmp_path, "mdb001 G NORM", "mdb002 G NORM", "mdb003 G NORM", names=("mdb001", "mdb002", "mdb009"))
    content = (source / "mdb002.pgm").read_bytes()
    (source / "mdb002.pgm").write_bytes(content[:5000])
    (source / "._mdb001.pgm").write_bytes(b"a Mac's shadow of the file")
    summary, records, _ = run(source, tmp_path / "out")
    assert list(records) == ["mdb001"]
    assert reasons(summary) == [("image", "mdb003"), ("image", "mdb009"), ("image", "mdb002")]
    text = {item.name: item.reason for item in summary.quarantine}
    assert text["mdb003"] == "has a line in Info.txt but no image file"
    assert "has no line in Info.txt" in text["mdb009"]
    assert "is cut short: 4985 pixel bytes, expected 16384" in text["mdb002"]


def test_film_with_a_broken_line_is_left_out(tmp_path):
    source = archive(tmp_path, "mdb001 G NORM", "mdb002 G CIRC B 20 60 9", "mdb002 G CIRC B 20 60")
    summary, records, _ = run(source, tmp_path / "out")
    assert list(records) == ["mdb001"]
    assert reasons(summary) == [("line", "Info.txt line 5"), ("image", "mdb002")]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".PNG"])
def test_copies_of_another_kind_are_read(tmp_path, suffix):
    _, records, _ = run(archive(tmp_path, "mdb001 G CIRC B 20 60 9", suffix=suffix), tmp_path / "out")
    assert records["mdb001"].lesions[0].box_xyxy == (11, 58, 30, 77)


def test_pgm_goes_before_its_copies(tmp_path):
    source = archive(tmp_path, "mdb001 G NORM", suffix=".png")
    write_film(source / "mdb001.pgm", film()[::-1])
    run(source, tmp_path / "out")
    assert np.array_equal(read_image(tmp_path / "out/images/mdb001.png"), film()[::-1])


def test_nested_folder_and_images_in_their_own_folder_are_found(tmp_path):
    source = archive(tmp_path / "nested", "mdb001 G NORM")
    assert find_archive(tmp_path / "nested") == (source / "Info.txt", source)
    (source / "images").mkdir()
    shutil.move(source / "mdb001.pgm", source / "images" / "MDB001.PGM")
    assert find_archive(source) == (source / "Info.txt", source / "images")
    _, records, _ = run(source, tmp_path / "out")
    assert list(records) == ["mdb001"]


def test_table_with_a_byte_order_mark_keeps_its_first_line(tmp_path):
    source = archive(tmp_path, "mdb001 G NORM")
    (source / "Info.txt").write_bytes(b"\xef\xbb\xbfmdb001 G CIRC B 20 60 9\r\n")
    _, records, _ = run(source, tmp_path / "out")
    assert len(records["mdb001"].lesions) == 1


def test_wrong_places_are_told(tmp_path):
    source = archive(tmp_path, "mdb001 G NORM")
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "Info.txt").write_text("mdb001 G NORM\n")
    prose = tmp_path / "prose"
    prose.mkdir()
    (prose / "Info.txt").write_bytes(b"\xff\xfenothing\x00 here")
    write_film(prose / "mdb001.pgm")
    out = tmp_path / "out"
    for place, output, message in (
        (tmp_path / "nowhere", out, "no such folder"),
        (source / "Info.txt", out, "is a file; --source is a folder"),
        (empty, out, "no Info.txt; .* Found: an empty folder"),
        (bare, out, "has Info.txt but no images"),
        (prose, out, "no line like"),
        (source, source / "Info.txt", "is a file; --output is a folder"),
        (source, source, "lies in the archive"),
        (source, source / "deep" / "er", "lies in the archive"),
        (source, tmp_path / "x" / ".." / "all-mias" / "out", "lies in the archive"),
    ):
        with pytest.raises(InputError, match=message):
            convert(place, output, MiasOptions(splits=NO_SPLIT, progress=False))
    assert not out.exists()
    assert sorted(path.name for path in source.iterdir()) == ["Info.txt", "mdb001.pgm"]


def test_archive_in_which_every_image_is_broken_is_refused(tmp_path):
    source = archive(tmp_path, "mdb001 G NORM", "mdb002 G NORM")
    for path in source.glob("*.pgm"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"no image could be converted \(mdb001: .*the file is empty"):
        convert(source, tmp_path / "out", MiasOptions(progress=False))


# Splits


def test_impossible_splits_are_told_before_any_image_is_converted(tmp_path):
    source = archive(tmp_path, *(f"mdb{number:03d} G NORM" for number in range(1, 7)))
    for splits in (SplitOptions(0.7, 0.3), SplitOptions(folds=1)):
        with pytest.raises(InputError, match="splits: "):
            convert(source, tmp_path / "out", MiasOptions(splits=splits, progress=False))
    assert not (tmp_path / "out").exists()


def test_fewer_folds_remove_the_files_of_the_earlier_ones(tmp_path):
    source = archive(tmp_path, *(f"mdb{number:03d} G NORM" for number in range(1, 17)))
    out = tmp_path / "out"
    run(source, out, splits=SplitOptions(0.2, 0.2, folds=4))
    assert fold_numbers(out) == [0, 1, 2, 3]
    for name in ("fold3_val.json", "all.json", "mine.json"):  # as older converters wrote them
        (out / name).write_text("{}")
    run(source, out, splits=SplitOptions(0, 0.2, folds=2))
    files = {"train.json", "val.json", "splits.json", "summary.json", "mine.json"}
    assert {path.name for path in out.glob("*.json")} == files
    assert fold_numbers(out) == [0, 1]


def test_second_conversion_is_byte_for_byte_the_first(tmp_path):
    source = archive(tmp_path, "mdb001 G CIRC B 20 60 9", "mdb002 G NORM", "mdb003 G NORM", "mdb004 D CALC M")
    contents = []
    for _ in range(2):
        run(source, tmp_path / "out", splits=SplitOptions(0.3, 0.3, folds=2))
        contents.append({path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()})
    assert contents[0] == contents[1]


# Whole archives


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mias")
    quirks = ("several_lesions", "benign_and_malignant", "note3", "no_coordinates", "circle_on_background", "labels",
              "scan_edges", *FILE_QUIRKS, "crlf")  # fmt: skip
    truth = write_mias_archive(folder / "all-mias", patients=14, size=192, seed=3, quirks=quirks, progress=False)
    arguments = ["mias", "--source", str(folder / "all-mias"), "--output", str(folder / "out"), "--folds", "3"]
    assert main(arguments) == 0
    return folder, truth


def test_phantom_archive_gives_the_counts_of_its_summary(phantom):
    folder, truth = phantom
    dataset = read_coco(folder / "out" / "all.json")
    records = {Path(record.file_name).stem: record for record in dataset.images}
    lost = {name for quirk in FILE_QUIRKS for name in truth.quirks[quirk]}
    assert len(lost) == 3
    names = {f"mdb{number:03d}" for number in range(1, 29)}
    assert set(records) == names - lost
    positive = {name for name, record in records.items() if record.labels["tumor"] == 1}
    assert positive == set(truth.abnormal_images) - lost
    unlocalized = {
        name for quirk in ("note3", "no_coordinates", "circle_on_background") for name in truth.quirks[quirk]
    }
    assert {name for name, record in records.items() if record.unlocalized} == unlocalized - lost
    lesions = sum(len(record.lesions) for record in dataset.images)
    assert lesions == truth.circles - len(truth.quirks["circle_on_background"])
    for name in truth.quirks["benign_and_malignant"]:
        assert {lesion.attributes["pathology"] for lesion in records[name].lesions} == {"benign", "malignant"}
        assert records[name].labels["malignant"] == 1


def test_phantom_summary_names_what_was_left_out(phantom):
    folder, truth = phantom
    summary = json.loads((folder / "out" / "summary.json").read_text())
    found = {(item["what"], item["name"][:6]) for item in summary["quarantine"]}
    expected = {("image", name) for quirk in FILE_QUIRKS for name in truth.quirks[quirk]}
    expected |= {("circle", name) for name in truth.quirks["circle_on_background"]}
    assert found == expected
    brighter = summary["checks"]["masses brighter"]
    assert brighter["origin bottom-left"] > brighter["if it were top-left"]
    assert summary["warnings"] == []


def test_phantom_splits_keep_patients_together_and_cover_all(phantom):
    folder, _ = phantom
    read = {Path(name).stem: read_coco(folder / "out" / name) for name in dataset_names(folder / "out")}
    ids = {name: {record.image_id for record in dataset.images} for name, dataset in read.items()}
    patients = {name: {record.patient_id for record in dataset.images} for name, dataset in read.items()}
    splits = json.loads((folder / "out" / "splits.json").read_text())
    assert ids["train"] | ids["val"] | ids["test"] == ids["all"]
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        assert patients[first].isdisjoint(patients[second])
    for fold in range(3):
        assert patients[f"fold{fold}_train"].isdisjoint(patients[f"fold{fold}_val"])
        assert ids[f"fold{fold}_train"] | ids[f"fold{fold}_val"] | ids["test"] == ids["all"]
    assert Counter(number for fold in range(3) for number in ids[f"fold{fold}_val"]).most_common(1)[0][1] == 1
    for name, dataset in read.items():
        assert dataset.info["split"]["hash"] == splits["hash"], name
        assert {record.split for record in dataset.images} <= {"train", "val", "test"}
    assert {record.split for record in read["fold1_val"].images} == {"val"}


def test_upside_down_coordinates_bring_a_warning(tmp_path):
    pixels = film()
    pixels[20:35, 20:35] = 255
    source = archive(tmp_path, "mdb001 G CIRC B 27 27 7", "mdb002 G NORM")  # y counted from the top
    write_film(source / "mdb001.pgm", pixels)
    summary, _, _ = run(source, tmp_path / "out")
    assert summary.checks["masses brighter"] == {"of": 1, "origin bottom-left": 0, "if it were top-left": 1}
    assert "upside down" in summary.warnings[0]


@pytest.mark.skipif("MAMMODET_MIAS" not in os.environ, reason="MAMMODET_MIAS names no folder with the real mini-MIAS")
def test_real_mini_mias_gives_the_published_counts(tmp_path):
    summary, records, _ = run(Path(os.environ["MAMMODET_MIAS"]), tmp_path / "out", splits=SplitOptions(folds=5))
    assert len(records) == 322
    assert len({record.patient_id for record in records.values()}) == 161
    assert Counter(record.labels["tumor"] for record in records.values()) == {0: 207, 1: 115}
    lesions = [lesion for record in records.values() for lesion in record.lesions]
    assert len(lesions) == 119 - 2
    assert sum(bool(record.lesions) for record in records.values()) == 111 - 2
    table = (Path(os.environ["MAMMODET_MIAS"]) / "Info.txt").read_text(encoding="utf-8", errors="replace")
    entries, broken = parse_info(table)
    circles = [finding.circle for entry in entries.values() for finding in entry.findings if finding.circle]
    radii = [radius for _, _, radius in circles]
    assert (len(circles), min(radii), max(radii), float(np.median(radii)), broken) == (119, 3, 197, 41, [])
    assert sum(max(len(entry.findings), 1) for entry in entries.values()) == 330
    unlocalized = {name for name, record in records.items() if record.unlocalized}
    assert unlocalized == {"mdb059", "mdb216", "mdb233", "mdb245", "mdb212", "mdb214"}
    several = {name: len(record.lesions) for name, record in records.items() if len(record.lesions) > 1}
    assert several == {"mdb005": 2, "mdb132": 2, "mdb144": 2, "mdb223": 2, "mdb226": 3, "mdb239": 2, "mdb249": 2}
    assert {item.attributes["pathology"] for item in records["mdb144"].lesions} == {"benign", "malignant"}
    assert sorted(item.name[:6] for item in summary.quarantine) == ["mdb212", "mdb214"]
    assert all(record.size_hw == (1024, 1024) for record in records.values())
    brighter = summary.checks["masses brighter"]
    assert brighter["of"] == 58
    assert brighter["origin bottom-left"] >= 57
    assert brighter["if it were top-left"] <= 40
    assert summary.warnings == []
    assert mias.SPACING_MM == records["mdb001"].spacing_mm_rc[0] == 0.2
