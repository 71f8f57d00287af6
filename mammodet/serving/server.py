"""Runs the reading page on this machine alone, until it is interrupted."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from contextlib import suppress
from pathlib import Path

import uvicorn

from mammodet.api import Predictor, load
from mammodet.errors import InputError
from mammodet.serving.app import PredictionQueue, make_app
from mammodet.serving.study import Study
from mammodet.serving.verdicts import VerdictStore


def serve(study: Study, store: VerdictStore, checkpoint: Path, device: str, port: int, *, open_browser: bool) -> int:
    """Listen on 127.0.0.1 and print the address, which holds a new token each time.

    Args:
        checkpoint: model of `POST /v1/predict`, loaded when the first image comes.
        port: 0 for a free one.
    Raises:
        InputError: the port is taken.
    """
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {port}: cannot be used ({error}); leave it out for a free one") from None
    port, token = listener.getsockname()[1], secrets.token_urlsafe(24)

    def model() -> Predictor:
        return load(checkpoint, device)

    app = make_app(study, store, PredictionQueue(model), token, frozenset({f"127.0.0.1:{port}", f"localhost:{port}"}))
    address = f"http://127.0.0.1:{port}/?token={token}"
    print(f"{len(study.exams)} exams, {len(study.images)} images; verdicts are kept in {store.path}")
    print(f"open {address}  (Ctrl+C ends)", flush=True)
    if open_browser:
        webbrowser.open(address)
    settings = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, limit_concurrency=512)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[listener])
    return 0
