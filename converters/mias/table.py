"""The table of mini-MIAS: what Info.txt says of each film, by the form of its lines."""

import re
from collections import defaultdict
from dataclasses import dataclass

from mammodet.converters.base import Quarantined, Reason

#: In front of an entry: the number of a row that a program saved with it.
_INDEX = re.compile(r"\d+ (?=mdb\d)", re.IGNORECASE)
#: Behind an entry: cells that say nothing.
_EMPTY = re.compile(r"(?: (?:nan|na|n/a|none|null|<na>))+$", re.IGNORECASE)
_SUFFIX = re.compile(r"^(mdb\d+)\.(?:pgm|png|jpe?g|tiff?|bmp)\b", re.IGNORECASE)
#: A line whose blanks, commas, semicolons and quotes are one blank each.
_LINE = re.compile(
    r"""(?P<name>mdb\d{1,6})[ ](?P<tissue>[FGD])[ ]
        (?: (?P<normal>NORM)
          | (?P<kind>CALC|CIRC|SPIC|MISC|ARCH|ASYM)[ ](?P<severity>[BM])
            (?: [ ](?P<note>\*?[ ]?NOTE[ ]?3[ ]?\*?)
              | [ ](?P<x>\d{1,6}(?:\.\d+)?)[ ](?P<y>\d{1,6}(?:\.\d+)?)[ ](?P<radius>\d{1,6}(?:\.\d+)?) )? )""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)


MASSES = ("CIRC", "SPIC", "MISC")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line about an abnormality. `circle`: (x, y counted from the bottom, radius) in pixels, or None."""

    kind: str
    severity: str
    circle: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class FilmEntry:
    """All lines about one film."""

    name: str
    tissue: str
    findings: tuple[Finding, ...]

    @property
    def number(self) -> int:
        """1 for mdb001."""
        return int(self.name[3:])

    @property
    def patient(self) -> int:
        """Two films a patient."""
        return (self.number + 1) // 2


def parse_info(text: str, where: str = "Info.txt") -> tuple[dict[str, FilmEntry], list[Quarantined]]:
    """Read the table out of Info.txt, by the form of its lines; prose before and after is passed over.

    Returns:
        film name to entry, and the lines that start like an entry but cannot be read. A film with such a line has no
        entry: what the line said of it is not known.
    """
    tissue: dict[str, str] = {}
    findings: dict[str, list[Finding]] = defaultdict(list)
    normal: set[str] = set()
    broken: list[Quarantined] = []
    unread: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        fields = re.sub(r"[\s,;\"']+", " ", line).strip()
        fields = _SUFFIX.sub(r"\1", _EMPTY.sub("", _INDEX.sub("", fields, count=1)))
        start = re.match(r"mdb\d+", fields, re.IGNORECASE)
        if start is None:
            continue
        match = _LINE.fullmatch(fields)
        place = f"{where} line {number}"
        if match is None:
            broken.append(Quarantined(Reason.BAD_ROW, "line", place, f"cannot be read: {fields[:200]!r}"))
            unread.add(start[0].lower())
            continue
        name = match["name"].lower()
        if tissue.setdefault(name, match["tissue"].upper()) != match["tissue"].upper():
            broken.append(
                Quarantined(
                    Reason.CONTRADICTION,
                    "line",
                    place,
                    f"{name}: another tissue than on an earlier line; kept the first",
                )
            )
        if match["normal"]:
            normal.add(name)
            continue
        circle = (float(match["x"]), float(match["y"]), float(match["radius"])) if match["x"] else None
        finding = Finding(match["kind"].upper(), match["severity"].upper(), circle)
        if finding in findings[name]:
            broken.append(Quarantined(Reason.DUPLICATE, "line", place, f"{name}: the same finding twice; kept once"))
            continue
        findings[name].append(finding)
    for name in sorted(normal & {name for name, items in findings.items() if items}):
        broken.append(Quarantined(Reason.CONTRADICTION, "line", name, "both NORM and a finding; kept the finding"))
    entries = {name: FilmEntry(name, tissue[name], tuple(findings[name])) for name in sorted(set(tissue) - unread)}
    return entries, broken
