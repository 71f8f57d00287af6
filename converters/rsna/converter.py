"""RSNA screening mammography: 54 706 digital images of 11 913 women, with a label for each breast and no boxes.

What the archive is like, and what this converter makes of it, is told in docs/rsna.md. In short: a row of the table
becomes a record; an image of a breast with cancer is positive and `unlocalized`; the archive's own files are referred
to, unless PNGs are asked for; and every row is converted, left out by an option, or quarantined with its reason.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mammodet.converters.base import Quarantined, Summary, check_folders, link_archive, remove_tables, write_outputs
from mammodet.converters.journal import Journal, files_fingerprint
from mammodet.converters.rsna.archive import Archive, find_images
from mammodet.converters.rsna.image import (
    ImageFacts,
    RecordOptions,
    contradictions,
    convert_image,
    make_record,
    quarantined,
)
from mammodet.converters.rsna.options import FORMATS, NEGATIVES, VIEWS, RsnaOptions
from mammodet.converters.rsna.table import STANDARD_VIEWS, ImageRow, Table, find_table, read_table

import mammodet
from mammodet.data.splits import Splits, check_shares, make_splits
from mammodet.errors import InputError
from mammodet.files import canonical_hash
from mammodet.parallel import in_parallel, in_processes
from mammodet.records import ImageRecord
from mammodet.synthetic import is_synthetic

JOURNAL = "converted.jsonl"
_CATEGORIES = ("lesion",)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Rows that are converted, each with its file, and what became of the others."""

    rows: tuple[ImageRow, ...]
    files: tuple[Path, ...]
    absent: tuple[ImageRow, ...]
    other_views: int
    beyond_limit: int


def convert(source: Path, output: Path, options: RsnaOptions) -> Summary:
    """Convert the archive, or the part of it that is there; goes on where an earlier run was stopped.

    Raises:
        InputError: no archive or no table there, nothing that can be converted, or options that cannot be met.
    """
    _check_options(options)
    source, output = Path(os.path.abspath(source)), Path(os.path.abspath(output))
    check_folders(source, output)
    table = read_table(options.table or find_table(source))
    if not table.labelled and options.splits.folds:
        raise InputError(f"--folds {options.splits.folds}: {table.path} has no labels; all its images go to test.json")
    archive = find_images(source, "train" if table.labelled else "test")
    chosen = _choose(table, archive, options)
    if not chosen.rows:
        raise InputError(
            f"{source}: none of the {len(archive.files)} images there has a row in {table.path} (with --views "
            f"{options.views}); is it the table of another archive?"
        )
    meaning = _meaning(source, table, options)
    summary = Summary(meaning.source_name, str(source), str(output), quarantine=list(table.quarantine))
    summary.quarantine += [
        Quarantined("image", row.name, f"has a row (line {row.line} of {table.path.name}) but no file")
        for row in chosen.absent
    ]
    results = _convert_all(chosen, source, output, options)
    done: list[tuple[ImageRow, ImageFacts]] = []
    for row, path, result in zip(chosen.rows, chosen.files, results, strict=True):
        if isinstance(result, str):
            summary.quarantine.append(quarantined(row, path, source, result))
        else:
            done.append((row, result))
    if not done:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in summary.quarantine[-3:])
        raise InputError(f"{source}: no image could be converted ({reasons})")
    if options.pixels.file_format == "reference":
        link_archive(source, output, "--format png16")
    records = [make_record(row, facts, meaning) for row, facts in done]
    _count(summary, table, chosen, done, records)
    _warn(summary, table, archive, chosen, done, options)
    _warn_of_sites(summary, [row for row, _ in done], records)
    write_outputs(output, _CATEGORIES, records, _split(done, meaning, options), summary, has_lesions=False)
    return summary


def _check_options(options: RsnaOptions) -> None:
    pixels, splits = options.pixels, options.splits
    for name, value, allowed in (
        ("format", pixels.file_format, FORMATS),
        ("views", options.views, VIEWS),
        ("negatives", options.negatives, NEGATIVES),
    ):
        if value not in allowed:
            raise InputError(f"--{name} {value}: expected one of {', '.join(allowed)}")
    if pixels.max_size is not None and pixels.max_size < 16:
        raise InputError(f"--max-size {pixels.max_size}: expected at least 16 px, or 0 for the archive's size")
    for name, given in (("--max-size", pixels.max_size is not None), ("--crop", pixels.crop)):
        if given and pixels.file_format == "reference":
            raise InputError(f"{name}: --format reference refers to the archive's own files; use --format png16")
    if options.limit_patients is not None and options.limit_patients < 1:
        raise InputError(f"--limit-patients {options.limit_patients}: expected at least 1")
    if options.jobs < 1:
        raise InputError(f"--jobs {options.jobs}: expected at least 1")
    check_shares(test_fraction=splits.test_fraction, val_fraction=splits.val_fraction, folds=splits.folds)


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
        rows=tuple(present),
        files=tuple(archive.files[row.patient, row.image] for row in present),
        absent=tuple(row for row in inside if (row.patient, row.image) not in archive.files),
        other_views=len(table.rows) - len(rows),
        beyond_limit=len(rows) - len(inside),
    )


def _meaning(source: Path, table: Table, options: RsnaOptions) -> RecordOptions:
    """Also whose patients these are."""
    meaning = RecordOptions(negatives=options.negatives, labelled=table.labelled)
    if is_synthetic({source, *source.glob("*/"), table.path.resolve().parent}):
        return replace(meaning, source_name="phantom", patient_prefix="phantom_rsna_")
    return meaning


def _convert_all(chosen: _Chosen, source: Path, output: Path, options: RsnaOptions) -> list[ImageFacts | str]:
    """Facts, or the reason why there are none, in the order of the rows; what an earlier run has finished is taken
    from its journal."""
    reference = options.pixels.file_format == "reference"
    results: dict[int, ImageFacts | str] = {}
    fingerprints = [canonical_hash(files_fingerprint([path])) for path in chosen.files]
    with Journal(output / JOURNAL, [mammodet.__version__, asdict(options.pixels), str(source)]) as journal:
        for number, row in enumerate(chosen.rows):
            entry = journal.get(row.name, fingerprints[number])
            if entry is not None and (reference or (output / entry["file_name"]).is_file()):
                results[number] = ImageFacts.from_json(entry)
        tasks = [
            (number, row, path, source, output, options.pixels)
            for number, (row, path) in enumerate(zip(chosen.rows, chosen.files, strict=True))
            if number not in results
        ]
        if tasks:
            # Until the new tables are written: images change under the old ones.
            remove_tables(output)
        how: dict[str, Any] = {"jobs": options.jobs, "name": "rsna", "progress": options.progress}
        # A header is read faster than it is passed to a process and back (benchmarks/convert_rsna.py).
        loop = (
            in_parallel(_convert_numbered, tasks, **how)
            if reference
            else in_processes(_convert_numbered, tasks, done=len(results), **how)
        )
        for number, result in loop:
            results[number] = result
            if not isinstance(result, str):
                # What refused a file may be mended without a change of the file: a permission, a missing decoder.
                journal.put(chosen.rows[number].name, fingerprints[number], asdict(result))
    for left in (output / "images").glob("*/.*.tmp.png"):  # of a run that was killed while it wrote
        left.unlink(missing_ok=True)
    return [results[number] for number in range(len(chosen.rows))]


def _convert_numbered(number: int, *task: Any) -> tuple[int, ImageFacts | str]:
    return number, convert_image(*task)


def _split(done: Sequence[tuple[ImageRow, ImageFacts]], meaning: RecordOptions, options: RsnaOptions) -> Splits:
    """Women of each site with and without cancer, in equal shares; a table without labels is the test set."""
    strata: dict[str, str] = {}
    for row, _ in done:
        patient = f"{meaning.patient_prefix}{row.patient}"
        strata[patient] = max(strata.get(patient, ""), f"cancer {row.cancer} site {row.site}")
    chosen = options.splits
    return make_splits(
        strata,
        test_fraction=chosen.test_fraction,
        val_fraction=chosen.val_fraction,
        folds=chosen.folds,
        seed=chosen.seed,
        given=None if meaning.labelled else dict.fromkeys(strata, "test"),
    )


def _counts_of(values: Sequence[Any]) -> dict[str, int]:
    return dict(sorted(Counter("blank" if value is None else str(value) for value in values).items()))


def _count(
    summary: Summary,
    table: Table,
    chosen: _Chosen,
    done: Sequence[tuple[ImageRow, ImageFacts]],
    records: Sequence[ImageRecord],
) -> None:
    rows = [row for row, _ in done]
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
        summary.counts[name] = _counts_of([facts.kinds[name] for _, facts in done if name in facts.kinds])
    left = chosen.other_views + chosen.beyond_limit
    lost = sum(item.what in ("row", "image") for item in summary.quarantine)
    if len(records) + left + lost != summary.counts["rows"]:
        raise AssertionError(f"{summary.counts['rows']} rows: {len(records)} converted, {left} left out, {lost} lost")


def _warn(
    summary: Summary,
    table: Table,
    archive: Archive,
    chosen: _Chosen,
    done: Sequence[tuple[ImageRow, ImageFacts]],
    options: RsnaOptions,
) -> None:
    warn = summary.warnings.append
    if chosen.absent:
        warn(f"{len(chosen.absent)} rows have no file in this part of the archive; quarantine.csv lists them")
    if table.quarantine:
        warn(f"{len(table.quarantine)} rows of the table cannot be used (quarantine.csv)")
    _warn_of_files(summary, table, archive)
    _warn_of_headers(summary, done)
    others = [row.name for row, facts in done if "bits stored" not in facts.kinds]
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


def _warn_of_headers(summary: Summary, done: Sequence[tuple[ImageRow, ImageFacts]]) -> None:
    """Headers that say something else than the table."""
    found: Mapping[str, list[str]] = {name: [] for name in ("laterality", "view", "patient")}
    for row, facts in done:
        for name, text in contradictions(row, facts).items():
            found[name].append(text)
    summary.checks["headers"] = {f"{name} said by": sum(name in facts.said for _, facts in done) for name in found} | {
        f"{name} contradicts": len(texts) for name, texts in found.items()
    }
    for name, texts in found.items():
        if texts:
            summary.warnings.append(
                f"{len(texts)} headers contradict the table's {name}; the table was believed: {'; '.join(texts[:5])}"
                + (" ..." if len(texts) > 5 else "")
            )
