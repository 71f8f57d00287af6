"""Download an archive whose licence allows it from the Imaging Data Commons of the NCI, by idc-index."""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from mammodet.cli import Parser
from mammodet.errors import InputError

EXAMPLE = """examples:
  mammodet download cbis-ddsm --abnormality mass --output CBIS-DDSM
  mammodet download cbis-ddsm --output CBIS-DDSM --yes

The same command goes on with a download that was stopped.
"""
COLLECTIONS = {"cbis-ddsm": "cbis_ddsm"}  # of the Imaging Data Commons
_PREFIXES = {"mass": ("Mass-",), "calc": ("Calc-",), "both": ("",)}  # of what CBIS-DDSM calls PatientID
_LAYOUT = "%PatientID/%SeriesInstanceUID"
_SPARE_BYTES = 10**9
_AFTER = """The tables are not among the files: put mass_case_description_train_set.csv and the three like it from
https://www.cancerimagingarchive.net/collection/cbis-ddsm into {output}, then:
  mammodet convert cbis_ddsm --source {output} --output data/cbis --abnormality {abnormality}"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument("archive", choices=COLLECTIONS, help="what is downloaded")
    main.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where to; needs the space shown")
    main.add_argument(
        "--abnormality", choices=tuple(_PREFIXES), default="both", help="films of these lesions alone (%(default)s)"
    )
    main.add_argument("--yes", action="store_true", help="do not ask")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Show what would be downloaded, ask, download, and check what came."""
    chosen = parser().parse_args(arguments)
    try:
        from idc_index import IDCClient
    except ImportError:
        raise InputError("mammodet download: needs the package; pip install idc-index") from None
    client = IDCClient.client()
    series = _find(client, COLLECTIONS[chosen.archive], _PREFIXES[chosen.abnormality])
    missing = [each for each in series if not _is_complete(chosen.output, each)]
    whole, rest = (sum(each["series_size_MB"] for each in some) / 1000 for some in (series, missing))
    licences = sorted({f"{each['license_short_name']}, doi:{each['source_DOI']}" for each in series})
    print(f"{chosen.archive}: {len(series)} series, {whole:.1f} GB; licence {'; '.join(licences)} (cite it)")
    print(f"{chosen.output}: {len(series) - len(missing)} of them are there; {rest:.1f} GB to download")
    if missing:
        _check_space(chosen.output, int(rest * 10**9))
        if not chosen.yes and not _agreed():
            print("nothing was downloaded")
            return 0
        wanted = [each["SeriesInstanceUID"] for each in missing]
        client.download_from_selection(
            downloadDir=str(chosen.output), seriesInstanceUID=wanted, use_s5cmd_sync=True, dirTemplate=_LAYOUT
        )
        missing = [each for each in missing if not _is_complete(chosen.output, each)]
    if missing:
        shown = ", ".join(f"{each['PatientID']}/{each['SeriesInstanceUID']}" for each in missing[:5])
        print(f"{len(missing)} series are not there or cut short: {shown}; the same command goes on")
        return 1
    print(f"all of it is in {chosen.output}")
    print(_AFTER.format(output=chosen.output, abnormality=chosen.abnormality))
    return 0


def _find(client: Any, collection: str, prefixes: tuple[str, ...]) -> list[dict[str, Any]]:
    columns = "PatientID, SeriesInstanceUID, series_size_MB, license_short_name, source_DOI"
    rows = client.sql_query(f"SELECT {columns} FROM index WHERE collection_id = '{collection}'").to_dict("records")
    found = [row for row in rows if row["PatientID"].startswith(prefixes)]
    if not found:
        raise InputError(f"idc-index {client.get_idc_version()}: has no series of {collection}; update idc-index")
    return sorted(found, key=lambda row: (row["PatientID"], row["SeriesInstanceUID"]))


def _is_complete(output: Path, series: dict[str, Any]) -> bool:
    """Whether the files of a series have its size; the index counts in millions of bytes."""
    files = (output / series["PatientID"] / series["SeriesInstanceUID"]).glob("*.dcm")
    return abs(sum(path.stat().st_size for path in files) - series["series_size_MB"] * 10**6) < 1000


def _check_space(output: Path, needed: int) -> None:
    place = next(each for each in (output, *output.absolute().parents) if each.exists())
    free = shutil.disk_usage(place).free
    if needed + _SPARE_BYTES > free:
        raise InputError(f"--output {output}: needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; take another")


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise InputError("--yes: is missing; nobody can be asked whether to download")
    return input("Download? [y/N] ").strip().lower() in ("y", "yes")
