"""DDSM: 10 480 films of 2620 cases with outlines as chain codes (Heath et al., IWDM 2000).

A case is a folder with `A-1141-1.ics`, four images `A_1141_1.LEFT_CC.*` and an `.OVERLAY` of each that has findings.
Images are copies in PNG or TIFF: nothing here decodes LJPEG. What becomes of each is in docs/ddsm.md.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from mammodet.converters.base import Reason
from mammodet.converters.findings import Finding, FindingOptions, ImageArchive, ImageRow, Kind, tumor_of
from mammodet.converters.tables import density_of

from mammodet.data.images import is_image
from mammodet.errors import InputError

_NAME = re.compile(r"([a-d]_\d{4}_1)\.(left|right)_(cc|mlo)(?:\.ljpeg)?", re.IGNORECASE)
_SIZE = re.compile(r"(LEFT|RIGHT)_(CC|MLO) LINES (\d+) PIXELS_PER_LINE (\d+).*?(NON_)?OVERLAY")
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


class Ddsm(ImageArchive[FindingOptions]):
    """The archive, or the part of it that is there."""

    NAME = "DDSM"
    PREFIX = "ddsm"
    options_type = FindingOptions

    def describe_images(self) -> list[ImageRow]:
        images: dict[str, Path] = {}
        for path in sorted(self.files.values()):
            name = path.stem.lower()
            if _NAME.fullmatch(name) and is_image(path):
                images.setdefault(name.removesuffix(".ljpeg"), path)
        only = [name for name in self.files if name.endswith(".ljpeg") and name.removesuffix(".ljpeg") not in images]
        for name in sorted(only):
            self.lose(Reason.UNREADABLE, "image", name, "LJPEG is not decoded here: make PNGs of its size of it")
        if not images:
            raise InputError(
                f"{self.source}: no image like A_1141_1.LEFT_CC.png; expected the unpacked archive as PNG or TIFF"
            )
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
        row = ImageRow(
            name=name.upper(),
            path=path,
            patient=match[1].upper(),
            laterality=match[2][0].upper(),
            view=match[3].upper(),
            density=case["density"] if case else None,
            notes=tuple(f"{key} {case[key]}" for key in ("age", "digitizer") if case and case[key]),
            labels={"tumor": None, "malignant": None},
            size_hw=size[0] if size else None,
        )
        overlay = self.files.get(f"{name}.overlay")
        if size is None:
            self.lose(
                Reason.NO_ROW, "row", row.name, "no .ics file names it: its size, density and findings are not known"
            )
            return replace(row, lost=overlay is not None)
        if overlay is None:
            if size[1]:
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


def read_ics(path: Path) -> dict[str, Any]:
    """Density, age and digitizer of a case, and of each image `sizes`: (height, width), whether it has an overlay."""
    text = path.read_text(encoding="latin-1")
    sizes = {
        f"{side}_{view}": ((int(lines), int(pixels)), not none)
        for side, view, lines, pixels, none in _SIZE.findall(text)
    }
    words = {line.split(" ", 1)[0]: line.split(" ", 1)[-1].strip() for line in text.splitlines() if " " in line}
    density = density_of(words.get("DENSITY", ""))
    return {"sizes": sizes, "density": density, "age": words.get("PATIENT_AGE"), "digitizer": words.get("DIGITIZER")}


def read_overlay(path: Path) -> tuple[list[Finding], list[dict[str, Any]]]:
    """Findings of an overlay, each with its outer boundary (cores within it are left), and what is said of each.

    Raises:
        OSError, ValueError, IndexError, OverflowError: it is damaged.
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

    Raises:
        ValueError, IndexError, OverflowError: it is damaged, or cut short.
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
