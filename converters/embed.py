"""EMBED: 480 323 digital images of 22 382 patients, some with boxes, and pathology (Jeong et al., Radiology: AI 2023).

EMBED_OpenData_metadata.csv has a row for each file, EMBED_OpenData_clinical.csv one for each finding of an exam;
findings and files meet by exam and side only. What becomes of each is in docs/embed.md.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal

from mammodet.converters.base import Reason
from mammodet.converters.findings import Finding, FindingOptions, ImageArchive, ImageRow, Kind, tumor_of
from mammodet.converters.options import flag
from mammodet.converters.tables import Cells, density_of, laterality_of, numbers_of, size_of, table_of

_FILE = ("empi_anon", "acc_anon", "anon_dicom_path", "ImageLateralityFinal", "ViewPosition", "FinalImageType")
_ROI = ("spot_mag", "ROI_coords", "num_roi", "Rows", "Columns")
_EXAM = ("acc_anon", "side", "asses", "tissueden")
_MORE = ("massshape", "massmargin", "massdens", "calcfind", "calcdistri", "path_severity", "bside")
#: Letters of BI-RADS assessments, rising in seriousness.
BIRADS = {"N": "1", "B": "2", "P": "3", "A": "0", "S": "4", "M": "5", "K": "6"}
#: Shapes that are no masses (AWS_Open_Data_Clinical_Legend.csv).
_SHAPES: dict[str, Kind] = {**dict.fromkeys("TBSFV", "asymmetry"), **dict.fromkeys("QA", "architectural_distortion")}
_CANCER = ("0", "1")  # invasive, in situ; 2 to 5 are high-risk, borderline, benign and normal tissue
_HARMLESS = ("2", "3", "4", "5")


class EmbedOptions(FindingOptions):
    """What is converted, and how."""

    images: Literal["2D", "cview", "both"] = flag("2D", "'cview': synthetic images made of tomosynthesis")


class Embed(ImageArchive[EmbedOptions]):
    """The archive, or the part of it that is there."""

    NAME = "EMBED"
    PREFIX = "embed"
    options_type = EmbedOptions

    def describe_images(self) -> list[ImageRow]:
        editions = [
            [f"EMBED_OpenData_{name}{part}.csv" for part in ("", "_reduced")] for name in ("metadata", "clinical")
        ]
        metadata, clinical = (table_of(self.source, self.files, *names) for names in editions)
        exams: dict[str, list[Cells]] = {}
        for _, row in self.read(clinical, _EXAM, _MORE, key="acc_anon"):
            exams.setdefault(_id(row["acc_anon"]), []).append(row)
        counts: Counter[str] = Counter()
        images: list[ImageRow] = []
        wanted = {"2D": ("2d",), "cview": ("cview",), "both": ("2d", "cview")}[self.options.images]
        for _, row in self.read(metadata, _FILE, _ROI):
            counts["rows"] += 1
            if row["FinalImageType"].lower().replace("-", "") not in wanted:
                counts["of another type"] += 1
            elif row["spot_mag"] not in ("", "0", "0.0"):
                counts["spot compression, magnification"] += 1
            else:
                name = PurePosixPath(row["anon_dicom_path"]).name
                path = self.files.get(name.lower())
                if path is None:
                    self.lose(Reason.NO_FILE, "image", name, "has a row but no file")
                    continue
                side = laterality_of(row["ImageLateralityFinal"])
                found = [
                    exam  # of that side, of both or of none, or its biopsy is
                    for exam in exams.get(_id(row["acc_anon"]), [])
                    if laterality_of(exam["side"]) in (None, side) or laterality_of(exam["bside"]) == side
                ]
                images.append(self._image(row, path.stem, side, found))
        self.facts["rows of files"] = dict(counts)
        return images

    def _image(self, row: Cells, name: str, side: str | None, exams: Sequence[Cells]) -> ImageRow:
        kinds = {kind for exam in exams for kind in _kinds(exam)}
        kind: Kind = kinds.pop() if len(kinds) == 1 else "other"
        boxes, left = _boxes(row["ROI_coords"])
        announced = numbers_of(row["num_roi"]) or [1.0 if row["num_roi"] else 0.0]
        lost = left or len(boxes) < announced[0]
        if lost:
            self.lose(
                Reason.NO_PLACE, "finding", name, f"ROI_coords {row['ROI_coords'][:80]!r}: expected {row['num_roi']}"
            )
        findings = tuple(
            Finding(kind, "box", ((x1, y1), (x2, y2)), f"ROI {number}", {})
            for number, (y1, x1, y2, x2) in enumerate(boxes, 1)
        )
        letters = [exam["asses"].upper() for exam in exams if exam["asses"].upper() in BIRADS]
        worst = max(letters, key=list(BIRADS).index, default=None)
        biopsies = [exam for exam in exams if laterality_of(exam["bside"]) in (None, side)]
        severities = {_id(exam["path_severity"]) for exam in biopsies if exam["path_severity"]}
        malignant = 1 if severities & {*_CANCER} else 0 if severities and severities <= {*_HARMLESS} else None
        # A row of its exam that cannot be read may be the most serious one.
        whole = _id(row["acc_anon"]) not in self.doubtful
        normal = bool(exams) and len(letters) == len(exams) and {*letters} == {"N"} and not severities and not lost
        tumor = 1 if malignant else tumor_of(findings, self.options.categories, normal=normal and whole)
        return ImageRow(
            name=name,
            path=self.files[PurePosixPath(row["anon_dicom_path"]).name.lower()],
            patient=_id(row["empi_anon"]),
            laterality=side,
            view=row["ViewPosition"].upper() or None,
            density=next((letter for exam in exams if (letter := density_of(exam["tissueden"]))), None),
            birads=BIRADS[worst] if worst else None,
            labels={"tumor": tumor, "malignant": malignant if malignant or whole else None},
            notes=(f"exam {_id(row['acc_anon'])}",),
            findings=findings,
            lost=lost,
            size_hw=size_of(row["Rows"], row["Columns"]),
        )


def _id(text: str) -> str:
    """A number without the `.0` that spreadsheets add."""
    return text.removesuffix(".0")


def _kinds(exam: Cells) -> set[Kind]:
    """What the descriptors of a finding say that it is; several, or none."""
    kinds: set[Kind] = set()
    shape = exam["massshape"].upper()
    if shape or exam["massmargin"] or exam["massdens"]:
        kinds.add(_SHAPES.get(shape, "mass"))
    if exam["calcfind"] or exam["calcdistri"]:
        kinds.add("calcification")
    return kinds


def _boxes(text: str) -> tuple[list[tuple[float, float, float, float]], bool]:
    """Boxes (y1, x1, y2, x2) in a text like `((1204, 80, 1490, 377), (9, 7, 18, 99))`, and whether more is there."""
    numbers = numbers_of(text)
    if not numbers and text.strip("()[], "):
        return [], True
    whole = len(numbers) // 4 * 4
    return [(a, b, c, d) for a, b, c, d in zip(*[iter(numbers[:whole])] * 4, strict=True)], whole != len(numbers)


ARCHIVE = Embed
