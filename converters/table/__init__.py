"""Boxes and outlines in tables and in the formats of labelling tools (docs/table.md)."""

from mammodet.converters.table.converter import Table, TableOptions, convert

ARCHIVE = Table

__all__ = ["ARCHIVE", "Table", "TableOptions", "convert"]
