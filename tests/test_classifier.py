"""Networks, answers and losses of the image classifier."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from mammodet.config import ClassHeadConfig, ClassifierConfig, CnnConfig, Config, make_config
from mammodet.engine.answers import probabilities
from mammodet.errors import InputError
from mammodet.modeling.build import build_model
from mammodet.modeling.classifier import ImageClassifier, answer_loss
from mammodet.modeling.networks import GatedAttention, PlainCnn, build_network, membership
from mammodet.modeling.pixel_stats import IMAGENET
from mammodet.modeling.weights import between_bodies, load_matching
from mammodet.targets import Target

NAN = math.nan


class Means(nn.Module):
    """The mean of each channel, as the simplest network."""

    out_features = 2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


def classifier(
    targets: list[Target], *, side: int = 4, views: str = "none", **heads: ClassHeadConfig
) -> ImageClassifier:
    configs = {target.name: heads.get(target.name, ClassHeadConfig()) for target in targets}
    torch.manual_seed(0)
    return ImageClassifier(Means(), targets, configs, side=side, views=views).eval()


def image(*values: float, size: tuple[int, int] = (4, 4)) -> torch.Tensor:
    return torch.stack([torch.full(size, value) for value in values])


def values(**heads: object) -> Config:
    return make_config(
        {"model": {"kind": "classifier", "classifier": heads}, "data": {"image": {"max_size": 64}}}, where=""
    )


# networks


def test_plain_cnn_has_the_layers_of_its_config():
    network = PlainCnn(CnnConfig(blocks=[[8, 16], [4]], dense=[10], norm="BN"), in_channels=2, side=9)
    # 9 -> 4 -> 2 by max-pooling: 4 channels of 2 x 2
    assert [layer.in_features for layer in network.dense if isinstance(layer, nn.Linear)] == [16]
    assert network(torch.zeros(3, 2, 9, 9)).shape == (3, 10)
    convolutions = [layer for layer in network.blocks if isinstance(layer, nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in convolutions] == [(2, 8), (8, 16), (16, 4)]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.blocks) == 3


@pytest.mark.parametrize(
    ("init", "low", "high"),
    [
        ("normal", 0.018, 0.022),
        ("glorot", 0.038, 0.045),  # sqrt(2 / (9 * 64 + 9 * 64)) = 0.0417
        ("he", 0.055, 0.063),  # sqrt(2 / (9 * 64)) = 0.0589
    ],
)
def test_plain_cnn_starts_as_it_is_told(init, low, high):
    torch.manual_seed(0)
    network = PlainCnn(CnnConfig(blocks=[[64, 64]], init=init, dense=[]), in_channels=1, side=4)
    layer = network.blocks[2]
    assert low < float(layer.weight.detach().std()) < high
    assert not layer.bias.any()


@pytest.mark.parametrize(
    "name", ["resnet18", "resnext50_32x4d", "efficientnet_b0", "timm/resnet10t", "timm/vit_tiny_patch16_224"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_give_features_of_the_size_that_they_say(name, channels):
    network = build_network(ClassifierConfig(network=name), in_channels=channels, side=64, load_pretrained=False)
    assert network.eval()(torch.zeros(2, channels, 64, 64)).shape == (2, network.out_features)


def test_unknown_networks_are_refused_with_the_nearest():
    with pytest.raises(InputError, match="timm knows no such model; near: resnet18"):
        build_network(ClassifierConfig(network="timm/resnet18x"), in_channels=1, side=64, load_pretrained=False)


def test_settings_left_to_the_training_set_are_refused_by_build():
    with pytest.raises(InputError, match=r"density.classes, density.collapse must be taken from a training set"):
        build_model(values(heads={"density": {}}), 1)


# answers


def test_images_are_padded_with_black_at_the_right_and_the_bottom():
    model = classifier([Target("tumor")])
    batch = model.padded([image(0.5, 1.0, size=(2, 4)), image(0.25, 0.0)])
    assert batch.shape == (2, 2, 4, 4)
    assert batch[0, 0].tolist() == [[0.5] * 4] * 2 + [[0.0] * 4] * 2
    assert (batch[1, 0] == 0.25).all()


def test_probabilities_are_sigmoid_for_labels_and_softmax_for_classes():
    logits = np.array([[0.0, math.log(2), math.log(1), math.log(5)]])
    tumor, density = probabilities(logits, [Target("tumor"), Target("density", ("A", "B", "C"))])
    assert tumor.tolist() == [0.5]
    assert density[0].tolist() == pytest.approx([2 / 8, 1 / 8, 5 / 8])


def test_logits_are_linear_in_the_normalised_features():
    model = classifier([Target("tumor")])
    output = model([image(0.45, 0.676)])
    expected = model.answer((torch.tensor([[0.45, 0.676]]) - IMAGENET.mean) / IMAGENET.std)
    assert torch.allclose(output.logits, expected, atol=1e-6)
    assert output.losses == {}


# losses


def test_losses_equal_torch_and_leave_unknown_answers_out():
    density = Target("density", ("A", "B"))
    model = classifier([Target("tumor"), density], density=ClassHeadConfig(weight=0.5))
    images = [image(0.1, 0.9), image(0.5, 0.2), image(0.3, 0.3)]
    labels = torch.tensor([[1.0, 0.0], [NAN, 1.0], [0.0, NAN]])
    output = model(images, labels)
    logits = output.logits
    tumor = functional.binary_cross_entropy_with_logits(logits[[0, 2], 0], torch.tensor([1.0, 0.0]))
    classes = functional.cross_entropy(logits[[0, 1], 1:], torch.tensor([0, 1]))
    assert output.losses["loss_tumor"].item() == pytest.approx(tumor.item(), rel=1e-6)
    assert output.losses["loss_density"].item() == pytest.approx(0.5 * classes.item(), rel=1e-6)


def test_a_batch_without_any_answer_costs_nothing_but_keeps_the_graph():
    model = classifier([Target("tumor")])
    loss = model([image(0.1, 0.9)], torch.tensor([[NAN]])).losses["loss_tumor"]
    assert loss.item() == 0
    assert loss.requires_grad


def test_positive_weight_weighs_positives_alone():
    logits, truth = torch.tensor([[0.3], [-1.2]]), torch.tensor([1.0, 0.0])
    plain = answer_loss(logits, truth, ClassHeadConfig(), binary=True)
    weighted = answer_loss(logits, truth, ClassHeadConfig(positive_weight=7), binary=True)
    assert torch.allclose(weighted, plain * torch.tensor([7.0, 1.0]))
    both = functional.binary_cross_entropy_with_logits(
        logits[:, 0], truth, pos_weight=torch.tensor(7.0), reduction="none"
    )
    assert torch.allclose(weighted, both)


def test_focal_loss_of_a_label_by_hand():
    # p = 0.8 of the right answer: (1 - 0.8)^2 * -log 0.8, and of a wrong one at p(1) = 0.8: 0.8^2 * -log 0.2
    logits = torch.full((2, 1), math.log(4.0))
    each = answer_loss(logits, torch.tensor([1.0, 0.0]), ClassHeadConfig(loss="focal"), binary=True)
    assert each.tolist() == pytest.approx([0.04 * -math.log(0.8), 0.64 * -math.log(0.2)], rel=1e-5)


def test_focal_loss_of_classes_by_hand():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
    each = answer_loss(logits, torch.tensor([1.0]), ClassHeadConfig(loss="focal", focal_gamma=1), binary=False)
    assert each.tolist() == pytest.approx([0.8 * -math.log(0.2)], rel=1e-5)


def test_label_smoothing_and_class_weights_by_hand():
    logits = torch.log(torch.tensor([[0.7, 0.3]]))
    smooth = answer_loss(logits, torch.tensor([0.0]), ClassHeadConfig(label_smoothing=0.2), binary=False)
    assert smooth.item() == pytest.approx(-0.9 * math.log(0.7) - 0.1 * math.log(0.3), rel=1e-5)
    weighted = ClassHeadConfig(classes=["A", "B"], class_weights=[0.5, 2.0])
    assert answer_loss(logits, torch.tensor([1.0]), weighted, binary=False).item() == pytest.approx(
        2 * -math.log(0.3), rel=1e-5
    )
    label = answer_loss(torch.zeros(1, 1), torch.tensor([1.0]), ClassHeadConfig(label_smoothing=0.2), binary=True)
    assert label.item() == pytest.approx(math.log(2), rel=1e-6)


# views


@pytest.mark.parametrize(("views", "expected"), [("mean", [[0.2, 0.5], [0.9, 0.1]]), ("max", [[0.3, 0.8], [0.9, 0.1]])])
def test_views_are_joined_to_breasts(views, expected):
    model = classifier([Target("tumor")], views=views)
    images = [image(0.1, 0.2), image(0.9, 0.1), image(0.3, 0.8)]
    logits = model(images, breasts=[0, 1, 0]).logits
    direct = model.answer((torch.tensor(expected) - IMAGENET.mean) / IMAGENET.std)
    assert torch.allclose(logits, direct[[0, 1, 0]], atol=1e-5)


def test_attention_weights_are_a_share_of_each_breast():
    torch.manual_seed(0)
    attention = GatedAttention(2, hidden=4)
    weights = attention(torch.randn(3, 2), membership([0, 1, 0], torch.device("cpu")))
    assert weights.shape == (2, 3)
    assert weights.sum(dim=1).tolist() == pytest.approx([1, 1])
    assert weights[0, 1] == 0
    assert weights[1].tolist() == [0, 1, 0]


def test_every_breast_counts_once_in_the_loss_however_many_views_it_has():
    model = classifier([Target("tumor")], views="mean")
    images = [image(0.1, 0.2), image(0.9, 0.1), image(0.3, 0.8)]
    labels = torch.tensor([[0.0], [0.0], [1.0]])  # the first breast has a view with and one without
    output = model(images, labels, breasts=[0, 1, 0])
    of_breasts = output.logits[[0, 1], 0]
    expected = functional.binary_cross_entropy_with_logits(of_breasts, torch.tensor([1.0, 0.0]))
    assert output.losses["loss_tumor"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_breast_label_is_unknown_where_no_view_is_positive_and_one_is_unknown():
    model = classifier([Target("tumor"), Target("density", ("A", "B"))], views="max")
    members = membership([0, 0, 1, 1, 2, 2], torch.device("cpu"))
    labels = torch.tensor([[0.0, 0], [NAN, 0], [1, 0], [NAN, 1], [0, 1], [0, NAN]])
    joined = model._breast_labels(labels, members)
    assert joined[:, 0].isnan().tolist() == [True, False, False]
    assert joined[1:, 0].tolist() == [1, 0]
    assert joined[0, 1] == 0
    assert joined[1:, 1].isnan().all()


def test_views_without_breasts_are_refused():
    with pytest.raises(ValueError, match="the breast of each image is needed"):
        classifier([Target("tumor")], views="max")([image(0.1, 0.2)])


# weights between a classifier and a detector

DETECTOR = {
    "detector": {
        "backbone": {"name": "resnet18"},
        "fpn_channels": 16,
        "box_head_channels": 16,
        "mask_head_channels": 16,
    },
    "image_head": {"channels": 16},
}


def test_a_classifier_starts_the_backbone_of_a_detector_and_the_other_way_round():
    small = build_model(values(network="resnet18"), 1)
    detector = build_model(make_config({"model": DETECTOR}, where=""), 1)
    report = load_matching(detector, between_bodies(small.state_dict(), detector.state_dict()))
    mine = {name for name in detector.state_dict() if name.startswith("detector.model.backbone.body.")}
    assert set(report.loaded) == mine
    assert set(report.unexpected) == {"answer.weight", "answer.bias"}
    first = "layer1.0.conv1.weight"
    taken = detector.state_dict()[f"detector.model.backbone.body.{first}"]
    assert torch.equal(taken, small.state_dict()[f"network.body.{first}"])
    back = load_matching(
        build_model(values(network="resnet18"), 1), between_bodies(detector.state_dict(), small.state_dict())
    )
    assert len(back.loaded) == len(mine)


def test_a_timm_classifier_starts_a_detector_whose_body_spells_its_names_otherwise():
    small = build_model(values(network="timm/convnext_atto"), 1)
    config = {**DETECTOR, "detector": {**DETECTOR["detector"], "backbone": {"name": "timm/convnext_atto"}}}
    detector = build_model(make_config({"model": config}, where=""), 1)
    report = load_matching(detector, between_bodies(small.state_dict(), detector.state_dict()))
    mine = {name for name in detector.state_dict() if name.startswith("detector.model.backbone.body.")}
    assert mine == set(report.loaded)


def test_a_saved_classifier_starts_a_detector_through_its_config(tmp_path):
    small = build_model(values(network="resnet18"), 1)
    torch.save(
        {"state_dict": {f"model.{name}": value for name, value in small.state_dict().items()}}, tmp_path / "c.ckpt"
    )
    detector = build_model(make_config({"model": {**DETECTOR, "weights": str(tmp_path / "c.ckpt")}}, where=""), 1)
    name = "layer4.1.conv2.weight"
    assert torch.equal(
        detector.state_dict()[f"detector.model.backbone.body.{name}"], small.state_dict()[f"network.body.{name}"]
    )


def test_plain_torchvision_weights_start_a_classifier(tmp_path, capsys):
    import torchvision

    body = torchvision.models.resnet18(weights=None)
    torch.save(body.state_dict(), tmp_path / "r18.pth")
    settings = {
        "kind": "classifier",
        "classifier": {"network": "resnet18", "norm": "BN"},
        "weights": str(tmp_path / "r18.pth"),
    }
    model = build_model(make_config({"model": settings}, where=""), 1)
    # one input channel: the kernels of the three colours are summed
    assert torch.allclose(model.network.body.conv1.weight, body.conv1.weight.sum(dim=1, keepdim=True))
    assert torch.equal(model.network.body.layer2[0].conv1.weight, body.layer2[0].conv1.weight)
    assert "unexpected: fc.weight, fc.bias" in capsys.readouterr().out
