"""DICOM files: header, stored values, and pixels through the file's own window (docs/dicom.md)."""

from mammodet.data.dicom.gpu import choose_decoder
from mammodet.data.dicom.reader import DicomHeader, decode_many, read_dicom, read_header, read_stored

__all__ = ["DicomHeader", "choose_decoder", "decode_many", "read_dicom", "read_header", "read_stored"]
