"""Shared: a small converted phantom archive, and a network small enough for tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mammodet.converters import mias
from mammodet.converters.base import SplitOptions
from mammodet.phantom.mias import write_mias_archive

#: Overrides that make a Mask R-CNN of a few hundred thousand weights for images of 64 to 128 px.
SMALL = (
    "model.detector.backbone.name=resnet18",
    "model.detector.fpn_channels=16",
    "model.detector.box_head_channels=32",
    "model.detector.mask_head_channels=16",
    "model.detector.mask_head_layers=1",
    "model.detector.rpn_pre_nms_top_n=100",
    "model.detector.rpn_post_nms_top_n=30",
    "model.detector.rpn_batch_per_image=32",
    "model.detector.box_batch_per_image=16",
    "model.detector.max_detections=5",
    "model.image_head.channels=16",
    "model.detector.anchors.sizes=[8, 12, 18, 27, 40]",
)

#: The same from detectron2's parts: a ResNet-18 and a pyramid of 16 channels.
SMALL_DETECTRON2 = (
    "model.detector.backend=detectron2",
    "model.detectron2.config=COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
    "model.detectron2.opts=[MODEL.RESNETS.DEPTH, 18, MODEL.RESNETS.RES2_OUT_CHANNELS, 64, MODEL.RESNETS.NORM, GN, "
    "MODEL.FPN.NORM, GN, MODEL.BACKBONE.FREEZE_AT, 0, MODEL.FPN.OUT_CHANNELS, 32, MODEL.ROI_BOX_HEAD.FC_DIM, 32, "
    "MODEL.ROI_MASK_HEAD.CONV_DIM, 16, MODEL.ROI_MASK_HEAD.NUM_CONV, 1, MODEL.RPN.PRE_NMS_TOPK_TRAIN, 100, "
    "MODEL.RPN.PRE_NMS_TOPK_TEST, 100, MODEL.RPN.POST_NMS_TOPK_TRAIN, 30, MODEL.RPN.POST_NMS_TOPK_TEST, 30, "
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE, 32, MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE, 16]",
    "model.detector.max_detections=5",
    "model.image_head.channels=16",
    "model.detector.anchors.sizes=[8, 12, 18, 27, 40]",
)


@pytest.fixture(scope="session")
def phantom_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted archive of 14 patients at 128 px, in a folder with a space and a non-ASCII letter."""
    folder = tmp_path_factory.mktemp("phantom data ä")
    write_mias_archive(folder / "archive", patients=14, size=128, difficulty="easy", progress=False)
    options = mias.MiasOptions(splits=SplitOptions(0.2, 0.3, folds=2), progress=False)
    mias.convert(folder / "archive", folder / "data", options)
    return folder / "data"


@pytest.fixture
def study(tmp_path: Path) -> Any:
    """What the reading page shows."""
    from small_view import make_study

    return make_study(tmp_path)


@pytest.fixture
def store(study: Any, tmp_path: Path) -> Any:
    """The verdicts on it."""
    from mammodet.serving.verdicts import VerdictStore

    return VerdictStore(study, tmp_path / "preds")


#: Markers of tests that need what a machine may lack, and why they are skipped there.
MISSING = {
    "gpu": None if torch.cuda.is_available() else "no CUDA device",
    "detectron2": None if importlib.util.find_spec("detectron2") else "detectron2 is not installed",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a GPU or detectron2 skip where there is none."""
    for item in items:
        for name, reason in MISSING.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skipif(True, reason=reason))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say last and in red what did not run."""
    yield
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    for name, reason in MISSING.items():
        count = sum(reason in text for text in skipped) if reason else 0
        if count:
            terminalreporter.write_line(f"WARNING: {count} tests marked `{name}` did not run: {reason}", red=True)
