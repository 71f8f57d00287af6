"""A detector from detectron2, described by detectron2's own config."""

from typing import Any

from pydantic import Field

from mammodet.config.base import Section
from mammodet.config.detector import DetectorConfig

#: Where detectron2's config says what a key of `model.detector` says for torchvision.
COUNTERPARTS = {
    "arch": "MODEL.MASK_ON",
    "backbone.name": "MODEL.RESNETS.DEPTH",
    "backbone.norm": "MODEL.RESNETS.NORM and MODEL.FPN.NORM",
    "backbone.trainable_layers": "MODEL.BACKBONE.FREEZE_AT",
    "backbone.stride_in_1x1": "MODEL.RESNETS.STRIDE_IN_1X1",
    "finest_level": "MODEL.FPN.IN_FEATURES",
    "fpn_channels": "MODEL.FPN.OUT_CHANNELS",
    "box_head_channels": "MODEL.ROI_BOX_HEAD.FC_DIM",
    "mask_head_channels": "MODEL.ROI_MASK_HEAD.CONV_DIM",
    "mask_head_layers": "MODEL.ROI_MASK_HEAD.NUM_CONV",
    "rpn_batch_per_image": "MODEL.RPN.BATCH_SIZE_PER_IMAGE",
    "rpn_pre_nms_top_n": "MODEL.RPN.PRE_NMS_TOPK_TRAIN and PRE_NMS_TOPK_TEST",
    "rpn_post_nms_top_n": "MODEL.RPN.POST_NMS_TOPK_TRAIN and POST_NMS_TOPK_TEST",
    "rpn_top_n_predict": "MODEL.RPN.POST_NMS_TOPK_TEST",
    "box_batch_per_image": "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
    "box_positive_fraction": "MODEL.ROI_HEADS.POSITIVE_FRACTION",
    "roi_level_size": "MODEL.ROI_BOX_HEAD.POOLER_TYPE (its levels are fixed)",
    "box_loss": "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE",
    "cascade_ious": "MODEL.ROI_HEADS.NAME and MODEL.ROI_BOX_CASCADE_HEAD",
}

#: Keys of its training that its users know by heart, and ours; of others the lower-case name is tried.
DETECTRON2_KEYS = {
    "DATALOADER.NUM_WORKERS": "data.num_workers",
    "DATASETS.TEST": "data.test",
    "DATASETS.TRAIN": "data.train",
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": "model.detector.nms_threshold",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "model.detector.score_threshold",
    "SOLVER.BASE_LR": "train.lr",
    "SOLVER.IMS_PER_BATCH": "data.batch_size",
    "SOLVER.MOMENTUM": "train.momentum",
    "SOLVER.WARMUP_ITERS": "train.warmup_steps",
    "SOLVER.WEIGHT_DECAY": "train.weight_decay",
    "TEST.DETECTIONS_PER_IMAGE": "model.detector.max_detections",
}


class Detectron2Config(Section):
    """With `model.detector.backend=detectron2`: the network in detectron2's words (docs/detectron2.md).

    Of detectron2's config, the network is taken (`MODEL`). The number of classes follows the data set, input channels
    `data.image.channels`, anchors and what is kept of the detections `model.detector`, and training `train`.
    """

    #: A name of its model zoo (`COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml`), or the path of a YAML or a
    #: LazyConfig `.py`.
    config: str | None = None
    #: Changes to it: `[MODEL.FPN.OUT_CHANNELS, 128]`, or `["model.backbone.out_channels=128"]` as for a LazyConfig.
    opts: list[Any] = Field(default=[])
    #: Filled in when a run starts, so that checkpoints stand alone: the network's part of that config, `opts` applied.
    resolved: dict[str, Any] | None = None
    #: Filled in when a run starts: whether the network outlines what it finds.
    masks: bool | None = None


def detectron2_faults(detector: DetectorConfig, settings: Detectron2Config) -> list[str]:
    """What cannot work between `model.detector` and `model.detectron2`, in words."""
    if detector.backend != "detectron2":
        if settings != Detectron2Config():
            return ["model.detectron2 is set, but model.detector.backend is torchvision; choose backend=detectron2"]
        return []
    faults = []
    if settings.config is None and settings.resolved is None:
        faults.append(
            "model.detector.backend=detectron2 needs model.detectron2.config: a name of its model zoo such as "
            "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml, or the path of a YAML or LazyConfig"
        )
    given, usual = _flat(detector.model_dump()), _flat(DetectorConfig().model_dump())
    for key, counterpart in COUNTERPARTS.items():
        if key in usual and given[key] != usual[key]:
            faults.append(
                f"model.detector.{key}={given[key]}: has no effect with backend=detectron2; choose another "
                f"model.detectron2.config, or set {counterpart} in model.detectron2.opts"
            )
    return faults


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
