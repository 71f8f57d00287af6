"""Images and masks in folders, in any layout that two patterns describe (docs/masks.md).

Masks are read before an image is touched and go on as COCO's run lengths would: tables, patients, labels, splits and
counts are those of `mammodet.converters.coco`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, model_validator

from mammodet.converters.base import Quarantined, Reason
from mammodet.converters.coco import Labelled
from mammodet.converters.coco.draft import Draft
from mammodet.converters.coco.image import ImageTask
from mammodet.converters.coco.options import LabelledOptions
from mammodet.converters.coco.source import CocoFile
from mammodet.converters.masks.pairs import Template, list_images, pair, read_template
from mammodet.converters.masks.reader import HowToSplit, Instances, Read, read_mask
from mammodet.converters.options import Pairs, flag, pairs
from mammodet.converters.skeleton import Made
from mammodet.errors import InputError, raise_faults
from mammodet.parallel import in_parallel
from mammodet.records import ImageRecord

_GROUP = "images and masks"


def _templates(value: Any) -> Any:
    return tuple(read_template(each) if isinstance(each, str) else each for each in value)


class MasksOptions(LabelledOptions):
    """What is converted, and how."""

    files: tuple[str, ...] = flag(
        ("images/*",), "the images, seen from --source", name="images", metavar="PATTERN", group=_GROUP
    )
    masks: Annotated[tuple[Template, ...], BeforeValidator(_templates)] = flag(
        (Template("lesion", "masks/{stem}*"),),
        "the masks of an image, with its {stem}, {name} (with suffix), {folder}",
        metavar="[CATEGORY=]TEMPLATE",
        group=_GROUP,
        words="masks/{stem}*",
    )
    instances: Instances | None = flag(
        None,
        "what a lesion is: all of a mask, a connected region, or a grey value",
        group=_GROUP,
        words="asked where it matters",
    )
    #: (grey value, category); an empty category makes regions to ignore.
    values: Annotated[Pairs, pairs("--value", empty=True)] = flag(
        (),
        "the category that a grey value means; VALUE= makes regions to ignore",
        name="value",
        metavar="VALUE=CATEGORY",
        group=_GROUP,
        each=True,
    )
    threshold: int | None = flag(
        None,
        "pixels from this value on are set",
        group=_GROUP,
        words="128 in JPEG, the higher of two values else",
        ge=1,
    )
    least: int | None = flag(
        None,
        "connected regions with fewer pixels are specks, and dropped",
        name="least-pixels",
        metavar="PX",
        group=_GROUP,
        words="20 in JPEG, else 1",
        ge=1,
    )
    images: Literal["copy", "link"] = flag("copy", "'link': symbolic links, no copies", name="store", group=_GROUP)
    without_boxes: Literal["unknown", "normal"] = flag(
        "unknown",
        "what an image without a mask, or with an empty one, is where no table says it: not known, or looked at and "
        "found normal",
        name="without-masks",
        group=_GROUP,
    )

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.values and self.instances != "value":
            raise InputError("--value explains grey values; it needs --instances value")
        if self.threshold is not None and self.instances == "value":
            raise InputError("--threshold and --instances value exclude each other")
        if wrong := [value for value, _ in self.values if not value.isdecimal() or value == "0"]:
            raise InputError(f"--value {wrong[0]}: expected a grey value from 1")
        return self


class Masks(Labelled[MasksOptions]):
    """Images and masks."""

    NAME = "masks"
    options_type = MasksOptions

    def read_files(self) -> list[CocoFile]:
        options = self.options
        paired = pair(self.source, list_images(self.source, options.files), options.masks)
        if not any(paired.masks.values()):
            shown = ", ".join(template.text for template in options.masks)
            raise InputError(f"{self.source}: no image has a mask by --masks {shown}")
        values = {int(value): category for value, category in options.values}
        how = HowToSplit(options.instances, values, options.threshold, options.least)
        tasks = [
            (self.source / image, self.source / mask, how) for image, masks in paired.masks.items() for _, mask in masks
        ]
        read = list(in_parallel(read_mask, tasks, jobs=options.jobs, name="masks", progress=options.progress))
        self.read = dict(zip((mask for _, mask, _ in tasks), read, strict=True))
        self._check()
        draft = Draft(self.source, "masks")
        for mask in paired.orphans:
            draft.quarantine.append(Quarantined(Reason.NO_FILE, "annotation", mask, "is a mask of no image"))
        for other in paired.others:
            # An image that it speaks of may have lesions: no image is normal by what it lacks.
            draft.quarantine.append(Quarantined(Reason.UNREADABLE, "annotation", other, "is no image file"))
        for image, masks in paired.masks.items():
            found = [(category, mask, self.read[self.source / mask]) for category, mask in masks]
            size = next((each.size_hw for _, _, each in found if each.size_hw), (None, None))
            subset = draft.image(image, height=size[0], width=size[1])
            for category, mask, each in found:
                self._mark(draft, image, subset, category, mask, each)
        return [replace(file, sizes_told=False) for file in draft.files()]

    def _check(self) -> None:
        """Refuse masks that all are faulty, and ask what a lesion is where that matters."""
        faults = [f"{path.relative_to(self.source)}: {each.fault}" for path, each in self.read.items() if each.fault]
        if len(faults) == len(self.read):
            raise_faults(faults, where=f"{self.source}: no mask can be used")
        several = [(path, each.regions) for path, each in self.read.items() if each.regions > 1]
        if several and self.options.instances is None:
            path, regions = several[0]
            raise InputError(
                f"{self.source}: {len(several)} of {len(self.read)} masks hold several connected regions, for instance "
                f"{path.relative_to(self.source)} {regions}. Is each a lesion (--instances component), or all of a "
                "mask one (--instances file)?"
            )

    def _mark(self, draft: Draft, image: str, subset: str | None, category: str, mask: str, read: Read) -> None:
        if read.fault:
            draft.mark(image, subset, mask, category, fault=f"{mask} {read.fault}")
        named = dict(self.options.values)
        for number, (value, rle) in enumerate(read.parts, start=1):
            name = f"{mask}, part {number}" if len(read.parts) > 1 else mask
            told = named.get(str(value))
            attributes: dict[str, Any] = {}
            if read.rescaled_from:
                attributes["rescaled_from"] = "{}x{}".format(*read.rescaled_from)
            draft.mark(
                image,
                subset,
                name,
                told or category,
                segmentation=rle,
                attributes=attributes or None,
                ignore=int(told == ""),
            )

    def describe(self, records: Sequence[ImageRecord], done: Sequence[tuple[ImageTask, Made]]) -> None:
        super().describe(records, done)
        counts = Counter(
            {
                "read": len(self.read),
                "empty": sum(each.is_empty for each in self.read.values()),
                "rescaled": sum(each.rescaled_from is not None for each in self.read.values()),
                "faulty": sum(each.fault is not None for each in self.read.values()),
                "specks dropped": sum(each.specks for each in self.read.values()),
            }
        )
        self.summary.counts["mask files"] = {name: count for name, count in counts.items() if count}


convert = Masks.convert
ARCHIVE = Masks
