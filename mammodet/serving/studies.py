"""Studies that the DICOM node received, and what became of each, on disk: a killed node goes on where it was.

| in the node's folder | what |
|---|---|
| `studies/UID/images/`, `results/` | a study that was not answered yet, and what was predicted of it |
| `studies/UID/journal.json` | there once it was predicted: which objects were not sent yet, or why there is no answer |
| `answered/UID.json` | the same once all objects were sent; the study's files are removed then |
| `quarantine/` | instances that cannot be read, named by their SHA-256, each with its reason |
"""

import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mammodet.errors import InputError
from mammodet.files import file_hash, read_json, write_json


@dataclass(frozen=True, slots=True)
class Limits:
    """Most bytes of an instance, most instances of a study, and the seconds after which it is complete."""

    instance_bytes: int = 2**28
    instances: int = 200
    complete_s: float = 120.0


class Entry(BaseModel):
    """A journal's entry of a study that was predicted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: tuple[str, ...]  #: names of the files that were looked at, or were to be
    unsent: tuple[str, ...] = ()  #: names of objects in `results/dicom`
    refused: str | None = None  #: why there is no answer
    time: str = ""


class Studies:
    """The studies of a folder; safe to use from several threads. Raises InputError: a journal is damaged."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.arriving = folder / "arriving"  # files that belong to no study yet
        self._lock = threading.Lock()
        self._due: dict[str, float] = {}  # when a study is to be predicted or sent, in monotonic seconds
        shutil.rmtree(self.arriving, ignore_errors=True)
        for name in ("arriving", "studies", "answered", "quarantine"):
            (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted((folder / "studies").iterdir(), key=lambda path: path.stat().st_mtime):
            if self._answered(path.name) is not None:  # killed in between
                shutil.rmtree(path)
            elif any((path / "images").glob("*.dcm")) and ((entry := self.entry(path.name)) is None or entry.unsent):
                self._due[path.name] = time.monotonic() + (limits.complete_s if entry is None else 0)

    @property
    def waiting(self) -> int:
        """Studies that were neither answered nor refused."""
        return len(self._due)

    def place(self, study: str) -> Path:
        """Folder of a study."""
        return self.folder / "studies" / study

    def add(self, path: Path, study: str, instance: str) -> str | None:
        """Take a received file over, in place of one with the same UID; answers why it was not taken, or None.

        An instance that has its answer is taken and dropped. A study without an answer, which was refused, waits anew.
        """
        target = self.place(study) / "images" / f"{instance}.dcm"
        with self._lock:
            entry = self._answered(study) or self.entry(study)
            if entry is not None and entry.refused is None:
                path.unlink()
                return None if target.name in entry.images else "its study was answered already, without it"
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() and len(os.listdir(target.parent)) >= self.limits.instances:
                path.unlink()
                return f"its study has {self.limits.instances} instances already"
            os.replace(path, target)
            (self.place(study) / "journal.json").unlink(missing_ok=True)
            self._due[study] = time.monotonic() + self.limits.complete_s
        return None

    def quarantine(self, path: Path, reason: str, source: str) -> None:
        """Keep a copy of a file with the reason; the same content is kept once."""
        target = self.folder / "quarantine" / f"{file_hash(path)}.dcm"
        shutil.copyfile(path, target)
        write_json(target.with_suffix(".json"), {"from": source, "time": _now(), "reason": reason})

    def next(self) -> tuple[str, float] | None:
        """The study that is due the longest, and since when."""
        with self._lock:
            study = min(self._due, key=lambda name: self._due[name], default=None)
            return None if study is None or self._due[study] > time.monotonic() else (study, self._due[study])

    def entry(self, study: str) -> Entry | None:
        """What is known of a study that was predicted and not answered."""
        return _read(self.place(study) / "journal.json")

    def note(self, study: str, due: float, entry: Entry, wait_s: float = 0.0) -> bool:
        """Note what was done about a study; False if it has grown since `next` named it, and is due again later.

        Args:
            wait_s: until objects that were not sent are tried again.
        """
        with self._lock:
            if self._due[study] != due:
                return False
            is_answered = entry.refused is None and not entry.unsent
            path = self.folder / "answered" / f"{study}.json" if is_answered else self.place(study) / "journal.json"
            write_json(path, {**entry.model_dump(mode="json"), "time": _now()})
            if entry.unsent:
                self._due[study] = time.monotonic() + wait_s
            else:
                del self._due[study]
            if is_answered:
                shutil.rmtree(self.place(study))
        return True

    def _answered(self, study: str) -> Entry | None:
        return _read(self.folder / "answered" / f"{study}.json")


def _read(path: Path) -> Entry | None:
    if not path.exists():
        return None
    try:
        return Entry.model_validate(read_json(path))
    except ValidationError as error:
        raise InputError(f"{path}: is no journal of mammodet serve ({error.errors()[0]['msg']})") from None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
