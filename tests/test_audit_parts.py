"""The parts of the audit: measures, hashes, tables and the page, with answers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from mammodet.audit.check_lesions import check_on_breast, check_origin, find_wrong_origin
from mammodet.audit.check_splits import check_malignant_share, check_single_images, homogeneity_p
from mammodet.audit.copies import find_copies, take_print
from mammodet.audit.facts import ImageFacts, LesionFacts, find_tissue_side, measure_image
from mammodet.audit.findings import AuditedImage, Finding, Item, is_mass, pathology, ranked
from mammodet.audit.inputs import LeftOut, Source, find_siblings
from mammodet.audit.page import choose_items, make_figures, write_audit_page
from mammodet.audit.result import Audit, Checked
from mammodet.audit.tables import cross_table, image_kind, lesion_sizes
from mammodet.audit.totals import TOTALS, check_totals
from mammodet.data.images import write_png
from mammodet.geometry import surround_contrast
from mammodet.records import Dataset, ImageRecord, Lesion
from mammodet.reporting.curves import to_svg

HOSTILE = "<script>alert(1)</script>"


def image(number=1, *, labels=None, patient="p", part="train", lesions=(), facts=None, is_own=True, **more):
    record = ImageRecord(
        number, f"{part}{number}.png", (100, 200), patient, labels=labels or {}, lesions=lesions, **more
    )
    return AuditedImage(record, facts or ImageFacts(), f"{part}.json", part, is_own, Path(record.file_name))


def lesion(box=(10.0, 20.0, 40.0, 30.0), category="lesion", **attributes):
    return Lesion(category, box, None, "box", attributes)


def test_contrast_is_the_disc_less_its_ring():
    pixels = np.zeros((9, 9), np.uint16)
    pixels[4, 4] = 100
    pixels[3, 4] = pixels[5, 4] = pixels[4, 3] = 20  # three of the four neighbours
    # Radius 0.6 holds the middle pixel alone, radius 1.2 its four neighbours as well: 100 - 60 / 4.
    assert surround_contrast(pixels, (4.5, 4.5), 0.6) == 85
    assert surround_contrast(pixels, (40.0, 4.5), 2) == 0


def test_tissue_side_is_where_the_breast_is_high():
    # Columns of 3, 2, 1 pixels: their centre of mass lies at 2/3, a third of the half width left of the middle.
    mask = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=bool)
    assert find_tissue_side(mask) == pytest.approx(-1)
    assert find_tissue_side(mask[:, ::-1]) == pytest.approx(1)
    assert find_tissue_side(np.pad(mask, ((0, 0), (90, 0)))) == pytest.approx(-1)  # wherever it lies
    assert find_tissue_side(np.ones((5, 8), dtype=bool)) == 0
    assert find_tissue_side(np.zeros((5, 8), dtype=bool)) == 0


def test_measures_of_a_file(tmp_path):
    pixels = np.zeros((40, 60), np.uint16)
    pixels[:, 30:] = 65535
    pixels[0, 0] = 1000
    write_png(tmp_path / "x.png", pixels)
    facts = measure_image(tmp_path / "x.png", ImageRecord(1, "x.png", (40, 60)))
    assert (facts.fault, facts.size_hw, facts.bits, facts.levels) == (None, (40, 60), 16, 3)
    assert facts.flat_share == 0.5
    assert facts.mean == pytest.approx(0.5, abs=1e-4)


def test_lesions_are_measured_at_the_mirrored_places(tmp_path):
    rows, columns = np.mgrid[:200, :200]
    breast = (columns / 120) ** 2 + ((rows - 100) / 95) ** 2 < 1  # half an ellipse on the left border
    pixels = np.where(breast, 90 + (rows + columns) % 3, 0).astype(np.uint8)
    pixels[40:50, 20:30] = 200
    write_png(tmp_path / "x.png", pixels)
    record = ImageRecord(1, "x.png", (200, 200), lesions=(lesion((20.0, 40.0, 30.0, 50.0)),))
    facts = measure_image(tmp_path / "x.png", record)
    [measured] = facts.lesions
    assert facts.tissue_side < -0.3
    assert measured.on_breast == {"here": 1, "flipped_y": 1, "flipped_x": 0, "turned": 0}
    assert measured.contrast["here"] > 90
    assert max(abs(measured.contrast[place]) for place in ("flipped_y", "flipped_x", "turned")) < 1


def placed(on_breast, contrast, *, number, kind):
    """An image with one lesion, and what was measured here and upside down."""
    facts = LesionFacts(
        {"here": on_breast[0], "flipped_y": on_breast[1], "flipped_x": 0, "turned": 0},
        {"here": contrast[0], "flipped_y": contrast[1], "flipped_x": -9, "turned": -9},
    )
    return image(number, lesions=(lesion(abnormality=kind),), facts=ImageFacts(lesions=(facts,)))


def test_origin_is_judged_by_a_sign_test_over_masses():
    def masses(right, wrong):
        good = [placed((1, 1), (30, 10), number=number, kind="mass") for number in range(right)]
        return good + [placed((1, 1), (10, 30), number=100 + number, kind="mass") for number in range(wrong)]

    assert find_wrong_origin(masses(0, 5)) is None  # too few to say
    # All of 6: one in 64. 9 of 12: 299 of 4096, which is chance. 10 of 12: 79 of 4096.
    assert find_wrong_origin(masses(0, 6)) == ("flipped_y", 6, 6, pytest.approx(1 / 64))
    assert find_wrong_origin(masses(3, 9)) is None
    assert find_wrong_origin(masses(2, 10)) == ("flipped_y", 10, 12, pytest.approx(79 / 4096))
    assert find_wrong_origin(masses(12, 0)) is None


def test_origin_without_masses_is_judged_by_the_breast_alone():
    def clusters(on_breast, contrast):
        return [placed(on_breast, contrast, number=number, kind="calcification") for number in range(8)]

    assert find_wrong_origin(clusters((1, 1), (0, 50))) is None
    assert find_wrong_origin(clusters((0, 1), (0, 0))) == ("flipped_y", 8, 8, pytest.approx(1 / 256))
    [finding] = check_origin(clusters((0, 1), (0, 0)))
    assert (finding.check, finding.severity) == ("y_origin", "error")
    assert check_on_breast(clusters((0, 1), (0, 0))) == []  # told by the origin already
    assert [one.check for one in check_on_breast(clusters((0, 0), (0, 0)))] == ["lesion_off_breast"]
    assert [one.check for one in check_on_breast(clusters((0.4, 0.4), (0, 0)))] == ["lesion_half_off_breast"]


def test_ignored_lesions_do_not_judge_the_origin():
    members = [placed((1, 1), (10, 30), number=number, kind="mass") for number in range(8)]
    ignored = [replace(one.record.lesions[0], ignore=True) for one in members]
    members = [
        replace(one, record=replace(one.record, lesions=(region,)))
        for one, region in zip(members, ignored, strict=True)
    ]
    assert find_wrong_origin(members) is None


def texture(seed, side=300):
    """A D-shaped breast with a cloudy texture of its own."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    inside = (columns / 0.8) ** 2 + ((rows - 0.5) / 0.47) ** 2 < 1
    clouds = cv2.resize(rng.random((40, 40)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.where(inside, 60 + 150 * clouds, 3).clip(0, 255).astype(np.uint8), inside


def test_films_of_one_shape_are_not_copies():
    prints = [take_print(*texture(seed)) for seed in range(12)]
    assert find_copies(prints, [str(number) for number in range(12)]) == []


def test_copies_are_told_with_how_they_differ():
    pixels, inside = texture(1)
    half = cv2.resize(pixels, (150, 110), interpolation=cv2.INTER_AREA)
    prints = [
        take_print(*texture(0)),
        take_print(pixels, inside),
        take_print(np.ascontiguousarray(half[:, ::-1]), inside[:, ::-1]),
        take_print(half, inside),
        None,
    ]
    found = [(copy.first, copy.second, copy.exact, copy.mirrored) for copy in find_copies(prints, [*"abcd", None])]
    assert found == [(1, 2, False, True), (1, 3, False, False), (2, 3, False, True)]


def test_equal_files_are_told_once_each_with_the_first():
    prints = [take_print(*texture(0))] * 4
    found = find_copies(prints, ["a", "a", "b", "a"])
    assert [(copy.first, copy.second, copy.exact) for copy in found] == [(0, 1, True), (0, 2, False), (0, 3, True)]


def test_homogeneity_is_pearsons_chi_square():
    # Expected 5 in each of four cells: chi-square = 4 * 25 / 5 = 20 with one degree of freedom.
    assert homogeneity_p([(10, 0), (0, 10)]) == pytest.approx(7.744e-6, rel=1e-3)
    assert homogeneity_p([(5, 5), (5, 5)]) == pytest.approx(1)
    assert homogeneity_p([(5, 5)]) is None
    assert homogeneity_p([(5, 0), (7, 0)]) is None


def test_malignant_share_that_differs_is_found():
    def part(name, yes, no):
        return [image(number, labels={"malignant": int(number < yes)}, part=name) for number in range(yes + no)]

    [finding] = check_malignant_share([*part("train", 10, 0), *part("test", 0, 10)])
    assert (finding.check, finding.severity) == ("malignant_share", "warning")
    assert finding.items[0].text == "train: 10 of 10 images are malignant (100 %)"
    assert check_malignant_share([*part("train", 10, 10), *part("test", 5, 5)]) == []


def some_images(images, lesions, unlocalized=0):
    """So many images, two to a patient, with so many lesions spread over them."""
    return [
        image(
            number,
            patient=f"p{number // 2}",
            unlocalized=number < unlocalized,
            lesions=tuple([lesion()] * (lesions // images + (number < lesions % images))),
        )
        for number in range(images)
    ]


def test_totals_that_fit_give_nothing():
    assert check_totals(some_images(322, 123), "mias", []) == []


def test_totals_explained_by_what_has_no_place_are_a_note():
    [finding] = check_totals(some_images(322, 117, unlocalized=6), "mias", [LeftOut("circle", "mdb212", "off")])
    assert finding.severity == "note"
    assert "lesions -6; 6 unlocalized images and 1 quarantined entry account for it" in finding.title
    assert "quarantined circle mdb212: off" in [item.text for item in finding.items]


def test_totals_not_explained_are_an_error():
    [finding] = check_totals(some_images(322, 116, unlocalized=6), "mias", [LeftOut("circle", "mdb212", "off")])
    assert finding.severity == "error"
    [finding] = check_totals(some_images(322, 130), "mias", [])  # too many is never explained
    assert finding.severity == "error"


def test_totals_without_lesions_compare_images_and_patients():
    [finding] = check_totals(some_images(230, 7), "inbreast", [])  # two to a patient: 115 patients, as there are
    assert "images -180;" in finding.title
    assert "lesions" not in finding.title


def test_totals_of_cbis_add_up():
    for kind in ("mass", "calc"):
        parts = [TOTALS[f"cbis_ddsm-{kind}-{part}"] for part in ("train", "test")]
        whole = TOTALS[f"cbis_ddsm-{kind}"]
        assert whole.lesions == sum(part.lesions for part in parts)
        assert whole.images == sum(part.images for part in parts)
    # 71 images are in both the mass and the calcification tables.
    assert TOTALS["cbis_ddsm-both"].images == 1592 + 1511 - 71


@pytest.mark.parametrize(
    ("name", "siblings"),
    [
        ("train", ["val", "test"]),
        ("test", ["train", "val"]),
        ("fold0_train", ["fold0_val", "test"]),
        ("fold1_val", ["fold1_train", "test"]),
        ("all", []),
        ("mine", []),
    ],
)
def test_siblings_are_the_other_subsets(tmp_path, name, siblings):
    for other in ("train", "val", "test", "all", "mine", "fold0_train", "fold0_val", "fold1_train", "fold1_val"):
        (tmp_path / f"{other}.json").touch()
    assert [path.stem for path in find_siblings(tmp_path / f"{name}.json")] == siblings


def test_words_of_archives_are_understood():
    assert pathology(lesion(pathology="BENIGN_WITHOUT_CALLBACK")) == "benign"
    assert pathology(lesion(pathology="Malignant")) == "malignant"
    assert pathology(lesion(pathology="")) is None
    assert is_mass(lesion(abnormality="spiculated_mass"))
    assert is_mass(lesion())
    assert not is_mass(lesion(abnormality="calcification", category="mass"))
    assert image_kind(image(labels={"tumor": 1, "malignant": None}).record) == "not known"


def test_cross_table_joins_rare_rows():
    pairs = [("a", "x")] * 3 + [("b", "x")] * 2 + [("c", "x"), ("d", "y")]
    assert cross_table(pairs, rows=3) == {"a": {"x": 3}, "b": {"x": 2}, "other": {"x": 1, "y": 1}}


def test_lesion_sizes_are_mm_only_where_every_image_has_a_spacing():
    known = image(1, lesions=(lesion(),), spacing_mm_rc=(0.5, 0.1))
    # 30 px wide at 0.1 mm, 10 px high at 0.5 mm
    assert lesion_sizes([known]) == ([(5.0, "not known")], "mm")
    sizes, unit = lesion_sizes([known, image(2, lesions=(lesion(),))])
    assert (sizes, unit) == ([(30.0, "not known")] * 2, "px")


def finding_of(check, severity, *items):
    return Finding(check, severity, f"title of {check}", "expected", "advice", items)


def test_findings_are_ranked_by_severity():
    findings = [finding_of("a", "note"), finding_of("b", "error"), finding_of("c", "warning"), finding_of("d", "error")]
    assert [finding.check for finding in ranked(findings)] == ["b", "d", "c", "a"]


def test_gallery_gives_every_finding_its_turn():
    seen = [image(number, facts=ImageFacts(levels=9)) for number in range(30)]
    many = finding_of("many", "error", *(Item("x", (one,)) for one in seen))
    pair = finding_of("pair", "warning", Item("y", tuple(seen[:2])), Item("z", tuple(seen[2:4])))
    gone = finding_of("gone", "error", Item("w", (image(99, facts=ImageFacts(fault="no such image")),)))
    noted = finding_of("noted", "note", Item("v", (seen[0],)))
    chosen = [(finding.check, item.text) for finding, item in choose_items([many, pair, gone, noted], 7)]
    assert chosen == [("many", "x")] * 3 + [("pair", "y"), ("pair", "z")]


def audit_of(findings, images):
    source = Source(Path(HOSTILE), HOSTILE, Dataset(("lesion",), tuple(one.record for one in images)), is_own=True)
    return Audit(tuple(findings), (Checked(HOSTILE, findings),), tuple(images), (source,))


def test_page_escapes_what_a_file_says_and_draws_its_suspects(tmp_path):
    rng = np.random.default_rng(0)
    write_png(tmp_path / "train1.png", rng.integers(0, 256, (100, 200), dtype=np.uint8))
    facts = ImageFacts(size_hw=(100, 200), bits=8, levels=256, lesions=(LesionFacts({}, {}),))
    record = image(1, labels={"tumor": 1}, patient=HOSTILE, lesions=(lesion(shape=HOSTILE),), view=HOSTILE).record
    suspect = AuditedImage(record, facts, "train.json", "train", True, tmp_path / "train1.png")
    finding = finding_of(HOSTILE, "error", Item(HOSTILE, (suspect,), ((HOSTILE, (0.0, 0.0, 9.0, 9.0)),)))
    path = tmp_path / "index.html"
    write_audit_page(path, audit_of([finding], [suspect]), command=f"python {HOSTILE}")
    page = path.read_text(encoding="utf-8")
    assert "<script" not in page
    assert page.count("data:image/jpeg;base64,") == 1
    assert "&lt;script&gt;" in page


def test_page_of_images_that_cannot_be_read_is_made(tmp_path):
    gone = image(1, facts=ImageFacts(fault="no such image", is_missing=True))
    finding = finding_of("missing_image", "error", Item("gone", (gone,)))
    write_audit_page(tmp_path / "x.html", audit_of([finding], [gone]))
    assert "title of missing_image" in (tmp_path / "x.html").read_text(encoding="utf-8")


def test_figures_show_what_the_attributes_hold():
    facts = ImageFacts(size_hw=(100, 200), bits=16, levels=999, breast_mean=0.4)
    first = lesion(
        subtlety=4, shape="OVAL", margins="SPICULATED", assessment=5, pathology="MALIGNANT", abnormality="mass"
    )
    members = [
        image(1, labels={"tumor": 1, "malignant": 1}, lesions=(first,), facts=facts, view="CC", density="2"),
        image(2, labels={"tumor": 0, "malignant": 0}, facts=facts, view="MLO", density="3"),
    ]
    text = "".join(to_svg(figure) for figure in make_figures(members))
    for word in ("View", "Breast density", "Subtlety", "Shape", "Margins", "Assessment", "Size of lesions", "OVAL (1)"):
        assert word in text
    assert "px: not every image has a spacing" in text


def test_audit_warns_where_every_image_is_a_patient():
    images = [image(1, patient="a"), image(2, patient="b"), image(3, patient="c", part="test", is_own=False)]
    (finding,) = check_single_images(images)
    assert (finding.check, finding.severity) == ("single_images", "warning")
    assert finding.title == "every one of 3 images is a patient of its own"
    assert check_single_images([*images, image(4, patient="c", part="test")]) == []
    assert check_single_images([image(1, patient=None), image(2, patient=None)]) == []
    assert check_single_images(images[:1]) == []


def test_document_names_every_finding():
    root = Path(__file__).parent.parent
    words = yaml.safe_load((root / "mammodet/audit/findings.yaml").read_text(encoding="utf-8"))
    page = (root / "docs/audit.md").read_text(encoding="utf-8")
    assert [name for name in words if f"`{words[name].get('name', name)}`" not in page] == []
    assert {each["severity"] for each in words.values()} == {"error", "warning", "note"}
