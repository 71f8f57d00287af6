"""The lesion detector, the image head on it, and the aggregation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mammodet.config.base import AtLeastOne, NonNegative, Positive, Section, Share

AggregationRule = Literal["max", "noisy_or", "top_k_mean", "head", "learned"]


class BackboneConfig(Section):
    """`resnet18|34|50|101` (torchvision's), or any timm model that gives features, as `timm/NAME`."""

    name: str = "resnet50"
    #: GN where nothing is pretrained, FrozenBN for small batches on pretrained weights.
    norm: Literal["GN", "BN", "FrozenBN"] = "GN"
    #: Stages that learn, counted from the last; 5 is all (torchvision's ResNets only).
    trainable_layers: Annotated[int, Field(ge=0, le=5)] = 5
    #: The stride of a stage's first block in its 1x1 instead of its 3x3 convolution (resnet50 and resnet101 only): for
    #: weights from detectron2's model zoo, which were trained so (docs/weights.md).
    stride_in_1x1: bool = False

    @model_validator(mode="after")
    def _known(self) -> BackboneConfig:
        known = ("resnet18", "resnet34", "resnet50", "resnet101")
        if self.name not in known and not self.name.startswith("timm/"):
            raise ValueError(f"backbone {self.name!r}: expected {', '.join(known)} or timm/NAME")
        if self.stride_in_1x1 and self.name not in ("resnet50", "resnet101"):
            raise ValueError(
                f"backbone.stride_in_1x1=true: {self.name} has no 1x1 convolution that could take the stride; it is "
                "for resnet50 and resnet101"
            )
        return self


class AnchorConfig(Section):
    """Anchor boxes of the region proposal network, in pixels of the network's input."""

    #: One side per pyramid level (5), or `auto`: fitted to the training boxes.
    sizes: Literal["auto"] | list[Positive] = Field(default=[32.0, 64.0, 128.0, 256.0, 512.0])
    #: Height over width.
    ratios: list[Positive] = Field(default=[0.5, 1.0, 2.0], min_length=1)

    @model_validator(mode="after")
    def _five(self) -> AnchorConfig:
        if self.sizes != "auto" and len(self.sizes) != 5:
            raise ValueError(f"anchors.sizes: {len(self.sizes)} sizes; expected 5 (pyramid levels P2 to P6), or 'auto'")
        return self


class DetectorConfig(Section):
    """The lesion detector."""

    #: The library that the detector comes from; with `detectron2`, `model.detectron2` describes it, and of the keys
    #: here only anchors, thresholds and `max_detections` have an effect (others are refused).
    backend: Literal["torchvision", "detectron2"] = "torchvision"
    #: `faster_rcnn` gives boxes without masks, and learns from boxes alone.
    arch: Literal["mask_rcnn", "faster_rcnn"] = "mask_rcnn"
    backbone: BackboneConfig = BackboneConfig()
    anchors: AnchorConfig = AnchorConfig()
    #: Channels of the feature pyramid and of the region proposal network.
    fpn_channels: Annotated[int, Field(ge=8, multiple_of=8)] = 256
    #: Width of the heads; layers of the mask head.
    box_head_channels: AtLeastOne = 1024
    mask_head_channels: AtLeastOne = 256
    mask_head_layers: AtLeastOne = 4
    #: Anchors per image that the region proposal network learns from.
    rpn_batch_per_image: AtLeastOne = 256
    #: Proposals kept before and after non-maximum suppression.
    rpn_pre_nms_top_n: AtLeastOne = 2000
    rpn_post_nms_top_n: AtLeastOne = 1000
    #: Proposals per image that the heads learn from, and the share of them on lesions.
    box_batch_per_image: AtLeastOne = 512
    box_positive_fraction: Annotated[float, Field(gt=0, le=1)] = 0.25
    #: Detections below this score are dropped; of two that overlap more, the weaker one is.
    score_threshold: Share = 0.05
    nms_threshold: Share = 0.5
    #: Detections kept per image.
    max_detections: AtLeastOne = 100


class ImageHeadConfig(Section):
    """The image-level head on the detector's features."""

    #: Without it, scores come from detections alone.
    enabled: bool = True
    #: What it answers; each is a key of the data set's image labels.
    targets: list[str] = Field(default=["tumor", "malignant"], min_length=1)
    #: Its width.
    channels: AtLeastOne = 256
    #: Weight of its loss beside the detector's.
    loss_weight: NonNegative = 0.5
    #: Share of its features that training drops at random.
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.25


class AggregationConfig(Section):
    """From detections and head to one score an image, a breast and a patient."""

    #: See docs/model.md.
    rule: AggregationRule = "learned"
    #: The k of `top_k_mean`.
    top_k: AtLeastOne = 3
    #: How the scores of a breast's views, and of a patient's breasts, are joined.
    over_images: Literal["max", "mean"] = "max"
