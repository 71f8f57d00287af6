"""mammodet: find and outline abnormalities in mammograms."""

from pathlib import Path as _Path

__version__ = "0.1.0"

# In a source tree `converters` and `configs` lie beside this folder; an installation has them inside (setup.cfg).
_beside = _Path(__file__).parent.parent
if (_beside / "setup.cfg").is_file() and (_beside / "converters").is_dir():
    __path__.append(str(_beside))
