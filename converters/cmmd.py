"""CMMD: 5202 digital mammograms of 1775 patients, a biopsy of each listed breast, no boxes (Cui et al., TCIA 2022).

CMMD_clinicaldata_revision.xlsx has a row for each breast or finding of it; the DICOM files say patient, side and view.
What becomes of each is in docs/cmmd.md.
"""

import re
from pathlib import Path

from mammodet.converters.base import Reason, counted
from mammodet.converters.findings import ImageArchive, ImageOptions, ImageRow
from mammodet.converters.tables import Cells, laterality_of, table_of
from mammodet.data.dicom import read_header
from mammodet.data.images import is_dicom
from mammodet.errors import InputError

_NEEDED = ("ID1", "LeftRight", "Age", "abnormality", "classification")
_PATIENT = re.compile(r"D[12]-\d{4}")
#: Rising in seriousness.
CLASSES = ("benign", "malignant")


class Cmmd(ImageArchive[ImageOptions]):
    """The archive, or the part of it that is there."""

    NAME = "CMMD"
    PREFIX = "cmmd"
    options_type = ImageOptions
    has_lesions = False

    def describe_images(self) -> list[ImageRow]:
        table = table_of(
            self.source, self.files, *(f"CMMD_clinicaldata_revision.{suffix}" for suffix in ("xlsx", "csv"))
        )
        breasts: dict[tuple[str, str | None], list[Cells]] = {}
        doubtful: set[tuple[str, str | None]] = set()
        for line, row in self.read(table, _NEEDED, ("subtype",), key="ID1"):
            side = laterality_of(row["LeftRight"])
            row["classification"] = row["classification"].lower()
            if not _PATIENT.fullmatch(row["ID1"]) or side is None or row["classification"] not in CLASSES:
                said = f"{row['ID1']} {row['LeftRight']} {row['classification']}"
                reason = f"{said}: expected D1-0001, L or R, Benign or Malignant"
                self.lose(Reason.BAD_ROW, "row", f"{table.name} line {line}", reason)
                doubtful |= {(row["ID1"], each) for each in ((side,) if side else ("L", "R"))}
                continue
            breasts.setdefault((row["ID1"], side), []).append(row)
        images: list[ImageRow] = []
        # Every patient's files have the same names, 1-1.dcm ...: their folders tell them apart.
        for path in sorted({*self.files.values(), *self.doubles}):
            if not is_dicom(path):
                continue
            where = path.relative_to(self.source).as_posix()
            try:
                header = read_header(path)
            except InputError as error:
                self.lose(Reason.UNREADABLE, "image", where, str(error), where)
                continue
            inner = path.relative_to(self.source).parts
            patients = sorted({part for part in (header.patient_id or "", *inner) if _PATIENT.fullmatch(part)})
            if len(patients) != 1:
                kind = Reason.CONTRADICTION if patients else Reason.BAD_NAME
                told = " and ".join(patients) or "no patient like D1-0001"
                self.lose(kind, "image", where, f"its header and its folders name {told}")
                continue
            (patient,) = patients
            breast = patient, header.laterality
            unsure = breast in doubtful or patient in self.doubtful
            images.append(_image(path, where, *breast, breasts.get(breast, []), doubtful=unsure))
        self.doubles = []
        present = {(image.patient, image.laterality) for image in images}
        for patient, side in sorted(set(breasts) - present, key=str):
            self.lose(Reason.NO_FILE, "breast", f"{patient} {side}", f"has a row in {table.name} but no image")
        rows = [row for found in breasts.values() for row in found]
        self.facts |= {
            "rows": len(rows),
            "abnormality": counted([row["abnormality"] or None for row in rows]),
            "subtype": counted([row["subtype"] or None for row in rows]),
            "breasts without a row": len(present - set(breasts)),
        }
        return images


def _image(path: Path, where: str, patient: str, side: str | None, rows: list[Cells], *, doubtful: bool) -> ImageRow:
    """An image by the rows of its breast: the most serious one counts; a breast that is not listed is not known.

    Args:
        doubtful: a row of the breast cannot be read, and may be the most serious one.
    """
    worst = max((row["classification"] for row in rows), key=CLASSES.index, default=None)
    known = None if doubtful and worst != CLASSES[-1] else worst
    facts = {name: sorted({row[name] for row in rows if row[name]}) for name in ("Age", "abnormality", "subtype")}
    return ImageRow(
        name=re.sub(r"[^A-Za-z0-9.-]+", "_", where.rsplit(".", 1)[0]),
        path=path,
        patient=patient,
        laterality=side,
        labels={"tumor": 1 if worst else None, "malignant": None if known is None else int(known == "malignant")},
        class_name=known,
        notes=tuple(f"{name.lower()} {', '.join(values)}" for name, values in facts.items() if values),
    )


ARCHIVE = Cmmd
