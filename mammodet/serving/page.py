"""The reading page, of the server or as one file that opens without it."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mammodet.data.images import to_display
from mammodet.files import write_text
from mammodet.reporting.gallery import render
from mammodet.serving.study import Study, at_most

STATIC = Path(__file__).parent / "static"
LONGEST_SIDE = 2400  # px of a picture in a file
JPEG_QUALITY = 92


def page(title: str, *, token: str = "", data: Any = None, report: bool = False) -> str:
    """The page: with `data` everything is in it, else it asks the server with the token, maybe for a `report`, too."""
    script, style = ((STATIC / name).read_text(encoding="utf-8") for name in ("viewer.js", "viewer.css"))
    inline: dict[str, Any] = {"script": None, "style": None, "policy": None, "data": None}
    if data is not None:
        text = json.dumps(data, ensure_ascii=True).replace("<", "\\u003c")
        policy = f"default-src 'none'; img-src data:; script-src {_hash(script)}; style-src {_hash(style)}"
        inline = {"script": Markup(script), "style": Markup(style), "policy": policy, "data": Markup(text)}
    return render("view.html.j2", title=title, token=token, report=report, **inline)


def write_pages(study: Study, folder: Path) -> list[Path]:
    """Write a file per exam, `exam_001.html`, ..., with 8-bit pictures of at most 2400 px, findings and truth."""
    paths = []
    overview = study.overview()
    for exam, (name, numbers) in enumerate(study.exams):
        data = {
            **overview,
            "exams": [{"name": name, "images": list(range(len(numbers)))}],
            "images": [overview["images"][number] for number in numbers],
            "details": dict(enumerate(study.details(exam).values())),
            "pictures": [_picture(to_display(study.pixels(number))) for number in numbers],
        }
        paths.append(folder / f"exam_{exam + 1:03d}.html")
        write_text(paths[-1], page(f"{study.title}: {name}", data=data))
    return paths


def _picture(pixels: NDArray[np.uint8]) -> str:
    """A JPEG as a data URI."""
    pixels = at_most(pixels, LONGEST_SIDE)
    content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    return "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
