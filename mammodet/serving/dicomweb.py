"""A DICOMweb server (PS3.18): images of studies from it (QIDO-RS, WADO-RS), objects back to it (STOW-RS)."""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pydicom
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session
from pydicom.dataset import Dataset
from pydicom.uid import UID
from requests import Response

from mammodet.data.dicom.file import quiet
from mammodet.data.dicom.tags import text
from mammodet.errors import InputError
from mammodet.export.dicom_source import SOURCE_CLASSES, is_ours
from mammodet.files import atomic_path
from mammodet.serving.studies import Limits

T = TypeVar("T")
_MOST_LISTED = 100_000  # instances of a study, of any class


class Server:
    """A DICOMweb server; `requests` takes passwords from ~/.netrc and certificates from REQUESTS_CA_BUNDLE.

    Args:
        url: of the service, for instance `https://pacs.example/dicom-web`.
        limits: of what is fetched.
        timeout_s: that the server may be silent.
    Raises:
        InputError: no such URL, or one with a password.
    """

    def __init__(self, url: str, limits: Limits | None = None, timeout_s: float = 60.0) -> None:
        try:
            parts = urlsplit(url)
            known = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
        except ValueError:
            known = False
        if not known:
            raise InputError(f"--from-dicomweb {url}: expected http://HOST:PORT/PATH or https://...")
        if parts.username is not None:
            raise InputError("--from-dicomweb: the URL holds a user name, which others can read; put it into ~/.netrc")
        self.url, self.limits = url.rstrip("/"), limits or Limits()
        session = create_session()
        session.hooks["response"].append(self._bound)
        self._client = DICOMwebClient(self.url, session, timeout=timeout_s)
        self._client.set_http_retry_params(max_attempts=3, wait_exponential_multiplier=500)
        logging.getLogger("retrying").setLevel(logging.CRITICAL)  # the last fault is raised

    def fetch(self, studies: Sequence[str], folder: Path) -> list[Path]:
        """Write the images of studies below a folder, one folder a study; objects of mammodet are left where they are.

        Raises InputError: a study is not there or has no images, or the server does not answer as it should.
        """
        folders = []
        for study in studies:
            with quiet:
                is_uid = UID(study).is_valid
            if not is_uid:
                raise InputError(f"--study {study!r}: is no Study Instance UID")
            found = self._instances(study)
            images = [item for item in found if text(item, "SOPClassUID") in SOURCE_CLASSES]
            if not images:
                kinds = sorted({UID(text(item, "SOPClassUID") or "").name for item in found})
                holds = f"holds no images ({', '.join(kinds)})" if kinds else "was not found"
                raise InputError(f"{self.url}: study {study} {holds}")
            if len(images) > self.limits.instances:
                raise InputError(
                    f"{self.url}: study {study} holds {len(images)} images; expected at most {self.limits.instances}; "
                    "allow more: --most-instances"
                )
            for item in images:
                self._fetch(study, text(item, "SeriesInstanceUID") or "", text(item, "SOPInstanceUID") or "", folder)
            folders.append(folder / study)
        return folders

    def _instances(self, study: str) -> list[Dataset]:
        """What the server lists, page by page until one has nothing new: not every server heeds the offset."""
        found: dict[str | None, Dataset] = {}
        fields, search = ["SOPClassUID", "SeriesInstanceUID", "SOPInstanceUID"], self._client.search_for_instances
        while True:
            rows = self._asked(study, search, study, fields=fields, offset=len(found))
            items = [self._asked(study, Dataset.from_json, row) for row in rows]
            new = {uid: item for item in items if (uid := text(item, "SOPInstanceUID")) not in found}
            if not new or len(found) > _MOST_LISTED:
                return list(found.values())
            found |= new

    def _fetch(self, study: str, series: str, instance: str, folder: Path) -> None:
        get, as_stored = self._client.retrieve_instance, (("application/dicom", "*"),)
        if shutil.disk_usage(folder).free < 2 * self.limits.instance_bytes:
            raise InputError(f"{folder}: the disk is full; expected twice --most-mb to be free")
        image = self._asked(instance, get, study, series, instance, media_types=as_stored)
        if not is_ours(image):
            with atomic_path(folder / study / f"{instance}.dcm") as path:
                self._asked(instance, image.save_as, path, enforce_file_format=True)

    def store(self, objects: Sequence[Path]) -> None:
        """Store DICOM files. Raises InputError: the server did not confirm each."""
        datasets = [pydicom.dcmread(path) for path in objects]
        answer = self._asked("STOW", self._client.store_instances, datasets) if datasets else Dataset()
        confirmed = {str(item.ReferencedSOPInstanceUID) for item in answer.get("ReferencedSOPSequence", [])}
        missing = [
            path.name for path, each in zip(objects, datasets, strict=True) if each.SOPInstanceUID not in confirmed
        ]
        if missing:
            raise InputError(
                f"{self.url}: did not confirm {len(missing)} of {len(objects)} objects ({', '.join(missing[:4])}); "
                "they are in the output folder"
            )

    def _bound(self, response: Response, **_: Any) -> None:
        """Read an answer before anything else does, up to the limit; no length that the server states is believed."""
        content = bytearray()
        for chunk in response.iter_content(2**16):
            content += chunk
            if len(content) > self.limits.instance_bytes:
                response.close()
                raise InputError(f"sends more than {self.limits.instance_bytes} bytes; allow more: --most-mb")
        response._content = bytes(content)

    def _asked(self, what: str, ask: Callable[..., T], *arguments: Any, **options: Any) -> T:
        try:
            with quiet:
                return ask(*arguments, **options)
        except Exception as error:  # of the network, the server, or the parsers of its answer
            raise InputError(f"{self.url}: {what}: no DICOMweb answer ({str(error)[:500]})") from None
