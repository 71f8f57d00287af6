"""DDSM: 10 480 films of 2620 cases with outlines as chain codes (Heath et al., IWDM 2000).

A case is a folder with `A-1141-1.ics`, four images `A_1141_1.LEFT_CC.LJPEG` (or copies of them as PNG or TIFF) and an
`.OVERLAY` of each that has findings. What becomes of each is in docs/ddsm.md.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mammodet.converters.base import Reason, counted
from mammodet.converters.findings import (
    Finding,
    FindingOptions,
    ImageArchive,
    ImageRow,
    Kind,
    Numbered,
    convert_row,
    tumor_of,
)
from mammodet.converters.ljpeg import read_ljpeg
from mammodet.converters.options import flag
from mammodet.converters.skeleton import Made
from mammodet.converters.tables import density_of
from mammodet.data.images import Pixels, is_image
from mammodet.errors import InputError

_NAME = re.compile(r"([a-d]_\d{4}_1)\.(left|right)_(cc|mlo)(?:\.ljpeg)?", re.IGNORECASE)
_SIZE = re.compile(
    r"(LEFT|RIGHT)_(CC|MLO) LINES (\d+) PIXELS_PER_LINE (\d+)(?: BITS_PER_PIXEL (\d+))?.*?(NON_)?OVERLAY"
)
#: Folders of the volumes of normal cases; what lies above the source has names of the user's.
_NORMAL = re.compile(r"normals?([_-]?\d+)?", re.IGNORECASE)
#: Steps (x, y) of the chain code, 0 upwards and on clockwise.
STEPS = ((0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1))
_PATHOLOGY = {"MALIGNANT": "malignant", "BENIGN": "benign", "BENIGN_WITHOUT_CALLBACK": "benign"}
#: Shapes of masses that are none.
_SHAPES: dict[str, Kind] = {
    "ARCHITECTURAL_DISTORTION": "architectural_distortion",
    **dict.fromkeys(("ASYMMETRIC_BREAST_TISSUE", "FOCAL_ASYMMETRIC_DENSITY"), "asymmetry"),
    "LYMPH_NODE": "other",
}


#: Optical densities of a scanner's values, as the archive's pages on calibration give them (docs/ddsm.md); Howtek's are
#: of the volumes A (Massachusetts General Hospital) and D (ISMD).
DENSITIES: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "DBA": lambda value: (np.log10(np.maximum(value, 1)) - 4.80662) / -1.07553,
    "LUMISYS": lambda value: (value - 4096.99) / -1009.01,
    "HOWTEK A": lambda value: 3.789 - 0.00094568 * value,
    "HOWTEK D": lambda value: 3.96604095240593 - 0.00099055807612 * value,
}
#: What is black; all scanners end near it.
_BLACK_DENSITY = 4.0


class DdsmOptions(FindingOptions):
    """Which findings are lesions, and how images are kept."""

    grey: Literal["density", "stored"] = flag(
        "density",
        "of LJPEG files: 'density': the film's optical density by its scanner's calibration, 0 white and 4 black, so "
        "that films of all scanners are comparable; 'stored': the scanner's own values",
    )


@dataclass(frozen=True, slots=True)
class Film(ImageRow):
    """An image as its .ics file describes it."""

    scanner: str = ""  #: of `DENSITIES`; what the file says where it is none of them
    bits: int | None = None  #: of a value; None where the file does not say it


class Ddsm(ImageArchive[DdsmOptions]):
    """The archive, or the part of it that is there."""

    NAME = "DDSM"
    PREFIX = "ddsm"
    options_type = DdsmOptions

    def describe_images(self) -> list[ImageRow]:
        images: dict[str, Path] = {}
        packed: dict[str, Path] = {}
        for path in sorted(self.files.values()):
            name = path.stem.lower()
            if _NAME.fullmatch(name) and path.suffix.lower() == ".ljpeg":
                packed[name] = path
            elif _NAME.fullmatch(name) and is_image(path):
                images.setdefault(name.removesuffix(".ljpeg"), path)
        if self.refers():
            for name in sorted(packed.keys() - images.keys()):
                self.lose(Reason.UNREADABLE, "image", name, "is LJPEG, which is decoded with --format png16 only")
        else:
            images |= packed
        if not images:
            remedy = "use --format png16, which decodes LJPEG" if packed else "expected the unpacked archive"
            raise InputError(f"{self.source}: no image like A_1141_1.LEFT_CC.png; {remedy}")
        self.facts["image files"] = counted([path.suffix.lower()[1:] for path in images.values()])
        if 0 < sum(path.suffix.lower() == ".ljpeg" for path in images.values()) < len(images):
            self.warnings.append("some images are LJPEG and some are copies of it, whose grey levels may be others")
        cases: dict[str, dict[str, Any]] = {}
        for name, path in self.files.items():
            if name.endswith(".ics"):
                cases[name.removesuffix(".ics").replace("-", "_")] = read_ics(path)
        return [self._image(name, path, cases.get(name.split(".")[0])) for name, path in sorted(images.items())]

    def _image(self, name: str, path: Path, case: dict[str, Any] | None) -> ImageRow:
        match = _NAME.fullmatch(name)
        assert match is not None
        place = f"{match[2]}_{match[3]}".upper()
        size = case["sizes"].get(place) if case else None
        scanner = (case["digitizer"] or "").upper().split(" ")[0] if case else ""
        row = Film(
            name=name.upper(),
            path=path,
            patient=match[1].upper(),
            laterality=match[2][0].upper(),
            view=match[3].upper(),
            density=case["density"] if case else None,
            notes=tuple(f"{key} {case[key]}" for key in ("age", "digitizer") if case and case[key]),
            labels={"tumor": None, "malignant": None},
            size_hw=size[0] if size else None,
            scanner=f"{scanner} {match[1][0].upper()}" if scanner == "HOWTEK" else scanner,
            bits=size[1] if size else None,
        )
        overlay = self.files.get(f"{name}.overlay")
        if size is None:
            self.lose(Reason.NO_ROW, "row", row.name, "no .ics file names it: size, density and findings are not known")
            return replace(row, lost=overlay is not None)
        if overlay is None:
            if size[2]:
                self.lose(Reason.NO_FILE, "overlay", row.name, "the .ics file says that it has one")
                return replace(row, lost=True)
            # Only volumes of normal cases say that nothing is there: another case may hide its finding on this view.
            normal = any(map(_NORMAL.fullmatch, path.relative_to(self.source.parent).parts))
            return replace(row, labels=dict.fromkeys(("tumor", "malignant"), 0 if normal else None))
        try:
            findings, facts = read_overlay(overlay)
        except (InputError, OSError, ValueError, IndexError, OverflowError) as error:
            self.lose(Reason.UNREADABLE, "overlay", row.name, f"cannot be read: {error}", overlay)
            return replace(row, lost=True)
        known = {fact["pathology"] for fact in facts}
        return replace(
            row,
            findings=tuple(findings),
            birads=max((fact["assessment"] for fact in facts if fact["assessment"]), default=None),
            labels={
                "tumor": tumor_of(findings, self.options.categories, normal=False),
                "malignant": 1 if "malignant" in known else 0 if known == {"benign"} else None,
            },
        )

    @staticmethod
    def convert_one(row: Numbered, how: Any) -> Made:
        (number, film), (source, output, options) = row, how
        assert isinstance(film, Film)
        read = partial(read_film, film, options.grey) if film.path.suffix.lower() == ".ljpeg" else None
        return convert_row(number, film, source, output, options, read)


def read_film(film: Film, grey: str) -> Pixels:
    """Pixels of an LJPEG, uint16 (height, width), tissue bright: `density` or `stored` values over all 16 bits.

    Raises InputError: it cannot be read, or its .ics file does not say how.
    """
    pixels: Pixels = read_ljpeg(film.path)
    if film.bits is None or not 8 <= film.bits <= 16 or int(pixels.max()) >> film.bits:
        said = "nothing" if film.bits is None else f"{film.bits} bits of a value"
        raise InputError(f"{film.path}: its values reach {pixels.max()}, the .ics file says {said}")
    if film.size_hw != pixels.shape and film.size_hw and film.size_hw[0] * film.size_hw[1] == pixels.size:
        pixels = pixels.reshape(film.size_hw)  # the rows were packed with another width than they have
    values = np.arange(1 << film.bits, dtype=np.float64)
    if grey == "stored":
        shares = values / values[-1]
    elif film.scanner in DENSITIES:
        shares = 1 - DENSITIES[film.scanner](values) / _BLACK_DENSITY
    else:
        raise InputError(
            f"{film.path}: no calibration of its scanner {film.scanner!r} is known, expected {', '.join(DENSITIES)}; "
            "--grey stored keeps the scanner's values"
        )
    return np.round(np.clip(shares, 0, 1) * 65535).astype(np.uint16)[pixels]


def read_ics(path: Path) -> dict[str, Any]:
    """Density, age and digitizer of a case; of each image `sizes`: (height, width), bits, whether it has an overlay."""
    text = path.read_text(encoding="latin-1")
    sizes = {
        f"{side}_{view}": ((int(lines), int(pixels)), int(bits) if bits else None, not none)
        for side, view, lines, pixels, bits, none in _SIZE.findall(text)
    }
    words = {line.split(" ", 1)[0]: line.split(" ", 1)[-1].strip() for line in text.splitlines() if " " in line}
    density = density_of(words.get("DENSITY", ""))
    return {"sizes": sizes, "density": density, "age": words.get("PATIENT_AGE"), "digitizer": words.get("DIGITIZER")}


def read_overlay(path: Path) -> tuple[list[Finding], list[dict[str, Any]]]:
    """Findings of an overlay, each with its outer boundary (cores within it are left), and what is said of each.

    Raises OSError, ValueError, IndexError, OverflowError: it is damaged.
    """
    findings: list[Finding] = []
    facts: list[dict[str, Any]] = []
    lines = [line.split() for line in path.read_text(encoding="latin-1").splitlines() if line.strip()]
    if not lines or lines[0][0] != "TOTAL_ABNORMALITIES":
        raise ValueError("does not begin with TOTAL_ABNORMALITIES")
    for at, words in enumerate(lines):
        if words[0] == "ABNORMALITY":
            facts.append({"types": [], "assessment": None, "pathology": None, "kind": "other"})
        elif words[0] == "LESION_TYPE":
            facts[-1]["types"].append(" ".join(words[1:]))
            if words[1] == "CALCIFICATION" and facts[-1]["kind"] == "other":
                facts[-1]["kind"] = "calcification"
            elif words[1] == "MASS":
                shape = words[words.index("SHAPE") + 1] if "SHAPE" in words else ""
                kinds = [_SHAPES.get(name, "mass") for name in shape.split("-")]
                facts[-1]["kind"] = "mass" if "mass" in kinds else kinds[0]
        elif words[0] == "ASSESSMENT":
            facts[-1]["assessment"] = words[1]
        elif words[0] == "PATHOLOGY":
            facts[-1]["pathology"] = _PATHOLOGY.get(words[1])
        elif words[0] == "BOUNDARY":
            said = facts[-1]
            attributes = {"types": said["types"], "assessment": said["assessment"]}
            if said["pathology"]:
                attributes["pathology"] = said["pathology"]
            corners = chain(lines[at + 1])
            findings.append(Finding(said["kind"], "contour", corners, f"abnormality {len(facts)}", attributes))
    if len(facts) != int(lines[0][1]) or len(findings) != len(facts):
        raise ValueError(f"{lines[0][1]} abnormalities announced, {len(facts)} found with {len(findings)} boundaries")
    return findings, facts


def chain(words: list[str]) -> tuple[tuple[float, float], ...]:
    """Centres of the boundary's pixels: a first column and row, and steps 0 to 7 up to `#`.

    Raises ValueError, IndexError, OverflowError: it is damaged, or cut short.
    """
    x, y = int(words[0]), int(words[1])
    if "#" not in words:
        raise ValueError("a boundary has no end (#); it is cut short")
    points = [(x + 0.5, y + 0.5)]
    for word in words[2:]:
        if word == "#":
            break
        dx, dy = STEPS["01234567".index(word)]
        x, y = x + dx, y + dy
        points.append((x + 0.5, y + 0.5))
    return tuple(points)


ARCHIVE = Ddsm
