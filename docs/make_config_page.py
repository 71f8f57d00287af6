"""Write docs/config.md from mammodet/config/: every key with its type, default and comment.

example:
  python docs/make_config_page.py
"""

import ast
from pathlib import Path

from mammodet.config import ON_RESUME

SOURCE = Path(__file__).parent.parent / "mammodet" / "config"
MODULES = ("data", "detector", "detectron2", "classifier", "train", "experiment")
PAGE = Path(__file__).parent / "config.md"
INTRO = """# Configuration

Written by `python docs/make_config_page.py` from `mammodet/config/`; change it there.

An experiment is a YAML file over its `_base_` (a path beside it) over the defaults below. On the command line,
`key.key=value` at the end overrides both: `data.fold=0 train.lr=1e-3 model.detector.anchors.sizes=auto`. Values are
read as YAML: `null`, `true`, `[1, 2]`. Unknown keys are refused with the nearest known name. The configs that come with
mammodet stand on `configs/base.yaml`, which changes some of these defaults (AdamW at 2e-4, half of each batch without
lesions, fitted anchors); the values of a run stand in `config.yaml` in its output folder. Terms are explained in the
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
        shared = " ".join(comment) or f"{shared.removesuffix(' (as above)')}{' (as above)' if shared else ''}"
        table.append(f"| `{key}` | {cell(readable(kind))} | {cell(default(field.value))} | {cell(shared)} |")
    title = prefix.rstrip(".") or "top level"
    if title == "model":
        title += f", `kind: {name.removesuffix('ModelConfig').lower()}`"
    text = " ".join((ast.get_docstring(node) or "").split())
    head = [f"## {title}", "", text, "", "| key | type | default | meaning |", "|---|---|---|---|"]
    return [*head, *table, "", *below]


def readable(kind: str) -> str:
    """Types in words where they have some."""
    words = {
        "Positive": "number > 0",
        "NonNegative": "number >= 0",
        "Share": "number in [0, 1]",
        "BelowOne": "number in [0, 1)",
        "Count": "integer >= 0",
        "AtLeastOne": "integer >= 1",
        "AggregationRule": "one of ['max', 'noisy_or', 'top_k_mean', 'head', 'learned']",
    }
    if kind.startswith("dict[str, Any]"):
        return "nested values or null"
    if kind.startswith("DataFiles"):
        return "file, list of files (below) or null"
    if kind.startswith("dict[str, Annotated[str"):
        return "name to name or null"
    if kind.startswith("dict[str, "):
        return "one section for each name" if "Config" in kind else "name to a list of names"
    for name, text in words.items():
        kind = kind.replace(name, text)
    if kind.startswith("Annotated["):
        inner, _, limits = kind.removeprefix("Annotated[").partition(", Field(")
        kind = f"{inner} ({limits.split(')')[0]})"
    return kind.replace("Literal", "one of ")


def default(value: ast.expr) -> str:
    """A default as it would stand in YAML."""
    if isinstance(value, ast.Call):
        given = [item.value for item in value.keywords if item.arg == "default"]
        value = given[0] if given else value.args[0]
    text = ast.unparse(value)
    if isinstance(value, ast.Dict) and value.keys:
        return f"{', '.join(str(ast.literal_eval(key)) for key in value.keys if key)} alone"
    return {"...": "needed", "None": "null", "True": "true", "False": "false"}.get(text, text)


def cell(text: str) -> str:
    """Text inside a table."""
    return text.replace("|", "\\|")


def page() -> str:
    """The whole page."""
    text = "\n".join((SOURCE / f"{name}.py").read_text(encoding="utf-8") for name in MODULES)
    body = rows("Config", "", sections(ast.parse(text)), text.splitlines())
    return INTRO + "\n" + "\n".join([*body, *resume()]).rstrip() + "\n"


def resume() -> list[str]:
    """What a change of each setting means to `--resume`."""
    head = ["## Changes on --resume", "", RESUME, "", "| key | a change | |", "|---|---|---|"]
    return head + [f"| `{key}` | {meaning.answer} | {meaning.note} |" for key, meaning in ON_RESUME.items()]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
