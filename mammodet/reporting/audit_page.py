"""The page of an audit: one HTML file that opens from disk, with everything in it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from mammodet.audit import tables
from mammodet.audit.findings import AuditedImage, Finding, Item, Severity, own
from mammodet.data.images import read_image, to_display
from mammodet.files import write_text
from mammodet.records import BoxXYXY
from mammodet.reporting.audit_figures import bars_figure, histogram_figure
from mammodet.reporting.canvas import PAPER, Canvas, View, draw_box, draw_label
from mammodet.reporting.curves import to_svg
from mammodet.reporting.gallery import encode, render, shrink
from mammodet.reporting.overlay import (
    IGNORED,
    OverlayOptions,
    _add_truth,
    draw_overlay,
    facts_text,
    font_size,
    line_width,
    truth_text,
)

MOST_PICTURES = 40
PICTURES_BYTES = 2_800_000  # of all pictures together, before base64 makes a third more of them
PANEL_HEIGHT = 420
MOST_ITEMS_SHOWN, MOST_ITEMS_LISTED = 6, 200
#: Findings of which a picture shows nothing that the words do not.
UNSEEN = ("constant_image", "depth_loss", "lossy_image", "known_totals")
OPTIONS = OverlayOptions(panel_height=PANEL_HEIGHT, emphasis=1.5, captions=False)


@dataclass(frozen=True, slots=True)
class Card:
    """A picture of the gallery: one image, or the two of a pair, and why it is there."""

    severity: Severity
    check: str
    text: str
    facts: str
    names: str
    is_pair: bool
    picture: str
    width: int
    height: int


def write_audit_page(
    path: Path,
    *,
    title: str,
    audit: Mapping[str, Any],
    findings: Sequence[Finding],
    images: Sequence[AuditedImage],
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: of the HTML file.
        title: its heading.
        audit: the value of `audit.json`.
        findings: the gravest first.
        images: all that were compared; the gallery's images are read again, one at a time.
    """
    cards = list(make_cards(findings))
    page = render(
        "audit.html.j2",
        title=title,
        audit=audit,
        stamp=_stamp(audit),
        findings=[_section(finding) for finding in findings],
        cards=cards,
        figures=[Markup(to_svg(figure)) for figure in make_figures(images)],
        subsets=audit["subsets"],
        facts=[(name, _cell(value)) for name, value in audit["facts"].items() if value not in (None, {})],
        checks=audit["checks"],
    )
    write_text(path, page)


def _stamp(audit: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = audit["facts"]
    return [
        ("file", str(audit["file"])),
        ("compared with", ", ".join(Path(name).name for name in audit["compared_with"]) or "nothing"),
        ("patients", str(facts["patients"])),
        ("images", str(facts["images"])),
        ("lesions", str(facts["lesions"])),
        ("data hash", str(audit["data_hash"])[:16]),
        ("mammodet", str(audit["version"])),
    ]


def _section(finding: Finding) -> dict[str, Any]:
    texts = [item.text for item in finding.items]
    listed = texts[:MOST_ITEMS_LISTED]
    return {
        "finding": finding,
        "shown": listed[:MOST_ITEMS_SHOWN],
        "more": listed[MOST_ITEMS_SHOWN:],
        "unlisted": len(texts) - len(listed),
        "count": len(texts),
    }


def choose_items(findings: Sequence[Finding], most: int) -> list[tuple[Finding, Item]]:
    """Instances that are shown, in the order of the findings: each finding in turn gives one, up to `most` pictures.

    An instance without a readable image takes no part, nor does one whose images its finding shows already.
    """
    queues = [_showable(finding) for finding in findings]
    chosen: list[tuple[int, int]] = []
    pictures, turn = 0, 0
    while pictures < most and any(len(queue) > turn for queue in queues):
        for number, queue in enumerate(queues):
            if len(queue) > turn and pictures + len(queue[turn].images) <= most:
                chosen.append((number, turn))
                pictures += len(queue[turn].images)
        turn += 1
    return [(findings[number], queues[number][turn]) for number, turn in sorted(chosen)]


def _showable(finding: Finding) -> list[Item]:
    if finding.severity == "note" or finding.check in UNSEEN:
        return []
    texts: dict[tuple[Path, ...], list[str]] = {}
    members: dict[tuple[Path, ...], tuple[AuditedImage, ...]] = {}
    marks: dict[tuple[Path, ...], list[tuple[str, BoxXYXY]]] = {}
    for item in finding.items:
        images = tuple(image for image in item.images if image.facts.fault is None)[:4]
        if images:
            key = tuple(image.path for image in images)
            texts.setdefault(key, []).append(item.text)
            members[key] = images
            marks.setdefault(key, []).extend(item.marks)
    return [Item(" · ".join(words), members[key], tuple(marks[key])) for key, words in texts.items()]


def make_cards(findings: Sequence[Finding], *, most: int = MOST_PICTURES) -> Iterator[Card]:
    """Pictures of the suspects, at most `most`, as data URIs."""
    chosen = choose_items(findings, most)
    total = sum(len(item.images) for _, item in chosen)
    for finding, item in chosen:
        panels = [_panel(image, item.marks if image is item.images[0] else ()) for image in item.images]
        height = max(panel.shape[0] for panel in panels)
        picture = np.concatenate([_padded(panel, height) for panel in panels], axis=1)
        content = _small_jpeg(picture, PICTURES_BYTES * len(panels) // total)
        yield Card(
            severity=finding.severity,
            check=finding.check,
            text=item.text,
            facts=" | ".join(f"{facts_text(image.record)} · {truth_text(image.record)}" for image in item.images),
            names=" | ".join(f"{image.part}: {image.record.file_name}" for image in item.images),
            is_pair=len(panels) > 1,
            picture="data:image/jpeg;base64," + base64.b64encode(content).decode("ascii"),
            width=picture.shape[1],
            height=picture.shape[0],
        )


def _panel(image: AuditedImage, marks: Sequence[tuple[str, BoxXYXY]]) -> Canvas:
    """The image with its lesions and marks; bare where they cannot be placed on it, dark where it is gone by now."""
    try:
        pixels = to_display(read_image(image.path))
    except (OSError, ValueError):
        return np.full((PANEL_HEIGHT, PANEL_HEIGHT, 3), PAPER, dtype=np.uint8)
    if tuple(image.record.size_hw) != pixels.shape:  # every box would land in a wrong place
        return draw_overlay(pixels, None, None, OPTIONS)
    view = View.around(image.record.size_hw, height=PANEL_HEIGHT)
    canvas, occupied = view.render(pixels), list[BoxXYXY]()
    _add_truth(canvas, image.record, view, OPTIONS, occupied)
    size, thickness = font_size(view.size_hw, OPTIONS.emphasis), line_width(view.size_hw, OPTIONS.emphasis)
    for text, box in marks:
        draw_box(canvas, view.box(box), IGNORED, thickness, dashed=True)
        draw_label(canvas, text, view.box(box), IGNORED, size, occupied, gap=thickness + 1)
    return canvas


def _padded(panel: Canvas, height: int) -> Canvas:
    """The panel at that height, with a gap on its right."""
    padded = np.full((height, panel.shape[1] + 4, 3), PAPER, dtype=np.uint8)
    padded[: panel.shape[0], : panel.shape[1]] = panel
    return padded


def _small_jpeg(picture: Canvas, budget: int) -> bytes:
    """JPEG of at most about `budget` bytes: coarser first, then smaller."""
    for quality in (82, 70, 55):
        content = encode(picture, quality=quality)
        if len(content) <= budget:
            return content
    while len(content) > budget and picture.shape[1] > 200:
        picture = shrink(picture, int(picture.shape[1] * 0.75))
        content = encode(picture, quality=55)
    return content


def make_figures(images: Sequence[AuditedImage]) -> Iterator[Figure]:
    """What the audited file holds, and how the subsets compare; a figure without anything to show is left out."""
    members = own(images)
    subsets = {row["subset"]: row for row in tables.split_table(images)}
    for label in ("tumor", "malignant"):
        rows = {
            part: {
                word: row[f"{label} {word}"] for word in ("positive", "negative", "unknown") if row[f"{label} {word}"]
            }
            for part, row in subsets.items()
        }
        if any("positive" in row or "negative" in row for row in rows.values()):
            yield bars_figure(f"{label.capitalize()}, by subset", rows, what="images", shares=True)
    yield bars_figure("Images", tables.image_cross(images, lambda record: "all images"), what="images")
    for title, table in (
        ("View", tables.image_cross(images, lambda record: record.view)),
        ("Breast density", _sorted(tables.image_cross(images, lambda record: record.density))),
        ("Laterality", tables.image_cross(images, lambda record: record.laterality)),
    ):
        if table:
            yield bars_figure(f"{title}, by what the image shows", table, what="images")
    for title, names in (
        ("Abnormality", ("abnormality",)),
        ("Subtlety (5: plain to see)", ("subtlety",)),
        ("Shape", ("shape", "calc_type")),
        ("Margins or distribution", ("margins", "calc_distribution")),
        ("Assessment (BI-RADS)", ("assessment",)),
    ):
        table = tables.lesion_cross(images, *names)
        if "Subtlety" in title or "Assessment" in title:
            table = _sorted(table)
        if table:
            yield bars_figure(f"{title}, by pathology", table, what="lesions")
    sizes, unit = tables.lesion_sizes(images)
    if sizes:
        note = "mm" if unit == "mm" else "px: not every image has a spacing in mm"
        yield histogram_figure(
            "Size of lesions", sizes, x_label=f"longer side of the box ({note})", what="lesions", log=True
        )
    readable = [image for image in members if image.facts.fault is None and not image.facts.is_flat]
    pixels = [
        f"{height} x {width}" for image in readable if image.facts.size_hw for height, width in [image.facts.size_hw]
    ]
    if pixels:
        table = tables.cross_table([(size, "images") for size in pixels], rows=8)
        yield bars_figure("Image size, height x width", table, what="images")
        yield histogram_figure(
            "Mean intensity of the breast",
            [(image.facts.breast_mean, tables.image_kind(image.record)) for image in readable],
            x_label="mean grey value, as a part of the file's depth",
            what="images",
        )


def _sorted(table: tables.Cross) -> tables.Cross:
    return {row: table[row] for row in sorted(table)}


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items())
    if isinstance(value, list):
        return ", ".join(str(part) for part in value)
    return str(value)
