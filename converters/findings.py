"""What archives share whose tables name image files and findings: one vocabulary, and from a row to a record.

An archive says of each image what an `ImageRow` holds; its pixels, lesions, labels, counts and warnings are made here.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from shapely.geometry.base import BaseGeometry

from mammodet.converters.base import Quarantined, Reason, counted
from mammodet.converters.options import Options, flag
from mammodet.converters.pixels import PixelOptions, said, take_image
from mammodet.converters.skeleton import Made, Resumable, refused
from mammodet.converters.tables import Cells, find_files, read_table
from mammodet.data.images import Pixels
from mammodet.errors import InputError, raise_faults
from mammodet.geometry import mask_to_rle, rle_area, rle_box, rle_to_mask
from mammodet.outlines import box, circle, clip, forward, polygon, to_box, to_rle
from mammodet.records import Geometry, ImageRecord, Lesion, Rle
from mammodet.trace import Trace

#: Kinds of findings that are lesions; `other` (skin, nipple, lymph node, unknown names) never is.
LESIONS = ("mass", "calcification", "architectural_distortion", "asymmetry")
Kind = Literal["mass", "calcification", "architectural_distortion", "asymmetry", "other"]


class ImageOptions(Options):
    """How images are kept."""

    pixels: PixelOptions = PixelOptions()


class FindingOptions(ImageOptions):
    """Which findings are lesions, and how images are kept."""

    categories: Literal["mass", "lesion", "finding"] = flag(
        "mass",
        "'mass': masses only; 'lesion': masses, calcifications, distortions and asymmetries in one; 'finding': each a "
        "category of its own. Findings that are no lesions are regions to ignore",
    )


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding on an image, in its native pixels."""

    kind: Kind
    geometry: Geometry
    #: corners of an outline (`contour`); two corners (`box`); a centre (`circle`, with `radius`).
    points_xy: tuple[tuple[float, float], ...]
    place: str  #: where it is described, for messages
    attributes: Mapping[str, Any]
    radius: float = 0.0
    rle: Rle | None = None  #: its mask, in place of points

    def shape(self) -> BaseGeometry:
        """Its area. Raises ValueError where it has none."""
        if self.geometry == "contour":
            return polygon(self.points_xy)
        if self.geometry == "circle":
            return circle(self.points_xy[0], self.radius)
        (x1, y1), (x2, y2) = self.points_xy
        return box(x1, y1, x2, y2)


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image as its archive describes it."""

    name: str  #: unique; of its PNG and in messages
    path: Path
    patient: str  #: as in the archive, without prefix
    laterality: str | None = None
    view: str | None = None
    density: str | None = None
    birads: str | None = None
    labels: Mapping[str, int | None] = field(default_factory=dict)  #: `tumor` and `malignant`, and others
    class_name: str | None = None
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    lost: bool = False  #: it has a finding that could not be read
    size_hw: tuple[int, int] | None = None  #: what its findings count pixels of, where the archive says so


Numbered = tuple[int, ImageRow]
ImageOptionsT = TypeVar("ImageOptionsT", bound=ImageOptions)


class ImageArchive(Resumable[ImageOptionsT, Numbered]):
    """An archive whose `images` are described by its tables.

    Attributes:
        PREFIX: of its patients.
        facts: more counts, for the summary.
        doubtful: cells of rows that cannot be read; what they name is never normal.
    """

    PREFIX: ClassVar[str]

    def find(self) -> None:
        self.files, self.doubles = find_files(self.source)
        self.facts: dict[str, Any] = {}
        self.doubtful: set[str] = set()
        scheme = getattr(self.options, "categories", "lesion")
        self.categories = LESIONS if scheme == "finding" else (scheme,)
        self.images = self._usable(self.describe_images())
        if not self.images:
            lost = "; ".join(f"{item.name}: {item.reason}" for item in self.quarantine[:3])
            raise InputError(f"{self.source}: no image that the tables name is there ({lost or 'empty tables'})")

    @abstractmethod
    def describe_images(self) -> list[ImageRow]:
        """What the archive says of its images; what cannot be used goes to `quarantine`.

        Raises InputError: no archive there.
        """

    def _usable(self, images: Sequence[ImageRow]) -> list[ImageRow]:
        """Images with a name of their own and a patient; of those that contradict each other none is kept."""
        named: dict[str, list[ImageRow]] = {}
        kept: list[ImageRow] = []
        for image in images:
            same = named.setdefault(image.name, [])
            if image in same:
                self.lose(Reason.DUPLICATE, "image", image.name, "is described twice in the same way")
            else:
                same.append(image)
        for name, same in named.items():
            if len(same) > 1:
                places = ", ".join(f"{image.path.name} of patient {image.patient}" for image in same[:3])
                self.lose(Reason.CONTRADICTION, "image", name, f"is described in {len(same)} ways: {places}")
            elif not same[0].patient:
                self.lose(Reason.BAD_ROW, "image", name, "nothing says whose it is")
            else:
                kept += same
        return kept

    def read(
        self, path: Path, needed: Sequence[str], wanted: Sequence[str] = (), *, sheet: str = "", key: str | None = None
    ) -> Iterator[tuple[int, Cells]]:
        """Line number and cells of a table's rows, as `read_table` gives them; a row with a fault is quarantined.

        Args:
            key: column of what a row speaks of, which becomes `doubtful` with a row that has a fault.
        Raises:
            InputError: as `read_table`, or nothing says of what a faulty row speaks.
        """
        faults: list[str] = []
        for line, row in read_table(path, needed, wanted, sheet=sheet):
            if not line.fault:
                yield line.number, row
                continue
            self.lose(Reason.BAD_ROW, "row", f"{path.name} line {line.number}", line.fault)
            if key is not None:
                self.doubtful |= {cell.removesuffix(".0") for cell in line.cells}
                if not row[key]:
                    faults.append(f"{path.name} line {line.number}: {line.fault}; its {key} is lost")
        raise_faults(faults, where=str(path), advice="Take the archive's own table, or mend these lines.")

    def agreed(self, name: str, rows: Sequence[Cells]) -> Cells:
        """What all rows of one thing say; a cell in which they differ is quarantined, and empty."""
        said = {column: {row[column] for row in rows} - {""} for column in rows[0]}
        if odd := {column: sorted(words) for column, words in said.items() if len(words) > 1}:
            self.lose(Reason.CONTRADICTION, "row", name, f"its rows say different things: {odd}")
        return {column: words.pop() if len(words) == 1 else "" for column, words in said.items()}

    def lose(self, reason: Reason, what: str, name: str, text: str, file: Path | str = "") -> None:
        """Quarantine something."""
        self.quarantine.append(Quarantined(reason, what, name, text, str(file)))

    def rows(self) -> Sequence[Numbered]:
        return list(enumerate(sorted(self.images, key=lambda row: row.name), start=1))

    def how(self) -> Any:
        return self.source, self.output, self.options

    def refers(self) -> bool:
        return self.options.pixels.file_format == "reference"

    def uses_processes(self) -> bool:
        return not self.refers()

    def key(self, row: Numbered) -> str:
        return row[1].name

    def fingerprint(self, row: Numbered) -> Any:
        return [row[0], asdict(row[1])]

    def settings(self) -> Any:
        return self.options.model_dump(exclude={"splits", "jobs", "progress"})

    @staticmethod
    def convert_one(row: Numbered, how: Any) -> Made:
        return convert_row(*row, *how)

    def complete(self, done: Sequence[tuple[Numbered, Made]]) -> list[ImageRecord]:
        prefix = self.patient_prefix()
        return [
            replace(record, patient_id=f"{prefix}{row.patient}", source=self.summary.archive)
            for ((_, row), _), record in zip(done, super().complete(done), strict=True)
        ]

    def patient_prefix(self) -> str:
        """What is set before the archive's own ids of patients."""
        return f"phantom_{self.PREFIX}_" if self.phantom else f"{self.PREFIX}_"

    def describe(self, records: Sequence[ImageRecord], done: Sequence[tuple[Numbered, Made]]) -> None:
        lesions = [lesion for record in records for lesion in record.lesions]
        self.summary.counts.update(
            {
                "images": len(records),
                "patients": len({record.patient_id for record in records}),
                "lesions": sum(not lesion.ignore for lesion in lesions),
                "regions to ignore": sum(lesion.ignore for lesion in lesions),
                "findings": counted([lesion.attributes["abnormality"] for lesion in lesions]),
                "cut at the border": sum(made.facts["clipped"] for _, made in done),
                "unlocalized images": sum(record.unlocalized for record in records),
                **{name: counted([record.label(name) for record in records]) for name in ("tumor", "malignant")},
                **{
                    name: counted([getattr(record, name) for record in records])
                    for name in ("birads", "density", "view", "laterality")
                },
                **self.facts,
            }
        )
        if self.doubles:
            self.warnings.append(f"{len(self.doubles)} files have another's name and were left: {self.doubles[0]} ...")
        if absent := sum(item.kind == Reason.NO_FILE for item in self.quarantine):
            self.warnings.append(f"{absent} images or annotations have no file here; quarantine.csv lists them")
        for name in ("laterality", "view"):
            other = [
                f"{row.name} ({made.facts['said'][name]} in the header, {getattr(row, name)} in the archive's tables)"
                for (_, row), made in done
                if getattr(row, name) and made.facts["said"].get(name, getattr(row, name)) != getattr(row, name)
            ]
            if other:
                self.warnings.append(
                    f"{len(other)} headers contradict the {name}; the tables count: {'; '.join(other[:3])}"
                )


def is_lesion(kind: Kind, scheme: str) -> bool:
    """Whether a finding is a lesion of the data set, and no region to ignore."""
    return kind == "mass" if scheme == "mass" else kind in LESIONS


def tumor_of(findings: Sequence[Finding], scheme: str, *, normal: bool) -> int | None:
    """1 with a lesion; 0 where the archive says that the image is normal; None where neither, or other findings."""
    if any(is_lesion(finding.kind, scheme) for finding in findings):
        return 1
    return 0 if normal and not findings else None


def convert_row(
    number: int,
    row: ImageRow,
    source: Path,
    output: Path,
    options: ImageOptions,
    read: Callable[[], Pixels] | None = None,
) -> Made:
    """The record of an image. `facts`: what its header `said`, and how many findings were `clipped`."""
    try:
        taken = take_image(row.path, source, output, options.pixels, number=number, name=row.name, read=read)
    except InputError as error:
        name = row.path.relative_to(source).as_posix()
        return refused("image", row.name, str(error).replace(str(row.path), name), name)
    scheme = getattr(options, "categories", "lesion")
    lesions: list[Lesion] = []
    lost: list[Quarantined] = []
    clipped = 0
    for finding in row.findings:
        name = f"{row.name} ({finding.place})"
        try:
            native_hw = taken.trace.native_size_hw
            if row.size_hw not in (None, native_hw):
                reason = f"its pixels are those of an image of {row.size_hw} (height, width), the file has {native_hw}"
                lost.append(Quarantined(Reason.OTHER_SIZE, "finding", name, reason))
                continue
            lesion, cut = _lesion(finding, scheme, taken.trace)
        except ValueError as error:
            lost.append(Quarantined(Reason.NO_PLACE, "finding", name, str(error)))
            continue
        clipped += cut
        lesions.append(lesion)
    header = said(taken.header)
    record = replace(
        taken.record,
        laterality=row.laterality or header.get("laterality"),
        view=row.view or header.get("view"),
        density=row.density,
        birads=row.birads,
        labels=dict(row.labels),
        class_name=row.class_name,
        # An image that is not known to be normal must not teach where no lesion is.
        unlocalized=row.lost or bool(lost) or (not lesions and row.labels.get("tumor") != 0),
        notes=row.notes,
        lesions=tuple(lesions),
    )
    return Made(record, tuple(lost), {"said": header, "clipped": clipped})


def _lesion(finding: Finding, scheme: str, trace: Trace) -> tuple[Lesion, bool]:
    """A finding in the pixels of the data set's image, and whether it was cut at the border of the archive's.

    Raises ValueError: it has no area, or none on the image.
    """
    cut, rle = False, finding.rle
    if rle is not None and trace.steps:
        x1, y1, x2, y2 = (int(side) for side in rle_box(rle))
        rle = mask_to_rle(trace.patch_forward(rle_to_mask(rle)[y1:y2, x1:x2], (x1, y1)))
    if rle is None:
        native, cut = clip(finding.shape(), trace.native_size_hw)
        shape, _ = clip(forward(native, trace), trace.output_size_hw)
        rle = None if finding.geometry == "box" else to_rle(shape, trace.output_size_hw)
    elif not rle_area(rle):
        raise ValueError("covers no pixel")
    kept = is_lesion(finding.kind, scheme)
    return (
        Lesion(
            category=finding.kind if kept and scheme == "finding" else "mass" if scheme == "finding" else scheme,
            box_xyxy=rle_box(rle) if rle else to_box(shape),
            rle=rle,
            geometry=finding.geometry,
            attributes={"abnormality": finding.kind, **finding.attributes},
            ignore=not kept,
        ),
        cut,
    )
