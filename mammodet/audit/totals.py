"""How many lesions, patients and images an archive has, so that a conversion that lost some is noticed.

mini-MIAS: Suckling et al. 1994, `Info.txt`: 123 abnormal lines, four of them without a circle. CBIS-DDSM: rows of the
four official tables (Lee et al., Scientific Data 2017); an image is a patient, side and view. The totals of `mass` and
`both` are counted over the tables' union: patients and images that stand in several tables count once.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from mammodet.errors import InputError


@dataclass(frozen=True, slots=True)
class Totals:
    """What an archive, or a part of it, holds."""

    lesions: int
    patients: int
    images: int


TOTALS: dict[str, Totals] = {
    "mias": Totals(lesions=123, patients=161, images=322),
    "cbis_ddsm-mass-train": Totals(lesions=1318, patients=691, images=1231),
    "cbis_ddsm-mass-test": Totals(lesions=378, patients=201, images=361),
    "cbis_ddsm-calc-train": Totals(lesions=1546, patients=602, images=1227),
    "cbis_ddsm-calc-test": Totals(lesions=326, patients=151, images=284),
    "cbis_ddsm-mass": Totals(lesions=1696, patients=892, images=1592),
    "cbis_ddsm-calc": Totals(lesions=1872, patients=753, images=1511),
    "cbis_ddsm-both": Totals(lesions=3568, patients=1566, images=3032),
}


def find_totals(name: str) -> Totals:
    """The totals of that name.

    Raises:
        InputError: there are none of that name; with those that there are.
    """
    if name not in TOTALS:
        near = get_close_matches(name, TOTALS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(f"--expect {name}: no totals of that name; known are {', '.join(TOTALS)}.{hint}")
    return TOTALS[name]
