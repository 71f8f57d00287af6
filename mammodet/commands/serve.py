"""Receive studies from a PACS, predict each once it is complete, and send the findings back (docs/pacs.md)."""

import argparse
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from mammodet.cli import Parser
from mammodet.commands.predict import (
    DICOM_KINDS,
    add_limit_options,
    add_model_options,
    limits_of,
    open_model,
    predict_inputs,
)
from mammodet.errors import InputError

if TYPE_CHECKING:
    from mammodet.data.inputs import Skipped

EXAMPLE = """examples (docs/pacs.md):
  mammodet serve --dicom sr --accept ORTHANC --send-to ORTHANC@127.0.0.1:4242 --output node/
  mammodet serve --dicom sr gsps --accept PACS --send-to PACS@pacs.example:2762 --output node/ \\
      --address 10.0.0.5 --tls node.pem node.key authority.pem
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument(
        "--dicom",
        nargs="*",
        choices=DICOM_KINDS,
        required=True,
        metavar="KIND",
        help="be a DICOM node (C-STORE) that sends back objects of these kinds: sr, seg, sc, gsps (sr)",
    )
    main.add_argument("--accept", nargs="+", required=True, metavar="TITLE", help="AE titles that may send")
    main.add_argument("--send-to", required=True, metavar="TITLE@HOST:PORT", help="node that gets the objects")
    main.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="keeps what waits, the journal, and what was refused",
    )
    main.add_argument("--title", default="MAMMODET", help="AE title of this node (%(default)s)")
    main.add_argument("--address", default="127.0.0.1", metavar="IP", help="address to listen on (%(default)s)")
    main.add_argument("--port", type=int, default=11112, help="port to listen on (%(default)s)")
    main.add_argument(
        "--tls",
        type=Path,
        nargs=3,
        metavar=("CERTIFICATE", "KEY", "AUTHORITY"),
        help="PEM files: speak TLS with both sides, which must show certificates of that authority",
    )
    main.add_argument(
        "--complete-after",
        type=float,
        default=120.0,
        metavar="S",
        help="a study is complete after S seconds without a new instance (%(default)g)",
    )
    add_limit_options(main)
    add_model_options(main)
    return main


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted."""
    chosen = parser().parse_args(arguments)
    chosen.dicom = chosen.dicom or ["sr"]
    try:
        from mammodet.serving.dicom_node import DicomNode, Peer, Tls
    except ModuleNotFoundError as error:
        raise InputError(f'mammodet serve needs {error.name}: pip install "mammodet[network]"') from None
    from mammodet.data.inputs import Inputs, gather
    from mammodet.export.dicom_files import check_sources
    from mammodet.files import locked
    from mammodet.records import Dataset
    from mammodet.serving.studies import Studies

    limits = limits_of(chosen)
    try:
        is_wide = not ip_address(chosen.address).is_loopback
    except ValueError:
        raise InputError(f"--address {chosen.address}: expected an IP address of this machine") from None
    if is_wide and chosen.tls is None:
        print(f"warning: {chosen.address}: patient data and AE titles travel in the clear without --tls")
    peer, tls = Peer.parse(chosen.send_to), Tls.of(*chosen.tls) if chosen.tls else None
    predictor, calibration = open_model(chosen)
    categories = predictor.facts.categories
    check_sources(Inputs(Dataset(categories, ()), Path()), chosen.dicom, with_masks=predictor.config.model.with_masks)

    def answer(images: Path, results: Path) -> "tuple[Sequence[Skipped], Sequence[Path]]":
        inputs = gather([images], categories, unpack_to=results / ".unpacked")
        options = {**vars(chosen), "output": results, "overlays": False, "page": False, "num_workers": 0, "shard": None}
        return predict_inputs(argparse.Namespace(**options), predictor, inputs, calibration, None)

    with locked(chosen.output, "another mammodet serve works there; stop it, or choose another --output"):
        where = {"title": chosen.title, "callers": chosen.accept, "address": chosen.address, "port": chosen.port}
        with DicomNode(Studies(chosen.output, limits), answer, peer, **where, tls=tls) as node:
            node.run()
    return 0
