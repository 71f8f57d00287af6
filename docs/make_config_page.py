"""Write docs/config.md from mammodet/config/: every key with its type, default and comment.

example:
  python docs/make_config_page.py
"""

import ast
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from mammodet.config import ON_RESUME

SOURCE = Path(__file__).parent.parent / "mammodet" / "config"
MODULES = ("data", "detector", "detectron2", "classifier", "train", "experiment")
CONFIGS = Path(__file__).parent.parent / "configs"
PAGE = Path(__file__).parent / "config.md"
WORDS = {"str": "text", "Path": "path", "bool": "true or false", "int": "integer", "float": "number", "Any": "value"}
#: Types that have a name, such as `Share`.
ALIASES = {
    node.targets[0].id: node.value
    for name in ("base", "data", "detector")
    for node in ast.parse((SOURCE / f"{name}.py").read_text(encoding="utf-8")).body
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
}
INTRO = """# Configuration

Written by `python docs/make_config_page.py` from `mammodet/config/`; change it there.

An experiment is a YAML file over its `_base_` (a path beside it) over the defaults below. On the command line,
`key.key=value` at the end overrides both: `data.fold=0 train.lr=1e-3 model.detector.anchors.sizes=auto`. Values are
read as YAML: `null`, `true`, `[1, 2]`. Unknown keys are refused with the nearest known name. The configs that come with
mammodet (below) build on `base`, which changes some of these defaults (AdamW at 2e-4, half of each batch without
lesions, fitted anchors); the values of a run are in `config.yaml` in its output folder. Terms are explained in the
[glossary](glossary.md).
"""
RESUME = """What is refused needs a new `output_dir`, which can start from the weights: `model.weights=OLD/last.ckpt`.
The schedule goes by epochs done and the warm-up by steps, so that other batches or GPUs go on at the right rate."""


def sections(tree: ast.Module) -> dict[str, ast.ClassDef]:
    """Config classes by name."""
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef) and node.name != "Section"}


def rows(name: str, prefix: str, classes: dict[str, ast.ClassDef], lines: list[str]) -> list[str]:
    """Markdown of a section and of those below it."""
    node = classes[name]
    above = [each for each in node.bases if isinstance(each, ast.Name) and each.id in classes]
    inherited = [field for each in above for field in classes[each.id].body]
    table: list[str] = []
    below: list[str] = []
    shared = ""
    for field in [*node.body, *inherited]:
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name) or field.value is None:
            continue
        key = f"{prefix}{field.target.id}"
        kind = ast.unparse(field.annotation)
        if kind.startswith("ClassVar"):
            continue
        if kind == "ModelConfig":
            for each in ("DetectorModelConfig", "ClassifierModelConfig"):
                below += rows(each, f"{key}.", classes, lines)
            continue
        if kind in classes:
            below += rows(kind, f"{key}.", classes, lines)
            continue
        if kind.startswith("dict[str, ") and (named := kind.removeprefix("dict[str, ").removesuffix("]")) in classes:
            below += rows(named, f"{key}.NAME.", classes, lines)
        if kind.startswith("DataFiles") and key == "data.train":
            below += rows("DataFileConfig", f"{key}[].", classes, lines)
        comment, line = [], field.lineno - 2
        while lines[line].strip().startswith("#:"):
            comment.insert(0, lines[line].strip().removeprefix("#:").strip())
            line -= 1
        shared = " ".join(comment) or (shared and "as above")
        table.append(
            f"| `{key}` | {cell(readable(field.annotation))} | {cell(default(field.value))} | {cell(shared)} |"
        )
    title = prefix.rstrip(".") or "top level"
    if title == "model":
        title += f", `kind: {name.removesuffix('ModelConfig').lower()}`"
    text = " ".join((ast.get_docstring(node) or "").split())
    head = [f"## {title}", "", text, "", "| key | type | default | meaning |", "|---|---|---|---|"]
    return [*head, *table, "", *below]


def readable(kind: ast.expr) -> str:
    """A type in words."""
    match kind:
        case ast.Name(id="DataFiles"):
            return "file or list of files (below)"
        case ast.Name():
            return readable(ALIASES[kind.id]) if kind.id in ALIASES else WORDS.get(kind.id, kind.id)
        case ast.Constant():
            return "null"
        case ast.BinOp():
            return f"{readable(kind.left)} or {readable(kind.right)}"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=ast.Tuple(elts=[*some, last])):
            return f"{', '.join(f'`{value(each)}`' for each in some)} or `{value(last)}`"
        case ast.Subscript(value=ast.Name(id="Literal")):
            return f"`{value(kind.slice)}`"
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, ast.Call() as field])):
            return limited(readable(inner), {each.arg: value(each.value) for each in field.keywords})
        case ast.Subscript(value=ast.Name(id="list")):
            return f"list, each {readable(kind.slice)}"
    text = ast.unparse(kind)
    named = {"dict[str, Any]": "nested values", "dict[str, list[str]]": "name to a list of names"}
    return named.get(text) or ("section for each name" if "Config" in text else "name to name or null")


def limited(kind: str, limits: dict[str | None, Any]) -> str:
    """A type in words, with the limits of its field."""
    least, most = limits.get("min_length"), limits.get("max_length")
    if least is not None:
        return kind.replace("list,", f"list of {least},", 1) if least == most else kind
    if {"ge", "le"} <= limits.keys():
        step = f" in steps of {limits['multiple_of']}" if "multiple_of" in limits else ""
        return f"{kind} from {limits['ge']} to {limits['le']}{step}"
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return f"{kind} {' and '.join(f'{signs[name]} {limits[name]}' for name in signs if name in limits)}"


def value(node: ast.expr) -> Any:
    """What a constant expression is, such as 2**14."""
    return eval(compile(ast.Expression(node), "config", "eval"))


def default(node: ast.expr) -> str:
    """A default as YAML has it."""
    if isinstance(node, ast.Call):
        given = [item.value for item in node.keywords if item.arg == "default"]
        node = given[0] if given else node.args[0]
    if isinstance(node, ast.Dict) and node.keys:
        return f"{', '.join(str(value(key)) for key in node.keys if key)} alone"
    if value(node) is ...:
        return "needed"
    text: str = yaml.safe_dump(value(node), default_flow_style=True)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def cell(text: str) -> str:
    """Text inside a table."""
    return text.replace("|", "\\|")


def page() -> str:
    """The whole page."""
    text = "\n".join((SOURCE / f"{name}.py").read_text(encoding="utf-8") for name in MODULES)
    body = rows("Config", "", sections(ast.parse(text)), text.splitlines())
    return INTRO + "\n" + "\n".join([*shipped(), "", *body, *resume()]).rstrip() + "\n"


def shipped() -> list[str]:
    """The configs that come with mammodet: name, and the first sentence of the comment at their begin."""
    table = ["## Configs that come with mammodet", "", "| `--config-file` | |", "|---|---|"]
    for path in sorted(CONFIGS.glob("**/*.yaml")):
        lines = takewhile(lambda line: re.match("# [^ ]", line), path.read_text(encoding="utf-8").splitlines())
        text = " ".join(line[2:] for line in lines).partition(". ")[0].rstrip(".:")
        table.append(f"| `{path.relative_to(CONFIGS).with_suffix('').as_posix()}` | {cell(text)} |")
    return table


def resume() -> list[str]:
    """What a change of each setting means to `--resume`."""
    head = ["## Changes on --resume", "", RESUME, "", "| key | a change | |", "|---|---|---|"]
    return head + [f"| `{key}` | {meaning.answer} | {meaning.note} |" for key, meaning in ON_RESUME.items()]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
