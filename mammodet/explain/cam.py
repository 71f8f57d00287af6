"""Heat maps of an answer over a layer's cells.

`grad_cam`: Selvaraju et al., ICCV 2017; `grad_cam_pp`: Chattopadhay et al., WACV 2018; `layer_cam`: Jiang et al., IEEE
TIP 2021; `score_cam`: Wang et al., CVPR Workshops 2020. What speaks against the answer is 0 in all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from mammodet.errors import InputError
from mammodet.explain.answers import Answer
from mammodet.explain.grid import Grid, Heat
from mammodet.explain.layers import Layer, find_layer, last_map, look, run_alone
from mammodet.modeling.build import Model

_AT_ONCE = 32 * 224 * 224  # pixels of the masked images that Score-CAM runs together


def grad_cam(maps: Tensor, gradients: Tensor) -> Tensor:
    """Weights (C, 1, 1) of maps (C, h, w) by the answer's gradients: their mean."""
    return gradients.mean(dim=(1, 2), keepdim=True)


def layer_cam(maps: Tensor, gradients: Tensor) -> Tensor:
    """Weights (C, h, w): what is positive of each cell's own gradient."""
    return gradients.relu()


def grad_cam_pp(maps: Tensor, gradients: Tensor) -> Tensor:
    """Weights (C, 1, 1): positive gradients by alpha, g^2 / (2 g^2 + (sum of the map) g^3)."""
    squared = gradients**2
    below = 2 * squared + maps.sum(dim=(1, 2), keepdim=True) * squared * gradients
    alpha = torch.where(below.abs() > 1e-8 * squared, squared / below, 0).nan_to_num(0, 0, 0)
    return (alpha * gradients.relu()).sum(dim=(1, 2), keepdim=True)


#: Method to its weights; Score-CAM's come from masked images and no gradient.
METHODS: dict[str, Callable[[Tensor, Tensor], Tensor] | None] = {
    "grad_cam": grad_cam,
    "grad_cam_pp": grad_cam_pp,
    "layer_cam": layer_cam,
    "score_cam": None,
}


@dataclass(frozen=True, slots=True)
class HeatMap:
    """What of a layer's map speaks for an answer."""

    values: Heat  #: float (h, w), 0 where nothing does, 1 where most does; all 0 where nothing does anywhere
    grid: Grid  #: where its cells lie on the network's input
    layer: str  #: its name


class Explainer:
    """A model, an answer and the layers that are looked at.

    Args:
        model: in eval mode; its parameters are left as they are.
        answers: of which each image takes its most probable one.
        layer_names: empty for the last map before it is pooled.
        method: one of `METHODS`.
    """

    def __init__(
        self, model: Model, answers: tuple[Answer, ...], layer_names: tuple[str, ...] = (), method: str = "grad_cam"
    ) -> None:
        if method not in METHODS:
            raise InputError(f"method {method!r}: expected one of {', '.join(METHODS)}")
        self.model, self.answers, self.method = model, answers, method
        self.layer_names = layer_names
        self._layers: dict[torch.Size, list[Layer]] = {}

    def explain(self, image: Tensor) -> tuple[Answer, float, list[HeatMap]]:
        """The answer, its probability, and a heat map per layer of an image float (C, H, W) in [0, 1].

        Raises InputError: a layer that is unknown, gives no map, or does not lead to the answer.
        """
        with torch.no_grad():
            logits = self._logits(image[None])
        answer = max(self.answers, key=lambda answer: answer.probability(logits))
        layers = self._found(image)
        heats = []
        for layer, (maps, gradients) in zip(layers, self._derived(image, answer, layers), strict=True):
            weigh = METHODS[self.method]
            weights = self._scored(image, answer, maps) if weigh is None else weigh(maps, gradients)
            values = (weights * maps).nansum(dim=0).float().clamp(min=0).cpu().numpy()
            if not np.isfinite(values).all():
                raise InputError(f"{self.method} of layer {layer.name!r}: is not finite; try another method or layer")
            most = float(values.max(initial=0))
            values = np.asarray(values / most if most > 0 else values, dtype=np.float32)
            heats.append(HeatMap(values, layer.grid, layer.name))
        return answer, answer.probability(logits), heats

    def check(self, image: Tensor) -> None:
        """Find out on any image (C, H, W) whether the layers fit, before the first picture.

        Raises InputError: as `explain`.
        """
        self._derived(image, self.answers[0], self._found(image))

    def _logits(self, images: Tensor) -> Tensor:
        logits = run_alone(self.model, images)
        assert logits is not None, "answers are made for models with logits only"
        return logits

    def _found(self, image: Tensor) -> list[Layer]:
        """The layers, looked up once for every size of the input."""
        if image.shape not in self._layers:
            layers, _ = look(self.model, image)
            names = self.layer_names or (last_map(self.model, layers),)
            self._layers[image.shape] = [find_layer(layers, name) for name in names]
        return self._layers[image.shape]

    def _derived(self, image: Tensor, answer: Answer, layers: list[Layer]) -> list[tuple[Tensor, Tensor]]:
        """Of each layer its map and the gradient of the answer's score by it, (C, h, w) both."""
        outputs: dict[str, Tensor] = {}
        handles = []
        for layer in layers:

            def keep(_: nn.Module, __: Any, output: Tensor, name: str = layer.name) -> Tensor:
                # Something to derive by, also where all that led to it is frozen.
                outputs[name] = output if output.requires_grad else output.detach().requires_grad_(True)
                return outputs[name].clone()  # the next layer may work in place

            handles.append(self.model.get_submodule(layer.name).register_forward_hook(keep))
        try:
            with torch.enable_grad():
                score = answer.score(self._logits(image[None])).sum()
                ways = torch.autograd.grad(score, [outputs[layer.name] for layer in layers], allow_unused=True)
        finally:
            for handle in handles:
                handle.remove()
        found = []
        for layer, way in zip(layers, ways, strict=True):
            if way is None:
                raise InputError(
                    f"layer {layer.name!r}: its last run has no part in the answer {answer.text!r}; choose a layer "
                    "that comes before the answer, as of the network or the backbone's body"
                )
            both = outputs[layer.name].detach(), way
            maps, gradients = (each.permute(0, 3, 1, 2) if layer.channels_last else each for each in both)
            found.append((maps[0], gradients[0]))
        return found

    @torch.no_grad()
    def _scored(self, image: Tensor, answer: Answer, maps: Tensor) -> Tensor:
        """Score-CAM's weights (C, 1, 1): how the answer scores where the image is seen through each channel alone."""
        low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
        masks = ((maps - low) / (high - low).clamp(min=1e-8))[:, None]
        whole = padded(self.model, image)
        size_hw = whole.shape[-2:]
        scores = [
            answer.score(self._logits(whole * interpolate(part, size_hw, mode="bilinear", align_corners=False)))
            for part in masks.split(max(1, min(32, _AT_ONCE // (size_hw[0] * size_hw[1]))))
        ]
        return torch.cat(scores).softmax(dim=0)[:, None, None]


def padded(model: Model, image: Tensor) -> Tensor:
    """The image as a batch of one, float (1, C, H, W), with a classifier's black padding: Score-CAM masks all of it."""
    pad = getattr(model, "padded", None)
    batch: Tensor = pad([image]) if pad is not None else image[None]
    return batch
