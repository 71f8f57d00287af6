"""What an audit found: for the screen, `audit.json` and the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mammodet.audit.findings import SEVERITIES, AuditedImage, Finding, count
from mammodet.audit.inputs import Source
from mammodet.audit.tables import count_subsets, find_facts
from mammodet.data.coco import data_hash
from mammodet.version import VERSION

FORMAT = "mammodet-audit/2"


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check looks for, and what came of it; `why_not` says why it had nothing to look at."""

    what: str
    findings: Sequence[Finding]
    why_not: str | None = None

    def to_text(self) -> str:
        """`nothing found`, `1 finding`, `not checked: there are no lesions`."""
        if self.findings:
            return count(len(self.findings), "finding")
        return f"not checked: {self.why_not}" if self.why_not else "nothing found"


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found."""

    findings: tuple[Finding, ...]  #: the gravest first
    checks: tuple[Checked, ...]  #: in the order of the page
    #: of the audited file and of those that it was compared with, with what was measured.
    images: tuple[AuditedImage, ...]
    sources: tuple[Source, ...]  #: the files, the audited one first

    @property
    def is_clean(self) -> bool:
        """Whether there is no error; warnings and notes do not count."""
        return not self.counts()["error"]

    def counts(self) -> dict[str, int]:
        """Severity to its number of findings."""
        return {name: sum(finding.severity == name for finding in self.findings) for name in SEVERITIES}

    def verdict(self) -> str:
        """One line: what was audited, and whether it can be trained on."""
        counts = self.counts()
        name = self.sources[0].name
        if not self.is_clean:
            return f"{name}: do not train on it yet: {count(counts['error'], 'error')}"
        if counts["warning"]:
            return f"{name}: no errors; look at {count(counts['warning'], 'warning')}"
        return f"{name}: clean"

    def to_json(self, *, command: str = "") -> dict[str, Any]:
        """The value of `audit.json`."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "file": str(self.sources[0].path),
            "data_hash": data_hash(self.sources[0].dataset),
            "compared_with": [str(source.path) for source in self.sources[1:]],
            "command": command,
            "clean": self.is_clean,
            "verdict": self.verdict(),
            "counts": self.counts(),
            "checks": {check.what: check.to_text() for check in self.checks},
            "findings": [finding.to_json() for finding in self.findings],
            "subsets": count_subsets(self.images),
            "facts": find_facts(self.images),
        }

    def to_text(self) -> str:
        """A table for the screen: the verdict, then a line per finding with its first instances."""
        lines = [self.verdict()]
        for finding in self.findings:
            lines.append(f"  {finding.severity:<8} {finding.check}: {finding.title}")
            if finding.severity != "note":
                lines += [f"             {item.text}" for item in finding.items[:3]]
                if len(finding.items) > 3:
                    lines.append(f"             ... {len(finding.items) - 3} more in audit.json")
                lines.append(f"             -> {finding.advice}")
        return "\n".join(lines)
