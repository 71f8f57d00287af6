"""The server of the reading page and of `POST /v1/predict` (docs/view.md).

Every request needs the token and names this server as its host, which a page of another site cannot make a browser do
(DNS rebinding). Images and exams are numbers, so that no path comes from outside. Bodies, the images that are read at a
time and the predictions that wait are bounded.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mammodet.api import Predictor
from mammodet.data.coco import to_json
from mammodet.data.images import Pixels
from mammodet.data.predictions import prediction_to_json
from mammodet.errors import InputError, faults_of
from mammodet.serving.page import STATIC, page
from mammodet.serving.study import Study
from mammodet.serving.verdicts import ConflictError, ImageVerdict, VerdictStore

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
MOST_UPLOAD_BYTES = 2**28
MOST_VERDICT_BYTES = 2**18
IMAGES_AT_ONCE = 4  # read and sent; others wait
SEND_SECONDS = 60.0  # for the pixels of one image
_SUFFIXES = {b"\x89PNG\r\n\x1a\n": ".png"}


class Guard:
    """Refuses requests without the token, of another host, or with too large a body; adds the security headers."""

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        left = MOST_UPLOAD_BYTES if scope["path"] == "/v1/predict" else MOST_VERDICT_BYTES

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, "the body is too large")
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            await JSONResponse({"error": refused[1]}, refused[0])(scope, receive, with_headers)
            return
        await self.app(scope, bounded, with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        origin = headers.get(b"origin", b"").decode("latin-1")
        if headers.get(b"host", b"").decode("latin-1").lower() not in self.hosts:
            return 403, "this server answers under its own address only"
        if origin and urlsplit(origin).netloc.lower() not in self.hosts:
            return 403, "the request comes from another site"
        given = headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
        given = given or parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return 401, "the token is missing or wrong; use the whole address that mammodet view printed"
        return None


class PredictionQueue:
    """Predicts one upload at a time, in the order in which they came.

    Args:
        load: gives the model, at the first upload.
        most: uploads that wait or are predicted.
        seconds: after which a request is answered with a timeout.
    """

    def __init__(self, load: Callable[[], Predictor], most: int = 8, seconds: float = 120.0) -> None:
        self.most, self.seconds, self._load = most, seconds, load
        self._worker = ThreadPoolExecutor(1, "predict")
        self._model: Predictor | None = None
        self._count = 0

    async def answer(self, request: Request) -> dict[str, Any]:
        """Take an upload and predict it."""
        if self._count >= self.most:
            raise HTTPException(503, f"{self._count} images wait already", {"Retry-After": "10"})
        self._count += 1
        folder = Path(tempfile.mkdtemp(prefix="mammodet-"))
        job: Future[dict[str, Any]] | None = None
        try:
            async with asyncio.timeout(self.seconds):
                path = await _store_upload(request, folder)
                job = self._worker.submit(self._predict, path)
                return await asyncio.wrap_future(job)
        except TimeoutError:
            raise HTTPException(504, f"no answer within {self.seconds:g} s") from None
        finally:
            if job is None:
                self._end(folder)
            else:  # a running prediction cannot be stopped: its place is free when it ends
                loop = asyncio.get_running_loop()
                job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._end, folder))

    def _end(self, folder: Path) -> None:
        self._count -= 1
        shutil.rmtree(folder, ignore_errors=True)

    def _predict(self, path: Path) -> dict[str, Any]:
        try:
            self._model = self._model or self._load()
            results = self._model.predict(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), "upload")) from None
        if not results:
            raise InputError((results.skipped or results.left_out)[0].reason.replace(str(path), "upload"))
        found = prediction_to_json(results[0].prediction)
        for name in ("image_id", "file_name"):
            del found[name]
        categories = [{"id": number, "name": name} for number, name in enumerate(self._model.categories, 1)]
        return {"model": repr(self._model), "categories": categories, **found}


async def _store_upload(request: Request, folder: Path) -> Path:
    """Write the body, or the one file of a form, under a name of ours; its first bytes say its kind."""
    part = folder / "upload.part"
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        form = await request.form(max_files=1, max_fields=0)
        uploads = [each for each in form.values() if isinstance(each, UploadFile)]
        if len(uploads) != 1:
            raise HTTPException(422, "expected one file in the form")
        with open(part, "wb") as file:
            await run_in_threadpool(shutil.copyfileobj, uploads[0].file, file)
        await form.close()
    else:
        with open(part, "wb") as file:
            async for chunk in request.stream():
                file.write(chunk)
    with open(part, "rb") as file:
        start = file.read(132)
    suffix = ".dcm" if start[128:] == b"DICM" else _SUFFIXES.get(start[:8])
    if suffix is None:
        raise HTTPException(415, "expected a DICOM file (with its preamble) or a PNG")
    return part.rename(part.with_suffix(suffix))


class PixelResponse(Response):
    """Grey pixels row by row, 8 bit or 16 bit with the low byte first; X-Image says height, width and bits.

    They are read when their turn comes, so that many requests take the memory of a few images.
    """

    def __init__(self, read: Callable[[], Pixels], turns: asyncio.Semaphore) -> None:
        self._read, self._turns = read, turns
        super().__init__(media_type="application/octet-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._turns:
            pixels = await run_in_threadpool(self._read)
            bits = 8 * pixels.dtype.itemsize
            content = pixels.astype("<u2" if bits == 16 else "u1", copy=False).tobytes()
            sizes = {"X-Image": f"{pixels.shape[0]},{pixels.shape[1]},{bits}"}
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await Response(content, headers=sizes, media_type=self.media_type)(scope, receive, send)
            except TimeoutError:
                return  # the server closes the connection, which lacks bytes


def make_app(study: Study, store: VerdictStore, queue: PredictionQueue, token: str, hosts: frozenset[str]) -> Starlette:
    """The application.

    Args:
        token: that every request must carry, as `?token=` or `Authorization: Bearer`.
        hosts: values of the Host header that are answered, such as `127.0.0.1:8000`.
    """
    turns = asyncio.Semaphore(IMAGES_AT_ONCE)

    def image_number(request: Request) -> int:
        number: int = request.path_params["image"]
        if number >= len(study.images):
            raise HTTPException(404, "no such image")
        return number

    async def index(request: Request) -> Response:
        return Response(page(study.title, token=token), media_type="text/html; charset=utf-8")

    async def script(request: Request) -> Response:
        return Response((STATIC / "viewer.js").read_bytes(), media_type="text/javascript; charset=utf-8")

    async def style(request: Request) -> Response:
        return Response((STATIC / "viewer.css").read_bytes(), media_type="text/css; charset=utf-8")

    async def overview(request: Request) -> Response:
        value = await run_in_threadpool(study.overview)
        verdicts = [store.of(number).model_dump(mode="json") for number in range(len(study.images))]
        return JSONResponse({**value, "verdicts": verdicts})

    async def details(request: Request) -> Response:
        exam: int = request.path_params["exam"]
        if exam >= len(study.exams):
            raise HTTPException(404, "no such exam")
        return JSONResponse(await run_in_threadpool(study.details, exam))

    async def pixels(request: Request) -> Response:
        number, asked = image_number(request), request.query_params.get("window", "0")
        if asked != "none" and not (asked.isdecimal() and len(asked) < 4):
            raise HTTPException(422, "window: expected a number or 'none'")
        window = None if asked == "none" else int(asked)
        return PixelResponse(lambda: study.pixels(number, window), turns)

    async def verdict(request: Request) -> Response:
        number = image_number(request)
        try:
            given = ImageVerdict.model_validate_json(await request.body())
            stored = await run_in_threadpool(store.save, number, given)
        except ValidationError as error:
            raise HTTPException(422, "; ".join(faults_of(error))) from None
        except ConflictError as conflict:
            return JSONResponse({"error": str(conflict), "stored": conflict.stored.model_dump(mode="json")}, 409)
        return JSONResponse(stored.model_dump(mode="json"))

    async def export(request: Request) -> Response:
        value = to_json(await run_in_threadpool(store.corrected))
        return Response(
            json.dumps(value),
            media_type="application/json",
            headers={"Content-Disposition": 'attachment; filename="corrected.json"'},
        )

    async def predict(request: Request) -> Response:
        return JSONResponse(await queue.answer(request))

    async def wrong_input(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 422)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/viewer.js", script),
            Route("/viewer.css", style),
            Route("/api/study", overview),
            Route("/api/exams/{exam:int}", details),
            Route("/api/images/{image:int}/pixels", pixels),
            Route("/api/images/{image:int}/verdict", verdict, methods=["PUT"]),
            Route("/api/export", export),
            Route("/v1/predict", predict, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, token=token, hosts=hosts)],
        exception_handlers={InputError: wrong_input, HTTPException: refused},
    )


__all__ = ["PredictionQueue", "make_app"]
