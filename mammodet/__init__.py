"""mammodet: find and outline abnormalities in mammograms."""

__version__ = "0.1.0"
