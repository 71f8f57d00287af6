"""What is said where detectron2 is needed and missing."""

import functools
import importlib
import logging
import warnings

import torch

from mammodet.errors import InputError

#: Pairs of torch and torchvision that detectron2 was built and tested with (docs/detectron2.md).
TESTED_PAIRS = (("2.11", "0.26"), ("2.15", "0.29"))
INSTALL = (
    'pip install "mammodet[detectron2]"',
    'pip install --no-build-isolation "git+https://github.com/facebookresearch/detectron2.git"',
)


@functools.cache
def require_detectron2() -> None:
    """Import detectron2, without what it and torch warn of that no user of ours can change.

    Raises InputError: it is missing, or was built for another torch.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("detectron2")
            importlib.import_module("detectron2._C")
            importlib.import_module("detectron2.model_zoo")
            _spend_warnings()
    except ImportError as error:
        pairs = ", ".join(f"{torch}/{torchvision}" for torch, torchvision in TESTED_PAIRS)
        missing = getattr(error, "name", None) == "detectron2"
        raise InputError(
            f"detectron2 {'is not installed' if missing else f'cannot be loaded ({error})'}. It is not on the package "
            "index; in the environment of mammodet, with a C++ compiler (and nvcc of torch's CUDA "
            f"version for a GPU):\n  {INSTALL[0]}\n  {INSTALL[1]}\n"
            f"Known to work with torch/torchvision {pairs}. It must be built again whenever torch changes "
            "(docs/detectron2.md). Or choose model.detector.backend=torchvision."
        ) from None


def _spend_warnings() -> None:
    """Two that torch gives once per process, at detectron2's first forward, are given here unseen."""
    torch.meshgrid(torch.zeros(1), torch.zeros(1))
    logger = logging.getLogger("torch.fx._symbolic_trace")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        importlib.import_module("detectron2.utils.tracing").is_fx_tracing()
    finally:
        logger.setLevel(level)
