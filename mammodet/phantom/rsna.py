"""A small archive of synthetic mammograms in the layout of the RSNA screening archive: `train.csv`, DICOM files.

The files vary as the real ones do (JPEG 2000 lossless, JPEG lossless, uncompressed; MONOCHROME1 and 2; windows LINEAR,
LINEAR_EXACT and SIGMOID, single and several); which device has which is invented. Nothing comes from a real patient.
The archive depends on the seed and the options, not on the number of processes.
"""

import csv
import hashlib
import io
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1

from mammodet.errors import InputError
from mammodet.files import csv_text, write_bytes, write_text
from mammodet.phantom import RsnaPhantom
from mammodet.phantom.archive import draw_all, make_room
from mammodet.phantom.breast import Breast, Image, add_centred, draw_breast, draw_shape
from mammodet.phantom.lesions import DIFFICULTIES, SUBTLE, choose_place, draw_mass

COLUMNS = (
    *("site_id", "patient_id", "image_id", "laterality", "view", "age", "cancer", "biopsy", "invasive", "BIRADS"),
    *("implant", "density", "machine_id", "difficult_negative_case"),
)
TEST_COLUMNS = ("site_id", "patient_id", "image_id", "laterality", "view", "age", "implant", "machine_id")
_FIRST_PATIENT = 70001
_FIRST_MACHINE = 60
_MAMMOGRAM = "1.2.840.10008.5.1.4.1.1.1.2"  # Digital Mammography X-Ray Image Storage - For Presentation
_KINDS = ("CIRC", "SPIC", "MISC", "CALC")


@dataclass(frozen=True, slots=True)
class Device:
    """How a machine stores its images: site, transfer syntax, photometric interpretation, bits, window, its number of
    windows, whether headers name side and view, and the pixel spacing that they state, in mm."""

    site: int
    syntax: UID
    photometric: str
    bits: int
    function: str | None
    windows: int
    named: bool
    spacing_mm: float | None


DEVICES = (
    Device(1, JPEG2000Lossless, "MONOCHROME2", 12, "LINEAR", 3, True, 0.065),
    Device(2, JPEGLosslessSV1, "MONOCHROME1", 12, "SIGMOID", 1, True, 0.07),
    Device(1, JPEG2000Lossless, "MONOCHROME1", 14, "LINEAR_EXACT", 1, False, None),
    Device(2, ExplicitVRLittleEndian, "MONOCHROME2", 16, "SIGMOID", 2, True, 0.1),
    Device(1, ExplicitVRLittleEndian, "MONOCHROME1", 12, None, 2, False, 0.07),
    Device(2, JPEG2000Lossless, "MONOCHROME2", 16, None, 0, True, 0.05),
)


@dataclass(frozen=True, slots=True)
class RsnaPhantomSummary:
    """What the training part of an archive holds: the answers that a converter of it must find."""

    images: int  #: rows of train.csv
    patients: int  #: women
    positives: int  #: rows with cancer 1
    #: syntaxes, photometrics: transfer syntax UID, photometric interpretation to the number of rows.
    syntaxes: dict[str, int]
    photometrics: dict[str, int]
    quirks: dict[str, str]  #: quirk to the file (`70001/7000100.dcm`) that shows it; every requested quirk is a key

    def to_text(self) -> str:
        """A few lines for the terminal."""
        quirks = [f"  {name}: {file}" for name, file in self.quirks.items()]
        return "\n".join([f"{self.images} images of {self.patients} patients, {self.positives} with cancer", *quirks])


def write_rsna_archive(output: Path, *, progress: bool = True, **options: Any) -> RsnaPhantomSummary:
    """Write a synthetic archive into a new or empty folder, or in place of an older one; `options` of `RsnaPhantom`.

    Raises InputError: an option is out of range, the table is not of this form, or the folder holds something else.
    """
    chosen = RsnaPhantom(**options)
    names, seed, patients, table = chosen.placed, chosen.seed, chosen.patients, chosen.table
    # Before anything is cleared: a wrong table must not cost an older archive, and it may lie in it.
    train = _read_rows(table, chosen.limit) if table is not None else _plan(patients, chosen.positive_fraction, seed)
    test = [] if table is not None else _plan(1, 0.0, seed + 1, first=_FIRST_PATIENT + patients)
    shown = {name: train[(2 + 3 * number) % len(train)] for number, name in enumerate(sorted(names))}
    own = ("train.csv", "test.csv", "train_images", "test_images")
    make_room(output, own, "the RSNA screening mammography archive")
    lone = shown.get("missing_row")
    rows = [row for row in train if row is not lone]
    write_text(output / "train.csv", csv_text([COLUMNS, *([row[name] for name in COLUMNS] for row in rows)]))
    parts = [("train_images", row, frozenset(name for name in names if shown[name] is row)) for row in train]
    if test:
        named = ([row[name] for name in TEST_COLUMNS] for row in test)
        write_text(output / "test.csv", csv_text([TEST_COLUMNS, *named]))
        parts += [("test_images", row, frozenset()) for row in test]
    tasks = [(output / part, row, how, seed, chosen.size, chosen.difficulty) for part, row, how in parts]
    draw_all(_write_image, tasks, jobs=chosen.jobs, progress=progress)
    return RsnaPhantomSummary(
        images=len(rows),
        patients=len({row["patient_id"] for row in rows}),
        positives=sum(row["cancer"] == "1" for row in rows),
        syntaxes=dict(Counter(str(_device(row).syntax) for row in rows)),
        photometrics=dict(Counter(_device(row).photometric for row in rows)),
        quirks={name: f"{row['patient_id']}/{row['image_id']}.dcm" for name, row in shown.items()},
    )


def _plan(patients: int, positive_fraction: float, seed: int, first: int = _FIRST_PATIENT) -> list[dict[str, str]]:
    """Rows of a table, as the archive writes them: `61.0`, blanks, `True`."""
    order = np.random.default_rng([seed, 41]).permutation(patients)
    with_cancer = set(order[: max(round(positive_fraction * patients), 1 if positive_fraction else 0)].tolist())
    rows: list[dict[str, str]] = []
    for number in range(patients):
        rng = np.random.default_rng([seed, number, 42])
        # In turn, so that six women show all devices.
        place = number % len(DEVICES)
        site, patient = DEVICES[place].site, first + number
        sick = str(rng.choice(["L", "R"])) if number in with_cancer else None
        common = {
            "site_id": str(site),
            "patient_id": str(patient),
            "age": "" if rng.random() < 0.1 else f"{rng.integers(40, 85)}.0",
            "implant": str(int(rng.random() < 0.03)),
            "density": "" if site == 2 else str(rng.choice(["A", "B", "C", "D"])),
            "machine_id": str(_FIRST_MACHINE + place),
        }
        views = [(side, view) for side in "LR" for view in ("CC", "MLO")]
        if number % 4 == 3:
            views.append((str(rng.choice(["L", "R"])), ("AT", "LM", "ML", "LMO", "CC")[number // 4 % 5]))
        findings = {side: _findings(rng, site, sick == side) for side in "LR"}
        for position, (side, view) in enumerate(views):
            own = {"image_id": str(100 * patient + position), "laterality": side, "view": view}
            rows.append(common | findings[side] | own)
    return rows


def _findings(rng: np.random.Generator, site: int, cancer: bool) -> dict[str, str]:
    """What the table says of one breast."""
    birads = "0.0" if cancer else f"{rng.choice([0, 1, 2], p=[0.25, 0.6, 0.15])}.0"
    recalled = birads == "0.0" and not cancer
    return {
        "cancer": str(int(cancer)),
        "biopsy": str(int(cancer or (recalled and rng.random() < 0.3))),
        "invasive": str(int(cancer and rng.random() < 0.7)),
        "BIRADS": birads if site == 1 else "",
        "difficult_negative_case": str(recalled),
    }


def _read_rows(table: Path, limit: int | None) -> list[dict[str, str]]:
    """Rows of a table of the archive's form, woman after woman in an order that a hash gives, as many as asked for."""
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise InputError(f"{table}: column {', '.join(missing)} missing; expected a table like train.csv")
            rows = [{name: (row[name] or "").strip() for name in COLUMNS} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read as a table ({error})") from None
    bad = next((row for row in rows if not (row["patient_id"].isdecimal() and row["image_id"].isdecimal())), None)
    if bad is not None or not rows:
        raise InputError(f"{table}: expected rows with whole numbers for patient_id and image_id; found {bad}")
    rows.sort(key=lambda row: hashlib.sha256(row["patient_id"].encode()).hexdigest())
    return rows[:limit]


def _device(row: Mapping[str, str]) -> Device:
    machine = row["machine_id"].removesuffix(".0")
    return DEVICES[int(machine) % len(DEVICES) if machine.isdecimal() else 0]


def _write_image(
    folder: Path, row: Mapping[str, str], quirks: frozenset[str], seed: int, size: int, difficulty: str
) -> None:
    if "missing_image" in quirks:
        return
    level = draw_image(row, seed=seed, size=size, difficulty=difficulty)
    content = dicom_bytes(level, row, contradict="contradiction" in quirks)
    if "truncated_image" in quirks:
        content = content[: len(content) * 6 // 10]
    if "damaged_image" in quirks:
        content = b"no picture" * 100
    write_bytes(folder / row["patient_id"] / f"{row['image_id']}.dcm", content)


def draw_image(row: Mapping[str, str], *, seed: int, size: int, difficulty: str = "realistic") -> Image:
    """The picture of a row, float32 (size, 0.8 size) in [0, 1], tissue bright, 0 around it.

    A cancer is seen on nine of ten views of its breast: the label is the breast's. BI-RADS 2 shows a benign mass.
    """
    side, view = row["laterality"], row["view"]
    key = [seed, int(row["patient_id"]), side == "L"]
    shape = draw_shape(np.random.default_rng([*key, 43]))
    rng = np.random.default_rng([*key, int(row["image_id"]), 44])
    if view in ("CC", "AT"):
        shape = shape.from_above()
    level = DIFFICULTIES[difficulty]
    drawn = max(size, 128)  # a breast of fewer pixels has no room for its parts
    density = {"A": "F", "D": "D"}.get(row["density"], "G")
    breast = draw_breast(rng, drawn, side, density, shape, level.clutter)
    image = breast.image.copy()
    benign = row["BIRADS"].startswith("2")
    if benign or (row["cancer"] == "1" and rng.random() < 0.9):
        kind = "CIRC" if benign else str(rng.choice(_KINDS))
        free = breast.tissue & ~breast.muscle
        place_row, column, radius = choose_place(rng, kind, free, breast.gland, max(level.smallest, 0.02))
        contrast = rng.uniform(*(SUBTLE if rng.random() < level.subtle_fraction else level.contrast))
        add_centred(image, draw_mass(rng, kind, radius, contrast).added, (place_row, column))
    image += 0.006 * rng.standard_normal(image.shape, dtype=np.float32) * breast.tissue
    cut: NDArray[Any] = _detector_columns(image, breast)
    if drawn != size:
        cut = cv2.resize(cut, (round(0.8 * size), size), interpolation=cv2.INTER_AREA)
    return np.asarray(np.clip(cut, 0, 1), dtype=np.float32)


def _detector_columns(image: Image, breast: Breast) -> Image:
    """What lies on a detector of four fifths of the height, from the chest wall on."""
    size = image.shape[0]
    first, stop = breast.film_columns
    width = round(0.8 * size)
    if breast.laterality == "L":
        part = image[:, first : first + width]
        return np.pad(part, ((0, 0), (0, width - part.shape[1])))
    part = image[:, max(stop - width, 0) : stop]
    return np.pad(part, ((0, 0), (width - part.shape[1], 0)))


def dicom_bytes(level: Image, row: Mapping[str, str], *, contradict: bool = False) -> bytes:
    """A DICOM file of a picture in [0, 1], as the row's device would store it."""
    device = _device(row)
    top = (1 << device.bits) - 1
    stored = np.floor(level * (0.8 * top) + 0.5).astype(np.uint16)
    center = 0.42 * top
    if device.photometric == "MONOCHROME1":
        # The window's middle is not that of the stored values, so that inverting before it would be seen.
        stored, center = (top - stored).astype(np.uint16), top - center
    data = Dataset()
    data.SOPClassUID = _MAMMOGRAM
    data.StudyInstanceUID = f"1.2.826.0.1.3680043.9.7777.{row['patient_id']}"
    data.SOPInstanceUID = f"{data.StudyInstanceUID}.{row['image_id']}"
    data.SeriesInstanceUID = f"{data.SOPInstanceUID}.1"
    data.Modality = "MG"
    data.PatientID = row["patient_id"]
    if device.named or contradict:
        side, view = row["laterality"], row["view"]
        data.ImageLaterality = {"L": "R", "R": "L"}[side] if contradict else side
        data.ViewPosition = {"CC": "MLO"}.get(view, "CC") if contradict else view
    if device.spacing_mm is not None:
        data.ImagerPixelSpacing = [device.spacing_mm, device.spacing_mm]
    if device.windows:
        factors = (1.0, 0.75, 1.3)[: device.windows]
        data.WindowCenter = [f"{center:.1f}"] * device.windows
        data.WindowWidth = [f"{0.7 * top * factor:.1f}" for factor in factors]
        data.WindowCenterWidthExplanation = ["NORMAL", "HARDER", "SOFTER"][: device.windows]
        if device.function is not None:
            data.VOILUTFunction = device.function
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, device.photometric, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, device.bits, device.bits - 1
    # A phantom that leaves its folder still says what it is.
    data.private_block(0x0013, "CTP", create=True).add_new(0x10, "LO", "SYNTHETIC")
    return _encoded(data, stored, device)


def _encoded(data: Dataset, stored: NDArray[np.uint16], device: Device) -> bytes:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = device.syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    if device.syntax == JPEG2000Lossless:
        data.compress(JPEG2000Lossless, stored, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    elif device.syntax == JPEGLosslessSV1:
        data.PixelData = encapsulate([encode_jpeg_lossless(stored, device.bits)])
        data["PixelData"].VR = "OB"
        data["PixelData"].is_undefined_length = True
    else:
        data.PixelData = stored.tobytes()
        data["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def encode_jpeg_lossless(pixels: NDArray[np.uint16], bits: int) -> bytes:
    """A lossless JPEG (ITU-T T.81 annex H, process 14, selection value 1: predicted by the left neighbour).

    No installed package writes this form, which much of the real archive has. Every Huffman code has five bits: larger
    than need be, and simple.

    Args:
        pixels: uint16 (height, width); bits: of each that count, 2 to 16.
    """
    values = pixels.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << bits - 1
    differences = ((values - predicted + 32768) % 65536 - 32768).ravel()  # modulo 2**16, H.1.2.1
    parts = [_huffman_bits(differences[at : at + 2**18]) for at in range(0, len(differences), 2**18)]
    stream = np.concatenate(parts)
    stream = np.concatenate([stream, np.ones(-len(stream) % 8, np.uint8)])
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xC3, struct.pack(">BHHB3B", bits, *pixels.shape, 1, 1, 0x11, 0)),
            _segment(0xC4, bytes([0, 0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17))),
            _segment(0xDA, bytes([1, 1, 0, 1, 0, 0])),
            np.packbits(stream).tobytes().replace(b"\xff", b"\xff\x00"),
            b"\xff\xd9",
        )
    )


def _huffman_bits(differences: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Of each difference its category in five bits, then as many bits that tell it within the category (H.1.2.2)."""
    categories = np.frexp(np.abs(differences).astype(np.float64))[1].astype(np.int64)
    more = np.where(categories == 16, 0, categories)
    extra = np.where(differences > 0, differences, differences + (1 << categories) - 1)
    words = categories << more | np.where(categories == 16, 0, extra)
    lengths = 5 + more
    owner = np.repeat(np.arange(len(words)), lengths)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.asarray(words[owner] >> (lengths[owner] - 1 - place) & 1, dtype=np.uint8)


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
