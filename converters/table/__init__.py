"""Boxes and outlines in tables and in the formats of labelling tools (docs/table.md).

Each format is a reader that drafts what a COCO file would list; what becomes of it (finding images, clipping, tables,
patients, labels, splits, counts) is `mammodet.converters.coco`'s.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import model_validator

from mammodet.converters.coco import Labelled
from mammodet.converters.coco.draft import Draft
from mammodet.converters.coco.image import ImageTask
from mammodet.converters.coco.options import LabelledOptions
from mammodet.converters.coco.source import CocoFile
from mammodet.converters.coco.tables import fold
from mammodet.converters.masks.pairs import list_images
from mammodet.converters.options import Pairs, flag, pairs
from mammodet.converters.skeleton import Made
from mammodet.converters.table.columns import NAMES
from mammodet.converters.table.formats import READERS, SINGLE, SIZELESS, format_of, yolo_classes
from mammodet.converters.table.settings import HowToReadTables
from mammodet.errors import InputError, raise_faults
from mammodet.folders import walk_files
from mammodet.records import ImageRecord

_GROUP = "annotations"
_SUFFIXES = (".csv", ".tsv", ".xlsx", ".xml", ".json", ".txt")


class TableOptions(LabelledOptions):
    """What is converted, and how."""

    format: Literal["table", "yolo", "voc", "labelme", "cvat", "label_studio", "via"] | None = flag(
        None, "of the annotations", group=_GROUP, words="recognised by their content"
    )
    annotations: tuple[Path, ...] = flag(
        (), "the files, as they are or seen from --source", metavar="FILE", group=_GROUP, words="all below --source"
    )
    #: (what, column of the table); what is one of `columns.NAMES`.
    columns: Annotated[Pairs, pairs("--column")] = flag(
        (),
        f"the column of a table that is the {', '.join(NAMES)}",
        name="column",
        metavar="WHAT=COLUMN",
        group=_GROUP,
        words="known names",
        each=True,
    )
    xy: Literal["corner", "centre"] | None = flag(
        None, "what x and y are beside w and h", group=_GROUP, words="asked where it cannot be seen"
    )
    boxes: Literal["pixels", "fractions", "percent"] | None = flag(
        None,
        "what numbers of a table count in",
        group=_GROUP,
        words="pixels; asked where all seem to be something else",
    )
    files: tuple[str, ...] = flag(
        (),
        "all images of the set, for those that the annotations do not list",
        name="images",
        metavar="PATTERN",
        group=_GROUP,
        words="those that are listed",
    )
    images: Literal["copy", "link"] = flag("copy", "'link': symbolic links, no copies", name="store", group=_GROUP)
    without_boxes: Literal["unknown", "normal"] = flag(
        "unknown", "what an image without boxes is: not known, or normal, since the list is complete", group=_GROUP
    )

    @model_validator(mode="after")
    def _known_columns(self) -> Self:
        if wrong := [name for name, _ in self.columns if name not in NAMES]:
            raise InputError(f"--column {wrong[0]}: expected one of {', '.join(NAMES)}")
        return self


class Table(Labelled[TableOptions]):
    """Annotations in one of the formats."""

    NAME = "table"
    options_type = TableOptions

    def read_files(self) -> list[CocoFile]:
        options = self.options
        name, paths, unread = self._find()
        how = HowToReadTables(
            self.source,
            dict(options.columns),
            options.xy,
            options.boxes,
            {fold(word): meaning for word, meaning in options.rule.words.items()},
            yolo_classes(self.source) if name == "yolo" else (),
        )
        boxes = {"yolo": "fractions", "table": options.boxes}.get(name, "pixels")
        draft = Draft(self.source, name, boxes, sizes_told=name not in SIZELESS)
        faults: list[str] = []
        for path in paths:
            try:
                READERS[name](path, draft, how)
            except InputError as error:
                faults.append(str(error))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                faults.append(f"{path}: is not as {name} is written ({type(error).__name__}: {error})")
        for path in unread:
            if name not in SINGLE or (path.suffix.lower() == SINGLE[name] and path.stem in how.images):
                # An image that it speaks of may have lesions: no image is normal by what it lacks.
                draft.lose(path.name, f"is not as {name} is written; mend or remove it, or name the --annotations")
        raise_faults(faults, where=f"{self.source}: {name}", advice="Mend or remove these files, or name others.")
        listed = draft.names() | draft.unfinished
        images = {image for found in how.images.values() for image in found}
        self.unlisted = sorted(set(list_images(self.source, options.files) if options.files else images) - listed)
        if options.files:
            self.adds_images = bool(self.unlisted)
            for image in self.unlisted:
                draft.image(image)
        return draft.files()

    def _find(self) -> tuple[str, list[Path], list[Path]]:
        """The format, the files of it, and others that it might have been, in which something is damaged.

        Tables beside another format say something else (--table).
        """
        options = self.options
        if options.annotations:
            paths = [next((p for p in (path, self.source / path) if p.is_file()), path) for path in options.annotations]
            if missing := [path for path in paths if not path.is_file()]:
                raise InputError(f"--annotations {missing[0]}: no such file, as it is or below {self.source}")
        else:
            tables = {path.resolve() for path in options.rule.tables}
            paths = [folder / name for folder, names in walk_files(self.source) for name in names]
            paths = [path for path in paths if path.suffix.lower() in _SUFFIXES and path.resolve() not in tables]
        found: dict[str, list[Path]] = {}
        for path in paths:
            if (name := format_of(path)) is not None:
                found.setdefault(name, []).append(path)
        if options.format:
            found = {name: paths for name, paths in found.items() if name == options.format}
        elif len(found) > 1 and not options.annotations:
            found.pop("table", None)
            if "yolo" in found and all(not path.stat().st_size for path in found["yolo"]):
                del found["yolo"]
        if len(found) > 1:
            kinds = [f"{name} ({len(each)}, for instance {each[0].name})" for name, each in found.items()]
            raise InputError(f"annotations of several formats: {', '.join(kinds)}; say which is meant by --format")
        if not found:
            wanted = options.format or ", ".join(READERS)
            raise InputError(f"{self.source}: no annotations of the format {wanted}")
        (name, files), *_ = found.items()
        if options.annotations and (other := [path for path in paths if path not in files]):
            raise_faults([f"{path}: is not as {name} is written" for path in other], where="--annotations")
        suffixes = {path.suffix.lower() for path in files} - ({".csv"} if name != "via" else set())
        return name, files, [path for path in paths if path.suffix.lower() in suffixes and path not in files]

    def describe(self, records: Sequence[ImageRecord], done: Sequence[tuple[ImageTask, Made]]) -> None:
        super().describe(records, done)
        if self.unlisted:
            self.summary.counts["images not listed"] = len(self.unlisted)
            if not self.options.files:
                self.warnings.append(
                    f"{len(self.unlisted)} images, for instance {self.unlisted[0]}, are not listed and left out; "
                    "--images 'PATTERN' takes them, too"
                )


convert = Table.convert
ARCHIVE = Table
