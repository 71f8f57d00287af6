"""What a model sees: grids of layers, heat where it is known by hand, and every command from files to pictures."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mammodet.commands import explain as tool
from mammodet.config import Config, ImageConfig, load_config
from mammodet.data.coco import read_coco, write_coco
from mammodet.data.images import write_png
from mammodet.data.preprocess import prepare_image
from mammodet.engine.checked_run import prepare
from mammodet.engine.predict import Predictor
from mammodet.engine.train import train
from mammodet.errors import InputError
from mammodet.explain.answers import Answer, all_answers, choose_answers
from mammodet.explain.cam import METHODS, Explainer, grad_cam_pp
from mammodet.explain.curves import run_names
from mammodet.explain.draw import blend, scale_of
from mammodet.explain.grid import PIXELS, Grid, to_native
from mammodet.explain.images import choose_images
from mammodet.explain.layers import find_layer, last_map, layer_table, look, stage_layers
from mammodet.explain.pointing import place_of, summary
from mammodet.geometry import circle_mask, mask_to_rle
from mammodet.modeling.build import build_model
from mammodet.modeling.classifier import ImageClassifier
from mammodet.modeling.pixel_stats import IMAGENET
from mammodet.records import Dataset, ImageRecord, Lesion
from mammodet.reporting.report_training import curves_figure
from mammodet.targets import Target
from mammodet.trace import Trace
from tests.conftest import SMALL

CNN = (
    "model.kind=classifier",
    "model.classifier.network=cnn",
    "model.classifier.cnn.blocks=[[8], [8]]",
    "model.classifier.cnn.dense=[16]",
    "data.image.max_size=64",
    "data.batch_size=8",
    "data.num_workers=0",
    "train.epochs=1",
    "train.warmup_steps=0",
    "train.monitor=val/loss",
    "train.monitor_mode=min",
    "train.accelerator=cpu",
)
TUMOR = (Answer("tumor", "tumor", 1, (0,)),)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def checkpoint(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run ü")
    heads = "model.classifier.heads={tumor: {}, density: {}}"
    return train(prepare(load_config(None, (*CNN, heads, f"data.root={phantom_root}", f"output_dir={folder}"))))


def config_of(*overrides: str) -> Config:
    return load_config(None, ("model.kind=classifier", "model.weights=none", *overrides))


def classifier(*overrides: str) -> ImageClassifier:
    torch.manual_seed(0)
    model = build_model(config_of(*overrides), 1)
    assert isinstance(model, ImageClassifier)
    return model.eval()


class BrightNetwork(nn.Module):
    """A blur of 5x5 pixels with a step of two, and the mean of what of it is bright: its heat is the blurred image."""

    out_features = 1

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 5, stride=2, padding=2)
        self.relu = nn.ReLU(inplace=True)
        with torch.no_grad():
            self.conv.weight.fill_(1 / 25)
            self.conv.bias.fill_(-0.2)  # darker than 0.2 gives nothing

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The mean (B, 1)."""
        return self.relu(self.conv(images * IMAGENET.std + IMAGENET.mean)).mean(dim=(2, 3))


def bright_model(side: int, views: str = "none", frozen: bool = False) -> ImageClassifier:
    head = config_of().model.classifier.heads["tumor"]
    model = ImageClassifier(BrightNetwork(), [Target("tumor")], {"tumor": head}, side=side, views=views).eval()
    with torch.no_grad():
        model.answer.weight.fill_(1.0)
        model.answer.bias.zero_()
    return model.requires_grad_(not frozen)


def record_of(size_hw: tuple[int, int], *lesions: Lesion, name: str = "a.png") -> ImageRecord:
    return ImageRecord(1, name, size_hw, labels={"tumor": int(bool(lesions))}, lesions=lesions)


def lesion_at(x1: float, y1: float, x2: float, y2: float, **options: object) -> Lesion:
    return Lesion("lesion", (x1, y1, x2, y2), None, "box", **options)  # type: ignore[arg-type]


# grids


def test_grid_of_a_convolution_lies_where_its_kernel_does():
    # kernel 5, step 2, padding 2: cell j looks at pixels 2j-2 to 2j+2, whose middle is 2j + 0.5
    assert PIXELS.after((5, 5), (2, 2), (2, 2)) == Grid((0.5, 0.5), (2.0, 2.0))
    # pooling by 2 without padding: pixels 2j and 2j+1, whose middle is their common border
    assert PIXELS.after((2, 2), (2, 2), (0, 0)) == Grid((1.0, 1.0), (2.0, 2.0))
    # then a valid 3x3: three cells, the middle one at 3
    assert PIXELS.after((2, 2), (2, 2), (0, 0)).after((3, 3), (1, 1), (0, 0)) == Grid((3.0, 3.0), (2.0, 2.0))


def test_grid_of_evenly_spread_cells():
    assert PIXELS.spread((8, 12), (2, 3)) == Grid((2.0, 2.0), (4.0, 4.0))


def test_map_of_cells_in_native_pixels_is_linear_between_their_centres():
    heat = np.array([[0.0, 1.0]], dtype=np.float32)
    # centres at x = 1 and 3 of an image 4 px wide, as it is; its pixels are centred at 0.5, 1.5, 2.5, 3.5
    native = to_native(heat, Grid((1.0, 1.0), (2.0, 2.0)), Trace((2, 4)))
    assert native.tolist() == [[0.0, 0.25, 0.75, 1.0]] * 2


def test_map_of_cells_goes_back_through_crop_flip_and_resize():
    trace = Trace((4, 8)).then("crop", 2, 0, 4, 4).then("flip").then("resize", 8, 8)
    heat = np.zeros((8, 8), dtype=np.float32)
    heat[:, 0:2] = 1  # after the flip the left of the input is the right of the crop: native column 5
    native = to_native(heat, PIXELS, trace)
    assert native[:, :2].max() == 0  # cropped away
    assert native[:, 6:].max() == 0
    assert native[0, 2:6].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("network", "side"),
    [("resnet18", 160), ("efficientnet_b0", 160), ("cnn", 75), ("timm/tf_efficientnet_lite0", 160)],
)
def test_grid_is_where_the_network_looks(network, side):
    """Against what autograd says: the middle of the squared gradient of a cell by the input's pixels."""
    norm = ["model.classifier.norm=BN"] if network == "resnet18" else []
    model = classifier(f"model.classifier.network={network}", f"data.image.max_size={side}", *norm)
    layers, _ = look(model, torch.rand(1, side, side))
    layer = layers[last_map(model, layers)]
    assert layer.size_hw is not None
    cell = [size // 2 for size in layer.size_hw]
    seen: list[torch.Tensor] = []
    model.get_submodule(layer.name).register_forward_hook(lambda *parts: seen.append(parts[2]))
    total = torch.zeros(side, side)
    for _ in range(6):
        image = torch.rand(1, 1, side, side, requires_grad=True)
        model.network((image - IMAGENET.mean) / IMAGENET.std)
        values = seen[-1][0, :, cell[0], cell[1]]
        (gradient,) = torch.autograd.grad((values * torch.randn(len(values))).sum(), image)
        total += gradient[0, 0] ** 2
    middle = float((total.sum(dim=1) * (torch.arange(side) + 0.5)).sum() / total.sum())
    expected = layer.grid.start_yx[0] + cell[0] * layer.grid.step_yx[0]
    # Less than a quarter of a cell away; stretched over the image, ResNet's cell would be half a cell off.
    assert abs(middle - expected) < 0.25 * layer.grid.step_yx[0]
    if network == "resnet18":
        assert abs(middle - (cell[0] + 0.5) * side / layer.size_hw[0]) > 0.25 * layer.grid.step_yx[0]


# layers


def test_layers_have_shapes_and_parameters():
    model = classifier("model.classifier.network=cnn", "data.image.max_size=64")
    layers, outputs = look(model, torch.rand(1, 64, 64), ["network.blocks.0"])
    first = layers["network.blocks.0"]
    assert (first.kind, first.shape, first.parameters, first.calls) == ("Conv2d", (1, 32, 64, 64), 32 * 9 + 32, 1)
    assert layers["network.blocks.2"].shape == (1, 32, 32, 32)
    assert not layers["answer"].is_map
    assert outputs["network.blocks.0"].shape == (1, 32, 64, 64)
    table = layer_table(layers, 7).splitlines()
    assert table[0].split() == ["layer", "class", "output", "step", "parameters"]
    assert next(line for line in table if line.startswith("network.blocks.0 ")).split() == (
        ["network.blocks.0", "Conv2d", "32", "x", "64", "x", "64", "1", "320"]
    )
    assert [line.split() for line in table if line.startswith("all")] == [["all", "7"]]


def test_kept_output_is_not_what_a_relu_in_place_makes_of_it():
    model = bright_model(16)
    _, outputs = look(model, torch.zeros(1, 16, 16), ["network.conv", "network.relu"])
    assert float(outputs["network.conv"].max()) < 0
    assert float(outputs["network.relu"].max()) == 0


def test_stages_and_the_last_map_of_networks():
    cnn = classifier("model.classifier.network=cnn", "data.image.max_size=64")
    layers, _ = look(cnn, torch.rand(1, 64, 64))
    # blocks of convolution, ReLU and pooling: the last map before it is pooled is the third ReLU's
    assert last_map(cnn, layers) == "network.blocks.7"
    assert stage_layers(cnn, layers) == ("network.blocks.1", "network.blocks.4", "network.blocks.7", "network.blocks")
    resnet = classifier("model.classifier.network=resnet18", "data.image.max_size=64")
    layers, _ = look(resnet, torch.rand(1, 64, 64))
    assert last_map(resnet, layers) == "network.body.layer4"
    assert stage_layers(resnet, layers)[1:] == tuple(f"network.body.layer{stage}" for stage in (1, 2, 3, 4))


def test_unknown_layer_is_told_with_near_names():
    model = classifier("model.classifier.network=cnn", "data.image.max_size=64")
    layers, _ = look(model, torch.rand(1, 64, 64))
    with pytest.raises(InputError, match=r"no such layer; near: .*network\.blocks\.3"):
        find_layer(layers, "network.block.3")
    with pytest.raises(InputError, match=r"'network.dense' *: gives \(1, 128\); expected a map"):
        find_layer(layers, "network.dense")


def test_channels_last_maps_are_seen_as_maps():
    options = ("model.classifier.network=timm/swin_tiny_patch4_window7_224", "data.image.max_size=224")
    model = classifier(*options)
    layers, _ = look(model, torch.rand(1, 224, 224))
    layer = layers["network.body.layers.1"]
    assert (layer.shape, layer.size_hw, layer.channels_last) == ((1, 28, 28, 192), (28, 28), True)
    assert layer.grid == Grid((4.0, 4.0), (8.0, 8.0))
    # a window's attention is square, too, and no map of the image
    assert not layers["network.body.layers.3.blocks.1.attn.attn_drop"].is_map
    _, _, (heat,) = Explainer(model, TUMOR, ("network.body.layers.1",)).explain(torch.rand(1, 224, 224))
    assert heat.values.shape == (28, 28)


def test_network_of_tokens_is_refused():
    model = classifier("model.classifier.network=timm/vit_tiny_patch16_224", "data.image.max_size=224")
    with pytest.raises(InputError, match=r"gives \(1, 197, 192\); expected a map"):
        Explainer(model, TUMOR, ("network.body.blocks.3",)).check(torch.rand(1, 224, 224))


# questions


def test_answers_of_labels_classes_and_what_follows_from_classes():
    heads = "model.classifier.heads={density+malignant: {classes: [A benign, A malignant, B malignant], collapse: {malignant: [A malignant, B malignant]}}, tumor: {}}"  # noqa: E501
    config = config_of("model.classifier.network=cnn", "data.image.max_size=64", heads)
    model = build_model(config, 1)
    assert list(all_answers(model, config)) == ["density+malignant", "tumor", "malignant"]
    logits = torch.tensor([[0.0, 1.0, 2.0, -3.0]])
    (tumor,) = choose_answers(model, config, "tumor")
    assert float(tumor.score(logits)) == -3.0
    (absent,) = choose_answers(model, config, "tumor=0")
    assert float(absent.score(logits)) == 3.0
    assert tumor.probability(logits) + absent.probability(logits) == pytest.approx(1)
    (class_,) = choose_answers(model, config, "density+malignant=B malignant")
    assert float(class_.score(logits)) == 2.0
    total = 1 + np.e + np.e**2
    assert class_.probability(logits) == pytest.approx(np.e**2 / total)
    (malignant,) = choose_answers(model, config, "malignant")
    assert malignant.probability(logits) == pytest.approx((np.e + np.e**2) / total)
    assert float(malignant.score(logits)) == pytest.approx(np.log(np.e + np.e**2))  # against e^0
    assert [answer.value for answer in choose_answers(model, config, None)] == list(model.targets[0].classes)


def test_truth_of_an_answer():
    record = ImageRecord(1, "a.png", (8, 8), density="B", labels={"tumor": 0, "malignant": None})
    assert TUMOR[0].truth(record) == "false"
    assert Answer("tumor=0", "tumor", 0, (0,)).truth(record) == "true"
    assert Answer("malignant", "malignant", 1, (0,)).truth(record) == ""
    assert Answer("density=B", "density", "B", (1,), (0,)).truth(record) == "true"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tumour", r"did you mean 'tumor'\? It knows tumor"),
        ("tumor=2", "'2' is no answer to 'tumor'; expected one of 1, 0"),
        ("weight", "not asked 'weight'"),
    ],
)
def test_unknown_target_is_refused(text, message):
    config = config_of("model.classifier.network=cnn", "data.image.max_size=64")
    with pytest.raises(InputError, match=message):
        choose_answers(build_model(config, 1), config, text)


# heat


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("views", ["none", "max"])
def test_heat_of_a_known_network_is_at_the_blob_after_crop_flip_stretch_and_pad(method, views):
    """One convolution that answers to brightness: its maximum is in the middle of the one bright blob."""
    pixels = np.zeros((120, 200), dtype=np.uint8)
    pixels[:, 160:] = 60  # the chest wall on the right: the image is flipped
    pixels[30:51, 110:131] = 255  # centred at (120.5, 40.5)
    for aspect in ("stretch", "keep"):
        config = ImageConfig(max_size=64, crop="breast", orient="left", aspect=aspect, channels=["full"])  # type: ignore[arg-type]
        array, trace = prepare_image(pixels, config, (60.0, 10.0, 200.0, 100.0))
        assert [step.name for step in trace.steps] == ["crop", "flip", "resize"]
        assert array.shape[1:] == ((64, 64) if aspect == "stretch" else (41, 64))  # the rest is padded
        model = bright_model(64, views)
        _, _, (found,) = Explainer(model, TUMOR, (), method).explain(torch.from_numpy(array))
        assert found.layer == "network.relu"
        native = to_native(found.values, found.grid, trace)
        assert native.shape == (120, 200)
        lesion = lesion_at(110, 30, 131, 51)
        place = place_of(native, record_of((120, 200), lesion), np.ones((120, 200), dtype=bool))
        assert place.peak_xy is not None
        # A cell is 2 px of the input: 4.4 native px wide, and 2.8 (stretched) or 4.4 high.
        assert abs(place.peak_xy[0] - 120.5) < 4.4
        assert abs(place.peak_xy[1] - 40.5) < 4.4
        assert place.peak_in_lesion
        inside = native > 0.5
        rows, columns = np.nonzero(inside)
        assert rows.mean() + 0.5 == pytest.approx(40.5, abs=1.0)
        assert columns.mean() + 0.5 == pytest.approx(120.5, abs=1.0)


def test_grad_cam_is_the_weighted_map_and_its_own_absence_has_none():
    model = bright_model(16)
    image = torch.zeros(1, 16, 16)
    image[0, 6:11, 6:11] = 1.0
    answer, probability, (found,) = Explainer(model, TUMOR).explain(image)
    _, outputs = look(model, image, ["network.relu"])
    relu = outputs["network.relu"][0, 0].numpy()
    assert found.values == pytest.approx(relu / relu.max())  # one channel of positive weight
    assert answer.text == "tumor"
    assert probability == pytest.approx(1 / (1 + np.exp(-relu.mean())))
    absent = (Answer("tumor=0", "tumor", 0, (0,)),)
    assert Explainer(model, absent).explain(image)[2][0].values.max() == 0


def test_frozen_network_has_the_same_heat():
    image = torch.rand(1, 16, 16)
    expected = Explainer(bright_model(16), TUMOR).explain(image)[2][0].values
    assert np.array_equal(Explainer(bright_model(16, frozen=True), TUMOR).explain(image)[2][0].values, expected)


def test_grad_cam_looks_at_a_layer_before_a_relu_in_place():
    image = torch.zeros(1, 16, 16)
    image[0, 6:11, 6:11] = 1.0
    model = bright_model(16)
    _, _, (found,) = Explainer(model, TUMOR, ("network.conv",)).explain(image)
    _, outputs = look(model, image, ["network.conv"])
    conv = outputs["network.conv"][0, 0].numpy().clip(0)
    assert found.values == pytest.approx(conv / conv.max())


class TwoChannels(nn.Module):
    """Channels: the left and the right half of the image; features 0.5 and 2 times their means."""

    out_features = 1

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(1, 2, 1, bias=False)
        nn.init.ones_(self.map.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The sum (B, 1)."""
        found = self.map(images * IMAGENET.std + IMAGENET.mean)
        return (found.mean(dim=(2, 3)) * torch.tensor([0.5, 2.0])).sum(dim=1, keepdim=True)


def test_grad_cam_pp_divides_by_what_its_paper_says():
    model = bright_model(2)
    model.network = TwoChannels()
    image = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    with torch.no_grad():
        model.network.map.weight[1] = 0.5
    # Gradients by cells are g = (0.5, 2) / 4, alike in all cells; sums of the maps 1 and 0.5.
    # alpha = g^2 / (2 g^2 + sum g^3) = 1 / (2 + sum g), and a weight is 4 alpha g.
    weights = [4 * 0.125 / (2 + 0.125), 4 * 0.5 / (2 + 0.25)]
    heat = {}
    for name in ("grad_cam", "grad_cam_pp"):
        explainer = Explainer(model, TUMOR, ("network.map",), name)
        heat[name] = explainer.explain(image)[2][0].values
        assert heat[name].tolist() == [[1, 0], [0, 0]]
    maps = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.5, 0.0], [0.0, 0.0]]])
    gradients = torch.tensor([0.125, 0.5])[:, None, None].expand(2, 2, 2)
    assert grad_cam_pp(maps, gradients).ravel().tolist() == pytest.approx(weights)


def test_layer_behind_the_answer_is_refused():
    config = load_config(None, (*SMALL, "data.image.max_size=128", "model.weights=none"))
    model = build_model(config, 1).eval()
    answers = choose_answers(model, config, None)
    with pytest.raises(InputError, match=r"rpn\.head\.cls_logits'.* has no part in the answer 'tumor'"):
        Explainer(model, answers, ("detector.model.rpn.head.cls_logits",)).check(torch.rand(1, 128, 128))


def test_detector_is_asked_through_its_image_head():
    config = load_config(None, (*SMALL, "data.image.max_size=128", "model.weights=none"))
    model = build_model(config, 1).eval()
    answers = choose_answers(model, config, "malignant")
    answer, probability, (found,) = Explainer(model, answers).explain(torch.rand(1, 96, 128))
    assert answer.text == "malignant"
    assert 0 < probability < 1
    assert found.layer == "detector.model.backbone.body.layer4"
    assert found.values.shape == (3, 4)  # 96 x 128 in steps of 32
    without = load_config(None, (*SMALL, "model.image_head.enabled=false", "model.aggregation.rule=max"))
    with pytest.raises(InputError, match="no image head"):
        choose_answers(build_model(without, 1), without, None)


# where the heat lies


def test_share_of_heat_in_boxes_and_its_peak():
    heat = np.zeros((10, 10), dtype=np.float32)
    heat[2, 3], heat[7, 7] = 1.0, 0.5
    record = record_of((10, 10), lesion_at(2, 1, 5, 4), lesion_at(7, 7, 9, 9, ignore=True))
    breast = np.zeros((10, 10), dtype=bool)
    breast[:6] = True
    place = place_of(heat, record, breast)
    assert place.lesions == 1  # what does not count is no lesion here
    assert place.share_in_boxes == pytest.approx(1 / 1.5)
    assert place.share_by_chance == pytest.approx(9 / 60)
    assert place.peak_xy == (3.5, 2.5)
    assert place.peak_in_lesion is True


def test_peak_in_the_corner_of_a_circles_box_misses():
    mask = circle_mask((5.0, 5.0), 4.0, (10, 10))
    lesion = Lesion("lesion", (1.0, 1.0, 9.0, 9.0), mask_to_rle(mask), "circle")
    heat = np.zeros((10, 10), dtype=np.float32)
    heat[1, 1] = 1.0
    place = place_of(heat, record_of((10, 10), lesion), np.ones((10, 10), dtype=bool))
    assert place.share_in_boxes == 1.0
    assert place.peak_in_lesion is False


def test_peak_of_a_level_maximum_is_its_middle():
    heat = np.zeros((5, 9), dtype=np.float32)
    heat[1:4, 2:7] = 1.0
    assert place_of(heat, record_of((5, 9)), np.ones((5, 9), dtype=bool)).peak_xy == (4.5, 2.5)
    heat[:] = 0
    heat[0, 0] = heat[4, 8] = 1.0  # two maxima: one of them, not the empty middle between
    assert place_of(heat, record_of((5, 9)), np.ones((5, 9), dtype=bool)).peak_xy in ((0.5, 0.5), (8.5, 4.5))


def test_even_and_missing_heat_have_no_peak():
    record, breast = record_of((4, 4), lesion_at(0, 0, 2, 2)), np.ones((4, 4), dtype=bool)
    even = place_of(np.ones((4, 4), dtype=np.float32), record, breast)
    assert (even.share_in_boxes, even.share_by_chance, even.peak_xy, even.peak_in_lesion) == (0.25, 0.25, None, False)
    cold = place_of(np.zeros((4, 4), dtype=np.float32), record, breast)
    assert (cold.share_in_boxes, cold.peak_xy, cold.peak_in_lesion) == (None, None, False)
    none = place_of(np.ones((4, 4), dtype=np.float32), record_of((4, 4)), breast)
    assert (none.share_in_boxes, none.peak_in_lesion) == (None, None)
    text = summary([even, cold, none])
    assert "2 of 3 images have lesions" in text
    assert "12 %; 25 % if it were spread" in text
    assert "0 of 2" in text
    assert "no heat at all on 1" in text


# drawing


def test_heat_of_zero_leaves_the_image_as_it_is():
    grey = np.full((2, 3, 3), 77, dtype=np.uint8)
    heat = np.array([[0, 0, 1], [0, 0, 1]], dtype=np.float32)
    made = blend(grey, heat)
    assert (made[:, :2] == 77).all()
    assert (made[:, 2] != 77).any()


def test_scale_of_signed_maps_is_white_at_zero():
    maps = np.array([[[-2.0, 0.0, 1.0]]], dtype=np.float32)
    scale = scale_of(maps)
    low, high = scale.get_clim()
    assert low == -high < 0
    assert scale.to_rgba(maps[0], bytes=True)[0, 1].min() > 240
    assert scale_of(np.abs(maps)).get_clim()[0] == 0
    assert scale_of(np.zeros((1, 2, 2), dtype=np.float32)).get_clim() == (0, 1)


# commands


def table_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_layers_command_prints_the_table(checkpoint, capsys):
    assert tool.main(["layers", "--checkpoint", str(checkpoint), "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "network.blocks.0" in text
    assert "8 x 64 x 64" in text


@pytest.mark.parametrize("method", list(METHODS))
def test_grad_cam_command_writes_pictures_and_its_check(checkpoint, phantom_root, tmp_path, capsys, method):
    test = read_coco(phantom_root / "test.json")
    test = replace(test, images=tuple(sorted(test.images, key=lambda record: -len(record.lesions))))
    ids = [str(record.image_id) for record in test.images[:3]]
    images = ["--images", str(phantom_root / "test.json"), "--ids", *ids]
    assert tool.main(
        ["grad-cam", "--checkpoint", str(checkpoint), *images, "--target", "tumor", "--method", method,
         "--layer", "network.blocks.1", "network.blocks.4", "--output", str(tmp_path), "--device", "cpu"]
    ) == 0  # fmt: skip
    rows = table_of(tmp_path / "grad_cam.csv")
    assert [row["image_id"] for row in rows] == [number for number in ids for _ in range(2)]
    assert [row["layer"] for row in rows[:2]] == ["network.blocks.1", "network.blocks.4"]
    predictor = Predictor.from_checkpoint(checkpoint, "cpu")
    expected = list(predictor.predict(replace(test, images=test.images[:3]), phantom_root))
    for row, prediction in zip(rows[::2], expected, strict=True):
        assert float(row["score"]) == pytest.approx(prediction.scores["tumor"], abs=2e-6)
    for row, record in zip(rows[::2], test.images[:3], strict=True):
        assert row["truth"] == ("true" if record.labels["tumor"] else "false")
        assert int(row["lesions"]) == len(record.lesions)
        assert (row["peak_in_lesion"] == "") == (not record.lesions)
        with Image.open(tmp_path / row["picture"]) as picture:
            assert picture.width > 3 * 900  # three square panels 900 px high
    shown = sum(bool(record.lesions) for record in test.images[:3])
    assert shown
    assert f"{shown} of 3 images have lesions with a place" in capsys.readouterr().out


def test_grad_cam_of_a_class_takes_each_images_own(checkpoint, phantom_root, tmp_path):
    assert tool.main(
        ["grad-cam", "--checkpoint", str(checkpoint), "--images", str(phantom_root / "test.json"), "--first", "2",
         "--target", "density", "--output", str(tmp_path), "--device", "cpu"]
    ) == 0  # fmt: skip
    test = read_coco(phantom_root / "test.json")
    first = replace(test, images=test.images[:2])
    predictions = list(Predictor.from_checkpoint(checkpoint, "cpu").predict(first, phantom_root))
    for row, prediction in zip(table_of(tmp_path / "grad_cam.csv"), predictions, strict=True):
        scores = prediction.class_scores["density"]
        best = max(scores, key=lambda name: scores[name])
        assert row["target"] == f"density={best}"
        assert float(row["score"]) == pytest.approx(scores[best], abs=2e-6)


def test_feature_maps_command_draws_folders_and_single_images(checkpoint, phantom_root, tmp_path):
    image = next((phantom_root / "images").iterdir())
    common = ["feature-maps", "--checkpoint", str(checkpoint), "--device", "cpu"]
    assert tool.main([*common, "--images", str(image), "--output", str(tmp_path / "one")]) == 0
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(f"{image.stem}_network.blocks{part}.png" for part in (".1", ".4", ""))
    some = ["--first", "2", "--layer", "network.blocks.0", "--most", "3", "--output", str(tmp_path / "two")]
    assert tool.main([*common, "--images", str(phantom_root / "images"), *some]) == 0
    assert len(list((tmp_path / "two").glob("*_network.blocks.0.png"))) == 2


def test_unreadable_image_is_told_after_all_others_were_drawn(checkpoint, phantom_root, tmp_path):
    for number in (1, 2):
        write_png(tmp_path / f"in/{number}.png", RNG.integers(0, 255, (40, 30), dtype=np.uint8))
    content = (tmp_path / "in/1.png").read_bytes()
    (tmp_path / "in/1.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "in/3.png").write_bytes(b"")
    for command in (
        ["grad-cam", "--checkpoint", str(checkpoint), "--device", "cpu"],
        ["feature-maps", "--checkpoint", str(checkpoint), "--device", "cpu", "--layer", "network.blocks.0"],
        ["filters"],
    ):
        output = tmp_path / command[0]
        with pytest.raises(InputError, match=r"2 faults[\s\S]*1\.png[\s\S]*3\.png[\s\S]*1 images were drawn"):
            tool.main([*command, "--images", str(tmp_path / "in"), "--output", str(output)])
        assert len(list(output.glob("*.png"))) == 1


def test_images_are_chosen_by_id_and_number(phantom_root, tmp_path):
    path = phantom_root / "test.json"
    test = read_coco(path)
    last = test.images[-1].image_id

    def chosen(given: Path, **options: object) -> list[int]:
        return [record.image_id for record in choose_images([given], unpack_to=tmp_path, **options).dataset.images]

    assert chosen(path, ids=[last, test.images[0].image_id]) == [last, test.images[0].image_id]
    assert len(chosen(path, first=2)) == 2
    with pytest.raises(InputError, match=r"has no image of id 987654; it has \d+ images: "):
        chosen(path, ids=[987654])
    with pytest.raises(InputError, match="--first 0: expected 1 or more"):
        chosen(path, first=0)
    with pytest.raises(InputError, match="no readable image"):
        chosen(tmp_path)
    with pytest.raises(InputError, match=r"x\.txt: no such file or folder; expected images, DICOM files"):
        chosen(tmp_path / "x.txt")
    with pytest.raises(InputError, match="--ids: are image ids of a data set's JSON file"):
        chosen(phantom_root / "images", ids=[1])
    write_coco(Dataset(("lesion",), ()), tmp_path / "empty.json")
    with pytest.raises(InputError, match="no images"):
        chosen(tmp_path / "empty.json")


def test_filters_command_draws_four_images_a_page(phantom_root, tmp_path, capsys):
    images = ["--images", str(phantom_root / "all.json"), "--first", "5", "--output", str(tmp_path)]
    assert tool.main(["filters", *images, "--channels", "full", "laplacian", "--size", "64"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["filters_1.png", "filters_2.png"]
    with Image.open(tmp_path / "filters_1.png") as four, Image.open(tmp_path / "filters_2.png") as one:
        assert four.height > 2.5 * one.height
    with pytest.raises(InputError, match="'lapace' is no channel; did you mean 'laplacian'"):
        tool.main(["filters", *images, "--channels", "lapace"])
    with pytest.raises(InputError, match="--size 8: expected 32 to 8192"):
        tool.main(["filters", *images, "--size", "8"])


def test_augmented_command_draws_training_images_with_what_they_teach(phantom_root, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(f"data: {{root: {phantom_root}, image: {{max_size: 64}}}}\n", encoding="utf-8")
    records = read_coco(phantom_root / "train.json").images
    chosen = [next(record.image_id for record in records if record.lesions), records[-1].image_id]
    common = ["augmented", "--config-file", str(config), "--ids", *map(str, chosen), "--versions", "5"]
    pictures = []
    for name in ("one", "two"):
        mixed = ["data.augment.copy_paste=1", "data.augment.sizes=[48, 96]"]
        assert tool.main([*common, "--output", str(tmp_path / name), *mixed]) == 0
        files = sorted((tmp_path / name).iterdir())
        assert len(files) == len(set(chosen))
        assert all(path.name.endswith("_augmented.png") and str(path) in capsys.readouterr().out for path in files[:1])
        pictures.append([np.asarray(Image.open(path)) for path in files])
    assert all(np.array_equal(first, second) for first, second in zip(*pictures, strict=True))
    # Two rows of four and of two: 96 px high each, below their titles.
    assert all(picture.shape[0] > 2 * 96 and picture.shape[2] == 3 for picture in pictures[0])
    with pytest.raises(InputError, match=r"data\.augment: changes nothing"):
        tool.main([*common, "--output", str(tmp_path / "none"), "data.augment.enabled=false"])
    with pytest.raises(InputError, match="--versions 0: expected 1 or more"):
        tool.main([*common[:-1], "0", "--output", str(tmp_path / "none")])
    with pytest.raises(InputError, match="has no image of id 999"):
        tool.main([*common[:4], "999", "--output", str(tmp_path / "none")])


def test_filters_and_curves_need_no_torch():
    code = (
        "import sys, mammodet.explain.filters, mammodet.explain.curves, mammodet.commands.explain; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


RUN = """epoch,step,lr,train/loss,train/loss_tumor,val/loss,val/auc_tumor
1,4,0.1,2.0,2.0,1.5,0.5
2,8,0.05,1.0,1.0,,0.75
"""


def test_curves_of_several_runs_lie_over_each_other(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text(RUN)
    arguments = ["curves", str(tmp_path / "a"), str(tmp_path / "b" / "metrics.csv"), "--output", str(tmp_path / "out")]
    assert tool.main(arguments) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["curves.png", "curves.svg"]
    text = (tmp_path / "out/curves.svg").read_text(encoding="utf-8")
    assert all(f">{word}<" in text for word in ("a", "b", "loss", "val/auc_tumor", "learning rate"))
    rows = [{"epoch": 1.0, "lr": 0.1, "train/loss": 2.0, "val/loss": 1.5}, {"epoch": 2.0, "train/loss": 1.0}]
    figure = curves_figure({"a": rows, "b": rows})
    loss = figure.axes[0]
    assert [line.get_xydata().tolist() for line in loss.lines[:2]] == [[[1, 2], [2, 1]], [[1, 1.5]]]
    assert [line.get_linestyle() for line in loss.lines[:2]] == ["--", "-"]
    assert loss.lines[0].get_color() != loss.lines[2].get_color()
    # one question: its loss is the whole loss, and is not drawn again
    one = dict.fromkeys(("train/loss", "train/loss_tumor"), 2.0)
    assert [axes.get_title(loc="left") for axes in curves_figure({"a": [{"epoch": 1.0, **one}]}).axes] == ["loss"]


def test_curves_refuse_what_is_no_run(tmp_path):
    (tmp_path / "folds/fold0").mkdir(parents=True)
    (tmp_path / "folds/fold0/metrics.csv").write_text(RUN)
    output = ["--output", str(tmp_path / "out")]
    with pytest.raises(InputError, match=r"folds.metrics\.csv: no such file; .* it holds runs: fold0"):
        tool.main(["curves", str(tmp_path / "folds"), *output])
    (tmp_path / "empty.csv").write_text("epoch,lr\n")
    with pytest.raises(InputError, match=r"empty\.csv: holds no epoch"):
        tool.main(["curves", str(tmp_path / "empty.csv"), *output])
    with pytest.raises(InputError, match="2 names for 1 runs"):
        tool.main(["curves", str(tmp_path / "folds/fold0"), "--names", "x", "y", *output])


def test_runs_are_named_by_what_tells_them_apart(tmp_path):
    assert run_names([tmp_path / "x/fold0", tmp_path / "y/fold0/metrics.csv"]) == ["x/fold0", "y/fold0"]
    assert run_names([tmp_path / "x", tmp_path / "x"]) == ["x (1)", "x (2)"]
