"""What a model sees: grids of layers, answers, and heat where it is known by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mammodet.config import Config, ImageConfig, load_config
from mammodet.data.preprocess import prepare_image
from mammodet.errors import InputError
from mammodet.explain.answers import Answer, all_answers, choose_answers
from mammodet.explain.cam import METHODS, Explainer, grad_cam_pp
from mammodet.explain.draw import blend, scale_of
from mammodet.explain.grid import PIXELS, Grid, to_native
from mammodet.explain.layers import find_layer, last_map, layer_table, look, stage_layers
from mammodet.explain.pointing import place_of, summary
from mammodet.geometry import circle_mask, mask_to_rle
from mammodet.modeling.build import build_model
from mammodet.modeling.classifier import ImageClassifier
from mammodet.modeling.pixel_stats import IMAGENET
from mammodet.records import ImageRecord, Lesion
from mammodet.targets import Target
from mammodet.trace import Trace
from tests.conftest import SMALL

TUMOR = (Answer("tumor", "tumor", 1, (0,)),)
RNG = np.random.default_rng(0)


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
    ("network", "side"), [("resnet18", 160), ("efficientnet_b0", 160), ("cnn", 75), ("timm/tf_efficientnet_lite0", 160)]
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
