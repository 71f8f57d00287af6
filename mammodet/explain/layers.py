"""The layers of a model: what each gives for an image, and where on the image its cells lie."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mammodet.errors import InputError
from mammodet.explain.grid import PIXELS, Grid, Pair
from mammodet.modeling.build import Model
from mammodet.modeling.classifier import ImageClassifier
from mammodet.modeling.winograd import WinogradConv2d

_WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
_IDLE = ("Identity", "Dropout")  # in prediction they change nothing
_HOW = "mammodet explain layers lists them"


@dataclass(frozen=True, slots=True)
class Layer:
    """What a layer did in one pass over one image."""

    name: str  #: as in the checkpoint, for instance `network.blocks.0`
    kind: str  #: its class
    shape: tuple[int, ...] | None  #: of its output, or None where it gives no tensor
    parameters: int  #: numbers that it learns, with those of the layers in it
    calls: int = 0  #: how often it ran; shape, size, grid and kept output are those of its last call
    size_hw: Pair | None = None  #: rows and columns of its map; None where its output is no map of the image
    channels_last: bool = False  #: whether that map is (B, H, W, C), as of Swin, and not (B, C, H, W)
    grid: Grid = PIXELS  #: where the map's cells lie on the network's input
    order: int = -1  #: of its last call among all calls

    @property
    def is_map(self) -> bool:
        """Whether it tells one place of the image from another."""
        return self.size_hw is not None and self.size_hw != (1, 1)


class _Watch:
    """Hooks that follow grids through a pass.

    A grid is known by the size of its map: what adds or joins maps without being a layer keeps their size.
    """

    def __init__(self, keep: Collection[str]) -> None:
        self.keep = keep
        self.layers: dict[str, Layer] = {}
        self.outputs: dict[str, Tensor] = {}
        self.grids: dict[Pair, Grid] = {}
        self.input_hw: Pair | None = None
        self.calls = 0

    def see(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """A layer has run."""
        entering = inputs[0] if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim == 4 else None
        if self.input_hw is None and entering is not None and isinstance(module, _WINDOWED):
            self.input_hw = _hw(entering.shape, False)
            self.grids[self.input_hw] = PIXELS
        self.calls += 1
        earlier = self.layers.get(name)
        shape = tuple(output.shape) if isinstance(output, Tensor) else None
        size_hw, last, grid = None, False, PIXELS
        # The maps of a detector's region heads show a box each, and not the image.
        whole = ".roi_heads." not in f".{name}."
        if shape is not None and len(shape) == 4 and shape[0] == 1 and self.input_hw is not None and whole:
            last = self._channels_last(module, shape)
            if self._makes_map(module, _hw(shape, last)):
                size_hw = _hw(shape, last)
                grid = self._grid(module, entering, size_hw)
        calls = earlier.calls + 1 if earlier is not None else 1
        self.layers[name] = Layer(name, _kind(module), shape, _count(module), calls, size_hw, last, grid, self.calls)
        if name in self.keep and isinstance(output, Tensor):
            # A copy: the next layer may be a ReLU that works in place.
            self.outputs[name] = output.detach().clone()

    def _channels_last(self, module: nn.Module, shape: tuple[int, ...]) -> bool:
        if isinstance(module, _WINDOWED):
            return False
        if isinstance(module, nn.Linear):
            return True
        first, last = _hw(shape, False) in self.grids, _hw(shape, True) in self.grids
        if first or last:
            return not first
        return isinstance(module, nn.LayerNorm) and not type(module).__name__.endswith("2d")

    def _makes_map(self, module: nn.Module, size_hw: Pair) -> bool:
        """A new size comes from these only: others that have one, such as attention, tell tokens from tokens."""
        kind = type(module).__name__
        return (
            size_hw in self.grids
            or isinstance(module, nn.Linear | nn.LayerNorm)
            or any(word in kind for word in ("Conv", "Pool", "Upsample"))
        )

    def _grid(self, module: nn.Module, entering: Tensor | None, size_hw: Pair) -> Grid:
        if isinstance(module, _WINDOWED) and entering is not None:
            before = _hw(entering.shape, False)
            kernel, stride, padding = _window(module, before, size_hw)
            self.grids[size_hw] = self._known(before).after(kernel, stride, padding)
        return self._known(size_hw)

    def _known(self, size_hw: Pair) -> Grid:
        """The grid of the last map of this size; of a size that no window made, cells spread evenly."""
        assert self.input_hw is not None
        if size_hw not in self.grids:
            self.grids[size_hw] = PIXELS.spread(self.input_hw, size_hw)
        return self.grids[size_hw]


def _hw(shape: Sequence[int], channels_last: bool) -> Pair:
    return (int(shape[1]), int(shape[2])) if channels_last else (int(shape[2]), int(shape[3]))


def _window(module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d, before: Pair, after: Pair) -> tuple[Pair, Pair, Pair]:
    """Kernel (dilation included), stride, and the padding at the top and the left, of a convolution or pooling."""
    size, step = _pair(module.kernel_size), _pair(module.stride)
    wide = _pair(getattr(module, "dilation", 1))
    kernel = wide[0] * (size[0] - 1) + 1, wide[1] * (size[1] - 1) + 1
    padding = []
    for axis in (0, 1):
        given = 0 if isinstance(module.padding, str) else _pair(module.padding)[axis]
        room = before[axis] + 2 * given - kernel[axis]
        fits = after[axis] in (room // step[axis] + 1, -(-room // step[axis]) + 1)
        # `same`, or padded by the layer as it runs: half of what is missing lies at the top and the left.
        missing = max((after[axis] - 1) * step[axis] + kernel[axis] - before[axis], 0)
        padding.append(given if fits and not isinstance(module.padding, str) else missing // 2)
    return kernel, step, (padding[0], padding[1])


def _pair(value: Any) -> Pair:
    return (int(value[0]), int(value[-1])) if isinstance(value, tuple | list) else (int(value), int(value))


def _kind(module: nn.Module) -> str:
    """The name of its class, where it is torch's own convolution in all but how it is computed, of that."""
    return "Conv2d" if isinstance(module, WinogradConv2d) else type(module).__name__


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def look(model: Model, image: Tensor, keep: Collection[str] = ()) -> tuple[dict[str, Layer], dict[str, Tensor]]:
    """What every layer did with one image, in the model's order, and the outputs of some.

    Args:
        model: in eval mode.
        image: float (C, H, W) in [0, 1].
        keep: names of layers whose outputs are wanted.
    Returns:
        layers by name; outputs (1, ...) by name, without those that did not run or gave no single tensor.
    """
    watch = _Watch(keep)
    handles = [module.register_forward_hook(partial(watch.see, name)) for name, module in model.named_modules() if name]
    try:
        run_alone(model, image[None])
    finally:
        for handle in handles:
            handle.remove()
    layers = {}
    for name, module in model.named_modules():
        if name:
            layers[name] = watch.layers.get(name, Layer(name, _kind(module), None, _count(module)))
    return layers, watch.outputs


def run_alone(model: Model, images: Tensor) -> Tensor | None:
    """Logits (B, n) of images float (B, C, H, W), None of a detector without a head; each image is its own breast."""
    logits: Tensor | None
    if isinstance(model, ImageClassifier):
        logits = model(list(images), None, list(range(len(images)))).logits
    else:
        logits = model(list(images)).logits
    return logits


def find_layer(layers: dict[str, Layer], name: str) -> Layer:
    """A layer that gives a map.

    Raises InputError: unknown (with the nearest names), not run in prediction, or not giving a map.
    """
    if name not in layers:
        maps = [layer.name for layer in layers.values() if layer.is_map]
        near = difflib.get_close_matches(name, maps, n=4, cutoff=0.3) or maps[-4:]
        raise InputError(f"layer {name!r}: the model has no such layer; near: {', '.join(near)} ({_HOW})")
    layer = layers[name]
    if layer.calls == 0:
        raise InputError(f"layer {name!r}: does not run when the model predicts; choose another ({_HOW})")
    if not layer.is_map:
        shape = "no single tensor" if layer.shape is None else f"{tuple(layer.shape)}"
        raise InputError(
            f"layer {name!r}: gives {shape}; expected a map of the image, (1, channels, rows, columns) with more than "
            f"one cell: choose another ({_HOW})"
        )
    return layer


def stage_layers(model: Model, layers: dict[str, Layer]) -> tuple[str, ...]:
    """Of each size of map the last layer before the next stage, fine to coarse, of the network or the backbone.

    Raises InputError: no layer gives a map.
    """
    trunk = _trunk(model, layers)
    last: dict[Pair, Layer] = {}
    for candidates in ([layer for layer in trunk if not _opens_a_stage(layer, layers)], trunk):
        made = {layer.size_hw: layer for layer in sorted(candidates, key=lambda layer: layer.order)}
        last = {**{size: layer for size, layer in made.items() if size is not None}, **last}
    return tuple(layer.name for layer in sorted(last.values(), key=lambda layer: layer.order))


def _opens_a_stage(layer: Layer, layers: dict[str, Layer]) -> bool:
    """Whether it is inside a block that makes another size of its own: the finer map is then not yet the block's.

    A block that holds more than two sizes is the trunk of all stages.
    """
    parts = layer.name.split(".")
    for depth in range(1, len(parts)):
        block = layers[".".join(parts[:depth])]
        if block.is_map and block.size_hw != layer.size_hw:
            inside = {other.size_hw for other in layers.values() if other.name.startswith(f"{block.name}.")}
            if len(inside - {None, (1, 1)}) <= 2:
                return True
    return False


def last_map(model: Model, layers: dict[str, Layer]) -> str:
    """The layer that Grad-CAM looks at by default: what the last map has become before it is pooled.

    Raises InputError: no layer gives a map.
    """
    trunk = _trunk(model, layers)
    blocks = {layer.name.rpartition(".")[0] for layer in layers.values()}
    made = [layer for layer in trunk if layer.name not in blocks and "Pool" not in layer.kind] or trunk
    size_hw = max(made, key=lambda layer: layer.order).size_hw
    same = [layer for layer in trunk if layer.size_hw == size_hw]
    return max(same, key=lambda layer: layer.order).name


def _trunk(model: Model, layers: dict[str, Layer]) -> list[Layer]:
    """Layers with a map through which every answer for the whole image goes: not pyramids, not a detector's heads."""
    found = [layer for layer in layers.values() if layer.is_map and not layer.kind.startswith(_IDLE)]
    if not found:
        raise InputError("no layer of this network gives a map of the image, as convolutions do; nothing to draw")
    if isinstance(model, ImageClassifier):
        return found
    return [layer for layer in found if ".backbone.body." in f".{layer.name}."] or found


def layer_table(layers: dict[str, Layer], total: int) -> str:
    """One line a layer: name, class, output, distance of cells in pixels, parameters; then their `total`."""
    wide = max(len(layer.name) for layer in layers.values())
    kinds = max(len(layer.kind) for layer in layers.values())
    row = f"{{:<{wide}}}  {{:<{kinds}}}  {{:<20}} {{:>6}} {{:>12}}".format
    lines = [row("layer", "class", "output", "step", "parameters")]
    for layer in layers.values():
        shape = " x ".join(str(side) for side in layer.shape[1:]) if layer.shape else "-"
        shape = (shape if layer.calls == 1 else f"{shape} *") if layer.calls else "not run"
        step = f"{layer.grid.step_yx[0]:g}" if layer.is_map else ""
        lines.append(row(layer.name, layer.kind, shape, step, f"{layer.parameters:,}"))
    lines.append(row("all", "", "", "", f"{total:,}"))
    regions = ", in roi_heads of one box" if any(".roi_heads." in name for name in layers) else ""
    lines.append(f"output: of one image{regions}; step: distance of a map's cells in pixels of the network's input")
    if any(layer.calls > 1 for layer in layers.values()):
        lines.append("*: runs more than once; the output of its last run is shown here and in pictures")
    return "\n".join(lines)
