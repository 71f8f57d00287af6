"""Which mask files belong to which image, by templates of their names."""

import glob
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mammodet.data.images import is_image
from mammodet.data.json_values import check_file_name
from mammodet.errors import InputError, raise_faults

_FIELDS = ("stem", "name", "folder", "parent")
_MOST_NAMES = 10


@dataclass(frozen=True, slots=True)
class Template:
    """Where masks of a category lie: `text` with fields of their image: `{stem}`, `{name}` (with its
    suffix), `{folder}`, and `{parent}`, the folder above that."""

    category: str
    text: str

    def glob(self, values: Mapping[str, str]) -> str:
        """The pattern for files of one image; `?*` and `**` as values mean those of any."""
        escaped = {key: value if value in ("?*", "**") else glob.escape(value) for key, value in values.items()}
        return self.text.format(**escaped).removeprefix("./")


def read_template(text: str) -> Template:
    """A template as a command line gives it, `masks/{stem}*.png` or `mass=masks/mass/{stem}.png`.

    Raises InputError: it cannot be filled, or names no image.
    """
    category, sign, rest = text.partition("=")
    if not sign or re.search(r"[/{*]", category):
        category, rest = "lesion", text
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(rest) if name is not None]
        if unknown := [name for name in fields if name not in _FIELDS]:
            raise ValueError(f"{{{unknown[0]}}} is not one of {', '.join(f'{{{name}}}' for name in _FIELDS)}")
        if not {"stem", "name"} & set(fields):
            raise ValueError("it holds neither {stem} nor {name}: which image does a mask belong to?")
        rest.format(**dict.fromkeys(_FIELDS, "a"))
    except (ValueError, LookupError) as error:
        raise InputError(f"--masks {text}: {error}") from None
    if fault := check_file_name(rest):
        raise InputError(f"--masks {text}: {fault}; it is seen from --source")
    return Template(category.strip(), rest)


def list_images(source: Path, patterns: Sequence[str]) -> list[str]:
    """Paths below the source of the images that patterns mean, in order.

    Raises InputError: a pattern leaves the source, or means no image.
    """
    found: set[str] = set()
    for pattern in patterns:
        if fault := check_file_name(pattern):
            raise InputError(f"--images {pattern}: {fault}; it is seen from --source")
        shown = _files(source, pattern)
        if not shown:
            raise InputError(f"--images {pattern}: no image in {source}; it is a pattern like 'images/*.png'")
        found |= shown
    return sorted(found)


def _files(source: Path, pattern: str, *, images: bool = True) -> set[str]:
    """Paths below the source of the images, or other files, that a pattern means; hidden ones are passed over."""
    parts = [part if part == "**" else re.sub(r"\*+", "*", part) for part in pattern.split("/")]
    return {
        path.relative_to(source).as_posix()
        for path in source.glob("/".join(parts))
        if path.is_file()
        and is_image(path) is images
        and not any(part[0] == "." for part in path.relative_to(source).parts)
    }


@dataclass(frozen=True, slots=True)
class Paired:
    """`masks`: of each image, (category, path below the source); `orphans`: masks of no image; `others`: no images."""

    masks: Mapping[str, Sequence[tuple[str, str]]]
    orphans: Sequence[str]
    others: Sequence[str]


def pair(source: Path, images: Sequence[str], templates: Sequence[Template]) -> Paired:
    """Find the masks of each image.

    A mask that several images could claim belongs to that with the longest stem: `10_a.png` to `10`, never to `1`; a
    number in a name is whole. A file that a template means is no image, though a pattern of images means it, too.

    Raises InputError: a mask could be of two images, or a template cannot tell masks from images.
    """
    claims: dict[tuple[str, str], list[str]] = {}
    others: set[str] = set()
    for image in images:
        path = Path(image)
        values = {
            "stem": path.stem,
            "name": path.name,
            "folder": path.parent.as_posix(),
            "parent": path.parent.parent.as_posix(),
        }
        whole = re.compile(
            (r"(?<!\d)" if path.stem[0].isdecimal() else "")
            + re.escape(path.stem)
            + (r"(?!\d)" if path.stem[-1].isdecimal() else "")
        )
        for template in templates:
            others |= {path for path in _files(source, template.glob(values), images=False) if whole.search(path)}
            for mask in _files(source, template.glob(values)):
                if mask != image and whole.search(mask):
                    claims.setdefault((mask, template.category), []).append(image)
    faults: list[str] = []
    listed = set(images)
    owned: dict[str, list[tuple[str, str]]] = {image: [] for image in images}
    loose = [template.text for template in templates if re.search(r"\{(stem|name)\}[*?\[]", template.text)]
    for (mask, category), claimed in sorted(claims.items()):
        longest = max(len(Path(image).stem) for image in claimed)
        owners = [image for image in claimed if len(Path(image).stem) == longest]
        if mask in listed and loose:
            faults.append(f"{mask} is an image by --images, and a mask of {owners[0]} by --masks {loose[0]}")
        elif len(owners) > 1:
            faults.append(f"{mask} could be a mask of {' and of '.join(owners)}")
        else:
            owned[owners[0]].append((category, mask))
    several = {mask for mask, _ in claims if len({category for other, category in claims if other == mask}) > 1}
    faults += [f"{mask} is meant by the templates of several categories" for mask in sorted(several)]
    advice = "Narrow --images or --masks; {folder} is the folder of the image."
    raise_faults(faults, where="--masks", advice=advice, most=_MOST_NAMES)
    masks = {mask for mask, _ in claims}
    any_image = dict.fromkeys(_FIELDS, "?*")
    around: set[str] = set()
    for template in templates:
        around |= _files(source, template.glob(any_image | {"folder": "**", "parent": "**"}))
    orphans = sorted(around - masks - listed)
    return Paired({image: found for image, found in owned.items() if image not in masks}, orphans, sorted(others))
