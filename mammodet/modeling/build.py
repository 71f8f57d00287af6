"""Where a config becomes modules; nothing else wires a model."""

import torch
from torch import nn

from mammodet.config import ClassifierModelConfig, Config, DetectorModelConfig, ModelConfig
from mammodet.errors import InputError
from mammodet.modeling.backbones import build_backbone, has_stride_in_1x1
from mammodet.modeling.classifier import ImageClassifier
from mammodet.modeling.detectron2_backend.detector import Detectron2Detector, build_detectron2
from mammodet.modeling.detectron2_backend.weights import start_detectron2
from mammodet.modeling.image_head import ImageHead
from mammodet.modeling.mammo_rcnn import MammoRCNN
from mammodet.modeling.networks import build_network
from mammodet.modeling.pixel_stats import IMAGENET, PixelStats
from mammodet.modeling.pretrained import timm_pixel_stats
from mammodet.modeling.roi_heads import with_later_heads
from mammodet.modeling.torchvision_detector import TorchvisionDetector, build_torchvision
from mammodet.modeling.weights import (
    between_bodies,
    coco_state,
    load_matching,
    norms_left_out,
    spelled_as,
    torchvision_state,
)
from mammodet.modeling.winograd import use_winograd
from mammodet.models import model_path
from mammodet.targets import is_binary

#: What a config can describe.
Model = MammoRCNN | ImageClassifier


def build_model(config: Config, num_categories: int, *, load_weights: bool = True) -> Model:
    """The model of a config.

    Args:
        num_categories: of the data set, without the background; a classifier has no use for it.
        load_weights: False where a checkpoint follows: nothing is then downloaded or read.
    Raises:
        InputError: settings still `auto`, weights that cannot be had.
    """
    weights = config.model.weights if load_weights else "none"
    model: Model
    if isinstance(config.model, ClassifierModelConfig):
        model = _build_classifier(config, config.model, load_pretrained=weights == "imagenet")
    else:
        model = _build_detector(config, config.model, num_categories, load_pretrained=weights == "imagenet")
        if config.model.from_detectron2:
            if load_weights:
                start_detectron2(model, config.model)
            return model
    if weights not in ("none", "imagenet"):
        _start(model, config.model)
    use_winograd(model)
    # Channels last in memory: about twice as fast on a CPU (benchmarks/training_step.py).
    return model.to(memory_format=torch.channels_last)


def pixel_stats(model: ModelConfig) -> PixelStats:
    """How the network of a config sees pixels."""
    name = model.network
    usual = timm_pixel_stats(name.removeprefix("timm/")) if name.startswith("timm/") else IMAGENET
    mean, std = model.pixels.mean, model.pixels.std
    return PixelStats(usual.mean if mean == "auto" else mean, usual.std if std == "auto" else std)


def _build_classifier(config: Config, model: ClassifierModelConfig, *, load_pretrained: bool) -> ImageClassifier:
    settings = model.classifier
    unset = [
        f"{name}.{key}"
        for name, head in settings.heads.items()
        for key in ("classes", "collapse", "class_weights")
        if getattr(head, key) in ("auto", "balanced") and not is_binary(name)
    ]
    if unset:
        raise InputError(f"model.classifier.heads: {', '.join(unset)} must be taken from a training set first")
    network = build_network(
        settings,
        in_channels=len(config.data.image.channels),
        side=config.data.image.max_size,
        load_pretrained=load_pretrained,
    )
    return ImageClassifier(
        network,
        model.targets,
        settings.heads,
        side=config.data.image.max_size,
        dropout=settings.dropout,
        views=settings.views,
        pixels=pixel_stats(model),
    )


def _build_detector(
    config: Config, model: DetectorModelConfig, num_categories: int, *, load_pretrained: bool
) -> MammoRCNN:
    detector_config, head_config = model.detector, model.image_head
    if detector_config.anchors.sizes == "auto":
        raise InputError("model.detector.anchors.sizes=auto: must be fitted to a training set before a model is built")
    in_channels = len(config.data.image.channels)
    detector: TorchvisionDetector | Detectron2Detector
    if detector_config.backend == "detectron2":
        detector = build_detectron2(model, num_categories=num_categories, in_channels=in_channels)
    else:
        backbone = build_backbone(
            detector_config.backbone,
            in_channels=in_channels,
            fpn_channels=detector_config.fpn_channels,
            finest_level=detector_config.finest_level,
            load_pretrained=load_pretrained,
        )
        detector = build_torchvision(
            detector_config, backbone, num_categories=num_categories, in_channels=in_channels, pixels=pixel_stats(model)
        )
    head = None
    if head_config.enabled:
        head = ImageHead(
            detector.feature_channels,
            detector.feature_strides,
            head_config.channels,
            len(head_config.targets),
            head_config.dropout,
        )
    return MammoRCNN(
        detector,
        head,
        head_config.targets if head_config.enabled else (),
        head_config.loss_weight,
        with_masks=detector.with_masks,
    )


def _start(model: Model, config: ModelConfig) -> None:
    """Take from a file, or from the hub, what fits; say what did not."""
    stride_in_1x1 = has_stride_in_1x1(model)
    later = 0 if isinstance(config, ClassifierModelConfig) else len(config.detector.cascade_ious)
    if config.weights == "coco":
        if stride_in_1x1:
            raise InputError(
                "model.weights=coco: torchvision's COCO weights have their stride in the 3x3 convolution; set "
                "model.detector.backbone.stride_in_1x1=false, or give other weights (docs/weights.md)"
            )
        print(f"COCO weights: {load_matching(_inner(model), with_later_heads(coco_state(), later)).to_text()}")
        return
    path = model_path(config.weights)
    state = torchvision_state(path, stride_in_1x1=stride_in_1x1, pixels=pixel_stats(config))
    state = with_later_heads(state, later)
    # Of ours, a detector's names begin with `detector.`, a classifier's with `network.`; others name torchvision's own.
    kind = next((kind for kind in ("detector", "network") if any(name.startswith(f"{kind}.") for name in state)), None)
    own = "detector" if isinstance(model, MammoRCNN) else "network"
    parts: list[tuple[nn.Module, dict[str, torch.Tensor]]] = [(model, state)]
    if kind is not None and kind != own:
        parts = [(model, between_bodies(state, model.state_dict()))]
    elif kind is None:  # of torchvision or timm: the whole network below ours, or its body alone
        below = dict.fromkeys((_inner(model), backbone_of(model)))
        parts = [(part, spelled_as(state, part.state_dict())) for part in below]
    tried = [(part, load_matching(part, given)) for part, given in parts]
    part, report = max(tried, key=lambda each: len(each[1].loaded))
    if not report.loaded:
        raise InputError(f"{path}: none of its {len(state)} tensors fits this model; {report.to_text()}")
    blind = [name for name in report.missing if name.endswith("running_mean")]
    body = blind[0].rpartition("body.")[0] if blind else ""  # what its names begin with
    if blind and config.norm == "FrozenBN" and any(name.startswith(body) for name in report.loaded):
        raise InputError(
            f"{path}: has no statistics for {len(blind)} norms of this network, for instance {blind[0]}, and frozen "
            "norms never learn them. Give a file of the same network with batch norm, or choose norm GN; "
            + report.to_text()
        )
    if lost := norms_left_out(part, backbone_of(model), report.loaded):
        raise InputError(
            f"{path}: fits convolutions of this network, but not {len(lost)} of the norms behind them, for instance "
            f"{lost[0]}; give a file of the same network, with the names of today; {report.to_text()}"
        )
    print(f"{path}: {report.to_text()}")


def backbone_of(model: nn.Module) -> nn.Module:
    """The part that pretrained weights of a backbone start: below the pyramid, or below a classifier's answers."""
    if isinstance(model, ImageClassifier):
        return model.network
    if not isinstance(model, MammoRCNN):
        return nn.Module()
    backbone = _inner(model).backbone
    body = getattr(backbone, "body", None) or getattr(backbone, "bottom_up", backbone)
    assert isinstance(body, nn.Module)
    return body


def _inner(model: Model) -> nn.Module:
    """What other libraries' weights are for."""
    if isinstance(model, ImageClassifier):
        body = getattr(model.network, "body", model.network)
        assert isinstance(body, nn.Module)
        return body
    inner = model.detector.model
    assert isinstance(inner, nn.Module)
    return inner
