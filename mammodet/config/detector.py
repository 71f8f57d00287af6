"""The lesion detector, the image head on it, and the aggregation."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mammodet.config.base import AtLeastOne, NonNegative, Positive, Section, Share, Width

AggregationRule = Literal["max", "noisy_or", "top_k_mean", "head", "learned"]


class BackboneConfig(Section):
    """`resnet18|34|50|101` (torchvision's), or any timm model that gives features, as `timm/NAME`."""

    #: The network.
    name: str = "resnet50"
    #: GN where nothing is pretrained, FrozenBN for small batches on pretrained weights.
    norm: Literal["GN", "BN", "FrozenBN"] = "GN"
    #: Stages that learn, counted from the last; 5 is all, 4 leaves out what comes before the features at stride 4, 3
    #: those features as well, and so on.
    trainable_layers: Annotated[int, Field(ge=0, le=5)] = 5
    #: The stride of a stage's first block in its 1x1 instead of its 3x3 convolution (resnet50 and resnet101 only): for
    #: weights that were trained so, as most of detectron2's model zoo (docs/weights.md).
    stride_in_1x1: bool = False

    @model_validator(mode="after")
    def _known(self) -> Self:
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

    #: For each pyramid level, fine to coarse, one side or a list of sides (an empty list: no anchors there), or `auto`:
    #: fitted to the training boxes and to the levels' strides.
    sizes: Literal["auto"] | list[Positive | list[Positive]] = Field(default=[32.0, 64.0, 128.0, 256.0, 512.0])
    #: Height over width.
    ratios: list[Positive] = Field(default=[0.5, 1.0, 2.0], min_length=1)

    @model_validator(mode="after")
    def _any(self) -> Self:
        if self.sizes != "auto" and not any(self.per_level):
            raise ValueError("anchors.sizes: no level has an anchor; give at least one side, or 'auto'")
        return self

    @property
    def per_level(self) -> tuple[tuple[float, ...], ...]:
        """The sides of each level; they must not be `auto` any more."""
        if self.sizes == "auto":
            raise ValueError("anchors.sizes=auto: must be fitted to a training set first")
        return tuple(tuple(sides) if isinstance(sides, list) else (sides,) for sides in self.sizes)


class DetectorConfig(Section):
    """The lesion detector."""

    #: The library that the detector comes from; with `detectron2`, `model.detectron2` describes it, and of the keys
    #: here only anchors, thresholds and `max_detections` have an effect (others are refused).
    backend: Literal["torchvision", "detectron2"] = "torchvision"
    #: `faster_rcnn` gives boxes without masks, and learns from boxes alone.
    arch: Literal["mask_rcnn", "faster_rcnn"] = "mask_rcnn"
    backbone: BackboneConfig = BackboneConfig()
    anchors: AnchorConfig = AnchorConfig()
    #: The finest level of the feature pyramid, 2 (stride 4) or 3 (stride 8); the coarsest is always P6 (stride 64).
    #: With P2 a training step takes 1.4 times as long (benchmarks/training_step.py); without it, anchors below 28
    #: pixels of the network's input are less than 3.5 strides wide.
    finest_level: Literal[2, 3] = 2
    #: Channels of the feature pyramid and of the region proposal network.
    fpn_channels: Annotated[int, Field(ge=8, le=2**14, multiple_of=8)] = 256
    #: Width of the heads; layers of the mask head.
    box_head_channels: Width = 1024
    mask_head_channels: Width = 256
    mask_head_layers: Annotated[int, Field(ge=1, le=64)] = 4
    #: Anchors per image that the region proposal network learns from.
    rpn_batch_per_image: AtLeastOne = 256
    #: Proposals kept before and after non-maximum suppression.
    rpn_pre_nms_top_n: AtLeastOne = 2000
    rpn_post_nms_top_n: AtLeastOne = 1000
    #: The most of these that the heads look at in prediction, which takes less time; null for all of them.
    rpn_top_n_predict: AtLeastOne | None = None
    #: Proposals per image that the heads learn from, and the share of them on lesions.
    box_batch_per_image: AtLeastOne = 512
    box_positive_fraction: Annotated[float, Field(gt=0, le=1)] = 0.25
    #: Side of the boxes, in pixels of the network's input, from which on the heads look at P4; half of it and P3, twice
    #: and P5 (Lin et al., CVPR 2017, with 224).
    roi_level_size: Positive = 224.0
    #: What the box head learns: offsets (`smooth_l1`), or the overlap itself (`giou`, Rezatofighi et al., CVPR 2019).
    box_loss: Literal["smooth_l1", "giou"] = "smooth_l1"
    #: Box heads after the first, each on the boxes of the one before (Cai and Vasconcelos, CVPR 2018): the IoU with a
    #: lesion from which on its boxes count as on it, as in [0.6, 0.7]. The first one's is 0.5.
    cascade_ious: list[Annotated[float, Field(ge=0.5, lt=1)]] = Field(default=[], max_length=4)
    #: Detections below this score are dropped; of two that overlap more, the weaker one is.
    score_threshold: Share = 0.05
    nms_threshold: Share = 0.5
    #: Of two detections of which the smaller lies in the larger by more than this share of its area, the weaker one is
    #: dropped; 1 drops none.
    containment_threshold: Share = 1.0
    #: Of detections that overlap and are both kept, the weaker one's score is multiplied by exp(-IoU^2 / sigma) (soft
    #: non-maximum suppression); null leaves scores as they are.
    soft_nms_sigma: Positive | None = None
    #: Detections kept per image.
    max_detections: AtLeastOne = 100

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the pyramid's levels, fine to coarse."""
        return tuple(2**level for level in range(self.finest_level, 7))

    @model_validator(mode="after")
    def _levels(self) -> Self:
        sizes, levels = self.anchors.sizes, len(self.strides)
        if self.backend == "torchvision" and sizes != "auto" and len(sizes) != levels:
            raise ValueError(
                f"anchors.sizes: {len(sizes)} entries; expected {levels}, one for each pyramid level "
                f"P{self.finest_level} to P6, or 'auto'"
            )
        return self


class ImageHeadConfig(Section):
    """The image-level head on the detector's features."""

    #: Without it, scores come from detections alone.
    enabled: bool = True
    #: What it answers; each is a key of the data set's image labels.
    targets: list[str] = Field(default=["tumor", "malignant"], min_length=1)
    #: Its width.
    channels: Width = 256
    #: Weight of its loss beside the detector's.
    loss_weight: NonNegative = 0.5
    #: Share of its features that training drops at random.
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.25


class TestTimeConfig(Section):
    """How a detector looks at an image in prediction: in which versions, whose answers are fused (docs/model.md)."""

    #: Also flipped left-right.
    flip: bool = False
    #: Sizes relative to `data.image.max_size`, each of which is looked at.
    scales: list[Annotated[float, Field(ge=0.25, le=4)]] = Field(default=[1.0], min_length=1)
    #: Also tiles of its native pixels, of the size of the network's input, where these are finer: for small lesions.
    tiles: bool = False
    #: Box IoU from which on detections of different versions, or of several checkpoints, are taken for one.
    fuse_iou: Share = 0.5
    #: Compute in bfloat16: faster on GPUs and processors that have units for it, slower on others; scores change in the
    #: second or third digit.
    bf16: bool = False


class OverImagesConfig(Section):
    """From the scores of images to one of a breast and a patient."""

    #: How the scores of a breast's views, and of a patient's breasts, are joined.
    over_images: Literal["max", "mean"] = "max"


class AggregationConfig(OverImagesConfig):
    """From detections and head to one score an image, a breast and a patient."""

    #: See docs/model.md.
    rule: AggregationRule = "learned"
    #: The k of `top_k_mean`.
    top_k: AtLeastOne = 3
