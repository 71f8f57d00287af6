"""What `pip install` brings: one package that works from any folder."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel ä")
    source = folder / "source"
    for name in ("mammodet", "converters", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_wheel_holds_one_package_with_everything_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        info = next(name.split("/")[0] for name in names if name.endswith(".dist-info/METADATA"))
        meta = Parser().parsestr(content.read(f"{info}/METADATA").decode())
        entries = content.read(f"{info}/entry_points.txt").decode()
    assert {name.split("/")[0] for name in names} == {"mammodet", info}
    for folder in ("converters", "configs"):
        files = (path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml"))
        assert {f"mammodet/{path.relative_to(ROOT).as_posix()}" for path in files} <= names
    package = ROOT / "mammodet"
    data = [package / "py.typed", *package.glob("reporting/templates/*"), *package.glob("models/starter.*")]
    assert len(data) > 1
    assert {path.relative_to(ROOT).as_posix() for path in data} <= names
    assert "mammodet = mammodet.commands:run_command" in entries
    assert meta["Author"] == "mammodet developers"
    assert meta["Description-Content-Type"] == "text/markdown"
    assert "# mammodet" in str(meta.get_payload())


def test_wheel_converts_and_finds_its_configs_from_any_folder(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path / "site")
    work = tmp_path / "elsewhere"
    work.mkdir()

    def call(*arguments: str) -> str:
        command = [sys.executable, "-m", "mammodet", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=work, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    call("phantoms", "--output", "archive", "--patients", "8", "--size", "128", "--difficulty", "easy")
    call("convert", "mias", "--source", "archive", "--output", "data")
    assert (work / "data/train.json").is_file()
    code = (
        "import mammodet, mammodet.converters; from pathlib import Path; from mammodet.config import load_config; "
        "print(mammodet.__file__, load_config(Path('phantom/quickstart'), []).output_dir)"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=work, env=environment)
    assert done.stdout.split()[0].startswith(str(tmp_path / "site"))
    assert done.stdout.split()[1] == "quickstart/run"


def rooms_named(node: ast.AST) -> list[str]:
    """Rooms of ours that an import statement names; none for other statements."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    else:
        return []
    return [name.split(".")[1] for name in names if name.startswith("mammodet.")]


def test_imports_lead_from_a_floor_to_lower_ones() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("<!-- floors -->\n")[2]
    floors = [re.split("  |$", line)[0].split(", ") for line in re.findall("^    (.+)$", text.split("\n\n")[0], re.M)]
    height = {room: len(floors) - number for number, floor in enumerate(floors) for room in floor}
    folders = {path.parent.name for path in ROOT.glob("mammodet/*/__init__.py")} | {"converters", "tools"}
    assert folders <= height.keys()
    wrong, seen = [], set()
    for folder in ("mammodet", "converters", "tools", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            inside = path.relative_to(ROOT).parts
            here = inside[0] if folder != "mammodet" else inside[1].removesuffix(".py")
            if here.startswith("__"):  # the package's face
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for there in rooms_named(node):
                    seen.add((here, there))
                    if here != there and there in height and height[there] >= height.get(here, 0):
                        wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} imports {there}")  # type: ignore[attr-defined]
    assert not wrong, "\n".join(wrong)
    assert {("commands", "serving"), ("data", "config"), ("converters", "records")} <= seen
