"""The experiment's configuration: YAML over its `_base_` over the defaults here, then `key=value` overrides.

Every key has a type and a range; unknown keys are refused with the nearest known name; combinations that cannot work
are refused before anything runs.
"""

from mammodet.config.classifier import ClassHeadConfig, ClassifierConfig, CnnConfig
from mammodet.config.data import AugmentConfig, DataConfig, ImageConfig, SamplingConfig
from mammodet.config.detector import (
    AggregationConfig,
    AggregationRule,
    AnchorConfig,
    BackboneConfig,
    DetectorConfig,
    ImageHeadConfig,
    TestTimeConfig,
)
from mammodet.config.detectron2 import Detectron2Config
from mammodet.config.experiment import ClassifierModelConfig, Config, DetectorModelConfig, ModelConfig, PixelsConfig
from mammodet.config.on_resume import ON_RESUME, on_resume
from mammodet.config.read import changes, differences, load_config, make_config
from mammodet.config.train import TrainConfig

__all__ = [
    "ON_RESUME",
    "AggregationConfig",
    "AggregationRule",
    "AnchorConfig",
    "AugmentConfig",
    "BackboneConfig",
    "ClassHeadConfig",
    "ClassifierConfig",
    "ClassifierModelConfig",
    "CnnConfig",
    "Config",
    "DataConfig",
    "DetectorConfig",
    "DetectorModelConfig",
    "Detectron2Config",
    "ImageConfig",
    "ImageHeadConfig",
    "ModelConfig",
    "PixelsConfig",
    "SamplingConfig",
    "TestTimeConfig",
    "TrainConfig",
    "changes",
    "differences",
    "load_config",
    "make_config",
    "on_resume",
]
