"""INbreast: 410 digital mammograms of 115 patients with outlines (Moreira et al., Academic Radiology 2012).

A DICOM file `20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm` says image, patient, side and view; `20586908.xml` its
outlines; INbreast.csv its density and BI-RADS. What becomes of each is in docs/inbreast.md.
"""

import plistlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import shapely
from shapely.geometry.base import BaseGeometry

from mammodet.converters.base import Reason
from mammodet.converters.findings import Finding, FindingOptions, ImageArchive, ImageRow, Kind, tumor_of
from mammodet.converters.tables import Cells, birads_of, density_of, images_by_stem, numbers_of, table_of
from mammodet.errors import InputError
from mammodet.outlines import polygon

_NAME = re.compile(r"(\d+)_([0-9a-z]+)_mg_([lr])_([a-z]+)(?:_anon)?")
_MM = 1 / 0.07  # pixels of a millimetre
#: Calcifications within 10 mm of each other belong together; five or more are a cluster (BI-RADS: at least 5 in 1 cm).
_NEAR, _MARGIN, _LEAST = 10 * _MM, 1 * _MM, 5
#: Beginnings of names of ROIs, in lower case; the archive spells some of them in several ways.
_KINDS: tuple[tuple[str, Kind | None], ...] = (
    *(("mass", "mass"), ("spiculated", "mass"), ("espiculated", "mass")),
    *(("distortion", "architectural_distortion"), ("architectural", "architectural_distortion")),
    *(("asymmetry", "asymmetry"), ("assymetry", "asymmetry"), ("asimmetry", "asymmetry"), ("assymmetry", "asymmetry")),
    *(("cluster", "calcification"), ("calcification", "calcification"), ("pectoral", None)),
)


class InBreast(ImageArchive[FindingOptions]):
    """The archive, or the part of it that is there."""

    NAME = "INbreast"
    PREFIX = "inbreast"
    options_type = FindingOptions

    def describe_images(self) -> list[ImageRow]:
        path = table_of(self.source, self.files, "INbreast.csv", "INbreast.xlsx", "INbreast.xls")
        rows: dict[str, list[Cells]] = {}
        for _, row in self.read(path, _NEEDED, key="File Name"):
            rows.setdefault(row["File Name"].removesuffix(".0"), []).append(row)
        rows.pop("", None)
        table = {name: self.agreed(name, found) for name, found in rows.items()}
        self.names: Counter[str] = Counter()
        images: list[ImageRow] = []
        seen: set[str] = set()
        for stem, file in images_by_stem(self.files).items():
            match = _NAME.fullmatch(stem)
            if match is None:
                self.lose(Reason.BAD_NAME, "image", stem, "expected 20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm or so")
                continue
            number, patient, side, view = match.groups()
            seen.add(number)
            row = table.get(number, dict.fromkeys(_NEEDED, ""))
            if number not in table:
                self.lose(Reason.NO_ROW, "row", number, f"has no row in {path.name}: density and BI-RADS are not known")
            view = row["View"].upper() or view.upper()
            image = ImageRow(
                name=number,
                path=file,
                patient=patient,
                laterality=side.upper(),
                view="MLO" if view == "ML" else view,  # file names say ML for MLO
                density=density_of(row["ACR"]),
                birads=birads_of(row["Bi-Rads"]),
            )
            images.append(self._with_findings(image))
        for number in sorted(set(table) - seen):
            self.lose(Reason.NO_FILE, "image", number, f"has a row in {path.name} but no file")
        for name in sorted(self.files):
            if re.fullmatch(r"\d+\.xml", name) and name[:-4] not in seen:
                self.lose(Reason.NO_FILE, "outlines", name, "has no image")
        self.facts["names of ROIs"] = dict(sorted(self.names.items()))
        return images

    def _with_findings(self, image: ImageRow) -> ImageRow:
        findings: list[Finding] = []
        lost = unread = False
        path = self.files.get(f"{image.name}.xml")
        if path is not None:
            try:
                findings, faults = read_findings(path)
                self.names.update(str(finding.attributes["name"]) for finding in findings)
                for place, reason in faults:
                    lost = True
                    self.lose(Reason.NO_PLACE, "finding", f"{image.name} ({place})", reason)
            except InputError as error:
                lost = unread = True
                self.lose(Reason.UNREADABLE, "outlines", image.name, str(error), path)
        normal = image.birads == "1" and not lost and image.name not in self.doubtful
        labels = {
            "tumor": None if unread else tumor_of(findings, self.options.categories, normal=normal),
            # BI-RADS is no biopsy, but 6 means that there was one.
            "malignant": 1 if image.birads == "6" else 0 if normal and not findings else None,
        }
        return replace(image, findings=tuple(findings), lost=lost, labels=labels)


_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, ExpatError, plistlib.InvalidFileException)
_NEEDED = ("File Name", "View", "ACR", "Bi-Rads")


def read_findings(path: Path) -> tuple[list[Finding], list[tuple[str, str]]]:
    """Findings in a property list of OsiriX, and the ROIs that are none: their names, and why.

    Raises InputError: it cannot be read.
    """
    try:
        images = plistlib.loads(path.read_bytes(), fmt=plistlib.FMT_XML)["Images"]
        rois = [roi for image in _listed(images) for roi in _listed(image["ROIs"])]
        shapes = [
            (str(roi.get("Name") or "").strip(), [_point(text) for text in _listed(roi["Point_px"])]) for roi in rois
        ]
    except _DAMAGE as error:
        raise InputError(f"{path}: cannot be read as outlines of OsiriX ({type(error).__name__}: {error})") from None
    findings: list[Finding] = []
    faults: list[tuple[str, str]] = []
    spots: list[BaseGeometry] = []
    for number, (name, points) in enumerate(shapes, start=1):
        place = f"ROI {number} {name!r}"
        known = [kind for start, kind in _KINDS if name.lower().startswith(start)]
        if known == [None]:  # the pectoral muscle
            continue
        kind: Kind = known[0] or "other" if known else "other"
        if not points:
            faults.append((place, "has no point"))
            continue
        if name.lower() == "calcification" or (kind == "other" and len(points) <= 2):
            spots.append(shapely.MultiPoint(points) if len(points) <= 2 else shapely.Polygon(points).convex_hull)
            continue
        try:
            polygon(points)
        except ValueError as error:
            faults.append((place, str(error)))
            continue
        findings.append(Finding(kind, "contour", tuple(points), place, {"name": name or "unnamed"}))
    return [*_join_spicules(findings), *group(spots, findings)], faults


def _point(text: str) -> tuple[float, float]:
    """The point in a text like `(1512.3, 820.1)`."""
    x, y = numbers_of(text)
    return x, y


def _listed(value: Any) -> list[Any]:
    """A list; one dictionary or text stands for itself."""
    return value if isinstance(value, list) else [value]


def _join_spicules(findings: Sequence[Finding]) -> list[Finding]:
    """A spiculated region that meets a mass is the mass's margin; one without a mass is a mass itself."""
    areas = [polygon(finding.points_xy) for finding in findings]
    around = ["spiculated" in str(finding.attributes["name"]).lower() for finding in findings]
    kept: list[Finding] = []
    for finding, area, is_region in zip(findings, areas, around, strict=True):
        met = [
            other is not finding and finding.kind == other.kind == "mass" and around[at] != is_region
            for at, other in enumerate(findings)
            if shapely.intersects(area, areas[at])
        ]
        if any(met) and is_region:
            continue
        kept.append(replace(finding, attributes={**finding.attributes, "spiculated": True}) if any(met) else finding)
    return kept


def group(spots: Sequence[BaseGeometry], findings: Sequence[Finding]) -> list[Finding]:
    """Calcifications that were marked one by one: boxes with a margin of 1 mm around those that are near each other.

    Five or more are a cluster, fewer a region to ignore; those within an outlined cluster are its part.
    """
    clusters = [polygon(finding.points_xy) for finding in findings if finding.kind == "calcification"]
    free = [spot for spot in spots if not any(shapely.intersects(spot, cluster) for cluster in clusters)]
    if not free:
        return []
    joined = shapely.get_parts(shapely.union_all([shapely.buffer(spot, _NEAR / 2) for spot in free]))
    found: list[Finding] = []
    for number, part in enumerate(joined, start=1):
        inside = [spot for spot in free if shapely.intersects(part, spot)]
        x1, y1, x2, y2 = shapely.union_all(inside).bounds
        corners = ((x1 - _MARGIN, y1 - _MARGIN), (x2 + _MARGIN, y2 + _MARGIN))
        kind: Kind = "calcification" if len(inside) >= _LEAST else "other"
        what = {"abnormality": "calcification", "name": "calcifications", "calcifications": len(inside)}
        found.append(Finding(kind, "box", corners, f"calcifications {number}", what))
    return found


ARCHIVE = InBreast
