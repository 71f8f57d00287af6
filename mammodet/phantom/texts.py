"""The texts that lie beside the images of a phantom archive."""

from __future__ import annotations

from pathlib import Path

from mammodet.errors import InputError
from mammodet.synthetic import LICENCE_MARK, is_synthetic


def licence(database: str = "the mini-MIAS database of mammograms") -> str:
    return f"""{LICENCE_MARK}

These images were computed by mammodet/phantom.py. They show no patient, were made from no patient's image,
and are good for testing software only. They may be used, changed and passed on freely. The layout follows
that of {database}, which has a licence of its own.
"""


def prose(size: int) -> str:
    rule = "=" * 65
    return f"""                  SYNTHETIC MAMMOGRAMS
            in the layout of the mini-MIAS database


Every image here was computed; none shows a patient. See Licence.txt.

{rule}

INFORMATION:

One line per finding, or one for a normal image:

1st column: number of the image.

2nd column: Character of background tissue:
                F - Fatty
                G - Fatty-glandular
                D - Dense-glandular

3rd column: Class of abnormality:
                CALC - Calcification
                CIRC - Well-defined mass
                SPIC - Spiculated mass
                MISC - Ill-defined mass
                ARCH - Architectural distortion
                ASYM - Asymmetry
                NORM - Normal

4th column: Severity of abnormality:
                B - Benign
                M - Malignant

5th,6th columns: x,y image-coordinates of the centre of the abnormality.

7th column: Radius (in pixels) of a circle around the abnormality.

NOTES
=====
1) Two images to a patient: odd numbers are right breasts, even
   numbers left ones.

2) Every image is {size} pixels x {size} pixels.

3) Where calcifications lie all over the breast, place and radius
   are left out. The origin of coordinates is the bottom-left corner.

{rule}

"""


def has_older_archive(output: Path) -> bool:
    """Whether there is an older phantom archive to make room for; nothing else may stand there.

    Raises:
        InputError: a file, or a folder that holds something else.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; expected a folder")
    if not output.is_dir() or not any(output.iterdir()):
        return False
    if not is_synthetic([output]):
        raise InputError(f"{output}: is not empty and holds no phantom archive; choose a new folder")
    return True
