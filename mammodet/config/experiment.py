"""A whole experiment: data, model, training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from mammodet.config.base import Positive, Section
from mammodet.config.classifier import ClassifierConfig
from mammodet.config.data import DataConfig
from mammodet.config.detector import AggregationConfig, DetectorConfig, ImageHeadConfig, TestTimeConfig
from mammodet.config.detectron2 import Detectron2Config, detectron2_faults
from mammodet.config.train import TrainConfig
from mammodet.targets import Target, is_binary


class PixelsConfig(Section):
    """How a network of torchvision's or timm's sees pixels in [0, 1]: `(pixel - mean) / std` in every channel."""

    #: `auto`: what the pretrained weights of the network's name expect, averaged over colours (ImageNet's 0.449 and
    #: 0.226; EfficientNet-Lite's 0.5 and 0.5).
    mean: Literal["auto"] | float = "auto"
    std: Literal["auto"] | Positive = "auto"


class ModelConfig(Section):
    """What is learnt: lesions and labels, or labels and classes alone; and where the weights start."""

    #: `detector` finds lesions and answers for the image; `classifier` answers for the image only.
    kind: Literal["detector", "classifier"] = "detector"
    detector: DetectorConfig = DetectorConfig()
    detectron2: Detectron2Config = Detectron2Config()
    image_head: ImageHeadConfig = ImageHeadConfig()
    aggregation: AggregationConfig = AggregationConfig()
    test_time: TestTimeConfig = TestTimeConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    pixels: PixelsConfig = PixelsConfig()
    #: `none`, `imagenet` (backbone), `coco` (whole detector), or the path of a checkpoint. With detectron2 also a name
    #: of its model zoo, or a `detectron2://` address; `imagenet` is then what its config names, `coco` the zoo's own.
    weights: str = "none"

    @property
    def targets(self) -> tuple[str, ...]:
        """The questions that the model answers for an image."""
        if self.kind == "classifier":
            return tuple(self.classifier.heads)
        return tuple(self.image_head.targets) if self.image_head.enabled else ()

    @property
    def with_masks(self) -> bool:
        """Whether the model outlines what it finds; known of detectron2's networks once a run has started."""
        if self.kind == "classifier":
            return False
        return bool(self.detectron2.masks) if self.from_detectron2 else self.detector.arch == "mask_rcnn"

    @property
    def from_detectron2(self) -> bool:
        """Whether the detector is detectron2's."""
        return self.kind == "detector" and self.detector.backend == "detectron2"

    @property
    def norm(self) -> str:
        """Of the network that weights are loaded into; `own` where it is the network's own."""
        if self.from_detectron2:
            return "own"
        if self.kind == "detector":
            return self.detector.backbone.norm
        return self.classifier.used_norm

    @model_validator(mode="after")
    def _combinations(self) -> ModelConfig:
        if faults := detectron2_faults(self.detector, self.detectron2):
            raise ValueError("; ".join(faults))
        if self.kind == "classifier" and self.weights == "coco":
            raise ValueError("weights 'coco' are a detector's; choose imagenet, none or a path")
        if self.weights == "coco" and self.norm == "GN":
            raise ValueError(
                "weights 'coco' were trained with batch norm and would be lost under detector.backbone.norm=GN; choose "
                "FrozenBN (or BN)"
            )
        if self.weights == "none" and self.norm == "FrozenBN":
            place = "backbone.norm" if self.kind == "detector" else "classifier.norm"
            raise ValueError(f"{place}=FrozenBN without weights never learns its statistics; choose GN")
        if self.kind == "classifier":
            if self.test_time != TestTimeConfig():
                raise ValueError("model.test_time is for detectors; leave it out")
            if self.weights == "imagenet" and self.classifier.network == "cnn":
                raise ValueError("weights 'imagenet' do not exist for network=cnn; choose none or a path")
            return self
        rule = self.aggregation.rule
        if not self.image_head.enabled and rule in ("head", "learned"):
            raise ValueError(
                f"aggregation.rule '{rule}' needs image_head.enabled=true; without it: max, noisy_or, top_k_mean"
            )
        if self.weights == "coco" and not self.from_detectron2 and self.detector.backbone.name != "resnet50":
            raise ValueError(
                f"weights 'coco' exist for resnet50 only; with {self.detector.backbone.name} choose imagenet or none"
            )
        return self


class Config(Section):
    """One experiment."""

    #: Folder for checkpoints, curves and evaluations.
    output_dir: Path = Path("output/run")
    #: Start of everything random.
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _combinations(self) -> Config:
        sampling, classifier = self.data.sampling, self.model.classifier
        if sampling.target is not None and sampling.target not in self.model.targets:
            raise ValueError(
                f"data.sampling.target={sampling.target}: not among the questions that the model answers: "
                f"{', '.join(self.model.targets) or 'none'}"
            )
        if self.model.kind == "classifier":
            augment = self.data.augment
            if augment.enabled and augment.sizes and max(augment.sizes) > self.data.image.max_size:
                raise ValueError(
                    f"data.augment.sizes={augment.sizes}: a classifier takes no image above data.image.max_size="
                    f"{self.data.image.max_size}; leave larger sizes out, or raise it"
                )
            if augment.mixes_images and classifier.views != "none":
                raise ValueError(
                    f"data.augment.copy_paste and mixup change single images, and model.classifier.views="
                    f"{classifier.views} answers for whole breasts; set both to 0, or views to none"
                )
            if self.data.negative_fraction is not None:
                raise ValueError("data.negative_fraction is for detectors; for classifiers see data.sampling")
            halvings = 2 ** len(classifier.cnn.blocks)
            if classifier.network == "cnn" and self.data.image.max_size < halvings:
                raise ValueError(
                    f"data.image.max_size={self.data.image.max_size}: is halved away by the "
                    f"{len(classifier.cnn.blocks)} blocks of model.classifier.cnn; expected {halvings} or more"
                )
        return self

    @property
    def targets(self) -> tuple[Target, ...]:
        """The questions that the model answers, with their classes (which must be no more `auto`)."""
        if self.model.kind == "detector":
            return tuple(Target(name) for name in self.model.targets)
        return tuple(
            Target(name, None if is_binary(name) else tuple(head.classes))
            for name, head in self.model.classifier.heads.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for YAML, JSON and checkpoints."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """As a YAML file."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
