"""How networks see pixels, and a first convolution carried from one way of seeing to another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mammodet.errors import InputError
from mammodet.modeling.pixel_stats import PIXEL_MEAN, PIXEL_STD

Colour = tuple[float, float, float]
#: Means that differ by less grey levels are one: the same figures, rounded differently.
_SAME_MEAN = 0.01
#: First convolutions, and the mean of the batch norm behind them.
_FIRST = tuple(
    (f"{prefix}{conv}.weight", f"{prefix}{norm}.running_mean")
    for prefix, conv, norm in (
        ("backbone.body.", "conv1", "bn1"),
        ("backbone.bottom_up.", "stem.conv1", "stem.conv1.norm"),
        ("backbone.", "stem.conv1", "stem.conv1.norm"),
        ("", "stem.conv1", "stem.conv1.norm"),
        ("", "conv1", "bn1"),
    )
)


@dataclass(frozen=True, slots=True)
class PixelNorm:
    """A network sees `(pixel - mean) / std`, whatever scale its library gives them.

    Attributes:
        name: for the screen.
        order: of the channels.
        mean, std: of red, green and blue (whatever the order), of pixels from 0 to 255.
    """

    name: str
    order: Literal["RGB", "BGR"]
    mean: Colour
    std: Colour

    def for_channels(self, channels: int) -> PixelNorm:
        """The same for a number of channels: other than three have no colours, and the average of mean and std."""
        if channels == 3:
            return self
        mean, std = sum(self.mean) / 3, sum(self.std) / 3
        return PixelNorm(self.name, "RGB", (mean, mean, mean), (std, std, std))

    @property
    def is_grey(self) -> bool:
        """Whether all channels are seen alike."""
        return len(set(self.mean)) == len(set(self.std)) == 1

    def is_like(self, other: PixelNorm) -> bool:
        """Whether the other sees alike, whatever its name, to the precision of float32."""
        pairs = zip((*self.mean, *self.std), (*other.mean, *other.std), strict=True)
        return self.order == other.order and all(math.isclose(*pair, rel_tol=1e-6) for pair in pairs)

    def mean_std(self, channels: int) -> tuple[list[float], list[float]]:
        """Mean and std per channel in the network's order, as detectron2's config wants them."""
        norm = self.for_channels(channels)
        step = 1 if norm.order == "RGB" else -1
        if channels != 3:
            return [norm.mean[0]] * channels, [norm.std[0]] * channels
        return list(norm.mean[::step]), list(norm.std[::step])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @staticmethod
    def from_json(value: Any, where: str) -> PixelNorm:
        """The inverse of `to_json`.

        Raises:
            InputError: damaged.
        """
        try:
            mean, std = (tuple(float(number) for number in value[key]) for key in ("mean", "std"))
            if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or value["order"] not in ("RGB", "BGR"):
                raise ValueError("expected order RGB or BGR, and three means and positive stds")
            return PixelNorm(str(value["name"]), value["order"], mean, std)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: 'pixels' in its header is damaged ({error})") from None


def _grey(mean: float, std: float) -> tuple[Colour, Colour]:
    return (mean, mean, mean), (std, std, std)


_MEAN: Colour = (123.675, 116.28, 103.53)
_STD: Colour = (58.395, 57.12, 57.375)
TORCHVISION = PixelNorm("torchvision", "RGB", _MEAN, _STD)
#: The same of a detectron2 network that was trained on BGR (the zoo's X-101-32x8d, and those trained from scratch).
TORCHVISION_BGR = PixelNorm("torchvision-bgr", "BGR", _MEAN, _STD)
#: detectron2's usual: the zoo's networks that started from MSRA's ImageNet weights.
DETECTRON2_MSRA = PixelNorm("msra", "BGR", _MEAN, (1.0, 1.0, 1.0))
#: Ours: channels are windows of a grey image.
OURS = PixelNorm("mammodet", "RGB", *_grey(255 * PIXEL_MEAN, 255 * PIXEL_STD))
NORMS = {norm.name: norm for norm in (DETECTRON2_MSRA, TORCHVISION, TORCHVISION_BGR, OURS)}


def grey(std: float) -> PixelNorm:
    """Our mean with another std, as of a detectron2 network here."""
    return PixelNorm(f"grey, std {std:g}", "RGB", *_grey(255 * PIXEL_MEAN, std))


def with_pixels(state: Mapping[str, Tensor], source: PixelNorm, target: PixelNorm) -> dict[str, Tensor]:
    """Weights that answer under `target` as these do under `source`.

    The first convolution takes the scale and the order of the channels. Where the means differ (colour to grey), its
    answer is shifted by a constant, which goes into the mean of the batch norm behind it; exact but for the rim, where
    the convolution sees padding. Under GroupNorm this shift (a few hundredths of a std) is left out.

    Args:
        state: names of torchvision's or detectron2's, of a detector or of a ResNet.
    Raises:
        InputError: the two differ, and there is no ResNet.
    """
    if source.is_like(target):
        return dict(state)
    found = next(((first, mean) for first, mean in _FIRST if first in state), None)
    if found is None:
        raise InputError(f"weights for pixels {source.name} cannot be fitted to {target.name}: they are of no ResNet")
    changed = dict(state)
    weight, mean = state[found[0]], state.get(found[1])
    channels = weight.shape[1]
    source, target = source.for_channels(channels), target.for_channels(channels)
    kernel = weight.double()
    if channels == 3 and source.order == "BGR":
        kernel = kernel.flip(1)
    places = range(3) if channels == 3 else [0] * channels
    apart = [source.mean[place] - target.mean[place] for place in places]
    if mean is not None and max(map(abs, apart)) > _SAME_MEAN:
        shifts = [difference / source.std[place] for difference, place in zip(apart, places, strict=True)]
        shift = kernel.sum(dim=(2, 3)) @ torch.tensor(shifts, dtype=torch.float64)
        changed[found[1]] = (mean.double() + shift).to(mean.dtype)
    scale = torch.tensor([target.std[place] / source.std[place] for place in places], dtype=torch.float64)
    kernel = kernel * scale[None, :, None, None]
    if channels == 3 and target.order == "BGR":
        kernel = kernel.flip(1)
    changed[found[0]] = kernel.to(weight.dtype).contiguous()
    return changed
