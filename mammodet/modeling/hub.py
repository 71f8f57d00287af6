"""Downloads of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mammodet.errors import InputError

T = TypeVar("T")


def fetch_hub(fetch: Callable[[], T], what: str, where: str) -> T:
    """Run a download; where the hub cannot be reached, say the two ways on."""
    try:
        return fetch()
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{what} could not be downloaded from {where} ({error}). Either bring the file by other means and give its "
            "path (model.weights=PATH), or start without (model.weights=none with model.detector.backbone.norm=GN)."
        ) from error
