"""Random changes of training images, by torchvision's transforms v2: image, boxes and masks together."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from mammodet.config import AugmentConfig
from mammodet.data.mix import tight_boxes
from mammodet.data.transforms import (
    Affine,
    Blur,
    Cutout,
    Elastic,
    Intensity,
    Magnification,
    RandomCrop,
    RandomSize,
    Scale,
    SteppedRotation,
    Stretch,
    Tone,
)

#: A lesion of which less than this part stays on the image is dropped.
MIN_VISIBLE = 0.3


def build_augment(config: AugmentConfig) -> Callable[..., Any] | None:
    """The chain of transforms, or None where nothing is to change."""
    if not config.enabled:
        return None
    steps: list[Any] = []
    if config.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip(config.horizontal_flip))
    if config.vertical_flip:
        steps.append(v2.RandomVerticalFlip(config.vertical_flip))
    if config.stretch:
        steps.append(Stretch(*config.stretch))  # ahead of turns: these keep the shape of a film whose aspect is right
    stepped = config.rotate_degrees > 0 and config.rotate_step > 0
    if stepped:
        steps.append(SteppedRotation(config.rotate_degrees, config.rotate_step))
    degrees = 0.0 if stepped else config.rotate_degrees
    zoom = 0.0 if config.scale else config.zoom
    if degrees or config.translate or zoom:
        steps.append(
            Affine(
                degrees=degrees,
                translate=(config.translate, config.translate),
                scale=(1 - zoom, 1 + zoom),
                interpolation=v2.InterpolationMode.BILINEAR,
            )
        )
    if config.scale:
        steps.append(Scale(*config.scale))
    if config.random_crop:
        steps.append(RandomCrop(config.random_crop))
    if config.elastic:
        steps.append(Elastic(config.elastic))
    if config.sizes:
        steps.append(RandomSize(config.sizes))
    if config.blur:
        steps.append(Blur(config.blur))
    if config.window or config.tone_curve or config.gamma:
        steps.append(Tone(config.window, config.tone_curve, config.gamma))
    if config.brightness or config.contrast or config.noise:
        steps.append(Intensity(config.brightness, config.contrast, config.noise))
    if config.cutout:
        steps.append(Cutout(config.cutout, config.cutout_size))
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
        "magnification": torch.ones(()).as_subclass(Magnification),
    }
    if masks is not None:
        sample["masks"] = tv_tensors.Mask(masks)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which would turn the GPU's state as well
        changed = chain(sample)
    new_image = changed["image"].as_subclass(torch.Tensor)
    new_boxes = changed["boxes"].as_subclass(torch.Tensor)
    least = MIN_VISIBLE * float(changed["magnification"])
    if masks is None:
        sides = (new_boxes[:, 2:] - new_boxes[:, :2]).clamp(min=0)
        before = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1)
        keep = torch.where((sides.min(dim=1).values >= 1) & (sides.prod(dim=1) >= least * before))[0]
        return new_image, new_boxes[keep], None, keep
    new_masks = changed["masks"].as_subclass(torch.Tensor)
    areas = new_masks.flatten(1).sum(dim=1)
    keep = torch.where((areas > 0) & (areas >= least * masks.flatten(1).sum(dim=1)))[0]
    return new_image, tight_boxes(new_masks[keep]), new_masks[keep], keep
