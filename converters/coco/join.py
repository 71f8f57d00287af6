"""What file names and tables say of the images of a COCO file: patients, sides, views, labels, attributes.

A rule finds the rows of an image by equality: ("patient id", "P_{patient}") are the rows whose patient id is that.
Nothing says which of several rows belongs to which of several boxes, so boxes get what all rows agree on.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic.dataclasses import dataclass as pydantic_dataclass

from mammodet.converters.base import Quarantined, Reason
from mammodet.converters.coco.source import SourceImage
from mammodet.converters.coco.tables import Row, Tables, fold, read_tables
from mammodet.converters.options import Pairs, flag, pairs
from mammodet.converters.sheet import column_name
from mammodet.converters.tables import laterality_of
from mammodet.errors import InputError, raise_faults

IMAGE_KEYS = ("patient_id", "laterality", "view", "density", "birads")
PATHOLOGY_WORDS = {
    "BENIGN": "benign",
    "BENIGN_WITHOUT_CALLBACK": "benign",
    "MALIGNANT": "malignant",
    "NORMAL": "normal",
}
PATHOLOGIES = ("benign", "malignant", "normal", "unknown")
_GROUP = "what file names and tables say"
_ALWAYS = ("file_name", "stem", "side", "side_word")


@pydantic_dataclass(frozen=True, slots=True)
class JoinRule:
    """How images meet what is known of them.

    Attributes:
        on: (column, template); where: (column, value); attributes, image_keys: (name, column);
            constants: (name, value); pathology: (word, one of `PATHOLOGIES`); unknown: (image key, word).
    """

    pattern: str | None = flag(
        None,
        "searched in the file name without its suffix; groups 'patient', 'laterality', 'view', and any others",
        metavar="REGEX",
        group=_GROUP,
    )
    patient: str = flag("{patient}", "the patient's id", metavar="TEMPLATE", group=_GROUP)
    tables: tuple[Path, ...] = flag((), "tables, or folders of them", name="table tables", metavar="CSV", group=_GROUP)
    on: Annotated[Pairs, pairs("--on")] = flag(
        (),
        "a row belongs to an image where this column is this; templates hold groups of --pattern, {stem}, "
        "{file_name}, {side} (L, R), {side_word} (LEFT, RIGHT)",
        metavar="COLUMN=TEMPLATE",
        group=_GROUP,
        each=True,
    )
    where: Annotated[Pairs, pairs("--where")] = flag(
        (), "rows that are meant", metavar="COLUMN=VALUE", group=_GROUP, each=True
    )
    attributes: Annotated[Pairs, pairs("--attribute")] = flag(
        (), "an attribute of the lesions", name="attribute", metavar="NAME=COLUMN", group=_GROUP, each=True
    )
    image_keys: Annotated[Pairs, pairs("--image-key")] = flag(
        (),
        "density, birads, view, laterality or patient_id of the image",
        name="image-key",
        metavar="KEY=COLUMN",
        group=_GROUP,
        each=True,
    )
    constants: Annotated[Pairs, pairs("--set")] = flag(
        (), "an attribute of every lesion", name="set", metavar="NAME=VALUE", group=_GROUP, each=True
    )
    pathology: Annotated[Pairs, pairs("--pathology")] = flag(
        (),
        f"what a word of the attribute 'pathology' means: {', '.join(PATHOLOGIES)}",
        metavar="WORD=MEANING",
        group=_GROUP,
        each=True,
    )
    without_callback: Literal["benign", "unknown", "malignant"] = flag(
        "benign", "what the pathology BENIGN_WITHOUT_CALLBACK means", group=_GROUP
    )
    unknown: Annotated[Pairs, pairs("--unknown")] = flag(
        (), "a word that says nothing: density=0", metavar="KEY=WORD", group=_GROUP, each=True
    )
    rows: Literal["lesions", "images"] = flag(
        "lesions", "what a row is: a lesion, or facts about an image, with a lesion or without", group=_GROUP
    )
    unmatched: Literal["refuse", "skip", "keep"] = flag(
        "refuse",
        "images whose name does not match or that have no row: 'skip' quarantines them, 'keep' also keeps those "
        "that only lack a row",
        group=_GROUP,
    )

    @property
    def words(self) -> dict[str, str]:
        """A word of the column of pathologies to one of `PATHOLOGIES`."""
        return {**PATHOLOGY_WORDS, "BENIGN_WITHOUT_CALLBACK": self.without_callback, **dict(self.pathology)}

    def over(self, base: "JoinRule") -> "JoinRule":
        """This rule with what it leaves to a preset."""
        return replace(
            self,
            pattern=self.pattern or base.pattern,
            patient=base.patient if self.patient == JoinRule().patient else self.patient,
            on=self.on or base.on,
            where=tuple(dict.fromkeys((*base.where, *self.where))),
            attributes=tuple({**dict(base.attributes), **dict(self.attributes)}.items()),
            image_keys=tuple({**dict(base.image_keys), **dict(self.image_keys)}.items()),
            constants=tuple({**dict(base.constants), **dict(self.constants)}.items()),
            unknown=tuple(dict.fromkeys((*base.unknown, *self.unknown))),
        )

    def column(self, name: str) -> str | None:
        """The column of an attribute."""
        return next((column_name(column) for key, column in self.attributes if key == name), None)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of one image besides its annotations."""

    patient_id: str
    laterality: str | None = None
    view: str | None = None
    density: str | None = None
    birads: str | None = None
    attributes: Mapping[str, str | int] = field(default_factory=dict)  #: of each of its lesions
    pathologies: tuple[str, ...] = ()  #: of each of its rows, one of `PATHOLOGIES`; empty where no column says it
    #: the same of rows that `JoinRule.where` leaves out, `unknown` where nothing says it.
    left_out: tuple[str, ...] = ()
    lesion_rows: int | None = None  #: how many rows stand for a lesion, None where no row does or could
    notes: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()  #: the rows themselves


@dataclass(frozen=True, slots=True)
class Joined:
    """What was joined."""

    facts: tuple[ImageFacts | None, ...]  #: one for each image, None where it is quarantined
    quarantine: tuple[Quarantined, ...]
    tables: Tables | None
    unused: tuple[Row, ...] = ()  #: rows that no image has
    unmatched: int = 0  #: images that are kept without a row
    shared: int = 0  #: images whose rows another image has, too


class _UnmatchedError(ValueError):
    """Why an image cannot be joined."""


def check_rule(rule: JoinRule) -> None:
    """Refuse a rule that cannot work, before anything is read.

    Raises InputError: a pattern or template that is none, names that nothing fills, options that need each other.
    """
    groups: set[str] = set()
    if rule.pattern is not None:
        try:
            groups = set(re.compile(rule.pattern).groupindex)
        except re.error as error:
            raise InputError(f"--pattern {rule.pattern!r}: is no regular expression ({error})") from None
    keys = dict(rule.image_keys)
    if rule.pattern is not None and "patient" not in groups and "patient_id" not in keys:
        raise InputError(
            f"--pattern {rule.pattern!r}: has no group (?P<patient>...), and no --image-key patient_id=COLUMN names "
            f"the patient's column; its groups are {', '.join(sorted(groups)) or 'none'}"
        )
    for key, group in (("patient_id", "patient"), ("laterality", "laterality"), ("view", "view")):
        if key in keys and group in groups:
            raise InputError(f"--image-key {key}={keys[key]}: --pattern has the group '{group}', too; choose one")
    fields = groups | set(_ALWAYS if "laterality" in groups else _ALWAYS[:2])
    for option, template in [
        ("--patient", rule.patient) if groups else ("", ""),
        *((f"--on {c}", t) for c, t in rule.on),
    ]:
        _check_template(option, template, fields, skip=option == "--patient" and "patient_id" in keys)
    for name, _ in (*rule.image_keys, *rule.unknown):
        if name not in IMAGE_KEYS:
            raise InputError(f"--image-key {name}: expected one of {', '.join(IMAGE_KEYS)}")
    for word, meaning in rule.words.items():
        if meaning not in PATHOLOGIES:
            raise InputError(f"--pathology {word}={meaning}: expected one of {', '.join(PATHOLOGIES)}")
    if rule.tables and not rule.on:
        raise InputError("--table: which rows belong to an image? Say it by --on 'COLUMN=TEMPLATE'")
    if not rule.tables and (rule.on or rule.attributes or rule.image_keys or rule.where):
        raise InputError("--on, --where, --attribute and --image-key speak of a table; name it by --table FILE.csv")


def _check_template(option: str, template: str, fields: set[str], *, skip: bool) -> None:
    if skip:
        return
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        if unknown := [name for name in names if name not in fields]:
            raise ValueError(f"'{unknown[0]}' is not one of {', '.join(sorted(fields))}")
        template.format(**dict.fromkeys(fields, "0"))
    except (ValueError, IndexError, KeyError) as error:
        raise InputError(f"{option}: the template {template!r} cannot be filled ({error})") from None


def join_images(rule: JoinRule, images: Sequence[tuple[str, SourceImage]]) -> Joined:
    """The facts of each image, given with the label of its COCO file.

    Raises InputError: with every image that does not match or has no row, unless `rule.unmatched` says otherwise.
    """
    check_rule(rule)
    tables = None
    if rule.tables:
        columns = [column for _, column in (*rule.attributes, *rule.image_keys)]
        tables = read_tables(rule.tables, [column for column, _ in rule.on], columns, rule.where)
        _check_pathologies(rule, tables)
    index = _index(rule, tables.rows) if tables else {}
    others = _index(rule, tables.left_out) if tables else {}
    faults: dict[str, list[str]] = {}
    quarantine: list[Quarantined] = []
    facts: list[ImageFacts | None] = []
    for label, image in images:
        try:
            facts.append(_meet(rule, image, index, others))
        except _UnmatchedError as error:
            facts.append(None)
            faults.setdefault(label, []).append(f"{image.name}: {error}")
            quarantine.append(Quarantined(Reason.NO_ROW, "image", image.name, str(error), label))
    if rule.unmatched == "refuse" or not any(facts):
        _refuse(faults, tables)
    used = Counter(id(row) for found in facts if found for row in found.rows)
    return Joined(
        tuple(facts),
        tuple(quarantine),
        tables,
        unused=tuple(row for row in (tables.rows if tables else ()) if id(row) not in used),
        unmatched=sum(not found.rows for found in facts if found) if tables else 0,
        shared=sum(any(used[id(row)] > 1 for row in found.rows) for found in facts if found),
    )


def _index(rule: JoinRule, rows: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
    """The cells of the rule's columns to the rows that have them."""
    columns = [column_name(column) for column, _ in rule.on]
    index: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        index.setdefault(tuple(fold(row.cells[column]) for column in columns), []).append(row)
    return index


def _meet(
    rule: JoinRule,
    image: SourceImage,
    index: Mapping[tuple[str, ...], list[Row]],
    others: Mapping[tuple[str, ...], list[Row]],
) -> ImageFacts:
    """The facts of one image. Raises _UnmatchedError: its name does not match, it has no row, or no patient."""
    values = _values(rule, image)
    if not rule.tables:
        return _facts(rule, image, values, [], [])
    wanted = [template.format(**values) for _, template in rule.on]
    key = tuple(fold(text) for text in wanted)
    rows = index.get(key, [])
    if rows:
        return _facts(rule, image, values, rows, others.get(key, []))
    listed = ", ".join(f"{column}={text}" for (column, _), text in zip(rule.on, wanted, strict=True))
    reason = f"has no row in the tables ({listed})"
    if rule.unmatched != "keep":
        raise _UnmatchedError(reason)
    facts = _facts(rule, image, values, rows, others.get(key, []))
    return replace(facts, notes=(*facts.notes, reason))


def _refuse(faults: Mapping[str, Sequence[str]], tables: Tables | None) -> None:
    lines = [line for found in faults.values() for line in found]
    if tables and tables.skipped:
        lines += [f"table left aside: {line}" for line in tables.skipped]
    advice = (
        "Mend --pattern or --on, or go on without these images (--unmatched skip), or with those that only lack a row "
        "(--unmatched keep)."
    )
    if faults:
        raise_faults(lines, where=", ".join(faults), advice=advice, most=max(25, len(lines)))


def _values(rule: JoinRule, image: SourceImage) -> dict[str, str]:
    """What templates can hold. Raises _UnmatchedError: the name does not match."""
    stem = PurePosixPath(image.name).stem
    values = {"file_name": image.name, "stem": stem}
    if rule.pattern is None:
        return values
    match = re.search(rule.pattern, stem)
    if match is None:
        raise _UnmatchedError(f"its name does not match --pattern {rule.pattern}")
    for name, text in match.groupdict().items():
        values[name] = text or ""
    if "patient" in values and not values["patient"]:
        raise _UnmatchedError(f"its name gives no patient by --pattern {rule.pattern}")
    if "laterality" in values:
        side = laterality_of(values["laterality"]) or ""
        if values["laterality"] and not side:
            raise _UnmatchedError(f"its name gives laterality {values['laterality']!r}; expected L, R, LEFT or RIGHT")
        values |= {"side": side, "side_word": {"L": "LEFT", "R": "RIGHT", "": ""}[side]}
    return values


def _facts(
    rule: JoinRule, image: SourceImage, values: Mapping[str, str], rows: Sequence[Row], left_out: Sequence[Row]
) -> ImageFacts:
    """All that is known of an image.

    Raises _UnmatchedError: it has no patient, or its rows are at odds about something that an image has once.
    """
    notes: list[str] = []
    told: dict[str, str | None] = {key: _image_key(rule, key, column, rows, notes) for key, column in rule.image_keys}
    for key in IMAGE_KEYS:
        own = image.item.get(key)
        if told.get(key) is None and isinstance(own, int | str) and not isinstance(own, bool) and str(own).strip():
            told[key] = str(own).strip()
    if values.get("patient"):
        told["patient_id"] = rule.patient.format(**values)
    if not told.get("patient_id"):
        raise _UnmatchedError(
            "its patient is not known; name it by --pattern '(?P<patient>...)' or --image-key patient_id=COLUMN"
        )
    side = values.get("side") or None
    if side is None and told.get("laterality"):
        side = laterality_of(str(told["laterality"]))
        if side is None:
            notes.append(f"laterality {told['laterality']!r} is neither left nor right")
    view = values.get("view") or told.get("view")
    pathology = rule.column("pathology")
    pathologies = tuple(_pathology(rule, row, pathology) for row in rows) if pathology else ()
    others = tuple(_pathology(rule, row, pathology) for row in left_out)
    if others:
        counted = ", ".join(f"{count} {word}" for word, count in sorted(Counter(others).items()))
        kinds = sorted({str(row.word(column_name(rule.where[0][0]))) for row in left_out}) if rule.where else []
        notes.append(f"also holds, not converted: {', '.join(kinds)} ({counted})")
    if not rows and str(image.item.get("pathology", "")).lower() == "normal":
        pathologies = ("normal",)
    lesions = sum(word != "normal" for word in pathologies) if pathology else len(rows)
    return ImageFacts(
        patient_id=str(told["patient_id"]),
        laterality=side,
        view=view.upper() if view else None,
        density=told.get("density"),
        birads=told.get("birads"),
        attributes={**_attributes(rule, rows, pathologies, notes), **dict(rule.constants)},
        pathologies=pathologies,
        left_out=others,
        lesion_rows=lesions if rule.rows == "lesions" and rows else None,
        notes=tuple(notes),
        rows=tuple(rows),
    )


def _image_key(rule: JoinRule, key: str, column: str, rows: Sequence[Row], notes: list[str]) -> str | None:
    """The value of an image: the one of its rows; of several densities or BI-RADS the highest."""
    words = [row.word(column_name(column)) for row in rows]
    nothing = {fold(word) for name, word in rule.unknown if name == key}
    for word in sorted({word for word in words if word is not None and fold(word) in nothing}):
        notes.append(f"{key} {word} in the table: not known")
    known = sorted({word for word in words if word is not None and fold(word) not in nothing}, key=fold)
    if len(known) < 2:
        return known[0] if known else None
    listed = ", ".join(known)
    if key in ("patient_id", "laterality", "view"):
        raise _UnmatchedError(f"its {len(rows)} rows give different {key}: {listed}")
    if key == "density":
        notes.append(f"density differs between its {len(rows)} rows: {listed}; the highest is kept")
    return known[-1]


def _attributes(
    rule: JoinRule, rows: Sequence[Row], pathologies: Sequence[str], notes: list[str]
) -> dict[str, str | int]:
    """What all rows agree on; a note tells of what they do not."""
    attributes: dict[str, str | int] = {}
    for name, column in rule.attributes:
        words = [row.word(column_name(column)) for row in rows]
        meanings = list(pathologies) if name == "pathology" else words
        if len(set(meanings)) > 1:
            listed = ", ".join(sorted({word or "not given" for word in words}))
            notes.append(f"{name} differs between its {len(rows)} rows: {listed}")
            continue
        if meanings and meanings[0] not in (None, "unknown"):
            text = str(meanings[0])
            attributes[name] = int(text) if re.fullmatch(r"0|[1-9]\d{0,8}", text) else text
        if name == "pathology" and len(set(words)) == 1 and words[0] is not None:
            attributes["pathology_csv"] = words[0]
        elif name == "pathology" and len(set(words)) > 1:
            listed = ", ".join(sorted({word or "not given" for word in words}))
            notes.append(f"pathology_csv differs between its {len(rows)} rows: {listed}")
    return attributes


def _pathology(rule: JoinRule, row: Row, column: str | None) -> str:
    word = row.word(column) if column else None
    known = {fold(key): meaning for key, meaning in rule.words.items()}
    return known.get(fold(word), "unknown") if word is not None else "unknown"


def _check_pathologies(rule: JoinRule, tables: Tables) -> None:
    """Refuse words that nobody explained: a malignant lesion must not become one of unknown kind in silence."""
    column = rule.column("pathology")
    if column is None:
        return
    known = {fold(key) for key in rule.words}
    words = Counter(word for row in tables.rows if (word := row.word(column)) is not None)
    faults = [f"{word!r} ({count} rows)" for word, count in sorted(words.items()) if fold(word) not in known]
    advice = f"Say what they mean: --pathology WORD={'|'.join(PATHOLOGIES)}; known are {', '.join(rule.words)}."
    raise_faults(faults, where=f"words in the column {column!r}", advice=advice)
