"""torchvision and timm imported without torch's compiler, whose import takes longer than that of either."""

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_NAME = "torch._dynamo.utils"


class _Later(ModuleType):
    """Gives what is in `torch._dynamo.utils`, which it imports when asked for more than torchvision imports of it."""

    def is_compile_supported(self, device: Any) -> Any:
        """What `torchvision.ops.roi_align` imports, and calls where it cannot do without Python."""
        return self._real().is_compile_supported(device)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of the import system's own
            raise AttributeError(name)
        return getattr(self._real(), name)

    def _real(self) -> ModuleType:
        if sys.modules.get(_NAME) is self:
            del sys.modules[_NAME]
        return importlib.import_module(_NAME)


def _disable_later(function: Callable[..., Any], recursive: bool = True, *, reason: str | None = None) -> Any:
    """`torch.compiler.disable`, which timm calls as a decorator, for when there is a compiler."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return function(*args, **options)
        from torch.compiler import disable

        return disable(function, recursive, reason=reason)(*args, **options)

    return call


@contextmanager
def without_dynamo() -> Iterator[None]:
    """Imports of torchvision and timm in here leave `torch._dynamo` to those who use it."""
    if "torch._dynamo" in sys.modules:
        yield
        return
    compiler: Any = importlib.import_module("torch.compiler")
    later, disable = _Later(_NAME), compiler.disable
    sys.modules[_NAME], compiler.disable = later, _disable_later
    try:
        yield
    finally:
        compiler.disable = disable
        if sys.modules.get(_NAME) is later:
            del sys.modules[_NAME]
