"""Predictions on disk while images are predicted: written one by one, taken up again after an interruption."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Self

from mammodet.data.breasts import breasts_of
from mammodet.data.patient_keys import PatientKey
from mammodet.data.predictions import prediction_from_json, prediction_to_json
from mammodet.errors import InputError
from mammodet.records import Dataset, ImagePrediction


class Partial:
    """A file of one line for each image that is done, and where each begins.

    Args:
        path: made anew where it is not of the same task.
        task: hash of all that decides the predictions.
    """

    def __init__(self, path: Path, task: str) -> None:
        self.path, self._header = path, {"key": task}
        self.places: dict[int, int] = {}
        self._file: BinaryIO = open(path, "a+b")  # noqa: SIM115  # open as long as this
        end = self._read()
        self._file.truncate(end)  # a line that was cut short is dropped
        self._file.seek(end)
        if not end:
            self._write(self._header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, prediction: ImagePrediction) -> None:
        """Write one image, so that it is kept whatever happens next."""
        self.places[prediction.image_id] = self._file.seek(0, os.SEEK_END)
        self._write(prediction_to_json(prediction))

    def take(self, path: Path) -> None:
        """Add what is done in the file of a share. Raises InputError: it is of another task."""
        with open(path, "rb") as file:
            header = file.readline()
            if header.endswith(b"\n") and json.loads(header) != self._header:
                raise InputError(
                    f"{path.parent}: holds predictions by another model, of other images or with other options; give "
                    "those of --shard, or remove the folder to predict anew"
                )
            for line in file:
                if line.endswith(b"\n") and (number := json.loads(line)["image_id"]) not in self.places:
                    self.places[number] = self._file.seek(0, os.SEEK_END)
                    self._file.write(line)
        self._file.flush()

    def keep_breasts(self, dataset: Dataset) -> None:
        """Forget what is done of breasts that are not done as a whole."""
        breasts = [[dataset.images[row].image_id for row in rows] for rows in breasts_of(dataset.images).values()]
        kept = (ids for ids in breasts if all(number in self.places for number in ids))
        self.places = {number: self.places[number] for ids in kept for number in ids}

    def read(self, image_id: int) -> ImagePrediction:
        """What was written of an image."""
        self._file.seek(self.places[image_id])
        return prediction_from_json(json.loads(self._file.readline()), "partial")

    def _write(self, value: Any) -> None:
        self._file.write(json.dumps(value).encode() + b"\n")
        self._file.flush()

    def _read(self) -> int:
        """Find the lines of the same task; answers where the last whole one ends."""
        self._file.seek(0)
        end = 0
        try:
            if json.loads(self._file.readline()) != self._header:
                return 0
            end = self._file.tell()
            while (line := self._file.readline()).endswith(b"\n"):
                self.places[prediction_from_json(json.loads(line), "partial").image_id] = end
                end = self._file.tell()
        except ValueError:
            pass
        return end


class Written(Sequence[ImagePrediction]):
    """Predictions in the order of a data set, read from a partial file whenever they are asked for.

    Args:
        key: hashes their patient ids.
    """

    def __init__(self, partial: Partial, dataset: Dataset, key: PatientKey | None) -> None:
        self._partial, self._key = partial, key
        self._ids = [record.image_id for record in dataset.images if record.image_id in partial.places]

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, row: Any) -> Any:
        found = self._partial.read(self._ids[row])
        if self._key is None or found.patient_id is None:
            return found
        return replace(found, patient_id=self._key.hash(found.patient_id))
