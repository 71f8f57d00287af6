"""Documents that are made from code are up to date, and no link in a document is dead."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])


def test_config_page_is_what_the_code_says() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_config_page.py"))["page"]()
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == made


def test_metrics_schema_is_that_of_the_model() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_metrics_schema.py"))["schema"]()
    assert (ROOT / "docs" / "metrics.schema.json").read_text(encoding="utf-8") == made


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_of_a_document_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
    dead = [link for link in links if not link.startswith("http") and not (path.parent / link).exists()]
    assert dead == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_tools_and_configs_named_in_a_document_exist(path: Path) -> None:
    named = re.findall(r"(?:tools|configs|benchmarks)/[\w/]+\.(?:py|yaml)", path.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []
