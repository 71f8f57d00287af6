"""Shared by the tests of the COCO converter: small sets as others write them, and the converter's command line."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from mammodet.converters.coco import CocoOptions, convert
from mammodet.converters.options import add_arguments
from mammodet.data.coco import read_coco

PATTERN = r"(?P<patient>\d+)_(?P<laterality>LEFT|RIGHT|L|R)_(?P<view>\w+)"
MASS = [{"id": 1, "name": "Mass", "supercategory": "none"}]
BOX = [10, 5, 8, 6]
HEIGHT, WIDTH = 40, 30


def write_image(path: Path, size_hw: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Noise that depends on the name, so that two images never are the same."""
    pixels = np.random.default_rng(len(path.name) + sum(path.as_posix().encode())).integers(0, 256, size_hw, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def entry(number, name: str, **more) -> dict:
    return {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH, **more}


def mark(number, image_id, bbox=BOX, category_id=1, **more) -> dict:
    return {"id": number, "image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


def write_json(path: Path, images, annotations=(), categories=MASS, *, with_files: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": list(annotations), "categories": categories}))
    for image in images if with_files else []:
        write_image(path.parent / image["file_name"])
    return path


def command_line(*arguments: object) -> argparse.Namespace:
    """As the tool parses it: the common options and the converter's own."""
    parser = argparse.ArgumentParser()
    add_arguments(parser, CocoOptions)
    return parser.parse_args(["--val-fraction", "0", "--jobs", "1", *map(str, arguments)])


def run(source: Path, *arguments: object, output: Path | None = None):
    """Summary and records by the stem of their names; by default the set is not divided."""
    output = output or source.parent / "out"
    chosen = arguments if "--pattern" in arguments or "--preset" in arguments else ("--pattern", PATTERN, *arguments)
    summary = convert(source, output, CocoOptions.of(command_line(*chosen)))
    dataset = read_coco(output / "all.json")
    return summary, {Path(record.file_name).stem: record for record in dataset.images}, dataset


def one_image(tmp_path: Path, *annotations, categories=MASS, **more) -> Path:
    """A source with the image 1_LEFT_CC.png, id 1, told to be of the training set."""
    write_json(tmp_path / "in/train/a.json", [entry(1, "1_LEFT_CC.png", **more)], annotations, categories)
    return tmp_path / "in"


def cases(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["patient_id,left or right breast,image view,pathology,subtlety,breast_density", *lines]))
    return path


JOIN = (
    *("--on", "patient_id=P_{patient}", "--on", "left or right breast={laterality}", "--on", "image view={view}"),
    *(
        "--attribute",
        "pathology=pathology",
        "--attribute",
        "subtlety=subtlety",
        "--image-key",
        "density=breast_density",
    ),
)


def reasons(summary) -> list[tuple[str, str, str]]:
    return [(item.what, item.name, item.reason) for item in summary.quarantine]
