"""One image of the RSNA archive: its record, and what its file says."""

from collections.abc import Mapping
from pathlib import Path

from mammodet.converters.pixels import PixelOptions, kinds, said, take_image
from mammodet.converters.rsna.table import ImageRow
from mammodet.converters.skeleton import Made, refused
from mammodet.errors import InputError


def convert_image(row: ImageRow, path: Path, source: Path, output: Path, options: PixelOptions) -> Made:
    """Read a file, its header alone where nothing is written.

    The record has what the file says; `facts`: `said`, what the header claims (`patient`, `laterality`, `view`), and
    `kinds`, how the file is made, for counts (`transfer syntax`, `photometric`, `window`, `bits stored`).
    """
    try:
        taken = take_image(path, source, output, options, number=row.image, name=f"{row.patient}/{row.image}")
    except InputError as error:
        name = path.relative_to(source).as_posix()
        return refused("image", row.name, str(error).replace(str(path), name), name)
    return Made(taken.record, facts={"said": said(taken.header), "kinds": kinds(path, taken.header)})


def contradictions(row: ImageRow, said: Mapping[str, str]) -> dict[str, str]:
    """What the header says otherwise than the table, which is believed: `patient`, `laterality` or `view` to a line."""
    table = {"patient": str(row.patient), "laterality": row.laterality, "view": row.view}
    return {
        name: f"{row.name} ({word} in the header, {table[name]} in the table)"
        for name, word in said.items()
        # An id that is no number is a pseudonym of another scheme, and says nothing.
        if table[name] is not None and word != table[name] and (name != "patient" or word.isdecimal())
    }
