"""COCO editions of CBIS-DDSM: what joins them with its tables, and its own split against their folders."""

from collections.abc import Sequence

from mammodet.converters.base import Summary
from mammodet.converters.cbis_ddsm.table import official_side
from mammodet.converters.coco.join import ImageFacts, Joined, JoinRule


def _cbis_rule(kind: str, more: Sequence[tuple[str, str]]) -> JoinRule:
    return JoinRule(
        pattern=r"(?<!\d)(?P<patient>\d{5})_(?P<laterality>LEFT|RIGHT)_(?P<view>CC|MLO)(?![a-zA-Z])",
        patient="P_{patient}",
        on=(("patient id", "P_{patient}"), ("left or right breast", "{laterality}"), ("image view", "{view}")),
        where=(("abnormality type", kind),),
        attributes=(("pathology", "pathology"), ("subtlety", "subtlety"), ("assessment", "assessment"), *more),
        image_keys=(("density", "breast density"), ("birads", "assessment")),
        constants=(("abnormality", kind),),
        unknown=(("density", "0"),),
    )


#: Name of the data set and rule. Patient ids are those of `mammodet convert cbis_ddsm`: leaks between both show.
PRESETS: dict[str, tuple[str, JoinRule]] = {
    "cbis_ddsm_mass": ("CBIS-DDSM", _cbis_rule("mass", (("shape", "mass shape"), ("margins", "mass margins")))),
    "cbis_ddsm_calc": (
        "CBIS-DDSM",
        _cbis_rule("calcification", (("calc_type", "calc type"), ("calc_distribution", "calc distribution"))),
    ),
}


def check_official(summary: Summary, images: Sequence[tuple[str | None, ImageFacts]], joined: Joined) -> None:
    """Compare each image's subset with that of the tables, and warn of patients that other tables hold elsewhere."""
    sides: dict[str, set[str]] = {}
    elsewhere: list[str] = []
    for subset, facts in images:
        official = {side for row in facts.rows if (side := official_side(row.word("image file path") or "", row.table))}
        sides.setdefault(facts.patient_id, set()).update(official)
        if subset is not None and official and {"val": "train"}.get(subset, subset) not in official:
            elsewhere.append(f"{facts.patient_id} {facts.laterality} {facts.view}")
    summary.checks["as the official split"] = {"images": len(images) - len(elsewhere), "elsewhere": len(elsewhere)}
    if elsewhere:
        shown = ", ".join(sorted(elsewhere)[:5])
        summary.warnings.append(
            f"{len(elsewhere)} images lie on another side than in the official split, for instance {shown}; figures do "
            "not compare with those of the official test set"
        )
    others: dict[str, set[str]] = {}
    for row in joined.tables.left_out if joined.tables else ():
        side = official_side(row.word("image file path") or "", row.table)
        patient = row.word("patient id")
        if side and patient in sides:
            others.setdefault(patient, set()).add(side)
    crossing = sorted(patient for patient, found in others.items() if not found <= sides[patient])
    if crossing:
        summary.warnings.append(
            f"{len(crossing)} patients stand on the other side of the official split in the tables of the other "
            f"abnormality; do not train on both sets with it: {', '.join(crossing)}"
        )
    summary.warnings.append(
        "CBIS-DDSM has no normal images: tumor/no tumor cannot be learnt on it alone, and an image without a lesion of "
        "one kind can hold the other"
    )
