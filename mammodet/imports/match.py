"""Which image and which category of the ground truth another program means."""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from mammodet.data.images import DICOM_SUFFIXES, IMAGE_SUFFIXES
from mammodet.data.json_values import short
from mammodet.errors import InputError
from mammodet.records import Dataset, ImageRecord

LEFT_OUT = 0  # category number of detections that the user wants left out


class UnknownImageError(ValueError):
    """The ground truth has no such image."""


class ImageIndex:
    """Finds images of a ground truth by id or by name.

    A name meets the `file_name` that equals it, else the one image with the same name without folders, else the one
    with the same stem. Where several images share the name, the folders next to it decide. Letters that are
    composed differently (macOS writes `a` and a separate umlaut) are equal.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._by_id = {record.image_id: record for record in dataset.images}
        self._by_path = {_plain(record.file_name): record for record in dataset.images}
        self._by_base: dict[str, list[ImageRecord]] = {}
        self._by_stem: dict[str, list[ImageRecord]] = {}
        self._by_number: dict[int, list[ImageRecord]] = {}
        for path, record in self._by_path.items():
            base, stem = PurePosixPath(path).name, PurePosixPath(path).stem
            self._by_base.setdefault(base, []).append(record)
            self._by_stem.setdefault(stem, []).append(record)
            if stem.isascii() and stem.isdigit() and len(stem) <= 4000:  # Python converts no longer ones
                self._by_number.setdefault(int(stem), []).append(record)
        self._example = f"such as {short(dataset.images[0].file_name)}" if dataset.images else "it has no image at all"

    def find(self, key: int | str, number_is: str = "id") -> ImageRecord:
        """The image that an id or a name means.

        Args:
            key: text is a file name, a path or a stem; a whole number is an `id`, or with `number_is="stem"` the stem
                of a file name, read as a number: `0012.png` is 12.
        Raises:
            UnknownImageError: there is none.
            ValueError: several could be meant.
        """
        if isinstance(key, str):
            path = _plain(key)
            if path in self._by_path:
                return self._by_path[path]
            base = PurePosixPath(path).name
            found = self._by_base.get(base) or self._by_stem.get(base) or []
            if not found and PurePosixPath(base).suffix.lower() in (*IMAGE_SUFFIXES, *DICOM_SUFFIXES):
                found = self._by_stem.get(PurePosixPath(base).stem, [])
            return self._only(found, f"image {short(key)}", path)
        if number_is == "stem":
            return self._only(self._by_number.get(key, []), f"image_id {short(key)}, the number of a file name,", "")
        if key not in self._by_id:
            least, most = min(self._by_id, default=0), max(self._by_id, default=0)
            raise UnknownImageError(
                f"image_id {short(key)} is not in the ground truth, whose {len(self._by_id)} ids lie between "
                f"{least} and {most}"
            )
        return self._by_id[key]

    def means(self, name: str, record: ImageRecord) -> bool:
        """Whether a file name means this image."""
        try:
            return self.find(name).image_id == record.image_id
        except ValueError:
            return False

    def _only(self, found: Sequence[ImageRecord], what: str, path: str) -> ImageRecord:
        if not found:
            raise UnknownImageError(f"{what} is not in the ground truth; its file names are {self._example}")
        if len(found) > 1:
            shared = [_shared_folders(path, record.file_name) for record in found]
            best = [record for record, count in zip(found, shared, strict=True) if count == max(shared)]
            if max(shared) == 0 or len(best) > 1:
                names = ", ".join(repr(record.file_name) for record in found[:3])
                raise ValueError(f"{what} could be any of {len(found)} images ({names}); give the folder, too")
            return best[0]
        return found[0]


def _plain(name: str) -> str:
    """A path with `/`, without `./`, in composed letters."""
    return str(PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/"))))


def _shared_folders(first: str, second: str) -> int:
    """How many folders next to the file are the same."""
    count = 0
    pairs = zip(PurePosixPath(first).parts[-2::-1], PurePosixPath(_plain(second)).parts[-2::-1], strict=False)
    for mine, other in pairs:
        if mine != other:
            break
        count += 1
    return count


class Categories:
    """Turns another program's class into the number of a category of the ground truth.

    Args:
        names: of the ground truth; a category's number is its position + 1.
        pairs: their id or name to our name, which is empty to leave such detections out.
        by_id: whether an id that `pairs` does not name is ours, where there are no pairs.
    Raises:
        InputError: a pair names a category that the ground truth lacks.
    """

    def __init__(self, names: Sequence[str], pairs: Mapping[str, str], *, by_id: bool) -> None:
        self.names = tuple(names)
        folded = {_fold(name): number for number, name in enumerate(names, start=1)}
        self._by_name: Mapping[str, int] = folded if len(folded) == len(names) else {}
        self._chosen: dict[str, int] = {}
        self._by_id = by_id and not pairs
        for theirs, ours in pairs.items():
            if ours and ours not in names:
                known = ", ".join(map(repr, names))
                raise InputError(
                    f"--category-map {theirs}={ours}: the ground truth has no category {ours!r}; it has {known}"
                )
            self._chosen[_fold(theirs)] = names.index(ours) + 1 if ours else LEFT_OUT

    def find(self, number: int | None, name: str | None) -> int:
        """Number of the category, `LEFT_OUT` where the user wants it left out.

        Raises ValueError: the class is not known.
        """
        for key in (name, None if number is None else str(number)):
            if key is not None and _fold(key) in self._chosen:
                return self._chosen[_fold(key)]
        if name is not None and _fold(name) in self._by_name:
            return self._by_name[_fold(name)]
        if self._by_id and number is not None and 1 <= number <= len(self.names):
            return number
        key = name if name is not None else str(number)
        ours = ", ".join(f"{position} {known!r}" for position, known in enumerate(self.names, start=1))
        what = f"class {short(name)}" if name is not None else f"class id {short(number)}"
        example = f"{key}={(*self.names, 'OURS')[0]}"
        raise ValueError(
            f"{what} is not known; the ground truth has {ours}. Say --category-map {example!r}, or "
            f"{key + '='!r} to leave it out"
        )


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip()).casefold()
