"""RSNA screening mammography: 54 706 digital images of 11 913 women, with a label for each breast and no boxes.

docs/rsna.md describes the archive, and what this converter makes of it. In short: a row of the table
becomes a record; an image of a breast with cancer is positive and `unlocalized`; the archive's own files are referred
to, unless PNGs are asked for; and every row is converted, left out by an option, or quarantined with its reason.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mammodet.converters.base import Quarantined, Reason, Summary
from mammodet.converters.options import Options, flag
from mammodet.converters.pixels import PixelOptions
from mammodet.converters.rsna.archive import Archive, find_images
from mammodet.converters.rsna.image import contradictions, convert_image
from mammodet.converters.rsna.table import STANDARD_VIEWS, ImageRow, Table, find_table, read_table
from mammodet.converters.skeleton import Made, Resumable

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


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Rows that are converted, each with its file, and what became of the others."""

    rows: tuple[tuple[ImageRow, Path], ...]
    absent: tuple[ImageRow, ...]
    other_views: int
    beyond_limit: int


_Row = tuple[ImageRow, Path]
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
            raise InputError(
                f"--folds {options.splits.folds}: {self.table.path} has no labels; all its images go to test.json"
            )
        self.archive = find_images(self.source, "train" if self.table.labelled else "test")
        self.chosen = _choose(self.table, self.archive, options)
        if not self.chosen.rows:
            raise InputError(
                f"{self.source}: none of the {len(self.archive.files)} images there has a row in {self.table.path} "
                f"(with --views {options.views}); is it the table of another archive?"
            )

    def synthetic_folders(self) -> set[Path]:
        return {self.source, *self.source.glob("*/"), self.table.path.resolve().parent}

    def rows(self) -> Sequence[_Row]:
        table = self.table
        self.quarantine += table.quarantine
        for row in self.chosen.absent:
            reason = f"has a row (line {row.line} of {table.path.name}) but no file"
            self.quarantine.append(Quarantined(Reason.NO_FILE, "image", row.name, reason))
        return self.chosen.rows

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
                labels=_labels(row, self.table, self.options),
                source=self.summary.archive,
                unlocalized=row.cancer == 1,  # where the cancer is, nobody says
                notes=_notes(row, self.table),
            )
            for ((row, _), _), record in zip(done, super().complete(done), strict=True)
        ]

    def _patient(self, row: ImageRow) -> str:
        return f"{'phantom_rsna_' if self.phantom else 'rsna_'}{row.patient}"

    def describe(self, records: Sequence[ImageRecord], done: _Done) -> None:
        self.strata: dict[str, str] = {}
        for (row, _), _ in done:
            patient = self._patient(row)
            self.strata[patient] = max(self.strata.get(patient, ""), f"cancer {row.cancer} site {row.site}")
        _count(self.summary, self.table, self.chosen, done, records)
        _warn(self.summary, self.table, self.archive, self.chosen, done, self.options)
        _warn_of_sites(self.summary, [row for (row, _), _ in done], records)

    def split(self, records: Sequence[ImageRecord]) -> Splits:
        """Women of each site with and without cancer, in equal shares; a table without labels is the test set."""
        given = None if self.table.labelled else dict.fromkeys(self.strata, "test")
        return make_splits(self.strata, **asdict(self.options.splits), given=given)


convert = Rsna.convert


def _choose(table: Table, archive: Archive, options: RsnaOptions) -> _Chosen:
    """Which rows are converted."""
    rows = [row for row in table.rows if options.views == "all" or row.view in STANDARD_VIEWS]
    women = {row.patient for row in rows}
    if options.limit_patients is not None:
        # Of those whose images are there: of a part of the archive, too, as many are converted as were asked for. The
        # women of a smaller number are among those of a larger one.
        there = {row.patient for row in rows if (row.patient, row.image) in archive.files}
        order = sorted(there, key=lambda patient: hashlib.sha256(f"rsna/{patient}".encode()).hexdigest())
        women = set(order[: options.limit_patients])
    inside = [row for row in rows if row.patient in women]
    present = [row for row in inside if (row.patient, row.image) in archive.files]
    return _Chosen(
        rows=tuple((row, archive.files[row.patient, row.image]) for row in present),
        absent=tuple(row for row in inside if (row.patient, row.image) not in archive.files),
        other_views=len(table.rows) - len(rows),
        beyond_limit=len(rows) - len(inside),
    )


def _labels(row: ImageRow, table: Table, options: RsnaOptions) -> dict[str, int | None]:
    """`tumor`, `malignant`, and what else the archive says by 0 and 1; of a table without labels, that nothing is."""
    if not table.labelled:
        return {"tumor": None, "malignant": None}
    tumor = row.cancer
    if row.cancer == 0 and options.negatives == "birads1" and row.birads != "1":
        tumor = None  # a benign tumor may be there
    return {
        "tumor": tumor,
        "malignant": row.cancer,
        "biopsy": row.biopsy,
        "invasive": row.invasive,
        "implant": row.implant,
        "difficult_negative_case": row.difficult_negative,
    }


def _notes(row: ImageRow, table: Table) -> tuple[str, ...]:
    facts = {"age": row.age, "site": row.site, "machine": row.machine}
    if not table.labelled:
        facts["implant"] = row.implant
    return tuple(f"{name} {value:g}" for name, value in facts.items() if value is not None)


def _counts_of(values: Sequence[Any]) -> dict[str, int]:
    return dict(sorted(Counter("blank" if value is None else str(value) for value in values).items()))


def _count(
    summary: Summary,
    table: Table,
    chosen: _Chosen,
    done: _Done,
    records: Sequence[ImageRecord],
) -> None:
    rows = [row for (row, _), _ in done]
    positive = [row for row in rows if row.cancer == 1]
    bad_rows = len(table.quarantine)
    summary.counts.update(
        {
            "table": table.path.name,
            "rows": len(table.rows) + bad_rows,
            "images": len(records),
            "patients": len({row.patient for row in rows}),
            "left out": {"other views": chosen.other_views, "beyond --limit-patients": chosen.beyond_limit},
            "cancer": {
                "images": len(positive),
                "breasts": len({row.breast for row in positive}),
                "patients": len({row.patient for row in positive}),
            },
            "tumor": _counts_of([record.label("tumor") for record in records]),
            "unlocalized images": sum(record.unlocalized for record in records),
            "invasive": _counts_of([row.invasive for row in rows]),
            "biopsy": _counts_of([row.biopsy for row in rows]),
            "implant": _counts_of([row.implant for row in rows]),
            "difficult negative": _counts_of([row.difficult_negative for row in rows]),
            "birads": _counts_of([row.birads for row in rows]),
            "density": _counts_of([row.density for row in rows]),
            "view": _counts_of([row.view for row in rows]),
            "side": _counts_of([row.laterality for row in rows]),
            "site": _counts_of([row.site for row in rows]),
            "machine": _counts_of([row.machine for row in rows]),
        }
    )
    for name in ("transfer syntax", "photometric", "window", "bits stored"):
        summary.counts[name] = _counts_of(
            [made.facts["kinds"][name] for _, made in done if name in made.facts["kinds"]]
        )
    left = chosen.other_views + chosen.beyond_limit
    lost = sum(item.what in ("row", "image") for item in summary.quarantine)
    if len(records) + left + lost != summary.counts["rows"]:
        raise AssertionError(f"{summary.counts['rows']} rows: {len(records)} converted, {left} left out, {lost} lost")


def _warn(
    summary: Summary,
    table: Table,
    archive: Archive,
    chosen: _Chosen,
    done: _Done,
    options: RsnaOptions,
) -> None:
    warn = summary.warnings.append
    if chosen.absent:
        warn(f"{len(chosen.absent)} rows have no file in this part of the archive; quarantine.csv lists them")
    if table.quarantine:
        warn(f"{len(table.quarantine)} rows of the table cannot be used (quarantine.csv)")
    _warn_of_files(summary, table, archive)
    _warn_of_headers(summary, done)
    others = [row.name for (row, _), made in done if "bits stored" not in made.facts["kinds"]]
    if others:
        warn(
            f"{len(others)} images are no DICOM files: how they were windowed, reduced or inverted is not known, nor "
            "their pixel spacing"
        )
    if not table.labelled:
        warn(f"{table.path.name} has no labels: all images went to test.json, and nothing can be measured on them")
        return
    warn(
        "the label is that of the breast, and no lesion has a place: no boxes can be learnt on this archive, and a "
        "positive image may be a view on which the cancer cannot be seen"
    )
    if options.negatives == "all":
        warn("tumor 0 means no cancer; benign tumors are among those images (--negatives birads1 leaves them open)")


def _warn_of_sites(summary: Summary, rows: Sequence[ImageRow], records: Sequence[ImageRecord]) -> None:
    """Sites that have tumors and nothing to tell them from: a model could learn the site instead."""
    labels: dict[int | None, set[int | None]] = {}
    for row, record in zip(rows, records, strict=True):
        labels.setdefault(row.site, set()).add(record.label("tumor"))
    one_sided = sorted(str(site) for site, found in labels.items() if 1 in found and 0 not in found)
    if one_sided and any(0 in found for found in labels.values()):
        summary.warnings.append(
            f"site {' and '.join(one_sided)} has images with tumor 1 and none with tumor 0: a model can tell the sites "
            "apart instead of the breasts; compare within a site, or use --negatives all"
        )


def _warn_of_files(summary: Summary, table: Table, archive: Archive) -> None:
    """Files that no row speaks of, and files beyond one for an image."""
    known = {(row.patient, row.image) for row in table.rows}
    extra = sorted(path.name for key, path in archive.files.items() if key not in known)
    summary.counts["files"] = {"of images": len(archive.files), "second ones": archive.doubles, "no row": len(extra)}
    if extra:
        shown = ", ".join(extra[:5]) + (" ..." if len(extra) > 5 else "")
        summary.warnings.append(f"{len(extra)} files have no usable row in {table.path.name}: {shown}")


def _warn_of_headers(summary: Summary, done: _Done) -> None:
    """Headers that say something else than the table."""
    found: Mapping[str, list[str]] = {name: [] for name in ("laterality", "view", "patient")}
    for (row, _), made in done:
        for name, text in contradictions(row, made.facts["said"]).items():
            found[name].append(text)
    summary.checks["headers"] = {
        f"{name} said by": sum(name in made.facts["said"] for _, made in done) for name in found
    } | {f"{name} contradicts": len(texts) for name, texts in found.items()}
    for name, texts in found.items():
        if texts:
            summary.warnings.append(
                f"{len(texts)} headers contradict the table's {name}; the table was believed: {'; '.join(texts[:5])}"
                + (" ..." if len(texts) > 5 else "")
            )
