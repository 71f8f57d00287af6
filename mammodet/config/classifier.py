"""The image classifier: its network, and the questions that it answers."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mammodet.config.base import BelowOne, NonNegative, Positive, Section, Width
from mammodet.targets import is_binary


class CnnConfig(Section):
    """A plain convolutional network, of `network: cnn`; the defaults are those of a small VGG (Simonyan, ICLR 2015)."""

    #: Channels of the 3x3 convolutions of each block; max-pooling halves the image after each block.
    blocks: list[Annotated[list[Width], Field(min_length=1, max_length=64)]] = Field(
        default=[[32], [64], [128]], min_length=1, max_length=8
    )
    #: Norm after each convolution.
    norm: Literal["none", "BN", "GN"] = "none"
    #: Width of the dense layers between the last block and the answers.
    dense: list[Width] = Field(default=[128], max_length=64)
    #: Share of values that training drops at random: after the blocks, and after each dense layer.
    dropout: BelowOne = 0.25
    dense_dropout: BelowOne = 0.0
    #: How weights start: `he` (He, ICCV 2015), `glorot` (Glorot, AISTATS 2010), `normal` (standard deviation 0.02).
    init: Literal["he", "glorot", "normal"] = "he"


class ClassHeadConfig(Section):
    """One question and its loss."""

    #: `auto`: binary cross-entropy for a label, cross-entropy for classes; `focal`: Lin et al., ICCV 2017.
    loss: Literal["auto", "bce", "cross_entropy", "focal"] = "auto"
    #: Weight of this loss beside those of other questions.
    weight: Positive = 1.0
    #: Of a label: how much more a positive image weighs in the loss.
    positive_weight: Positive = 1.0
    #: Of classes, their weights in the loss; `balanced` weighs each by how rare it is in training.
    class_weights: Literal["none", "balanced"] | list[Positive] = "none"
    #: Of `focal`.
    focal_gamma: NonNegative = 2.0
    #: Share of the answer that is spread over all classes (Szegedy et al., CVPR 2016).
    label_smoothing: BelowOne = 0.0
    #: The classes in the order of the answer; `auto`: those that occur in training. Of a label always 0 and 1.
    classes: Literal["auto"] | list[str] = "auto"
    #: Labels that follow from the classes, each with the classes on which it is 1: their probabilities are added to a
    #: score. `auto`: those that follow in the training set.
    collapse: Literal["auto"] | dict[str, list[str]] = "auto"

    @model_validator(mode="after")
    def _classes(self) -> Self:
        if isinstance(self.classes, list):
            if isinstance(self.class_weights, list) and len(self.class_weights) != len(self.classes):
                raise ValueError(f"class_weights: {len(self.class_weights)} for {len(self.classes)} classes")
            if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
                raise ValueError(f"classes {self.classes}: expected at least two different names")
            if isinstance(self.collapse, dict):
                unknown = sorted({name for names in self.collapse.values() for name in names} - set(self.classes))
                if unknown:
                    raise ValueError(f"collapse names classes {unknown}, which are not among {self.classes}")
        return self


class ClassifierConfig(Section):
    """An image classifier."""

    #: `cnn`, `resnet18|34|50|101`, `resnext50_32x4d`, `efficientnet_b0` ... `b7` (torchvision's), or `timm/NAME`.
    network: str = "resnet18"
    #: Norm of ResNets, ResNeXt and timm's networks: GN where nothing is pretrained, BN or FrozenBN on pretrained
    #: weights. `auto`: GN, and of timm's networks their own.
    norm: Literal["auto", "GN", "BN", "FrozenBN"] = "auto"
    #: Stages of a timm network that learn, as of `model.detector.backbone`; 5 is all.
    trainable_layers: Annotated[int, Field(ge=0, le=5)] = 5
    #: Of `network: cnn`.
    cnn: CnnConfig = CnnConfig()
    #: Share of the network's features that training drops before the answers.
    dropout: BelowOne = 0.0
    #: How the views of a breast are joined: `none` answers for each image; `attention` (Ilse et al., ICML 2018), `mean`
    #: and `max` join the features of all images of a breast, and answer once for it.
    views: Literal["none", "attention", "mean", "max"] = "none"
    #: The questions: labels (`tumor`, `malignant`, ...), `density`, `birads`, `view`, `laterality`, `class`, or some of
    #: these joined by `+`, as `density+malignant`.
    heads: dict[str, ClassHeadConfig] = Field(default={"tumor": ClassHeadConfig()}, min_length=1)

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        known = ("cnn", *TORCHVISION_NETWORKS)
        if self.network not in known and not self.network.startswith("timm/"):
            raise ValueError(f"network {self.network!r}: expected {', '.join(known)} or timm/NAME")
        timm = self.network.startswith("timm/")
        if self.norm != "auto" and self.network not in RESNETS and not timm:
            raise ValueError(f"norm={self.norm}: {self.network} has norms of its own; leave it out")
        if self.trainable_layers != 5 and not timm:
            raise ValueError(f"trainable_layers={self.trainable_layers}: is for timm's networks, not {self.network}")
        for name, head in self.heads.items():
            _check_head(name, head)
        return self

    @property
    def used_norm(self) -> str:
        """The norm that is built in; `own` where it is the network's own."""
        if self.norm == "auto":
            return "GN" if self.network in RESNETS else "own"
        return self.norm


#: Networks of torchvision whose norm can be chosen, and that can lend their weights to a detector's backbone.
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d")
TORCHVISION_NETWORKS = (*RESNETS, *(f"efficientnet_b{number}" for number in range(8)))


def _check_head(name: str, head: ClassHeadConfig) -> None:
    """Refuse settings that mean nothing for the question."""
    binary = is_binary(name)
    if binary and head.loss == "cross_entropy":
        raise ValueError(f"heads.{name}: is a label, its loss is bce or focal")
    if not binary and head.loss == "bce":
        raise ValueError(f"heads.{name}: has several classes, its loss is cross_entropy or focal")
    if not binary and head.positive_weight != 1:
        raise ValueError(f"heads.{name}: positive_weight is for labels; for classes see class_weights")
    if binary and (head.class_weights != "none" or head.classes != "auto" or head.collapse not in ("auto", {})):
        raise ValueError(f"heads.{name}: is a label; class_weights, classes and collapse are for classes")
    parts = name.split("+")
    if not all(parts) or len(set(parts)) != len(parts):
        raise ValueError(f"heads.{name}: expected names joined by '+', each once, as density+malignant")
