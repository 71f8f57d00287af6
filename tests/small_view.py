"""Shared by the reading page's tests: a study of two images, a model that says one thing, a client of the server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_cases import image, lesion, prediction

from mammodet.data.coco import write_coco
from mammodet.data.images import write_png
from mammodet.data.inputs import gather
from mammodet.data.predictions import Predictions, write_predictions
from mammodet.errors import InputError
from mammodet.records import Dataset

pytest.importorskip("starlette")
from starlette.testclient import TestClient

from mammodet.serving.app import make_app
from mammodet.serving.study import Study
from mammodet.serving.uploads import PredictionQueue, Shown, Uploads

TOKEN, HOST = "secret", "127.0.0.1:8000"
HOSTILE = "<script>alert(1)</script>"
LESION, ELSEWHERE = (10.0, 10.0, 30.0, 30.0), (40.0, 40.0, 50.0, 50.0)


def make_study(tmp_path):
    """A right breast with a lesion that is found and a false finding, a left one with a false finding alone."""
    records = (
        image(
            1,
            lesion(LESION),
            patient_id=HOSTILE,
            laterality="R",
            view="CC",
            labels={"tumor": 1, "malignant": None},
            spacing_mm_rc=(0.1, 0.2),
        ),
        image(2, patient_id=HOSTILE, laterality="L", view="CC", labels={"tumor": 0, "malignant": 0}),
    )
    for record in records:
        write_png(tmp_path / record.file_name, np.arange(10000, dtype=np.uint16).reshape(100, 100) + 1000)
    write_coco(Dataset(("mass",), records), tmp_path / "test.json")
    found = (
        prediction(1, (ELSEWHERE, 0.4), (LESION, 0.9), scores={"tumor": 0.9}, masks=True),
        prediction(2, (ELSEWHERE, 0.6), scores={"tumor": 0.6}, masks=True),
    )
    file = Predictions(found, ("mass",), {"checkpoint": "secret/folder/best.ckpt"})
    write_predictions(file, tmp_path / "preds" / "predictions.json")
    inputs = gather([tmp_path / "test.json"], (), unpack_to=tmp_path / "unused")
    return Study.of("test.json", inputs, file)


class Model:
    """Says one thing of any file, while it is not `held`."""

    categories = ("mass",)

    def __init__(self) -> None:
        self.seen, self.running, self.most = [], 0, 0
        self.lock, self.go = threading.Lock(), threading.Event()
        self.go.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Predictions wait until `go` is set, or for the end of the block."""
        self.go.clear()
        try:
            yield
        finally:
            self.go.set()

    def predict(self, path: Path) -> Any:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.go.wait()
        self.seen.append(path)
        if path.read_bytes().endswith(b"bad"):
            raise InputError(f"{path}: is damaged")
        with self.lock:
            self.running -= 1
        return [SimpleNamespace(prediction=prediction(1, (LESION, 0.9), scores={"tumor": 0.9}))]


def client(study, store, queue=None, report=None, finders=(), **headers) -> TestClient:
    uploads = Uploads(store.path.parent / "uploads", [Shown(study, store)])
    app = make_app(uploads, queue or PredictionQueue(Model), TOKEN, frozenset({HOST}), report, finders)
    given = {"Authorization": f"Bearer {TOKEN}", **headers}
    return TestClient(app, base_url=f"http://{HOST}", headers={name: value for name, value in given.items() if value})


STUDY = "/api/studies/0"


PNG = b"\x89PNG\r\n\x1a\n"
