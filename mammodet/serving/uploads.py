"""Uploads: one image to be answered (`POST /v1/predict`), or a study for the page to show.

A single queue predicts both, one upload at a time. Bodies, files and images of an upload are bounded; names are made
anew, and the first bytes of a file say its kind.
"""

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from mammodet.api import Predictor, Results
from mammodet.data.inputs import Inputs, gather
from mammodet.data.predictions import Answer, Category, prediction_to_json, read_predictions
from mammodet.errors import InputError
from mammodet.evaluation.calibration_file import read_calibration, write_calibration
from mammodet.serving.study import Study, bare_inputs
from mammodet.serving.verdicts import VerdictStore

MOST_UPLOAD_BYTES = 2**28
MOST_FILES = 500
MOST_IMAGES = 200  # of an upload, unpacked
MOST_FOLDERS = 6  # of a name, the last ones
IMAGES = (".png", ".dcm")
STUDIES = (*IMAGES, ".zip")
_MAGIC = ((0, b"\x89PNG\r\n\x1a\n", ".png"), (128, b"DICM", ".dcm"), (0, b"PK\x03\x04", ".zip"))
T = TypeVar("T")


class Stored(NamedTuple):
    """Files of an upload in a folder of their own, and what was refused."""

    folder: Path
    files: tuple[Path, ...]
    refused: tuple[str, ...] = ()


class ImageAnswer(Answer):
    """What `POST /v1/predict` answers."""

    model: str
    categories: list[Category]


class Fault(TypedDict):
    """What every refusal answers."""

    error: str


class PredictionQueue:
    """Works on one upload at a time, in the order in which they came.

    Args:
        load: gives the model, at the first upload.
        most: uploads that are received, wait or are predicted.
        seconds: after which a request is answered with a timeout.
    """

    def __init__(self, load: Callable[[], Predictor], most: int = 8, seconds: float = 120.0) -> None:
        self.most, self.seconds, self._load = most, seconds, load
        self._worker = ThreadPoolExecutor(1, "predict")
        self._model: Predictor | None = None
        self._count = 0

    async def add(
        self, request: Request, work: Callable[[Predictor, Stored], T], kinds: tuple[str, ...], most_files: int
    ) -> Future[T]:
        """Receive an upload, and have it worked on when its turn comes; its folder is removed after that."""
        if self._count >= self.most:
            raise HTTPException(503, f"{self._count} uploads wait already", {"Retry-After": "10"})
        self._count += 1
        folder = Path(tempfile.mkdtemp(prefix="mammodet-"))
        try:
            stored = await _receive(request, folder, kinds, most_files)
            job = self._worker.submit(self._run, work, stored, folder)
        except BaseException:
            self._count -= 1
            shutil.rmtree(folder, ignore_errors=True)
            raise
        # a running prediction cannot be stopped: its place is free when it ends
        loop = asyncio.get_running_loop()
        job.add_done_callback(lambda _: self._free_place(loop))
        return job

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Answers with a timeout what takes too long."""
        try:
            async with asyncio.timeout(self.seconds):
                yield
        except TimeoutError:
            raise HTTPException(504, f"no answer within {self.seconds:g} s") from None

    def _free_place(self, loop: asyncio.AbstractEventLoop) -> None:
        def end() -> None:
            self._count -= 1

        with suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(end)

    def _run(self, work: Callable[[Predictor, Stored], T], stored: Stored, folder: Path) -> T:
        try:
            self._model = self._model or self._load()
            return work(self._model, stored)
        except InputError as error:
            raise InputError(_without(str(error), stored)) from None
        finally:  # here, since the server may end before
            shutil.rmtree(folder, ignore_errors=True)


def answer_image(model: Predictor, stored: Stored) -> ImageAnswer:
    """The prediction of an image."""
    results = model.predict(stored.files[0])
    if not results:
        raise InputError((results.skipped or results.left_out)[0].reason)
    found = prediction_to_json(results[0].prediction)
    for name in ("image_id", "file_name"):
        del found[name]
    categories = [Category(id=number, name=name) for number, name in enumerate(model.categories, 1)]
    return {"model": repr(model), "categories": categories, **found}  # type: ignore[typeddict-item]


class Shown(NamedTuple):
    """A study with its verdicts; the page knows it by its position."""

    study: Study
    store: VerdictStore


@dataclass(frozen=True)
class Uploads:
    """Studies that were uploaded, each in a folder with `images/`, `predictions.json` and `verdicts.json`."""

    folder: Path
    shown: list[Shown]  #: what the page shows, to which they are added

    def reopen(self) -> None:
        """Show what was uploaded before."""
        for path in sorted(self.folder.glob("*/predictions.json")):
            try:
                self._show(path.parent)
            except InputError as error:
                raise InputError(f"{path.parent}: {error}; to forget this upload, delete its folder") from None

    def add(self, say: Callable[[dict[str, Any]], None], model: Predictor, stored: Stored) -> dict[str, Any]:
        """Predict a study and show it.

        Args:
            say: is given `done` and `of` after each image.
        Returns:
            the number of the `study`, and what was `skipped`.
        """
        inputs = gather(stored.files, model.categories, unpack_to=stored.folder / "unpacked")
        total = len(inputs.dataset.images)
        if total > MOST_IMAGES:
            raise InputError(
                f"the upload has {total} images; expected {MOST_IMAGES} or fewer: name them on the command line of "
                "mammodet view"
            )
        say({"done": 0, "of": total})
        results = model.predict(
            inputs.dataset, root=inputs.root, progress=lambda done: say({"done": done, "of": total})
        )
        skipped = [f"{item.file_name}: {item.reason}" for item in (*inputs.skipped, *inputs.left_out, *results.skipped)]
        if not results:
            raise InputError("no image could be predicted; " + "; ".join(skipped[:3]))
        self._show(self._keep(model, stored, inputs, results))
        return {
            "study": len(self.shown) - 1,
            "skipped": [*stored.refused, *(_without(text, stored) for text in skipped)],
        }

    def _keep(self, model: Predictor, stored: Stored, inputs: Inputs, results: Results) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        names = [*os.listdir(self.folder), *(one.store.path.parent.name for one in self.shown)]  # deleted ones, too
        folder = self.folder / f"{max((int(name) for name in names if name.isdecimal()), default=0) + 1:03d}"
        try:
            for file in stored.files:
                if file.suffix == ".zip":
                    file.unlink()
            folder.mkdir()
            shutil.move(inputs.root, folder / "images")
            if model.calibration is not None:
                write_calibration(model.calibration, folder / "calibration.json")
            results.save(folder / "predictions.json")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def _show(self, folder: Path) -> None:
        predictions, points = read_predictions(folder / "predictions.json"), folder / "calibration.json"
        calibration = read_calibration(points) if points.exists() else None
        inputs = bare_inputs(predictions, folder / "images")
        study = Study.of(f"upload {folder.name}", inputs, predictions, calibration)
        self.shown.append(Shown(study, VerdictStore(study, folder)))


async def _receive(request: Request, folder: Path, kinds: tuple[str, ...], most: int) -> Stored:
    """Write the body, or the files of a form, under names of ours."""
    place = folder / "files"
    place.mkdir()
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=most, max_fields=0) as form:
            files = [each for _, each in form.multi_items() if isinstance(each, UploadFile)]
            taken = [await run_in_threadpool(_store, each.file, place, each.filename or "", kinds) for each in files]
            names = [each.filename or "" for each in files]
    else:
        with tempfile.TemporaryFile() as body:
            async for chunk in request.stream():
                body.write(chunk)
            taken, names = [await run_in_threadpool(_store, body, place, "upload", kinds)], ["upload"]
    expected = "a DICOM file (with its preamble), a PNG or a zip file" if ".zip" in kinds else "a DICOM file or a PNG"
    if not any(taken):
        raise HTTPException(415, f"expected {expected}")
    refused = [f"{name}: is not {expected}" for name, path in zip(names, taken, strict=True) if path is None]
    return Stored(folder, tuple(path for path in taken if path is not None), tuple(refused))


def _store(source: IO[bytes], place: Path, name: str, kinds: tuple[str, ...]) -> Path | None:
    """The file under a name of safe letters in folders of such; None if its first bytes are those of another kind."""
    source.seek(0)
    start = source.read(132)
    suffix = next((suffix for at, magic, suffix in _MAGIC if start[at : at + len(magic)] == magic), None)
    if suffix not in kinds:
        return None
    parts = re.split(r"[/\\]", re.sub(r"\.(dcm|dicom|png|zip)$", "", name, flags=re.IGNORECASE))
    *folders, stem = (re.sub(r"[^A-Za-z0-9]+", "_", part)[:80].strip("_") for part in parts[-MOST_FOLDERS:])
    stem, place = stem or "image", place.joinpath(*folders)
    place.mkdir(parents=True, exist_ok=True)
    stems = chain([stem], (f"{stem}_{number}" for number in count(2)))
    path = next(path for path in (place / f"{each}{suffix}" for each in stems) if not path.exists())
    source.seek(0)
    with open(path, "xb") as file:
        shutil.copyfileobj(source, file)
    return path


def _without(text: str, stored: Stored) -> str:
    """A message without the folder that the files lie in."""
    for folder in (stored.folder / "files", stored.folder / "unpacked", stored.folder):
        text = text.replace(f"{folder}/", "").replace(str(folder), "upload")
    return text


__all__ = ["ImageAnswer", "PredictionQueue", "Shown", "Stored", "Uploads", "answer_image"]
