"""VinDr-Mammo: 5000 digital exams of four views with boxes (Nguyen et al., Scientific Data 2023; PhysioNet).

finding_annotations.csv has a row for each box, and one for each image without any; breast-level_annotations.csv has one
for each image. What becomes of each is in docs/vindr.md.
"""

import ast
from collections.abc import Mapping

from mammodet.converters.base import Reason, counted, settle_sides
from mammodet.converters.findings import Finding, FindingOptions, ImageArchive, ImageRow, Kind, tumor_of
from mammodet.converters.tables import (
    Cells,
    birads_of,
    density_of,
    images_by_stem,
    laterality_of,
    numbers_of,
    size_of,
    table_of,
)

_IMAGE = ("study_id", "image_id", "laterality", "view_position", "breast_birads", "breast_density", "split")
_BOX = ("finding_categories", "finding_birads", "xmin", "ymin", "xmax", "ymax")
_SIZE = ("height", "width")
NO_FINDING = "No Finding"
#: Of a box with several categories the first of these counts; all are kept.
KINDS: dict[str, Kind] = {
    "Mass": "mass",
    "Suspicious Calcification": "calcification",
    "Architectural Distortion": "architectural_distortion",
    "Focal Asymmetry": "asymmetry",
    "Global Asymmetry": "asymmetry",
    "Asymmetry": "asymmetry",
    "Suspicious Lymph Node": "other",
    "Skin Thickening": "other",
    "Skin Retraction": "other",
    "Nipple Retraction": "other",
}
_SUBSETS = {"training": "train", "train": "train", "test": "test", "testing": "test"}


class VinDrOptions(FindingOptions):
    """What is converted, and how."""

    @property
    def divides_test(self) -> bool:
        return False


class VinDr(ImageArchive[VinDrOptions]):
    """The archive, or the part of it that is there."""

    NAME = "VinDr-Mammo"
    PREFIX = "vindr"
    options_type = VinDrOptions

    def describe_images(self) -> list[ImageRow]:
        boxes = table_of(self.source, self.files, "finding_annotations.csv")
        breasts = self.files.get("breast-level_annotations.csv")
        rows: dict[str, list[Cells]] = {}
        tables: dict[str, list[Cells]] = {}
        if breasts is not None:
            for _, row in self.read(breasts, _IMAGE, _SIZE, key="image_id"):
                tables.setdefault(row["image_id"], []).append(row)
        count = several = 0
        for _, row in self.read(boxes, (*_IMAGE, *_BOX), _SIZE, key="image_id"):
            count += 1
            rows.setdefault(row["image_id"], []).append(row)
        files = images_by_stem(self.files)
        subsets: dict[str, set[str]] = {}
        images: list[ImageRow] = []
        for image in sorted({*rows, *tables}):
            if image.lower() not in files:
                self.lose(Reason.NO_FILE, "image", image, "has a row but no file")
                continue
            found = rows.get(image, [])
            described = [{name: row[name] for name in (*_IMAGE, *_SIZE)} for row in (*tables.get(image, []), *found)]
            said = {_SUBSETS.get(row["split"].lower(), "") for row in described}
            if "" in said:
                words = " or ".join(_SUBSETS)
                self.lose(Reason.BAD_ROW, "image", image, f"split {described[0]['split']!r}, expected {words}")
                continue
            first = self.agreed(image, described)
            findings: list[Finding] = []
            lost = False
            looked_at = bool(found)
            for row in found:
                names = _categories(row["finding_categories"])
                several += len(names) > 1
                if names == [NO_FINDING]:
                    continue
                looked_at = False
                finding = _finding(row, names)
                if finding is None:
                    lost = True
                    self.lose(Reason.NO_PLACE, "finding", image, f"box {_corners(row)} of {', '.join(names)} is no box")
                else:
                    findings.append(finding)
            birads = birads_of(first["breast_birads"])
            normal = looked_at and birads in ("1", "2") and image not in self.doubtful
            images.append(
                ImageRow(
                    name=image,
                    path=files[image.lower()],
                    patient=first["study_id"],
                    laterality=laterality_of(first["laterality"]),
                    view=first["view_position"].upper() or None,
                    density=density_of(first["breast_density"]),
                    birads=birads,
                    # BI-RADS is no biopsy: whether a finding is malignant is not known.
                    labels={"tumor": tumor_of(findings, self.options.categories, normal=normal), "malignant": None},
                    findings=tuple(findings),
                    lost=lost,
                    size_hw=size_of(first["height"], first["width"]),
                )
            )
            subsets.setdefault(first["study_id"], set()).update(said)
        self.subsets, both = settle_sides(subsets, "test")
        self.warnings.extend(f"exam {study} has rows of both official subsets; it is in the test set" for study in both)
        boxed = [row["finding_categories"] for found in rows.values() for row in found if row["xmin"]]
        self.facts |= {"rows": count, "boxes": len(boxed), "boxes with several categories": several}
        self.facts["categories"] = counted([name for text in boxed for name in _categories(text)])
        return images

    def given(self) -> Mapping[str, str]:
        return {f"{self.patient_prefix()}{study}": subset for study, subset in self.subsets.items()}


def _categories(text: str) -> list[str]:
    """Names in a cell like `['Mass', 'Nipple Retraction']`."""
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        names = text
    return [str(name).strip() for name in names] if isinstance(names, list | tuple) else [str(names).strip()]


def _corners(row: Cells) -> str:
    return ", ".join(row[name] or "-" for name in ("xmin", "ymin", "xmax", "ymax"))


def _finding(row: Cells, names: list[str]) -> Finding | None:
    """The finding of a row; None where its box is none."""
    numbers = [numbers_of(row[name]) for name in ("xmin", "ymin", "xmax", "ymax")]
    if not all(len(number) == 1 for number in numbers):
        return None
    (x1,), (y1,), (x2,), (y2,) = numbers
    if x2 <= x1 or y2 <= y1:
        return None
    kind: Kind = next((kind for name, kind in KINDS.items() if name in names), "other")
    attributes = {"categories": names, "birads": birads_of(row["finding_birads"])}
    return Finding(kind, "box", ((x1, y1), (x2, y2)), _corners(row), attributes)


ARCHIVE = VinDr
