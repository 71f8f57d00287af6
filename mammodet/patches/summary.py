"""What was cut, as a table for the screen and as JSON."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mammodet.records import SUBSETS, ImageRecord
from mammodet.reporting.tables import Table, to_text

_NO_SPLIT = "no subset"
_NO_CLASS = "(class not known)"
_MOST_NAMES = 5


@dataclass
class PatchSummary:
    """Counts of `make_patches`."""

    data: str
    output: str
    file_side: int  #: side of every patch file in pixels
    #: class to subset to patches; false positives stand apart from other `normal` ones.
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    tables: dict[str, int] = field(default_factory=dict)  #: file to patches
    lesions: dict[str, int] = field(default_factory=dict)  #: what became of the lesions
    #: what became of the images that negatives were looked for on.
    negatives: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)  #: files of the images (or lesions) behind a count

    def add(self, group: str, what: str, name: str, count: int = 1) -> None:
        """Count something of `lesions` or `negatives`, and keep the name behind it."""
        counts: dict[str, int] = getattr(self, group)
        counts[what] = counts.get(what, 0) + count
        if count:
            self.names.setdefault(what, []).append(name)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def to_text(self) -> str:
        """A table for the screen."""
        total = sum(sum(row.values()) for row in self.classes.values())
        subsets = [name for name in (*SUBSETS, _NO_SPLIT) if any(name in row for row in self.classes.values())]
        rows = (
            ((name,), (*(row.get(one, 0) for one in subsets), sum(row.values()))) for name, row in self.classes.items()
        )
        title = f"{self.data} -> {self.output}: {total} patches of {self.file_side}x{self.file_side} px"
        lines = [to_text(Table(("class",), (*subsets, "all"), tuple(rows), title))]
        lines.append("  files: " + ", ".join(f"{name} {count}" for name, count in self.tables.items()))
        for title, counts in (("lesions", self.lesions), ("images with fewer negatives", self.negatives)):
            lines.append(f"  {title}:" + ("" if any(counts.values()) else " none"))
            for what, count in counts.items():
                if count:
                    names = self.names.get(what, [])
                    more = ", ..." if len(names) > _MOST_NAMES else ""
                    listed = f" ({', '.join(names[:_MOST_NAMES])}{more})" if names else ""
                    lines.append(f"    {count:>6} {what}{listed}")
        return "\n".join(lines)


def class_table(patches: Iterable[ImageRecord], hard: Sequence[bool]) -> dict[str, dict[str, int]]:
    """Class to subset to patches, in order of names; `hard` tells which patches are false positives."""
    counts: Counter[tuple[str, str]] = Counter()
    for record, is_hard in zip(patches, hard, strict=True):
        name = record.class_name or _NO_CLASS
        counts[name + (", false positive" if is_hard else ""), record.split or _NO_SPLIT] += 1
    table: dict[str, dict[str, int]] = {}
    for (name, subset), count in sorted(counts.items()):
        table.setdefault(name, {})[subset] = count
    return table
