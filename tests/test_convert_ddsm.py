"""DDSM from phantoms with the quirks of the real archive, LJPEG among them; answers by hand."""

from __future__ import annotations

import numpy as np
import pytest
from small_archives import HIGH, WIDE, abnormality, breast, lost, run, write_ddsm_case
from small_dicom import jpeg_baseline, jpeg_lossless

from mammodet.commands.convert import main
from mammodet.converters import ddsm
from mammodet.converters.ddsm import read_overlay
from mammodet.converters.ljpeg import read_ljpeg
from mammodet.converters.pixels import PixelOptions
from mammodet.data.images import read_image, write_png
from mammodet.errors import InputError
from mammodet.geometry import rle_area

PNG16 = PixelOptions("png16")


def test_ddsm_chain_codes_become_outlines(tmp_path):
    mass = abnormality(1, "MASS SHAPE IRREGULAR MARGINS SPICULATED", "MALIGNANT", 10, 30, 19)
    spots = abnormality(2, "CALCIFICATION TYPE PLEOMORPHIC DISTRIBUTION CLUSTERED", "BENIGN", 5, 70, 4)
    source = tmp_path / "in"
    overlays = {"LEFT_CC": "TOTAL_ABNORMALITIES 2\n" + mass + spots, "RIGHT_CC": "TOTAL_ABNORMALITIES 2\n" + mass}
    write_ddsm_case(source / "cancers/cancer_01/case1141", "A_1141_1", overlays, missing="RIGHT_MLO")
    write_ddsm_case(source / "normals/normal_01/case0002", "B_0002_1", {})
    (source / "normals" / "C_0003_1.LEFT_CC.LJPEG").write_bytes(b"x")
    summary, records = run(ddsm, source, tmp_path / "out", ddsm.DdsmOptions)
    found, ignored = records["A_1141_1.LEFT_CC"].lesions
    # 20 x 20 pixels with the outer ones, which the code walks on
    assert (found.box_xyxy, rle_area(found.rle), found.geometry) == ((10, 30, 30, 50), 400, "contour")
    assert (found.attributes["pathology"], found.ignore, ignored.ignore) == ("malignant", False, True)
    labels = {name: (*record.labels.values(), record.unlocalized) for name, record in records.items()}
    assert labels == {
        "A_1141_1.LEFT_CC": (1, 1, False),
        "A_1141_1.LEFT_MLO": (None, None, True),  # nothing is marked on a view of a case with cancer
        "A_1141_1.RIGHT_CC": (None, None, True),  # two abnormalities are announced, one is there
        "A_1141_1.RIGHT_MLO": (None, None, True),  # its overlay is missing
        **{f"B_0002_1.{place}": (0, 0, False) for place in ("LEFT_CC", "LEFT_MLO", "RIGHT_CC", "RIGHT_MLO")},
    }
    assert sorted(lost(summary)) == [
        ("no_file", "overlay", "A_1141_1.RIGHT_MLO"),
        ("unreadable", "image", "c_0003_1.left_cc"),
        ("unreadable", "overlay", "A_1141_1.RIGHT_CC"),
    ]
    record = records["B_0002_1.RIGHT_MLO"]
    assert (record.patient_id, record.laterality, record.view, record.density) == ("ddsm_B_0002_1", "R", "MLO", "C")
    assert record.notes == ("age 60", "digitizer LUMISYS LASER")


def test_ddsm_folder_above_the_source_makes_no_film_normal(tmp_path):
    source = tmp_path / "normal_controls" / "DDSM"
    write_ddsm_case(source / "cancers/cancer_01", "A_1141_1", {})
    _, records = run(ddsm, source, tmp_path / "out", ddsm.DdsmOptions)
    assert {*(tuple(record.labels.values()) for record in records.values())} == {(None, None)}


@pytest.mark.parametrize(
    ("old", "new"), [(" #\n\tCORE", "\n\tCORE"), ("10 30", f"10 {'3' * 400}"), (" 2 2 2", " 2 -1 2")]
)
def test_ddsm_damaged_boundary_is_refused(tmp_path, old, new):
    text = "TOTAL_ABNORMALITIES 1\n" + abnormality(1, "MASS SHAPE OVAL MARGINS N/A", "BENIGN", 10, 30, 4)
    write_ddsm_case(tmp_path / "in/c", "A_1141_1", {"LEFT_CC": text.replace(old, new, 1)})
    summary, records = run(ddsm, tmp_path / "in", tmp_path / "out", ddsm.DdsmOptions)
    assert lost(summary) == [("unreadable", "overlay", "A_1141_1.LEFT_CC")]
    assert (records["A_1141_1.LEFT_CC"].lesions, records["A_1141_1.LEFT_CC"].unlocalized) == ((), True)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ("ARCHITECTURAL_DISTORTION", "architectural_distortion"),
        ("FOCAL_ASYMMETRIC_DENSITY", "asymmetry"),
        ("LYMPH_NODE", "other"),
        ("IRREGULAR-ARCHITECTURAL_DISTORTION", "mass"),
        ("N/A", "mass"),
    ],
)
def test_ddsm_shapes_say_what_is_no_mass(tmp_path, shape, kind):
    text = "TOTAL_ABNORMALITIES 1\n" + abnormality(1, f"MASS SHAPE {shape} MARGINS N/A", "UNPROVEN", 3, 4, 2)
    (tmp_path / "a.OVERLAY").write_text(text)
    ((finding,), (fact,)) = read_overlay(tmp_path / "a.OVERLAY")
    assert (finding.kind, fact["pathology"]) == (kind, None)


# LJPEG


def film(bits: int) -> np.ndarray:
    """Values of all of a scanner's bits, whose differences have every number of bits."""
    rng = np.random.default_rng(bits)
    values = rng.integers(0, 1 << bits, (HIGH, WIDE), dtype=np.uint16)
    values[20:] = breast(bits)[20:]
    return values


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize(("bits", "precision"), [(12, 12), (12, 16), (16, 16)])
def test_ljpeg_is_summed_as_its_coder_sums(tmp_path, bits, precision, predictor):
    values = film(bits)
    (tmp_path / "a.LJPEG").write_bytes(jpeg_lossless(values, precision, predictor=predictor, pvrg=True))
    assert np.array_equal(read_ljpeg(tmp_path / "a.LJPEG"), values)


def test_ljpeg_of_a_first_row_by_hand(tmp_path):
    """Differences 0, 1, 2 to the row of 2048 above and 5 below: other decoders predict the first row from the left."""
    values = np.array([[2048, 2049, 2050], [2053, 2054, 2055]], np.uint16)
    stream = jpeg_lossless(values, 12, predictor=2, pvrg=True)
    # categories 0, 1, 2, 3, 3, 3 in five bits, each with its value in as many bits
    bits = "00000" + "00001" + "1" + "00010" + "10" + 3 * ("00011" + "101")
    assert stream[-2 - 6 : -2] == int(bits + "1" * (-len(bits) % 8), 2).to_bytes(6, "big")
    (tmp_path / "a.LJPEG").write_bytes(stream)
    assert read_ljpeg(tmp_path / "a.LJPEG").tolist() == values.tolist()


STREAM = jpeg_lossless(film(12), 12, predictor=7, pvrg=True)
SCAN = STREAM.index(b"\xff\xda")


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"", "is damaged or no LJPEG"),
        (STREAM[: len(STREAM) // 2], "is cut short"),
        (STREAM[: len(STREAM) // 2] + b"\xff\xd9", "does not hold all pixels"),
        (STREAM[:-8] + b"\xff\xd9", "does not hold all pixels"),
        (jpeg_baseline(breast().astype(np.uint8)), "frame type C0 of 8 bits"),
        (STREAM[: SCAN + 7] + b"\0" + STREAM[SCAN + 8 :], "predictor 0, point transform 0"),
        (STREAM[: SCAN + 9] + b"\2" + STREAM[SCAN + 10 :], "predictor 7, point transform 2"),
        (STREAM[:2] + b"\xff\xdd\0\4\0\x50" + STREAM[2:], "its restart interval 80"),
        (STREAM[:7] + b"\xff\xff\xff\xff" + STREAM[11:], r"states \(65535, 65535\) pixels"),
        (STREAM[:7] + b"\x1f\x40\x1f\x40" + STREAM[11:], "cannot hold the 64000000 pixels"),
        (jpeg_lossless(film(16), 12, predictor=1, pvrg=True), "12 bits are stated"),
    ],
)
def test_ljpeg_that_is_damaged_or_of_another_coder_is_refused(tmp_path, stream, reason):
    (tmp_path / "a.LJPEG").write_bytes(stream)
    with pytest.raises(InputError, match=rf"a\.LJPEG: .*{reason}"):
        read_ljpeg(tmp_path / "a.LJPEG")


def test_ljpeg_that_is_missing_or_too_large_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.LJPEG").write_bytes(STREAM)
    monkeypatch.setattr("mammodet.converters.ljpeg.MOST_FILE_BYTES", len(STREAM) - 1)
    for name, reason in (("a", "bytes; expected an image of at most"), ("b", "cannot be read")):
        with pytest.raises(InputError, match=reason):
            read_ljpeg(tmp_path / f"{name}.LJPEG")


# Optical densities of the archive's pages on calibration, to pixels by 65535 * (1 - density / 4), by hand
GREY = [
    ("A_0001_1", "DBA 21", 16, 10000, 53248),  # (4 - 4.80662) / -1.07553 = 0.749974
    ("B_0001_1", "LUMISYS LASER", 12, 2079, 32768),  # (2079 - 4096.99) / -1009.01 = 1.999970
    ("C_0001_1", "LUMISYS", 12, 40, 0),  # 4.0208: beyond black
    ("A_0001_1", "HOWTEK", 12, 1000, 18951),  # 3.789 - 0.94568 = 2.843320
    ("D_0001_1", "HOWTEK 960", 12, 1000, 16785),  # 3.966041 - 0.990558 = 2.975483
    ("D_0001_1", "HOWTEK 960", 12, 4095, 65535),  # -0.0903: beyond white
]


@pytest.mark.parametrize(("case", "digitizer", "bits", "value", "grey"), GREY)
def test_ddsm_ljpeg_becomes_the_optical_density_of_its_scanner(tmp_path, case, digitizer, bits, value, grey):
    values = np.full((HIGH, WIDE), value, np.uint16)
    stream = jpeg_lossless(values, 16, predictor=7, pvrg=True)
    packed = {"LEFT_CC": stream}
    source = write_ddsm_case(tmp_path / "in/normal_01", case, {}, packed=packed, digitizer=digitizer, bits=bits)
    for kind, expected in (("density", grey), ("stored", round(value * 65535 / (2**bits - 1)))):
        _, records = run(ddsm, source, tmp_path / kind, ddsm.DdsmOptions, pixels=PNG16, grey=kind)
        assert records[f"{case}.LEFT_CC"].size_hw == (HIGH, WIDE)
        assert np.unique(read_image(tmp_path / kind / f"images/{case}.LEFT_CC.png")).tolist() == [expected]


def test_ddsm_ljpeg_has_outlines_and_goes_before_its_copy(tmp_path):
    text = "TOTAL_ABNORMALITIES 1\n" + abnormality(1, "MASS SHAPE OVAL MARGINS N/A", "MALIGNANT", 10, 30, 19)
    packed = {"LEFT_CC": jpeg_lossless(film(12), 12, predictor=5, pvrg=True)}
    source = write_ddsm_case(tmp_path / "in", "B_1141_1", {"LEFT_CC": text}, packed=packed)
    for place in ("LEFT_CC", "RIGHT_CC"):
        write_png(source / f"B_1141_1.{place}.LJPEG.png", breast())
    summary, records = run(ddsm, source, tmp_path / "out", ddsm.DdsmOptions, pixels=PNG16, grey="stored")
    (lesion,) = records["B_1141_1.LEFT_CC"].lesions
    assert (lesion.box_xyxy, records["B_1141_1.LEFT_CC"].label("malignant")) == ((10, 30, 30, 50), 1)
    pixels = read_image(tmp_path / "out/images/B_1141_1.LEFT_CC.png")
    assert np.array_equal(pixels, np.round(film(12) * (65535 / 4095)).astype(np.uint16))
    assert summary.counts["image files"] == {"ljpeg": 1, "png": 1}
    assert [text for text in summary.warnings if "LJPEG" in text]


def test_ddsm_ljpeg_of_another_width_has_the_rows_of_the_ics_file(tmp_path):
    """Public readers do so: some streams have the pixels of their film in rows of another length."""
    packed = {
        "LEFT_CC": jpeg_lossless(film(12).reshape(WIDE, HIGH), 12, predictor=7, pvrg=True),
        "LEFT_MLO": jpeg_lossless(film(12)[:-1], 12, predictor=7, pvrg=True),
    }
    text = "TOTAL_ABNORMALITIES 1\n" + abnormality(1, "MASS SHAPE OVAL MARGINS N/A", "BENIGN", 10, 30, 19)
    source = write_ddsm_case(tmp_path / "in", "C_0001_1", {"LEFT_MLO": text}, packed=packed)
    summary, records = run(ddsm, source, tmp_path / "out", ddsm.DdsmOptions, pixels=PNG16, grey="stored")
    pixels = read_image(tmp_path / "out/images/C_0001_1.LEFT_CC.png")
    assert np.array_equal(pixels, np.round(film(12) * (65535 / 4095)).astype(np.uint16))
    assert records["C_0001_1.LEFT_MLO"].unlocalized
    assert lost(summary) == [("other_size", "finding", "C_0001_1.LEFT_MLO (abnormality 1)")]


def test_ddsm_ljpeg_that_cannot_be_read_rightly_is_quarantined(tmp_path):
    """A scanner that is not known, values of more bits than stated, a stream that was cut, no .ics file."""
    whole = jpeg_lossless(film(12), 12, predictor=7, pvrg=True)
    source = tmp_path / "in"
    write_ddsm_case(source / "a", "B_0001_1", {}, packed={"LEFT_CC": whole, "RIGHT_CC": whole[:999] + b"\xff\xd9"})
    write_ddsm_case(source / "b", "B_0002_1", {}, packed={"LEFT_CC": whole}, digitizer="HOWTEK")
    write_ddsm_case(source / "c", "B_0003_1", {}, packed={"LEFT_CC": whole}, bits=11)
    write_ddsm_case(source / "d", "B_0004_1", {}, packed={"LEFT_CC": whole})
    (source / "d" / "B-0004-1.ics").unlink()
    summary, records = run(ddsm, source, tmp_path / "out", ddsm.DdsmOptions, pixels=PNG16)
    assert list(records) == ["B_0001_1.LEFT_CC"]
    reasons = {item.name: item.reason for item in summary.quarantine if item.what == "image"}
    assert "cannot hold the 9600 pixels" in reasons["B_0001_1.RIGHT_CC"]
    assert "'HOWTEK B'" in reasons["B_0002_1.LEFT_CC"]
    assert "says 11 bits" in reasons["B_0003_1.LEFT_CC"]
    assert "says nothing" in reasons["B_0004_1.LEFT_CC"]


def test_ddsm_ljpeg_needs_png16(tmp_path):
    source = write_ddsm_case(tmp_path / "in", "B_0001_1", {}, packed={"LEFT_CC": STREAM})
    with pytest.raises(InputError, match="--format png16"):
        run(ddsm, source, tmp_path / "out", ddsm.DdsmOptions)
    write_png(source / "B_0001_1.RIGHT_CC.png", breast())
    summary, records = run(ddsm, source, tmp_path / "out", ddsm.DdsmOptions)
    assert list(records) == ["B_0001_1.RIGHT_CC"]
    assert lost(summary) == [("unreadable", "image", "b_0001_1.left_cc")]
    flags = ["--source", str(source), "--output", str(tmp_path / "png"), "--format", "png16", "--grey", "stored"]
    assert main(["ddsm", *flags]) == 0
