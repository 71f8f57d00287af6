"""KAU-BCMD: 1416 cases with BI-RADS and density, no boxes (Alsolami et al., Data 2021).

Folders `Birad1`, `Birad3`, `Birad4`, `Birad5` hold images `2018_BC005421_CC_R.jpg`; correctSheetlast.xlsx says the
density. What becomes of each is in docs/kau_bcmd.md.
"""

import re
from pathlib import Path, PurePosixPath

from mammodet.converters.base import Reason
from mammodet.converters.findings import ImageArchive, ImageOptions, ImageRow
from mammodet.converters.tables import density_of
from mammodet.data.images import is_image
from mammodet.errors import InputError

_NAME = re.compile(r"(\d{4}_[a-z]*\d+)_(cc|mlo)_([lr])", re.IGNORECASE)
_FOLDER = re.compile(r"bi-?rads?[ _]?([1-6])", re.IGNORECASE)
_TABLE = "correctSheetlast.xlsx"
_DENSITY = "Percentage of grandular tissue(density)"
DENSITIES = {"0%-25%": "A", "26%-50%": "B", "51%-75%": "C", ">75%": "D"}


class KauBcmd(ImageArchive[ImageOptions]):
    """The archive, or the part of it that is there."""

    NAME = "KAU-BCMD"
    PREFIX = "kau"
    options_type = ImageOptions
    has_lesions = False

    def describe_images(self) -> list[ImageRow]:
        table = self.files.get(_TABLE.lower()) or self.files.get("correctsheetlast.csv")
        densities: dict[str, str | None] = {}
        if table is None:
            self.warnings.append(f"no {_TABLE}: the density is not known")
        else:
            for _, row in self.read(table, ("Image path", _DENSITY), sheet="correctSheet"):
                name = PurePosixPath(row["Image path"].replace("\\", "/")).stem.replace(" ", "").lower()
                text = row[_DENSITY].replace(" ", "")
                densities[name] = DENSITIES.get(text) or density_of(text)
        images: dict[str, list[tuple[str, Path]]] = {}
        for path in sorted({*self.files.values(), *self.doubles}):
            if not is_image(path):
                continue
            name = path.stem.replace(" ", "").lower()
            levels = [match[1] for part in path.relative_to(self.source).parts if (match := _FOLDER.match(part))]
            if not levels or not _NAME.fullmatch(name):
                reason = "expected BiradN/.../2018_BC005421_CC_R.jpg"
                self.lose(Reason.BAD_NAME, "image", path.relative_to(self.source).as_posix(), reason)
            else:
                images.setdefault(name, []).append((levels[-1], path))
        self.doubles = []
        if not images:
            raise InputError(f"{self.source}: no images in folders Birad1 ...; expected the unpacked archive")
        return [self._image(name, found, densities.get(name)) for name, found in sorted(images.items())]

    def _image(self, name: str, found: list[tuple[str, Path]], density: str | None) -> ImageRow:
        """An image; one that is in several folders has the higher BI-RADS, as its readers' last word."""
        match = _NAME.fullmatch(name)
        assert match is not None
        birads, path = max(found)
        for other, copy in sorted(found)[:-1]:
            kind = Reason.DUPLICATE if other == birads else Reason.CONTRADICTION
            self.lose(kind, "copy", copy.relative_to(self.source).as_posix(), f"is also among BI-RADS {birads}")
        normal = birads == "1" and len(found) == 1
        return ImageRow(
            name=name.upper(),
            path=path,
            patient=match[1].upper(),
            laterality=match[3].upper(),
            view=match[2].upper(),
            density=density,
            birads=birads,
            # BI-RADS is no biopsy
            labels={"tumor": 0 if normal else None, "malignant": 0 if normal else None},
        )


ARCHIVE = KauBcmd
