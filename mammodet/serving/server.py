"""Runs the reading page on this machine alone, until it is interrupted."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from mammodet.api import Predictor
from mammodet.errors import InputError
from mammodet.serving.app import make_app
from mammodet.serving.uploads import PredictionQueue, Uploads

if TYPE_CHECKING:
    from mammodet.serving.cases import CaseFinder


def serve(
    uploads: Uploads,
    load: Callable[[], Predictor],
    port: int,
    *,
    report: Path | None,
    finders: Sequence[CaseFinder],
    open_browser: bool,
) -> int:
    """Listen on 127.0.0.1 and print the address, which holds a new token each time.

    Args:
        load: gives the model that predicts uploads, when the first one comes.
        port: 0 for a free one.
        report, finders: of an evaluation.
    Raises:
        InputError: the port is taken.
    """
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()  # so that a browser that is faster than the server waits for it
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {port}: cannot be used ({error}); leave it out for a free one") from None
    port, token = listener.getsockname()[1], secrets.token_urlsafe(24)

    hosts = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
    app = make_app(uploads, PredictionQueue(load), token, hosts, report, finders)
    address = f"http://127.0.0.1:{port}/{'report' if report is not None else ''}?token={token}"
    for study, store in uploads.shown:
        print(f"{study.title}: {len(study.exams)} exams, {len(study.images)} images; verdicts: {store.path}")
    print(f"files that are dropped on the page are kept in {uploads.folder}")
    print(f"open {address}  (Ctrl+C ends)", flush=True)
    if open_browser:
        webbrowser.open(address)
    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=512,
        timeout_graceful_shutdown=3,
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[listener])
    return 0
