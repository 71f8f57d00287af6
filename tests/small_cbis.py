"""Shared by the tests of CBIS-DDSM: small phantom archives, and their conversion."""

from pathlib import Path

from mammodet.converters import cbis_ddsm
from mammodet.converters.base import Summary
from mammodet.data.coco import read_coco
from mammodet.phantom.cbis_ddsm import CbisPhantomSummary, write_cbis_archive
from mammodet.records import ImageRecord


def run(source: Path, output: Path, **options) -> tuple[Summary, dict[str, ImageRecord]]:
    """Convert; the summary, and records by name (`P_00001_LEFT_CC`)."""
    chosen = cbis_ddsm.CbisOptions(jobs=1, progress=False, **({"resolve_leaks": "test"} | options))
    summary = cbis_ddsm.convert(source, output, chosen)
    return summary, {Path(record.file_name).stem: record for record in read_coco(output / "all.json").images}


def small_archive(folder: Path, **options) -> CbisPhantomSummary:
    return write_cbis_archive(
        folder, **({"patients": 2, "size": 96, "quirks": [], "progress": False, "abnormality": "mass"} | options)
    )


def shows(truth: CbisPhantomSummary, quirk: str) -> str:
    (name,) = truth.quirks[quirk]
    return name
