"""The server of the reading page and of `POST /v1/predict` (docs/view.md).

Every request needs the token and names this server as its host, which a page of another site cannot make a browser do
(DNS rebinding). Studies, exams and images are numbers, so that no path comes from outside. Bodies, the answers that are
made at a time and the predictions that wait are bounded.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mammodet.data.coco import to_json
from mammodet.data.images import Pixels
from mammodet.errors import InputError, faults_of
from mammodet.evaluation.entries import as_text
from mammodet.reporting.case_links import POLICY as REPORT_POLICY
from mammodet.reporting.case_links import linked
from mammodet.reporting.gallery import render
from mammodet.serving.openapi import openapi
from mammodet.serving.page import STATIC, page
from mammodet.serving.uploads import (
    IMAGES,
    MOST_FILES,
    MOST_UPLOAD_BYTES,
    STUDIES,
    PredictionQueue,
    Shown,
    Uploads,
    answer_image,
)
from mammodet.serving.verdicts import ConflictError, ImageVerdict

if TYPE_CHECKING:
    from mammodet.serving.cases import CaseFinder

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
MOST_VERDICT_BYTES = 2**18
IMAGES_AT_ONCE = min(os.cpu_count() or 2, 4)  # read and sent; others wait
SEND_SECONDS = 60.0  # for one of them
T = TypeVar("T")


class Guard:
    """Refuses requests without the token, of another host, or with too large a body; adds the security headers."""

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        left = MOST_UPLOAD_BYTES if scope["path"] in ("/v1/predict", "/api/studies") else MOST_VERDICT_BYTES

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, "the body is too large")
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                given = ((name.lower().encode(), value.encode()) for name, value in HEADERS.items())
                message["headers"] += [(name, value) for name, value in given if name not in own]
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
        if origin and origin.lower() not in {f"http://{host}" for host in self.hosts}:
            return 403, "the request comes from another site"
        given = headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
        given = given or parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return 401, "the token is missing or wrong; use the whole address that mammodet view printed"
        return None


class InTurn(Response):
    """A response that is made when its turn comes, if it is still wanted: many requests take the memory of a few."""

    def __init__(self, make: Callable[[], Response], turns: asyncio.Semaphore) -> None:
        super().__init__()
        self._make, self._turns = make, turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._turns:
            if await Request(scope, receive).is_disconnected():
                return
            response = await run_in_threadpool(self._make)
            with suppress(TimeoutError):  # then the server closes the connection, which lacks bytes
                async with asyncio.timeout(SEND_SECONDS):
                    await response(scope, receive, send)


def pixel_response(pixels: Pixels) -> Response:
    """Grey pixels row by row, 8 bit or 16 bit with the low byte first; X-Image says height, width and bits."""
    bits = 8 * pixels.dtype.itemsize
    content = pixels.astype("<u2" if bits == 16 else "u1", copy=False).tobytes()
    sizes = {"X-Image": f"{pixels.shape[0]},{pixels.shape[1]},{bits}"}
    return Response(content, headers=sizes, media_type="application/octet-stream")


def make_app(
    uploads: Uploads,
    queue: PredictionQueue,
    token: str,
    hosts: frozenset[str],
    report: Path | None = None,
    finders: Sequence[CaseFinder] = (),
) -> Starlette:
    """The application.

    Args:
        uploads: what is shown, and where more of it is kept.
        token: that every request must carry, as `?token=` or `Authorization: Bearer`.
        hosts: values of the Host header that are answered, such as `127.0.0.1:8000`.
        report: an evaluation's `report.html`, whose links lead to the page.
        finders: of the cases of its models, which are exams of the first studies, in their order.
    """
    turns = asyncio.Semaphore(IMAGES_AT_ONCE)

    def shown(request: Request) -> Shown:
        return _at(uploads.shown, request.path_params["study"], "study")

    def image_of(request: Request) -> tuple[Shown, int]:
        found, number = shown(request), request.path_params["image"]
        _at(found.study.images, number, "image")
        return found, number

    async def index(request: Request) -> Response:
        return _html(page("mammodet", token=token, report=report is not None))

    def static(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return Response((STATIC / name).read_bytes(), media_type=f"{kind}; charset=utf-8")

        return answer

    async def show_report(request: Request) -> Response:
        if report is None:
            raise HTTPException(404, "mammodet view was started without an evaluation")
        text = await run_in_threadpool(report.read_text, encoding="utf-8")
        answer = _html(linked(text, f"/?token={token}#"))
        answer.headers["Content-Security-Policy"] = REPORT_POLICY
        return answer

    async def openapi_json(request: Request) -> Response:
        return JSONResponse(openapi())

    async def openapi_page(request: Request) -> Response:
        return _html(render("rest.html.j2", api=openapi(), token=token))

    async def studies(request: Request) -> Response:
        kept_in = as_text(uploads.folder.resolve())
        return JSONResponse({"studies": len(uploads.shown), "most_bytes": MOST_UPLOAD_BYTES, "kept_in": kept_in})

    async def overview(request: Request) -> Response:
        study, store = shown(request)

        def make() -> Response:
            verdicts = [store.of(number).model_dump(mode="json") for number in range(len(study.images))]
            return JSONResponse({**study.overview(), "verdicts": verdicts})

        return InTurn(make, turns)

    async def cases(request: Request) -> Response:
        if not finders:
            raise HTTPException(404, "mammodet view was started without an evaluation")
        query = {name: value for name, value in request.query_params.items() if name != "token"}
        number = next((number for number, one in enumerate(finders) if one.model.name == query.get("model")), 0)
        return InTurn(lambda: JSONResponse({"study": number, **finders[number].find(query)}), turns)

    async def details(request: Request) -> Response:
        study, exam = shown(request).study, request.path_params["exam"]
        _at(study.exams, exam, "exam")
        return InTurn(lambda: JSONResponse(study.details(exam)), turns)

    async def pixels(request: Request) -> Response:
        (study, _), number = image_of(request)
        asked = request.query_params.get("window", "0")
        if asked != "none" and not (asked.isdecimal() and len(asked) < 4):
            raise HTTPException(422, "window: expected a number or 'none'")
        window = None if asked == "none" else int(asked)
        most = request.query_params.get("most", "99999")
        if not (most.isdecimal() and len(most) < 6 and int(most) > 9):
            raise HTTPException(422, "most: expected a number of pixels from 10 to 99999")
        return InTurn(lambda: pixel_response(study.at_most(number, int(most), window)), turns)

    async def verdict(request: Request) -> Response:
        (_, store), number = image_of(request)
        try:
            given = ImageVerdict.model_validate_json(await request.body())
            stored = await run_in_threadpool(store.save, number, given)
        except ValidationError as error:
            raise HTTPException(422, "; ".join(faults_of(error))) from None
        except ConflictError as conflict:
            return JSONResponse({"error": str(conflict), "stored": conflict.stored.model_dump(mode="json")}, 409)
        return JSONResponse(stored.model_dump(mode="json"))

    async def export(request: Request) -> Response:
        store, headers = shown(request).store, {"Content-Disposition": 'attachment; filename="corrected.json"'}
        return InTurn(lambda: JSONResponse(to_json(store.corrected()), headers=headers), turns)

    async def predict(request: Request) -> Response:
        async with queue.in_time():
            job = await queue.add(request, answer_image, IMAGES, 1)
            return JSONResponse(await asyncio.wrap_future(job))

    async def upload(request: Request) -> Response:
        """Answers a line of JSON after each image, and at last the study or an error."""
        loop, said = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()

        def say(value: dict[str, Any] | None) -> None:
            loop.call_soon_threadsafe(said.put_nowait, value)

        async with queue.in_time():
            job = await queue.add(request, partial(uploads.add, say), STUDIES, MOST_FILES)
        job.add_done_callback(lambda _: say(None))

        async def lines() -> AsyncIterator[str]:
            while (value := await said.get()) is not None:
                yield json.dumps(value) + "\n"
            try:
                yield json.dumps(job.result()) + "\n"
            except InputError as error:
                yield json.dumps({"error": str(error)}) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def wrong_input(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 422)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    async def failed(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "the server failed; its terminal says why"}, 500)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/viewer.js", static("viewer.js", "text/javascript")),
            Route("/viewer.css", static("viewer.css", "text/css")),
            Route("/report", show_report),
            Route("/openapi.json", openapi_json),
            Route("/docs", openapi_page),
            Route("/api/cases", cases),
            Route("/api/studies", studies),
            Route("/api/studies", upload, methods=["POST"]),
            Route("/api/studies/{study:int}", overview),
            Route("/api/studies/{study:int}/exams/{exam:int}", details),
            Route("/api/studies/{study:int}/images/{image:int}/pixels", pixels),
            Route("/api/studies/{study:int}/images/{image:int}/verdict", verdict, methods=["PUT"]),
            Route("/api/studies/{study:int}/export", export),
            Route("/v1/predict", predict, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, token=token, hosts=hosts)],
        exception_handlers={InputError: wrong_input, HTTPException: refused, Exception: failed},
    )


def _at(items: Sequence[T], number: int, what: str) -> T:
    if number >= len(items):
        raise HTTPException(404, f"no such {what}")
    return items[number]


def _html(text: str) -> Response:
    return Response(text, media_type="text/html; charset=utf-8")


__all__ = ["make_app"]
