"""RSNA screening mammography: 54 706 digital images of 11 913 women, with a label for each breast and no boxes.

docs/rsna.md describes the archive, and what this converter makes of it. In short: a row of the table
becomes a record; an image of a breast with cancer is positive and `unlocalized`; the archive's own files are referred
to, unless PNGs are asked for; and every row is converted, left out by an option, or quarantined with its reason.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from mammodet.converters.base import Quarantined, Reason, counted, listed
from mammodet.converters.options import Options, flag
from mammodet.converters.pixels import PixelOptions, kinds, said, take_image
from mammodet.converters.rsna.archive import find_images
from mammodet.converters.rsna.table import STANDARD_VIEWS, ImageRow, find_table, read_table
from mammodet.converters.skeleton import Made, Resumable, refused
from mammodet.data.splits import Splits, make_splits
from mammodet.errors import InputError
from mammodet.records import ImageRecord


class RsnaOptions(Options):
    """What is converted, and how."""

    table: Path | None = flag(None, "train.csv or test.csv, where it does not lie in --source", metavar="CSV")
    pixels: PixelOptions = PixelOptions()
    views: Literal["all", "standard"] = flag("all", "'standard': CC and MLO only, others are left out")
    negatives: Literal["all", "birads1"] = flag(
        "all",
        "what is no tumor: 'all' images without cancer, benign findings among them, or only those with BI-RADS 1; "
        "of the others it is not known then",
    )
    limit_patients: int | None = flag(None, "convert N women only, the same ones on every machine", metavar="N", ge=1)


_Row = tuple[ImageRow, Path]
_COUNTED = ("invasive", "biopsy", "implant", "difficult_negative", "birads", "density", "view", "site", "machine")
_Done = Sequence[tuple[_Row, Made]]


class Rsna(Resumable[RsnaOptions, _Row]):
    """The archive, or the part of it that is there."""

    NAME = "RSNA"
    options_type = RsnaOptions
    has_lesions = False

    def find(self) -> None:
        options = self.options
        self.table = read_table(options.table or find_table(self.source))
        if not self.table.labelled and options.splits.folds:
            raise InputError(f"--folds {options.splits.folds}: {self.table.path} has no labels: all are in test.json")
        self.archive = find_images(self.source, "train" if self.table.labelled else "test")
        self._choose()
        if not self.chosen:
            raise InputError(
                f"{self.source}: none of the {len(self.archive.files)} images there has a row in {self.table.path} "
                f"(with --views {options.views}); is it the table of another archive?"
            )

    def _choose(self) -> None:
        """Rows that are converted, each with its file, and what becomes of the others."""
        table, files, options = self.table, self.archive.files, self.options
        rows = [row for row in table.rows if options.views == "all" or row.view in STANDARD_VIEWS]
        women = {row.patient for row in rows}
        if options.limit_patients is not None:
            # Of those whose images are there: of a part of the archive, too, as many are converted as were asked for.
            # The women of a smaller number are among those of a larger one.
            there = {row.patient for row in rows if (row.patient, row.image) in files}
            order = sorted(there, key=lambda patient: hashlib.sha256(f"rsna/{patient}".encode()).hexdigest())
            women = set(order[: options.limit_patients])
        inside = [row for row in rows if row.patient in women]
        self.chosen: list[_Row] = [(row, files[key]) for row in inside if (key := (row.patient, row.image)) in files]
        self.absent = [row for row in inside if (row.patient, row.image) not in files]
        self.left_out = {"other views": len(table.rows) - len(rows), "beyond --limit-patients": len(rows) - len(inside)}

    def synthetic_folders(self) -> set[Path]:
        return {self.source, *self.source.glob("*/"), self.table.path.resolve().parent}

    def rows(self) -> Sequence[_Row]:
        table = self.table
        self.quarantine += table.quarantine
        for row in self.absent:
            reason = f"has a row (line {row.line} of {table.path.name}) but no file"
            self.quarantine.append(Quarantined(Reason.NO_FILE, "image", row.name, reason))
        return self.chosen

    def how(self) -> Any:
        return self.source, self.output, self.options.pixels

    def refers(self) -> bool:
        return self.options.pixels.file_format == "reference"

    def uses_processes(self) -> bool:
        # A header is read faster than it is passed to a process and back.
        return not self.refers()

    def key(self, row: _Row) -> str:
        return row[0].name

    def fingerprint(self, row: _Row) -> Path:
        return row[1]

    def settings(self) -> Any:
        return asdict(self.options.pixels)

    @staticmethod
    def convert_one(row: _Row, how: Any) -> Made:
        return convert_image(*row, *how)

    def complete(self, done: _Done) -> list[ImageRecord]:
        """The rows' facts: other labels cost no image."""
        return [
            replace(
                record,
                patient_id=self._patient(row),
                laterality=row.laterality,
                view=row.view,
                density=row.density,
                birads=row.birads,
                labels=self._labels(row),
                source=self.summary.archive,
                unlocalized=self._labels(row)["tumor"] != 0,  # where a tumor is, nobody says
                notes=self._notes(row),
            )
            for ((row, _), _), record in zip(done, super().complete(done), strict=True)
        ]

    def _labels(self, row: ImageRow) -> dict[str, int | None]:
        """`tumor`, `malignant`, and what else the archive says by 0 and 1; nothing without labels in the table."""
        if not self.table.labelled:
            return {"tumor": None, "malignant": None}
        tumor = row.cancer
        if row.cancer == 0 and self.options.negatives == "birads1" and row.birads != "1":
            tumor = None  # a benign tumor may be there
        return {
            "tumor": tumor,
            "malignant": row.cancer,
            "biopsy": row.biopsy,
            "invasive": row.invasive,
            "implant": row.implant,
            "difficult_negative_case": row.difficult_negative,
        }

    def _notes(self, row: ImageRow) -> tuple[str, ...]:
        facts = {"age": row.age, "site": row.site, "machine": row.machine}
        if not self.table.labelled:
            facts["implant"] = row.implant
        return tuple(f"{name} {value:g}" for name, value in facts.items() if value is not None)

    def _patient(self, row: ImageRow) -> str:
        return f"{'phantom_rsna_' if self.phantom else 'rsna_'}{row.patient}"

    def describe(self, records: Sequence[ImageRecord], done: _Done) -> None:
        self.strata: dict[str, str] = {}
        for (row, _), _ in done:
            patient = self._patient(row)
            self.strata[patient] = max(self.strata.get(patient, ""), f"cancer {row.cancer} site {row.site}")
        self._count(records, done)
        self._warn(done)
        self._warn_of_sites(records, done)

    def split(self, records: Sequence[ImageRecord]) -> Splits:
        """Women of each site with and without cancer, in equal shares; a table without labels is the test set."""
        given = None if self.table.labelled else dict.fromkeys(self.strata, "test")
        return make_splits(self.strata, **asdict(self.options.splits), given=given)

    def _count(self, records: Sequence[ImageRecord], done: _Done) -> None:
        table, summary = self.table, self.summary
        rows = [row for (row, _), _ in done]
        positive = [row for row in rows if row.cancer == 1]
        summary.counts.update(
            {
                "table": table.path.name,
                "rows": len(table.rows) + len(table.quarantine),
                "images": len(records),
                "patients": len({row.patient for row in rows}),
                "left out": self.left_out,
                "cancer": {
                    "images": len(positive),
                    "breasts": len({row.breast for row in positive}),
                    "patients": len({row.patient for row in positive}),
                },
                "tumor": counted([record.label("tumor") for record in records], "blank"),
                "unlocalized images": sum(record.unlocalized for record in records),
                **{name.replace("_", " "): counted([getattr(row, name) for row in rows], "blank") for name in _COUNTED},
                "side": counted([row.laterality for row in rows], "blank"),
            }
        )
        for name in ("transfer syntax", "photometric", "window", "bits stored"):
            summary.counts[name] = counted(made.facts["kinds"][name] for _, made in done if name in made.facts["kinds"])
        left = sum(self.left_out.values())
        lost = sum(item.what in ("row", "image") for item in summary.quarantine)
        if len(records) + left + lost != summary.counts["rows"]:
            raise AssertionError(
                f"{summary.counts['rows']} rows: {len(records)} converted, {left} left out, {lost} lost"
            )

    def _warn(self, done: _Done) -> None:
        warn, table, absent = self.warnings.append, self.table, self.absent
        if absent:
            warn(f"{len(absent)} rows have no file in this part of the archive; quarantine.csv lists them")
        if table.quarantine:
            warn(f"{len(table.quarantine)} rows of the table cannot be used (quarantine.csv)")
        self._warn_of_files()
        self._warn_of_headers(done)
        others = [row.name for (row, _), made in done if "bits stored" not in made.facts["kinds"]]
        if others:
            warn(
                f"{len(others)} images are no DICOM files: how they were windowed, reduced or inverted is not known, "
                "nor their pixel spacing"
            )
        if not table.labelled:
            warn(f"{table.path.name} has no labels: all images went to test.json, and nothing can be measured on them")
            return
        warn(
            "the label is that of the breast, and no lesion has a place: no boxes can be learnt on this archive, and a "
            "positive image may be a view on which the cancer cannot be seen"
        )
        if self.options.negatives == "all":
            warn("tumor 0 means no cancer; benign tumors are among those images (--negatives birads1 leaves them open)")

    def _warn_of_sites(self, records: Sequence[ImageRecord], done: _Done) -> None:
        """Sites that have tumors and nothing to tell them from: a model could learn the site instead."""
        labels: dict[int | None, set[int | None]] = {}
        for ((row, _), _), record in zip(done, records, strict=True):
            labels.setdefault(row.site, set()).add(record.label("tumor"))
        one_sided = sorted(str(site) for site, found in labels.items() if 1 in found and 0 not in found)
        if one_sided and any(0 in found for found in labels.values()):
            self.warnings.append(
                f"site {' and '.join(one_sided)} has images with tumor 1 and none with tumor 0: a model can tell the "
                "sites apart instead of the breasts; compare within a site, or use --negatives all"
            )

    def _warn_of_files(self) -> None:
        """Files that no row speaks of, and files beyond one for an image."""
        known = {(row.patient, row.image) for row in self.table.rows}
        extra = sorted(path.name for key, path in self.archive.files.items() if key not in known)
        self.summary.counts["files"] = {
            "of images": len(self.archive.files),
            "second ones": self.archive.doubles,
            "no row": len(extra),
        }
        if extra:
            self.warnings.append(f"{len(extra)} files have no usable row in {self.table.path.name}: {listed(extra)}")

    def _warn_of_headers(self, done: _Done) -> None:
        """Headers that say something else than the table."""
        found: Mapping[str, list[str]] = {name: [] for name in ("laterality", "view", "patient")}
        for (row, _), made in done:
            for name, text in contradictions(row, made.facts["said"]).items():
                found[name].append(text)
        self.summary.checks["headers"] = {
            f"{name} said by": sum(name in made.facts["said"] for _, made in done) for name in found
        } | {f"{name} contradicts": len(texts) for name, texts in found.items()}
        for name, texts in found.items():
            if texts:
                self.warnings.append(
                    f"{len(texts)} headers contradict the table's {name}; the table was believed: {listed(texts)}"
                )


convert = Rsna.convert
ARCHIVE = Rsna


def convert_image(row: ImageRow, path: Path, source: Path, output: Path, options: PixelOptions) -> Made:
    """Read a file, its header alone where nothing is written.

    The record has what the file says; `facts`: `said`, what the header claims (`patient`, `laterality`, `view`), and
    `kinds`, how the file is made, for counts (`transfer syntax`, `photometric`, `window`, `bits stored`).
    """
    try:
        taken = take_image(path, source, output, options, number=row.image, name=f"{row.patient}/{row.image}")
    except InputError as error:
        name = path.relative_to(source).as_posix()
        return refused("image", row.name, str(error).replace(str(path), name), name)
    return Made(taken.record, facts={"said": said(taken.header), "kinds": kinds(path, taken.header)})


def contradictions(row: ImageRow, said: Mapping[str, str]) -> dict[str, str]:
    """What the header says otherwise than the table, which is believed: `patient`, `laterality` or `view` to a line."""
    table = {"patient": str(row.patient), "laterality": row.laterality, "view": row.view}
    return {
        name: f"{row.name} ({word} in the header, {table[name]} in the table)"
        for name, word in said.items()
        # An id that is no number is a pseudonym of another scheme, and says nothing.
        if table[name] is not None and word != table[name] and (name != "patient" or word.isdecimal())
    }
