"""Documents that are made from code are up to date, their links lead somewhere, and their commands are accepted."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from mammodet.commands import COMMANDS
from mammodet.config import load_config

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
#: In documents, a config that the reader writes or a training has written.
OF_READERS = ("my.yaml", "FILE", "output/")


def test_config_page_is_what_the_code_says() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_config_page.py"))["page"]()
    assert (ROOT / "docs" / "config.md").read_text(encoding="utf-8") == made


def test_metrics_schema_is_that_of_the_model() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_metrics_schema.py"))["schema"]()
    assert (ROOT / "docs" / "metrics.schema.json").read_text(encoding="utf-8") == made


@pytest.mark.parametrize("path", [*DOCUMENTS, NOTEBOOK], ids=lambda path: path.name)
def test_relative_links_of_a_document_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)", path.read_text(encoding="utf-8"))
    dead = [link for link in links if not link.startswith("http") and not _leads(path, *link.partition("#")[::2])]
    assert dead == []


def _leads(document: Path, name: str, anchor: str) -> bool:
    page = document.parent / name if name else document
    if not page.exists() or not anchor:
        return page.exists()
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return anchor in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_tools_and_configs_named_in_a_document_exist(path: Path) -> None:
    named = re.findall(r"(?:tools|configs|benchmarks)/[\w/]+\.(?:py|yaml)", path.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def _commands(path: Path) -> Iterator[list[str]]:
    """Commands `mammodet ...` of the code blocks, split as a shell does."""
    for block in re.findall(r"^```\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("mammodet ") and " ..." not in line:
                yield shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize("path", [each for each in DOCUMENTS if any(_commands(each))], ids=lambda path: path.name)
def test_commands_of_a_document_are_accepted(path: Path) -> None:
    for name, *arguments in _commands(path):
        module = importlib.import_module(f"mammodet.commands.{COMMANDS[name][0]}")
        parser = module.parser()
        try:
            if name != "train":
                parser.parse_args(arguments)
                continue
            chosen = parser.parse_intermixed_args(arguments)
        except SystemExit:
            pytest.fail(f"mammodet {name} {shlex.join(arguments)}")
        if not str(chosen.config_file).startswith(OF_READERS):
            load_config(chosen.config_file, chosen.opts)


def test_notebook_runs_and_is_stored_without_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert [cell["execution_count"] for cell in code] == [None] * len(code)
    (tmp_path / "ein Büchlein").mkdir()
    monkeypatch.chdir(tmp_path / "ein Büchlein")
    names: dict[str, object] = {}
    for cell in code:
        exec("".join(cell["source"]), names)
    assert Path("evaluation/report.html").is_file()
