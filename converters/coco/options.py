"""What is asked of annotations that others made, whatever their format."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, model_validator

from mammodet.converters.coco.join import JoinRule
from mammodet.converters.coco.official import PRESETS
from mammodet.converters.options import Options, Pairs, flag, pairs
from mammodet.data.json_values import CLIP_PX
from mammodet.errors import InputError
from mammodet.records import SUBSETS

Boxes = Literal["pixels", "fractions", "percent", "corners"] | None


class LabelledOptions(Options):
    """What is converted, and how."""

    #: (old name, new name), the new one empty to drop it; others get their name in lower case.
    categories: Annotated[Pairs, pairs("--category", empty=True)] = flag(
        (),
        "rename or merge a category; OLD= makes its findings regions to ignore",
        name="category",
        metavar="OLD=NEW",
        group="files",
        words="its name in lower case",
        each=True,
    )
    images: Literal["copy", "link"] = flag("copy", "'link': symbolic links, no copies", group="files")
    without_boxes: Literal["unknown", "normal"] = flag(
        "unknown", "what an image without boxes and rows is: not known, or looked at and found normal", group="files"
    )
    clip_boxes: float = flag(
        CLIP_PX,
        "boxes that pass the border by up to this are cut to the image, others are faulty",
        metavar="PX",
        group="files",
        ge=0,
        allow_inf_nan=False,
    )
    name: str | None = flag(None, "of the data set, kept with every image", group="files", words="the folder's name")
    join: JoinRule = JoinRule()  #: what file names and tables say of the images
    split: Literal["given", "holdout"] | None = flag(
        None,
        "'given': as files or folders are named; 'holdout': --test-fraction of the patients",
        group="subsets",
        words="given, if every file names its subset",
    )
    resolve_leaks: Literal["test", "train"] | None = flag(
        None,
        "where patients go that are given to two subsets: to the one nearer to test, or nearer to train",
        group="subsets",
    )

    @property
    def rule(self) -> JoinRule:
        """What joins images and tables."""
        return self.join

    @property
    def divides_test(self) -> bool:
        return self.split != "given"


def _annotation(value: Any) -> Any:
    """`train=a.json`, or a path alone, which may hold a `=` itself."""
    if not isinstance(value, str):
        return value
    subset, sign, path = value.partition("=")
    if sign and subset in SUBSETS:
        return subset, Path(path)
    if sign and not Path(value).exists() and "/" not in subset:
        raise InputError(f"--annotations {value}: expected FILE.json or SUBSET=FILE.json with {', '.join(SUBSETS)}")
    return None, Path(value)


class CocoOptions(LabelledOptions):
    """What is converted, and how.

    Attributes:
        annotations: (subset or None, JSON file); none: every COCO file below the source.
    """

    annotations: tuple[Annotated[tuple[str | None, Path], BeforeValidator(_annotation)], ...] = flag(
        (),
        "the COCO files, for instance train=a.json test=b.json",
        metavar="[SUBSET=]FILE.json",
        group="files",
        words="all below --source",
    )
    crowd: Literal["auto", "ignore", "lesion"] = flag(
        "auto",
        "what iscrowd means: a region to ignore, or a lesion as run lengths; 'auto': a lesion where every "
        "annotation of a file has it, as CVAT marks brush masks",
        group="files",
    )
    boxes: Boxes = flag(
        None,
        "what boxes and polygons count in; 'corners': boxes are x1, y1, x2, y2 in pixels",
        group="files",
        words="pixels; asked where all boxes seem to be something else",
    )
    preset: Literal["cbis_ddsm_mass", "cbis_ddsm_calc"] | None = flag(
        None, "all of this group, for a known archive", group="what file names and tables say"
    )

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.preset and not self.join.tables:
            raise InputError(f"--preset {self.preset}: needs the archive's tables; --tables names them or their folder")
        return self

    @property
    def rule(self) -> JoinRule:
        """What joins images and tables, of the preset and the user."""
        return self.join.over(PRESETS[self.preset][1]) if self.preset else self.join
