"""The folder converter: names and negations, levels, splits, patients and copies, identical files, and a phantom."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mammodet.converters.base import SplitOptions, Summary
from mammodet.converters.folder import FolderOptions, convert
from mammodet.converters.folder.patients import stem_of
from mammodet.converters.folder.rules import ClassRule, read_map
from mammodet.converters.folder.words import Meaning
from mammodet.converters.options import add_arguments
from mammodet.data.coco import read_coco
from mammodet.data.images import read_image
from mammodet.errors import InputError
from mammodet.phantom import FOLDERS as CLASSES
from mammodet.phantom.folder import write_folder_archive
from mammodet.records import ImageRecord

ALL_TRAIN = SplitOptions(0, 0, 0)


def grey(number: int) -> np.ndarray:
    return (number + np.arange(48).reshape(6, 8)).astype(np.uint8)


def write(source: Path, *names: str) -> None:
    """A small image for each path, each with other pixels."""
    for name in names:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = grey(sum(name.encode()) % 199)
        pixels[0, :4] = np.frombuffer(hashlib.sha256(name.encode()).digest()[:4], np.uint8)
        _, content = cv2.imencode(path.suffix, pixels)
        path.write_bytes(content.tobytes())


def copy_file(source: Path, first: str, second: str) -> None:
    (source / second).parent.mkdir(parents=True, exist_ok=True)
    (source / second).write_bytes((source / first).read_bytes())


def run(source: Path, **chosen: Any) -> tuple[Summary, dict[str, ImageRecord]]:
    """The summary, and path below the source to record."""
    options = FolderOptions(**({"splits": ALL_TRAIN, "progress": False, "jobs": 1} | chosen))
    output = source.parent / "out"
    summary = convert(source, output, options)
    return summary, {
        record.file_name.removeprefix("images/"): record for record in read_coco(output / "all.json").images
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "mine"


def test_labels_and_classes_come_from_the_names(source: Path) -> None:
    write(source, "Density1Benign/a1.png", "Density2Malignant/b2.jpg", "other/c3.tif")
    summary, records = run(source)
    first, second, third = records.values()
    assert (first.class_name, first.density, dict(first.labels)) == (
        "Density1Benign",
        "1",
        {"tumor": 1, "malignant": 0},
    )
    assert (second.density, dict(second.labels), second.unlocalized) == ("2", {"tumor": 1, "malignant": 1}, True)
    assert (third.class_name, dict(third.labels), third.unlocalized) == (
        "other",
        {"tumor": None, "malignant": None},
        False,
    )
    assert summary.counts["  Density1Benign"] == "tumor 1, malignant 0, density 1 (by its name)"
    assert summary.counts["  other"] == "no labels: a class only"
    assert "PATIENTS ARE NOT KNOWN" in summary.warnings[0]
    np.testing.assert_array_equal(
        read_image(source.parent / "out/images/other/c3.tif"), read_image(source / "other/c3.tif")
    )


def test_depth_and_colour_are_kept_as_the_file_has_them(source: Path) -> None:
    deep = (np.arange(48).reshape(6, 8) * 1000).astype(np.uint16)
    (source / "benign").mkdir(parents=True)
    cv2.imwrite(str(source / "benign/deep.png"), deep)
    cv2.imwrite(str(source / "benign/rgb.png"), np.repeat(grey(3)[..., None], 3, axis=2))
    write(source, "normal/x9.pgm")
    _, records = run(source)
    assert records["benign/rgb.png"].size_hw == (6, 8)
    np.testing.assert_array_equal(read_image(source.parent / "out/images/benign/deep.png"), deep)


def test_rules_replace_the_words(source: Path) -> None:
    write(source, "benign/a1.png", "stage2/b2.png", "junk/c3.png", "cancer/d4.png")
    rules = (
        ClassRule("Benign", Meaning(None, 0)),
        ClassRule("stage2", Meaning(1, 1, "B", "4"), "late"),
        ClassRule("junk", skip=True),
        ClassRule("cancer", None, "renamed"),
    )
    summary, records = run(source, rules=rules)
    assert [(record.class_name, record.label("tumor"), record.label("malignant")) for record in records.values()] == [
        ("benign", None, 0),
        ("renamed", 1, 1),
        ("late", 1, 1),
    ]
    assert records["stage2/b2.png"].birads == "4"
    assert summary.counts["images"] == {"found": 4, "converted": 3, "quarantined": 0, "skipped": 1}
    assert summary.counts["  benign"] == "malignant 0 (by a rule)"


def test_rule_without_a_folder_is_refused_with_the_folders(source: Path) -> None:
    write(source, "benign/a1.png", "cancer/b2.png")
    with pytest.raises(InputError, match="no class folder 'bening' with images; there are benign, cancer"):
        run(source, rules=(ClassRule("bening", Meaning(1, 0)),))


def test_two_folders_of_one_class_must_mean_the_same(source: Path) -> None:
    write(source, "a/a1.png", "b/b2.png", "c/c3.png")
    rules = [ClassRule("a", Meaning(0, 0), "x"), ClassRule("b", Meaning(0, 0), "x")]
    assert {record.class_name for record in run(source, rules=tuple(rules))[1].values()} == {"x", "c"}
    with pytest.raises(InputError, match="class 'x' means 'tumor 0, malignant 0' in one folder, 'tumor 1' in another"):
        run(source, rules=(rules[0], ClassRule("b", Meaning(1, None), "x")))


def options_of(*texts: str) -> FolderOptions:
    parser = argparse.ArgumentParser()
    add_arguments(parser, FolderOptions)
    common = ["--test-fraction", "0.1", "--val-fraction", "0.2", "--folds", "3", "--seed", "4", "--jobs", "5"]
    return FolderOptions.of(parser.parse_args([*texts, *common]))


def test_command_line_becomes_options(tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("junk: skip\n7: {tumor: 0}\nlate: {name: x, birads: 4, malignant: unknown}\n")
    options = options_of(
        *("--class", "a=b=malignant:1,density:B", "--map", str(tmp_path / "map.yaml")),
        *("--level", "2", "--patient", "(P)", "--split", "given", "--resolve-leaks", "test", "--images", "link"),
        *("--crop", "whole", "--name", "set"),
    )
    assert options == FolderOptions(
        rules=(
            ClassRule("a=b", Meaning(1, 1, "B")),  # malignant is a tumor
            ClassRule("junk", skip=True),
            ClassRule("7", Meaning(0, 0)),  # no tumor is not malignant
            ClassRule("late", Meaning(birads="4"), "x"),
        ),
        level=2,
        patient="(P)",
        split="given",
        resolve_leaks="test",
        images="link",
        crop="whole",
        name="set",
        splits=SplitOptions(0.1, 0.2, 3, 4),
        jobs=5,
    )


@pytest.mark.parametrize(
    ("texts", "what"),
    [
        (("--class", "benign"), "expected FOLDER=KEY:VALUE"),
        (("--class", "a=tumor"), "'tumor' is no KEY:VALUE"),
        (("--class", "a=tumor:1,tumor:0"), "is said twice"),
        (("--class", "a=cancer:1"), "key 'cancer'; expected tumor, malignant, density, birads, name"),
        (("--class", "a=tumor:2"), "tumor is '2'; expected 0, 1 or unknown"),
        (("--class", "a=malignant:1,tumor:0"), "contradict each other"),
        (("--class", "a=name:"), "its new name is empty"),
        (("--level", "0"), "expected a number from 1, or 'all'"),
        (("--map", "missing.yaml"), "no such file"),
    ],
)
def test_mapping_that_cannot_be_read_is_refused(texts: tuple[str, ...], what: str) -> None:
    with pytest.raises(InputError, match=what):
        options_of(*texts)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("- a\n", "expected lines like"),
        ("a: {tumor: yes}\n", "tumor is True"),
        ("no: skip\n", "needs quotes"),
        ("a: 1\n", "a: is 1; expected skip"),
        ("a: [", "is not valid YAML"),
        ("a: {tumor: 3}\nb: 2\n", "2 faults"),
        ("a: skip\na: {tumor: 1}\n", "the key 'a' stands twice"),
        ("a: 2026-13-01\n", "is not valid YAML"),
        ("[" * 2000, "is not valid YAML"),
        ("a0: &b0 [x]\n" + "".join(f"a{n}: &b{n} [{f'*b{n - 1},' * 10}]\n" for n in range(1, 9)), "more than"),
    ],
)
def test_map_file_with_faults_is_refused(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(InputError, match=what):
        read_map(tmp_path / "map.yaml")


def test_rule_said_twice_is_refused(source: Path) -> None:
    write(source, "a/a1.png", "b/b2.png")
    with pytest.raises(InputError, match="'A' is said twice"):
        run(source, rules=(ClassRule("a", Meaning(1)), ClassRule("A", Meaning(0))))


def test_folder_around_everything_and_patients_below_are_no_classes(source: Path) -> None:
    write(source, "My Set/benign/p1/a1.png", "My Set/benign/p2/a2.png", "My Set/cancer/p3/b3.png")
    (source / "My Set" / "readme.txt").write_text("x")
    summary, records = run(source)
    assert [record.class_name for record in records.values()] == ["benign", "benign", "cancer"]
    assert summary.counts["other files"] == {".txt": 1}


def test_levels_that_cannot_be_told_apart_are_refused_and_can_be_said(source: Path) -> None:
    write(source, "Density1/benign/a1.png", "Density1/cancer/a2.png", "Density2/benign/a3.png")
    with pytest.raises(InputError, match="level 1 and level 2 say something") as refused:
        run(source)
    assert "level 1: Density1, Density2" in str(refused.value)
    _, records = run(source, level=2)
    assert [record.class_name for record in records.values()] == ["benign", "cancer", "benign"]
    _, records = run(source, level="all")
    assert records["Density1/cancer/a2.png"].class_name == "Density1 / cancer"
    assert (records["Density1/cancer/a2.png"].density, records["Density1/cancer/a2.png"].label("malignant")) == ("1", 1)
    with pytest.raises(InputError, match="--level 3: the images lie 2 folders deep"):
        run(source, level=3)


def test_levels_of_names_that_say_nothing_are_refused(source: Path) -> None:
    write(source, "A/p1/a1.png", "B/p2/b1.png")
    with pytest.raises(InputError, match="no level are understood"):
        run(source)
    assert {record.class_name for record in run(source, level=1)[1].values()} == {"A", "B"}


def test_image_outside_class_folders_is_quarantined(source: Path) -> None:
    write(source, "logo.png", "train/stray.png", "train/benign/a1.png", "test/cancer/b2.png")
    summary, records = run(source)
    assert list(records) == ["test/cancer/b2.png", "train/benign/a1.png"]
    assert {(item.name, item.reason) for item in summary.quarantine} == {
        ("logo.png", "lies in no class folder"),
        ("train/stray.png", "lies in no class folder"),
    }


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("a1.png", "a2.png"), "all images lie in one folder"),
        (("benign/a1.png", "benign/a2.png"), "only one class, 'benign'"),
        (("train/benign/a1.png", "test/benign/a2.png"), "only one class, 'benign'"),
        (("train/test/benign/a1.png", "train/cancer/b1.png"), "names two subsets, train and test"),
    ],
)
def test_trees_without_two_classes_are_refused(source: Path, names: tuple[str, ...], what: str) -> None:
    write(source, *names)
    with pytest.raises(InputError, match=what):
        run(source)


def test_tree_without_images_says_what_is_there(source: Path) -> None:
    (source / "benign").mkdir(parents=True)
    (source / "benign" / "a.gif").write_bytes(b"GIF")
    with pytest.raises(InputError, match=r"no images; expected .*; it has files \.gif"):
        run(source)


def test_odd_folders_are_told(source: Path) -> None:
    write(source, "train/Benign/a1.png", "test/benign/a2.png", "train/cancer/b1.png")
    (source / "train" / "normal").mkdir()
    write(source, "train/.hidden/x.png", "train/__MACOSX/y.png", "train/Benign/._a1.png")
    summary, records = run(source)
    assert len(records) == 3
    assert {record.class_name for record in records.values()} == {"benign", "cancer"}
    text = summary.to_text()
    assert "class folders without images: normal" in text
    assert "are one class: benign = Benign" in text
    assert "test has no image of the class cancer" in text


def test_image_that_cannot_be_read_is_quarantined(source: Path) -> None:
    write(source, "benign/a1.png", "cancer/b1.png", "cancer/b2.png")
    (source / "cancer/b2.png").write_bytes((source / "cancer/b1.png").read_bytes()[:40])
    summary, records = run(source)
    assert len(records) == 2
    assert "is cut short" in summary.quarantine[0].reason
    assert summary.counts["images"] == {"found": 3, "converted": 2, "quarantined": 1}


def test_given_split_is_kept_and_validation_is_taken_from_train(source: Path) -> None:
    write(source, "Training/benign/a1.png", "Training/cancer/b1.png", "testing/benign/a2.png", "valid/cancer/b3.png")
    _, records = run(source)
    assert {name.split("/")[0]: record.split for name, record in records.items()} == {
        "Training": "train",
        "testing": "test",
        "valid": "val",
    }
    summary, records = run(source, split="holdout", splits=SplitOptions(0.5, 0, 0))
    assert sum(record.split == "test" for record in records.values()) == 2
    assert "were pooled and divided anew" in summary.to_text()


def test_subset_below_the_class_is_known_too(source: Path) -> None:
    write(source, "benign/train/a1.png", "benign/test/a2.png", "cancer/train/b1.png")
    _, records = run(source)
    assert [(record.class_name, record.split) for record in records.values()] == [
        ("benign", "test"),
        ("benign", "train"),
        ("cancer", "train"),
    ]


def test_split_that_only_some_images_tell_is_refused(source: Path) -> None:
    write(source, "train/benign/a1.png", "test/cancer/b1.png", "cancer/b2.png")
    with pytest.raises(
        InputError, match=r"1 images lie in no folder named train, val or test, for instance cancer/b2\.png"
    ):
        run(source)
    assert len(run(source, split="holdout")[1]) == 3


def test_patient_side_and_view_come_from_the_path(source: Path) -> None:
    write(source, "benign/P_00001_LEFT_CC.png", "cancer/P_00001_R_mlo.png", "cancer/P_00002_L_CC.png")
    pattern = r"(?P<patient>P_\d{5})_(?P<laterality>[A-Z]+)_(?P<view>\w+)"
    summary, records = run(source, patient=pattern)
    assert [(record.patient_id, record.laterality, record.view) for record in records.values()] == [
        ("P_00001", "L", "CC"),
        ("P_00001", "R", "MLO"),
        ("P_00002", "L", "CC"),
    ]
    assert "PATIENTS ARE NOT KNOWN" not in summary.to_text()
    _, records = run(source, patient=r"^(?:.*/)?([^_/]+_\d+)_")
    assert [record.patient_id for record in records.values()] == ["P_00001", "P_00001", "P_00002"]


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("(", "is no regular expression"),
        (r"P_\d+", "no group for the patient"),
        (r"(?P<view>\w+)", "no group for the patient"),
        (r"(X\d+)", r"2 faults[\s\S]*benign/a1\.png: does not match"),
        (r"/(z?)", "its patient is empty"),
        (r"/(?P<patient>.)(?P<laterality>\d)", "laterality '1'; expected L, R"),
    ],
)
def test_patient_that_cannot_be_told_is_refused(source: Path, pattern: str, what: str) -> None:
    write(source, "benign/a1.png", "cancer/b1.png")
    with pytest.raises(InputError, match=what):
        run(source, patient=pattern)


def test_copies_stay_on_one_side(source: Path) -> None:
    films = [("benign", number) for number in range(10)] + [("cancer", number) for number in range(10, 20)]
    write(source, *(f"{name}/film{number}{copy}.png" for name, number in films for copy in ("", " (1)", "_rot90")))
    summary, records = run(source, splits=SplitOptions(0.3, 0.2, 2))
    sides: dict[str, set[str | None]] = {}
    for name, record in records.items():
        sides.setdefault(stem_of(Path(name).name)[0], set()).add(record.split)
    assert len(sides) == 20
    assert all(len(found) == 1 for found in sides.values())
    assert summary.counts["copies by name"] == {"groups": 20, "images": 60}
    # Six of twenty films: three of each class, since classes are the strata.
    assert sum(record.split == "test" and record.class_name == "cancer" for record in records.values()) == 9


def test_copies_on_both_sides_of_a_given_split_are_refused_or_moved(source: Path) -> None:
    write(source, "train/benign/20586908 (1).png", "test/benign/20586908 (2).png", "train/cancer/b1.png")
    with pytest.raises(
        InputError, match=r"1 images, with their copies by name, are in two subsets: 20586908 \(train and"
    ):
        run(source)
    summary, records = run(source, resolve_leaks="test")
    assert {name: record.split for name, record in records.items()} == {
        "test/benign/20586908 (2).png": "test",
        "train/benign/20586908 (1).png": "test",
        "train/cancer/b1.png": "train",
    }
    assert "1 patients were in two subsets and moved to one: 20586908 (to test)" in summary.to_text()


def test_identical_file_of_one_class_is_left_out(source: Path) -> None:
    write(source, "benign/a1.png", "benign/other.png", "cancer/b1.png")
    copy_file(source, "benign/a1.png", "benign/zz.png")
    summary, records = run(source)
    assert list(records) == ["benign/a1.png", "benign/other.png", "cancer/b1.png"]
    assert [(item.name, item.reason) for item in summary.quarantine] == [
        ("benign/zz.png", "is the same file as benign/a1.png")
    ]


def test_identical_file_of_two_classes_stays_with_a_warning_as_one_patient(source: Path) -> None:
    write(source, "benign/a1.png", "cancer/b1.png")
    copy_file(source, "benign/a1.png", "cancer/zz.png")
    summary, records = run(source)
    assert records["benign/a1.png"].patient_id == records["cancer/zz.png"].patient_id
    assert "1 files lie in two classes: benign/a1.png = cancer/zz.png; one label is wrong" in summary.to_text()


def test_identical_file_on_two_sides_is_refused_or_kept_on_one(source: Path) -> None:
    write(source, "train/benign/a1.png", "train/cancer/b1.png", "test/cancer/b2.png")
    copy_file(source, "train/benign/a1.png", "test/benign/t7.png")
    with pytest.raises(
        InputError, match=r"1 files lie on several sides[\s\S]*test/benign/t7\.png = train/benign/a1\.png"
    ):
        run(source)
    summary, records = run(source, resolve_leaks="test")
    assert "train/benign/a1.png" not in records
    assert records["test/benign/t7.png"].split == "test"
    assert summary.quarantine[0].reason == "is the same file as test/benign/t7.png"
    _, records = run(source, resolve_leaks="train")
    assert "test/benign/t7.png" not in records
    assert records["train/benign/a1.png"].split == "train"


def test_identical_file_of_two_patients_makes_them_one(source: Path) -> None:
    write(source, "benign/p1_a.png", "cancer/p2_b.png", "cancer/p3_c.png")
    copy_file(source, "benign/p1_a.png", "cancer/p3_d.png")
    summary, records = run(source, patient=r"(p\d)_")
    assert {name: record.patient_id for name, record in records.items()} == {
        "benign/p1_a.png": "p1",
        "cancer/p2_b.png": "p2",
        "cancer/p3_c.png": "p1",
        "cancer/p3_d.png": "p1",
    }
    assert "1 files are given to several patients" in summary.to_text()


def test_images_are_linked_where_asked(source: Path) -> None:
    write(source, "benign/a1.png", "cancer/b1.png")
    for _ in range(2):
        run(source, images="link")
    link = source.parent / "out/images/benign/a1.png"
    assert link.is_symlink()
    assert link.resolve() == (source / "benign/a1.png").resolve()
    run(source)
    assert not link.is_symlink()
    assert (source / "benign/a1.png").is_file()


def test_folder_that_is_a_link_is_followed_and_a_loop_is_not(source: Path) -> None:
    write(source, "benign/a1.png")
    write(source.parent / "elsewhere", "b1.png")
    (source / "cancer").symlink_to(source.parent / "elsewhere")
    (source / "benign" / "again").symlink_to(source)
    assert list(run(source)[1]) == ["benign/a1.png", "cancer/b1.png"]


def test_whole_images_are_not_cropped(source: Path) -> None:
    write(source, "benign/a1.png", "cancer/b1.png")
    _, records = run(source, crop="whole")
    assert records["benign/a1.png"].breast_box_xyxy == (0, 0, 8, 6)


@pytest.mark.parametrize(
    "chosen", [{"split": "x"}, {"images": "move"}, {"crop": "x"}, {"jobs": 0}, {"resolve_leaks": "x"}]
)
def test_options_out_of_range_are_refused(source: Path, chosen: dict[str, Any]) -> None:
    write(source, "benign/a1.png", "cancer/b1.png")
    with pytest.raises(InputError, match="expected"):
        run(source, **chosen)


def test_phantom_archive_is_converted_as_it_says(tmp_path: Path) -> None:
    made = write_folder_archive(tmp_path / "p", images=24, size=128, progress=False)
    summary, records = run(tmp_path / "p", splits=SplitOptions(0.2, 0.2, 0))
    assert summary.counts["class"] == made.classes
    assert list(made.classes) == list(CLASSES)
    assert summary.counts["copies by name"]["groups"] == len(made.copied) > 0
    assert summary.counts["patients"] == made.images - made.copies
    assert {record.source for record in records.values()} == {"phantom"}
    assert all(str(record.patient_id).startswith("phantom_9") for record in records.values())
    assert {record.density for record in records.values()} == {"1", "2", "3", "4"}


def test_phantom_depends_on_its_seed_and_replaces_only_its_own(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2), ("a", 1)):
        write_folder_archive(tmp_path / name, images=8, size=128, seed=seed, progress=False)
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.png")} for name in "abc"]
    assert files[0] == files[1]
    assert files[0] != files[2]
    (tmp_path / "a" / "mine").mkdir()
    with pytest.raises(InputError, match="holds mine"):
        write_folder_archive(tmp_path / "a", images=8, size=128, progress=False)
    with pytest.raises(InputError, match="--images 7: expected a whole number of 8 or more"):
        write_folder_archive(tmp_path / "d", images=7)


@pytest.mark.parametrize(
    "folders",
    [("cancer_0", "cancer_1"), ("0", "1"), ("x 1", "x-2"), ("benign", "benign02"), ("Density1 a1", "density1_a2")],
)
def test_folders_that_differ_in_a_number_alone_are_refused(source, folders):
    write(source, *(f"{folder}/a{folder}.png" for folder in (*folders, "normal")))
    with pytest.raises(
        InputError, match=r"folders differ in a number alone.*--numbers class.*--numbers count"
    ) as caught:
        run(source)
    assert f"--class '{sorted(folders, key=str.casefold)[0]}=tumor:0'" in str(caught.value)


def test_numbers_of_folders_are_what_the_user_says(source):
    write(source, "cancer_0/a.png", "cancer_1/b.png", "normal/c.png")
    rules = (ClassRule("cancer_0", Meaning(0, 0)), ClassRule("cancer_1", Meaning(1, 1)))
    for chosen, expected in (
        ({"numbers": "class"}, [("cancer_0", None), ("cancer_1", None), ("normal", 0)]),
        ({"numbers": "count"}, [("cancer", 1), ("cancer", 1), ("normal", 0)]),
        ({"rules": rules}, [("cancer_0", 0), ("cancer_1", 1), ("normal", 0)]),
        ({"rules": rules[:1], "numbers": "class"}, [("cancer_0", 0), ("cancer_1", None), ("normal", 0)]),
    ):
        _, records = run(source, **chosen)
        assert [(record.class_name, record.labels["malignant"]) for record in records.values()] == expected
    with pytest.raises(InputError, match="differ in a number alone"):
        run(source, rules=rules[:1])


def test_numbers_that_say_density_are_understood(source):
    write(source, "Density1Benign/a.png", "Density2Benign/b.png", "birads_4/c.png", "birads_5/d.png")
    _, records = run(source)
    assert [record.density for record in records.values()] == ["1", "2", None, None]


def test_links_in_circles_end(source):
    write(source, "benign/a.png", "malignant/b.png")
    (source / "benign/up").symlink_to(source)
    (source / "benign/self").symlink_to(source / "benign/self")
    folders = [source.parent / f"d{number}" for number in range(12)]
    for folder in folders:
        folder.mkdir()
        for other in folders:
            (folder / other.name).symlink_to(other)
    write(folders[3], "c.png")
    (source / "malignant/far").symlink_to(folders[0])
    _, records = run(source, level=1)
    assert {name.rpartition("/")[2] for name in records} == {"a.png", "b.png", "c.png"}


def test_every_image_a_patient_is_said_once(source):
    write(source, "benign/1.png", "malignant/2.png")
    for chosen, said in (
        ({}, "PATIENTS ARE NOT KNOWN"),
        ({"patient": r"(\d)"}, "every one of the 2 images is a patient"),
    ):
        summary, _ = run(source, **chosen)
        assert [said in line for line in summary.warnings].count(True) == 1
        assert sum("patient" in line.lower() for line in summary.warnings) == 1
        assert not any("NO LESIONS" in line for line in summary.warnings)
