"""Other programs' detections, turned into a predictions file that is scored, compared and drawn like our own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from mammodet.command_line import Options, flag
from mammodet.records import LABELS

IMAGE_SCORE_RULES = ("none", "max", "noisy_or")
BOX_KINDS = {"xyxy": ("x1", "y1", "x2", "y2"), "xywh": ("x", "y", "w", "h"), "cxcywh": ("cx", "cy", "w", "h")}
_CORNERS = tuple(dict.fromkeys(f"{name}_column" for names in BOX_KINDS.values() for name in names))


def _column(what: str = "") -> Any:
    return flag(None, what)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class ImportOptions(Options):
    """How detections of another program are read; the columns are those of the format csv."""

    category_map: tuple[str, ...] = flag(
        (),
        "their class id or name, and our category: 0=mass; OURS empty leaves such detections "
        "out (default: equal names; for coco and detectron2 equal ids)",
        metavar="THEIRS=OURS",
    )
    name: str | None = flag(None, "of the model, for reports (default: name of the source)")
    score_scale: Literal["none", "percent", "sigmoid"] = flag("none", "'percent': 0 to 100; 'sigmoid': logits")
    default_score: float | None = flag(None, "of detections that come without one (default: refused)", ge=0, le=1)
    image_score: tuple[str, ...] = flag(
        (),
        f"how the image score 'tumor' is made of the detections: {', '.join(IMAGE_SCORE_RULES)} (none); "
        "for csv also LABEL=COLUMN: tumor=COLUMN, malignant=COLUMN",
    )
    train_json: tuple[Path, ...] = flag(
        (),
        "data sets that the model was trained and chosen on, the training set first, so that evaluation "
        "can see leakage",
    )
    checkpoint_file: Path | None = flag(None, "of the model; its SHA-256 is kept")
    ignore_unknown_images: bool = flag(False, "pass over images that the ground truth lacks")
    boxes_only: bool = flag(False, "leave masks out")
    clip_boxes: bool = flag(False, "cut boxes to the image however far they leave it (default: up to 1 px)")
    keep_top: int | None = flag(None, "the N strongest detections of each image", ge=1)
    coordinates: Literal["pixels", "normalized"] = flag("pixels", "'normalized': shares of width and height, 0 to 1")
    image_column: str | None = _column("the image; a box is x1 y1 x2 y2, or x y w h, or cx cy w h")
    match: Literal["name", "id"] = flag(
        "name", "whether the image column holds a file name (or its stem), or the id of the ground truth"
    )
    x1_column: str | None = _column()
    y1_column: str | None = _column()
    x2_column: str | None = _column()
    y2_column: str | None = _column()
    x_column: str | None = _column()
    y_column: str | None = _column()
    w_column: str | None = _column()
    h_column: str | None = _column()
    cx_column: str | None = _column()
    cy_column: str | None = _column()
    score_column: str | None = _column("the score of a detection")
    category_column: str | None = _column("the class (not needed where the ground truth has one category)")
    width_column: str | None = _column("width of the image at which boxes were predicted, if not the ground truth's")
    height_column: str | None = _column("height of that image")

    @field_validator("category_map", "image_score")
    @classmethod
    def _split(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        # A name may hold spaces ("0=breast mass"): white space parts pairs only where every part is one.
        parted = ((text, text.split()) for text in texts)
        return tuple(part for text, parts in parted for part in (parts if all("=" in one for one in parts) else [text]))

    @model_validator(mode="after")
    def _check(self) -> Self:
        _pairs("--category-map", self.category_map)
        rules = [text for text in self.image_score if "=" not in text]
        columns = self.score_columns
        if len(rules) > 1 or not {*rules} <= {*IMAGE_SCORE_RULES}:
            raise ValueError(f"--image-score {' '.join(rules)}: expected one of {', '.join(IMAGE_SCORE_RULES)}")
        if not {*columns} <= {*LABELS}:
            raise ValueError(f"--image-score {' '.join(columns)}: its label: expected {', '.join(LABELS)}")
        if self.rule != "none" and "tumor" in columns:
            raise ValueError("--image-score: tumor has two sources; choose a rule or a column")
        if self.image_column is None:
            named = [name for name in type(self).model_fields if name.endswith("_column") and getattr(self, name)]
            if named or columns:
                raise ValueError(f"{', '.join(map(_flag, named)) or '--image-score LABEL=COLUMN'}: is for csv")
            return self
        given = [name for name in _CORNERS if getattr(self, name)]
        if given and self.box_kind is None:
            raise ValueError(
                f"{', '.join(map(_flag, given))}: no whole box; expected x1 y1 x2 y2, x y w h, or cx cy w h"
            )
        if not given and not columns:
            raise ValueError(
                "no column is chosen: name those of a box (--x1-column ... --y2-column, --x-column ... --h-column, or "
                "--cx-column ... --h-column), or those of image scores (--image-score tumor=COLUMN)"
            )
        if bool(self.width_column) != bool(self.height_column):
            raise ValueError("--width-column, --height-column: expected both or neither")
        if self.width_column and self.coordinates == "normalized":
            raise ValueError("--width-column, --height-column: normalized coordinates need none; leave them out")
        return self

    @property
    def categories(self) -> Mapping[str, str]:
        """Their id or name to our name; ours empty to leave such detections out."""
        return _pairs("--category-map", self.category_map)

    @property
    def rule(self) -> str:
        """How the image score `tumor` is made of the detections."""
        return next((text for text in self.image_score if "=" not in text), "none")

    @property
    def score_columns(self) -> Mapping[str, str]:
        """Label to column of scores of the whole image."""
        return _pairs("--image-score", [text for text in self.image_score if "=" in text])

    @property
    def box_kind(self) -> str | None:
        """Key of `BOX_KINDS`; None where no whole box is named."""
        given = {name.removesuffix("_column") for name in _CORNERS if getattr(self, name)}
        return next((kind for kind, names in BOX_KINDS.items() if set(names) == given), None)

    @property
    def box_columns(self) -> tuple[str, ...]:
        """The four columns of a box; none for a table of image scores alone."""
        return tuple(getattr(self, f"{name}_column") for name in BOX_KINDS[self.box_kind]) if self.box_kind else ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read, by the name that the user gave."""
        more = (self.score_column, self.category_column, self.width_column, self.height_column)
        named = (self.image_column, *self.box_columns, *more, *self.score_columns.values())
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def to_json(self) -> dict[str, Any]:
        """What was chosen, for the predictions file."""
        plain = ("score_scale", "default_score", "coordinates", "ignore_unknown_images", "boxes_only", "clip_boxes")
        chosen: dict[str, Any] = {
            "category_map": {theirs: ours or None for theirs, ours in self.categories.items()},
            **{name: getattr(self, name) for name in (*plain, "keep_top")},
            "image_score": self.rule,
            "train_json": [str(path) for path in self.train_json],
        }
        if self.image_column is not None:
            chosen["columns"] = {
                "image": self.image_column,
                "match": self.match,
                **dict(zip(BOX_KINDS.get(self.box_kind or "", ()), self.box_columns, strict=True)),
                "score": self.score_column,
                "category": self.category_column,
                "size": [self.width_column, self.height_column] if self.width_column else None,
                "image_scores": dict(self.score_columns),
            }
        return chosen


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """Pairs of `THEIRS=OURS`, OURS empty or not; a ValueError for a text without `=`, or the same left side twice."""
    pairs: dict[str, str] = {}
    for text in texts:
        left, sign, right = text.rpartition("=")
        if not sign or not left.strip():
            raise ValueError(f"{option} {text!r}: expected THEIRS=OURS, for instance 0=mass")
        if left.strip() in pairs:
            raise ValueError(f"{option} {text!r}: {left.strip()!r} is said twice")
        pairs[left.strip()] = right.strip()
    return pairs
