"""Cases of conversion and of reading images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from running import WrongError, boxes, converted, records, right, tool

BOX = [80, 180, 41, 41]
PATTERN = ["--pattern", r"(?P<patient>p\W*\d+)"]


def cvat_masks(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "coco", *PATTERN)
    right("boxes", [[BOX]] * 6, [boxes(image) for image in images.values()])
    right("tumor", {1}, {image["labels"]["tumor"] for image in images.values()})
    right("area", {1257.0}, {float(image["lesions"][0]["area"]) for image in images.values()})


def exif(case: Path, work: Path) -> None:
    pattern = ["--pattern", r"(?P<patient>pt?\d+)(_(?P<laterality>LEFT)_(?P<view>CC))?"]
    answer = tool("convert", "coco", "--source", case / "src", "--output", work, *pattern)
    if answer.status == 2:
        answer.says("EXIF")
        return
    from mammodet.data.images import read_image

    kept = records(work)
    for name, image in kept.items():
        pixels = read_image(work / image["file_name"])
        for x, y, w, h in boxes(image):
            right(f"{name}: grey in the box is bright", True, float(pixels[y : y + h, x : x + w].mean()) > 150)
    quarantine = (work / "quarantine.csv").read_text(encoding="utf-8")
    if len(kept) < len(list((case / "src" / "images").iterdir())) and "EXIF" not in quarantine:
        raise WrongError(f"quarantined without the word EXIF: {quarantine[:500]}")


def number_ids(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "coco", *PATTERN)
    right("boxes", [[BOX]] * 5, [boxes(image) for image in images.values()])


def via(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "coco", *PATTERN, "--without-boxes", "normal")
    found = {name: (boxes(image), image["labels"]["tumor"]) for name, image in images.items()}
    right("images", {f"p0{n}": ([BOX] if n < 3 else [], int(n < 3)) for n in range(6)}, found)


def outlines(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "coco", *PATTERN)
    for name in ("p00", "p01", "p03", "p06"):
        right(name, [BOX], boxes(images[name]))
    for name in ("p01", "p03"):
        right(f"{name} has an outline", True, bool(images[name]["lesions"][0].get("segmentation")))


def label_studio(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "coco", *PATTERN)
    right("images with their lesion", [[BOX]] * 8, [boxes(image) for image in images.values()])


def shares(case: Path, work: Path) -> None:
    answer = tool("convert", "coco", "--source", case / "src", "--output", work, *PATTERN)
    if answer.status == 2:
        answer.says("within one pixel", "--boxes fractions")
    else:
        right("boxes", [[BOX]], [boxes(image) for image in records(work).values() if image["lesions"]][:1])


def near(found: list[int], box: list[int]) -> bool:
    """Within a pixel."""
    return max(abs(a - b) for a, b in zip(found, box, strict=True)) <= 1


def mias_1080(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "mias")
    expected = {"mdb001": [359, 464, 127, 127], "mdb008": [221, 359, 84, 84]}
    for name, box in expected.items():
        if name in images and images[name]["lesions"]:
            (found,) = boxes(images[name])
            right(f"{name} within a pixel of {box}", True, near(found, box))


def mias_512(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "mias")
    found = boxes(images["mdb002"]) if "mdb002" in images else []
    right("mdb002", True, found == [] or near(found[0], [125, 300, 50, 50]))


def white_is_zero(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "folder", "--patient", r"(p\d+)")
    right("breast boxes", 1, len({str(image["breast_bbox"]) for image in images.values()}))
    right("breast box", [0, 13, 233, 376], [round(v) for v in next(iter(images.values()))["breast_bbox"]])


def tomosynthesis(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "rsna", "--format", "png16", "--max-size", "0")
    for image in images.values():
        pixels = np.asarray(cv2.imread(str(work / image["file_name"]), cv2.IMREAD_UNCHANGED))
        right(f"{image['file_name']} at row 200, column 100", 65535, int(pixels[200, 100]))
        right("spacing", [0.1, 0.1], image["spacing_mm_rc"])


def padding(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "rsna", "--format", "png16", "--max-size", "0")
    for image in images.values():
        pixels = np.asarray(cv2.imread(str(work / image["file_name"]), cv2.IMREAD_UNCHANGED))
        corners = {int(pixels[row, column]) for row in (0, -1) for column in (0, -1)}
        right(f"{image['file_name']}: a corner is background", True, 0 in corners and 65535 not in corners)


def no_suffix(case: Path, work: Path) -> None:
    from mammodet.data.inputs import gather

    found = gather([case / "src"], ("mass",), unpack_to=work)
    right("images", 1, len(found.dataset.images))
    right("copies of it", 5, sum("is a copy of" in item.reason for item in found.left_out))


def full_mias(case: Path, work: Path) -> None:
    tool("convert", "mias", "--source", case / "src", "--output", work).refused("50 micro")


def flat_cbis(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "cbis_ddsm", "--abnormality", "mass")
    right("images, lesions", (7, 8), (len(images), sum(len(image["lesions"]) for image in images.values())))


def mias_nan(case: Path, work: Path) -> None:
    images, _ = converted(case, work, "mias")
    right("normal films", [0, 0], [images[name]["labels"]["tumor"] for name in ("mdb003", "mdb004")])
