"""A DICOM node: receives images by C-STORE, has each complete study predicted, and sends the objects back (PS3.4 B).

Associations run in threads of pynetdicom; prediction and sending run in the caller's, one study after the other.
"""

import os
import re
import shutil
import ssl
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import encode_file_meta

from mammodet.data.inputs import Skipped, read_record
from mammodet.errors import InputError
from mammodet.export.dicom_source import SOURCE_CLASSES, is_ours, read_source
from mammodet.files import atomic_path
from mammodet.serving.studies import Entry, Studies

RETRY_S, _TICK_S = 60.0, 0.5
_PDU_BYTES = 2**17
_SUCCESS, _NO_RESOURCES, _CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000  # PS3.4 B.2.3
_SYNTAXES = [  # that are read (docs/dicom.md)
    *(uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian),
    *(uid.DeflatedExplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless, uid.JPEG2000),
    *(uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEGLSNearLossless),
    *(uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit),
]

#: Predicts a folder of images to another folder; answers what was skipped, and the DICOM objects.
Answer = Callable[[Path, Path], tuple[Sequence[Skipped], Sequence[Path]]]


class Peer(NamedTuple):
    """Where objects are sent."""

    title: str
    host: str
    port: int

    @staticmethod
    def parse(value: str) -> "Peer":
        """Of `TITLE@HOST:PORT`."""
        found = re.fullmatch(r"([^@]+)@\[?([^@]+?)\]?:(\d{1,5})", value)
        if found is None or not 0 < int(found[3]) < 2**16:
            raise InputError(f"--send-to {value}: expected TITLE@HOST:PORT, as in PACS@127.0.0.1:104")
        return Peer(found[1], found[2], int(found[3]))


class _Listening(ssl.SSLContext):
    """Leaves handshakes to the associations' threads: in the listener's, a silent caller would keep out all others."""

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        options["do_handshake_on_connect"] = False
        return super().wrap_socket(*arguments, **options)


class Tls(NamedTuple):
    """Both sides show certificates, whoever calls (PS3.15 B.9)."""

    server: ssl.SSLContext
    client: ssl.SSLContext

    @staticmethod
    def of(certificate: Path, key: Path, authority: Path) -> "Tls":
        """Of PEM files; InputError where they cannot be read, or do not belong together."""
        try:
            found = Tls(_Listening(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            for context in found:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(authority)
                context.load_cert_chain(certificate, key)
        except OSError as error:  # SSLError is one
            raise InputError(f"--tls {certificate} {key} {authority}: cannot be used ({error})") from None
        return found


class DicomNode:
    """Listens while it is entered (`with node: node.run()`).

    Args:
        title: AE title of this node, which callers must name.
        callers: AE titles that may send.
        address: to listen on; port: 0 for a free one.
    Raises:
        InputError: no AE title; on entering, an address that cannot be used.
    """

    def __init__(
        self,
        studies: Studies,
        answer: Answer,
        peer: Peer,
        *,
        title: str,
        callers: Sequence[str],
        address: str = "127.0.0.1",
        port: int = 0,
        tls: Tls | None = None,
    ) -> None:
        self.studies, self.answer, self.peer, self.tls = studies, answer, peer, tls
        self.address, self.port = address, port
        self._received: WeakKeyDictionary[Association, int] = WeakKeyDictionary()  # bytes since the last instance
        try:
            self._ae = AE(title)
            self._ae.require_calling_aet = list(callers)
            AE(peer.title)
        except ValueError as error:
            raise InputError(f"{title}, {', '.join(callers)}, {peer.title}: no AE titles ({error})") from None
        self._ae.require_called_aet = True
        self._ae.maximum_pdu_size = _PDU_BYTES
        self._ae.add_supported_context("1.2.840.10008.1.1")  # C-ECHO
        for sop_class in SOURCE_CLASSES:
            self._ae.add_supported_context(sop_class, _SYNTAXES)

    def __enter__(self) -> "DicomNode":
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_CONN_OPEN, self._bound),
            (evt.EVT_REJECTED, self._say_rejected),
        ]
        context = self.tls.server if self.tls else None
        try:
            server = self._ae.start_server(
                (self.address, self.port), block=False, ssl_context=context, evt_handlers=handlers
            )
        except (OSError, OverflowError) as error:
            raise InputError(f"--address {self.address} --port {self.port}: cannot be used ({error})") from None
        self.port = server.socket.getsockname()[1] if server is not None and server.socket is not None else self.port
        _log(f"{self._ae.ae_title} listens on {self.address}:{self.port}; {self.studies.waiting} studies wait")
        return self

    def __exit__(self, *error: object) -> None:
        self._ae.shutdown()
        _log(f"stopped; {self.studies.waiting} studies wait for the next start")

    def run(self) -> None:
        """Answer studies until interrupted."""
        while True:
            if not self.work():
                time.sleep(_TICK_S)

    def work(self) -> bool:
        """Predict or send the study that is due the longest; False if none is."""
        found = self.studies.next()
        if found is None:
            return False
        study, due = found
        entry = self.studies.entry(study)
        entry, wait_s = (self._predict(study), 0.0) if entry is None else (self._send(study, entry), RETRY_S)
        if not self.studies.note(study, due, entry, wait_s):
            shutil.rmtree(self.studies.place(study) / "results", ignore_errors=True)
            _log(f"study {study}: has grown while it was predicted; it is predicted again")
        elif entry.refused is not None:
            _log(f"study {study}: gets no answer: {entry.refused}")
        elif not entry.unsent:
            _log(f"study {study}: answered, {len(entry.images)} images")
        return True

    def _predict(self, study: str) -> Entry:
        images = self.studies.place(study) / "images"
        names = tuple(sorted(os.listdir(images)))
        try:
            skipped, objects = self.answer(images, self.studies.place(study) / "results")
        except InputError as error:
            return Entry(images=names, refused=str(error))
        except Exception as error:  # one study must not keep the others from their answers
            traceback.print_exc()
            return Entry(images=names, refused=f"{type(error).__name__}: {error}")
        for item in skipped:
            self.studies.quarantine(images / item.file_name, item.reason, f"study {study}")
        return Entry(images=names, unsent=tuple(path.name for path in objects))

    def _send(self, study: str, entry: Entry) -> Entry:
        """Send what was not sent; answers what is left."""
        paths = [self.studies.place(study) / "results" / "dicom" / name for name in entry.unsent]
        ae, unsent = AE(self._ae.ae_title), []
        ae.connection_timeout = ae.acse_timeout
        for path in paths:
            meta = pydicom.dcmread(path, specific_tags=[]).file_meta
            ae.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
        tls = (self.tls.client, self.peer.host) if self.tls else None
        association = ae.associate(self.peer.host, self.peer.port, ae_title=self.peer.title, tls_args=tls)
        for path in paths:
            try:
                status = association.send_c_store(path).get("Status")
            except (ValueError, RuntimeError) as error:  # its class is not accepted; there is no association
                status, fault = None, str(error)
            else:
                fault = "no answer" if status is None else f"status {status:04X}"
            if status is None or (status != _SUCCESS and status >> 12 != 0xB):  # of a warning it is stored
                unsent.append(path.name)
                _log(f"study {study}: {path.name} was not sent ({fault}); again in {RETRY_S:g} s")
        if association.is_established:
            association.release()
        return entry.model_copy(update={"unsent": tuple(unsent)})

    def _store(self, event: Any) -> Dataset:
        title, answer = event.assoc.requestor.ae_title, Dataset()
        try:
            status, comment = self._take(event, title)
        except Exception as error:  # hostile bytes, a full disk: the sender must know
            status, comment = _NO_RESOURCES, f"cannot be stored ({type(error).__name__}: {error})"
        finally:
            self._received[event.assoc] = 0
        if comment:
            _log(f"instance {event.request.AffectedSOPInstanceUID} of {title}: {comment}")
            answer.ErrorComment = comment[:64].encode("ascii", "replace").decode()
        answer.Status = status
        return answer

    def _take(self, event: Any, title: str) -> tuple[int, str]:
        if shutil.disk_usage(self.studies.folder).free < 2 * self.studies.limits.instance_bytes:
            return _NO_RESOURCES, "the disk is full"
        arrived = self.studies.arriving / f"{uuid.uuid4().hex}.dcm"
        with atomic_path(arrived) as path, open(path, "wb") as file:
            file.write(bytes(128) + b"DICM" + encode_file_meta(event.file_meta))
            file.write(event.request.DataSet.getbuffer())
        try:
            source = read_source(arrived)
            if source.SOPInstanceUID != event.request.AffectedSOPInstanceUID:
                raise InputError(f"{arrived}: is {source.SOPInstanceUID}, sent as another")
            if is_ours(source):
                arrived.unlink()
                return _SUCCESS, "is a result of mammodet, and was dropped"
            read_record(arrived, arrived.name)
        except InputError as error:
            self.studies.quarantine(arrived, reason := str(error).removeprefix(f"{arrived}: "), title)
            arrived.unlink()
            return _CANNOT_UNDERSTAND, reason
        refusal = self.studies.add(arrived, str(source.StudyInstanceUID), str(source.SOPInstanceUID))
        return (_SUCCESS, "") if refusal is None else (_NO_RESOURCES, refusal)

    def _bound(self, event: Any) -> None:
        """Close connections that send more than is allowed; pynetdicom reads on, whatever lengths a peer states."""
        association, transport = event.assoc, event.assoc.dul.socket
        read, most = transport.recv, self.studies.limits.instance_bytes

        def recv(count: int) -> bytearray:
            total = self._received[association] = self._received.get(association, 0) + count
            if count > 2 * _PDU_BYTES or total > most + 8 * _PDU_BYTES:
                _log(f"{association.requestor.address}: sends more than {most} bytes; its connection is closed")
                raise OSError("too much data")
            return bytearray(read(count))

        transport.recv = recv
        transport.socket.settimeout(self._ae.network_timeout)  # of silence

    def _say_rejected(self, event: Any) -> None:
        caller = event.assoc.requestor
        called = caller.primitive.called_ae_title
        _log(f"refused {caller.ae_title!r} at {caller.address}, which called {called!r}")


def _log(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)
