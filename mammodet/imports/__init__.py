"""Other programs' detections, turned into a predictions file that is scored, compared and drawn like our own."""

from mammodet.imports.options import ImportOptions, TableOptions
from mammodet.imports.run import FORMATS, import_predictions

__all__ = ["FORMATS", "ImportOptions", "TableOptions", "import_predictions"]
