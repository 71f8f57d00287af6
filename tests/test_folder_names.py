"""How the folder converter understands names: words of classes, subsets, copies, patients."""

from __future__ import annotations

from pathlib import Path

import pytest

from mammodet.converters.folder.patients import guess_persons, stem_of
from mammodet.converters.folder.tree import TreeImage, subset_of
from mammodet.converters.folder.words import Meaning, read_name


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("Density1Benign", Meaning(1, 0, "1")),
        ("Density4Malignant", Meaning(1, 1, "4")),
        ("density_3", Meaning(density="3")),
        ("Density B", Meaning(density="B")),
        ("BI-RADS 4a", Meaning(birads="4A")),
        ("BIRADS5_malignant", Meaning(1, 1, birads="5")),
        ("benign", Meaning(1, 0)),
        ("Benign Masses", Meaning(1, 0)),
        ("CANCER", Meaning(1, 1)),
        ("breast cancer", Meaning(1, 1)),
        ("cancer_01", Meaning(1, 1)),
        ("normal", Meaning(0, 0)),
        ("tumor", Meaning(1, None)),
        ("malignant tumour", Meaning(1, 1)),
        # What is denied: no cancer may still be a benign lesion.
        ("non-cancer", Meaning(None, 0)),
        ("NonCancer", Meaning(None, 0)),
        ("noncancerous", Meaning(None, 0)),
        ("without cancer", Meaning(None, 0)),
        ("cancer-free", Meaning(None, 0)),
        ("cancer negative", Meaning(None, 0)),
        ("no breast cancer", Meaning(None, 0)),
        ("non malignant", Meaning(None, 0)),
        ("no_tumor", Meaning(0, 0)),
        ("NoTumour", Meaning(0, 0)),
        ("notumor", Meaning(0, 0)),
        ("tumor_free", Meaning(0, 0)),
        # A denial that is not of the lesion.
        ("benign_without_callback", Meaning(1, 0)),
        ("BENIGN WITHOUT CALLBACK", Meaning(1, 0)),
        ("BenignWithoutCallback", Meaning(1, 0)),
    ],
)
def test_name_is_understood(name: str, meaning: Meaning) -> None:
    assert read_name(name) == meaning


@pytest.mark.parametrize(
    "name",
    [
        "abnormal",  # holds `normal`
        "not normal",
        "non-benign",
        "no benign",
        "suspected cancer",
        "precancer",
        "not cancer free",
        "no calcification malignant mass",
        "benign_malignant",
        "normal cancer",
        "no lesions",
        "no",
        "negative",
        "positive",
        "Density12",
        "density5",
        "Density1Density2",
        "high density",
        "class 1",
        "0",
        "benign callback",
        "",
    ],
)
def test_name_that_is_not_plain_is_not_understood(name: str) -> None:
    assert read_name(name) is None


@pytest.mark.parametrize(
    ("name", "subset"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("TRAIN_SET", "train"),
        ("training-images", "train"),
        ("val", "val"),
        ("Valid", "val"),
        ("validation", "val"),
        ("testing", "test"),
        ("Test Data", "test"),
        ("latest", None),
        ("trained", None),
        ("benign", None),
    ],
)
def test_subset_folder_is_known_in_any_spelling(name: str, subset: str | None) -> None:
    assert subset_of(name) == subset


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("20586908.png", ("20586908", False, False)),
        ("20586908 (1).png", ("20586908", False, True)),
        ("mdb001_rot90.png", ("mdb001", True, False)),
        ("mdb001_rot90_flip_h.png", ("mdb001", True, False)),
        ("img-aug2.jpg", ("img", True, False)),
        ("x_flip.PNG", ("x", True, False)),
        ("X - Copy (2).png", ("x", True, True)),
        ("aug_3_mdb007.png", ("mdb007", True, False)),
        ("mdb001hflip.png", ("mdb001", True, False)),
        # No copies: a word that only begins or ends alike, a plain number, a name that is the word alone.
        ("carrot.png", ("carrot", False, False)),
        ("mdb001_2.png", ("mdb001_2", False, False)),
        ("copy.png", ("copy", False, False)),
        ("P_0001_LEFT_CC.dcm", ("p_0001_left_cc", False, False)),
    ],
)
def test_stem_is_what_copies_share(name: str, stem: tuple[str, bool, bool]) -> None:
    assert stem_of(name) == stem


def images(*relative: str) -> list[TreeImage]:
    return [TreeImage(Path(name), name, tuple(name.split("/")[:-1]), None) for name in relative]


def test_copies_are_one_patient_wherever_they_lie() -> None:
    persons, copies = guess_persons(images("a/20586908.png", "a/20586908 (1).png", "b/20586908_flip.png", "b/9.png"))
    assert [person.patient for person in persons] == ["20586908"] * 3 + ["b/9"]
    assert copies.groups == (("20586908", ("a/20586908.png", "a/20586908 (1).png", "b/20586908_flip.png")),)


def test_counts_begin_anew_in_every_folder() -> None:
    """`1.png` of two folders are two images, as are `img_001.png`; a film's name is one film."""
    persons, _ = guess_persons(
        images("a/1.png", "b/1.png", "a/img_001.png", "b/img_001.png", "a/mdb001.png", "b/mdb001.png")
    )
    assert [person.patient for person in persons] == ["a/1", "b/1", "a/img_001", "b/img_001", "mdb001", "mdb001"]


def test_numbers_in_brackets_without_a_stem_of_digits_are_a_plain_count() -> None:
    persons, copies = guess_persons(
        images("benign/benign (1).png", "benign/benign (2).png", "x/img-aug1.png", "x/img.png")
    )
    assert [person.patient for person in persons[:2]] == ["benign/benign (1)", "benign/benign (2)"]
    assert persons[2] == persons[3]
    assert copies.numbered == {"benign/benign (...)": 2}


def test_stem_of_most_of_a_folder_is_a_plain_count() -> None:
    persons, copies = guess_persons(images(*(f"a/set1 ({n}).png" for n in range(10))))
    assert len({person.patient for person in persons}) == 10
    assert copies.numbered == {"a/set1 (...)": 10}
