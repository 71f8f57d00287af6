"""Heat maps of an answer over a layer's cells, by torchcam.

`grad_cam`: Selvaraju et al., ICCV 2017; `grad_cam_pp`: Chattopadhay et al., WACV 2018; `layer_cam`: Jiang et al., IEEE
TIP 2021; `score_cam`: Wang et al., CVPR Workshops 2020. What speaks against the answer is 0 in all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchcam.methods import GradCAM, GradCAMpp, LayerCAM, ScoreCAM

from mammodet.errors import InputError
from mammodet.explain.answers import Answer, Scorer, most_probable
from mammodet.explain.grid import Grid, Heat
from mammodet.explain.layers import Layer, find_layer, last_map, look, run_alone
from mammodet.modeling.build import Model

_AT_ONCE = 32 * 224 * 224  # pixels of the masked images that Score-CAM runs together


class _GradCamPlusPlus(GradCAMpp):
    """Grad-CAM++ with its own weights: torchcam divides a copy of alpha, so that its alpha is the squared gradient."""

    def _get_weights(self, class_idx: Any, scores: Tensor, eps: float = 1e-8, **options: Any) -> list[Tensor]:
        self._backprop(scores, class_idx, **options)
        weights = []
        for gradient, map_ in zip(self.hook_g, self.hook_a, strict=True):
            assert gradient is not None
            assert map_ is not None
            squared = gradient**2
            total = map_.sum(dim=(2, 3), keepdim=True)
            below = 2 * squared + total * squared * gradient
            alpha = torch.where(below.abs() > eps * squared, squared / below, 0)
            weights.append((alpha.nan_to_num(0, 0, 0) * gradient.relu()).sum(dim=(2, 3)))
        return weights


METHODS: dict[str, Any] = {
    "grad_cam": GradCAM,
    "grad_cam_pp": _GradCamPlusPlus,
    "layer_cam": LayerCAM,
    "score_cam": ScoreCAM,
}


@dataclass(frozen=True, slots=True)
class HeatMap:
    """What of a layer's map speaks for an answer.

    Attributes:
        values: float (h, w), 0 where nothing does, 1 where most does; all 0 where nothing does anywhere.
        grid: where its cells lie on the network's input.
        layer: its name.
    """

    values: Heat
    grid: Grid
    layer: str


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
        """The answer, its probability, and a heat map for each layer.

        Args:
            image: float (C, H, W) in [0, 1]; a classifier's is padded to its square here.
        Raises:
            InputError: a layer that is unknown, gives no map, or does not lead to the answer.
        """
        with torch.no_grad():
            logits = run_alone(self.model, image[None])
        assert logits is not None, "answers are made for models with logits only"
        answer = most_probable(self.answers, logits)
        maps = [HeatMap(self._heat(image, answer, layer), layer.grid, layer.name) for layer in self._found(image)]
        return answer, answer.probability(logits), maps

    def check(self, image: Tensor) -> None:
        """Find out on any image (C, H, W) whether the layers fit, before the first picture.

        Raises:
            InputError: as `explain`.
        """
        self._found(image)

    def _found(self, image: Tensor) -> list[Layer]:
        """The layers, looked up once for every size of the input; that they lead to the answers is checked, too."""
        if image.shape not in self._layers:
            layers, _ = look(self.model, image)
            names = self.layer_names or (last_map(self.model, layers),)
            found = [find_layer(layers, name) for name in names]
            if not self._layers:
                self._check_way(image, found)
            self._layers[image.shape] = found
        return self._layers[image.shape]

    def _check_way(self, image: Tensor, layers: list[Layer]) -> None:
        outputs: dict[str, Tensor] = {}
        handles = []
        for layer in layers:

            def keep(_: nn.Module, __: Any, output: Tensor, name: str = layer.name) -> Tensor:
                outputs[name] = _with_gradient(output)
                return outputs[name].clone()

            handles.append(self.model.get_submodule(layer.name).register_forward_hook(keep))
        try:
            with torch.enable_grad():
                score = Scorer(self.model, self.answers[0])(image[None]).sum()
                ways = torch.autograd.grad(score, [outputs[layer.name] for layer in layers], allow_unused=True)
        finally:
            for handle in handles:
                handle.remove()
        for layer, way in zip(layers, ways, strict=True):
            if way is None:
                raise InputError(
                    f"layer {layer.name!r}: its last run has no part in the answer {self.answers[0].text!r}; choose a "
                    "layer that comes before the answer, as of the network or the backbone's body"
                )

    def _heat(self, image: Tensor, answer: Answer, layer: Layer) -> Heat:
        scorer = Scorer(self.model, answer).eval()
        options = {}
        if self.method == "score_cam":
            options["batch_size"] = max(1, min(32, _AT_ONCE // (image.shape[-1] * image.shape[-2])))
        module = self.model.get_submodule(layer.name)
        with _extractor(module, layer, scorer, METHODS[self.method], options) as cam, torch.enable_grad():
            scores = scorer(padded(self.model, image))
            (heat,) = cam(0, scores, normalized=False)
        values = heat[0].detach().float().clamp(min=0).cpu().numpy()
        if not np.isfinite(values).all():
            raise InputError(f"{self.method} of layer {layer.name!r}: is not finite; choose another method or layer")
        most = float(values.max(initial=0))
        return np.asarray(values / most if most > 0 else values, dtype=np.float32)


def _with_gradient(output: Tensor) -> Tensor:
    """The output, as something to derive by, also where all that led to it is frozen."""
    if output.requires_grad or not torch.is_grad_enabled():
        return output
    return output.detach().requires_grad_(True)


@contextmanager
def _extractor(module: nn.Module, layer: Layer, scorer: Scorer, method: Any, options: dict[str, Any]) -> Iterator[Any]:
    """torchcam's extractor on a layer, between two hooks: it wants the map with its channels first, and as the layer
    left it, while the next layer may work in place."""

    def first(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return _with_gradient(output.permute(0, 3, 1, 2) if layer.channels_last else output)

    def back(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return (output.permute(0, 2, 3, 1) if layer.channels_last else output).clone()

    before = module.register_forward_hook(first)
    try:
        with method(scorer, target_layer=module, **options) as cam:
            after = module.register_forward_hook(back)
            try:
                yield cam
            finally:
                after.remove()
    finally:
        before.remove()


def padded(model: Model, image: Tensor) -> Tensor:
    """The image as a batch of one, float (1, C, H, W), with a classifier's black padding: Score-CAM masks all of it."""
    pad = getattr(model, "padded", None)
    batch: Tensor = pad([image]) if pad is not None else image[None]
    return batch
