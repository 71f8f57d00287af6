"""Random changes of training images, by torchvision's transforms v2: image, boxes and masks together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from mammodet.config import AugmentConfig

#: A lesion of which less than this part stays on the image is dropped.
MIN_VISIBLE = 0.3


class SteppedRotation(v2.Transform):
    """A turn by a multiple of `step` degrees, at most `degrees` either way; every multiple is equally likely."""

    def __init__(self, degrees: float, step: float) -> None:
        super().__init__()
        most = int(degrees / step + 1e-9)
        # -180 and 180 are one turn
        self.angles = [step * number for number in range(-most, most + 1) if step * number != -180]

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw, apart from applying."""
        return {"angle": self.angles[int(torch.randint(len(self.angles), ()))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Turn about the image's centre; what was outside is 0."""
        return v2.functional.rotate(inpt, params["angle"], interpolation=v2.InterpolationMode.BILINEAR)


class RandomCrop(v2.Transform):
    """Cut up to `most` of each side away, at a random place, and resize the rest to the size before."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw, apart from applying."""
        image = next(value for value in flat_inputs if isinstance(value, tv_tensors.Image))
        sides = (image.shape[-2], image.shape[-1])
        cuts = [int(share * self.most * side) for share, side in zip(torch.rand(2).tolist(), sides, strict=True)]
        places = [int(share * cut + 0.5) for share, cut in zip(torch.rand(2).tolist(), cuts, strict=True)]
        return {"sides": sides, "kept": [side - cut for side, cut in zip(sides, cuts, strict=True)], "places": places}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cut and resize image, boxes and masks alike."""
        (top, left), (height, width) = params["places"], params["kept"]
        return v2.functional.resized_crop(inpt, top, left, height, width, list(params["sides"]), antialias=True)


class Intensity(v2.Transform):
    """Brightness, contrast and noise for any number of channels (v2's own jitter takes one or three)."""

    def __init__(self, brightness: float, contrast: float, noise: float) -> None:
        super().__init__()
        self.brightness, self.contrast, self.noise = brightness, contrast, noise

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw, apart from applying."""
        shift, gain = (2 * torch.rand(2) - 1).tolist()
        image = next(value for value in flat_inputs if isinstance(value, tv_tensors.Image))
        grain = torch.randn(image.shape) * self.noise if self.noise else None
        return {"shift": shift * self.brightness, "gain": 1 + gain * self.contrast, "grain": grain}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Apply to the image only."""
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        changed = (inpt - 0.5) * params["gain"] + 0.5 + params["shift"] * inpt
        if params["grain"] is not None:
            changed = changed + params["grain"]
        return tv_tensors.Image(changed.clamp(0, 1))


def build_augment(config: AugmentConfig) -> Callable[..., Any] | None:
    """The chain of transforms, or None where nothing is to change."""
    if not config.enabled:
        return None
    steps: list[Any] = []
    if config.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip(config.horizontal_flip))
    if config.vertical_flip:
        steps.append(v2.RandomVerticalFlip(config.vertical_flip))
    stepped = config.rotate_degrees > 0 and config.rotate_step > 0
    if stepped:
        steps.append(SteppedRotation(config.rotate_degrees, config.rotate_step))
    degrees = 0.0 if stepped else config.rotate_degrees
    if degrees or config.translate or config.zoom:
        steps.append(
            v2.RandomAffine(
                degrees=degrees,
                translate=(config.translate, config.translate),
                scale=(1 - config.zoom, 1 + config.zoom),
                interpolation=v2.InterpolationMode.BILINEAR,
            )
        )
    if config.random_crop:
        steps.append(RandomCrop(config.random_crop))
    if config.brightness or config.contrast or config.noise:
        steps.append(Intensity(config.brightness, config.contrast, config.noise))
    return v2.Compose(steps) if steps else None


def augment(
    chain: Callable[..., Any], image: Tensor, boxes: Tensor, masks: Tensor | None, seed: int
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Apply a chain; the draw is a function of `seed` alone.

    Args:
        image: float (C, H, W) in [0, 1].
        boxes: float (n, 4) xyxy in its pixels.
        masks: uint8 (n, H, W), or None.
    Returns:
        image, boxes, masks of the k lesions that stay visible, and their indices (k,). Boxes are tight around masks.
    """
    size = (image.shape[-2], image.shape[-1])
    sample: dict[str, Any] = {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(boxes.reshape(-1, 4), format="XYXY", canvas_size=size),
    }
    if masks is not None:
        sample["masks"] = tv_tensors.Mask(masks)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which would turn the GPU's state as well
        changed = chain(sample)
    new_image = changed["image"].as_subclass(torch.Tensor)
    new_boxes = changed["boxes"].as_subclass(torch.Tensor)
    if masks is None:
        sides = (new_boxes[:, 2:] - new_boxes[:, :2]).clamp(min=0)
        before = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
        keep = torch.where((sides.min(dim=1).values >= 1) & (sides.prod(dim=1) >= MIN_VISIBLE * before))[0]
        return new_image, new_boxes[keep], None, keep
    new_masks = changed["masks"].as_subclass(torch.Tensor)
    areas = new_masks.flatten(1).sum(dim=1)
    keep = torch.where((areas > 0) & (areas >= MIN_VISIBLE * masks.flatten(1).sum(dim=1)))[0]
    return new_image, tight_boxes(new_masks[keep]), new_masks[keep], keep


def tight_boxes(masks: Tensor) -> Tensor:
    """Boxes float (n, 4) around masks (n, H, W), reaching to the far edge of the last pixel."""
    if not len(masks):
        return torch.zeros((0, 4))
    boxes = masks_to_boxes(masks)
    boxes[:, 2:] += 1  # torchvision gives the index of the last pixel
    return boxes
