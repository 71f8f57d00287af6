"""DICOM files: header, stored values, and pixels through the file's own window (docs/dicom.md)."""

from mammodet.data.dicom.reader import DicomHeader, read_dicom, read_header, read_reduced, read_stored

__all__ = ["DicomHeader", "read_dicom", "read_header", "read_reduced", "read_stored"]
