"""A whole experiment: data, model, training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Discriminator, Field, Tag, model_validator

from mammodet.config.base import Positive, Section
from mammodet.config.classifier import ClassifierConfig
from mammodet.config.data import DataConfig
from mammodet.config.detector import (
    AggregationConfig,
    DetectorConfig,
    ImageHeadConfig,
    OverImagesConfig,
    TestTimeConfig,
)
from mammodet.config.detectron2 import Detectron2Config, detectron2_faults
from mammodet.config.train import TrainConfig
from mammodet.targets import Target, is_binary


class PixelsConfig(Section):
    """How a network of torchvision's or timm's sees pixels in [0, 1]: `(pixel - mean) / std` in every channel."""

    #: `auto`: what the pretrained weights of the network's name expect, averaged over colours (ImageNet's 0.449 and
    #: 0.226; EfficientNet-Lite's 0.5 and 0.5).
    mean: Literal["auto"] | float = "auto"
    std: Literal["auto"] | Positive = "auto"

    def filled_from(self, own: PixelsConfig) -> PixelsConfig:
        """What is `auto`, as `own` has it."""
        return PixelsConfig(**{key: getattr(own if value == "auto" else self, key) for key, value in self})


class DetectorModelConfig(Section):
    """A model that finds lesions and answers for the image."""

    #: `detector`, or `classifier` with the keys further below.
    kind: Literal["detector"] = "detector"
    detector: DetectorConfig = DetectorConfig()
    detectron2: Detectron2Config = Detectron2Config()
    image_head: ImageHeadConfig = ImageHeadConfig()
    aggregation: AggregationConfig = AggregationConfig()
    test_time: TestTimeConfig = TestTimeConfig()
    pixels: PixelsConfig = PixelsConfig()
    #: `none`, `imagenet` (backbone), `coco` (whole detector), `starter` (the model in the package), or the path of a
    #: checkpoint. With detectron2 also a name
    #: of its model zoo, or a `detectron2://` address; `imagenet` is then what its config names, `coco` the zoo's own.
    weights: str = "none"

    #: Whether boxes are found.
    detects: ClassVar[bool] = True
    #: Whether the images of a breast are answered for together.
    joins_views: ClassVar[bool] = False

    @property
    def targets(self) -> tuple[Target, ...]:
        """The questions that the model answers for an image."""
        return tuple(Target(name) for name in self.image_head.targets) if self.image_head.enabled else ()

    @property
    def with_masks(self) -> bool:
        """Whether the model outlines what it finds; known of detectron2's networks once a run has started."""
        return bool(self.detectron2.masks) if self.from_detectron2 else self.detector.arch == "mask_rcnn"

    @property
    def from_detectron2(self) -> bool:
        """Whether the detector is detectron2's."""
        return self.detector.backend == "detectron2"

    @property
    def learns_aggregation(self) -> bool:
        """Whether its aggregation is fitted on the validation set when a training ends."""
        return self.aggregation.rule == "learned"

    @property
    def network(self) -> str:
        """Name of the network whose pretrained weights say how pixels are seen."""
        return self.detector.backbone.name

    @property
    def norm(self) -> str:
        """Of the network that weights are loaded into; `own` where it is the network's own."""
        return "own" if self.from_detectron2 else self.detector.backbone.norm

    @property
    def agreed(self) -> dict[str, Any]:
        """What models that answer together must have alike, by key."""
        return {
            "aggregation": self.aggregation.model_dump(),
            "image_head.targets": [target.name for target in self.targets],
        }

    def filled_from(self, own: DetectorModelConfig) -> DetectorModelConfig:
        """What this config leaves to a training set or a run, as `own` has it."""
        detector, theirs = self.detector, self.detectron2
        if detector.anchors.sizes == "auto":
            detector = detector.change(anchors=detector.anchors.change(sizes=own.detector.anchors.sizes))
        if self.from_detectron2 and theirs.resolved is None:
            theirs = theirs.change(resolved=own.detectron2.resolved, masks=own.detectron2.masks)
        return self.change(detector=detector, detectron2=theirs, pixels=self.pixels.filled_from(own.pixels))

    def with_settings_of(self, wanted: DetectorModelConfig) -> DetectorModelConfig:
        """This model with what changes what is done with it, and not the model, as `wanted` has it."""
        free = (
            "score_threshold",
            "nms_threshold",
            "containment_threshold",
            "soft_nms_sigma",
            "max_detections",
            "rpn_top_n_predict",
        )
        detector = self.detector.change(**{key: getattr(wanted.detector, key) for key in free})
        return self.change(detector=detector, aggregation=wanted.aggregation, test_time=wanted.test_time)

    def data_faults(self, data: DataConfig) -> list[str]:
        """Settings of the data that this kind of model has no use for; none."""
        return []

    @model_validator(mode="after")
    def _combinations(self) -> DetectorModelConfig:
        if faults := detectron2_faults(self.detector, self.detectron2):
            raise ValueError("; ".join(faults))
        if self.weights == "coco" and self.norm == "GN":
            raise ValueError(
                "weights 'coco' were trained with batch norm and would be lost under detector.backbone.norm=GN; choose "
                "FrozenBN (or BN)"
            )
        _check_frozen(self.weights, self.norm, "backbone.norm")
        rule = self.aggregation.rule
        if not self.image_head.enabled and rule in ("head", "learned"):
            raise ValueError(f"aggregation.rule '{rule}' needs image_head.enabled=true; else max, noisy_or, top_k_mean")
        if self.weights == "coco" and not self.from_detectron2 and self.detector.backbone.name != "resnet50":
            raise ValueError(
                f"weights 'coco' exist for resnet50 only; with {self.detector.backbone.name} choose imagenet or none"
            )
        return self


class ClassifierModelConfig(Section):
    """A model that answers for the image only."""

    kind: Literal["classifier"]
    classifier: ClassifierConfig = ClassifierConfig()
    aggregation: OverImagesConfig = OverImagesConfig()
    pixels: PixelsConfig = PixelsConfig()
    #: `none`, `imagenet`, `starter` (the body of the model in the package), or the path of a checkpoint.
    weights: str = "none"

    #: Looks at each image once.
    test_time: ClassVar[TestTimeConfig] = TestTimeConfig()
    detects: ClassVar[bool] = False
    with_masks: ClassVar[bool] = False
    from_detectron2: ClassVar[bool] = False
    learns_aggregation: ClassVar[bool] = False

    @property
    def joins_views(self) -> bool:
        """Whether the images of a breast are answered for together."""
        return self.classifier.views != "none"

    @property
    def targets(self) -> tuple[Target, ...]:
        """The questions that the model answers for an image, with their classes; none where these are still `auto`."""
        return tuple(
            Target(name, None if is_binary(name) else tuple(head.classes))
            for name, head in self.classifier.heads.items()
        )

    @property
    def network(self) -> str:
        """Name of the network whose pretrained weights say how pixels are seen."""
        return self.classifier.network

    @property
    def norm(self) -> str:
        """Of the network that weights are loaded into; `own` where it is the network's own."""
        return self.classifier.used_norm

    @property
    def agreed(self) -> dict[str, Any]:
        """What models that answer together must have alike, by key."""
        heads = {name: [head.classes, head.collapse] for name, head in self.classifier.heads.items()}
        return {"classifier.heads": heads, "classifier.views (joined)": self.joins_views}

    def filled_from(self, own: ClassifierModelConfig) -> ClassifierModelConfig:
        """What this config leaves to a training set, as `own` has it."""
        heads = dict(self.classifier.heads)
        for name, head in heads.items():
            if there := own.classifier.heads.get(name):
                keys = ("classes", "collapse", "class_weights")
                heads[name] = head.change(
                    **{key: getattr(there, key) for key in keys if getattr(head, key) in ("auto", "balanced")}
                )
        return self.change(classifier=self.classifier.change(heads=heads), pixels=self.pixels.filled_from(own.pixels))

    def with_settings_of(self, wanted: ClassifierModelConfig) -> ClassifierModelConfig:
        """This model with what changes what is done with it, and not the model, as `wanted` has it."""
        return self.change(aggregation=wanted.aggregation)

    def data_faults(self, data: DataConfig) -> list[str]:
        """Settings of the data that this kind of model has no use for."""
        faults, augment, side = [], data.augment, data.image.max_size
        if augment.enabled and augment.sizes and max(augment.sizes) > side:
            faults.append(
                f"data.augment.sizes={augment.sizes}: a classifier takes no image above data.image.max_size={side}; "
                "leave larger sizes out, or raise it"
            )
        if augment.mixes_images and self.joins_views:
            faults.append(
                f"data.augment.copy_paste and mixup change single images, and model.classifier.views="
                f"{self.classifier.views} answers for whole breasts; set both to 0, or views to none"
            )
        if data.negative_fraction is not None:
            faults.append("data.negative_fraction is for detectors; for classifiers see data.sampling")
        blocks = len(self.classifier.cnn.blocks)
        if self.classifier.network == "cnn" and side < 2**blocks:
            faults.append(
                f"data.image.max_size={side}: is halved away by the {blocks} blocks of model.classifier.cnn; expected "
                f"{2**blocks} or more"
            )
        return faults

    @model_validator(mode="after")
    def _combinations(self) -> ClassifierModelConfig:
        if self.weights == "coco":
            raise ValueError("weights 'coco' are a detector's; choose imagenet, none or a path")
        if self.weights == "imagenet" and self.classifier.network == "cnn":
            raise ValueError("weights 'imagenet' do not exist for network=cnn; choose none or a path")
        _check_frozen(self.weights, self.norm, "classifier.norm")
        return self


def _check_frozen(weights: str, norm: str, place: str) -> None:
    if weights == "none" and norm == "FrozenBN":
        raise ValueError(f"{place}=FrozenBN without weights never learns its statistics; choose GN")


def _kind_of(model: Any) -> str:
    kind = model.get("kind", "detector") if isinstance(model, dict) else getattr(model, "kind", "detector")
    return f"({kind})"


#: What is learnt, by `model.kind`: lesions and labels, or labels and classes alone; and where the weights start.
ModelConfig = Annotated[
    Annotated[DetectorModelConfig, Tag("(detector)")] | Annotated[ClassifierModelConfig, Tag("(classifier)")],
    Discriminator(_kind_of),
]
MODELS: dict[str, type[Section]] = {"detector": DetectorModelConfig, "classifier": ClassifierModelConfig}


class Config(Section):
    """One experiment."""

    #: Folder for checkpoints, curves and evaluations.
    output_dir: Path = Path("output/run")
    #: Seed of every random choice.
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: DataConfig = DataConfig()
    model: ModelConfig = DetectorModelConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _combinations(self) -> Config:
        sampled, names = self.data.sampling.target, [target.name for target in self.model.targets]
        faults = self.model.data_faults(self.data)
        if sampled is not None and sampled not in names:
            faults.append(
                f"data.sampling.target={sampled}: not among the questions that the model answers: "
                f"{', '.join(names) or 'none'}"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for YAML, JSON and checkpoints."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """As a YAML file."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
