"""Which images are looked at: of a data set's file, or whatever `mammodet predict` takes, too. Knows no torch."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mammodet.data.inputs import Inputs, gather
from mammodet.errors import InputError, raise_faults
from mammodet.records import ImageRecord


def choose_images(
    given: Sequence[Path], *, unpack_to: Path, ids: Sequence[int] | None = None, first: int | None = None
) -> Inputs:
    """The images that a user means.

    Args:
        given: as of `mammodet.data.inputs.gather`, as is `unpack_to`.
        ids: image ids of a data set's file, in the order in which they are wanted; None for all.
        first: only the first so many.
    Raises:
        InputError: nothing there, no image in it, or ids that it does not have.
    """
    where = ", ".join(map(str, given))
    if ids is not None and [path.suffix.lower() for path in given] != [".json"]:
        raise InputError(f"--ids: are image ids of a data set's JSON file, and {where} is none; name the image itself")
    inputs = gather(given, (), unpack_to=unpack_to)
    chosen = chosen_records(inputs.dataset.images, where, ids=ids, first=first)
    return replace(inputs, dataset=replace(inputs.dataset, images=chosen))


def chosen_records(
    images: tuple[ImageRecord, ...], where: str, *, ids: Sequence[int] | None = None, first: int | None = None
) -> tuple[ImageRecord, ...]:
    """Images of the data set `where` with these ids, in their order, or the first; arguments, errors as above."""
    if first is not None and first < 1:
        raise InputError(f"--first {first}: expected 1 or more")
    by_id = {record.image_id: record for record in images}
    unknown = [number for number in ids or () if number not in by_id]
    if unknown:
        some = ", ".join(map(str, list(by_id)[:8]))
        raise InputError(
            f"{where}: has no image of id {', '.join(map(str, unknown))}; it has {len(by_id)} images: {some}"
            f"{', ...' if len(by_id) > 8 else ''}"
        )
    chosen = images if ids is None else tuple(by_id[number] for number in dict.fromkeys(ids))
    if not chosen:
        raise InputError(f"{where}: holds no images")
    return chosen[:first]


def tell_faults(inputs: Inputs, faults: Sequence[str], output: Path) -> None:
    """Raise one `InputError` with these faults and the files that could not be read; none where there are none."""
    skipped = [f"{item.file_name}: {item.reason}" for item in inputs.skipped]
    raise_faults(
        [*skipped, *faults], where=str(output), advice=f"{len(inputs.dataset.images) - len(faults)} images were drawn."
    )
