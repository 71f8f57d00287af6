"""DMID: 510 mammograms with masks and a list like mini-MIAS (Oza et al., Biomedical Engineering Letters 2024).

Info.txt has lines `IMG001 G MISC M 1567 3644 295`; `TIFF Images` holds the images, `ROI Masks` one mask for all
lesions of an image. What becomes of each is in docs/dmid.md.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mammodet.converters.base import Quarantined, Reason
from mammodet.converters.findings import Finding, FindingOptions, ImageArchive, ImageRow, Kind, convert_row, tumor_of
from mammodet.converters.mask_files import components
from mammodet.converters.options import flag
from mammodet.converters.skeleton import Made, refused
from mammodet.converters.tables import numbers_of, table_of
from mammodet.data.images import IMAGE_SUFFIXES, read_image, read_size_hw
from mammodet.errors import InputError
from mammodet.geometry import Mask, patch_to_rle, rle_to_mask
from mammodet.records import ImageRecord

_LINE = re.compile(
    r"(?P<name>IMG\d+)\s+(?P<tissue>[FGD-])\s+(?:NORM.*|(?P<kind>[A-Z]{4})\s+(?P<severity>[BM])(?P<circle>(?:\s+[\d.-]+)*))",
    re.IGNORECASE,
)
KINDS: dict[str, Kind] = {
    **dict.fromkeys(("CIRC", "SPIC", "MISC"), "mass"),
    "CALC": "calcification",
    "ARCH": "architectural_distortion",
    "ASYM": "asymmetry",
}
_PATHOLOGY = {"B": "benign", "M": "malignant"}
_LEAST_PIXELS = 20


class DmidOptions(FindingOptions):
    """What is converted, and how."""

    origin: Literal["top", "bottom"] | None = flag(
        None,
        "where y of a circle counts from, which no document says; the summary tells what fits the masks",
        words="circles without a mask have no place",
    )


class Entry(NamedTuple):
    """A finding of a line: its kind and severity; the circle's numbers, None where they are missing."""

    kind: str
    severity: str
    xy: tuple[float, float] | None
    radius: float | None

    def lies_on(self, mask: Mask, origin: str) -> bool:
        """Whether the circle's centre lies on a mask."""
        if self.xy is None:
            return False
        column, line = int(self.xy[0]), int(self.xy[1])
        line = line if origin == "top" else mask.shape[0] - 1 - line
        return 0 <= line < mask.shape[0] and 0 <= column < mask.shape[1] and bool(mask[line, column])


@dataclass(frozen=True, slots=True)
class DmidRow(ImageRow):
    """An image with the entries of its lines, and its mask."""

    mask: Path | None = None
    entries: tuple[Entry, ...] = ()


class Dmid(ImageArchive[DmidOptions]):
    """The archive, or the part of it that is there."""

    NAME = "DMID"
    PREFIX = "dmid"
    options_type = DmidOptions
    knows_patients = False

    def describe_images(self) -> list[ImageRow]:
        table = table_of(self.source, self.files, "Info.txt")
        places = [path for path in (*self.files.values(), *self.doubles) if path.suffix.lower() in IMAGE_SUFFIXES]
        self.doubles = []
        images = {path.stem.lower(): path for path in places if "tiff images" in path.parent.name.lower()}
        masks = {path.stem.lower(): path for path in places if "mask" in path.parent.name.lower()}
        lines: dict[str, list[re.Match[str]]] = {}
        broken: set[str] = set()
        for number, text in enumerate(table.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
            match = _LINE.fullmatch(text.strip())
            if match and (match["kind"] is None or match["kind"].upper() in KINDS):
                lines.setdefault(match["name"].lower(), []).append(match)
            elif name := re.match(r"IMG\d+", text.strip(), re.IGNORECASE):
                broken.add(name[0].lower())
                self.lose(Reason.BAD_ROW, "line", f"{table.name} line {number}", f"cannot be read: {text[:80]!r}")
        for image in sorted({*images} - {*lines, *broken}):
            self.lose(Reason.NO_ROW, "image", image, f"has no line in {table.name}")
        for image in sorted({*lines, *broken} - {*images}):
            self.lose(Reason.NO_FILE, "image", image, f"has a line in {table.name} but no file")
        return [
            _row(image, path, lines.get(image, []), masks.get(image), lost=image in broken)
            for image, path in sorted(images.items())
            if image in lines or image in broken
        ]

    @staticmethod
    def convert_one(row: tuple[int, Any], how: Any) -> Made:
        try:
            image, lost, hits = find_places(row[1], how[2])
        except InputError as error:
            return refused("image", row[1].name, error, row[1].path)
        made = convert_row(row[0], image, *how)
        return Made(made.record, (*lost, *made.quarantine), made.facts and made.facts | {"origins": hits})

    def describe(self, records: Sequence[ImageRecord], done: Sequence[tuple[tuple[int, ImageRow], Made]]) -> None:
        super().describe(records, done)
        hits = np.sum([made.facts["origins"] for _, made in done], axis=0).tolist()
        self.summary.checks["circles on masks"] = dict(zip(("of", "origin top", "origin bottom"), hits, strict=True))
        if self.options.origin is None and any(item.what == "circle" for item in self.quarantine):
            fits = f"of {hits[0]} circles {hits[1]} lie on masks with y from the top, {hits[2]} from the bottom"
            self.warnings.append(f"circles without a mask have no place: give --origin; {fits}")


def _row(name: str, path: Path, lines: Sequence[re.Match[str]], mask: Path | None, *, lost: bool) -> DmidRow:
    entries: list[Entry] = []
    for line in lines:
        if line["kind"]:
            parts = line["circle"].split()
            numbers = [numbers_of(part)[0] if re.fullmatch(r"\d{1,6}(\.\d+)?", part) else None for part in parts]
            x, y, radius, *_ = (*numbers, None, None, None)
            xy = None if x is None or y is None else (x, y)
            entries.append(Entry(line["kind"].upper(), line["severity"].upper(), xy, radius or None))
    tissue = lines[0]["tissue"].upper() if lines else "-"
    malignant = None if lost else int(any(entry.severity == "M" for entry in entries))
    return DmidRow(
        name=name.upper(),
        path=path,
        patient=name.upper(),  # nobody says whose an image is
        density=None if tissue == "-" else tissue,
        labels={"tumor": None, "malignant": malignant},
        class_name=None if malignant is None else ("benign", "malignant")[malignant] if entries else "normal",
        lost=lost,
        mask=mask,
        entries=tuple(entries),
    )


def find_places(row: DmidRow, options: DmidOptions) -> tuple[DmidRow, list[Quarantined], list[int]]:
    """The row with its findings: components of its mask, else its circles.

    Returns:
        the row; what has no place; circles with a mask, how many lie on it with y from the top, and from the bottom.
    """
    lost: list[Quarantined] = []
    findings: list[Finding] = []
    hits, mask, size_hw = [0, 0, 0], None, None
    try:
        if row.mask is not None:
            pixels = read_image(row.mask)
            mask = pixels > np.iinfo(pixels.dtype).max // 2
            size_hw = (mask.shape[0], mask.shape[1])
    except InputError as error:
        lost.append(Quarantined(Reason.UNREADABLE, "mask", row.name, str(error), str(row.mask)))
    if mask is not None and size_hw is not None:
        placed = [entry for entry in row.entries if entry.xy is not None]
        hits = [len(placed), *(sum(entry.lies_on(mask, origin) for entry in placed) for origin in ("top", "bottom"))]
        for number, outline in enumerate(components(mask, _LEAST_PIXELS)[0], start=1):
            rle = patch_to_rle(outline.patch, outline.corner_xy, size_hw)
            own = rle_to_mask(rle) if options.origin else mask
            near = [entry for entry in row.entries if options.origin and entry.lies_on(own, options.origin)]
            kinds = {KINDS[entry.kind] for entry in near or row.entries}
            severities = {entry.severity for entry in near or row.entries}
            facts = {"pathology": _PATHOLOGY[severities.pop()]} if len(severities) == 1 else {}
            kind: Kind = kinds.pop() if len(kinds) == 1 else "other"
            findings.append(Finding(kind, "contour", (), f"component {number}", facts, rle=rle))
        missing = [entry for entry in row.entries if not (options.origin and entry.lies_on(mask, options.origin))]
        if missing and len(findings) < len(row.entries):
            reason = f"its mask has {len(findings)} outlines for {len(row.entries)} lines"
            lost.append(Quarantined(Reason.NO_PLACE, "lesion", row.name, reason, str(row.mask)))
        if findings and not row.entries:
            reason = "its mask outlines something that no line describes; its labels are not known"
            lost.append(Quarantined(Reason.CONTRADICTION, "mask", row.name, reason, str(row.mask)))
    else:
        for entry in row.entries:
            text = f"{row.name} {entry.kind} {entry.xy} radius {entry.radius}"
            if entry.xy is None or entry.radius is None or options.origin is None:
                reason = "y counts from the top or the bottom; give --origin" if entry.radius else "lacks its numbers"
                lost.append(Quarantined(Reason.NO_PLACE, "circle", text, reason))
                continue
            x, y = entry.xy
            y = y if options.origin == "top" else read_size_hw(row.path)[0] - 1 - y
            facts = {"pathology": _PATHOLOGY[entry.severity]}
            findings.append(Finding(KINDS[entry.kind], "circle", ((x + 0.5, y + 0.5),), text, facts, entry.radius))
    listed = [Finding(KINDS[entry.kind], "circle", (), "", {}) for entry in row.entries]
    normal = row.class_name == "normal" and not lost
    labels_now = dict(row.labels) | {"tumor": tumor_of(listed, options.categories, normal=normal)}
    if row.class_name == "normal" and not normal:
        labels_now["malignant"] = None
    done = replace(row, findings=tuple(findings), lost=row.lost or bool(lost), labels=labels_now, size_hw=size_hw)
    return done, lost, hits


ARCHIVE = Dmid
