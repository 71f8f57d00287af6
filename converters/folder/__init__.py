"""A tree of folders whose names are classes, made a data set: labels from the names, patients from the paths.

Everything that names and bytes can say is reported before a pixel is decoded: which folder is the class, what it
means, whose image it is, and what lies on both sides of a split.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator

from mammodet.converters.base import Quarantined, Reason, Summary, counted, link_file, listed
from mammodet.converters.folder.classes import Classes, plan_classes
from mammodet.converters.folder.duplicates import Cleaned, Entry, clean, given_subsets
from mammodet.converters.folder.patients import Copies, compile_patient, guess_persons, read_persons
from mammodet.converters.folder.rules import RULE_KEYS, ClassRule, read_map, rule_of_text
from mammodet.converters.folder.tree import Tree, class_folder, read_tree, told_subsets
from mammodet.converters.options import Options, flag
from mammodet.converters.skeleton import Converter, Made, refused
from mammodet.data.breast import find_breast
from mammodet.data.images import read_image
from mammodet.data.splits import Splits, make_splits
from mammodet.errors import InputError, raise_faults
from mammodet.files import write_bytes
from mammodet.records import SUBSETS, ImageRecord

_MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is known before pixels are read."""

    entries: list[Entry]
    quarantine: list[Quarantined]
    given: dict[str, str] | None
    leaking: dict[str, list[str]]
    copies: Copies | None
    cleaned: Cleaned
    skipped: int


_Row = tuple[int, Entry]


def _rules(value: Any) -> Any:
    """Rules, or texts of a command line."""
    return tuple(rule_of_text(each) if isinstance(each, str) else each for each in value)


def _level(value: Any) -> Any:
    if value is None or value == "all" or (str(value).isdecimal() and int(value) > 0):
        return int(value) if str(value).isdecimal() else value
    raise InputError(f"--level {value}: expected a number from 1, or 'all'")


class FolderOptions(Options):
    """What is converted, and how."""

    #: classes that the user explains; the others are read from their folders' names.
    rules: Annotated[tuple[ClassRule, ...], BeforeValidator(_rules)] = flag(
        (),
        "what a folder means, for instance stage2=malignant:1,density:B,name:late or junk=skip; keys: "
        f"{', '.join(RULE_KEYS)}",
        name="class",
        metavar="FOLDER=KEY:VALUE,...",
        group="classes",
        words="known words of its name",
        each=True,
    )
    #: a file with more rules, which are in `rules` once it is read.
    map: Path | None = flag(None, "the same for many folders, as YAML", metavar="FILE.yaml", group="classes")
    numbers: Literal["count", "class"] | None = flag(
        None,
        "folders that differ in a number alone (x_0, x_1): 'count': one class in parts; 'class': classes without "
        "labels",
        group="classes",
        words="refused unless --class says what each means",
    )
    level: Annotated[int | str | None, BeforeValidator(_level)] = flag(
        None,
        "the class is the N-th folder below --source, not counting train and test; 'all': all folders together",
        metavar="N",
        group="classes",
        words="the one whose names are understood",
    )
    name: str | None = flag(None, "of the data set, kept with every image", group="classes", words="the folder's name")
    #: None: every image with its copies is a patient.
    patient: str | None = flag(
        None,
        r"searched in the path below --source; its group is the patient, for instance '(P_\d{5})'; groups "
        "'laterality' and 'view' are read too",
        metavar="REGEX",
        group="images and patients",
        words="every image, with its copies, is a patient",
    )
    images: Literal["copy", "link"] = flag("copy", "'link': symbolic links, no copies", group="images and patients")
    crop: Literal["breast", "whole"] = flag(
        "breast",
        "'breast': look for the breast, for training to crop to; 'whole': images are patches",
        group="images and patients",
    )
    split: Literal["given", "holdout"] | None = flag(
        None,
        "'given': by folders train, val, test; 'holdout': --test-fraction of the patients",
        group="subsets",
        words="given where there are such folders",
    )
    resolve_leaks: Literal["test", "train"] | None = flag(
        None,
        "where patients and identical files go that are given to two subsets: to the one nearer to test, or nearer "
        "to train",
        group="subsets",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_map(cls, values: Any) -> Any:
        values = dict(values)
        if path := values.pop("map", None):
            values["rules"] = (*_rules(values.get("rules", ())), *read_map(Path(path)))
        return values

    @property
    def divides_test(self) -> bool:
        return self.split != "given"


class Folder(Converter[FolderOptions, _Row]):
    """A tree of folders."""

    NAME = "folder"
    options_type = FolderOptions
    has_lesions = False

    def find(self) -> None:
        options = self.options
        self.knows_patients = options.patient is not None
        self.tree = read_tree(self.source)
        self.classes = plan_classes(self.source, self.tree, options.rules, options.level, options.numbers)
        self.plan = _plan(self.tree, self.classes, options)

    def rows(self) -> list[_Row]:
        self.quarantine += self.plan.quarantine
        if not self.phantom:
            self.summary.archive = self.options.name or self.source.resolve().name
        return list(enumerate(self.plan.entries, start=1))

    def how(self) -> Any:
        return self.output, self.options, self.classes, self.summary.archive, self._prefix

    @property
    def _prefix(self) -> str:
        return "phantom_" if self.phantom else ""

    @staticmethod
    def convert_one(row: _Row, how: Any) -> Made:
        return _convert_image(*row, *how)

    def given(self) -> dict[str, str] | None:
        given = self.plan.given
        return None if given is None else {self._prefix + patient: side for patient, side in given.items()}

    def split(self, records: Sequence[ImageRecord]) -> Splits:
        """Divide the patients, stratified by the classes that each has."""
        found: dict[str, set[str]] = {}
        for record in records:
            found.setdefault(str(record.patient_id), set()).add(str(record.class_name))
        given = self.given()
        splits = make_splits(
            {patient: " + ".join(sorted(names)) for patient, names in found.items()},
            **asdict(self.options.splits),
            given={patient: given[patient] for patient in found} if given is not None else None,
        )
        if given is not None and "test" not in splits.holdout.values():
            self.warnings.append("no folder is named test: there is no test set (--split holdout makes one)")
        return splits

    def describe(self, records: Sequence[ImageRecord], done: Sequence[tuple[_Row, Made]]) -> None:
        _count(self.summary, self.tree, self.classes, self.plan, records)
        _warn(self.summary, self.tree, self.classes, self.plan, records, self.options)


convert = Folder.convert
ARCHIVE = Folder


def _plan(tree: Tree, classes: Classes, options: FolderOptions) -> _Plan:
    quarantine = list(tree.quarantine)
    images, skipped = [], 0
    for image in tree.images:
        folder = class_folder(image.folders, classes.level)
        if folder is None:
            quarantine.append(
                Quarantined(Reason.NO_ROW, "image", image.relative, "lies in no class folder", str(image.path))
            )
        elif classes.of(folder) is None:
            skipped += 1
        else:
            images.append(image)
    given = told_subsets(images, options.split)
    copies: Copies | None = None
    if options.patient is None:
        persons, copies = guess_persons(images)
    else:
        persons = read_persons(images, compile_patient(options.patient))
    entries = [Entry(image, classes.name(image.folders), person) for image, person in zip(images, persons, strict=True)]
    _refuse_equal_names(entries)
    cleaned = clean(
        entries, given=given, resolve_leaks=options.resolve_leaks, jobs=options.jobs, progress=options.progress
    )
    quarantine += cleaned.quarantine
    subsets: dict[str, str] | None = None
    leaking: dict[str, list[str]] = {}
    if given:
        subsets, leaking = given_subsets(cleaned.entries, options.resolve_leaks, guessed=options.patient is None)
    return _Plan(cleaned.entries, quarantine, subsets, leaking, copies, cleaned, skipped)


def _refuse_equal_names(entries: Sequence[Entry]) -> None:
    """Compared without case, since some disks know none."""
    names = Counter(entry.image.relative.casefold() for entry in entries)
    twice = [name for name, count in names.items() if count > 1]
    raise_faults(twice, where="file names that differ in case alone", advice="Rename one of each.")


def _convert_image(
    number: int, entry: Entry, output: Path, options: FolderOptions, classes: Classes, name: str, prefix: str
) -> Made:
    """Read an image, copy it or link to it, and make its record."""
    image, person = entry.image, entry.person
    try:
        pixels = read_image(image.path)
    except InputError as error:
        return refused("image", image.relative, error, image.path)
    height, width = pixels.shape
    target = f"images/{image.relative}"
    if options.images == "link":
        link_file(output / target, image.path)
    else:
        write_bytes(output / target, image.path.read_bytes())
    meaning = classes.meanings[entry.class_name]
    whole = (0.0, 0.0, float(width), float(height))
    record = ImageRecord(
        image_id=number,
        file_name=target,
        size_hw=(height, width),
        patient_id=prefix + person.patient,
        laterality=person.laterality,
        view=person.view,
        density=meaning.density,
        birads=meaning.birads,
        labels={"tumor": meaning.tumor, "malignant": meaning.malignant},
        class_name=entry.class_name,
        source=name,
        breast_box_xyxy=whole if options.crop == "whole" else find_breast(pixels).box_xyxy,
        unlocalized=meaning.tumor == 1,
    )
    return Made(record)


def _count(summary: Summary, tree: Tree, classes: Classes, plan: _Plan, records: Sequence[ImageRecord]) -> None:
    aside = sum(item.what == "image" for item in summary.quarantine)
    found = len(tree.images) + len(tree.quarantine)
    summary.counts["images"] = {"found": found, "converted": len(records), "quarantined": aside}
    if plan.skipped:
        summary.counts["images"]["skipped"] = plan.skipped
    if found != len(records) + aside + plan.skipped:
        raise AssertionError("images do not add up: more or fewer come out than go in")
    if tree.others:
        summary.counts["other files"] = dict(sorted(tree.others.items()))
    summary.counts["class"] = counted(str(record.class_name) for record in records)
    for name, meaning in sorted(classes.meanings.items()):
        how = "by a rule" if name in classes.told else "by its name"
        summary.counts[f"  {name}"] = f"{meaning} ({how})" if str(meaning) != "nothing" else "no labels: a class only"
    for label in ("tumor", "malignant"):
        words = Counter({1: "yes", 0: "no", None: "not known"}[record.label(label)] for record in records)
        summary.counts[label] = dict(sorted(words.items(), reverse=True))
    if plan.given is not None:
        told = Counter(entry.image.subset for entry in plan.entries)
        summary.counts["images as given"] = {subset: told[subset] for subset in SUBSETS if told[subset]}
    summary.counts["patients"] = len({record.patient_id for record in records})
    if plan.copies is not None:
        groups = plan.copies.groups
        summary.counts["copies by name"] = {"groups": len(groups), "images": sum(len(names) for _, names in groups)}


def _warn(
    summary: Summary, tree: Tree, classes: Classes, plan: _Plan, records: Sequence[ImageRecord], options: FolderOptions
) -> None:
    warn = summary.warnings.append
    if plan.copies is not None:
        _warn_of_patients(summary, plan.copies)
    summary.warnings += classes.warnings
    if plan.cleaned.torn:
        warn(f"{len(plan.cleaned.torn)} files lie in two classes: {_groups(plan.cleaned.torn)}; one label is wrong")
    if plan.cleaned.told_apart and options.patient is not None:
        warn(
            f"{len(plan.cleaned.told_apart)} files are given to several patients, who were taken for one: "
            f"{_groups(plan.cleaned.told_apart)}"
        )
    if plan.leaking and plan.given is not None:
        moved = ", ".join(f"{patient} (to {plan.given[patient]})" for patient in list(plan.leaking)[:_MOST_NAMES])
        warn(f"{len(plan.leaking)} patients were in two subsets and moved to one: {moved}; figures do not compare")
    if plan.given is None and any(image.subset for image in tree.images):
        warn("folders named train, val or test were pooled and divided anew (--split holdout)")
    if plan.given is not None:
        by_subset = {
            subset: {entry.class_name for entry in plan.entries if entry.image.subset == subset} for subset in SUBSETS
        }
        for subset, present in by_subset.items():
            if present and (lacking := sorted(classes.meanings.keys() - present)):
                warn(f"{subset} has no image of the class {', '.join(lacking)}")
    if all(value is None for record in records for value in record.labels.values()):
        warn("no label is known: only the target 'class' can be learnt (--class says what a folder means)")


def _warn_of_patients(summary: Summary, copies: Copies) -> None:
    text = (
        "PATIENTS ARE NOT KNOWN (no --patient): every image counts as a patient of its own. Other views of one woman, "
        "and copies that names do not show, may lie on both sides of the split: figures are not patient-clean"
    )
    if copies.groups:
        largest = max(copies.groups, key=lambda group: len(group[1]))
        text += (
            f". {len(copies.groups)} groups of copies were recognised by their names and stay together, the largest "
            f"{largest[0]!r}: {listed(largest[1])}"
        )
    summary.warnings.append(text)
    if copies.numbered:
        names = listed([f"{name} {count} times" for name, count in copies.numbered.items()])
        summary.warnings.append(
            f"numbers in brackets were taken for a plain count, not for copies: {names}; if they are copies, say whose "
            "by --patient"
        )


def _groups(groups: Sequence[Sequence[str]]) -> str:
    return listed([" = ".join(names) for names in groups])
