"""The experiment's configuration: YAML over its `_base_` over the defaults here, then `key=value` overrides.

Every key has a type and a range; unknown keys are refused with the nearest known name; combinations that cannot work
are refused before anything runs.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mammodet.errors import InputError, raise_faults

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]

AggregationRule = Literal["max", "noisy_or", "top_k_mean", "head", "learned"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class ImageConfig(_Section):
    """From a file to the network's input."""

    #: Longest side of the network's input in pixels; smaller images are enlarged to it, the aspect is kept.
    max_size: Annotated[int, Field(ge=32, le=8192)] = 1024
    #: What is cropped away: everything but the `breast`, or `none`.
    crop: Literal["breast", "none"] = "breast"
    #: `left` flips images so that the chest wall always lies on the left.
    orient: Literal["none", "left"] = "none"
    #: One input channel each. `full`: the file's whole range; `tissue`: the 1st to 99.5th percentile of the breast;
    #: `clahe`: contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994).
    channels: list[Literal["full", "tissue", "clahe"]] = Field(default=["tissue"], min_length=1, max_length=8)


class AugmentConfig(_Section):
    """Random changes in training; 0 turns one off."""

    #: Whether anything is changed at all.
    enabled: bool = True
    #: Probability of a left-right flip, and of an upside-down flip.
    horizontal_flip: Share = 0.5
    vertical_flip: Share = 0.0
    #: Largest turn in degrees, shift as a part of the side, and relative zoom, of one random affine map.
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    translate: Annotated[float, Field(ge=0, lt=1)] = 0.05
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.15
    #: Largest relative change of brightness and contrast, and standard deviation of noise on the scale [0, 1].
    brightness: Share = 0.15
    contrast: Share = 0.15
    noise: Share = 0.01


class DataConfig(_Section):
    """Where the data lies, and how batches are made of it."""

    #: Folder written by tools/convert.py.
    root: Path = Path("data/mias")
    #: Number of the cross-validation fold, or null for the holdout split.
    fold: Count | None = None
    #: Files under `root` instead of those that `fold` chooses.
    train: str | None = None
    val: str | None = None
    #: File under `root` that `--eval-only` evaluates on, whatever the fold.
    test: str | None = "test.json"
    #: Drop faulty records of the JSON files instead of refusing the file; what was dropped is listed.
    skip_invalid: bool = False
    image: ImageConfig = ImageConfig()
    augment: AugmentConfig = AugmentConfig()
    #: Images per process and step.
    batch_size: AtLeastOne = 4
    #: Share of images without lesions in each batch; null keeps the data set's own.
    negative_fraction: Share | None = None
    #: Images drawn per epoch; null means as many as there are. Checkpoints are written per epoch.
    epoch_size: AtLeastOne | None = None
    #: Processes that read and prepare images.
    num_workers: Count = 2

    @property
    def train_file(self) -> Path:
        """The training set's JSON."""
        return self.root / (self.train or ("train.json" if self.fold is None else f"fold{self.fold}_train.json"))

    @property
    def val_file(self) -> Path:
        """The validation set's JSON."""
        return self.root / (self.val or ("val.json" if self.fold is None else f"fold{self.fold}_val.json"))


class BackboneConfig(_Section):
    """`resnet18|34|50|101` (torchvision's), or any timm model that gives features, as `timm/NAME`."""

    name: str = "resnet50"
    #: GN where nothing is pretrained, FrozenBN for small batches on pretrained weights.
    norm: Literal["GN", "BN", "FrozenBN"] = "GN"
    #: Stages that learn, counted from the last; 5 is all (torchvision's ResNets only).
    trainable_layers: Annotated[int, Field(ge=0, le=5)] = 5

    @model_validator(mode="after")
    def _known(self) -> BackboneConfig:
        known = ("resnet18", "resnet34", "resnet50", "resnet101")
        if self.name not in known and not self.name.startswith("timm/"):
            raise ValueError(f"backbone {self.name!r}: expected {', '.join(known)} or timm/NAME")
        return self


class AnchorConfig(_Section):
    """Anchor boxes of the region proposal network, in pixels of the network's input."""

    #: One side per pyramid level (5), or `auto`: fitted to the training boxes.
    sizes: Literal["auto"] | list[Positive] = [32.0, 64.0, 128.0, 256.0, 512.0]
    #: Height over width.
    ratios: list[Positive] = Field(default=[0.5, 1.0, 2.0], min_length=1)

    @model_validator(mode="after")
    def _five(self) -> AnchorConfig:
        if self.sizes != "auto" and len(self.sizes) != 5:
            raise ValueError(f"anchors.sizes: {len(self.sizes)} sizes; expected 5 (pyramid levels P2 to P6), or 'auto'")
        return self


class DetectorConfig(_Section):
    """The lesion detector."""

    #: The library that the detector comes from.
    backend: Literal["torchvision"] = "torchvision"
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


class ImageHeadConfig(_Section):
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


class AggregationConfig(_Section):
    """From detections and head to one score an image, a breast and a patient."""

    #: See docs/model.md.
    rule: AggregationRule = "learned"
    #: The k of `top_k_mean`.
    top_k: AtLeastOne = 3
    #: How the scores of a breast's views, and of a patient's breasts, are joined.
    over_images: Literal["max", "mean"] = "max"


class ModelConfig(_Section):
    """Detector, head, aggregation and where the weights start."""

    detector: DetectorConfig = DetectorConfig()
    image_head: ImageHeadConfig = ImageHeadConfig()
    aggregation: AggregationConfig = AggregationConfig()
    #: `none`, `imagenet` (backbone), `coco` (whole detector), or the path of a checkpoint.
    weights: str = "none"

    @model_validator(mode="after")
    def _combinations(self) -> ModelConfig:
        rule = self.aggregation.rule
        if not self.image_head.enabled and rule in ("head", "learned"):
            raise ValueError(
                f"aggregation.rule '{rule}' needs image_head.enabled=true; without it: max, noisy_or, top_k_mean"
            )
        if self.weights in ("coco", "imagenet") and self.detector.backbone.norm == "GN":
            raise ValueError(
                f"weights '{self.weights}' were trained with batch norm and would be lost under backbone.norm=GN; "
                "choose FrozenBN (or BN)"
            )
        if self.weights == "coco" and self.detector.backbone.name != "resnet50":
            raise ValueError(
                f"weights 'coco' exist for resnet50 only; with {self.detector.backbone.name} choose imagenet or none"
            )
        if self.weights == "none" and self.detector.backbone.norm == "FrozenBN":
            raise ValueError("backbone.norm=FrozenBN without weights never learns its statistics; choose GN")
        return self


class TrainConfig(_Section):
    """Optimiser, schedule, precision, checkpoints."""

    #: Passes over `data.epoch_size` images.
    epochs: AtLeastOne = 30
    #: `sgd` or `adamw`.
    optimizer: Literal["sgd", "adamw"] = "sgd"
    #: Learning rate after the warm-up, momentum of `sgd`, and weight decay.
    lr: Positive = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 1e-4
    #: How the rate falls after the warm-up.
    schedule: Literal["cosine", "step", "plateau", "constant"] = "cosine"
    #: Epochs after which `step` divides the rate by ten.
    step_epochs: list[AtLeastOne] = [20, 27]
    #: Validations without gain after which `plateau` divides the rate by ten.
    plateau_patience: AtLeastOne = 5
    #: Steps over which the rate rises linearly from 0.
    warmup_steps: Count = 200
    #: Largest norm of the gradient; 0 for no limit.
    gradient_clip: NonNegative = 10.0
    #: Batches whose gradients are summed before a step.
    accumulate: AtLeastOne = 1
    #: `auto`: bf16-mixed on a GPU that has it, else 32.
    precision: Literal["auto", "32", "16-mixed", "bf16-mixed"] = "auto"
    #: Decay of the exponential moving average of the weights, or null for none.
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    #: Metric that chooses the best checkpoint and stops early; see metrics.csv for the names.
    monitor: str = "val/bbox_AP50"
    monitor_mode: Literal["max", "min"] = "max"
    #: Validations without gain after which training stops, or null to go on to the end.
    early_stopping: AtLeastOne | None = None
    #: Epochs from one validation to the next.
    validate_every: AtLeastOne = 1
    #: Where to train; `--num-gpus` has precedence.
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    #: Processes on this machine; null means one. `--num-gpus` has precedence.
    devices: AtLeastOne | None = None
    #: Steps from one entry in TensorBoard to the next.
    log_every: AtLeastOne = 10

    @field_validator("precision", mode="before")
    @classmethod
    def _number_as_text(cls, value: Any) -> Any:
        """YAML reads `precision=32` as a number."""
        return str(value) if type(value) is int else value

    @model_validator(mode="after")
    def _combinations(self) -> TrainConfig:
        if self.schedule == "step" and self.step_epochs != sorted(set(self.step_epochs)):
            raise ValueError(f"train.step_epochs {self.step_epochs}: expected rising numbers")
        if self.accelerator == "cpu" and self.precision == "16-mixed":
            raise ValueError("train.precision=16-mixed needs a GPU; choose 32 or bf16-mixed")
        return self


class Config(_Section):
    """One experiment."""

    #: Folder for checkpoints, curves and evaluations.
    output_dir: Path = Path("output/run")
    #: Start of everything random.
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for YAML, JSON and checkpoints."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """As a YAML file."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file over its `_base_`, apply `key.key=value` overrides, and check everything.

    `_base_` is a path beside the file. Values of overrides are read as YAML (`null`, `true`, `[1, 2]`, numbers, text).

    Raises:
        InputError: with all faults at once.
    """
    values = _read_yaml(path, ()) if path is not None else {}
    for override in overrides:
        key, found, text = override.partition("=")
        if not found or not key:
            raise InputError(f"override {override!r}: expected KEY=VALUE, for instance train.lr=0.01")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date such as 2026-13-01
            raise InputError(f"override {override!r}: {text!r} is not a YAML value") from None
        _put(values, key.split("."), value, override)
    return make_config(values, where=str(path or "the defaults"))


def make_config(values: Mapping[str, Any], *, where: str) -> Config:
    """Check plain values, for instance those of a checkpoint."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        faults = [_explain(dict(item)) for item in error.errors()]
        raise_faults(faults, where=f"config {where}", advice="docs/config.md lists every key.")
        raise


def differences(then: Any, now: Any, place: str = "") -> list[str]:
    """Lines `key then -> now` for every setting in which two configs (as plain values) differ."""
    if isinstance(then, dict) and isinstance(now, dict):
        lines = []
        for key in sorted({*then, *now}):
            lines += differences(then.get(key), now.get(key), f"{place}.{key}".lstrip("."))
        return lines
    return [] if then == now else [f"{place} {then!r} -> {now!r}"]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which would silently let the last of two equal keys win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        doubled = next((key for position, key in enumerate(keys) if key in keys[:position]), None)
        if doubled is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {doubled!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = Path(path)
    if path.resolve() in seen:
        raise InputError(f"{path}: its _base_ leads back to itself")
    try:
        values = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except FileNotFoundError:
        raise InputError(f"{path}: no such config file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; expected a YAML file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not valid YAML: {error}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__}; expected keys and values")
    base = values.pop("_base_", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise InputError(f"{path}: _base_ is {base!r}; expected the path of one YAML file beside it")
    return _merge(_read_yaml(path.parent / str(base), (*seen, path.resolve())), values)


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def _put(values: dict[str, Any], keys: Sequence[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        below = values.setdefault(key, {})
        if not isinstance(below, dict):
            raise InputError(f"override {override!r}: {key!r} is a value, not a section")
        values = below
    values[keys[-1]] = value


def _explain(error: dict[str, Any]) -> str:
    place = [part for part in error["loc"] if isinstance(part, str | int)]
    key = ".".join(str(part) for part in place)
    if error["type"] == "extra_forbidden":
        known = _fields_at(place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "model_type":
        message = "expected a section of keys"
    elif error["type"] == "path_type":
        message = "expected a path"
    if "input" in error and not isinstance(error["input"], dict):
        return f"{key}: {error['input']!r}: {message}"
    return f"{key}: {message}" if key else message


def _fields_at(place: Sequence[str | int]) -> list[str]:
    model: type[BaseModel] = Config
    for part in place:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
            options = [item for item in typing.get_args(annotation) if isinstance(item, type)]
            annotation = next((item for item in options if issubclass(item, BaseModel)), None)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
