"""How many lesions, patients and images an archive has, so that a conversion that lost some is noticed.

mini-MIAS: Suckling et al. 1994, `Info.txt`: 123 abnormal lines, four of them without a circle. CBIS-DDSM: rows of the
four official tables (Lee et al., Scientific Data 2017); an image is a patient, side and view. The totals of `mass` and
`both` are counted over the tables' union: patients and images in several tables count once. INbreast,
VinDr-Mammo (boxes, ignored ones among them) and CMMD: as their publishers say.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches

from mammodet.audit.findings import AuditedImage, Finding, Item, count
from mammodet.audit.inputs import LeftOut
from mammodet.errors import InputError


@dataclass(frozen=True, slots=True)
class Totals:
    """What an archive, or a part of it, holds."""

    lesions: int | None  # None: it depends on what is converted
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
    "inbreast": Totals(lesions=None, patients=115, images=410),
    "vindr": Totals(lesions=2254, patients=5000, images=20000),
    "cmmd": Totals(lesions=0, patients=1775, images=5202),
}


def find_totals(name: str) -> Totals:
    """The totals of that name. Raises InputError: there are none of that name; with those that there are."""
    if name not in TOTALS:
        near = get_close_matches(name, TOTALS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(f"--expect {name}: no totals of that name; known are {', '.join(TOTALS)}.{hint}")
    return TOTALS[name]


def check_totals(images: Sequence[AuditedImage], expect: str, quarantine: Sequence[LeftOut]) -> list[Finding]:
    """As many lesions, patients and images as the archive has, less what is known to be left out.

    An `unlocalized` image stands for one lesion at least, a name in the quarantine list for one image or lesion.

    Args:
        images: those that are counted: of the audited file, and where that is a training set, of the validation set
            that was taken from it.
        expect: a name in `TOTALS`.
        quarantine: what lies beside the file; may be empty.
    Raises:
        InputError: no such name.
    """
    totals = find_totals(expect)
    files = list(dict.fromkeys(image.file for image in images))
    found = {
        "lesions": sum(len(image.record.lesions) for image in images),
        "patients": len({image.record.patient_id for image in images if image.record.patient_id is not None}),
        "images": len(images),
    }
    expected = {name: number for name, number in asdict(totals).items() if number is not None}
    wrong = [name for name, number in expected.items() if number != found[name]]
    if not wrong:
        return []
    placeless = [image for image in images if image.record.unlocalized]
    items = [Item(f"{name}: {found[name]} in {' + '.join(files)}, {expected[name]} in {expect}", ()) for name in wrong]
    items += [Item(f"unlocalized, so with a lesion that is not counted: {image.name}", (image,)) for image in placeless]
    items += [Item(f"quarantined {one.what} {one.name}: {one.reason}") for one in quarantine]
    left_out = count(len(quarantine), "quarantined entry", "quarantined entries")
    known = f"{count(len(placeless), 'unlocalized image')} and {left_out}"
    explained = all(found[name] <= expected[name] for name in wrong) and _explains(
        {name: expected[name] - found[name] for name in wrong}, placeless, quarantine
    )
    return [
        Finding.of(
            "explained_totals" if explained else "known_totals",
            items,
            expect=expect,
            differences=", ".join(f"{name} {found[name] - expected[name]:+d}" for name in wrong),
            known=known,
            totals=", ".join(f"{number} {name}" for name, number in expected.items()),
        )
    ]


def _explains(missing: Mapping[str, int], placeless: Sequence[AuditedImage], quarantine: Sequence[LeftOut]) -> bool:
    """Whether what is known to be left out is at least as much as what is missing."""
    kinds = Counter(one.what for one in quarantine)
    lost_images = kinds["image"]
    known = {
        "images": lost_images,
        "patients": lost_images,
        # A circle in quarantine makes its image unlocalized: it is counted there already, or here, not twice.
        "lesions": max(len(placeless), sum(kinds.values()) - lost_images) + lost_images,
    }
    return all(number <= known[name] for name, number in missing.items())
