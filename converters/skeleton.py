"""What every conversion is: find the archive, name its rows, convert each, and write the data set.

An archive is a subclass of `Converter` that brings `find`, `rows` and `convert_one`. The skeleton owns the rest: checks
of the folders, the journal, threads or processes, clusters, progress, quarantine, splits and summary.
"""

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from mammodet.converters.base import (
    ARCHIVE_LINK,
    Quarantined,
    Reason,
    Summary,
    check_folders,
    link_archive,
    remove_tables,
    split_records,
    write_outputs,
)
from mammodet.converters.journal import Journal, files_fingerprint
from mammodet.converters.options import Options
from mammodet.data.coco import from_json, to_json
from mammodet.data.splits import Splits
from mammodet.errors import InputError
from mammodet.files import canonical_hash
from mammodet.parallel import in_parallel, in_processes, on_backend
from mammodet.records import Dataset, ImageRecord
from mammodet.synthetic import is_synthetic
from mammodet.version import VERSION

JOURNAL = "converted.jsonl"
OptionsT = TypeVar("OptionsT", bound=Options)
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a row."""

    record: ImageRecord | None  #: None where the image is quarantined
    quarantine: tuple[Quarantined, ...] = ()
    facts: Any = None  #: for the archive's counts and checks; JSON, where there is a journal


def refused(what: str, name: str, error: object, file: Path | str, reason: Reason = Reason.UNREADABLE) -> Made:
    """A row whose file cannot be used."""
    return Made(None, (Quarantined(reason, what, name, str(error), str(file)),))


class Converter(ABC, Generic[OptionsT, Row]):
    """The conversion of one archive; Row is what `convert_one` needs of an image.

    Attributes:
        NAME: of the archive, in records, splits and messages.
        options_type: its options.
        has_lesions: it has lesions with a place; knows_patients: it says whose the images are.
        categories: names of the data set's categories, at the latest after `rows`.
        phantom: its licence says that the archive is synthetic: nobody may take its patients for real ones.
    """

    NAME: ClassVar[str]
    options_type: ClassVar[type[Options]]
    has_lesions: ClassVar[bool] = True
    knows_patients = True
    categories: Sequence[str] = ("lesion",)
    phantom = False

    def __init__(self, source: Path, output: Path, options: OptionsT) -> None:
        self.options = options
        # the same on a cluster's machines
        self.source, self.output = Path(os.path.abspath(source)), Path(os.path.abspath(output))
        self.summary = Summary(self.NAME, str(source), str(output))
        self.quarantine, self.warnings = self.summary.quarantine, self.summary.warnings

    # What an archive brings

    @abstractmethod
    def find(self) -> None:
        """Look at the source, and refuse what is not this archive.

        Raises InputError: no archive there, or options that cannot be met.
        """

    @abstractmethod
    def rows(self) -> Sequence[Row]:
        """What is converted, in the order of the data set; what cannot be goes to `quarantine`."""

    @staticmethod
    @abstractmethod
    def convert_one(row: Row, how: Any) -> Made:
        """Convert a row, and write its image; `how` is what `how()` gives. It may run in another process."""

    # What an archive may say

    def how(self) -> Any:
        """What `convert_one` needs beside a row."""
        return self.output, self.options

    def synthetic_folders(self) -> set[Path]:
        """Where the licence of a phantom would lie."""
        return {self.source}

    def uses_processes(self) -> bool:
        """Whether processes do the work, as decoding by Python needs them; else threads."""
        return False

    def refers(self) -> bool:
        """Whether the data set links to the archive's files, and holds no copies."""
        return False

    def settings(self) -> Any:
        """What all results depend on (JSON)."""
        return None

    def complete(self, done: Sequence[tuple[Row, Made]]) -> list[ImageRecord]:
        """Records with what only all rows together say, or what the journal does not depend on."""
        return [made.record for _, made in done if made.record is not None]

    def given(self) -> Mapping[str, str] | None:
        """Patient to the subset that the archive gives; None divides all patients by shares."""
        return None

    def split(self, records: Sequence[ImageRecord]) -> Splits:
        """Who is where."""
        return split_records(records, self.options.splits, self.given())

    @abstractmethod
    def describe(self, records: Sequence[ImageRecord], done: Sequence[tuple[Row, Made]]) -> None:
        """Add counts, checks and warnings to `summary`; `done` are the rows that have a record."""

    # The conversion

    @classmethod
    def convert(cls, source: Path, output: Path, options: OptionsT | None = None) -> Summary:
        """Convert an archive.

        Raises InputError: no archive there, nothing in it that can be converted, or options that cannot be met.
        """
        chosen: Any = options if options is not None else cls.options_type()
        return cls(Path(source), Path(output), chosen).run()

    def run(self) -> Summary:
        """Find, convert, write."""
        self.options.check_splits()
        check_folders(self.source, self.output)
        self.find()
        self.phantom = is_synthetic(self.synthetic_folders())
        if self.phantom:
            self.summary.archive = "phantom"
        rows = list(self.rows())
        made = self._convert(rows)
        done: list[tuple[Row, Made]] = []
        for row, each in zip(rows, made, strict=True):
            self.quarantine.extend(each.quarantine)
            if each.record is not None:
                done.append((row, each))
        done = self._without_doubles(done)
        if not done:
            lost = [item for each in made for item in each.quarantine] or self.quarantine
            reasons = "; ".join(f"{item.name}: {item.reason}" for item in lost[:3])
            raise InputError(f"{self.source}: no image could be converted ({reasons or 'it is empty'})")
        if self.refers():
            link_archive(self.source, self.output, "another --format")
        records = self.complete(done)
        self.describe(records, done)
        write_outputs(
            self.output,
            self.categories,
            records,
            self.split(records),
            self.summary,
            has_lesions=self.has_lesions,
            knows_patients=self.knows_patients,
        )
        return self.summary

    def _without_doubles(self, done: Sequence[tuple[Row, Made]]) -> list[tuple[Row, Made]]:
        """Images with files and ids of their own: of several that share one nobody knows which is right."""
        records = [made.record for _, made in done if made.record is not None]
        files = Counter(record.file_name for record in records)
        ids = Counter(record.image_id for record in records)
        kept: list[tuple[Row, Made]] = []
        for (row, made), record in zip(done, records, strict=True):
            if files[record.file_name] == ids[record.image_id] == 1:
                kept.append((row, made))
            else:
                reason = f"{files[record.file_name]} images lead to this file, {ids[record.image_id]} have its id"
                self.quarantine.append(Quarantined(Reason.DUPLICATE, "image", record.file_name, reason))
        return kept

    def _convert(self, rows: Sequence[Row]) -> list[Made]:
        """Results in the order of the rows; what an earlier run has finished is taken from its journal."""
        results: dict[int, Made] = {}
        with ExitStack() as stack:
            journal: Journal | None = None
            prints: list[str] = []
            if isinstance(self, Resumable):
                settings = [VERSION, self.settings(), str(self.source)]
                journal = stack.enter_context(Journal(self.output / JOURNAL, settings))
                prints = [canonical_hash(_plain(self.fingerprint(row))) for row in rows]
                for number, row in enumerate(rows):
                    found = self._from_entry(journal.get(self.key(row), prints[number]))
                    if found is not None:
                        results[number] = found
            waiting = [
                (number, self.convert_one, row, self.how()) for number, row in enumerate(rows) if number not in results
            ]
            if waiting:
                # Until the new tables are written: images change under the old ones.
                remove_tables(self.output)
            for number, made in self._work(waiting, len(results)):
                results[number] = made
                # What refused a file may be mended without a change of the file: a permission, a missing decoder.
                if isinstance(self, Resumable) and journal and not any(item.file for item in made.quarantine):
                    journal.put(self.key(rows[number]), prints[number], self._to_entry(made))
        return [results[number] for number in range(len(rows))]

    def _work(self, waiting: Sequence[tuple[Any, ...]], done: int) -> Iterator[tuple[int, Made]]:
        how: dict[str, Any] = {"jobs": self.options.jobs, "name": self.NAME, "progress": self.options.progress}
        if not self.uses_processes():
            yield from in_parallel(_numbered, waiting, **how)
            return
        backend, scheduler = (
            getattr(self.options, name, None) if waiting else None for name in ("backend", "scheduler")
        )
        with on_backend(backend, scheduler):
            yield from in_processes(_numbered, waiting, done=done, **how)

    def _to_entry(self, made: Made) -> dict[str, Any]:
        dataset = to_json(Dataset(tuple(self.categories), (made.record,))) if made.record else None
        return {"dataset": dataset, "quarantine": [asdict(item) for item in made.quarantine], "facts": made.facts}

    def _from_entry(self, entry: Any) -> Made | None:
        """A result of the journal; None where there is none, or its image file is gone."""
        if entry is None:
            return None
        record = from_json(entry["dataset"], where=JOURNAL).images[0] if entry["dataset"] else None
        if record and not record.file_name.startswith(ARCHIVE_LINK) and not (self.output / record.file_name).is_file():
            return None
        lost = tuple(Quarantined(**{**item, "kind": Reason(item["kind"])}) for item in entry["quarantine"])
        return Made(record, lost, entry["facts"])


class Resumable(Converter[OptionsT, Row]):
    """A conversion that keeps a journal, so that a run that was ended goes on where it was."""

    @abstractmethod
    def key(self, row: Row) -> str:
        """Name of a row in the journal."""

    @abstractmethod
    def fingerprint(self, row: Row) -> Any:
        """What the result of a row depends on, beside `settings`; paths stand for their files' size and time."""


def _numbered(number: int, work: Any, row: Any, how: Any) -> tuple[int, Made]:
    return number, work(row, how)


def _plain(value: Any) -> Any:
    """A fingerprint as JSON."""
    if isinstance(value, Path):
        return files_fingerprint([value])
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
