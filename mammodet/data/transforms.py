"""Random changes that torchvision's transforms v2 lack, for images float (C, H, W) of any number of channels.

Each draws in `make_params`, apart from applying in `transform`. A box without a mask is followed as the ellipse inside
it: the box around its turned corners would be too large (Kalra et al., Towards rotation invariance in object detection,
ICCV 2021).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.transforms import v2

KNOTS = 6  # of a warp along each side; the outer ones do not move
OUTLINE_POINTS = 64  # of the ellipse in a box, which are followed through a warp
MOST_COVERED = 0.5  # a cutout covers less than this part of any lesion
TRIES = 10  # places that are drawn for a rectangle
FILLS = (0.0, None)  # black, or the image's mean


class Magnification(tv_tensors.TVTensor):
    """How much larger an area is than at first, float (); transforms that enlarge on purpose keep it."""


def image_of(flat_inputs: Sequence[Any]) -> tv_tensors.Image:
    """The image among what a transform is given."""
    return next(value for value in flat_inputs if isinstance(value, tv_tensors.Image))


class ImageChange(v2.Transform, ABC):
    """A change of the image alone: boxes and masks stay."""

    @abstractmethod
    def change(self, image: Tensor, params: dict[str, Any]) -> Tensor:
        """The changed pixels (C, H, W)."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        return tv_tensors.Image(self.change(inpt.as_subclass(Tensor), params))


def draw(low: float, high: float) -> float:
    """A number from a range, all equally likely."""
    return low + (high - low) * float(torch.rand(()))


class SteppedRotation(v2.Transform):
    """A turn by a multiple of `step` degrees, at most `degrees` either way; every multiple is equally likely."""

    def __init__(self, degrees: float, step: float) -> None:
        super().__init__()
        most = int(degrees / step + 1e-9)
        # -180 and 180 are one turn
        self.angles = [step * number for number in range(-most, most + 1) if step * number != -180]

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"angle": self.angles[int(torch.randint(len(self.angles), ()))]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Turn about the image's centre; what was outside is 0."""
        if isinstance(inpt, Magnification):
            return inpt
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            return _turned(inpt, -params["angle"], 1.0, (0.0, 0.0))  # v2's rotate goes the other way
        return v2.functional.rotate(inpt, params["angle"], interpolation=v2.InterpolationMode.BILINEAR)


class Affine(v2.RandomAffine):
    """torchvision's turn, shift and zoom, without shear."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Image and masks as torchvision; boxes as the ellipses in them."""
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            return _turned(inpt, params["angle"], params["scale"], params["translate"])
        return super().transform(inpt, params)


def _turned(inpt: Any, degrees: float, scale: float, shift_xy: Sequence[float]) -> Any:
    """Boxes around the ellipses in boxes_xyxy, turned clockwise about the image's centre, resized and shifted."""
    boxes = inpt.as_subclass(Tensor)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = boxes.new_tensor([[cosine, -sine], [sine, cosine]]) * scale
    middle = boxes.new_tensor([inpt.canvas_size[1], inpt.canvas_size[0]]) / 2
    centres = ((boxes[:, :2] + boxes[:, 2:]) / 2 - middle) @ turn.T + middle + boxes.new_tensor(list(shift_xy))
    halves = ((boxes[:, 2:] - boxes[:, :2]) ** 2 @ (turn**2).T).sqrt() / 2
    moved = torch.cat([centres - halves, centres + halves], dim=1)
    return v2.functional.clamp_bounding_boxes(tv_tensors.wrap(moved, like=inpt))


class RandomCrop(v2.Transform):
    """Cut up to `most` of each side away, at a random place, and resize the rest to the size before."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        image = image_of(flat_inputs)
        sides = (image.shape[-2], image.shape[-1])
        cuts = [int(share * self.most * side) for share, side in zip(torch.rand(2).tolist(), sides, strict=True)]
        places = [int(share * cut + 0.5) for share, cut in zip(torch.rand(2).tolist(), cuts, strict=True)]
        return {"sides": sides, "kept": [side - cut for side, cut in zip(sides, cuts, strict=True)], "places": places}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, Magnification):
            return inpt
        (top, left), (height, width) = params["places"], params["kept"]
        return v2.functional.resized_crop(inpt, top, left, height, width, list(params["sides"]), antialias=True)


class Scale(v2.Transform):
    """Enlarge or shrink about the image's centre by a factor from `low` to `high`, equally likely by its logarithm."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = image_of(flat_inputs).shape[-2:]
        return {"factor": math.exp(draw(math.log(self.low), math.log(self.high))), "size_hw": (height, width)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Resize image, boxes and masks alike; the size of the image stays, what was outside is 0."""
        factor, (height, width) = params["factor"], params["size_hw"]
        if isinstance(inpt, Magnification):
            return tv_tensors.wrap(inpt.as_subclass(Tensor) * factor**2, like=inpt)
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            middle = torch.tensor([width, height, width, height]) / 2
            moved = (inpt.as_subclass(Tensor) - middle) * factor + middle
            return v2.functional.clamp_bounding_boxes(tv_tensors.wrap(moved, like=inpt))
        # OpenCV counts from the middle of the first pixel
        matrix = np.array([[factor, 0, (1 - factor) * (width - 1) / 2], [0, factor, (1 - factor) * (height - 1) / 2]])
        how = cv2.INTER_LINEAR if isinstance(inpt, tv_tensors.Image) else cv2.INTER_NEAREST
        return _by_plane(inpt, lambda plane: cv2.warpAffine(plane, matrix, (width, height), flags=how))


class Resize(v2.Transform, ABC):
    """Resize image, boxes and masks alike, to a size that a subclass draws."""

    @abstractmethod
    def draw_size(self, height: int, width: int) -> list[int]:
        """The new height and width."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = image_of(flat_inputs).shape[-2:]
        size = [max(side, 1) for side in self.draw_size(height, width)]
        return {"size": size, "larger": size[0] * size[1] / (height * width)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, Magnification):
            return tv_tensors.wrap(inpt.as_subclass(Tensor) * params["larger"], like=inpt)
        return v2.functional.resize(inpt, params["size"], antialias=True)


class Stretch(Resize):
    """Change the aspect (width over height) by a factor from `low` to `high`, equally likely by its logarithm.

    One side shrinks, none grows.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def draw_size(self, height: int, width: int) -> list[int]:
        factor = math.exp(draw(math.log(self.low), math.log(self.high)))
        return [round(height / max(factor, 1)), round(width * min(factor, 1))]


class RandomSize(Resize):
    """Resize so that the longer side is one of `sizes`, each equally likely."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = tuple(sizes)

    def draw_size(self, height: int, width: int) -> list[int]:
        factor = self.sizes[int(torch.randint(len(self.sizes), ()))] / max(height, width)
        return [round(height * factor), round(width * factor)]


class Elastic(v2.Transform):
    """A smooth warp: shifts of knots by up to `most` of the shorter side, cubic in between (Simard, ICDAR 2003)."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Shifts float (H, W, 2) in pixels, x and y: the new image's pixel p shows what was at p + shift(p)."""
        height, width = image_of(flat_inputs).shape[-2:]
        knots = torch.zeros((2, KNOTS, KNOTS))
        knots[..., 1:-1, 1:-1] = (2 * torch.rand((2, KNOTS - 2, KNOTS - 2)) - 1) * self.most * min(height, width)
        dense = _between_knots(height) @ knots @ _between_knots(width).T
        return {"shifts": np.ascontiguousarray(dense.permute(1, 2, 0).numpy())}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        shifts: NDArray[np.float32] = params["shifts"]
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            return tv_tensors.wrap(_warp_boxes(inpt.as_subclass(Tensor), shifts), like=inpt)
        if isinstance(inpt, Magnification):
            return inpt
        how = cv2.INTER_LINEAR if isinstance(inpt, tv_tensors.Image) else cv2.INTER_NEAREST
        height, width = shifts.shape[:2]
        map_x = shifts[..., 0] + np.arange(width, dtype=np.float32)
        map_y = shifts[..., 1] + np.arange(height, dtype=np.float32)[:, None]
        return _by_plane(inpt, lambda plane: cv2.remap(plane, map_x, map_y, how, borderMode=cv2.BORDER_REPLICATE))


def _between_knots(side: int) -> Tensor:
    """Weights float (side, KNOTS) of cubic interpolation between knots, the outer ones on the first and last pixel."""
    ones = torch.eye(KNOTS)[None, None]
    return functional.interpolate(ones, (side, KNOTS), mode="bicubic", align_corners=True)[0, 0]


def _warp_boxes(boxes: Tensor, shifts: NDArray[np.float32]) -> Tensor:
    """The boxes (n, 4) around where the ellipses in boxes_xyxy go."""
    angles = torch.arange(OUTLINE_POINTS) * (2 * math.pi / OUTLINE_POINTS)
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    xs = ((x1 + x2) / 2 + (x2 - x1) / 2 * angles.cos()).numpy().astype(np.float32)
    ys = ((y1 + y2) / 2 + (y2 - y1) / 2 * angles.sin()).numpy().astype(np.float32)
    if not xs.size:
        return boxes
    # What was at q goes to the p with p + shift(p) = q; shifts change slowly, so that p = q - shift(p) converges.
    new_x, new_y = xs, ys
    for _ in range(12):
        at = cv2.remap(shifts, new_x - 0.5, new_y - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        new_x, new_y = xs - at[..., 0], ys - at[..., 1]
    warped = np.stack([new_x.min(axis=1), new_y.min(axis=1), new_x.max(axis=1), new_y.max(axis=1)], axis=1)
    return torch.from_numpy(warped).to(boxes.dtype)


def _by_plane(inpt: Any, change: Callable[[Any], Any]) -> Any:
    """OpenCV's function on each plane of an image (C, H, W) or of masks (n, H, W)."""
    planes = [np.asarray(change(plane)) for plane in inpt.as_subclass(Tensor).contiguous().numpy()]
    return tv_tensors.wrap(torch.from_numpy(np.stack(planes)), like=inpt) if planes else inpt


class Tone(ImageChange):
    """Other windows and other machines' curves: a shifted grey range, an S-shaped curve, and a power, in this order.

    Args:
        window: largest shift of either end of the grey range.
        curve: probability of the S-shaped curve; it keeps 0 and 1.
        gamma: powers are drawn from 1 / (1 + gamma) to 1 + gamma.
    """

    def __init__(self, window: float, curve: float, gamma: float) -> None:
        super().__init__()
        self.window, self.curve, self.gamma = window, curve, gamma

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        low, high = draw(-self.window, self.window), 1 + draw(-self.window, self.window)
        curved, steepness, middle = draw(0, 1) < self.curve, draw(3, 8), draw(0.35, 0.65)
        power = math.exp(draw(-1, 1) * math.log1p(self.gamma))
        return {"low": low, "high": high, "curve": (steepness, middle) if curved else None, "power": power}

    def change(self, image: Tensor, params: dict[str, Any]) -> Tensor:
        grey = ((image - params["low"]) / (params["high"] - params["low"])).clamp(0, 1)
        if params["curve"] is not None:
            steepness, middle = params["curve"]
            ends = torch.sigmoid(steepness * (torch.tensor([0.0, 1.0]) - middle))
            grey = ((torch.sigmoid(steepness * (grey - middle)) - ends[0]) / (ends[1] - ends[0])).clamp(0, 1)
        return grey ** params["power"] if self.gamma else grey


class Blur(ImageChange):
    """A Gaussian blur of standard deviation up to `most` pixels; half of the images stay sharp."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"sigma": max(draw(-self.most, self.most), 0.0)}

    def change(self, image: Tensor, params: dict[str, Any]) -> Tensor:
        sigma = params["sigma"]
        return _by_plane(image, lambda plane: cv2.GaussianBlur(plane, (0, 0), sigma)) if sigma else image


class Intensity(ImageChange):
    """Brightness, contrast and noise for any number of channels (v2's own jitter takes one or three)."""

    def __init__(self, brightness: float, contrast: float, noise: float) -> None:
        super().__init__()
        self.brightness, self.contrast, self.noise = brightness, contrast, noise

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        shift, gain = (2 * torch.rand(2) - 1).tolist()
        grain = torch.randn(image_of(flat_inputs).shape) * self.noise if self.noise else None
        return {"shift": shift * self.brightness, "gain": 1 + gain * self.contrast, "grain": grain}

    def change(self, image: Tensor, params: dict[str, Any]) -> Tensor:
        changed = (image - 0.5) * params["gain"] + 0.5 + params["shift"] * image
        if params["grain"] is not None:
            changed = changed + params["grain"]
        return changed.clamp(0, 1)


class Cutout(ImageChange):
    """Blank rectangles, black or of the image's mean (DeVries and Taylor, arXiv:1708.04552).

    They cover less than half of any lesion together, so that what is labelled can be seen. A rectangle without a place
    (of ten that are drawn) is left out.

    Args:
        most: rectangles.
        size: largest part of each side that one takes; the smallest is a third of it.
    """

    def __init__(self, most: int, size: float) -> None:
        super().__init__()
        self.most, self.size = most, size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Rectangles as rows and columns, and what they are filled with."""
        height, width = image_of(flat_inputs).shape[-2:]
        lesions = _lesion_masks(flat_inputs, (height, width))
        covered = np.zeros((height, width), dtype=bool)
        rectangles = []
        for _ in range(int(torch.randint(self.most + 1, ()))):
            h, w = (max(round(draw(self.size / 3, self.size) * side), 1) for side in (height, width))
            for y, x in torch.rand((TRIES, 2)).tolist():
                top, left = int(y * (height - h + 1)), int(x * (width - w + 1))
                place = slice(top, top + h), slice(left, left + w)
                together = covered.copy()
                together[place] = True
                if all((mask & together).sum() < MOST_COVERED * mask.sum() for mask in lesions):
                    covered = together
                    rectangles.append(place)
                    break
        return {"rectangles": rectangles, "fill": FILLS[int(torch.randint(len(FILLS), ()))]}

    def change(self, image: Tensor, params: dict[str, Any]) -> Tensor:
        image = image.clone()
        fill = image.mean(dim=(1, 2)) if params["fill"] is None else torch.full((len(image),), params["fill"])
        for rows, columns in params["rectangles"]:
            image[:, rows, columns] = fill[:, None, None]
        return image


def _lesion_masks(flat_inputs: Sequence[Any], size_hw: tuple[int, int]) -> list[NDArray[np.bool_]]:
    """The masks bool (H, W) of what a transform is given; of boxes alone, the boxes filled in."""
    for value in flat_inputs:
        if isinstance(value, tv_tensors.Mask):
            return [mask for mask in value.as_subclass(Tensor).numpy().astype(bool) if mask.any()]
    boxes = next(value for value in flat_inputs if isinstance(value, tv_tensors.BoundingBoxes))
    masks = []
    for x1, y1, x2, y2 in boxes.as_subclass(Tensor).round().int().tolist():
        mask = np.zeros(size_hw, dtype=bool)
        mask[y1:y2, x1:x2] = True
        if mask.any():
            masks.append(mask)
    return masks
