"""mammodet: find and outline abnormalities in mammograms."""

from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from mammodet.version import VERSION as _VERSION

__version__ = _VERSION

if _TYPE_CHECKING:
    from mammodet.api import Predictor, Result, Results, convert, evaluate, load, read_dataset, to_fiftyone, train

__all__ = ["Predictor", "Result", "Results", "convert", "evaluate", "load", "read_dataset", "to_fiftyone", "train"]

# In a source tree `converters` and `configs` lie beside this folder; an installation has them inside (setup.cfg).
_beside = _Path(__file__).parent.parent
if (_beside / "setup.cfg").is_file() and (_beside / "converters").is_dir():
    __path__.append(str(_beside))


def __getattr__(name: str) -> _Any:
    """The API, imported when it is used: it brings torch along."""
    if name not in __all__:
        raise AttributeError(f"module 'mammodet' has no attribute {name!r}")
    from mammodet import api

    return getattr(api, name)
