"""The page of an audit: one HTML file that opens from disk, with everything in it."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from mammodet.audit import tables
from mammodet.audit.figures import bars_figure, histogram_figure
from mammodet.audit.findings import AuditedImage, Finding, Item, own
from mammodet.audit.result import Audit
from mammodet.audit.tables import count_subsets, find_facts
from mammodet.data.coco import data_hash
from mammodet.data.images import read_image, to_display
from mammodet.files import write_text
from mammodet.records import LABELS, BoxXYXY
from mammodet.reporting.canvas import Canvas, View, draw_box, draw_label, paper, titled
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
from mammodet.version import VERSION

MOST_PICTURES = 40
PICTURES_BYTES = 2_800_000  # of all pictures together, before base64 makes a third more of them
PANEL_HEIGHT = 420
MOST_ITEMS_SHOWN, MOST_ITEMS_LISTED = 6, 200
#: Of facts, where their own names say too little.
FACT_NAMES = {
    "counts_as": "images count as",
    "size_hw": "image size (h x w)",
    "lesion_side": "longer side of a lesion",
    "intensity": "mean intensity",
    "breast_intensity": "mean intensity of the breast",
}
OPTIONS = OverlayOptions(panel_height=PANEL_HEIGHT, emphasis=1.5, captions=False)


def write_audit_page(path: Path, audit: Audit, *, command: str = "") -> None:
    """Write the page, whole or not at all; the gallery's images are read again, one at a time."""
    source, facts = audit.sources[0], find_facts(audit.images)
    stamp = {
        "file": source.path,
        "compared with": ", ".join(other.path.name for other in audit.sources[1:]) or "nothing",
        **{name: facts[name] for name in ("patients", "images", "lesions")},
        "data hash": data_hash(source.dataset)[:16],
        "mammodet": VERSION,
    }
    page = render(
        "audit.html.j2",
        folder=Path(__file__).parent,
        title=f"Audit of {source.path.resolve().parent.name}/{source.path.name}",
        audit=audit,
        command=command,
        stamp=stamp,
        findings=audit.findings,
        shown=MOST_ITEMS_SHOWN,
        listed=MOST_ITEMS_LISTED,
        cards=list(make_cards(audit.findings)),
        figures=[Markup(to_svg(figure)) for figure in make_figures(audit.images)],
        subsets=count_subsets(audit.images),
        facts={
            FACT_NAMES.get(name, name.replace("_", " ")): _cell(value)
            for name, value in facts.items()
            if value not in (None, {})
        },
    )
    write_text(path, page)


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
    if finding.severity == "note" or not finding.pictured:
        return []
    shown: dict[tuple[Path, ...], Item] = {}
    for item in finding.items:
        images = tuple(image for image in item.images if image.facts.fault is None)[:4]
        if images:
            key = tuple(image.path for image in images)
            first = shown.get(key)
            text = f"{first.text} · {item.text}" if first else item.text
            shown[key] = Item(text, images, (*(first.marks if first else ()), *item.marks))
    return list(shown.values())


def make_cards(findings: Sequence[Finding], *, most: int = MOST_PICTURES) -> Iterator[dict[str, Any]]:
    """Pictures of the suspects, at most `most`, as data URIs: one image each, or the two of a pair, and why."""
    chosen = choose_items(findings, most)
    total = sum(len(item.images) for _, item in chosen)
    for finding, item in chosen:
        panels = [_panel(image, item.marks if image is item.images[0] else ()) for image in item.images]
        picture = titled([((), panel) for panel in panels], 0, 4)
        content = _small_jpeg(picture, PICTURES_BYTES * len(panels) // total)
        yield {
            "severity": finding.severity,
            "check": finding.check,
            "text": item.text,
            "facts": " | ".join(f"{facts_text(image.record)} · {truth_text(image.record)}" for image in item.images),
            "names": " | ".join(f"{image.part}: {image.record.file_name}" for image in item.images),
            "is_pair": len(panels) > 1,
            "picture": "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii"),
            "width": picture.shape[1],
            "height": picture.shape[0],
        }


def _panel(image: AuditedImage, marks: Sequence[tuple[str, BoxXYXY]]) -> Canvas:
    """The image with its lesions and marks; bare where they cannot be placed on it, dark where it is gone by now."""
    try:
        pixels = to_display(read_image(image.path))
    except (OSError, ValueError):
        return paper(PANEL_HEIGHT, PANEL_HEIGHT)
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
    subsets = count_subsets(images)
    for label in LABELS:
        rows = {
            row["subset"]: {word: number for word, number in row["labels"][label].items() if number} for row in subsets
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
    for title, names, rising in (
        ("Abnormality", ("abnormality",), False),
        ("Subtlety (5: plain to see)", ("subtlety",), True),
        ("Shape", ("shape", "calc_type"), False),
        ("Margins or distribution", ("margins", "calc_distribution"), False),
        ("Assessment (BI-RADS)", ("assessment",), True),
    ):
        table = tables.lesion_cross(images, *names)
        if table:
            yield bars_figure(f"{title}, by pathology", _sorted(table) if rising else table, what="lesions")
    sizes, unit = tables.lesion_sizes(images)
    if sizes:
        note = "mm" if unit == "mm" else "px: not every image has a spacing in mm"
        yield histogram_figure("Size of lesions", sizes, x_label=f"longer side ({note})", what="lesions", log=True)
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
    return str(value)
