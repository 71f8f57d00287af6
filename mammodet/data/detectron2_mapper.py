"""Mammograms for detectron2's data loaders: 16 bit and DICOM, windowed, resized without aliasing.

The module needs detectron2; nothing else of the package imports it.
"""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mammodet.config import ImageConfig
from mammodet.data.images import read_image
from mammodet.data.preprocess import prepare_image
from mammodet.detectron2_install import require_detectron2
from mammodet.errors import InputError
from mammodet.geometry import box_rle

require_detectron2()  # before detectron2's own words about it
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from detectron2.config import CfgNode, configurable
    from detectron2.data import DatasetMapper
    from detectron2.data import detection_utils as utils
    from detectron2.data import transforms as T

#: Settings of `ImageConfig` that speak of geometry, and the values that say "leave it".
_GEOMETRY = {"max_size": (), "crop": ("none",), "orient": ("none",), "aspect": ("keep",)}


class MammogramMapper(DatasetMapper):
    """In place of detectron2's `DatasetMapper`, which reads images as 8 bit: `MammogramMapper(cfg, is_train)`.

    It reads the stored file at its own depth, computes the channels of `image.channels` on all of it (kernels are in
    its pixels), and hands them to the augmentations on the scale from 0 to 255. What detectron2 gets: `image` float32
    (C, H, W), `instances` in training, and the dict's other keys, with `height` and `width` of the stored file, so that
    predictions come back in its frame. In training an image whose `use_boxes` is False is passed over (None, for which
    detectron2 draws another one).

    Floats would be resized by detectron2 without a low-pass, which makes noise of small calcifications; here they are
    resized by the filter that 8-bit images get, without its rounding.

    Args:
        is_train: whether to make `instances`.
        augmentations: detectron2's, in their order.
        image: its `channels` alone count, `tissue` where it is None: geometry is the augmentations' business.
        num_channels: that the model wants, from a cfg the length of `MODEL.PIXEL_MEAN`; one channel is repeated.
        use_instance_mask: make `gt_masks`, as bit masks; a lesion without a mask has its box for one.
        recompute_boxes: make boxes tight around masks that a crop has cut.
        instance_mask_format: must be "bitmask" for masks.
        image_format: taken so that detectron2's own arguments fit; a grey image has no order of colours.
        precomputed_proposal_topk: as in detectron2.
    Raises:
        InputError: what does not fit together.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[Any],
        image: ImageConfig | None = None,
        num_channels: int = 3,
        use_instance_mask: bool = False,
        recompute_boxes: bool = False,
        instance_mask_format: str = "bitmask",
        image_format: str = "BGR",
        use_keypoint: bool = False,
        keypoint_hflip_indices: Any = None,
        precomputed_proposal_topk: int | None = None,
    ) -> None:
        if use_keypoint:
            raise InputError("MODEL.KEYPOINT_ON is True; mammograms have no keypoints: set it to False")
        if use_instance_mask and instance_mask_format != "bitmask":
            raise InputError(
                f"INPUT.MASK_FORMAT is {instance_mask_format!r}; masks of mammograms are run lengths: set it to "
                "'bitmask' (prepare_cfg does)"
            )
        if recompute_boxes and not use_instance_mask:
            raise InputError("recompute_boxes=True needs use_instance_mask=True")
        image = ImageConfig() if image is None else image
        _check(image, num_channels)
        super().__init__(
            is_train,
            augmentations=list(augmentations),
            image_format=image_format,
            use_instance_mask=use_instance_mask,
            instance_mask_format=instance_mask_format,
            precomputed_proposal_topk=precomputed_proposal_topk,
            recompute_boxes=recompute_boxes,
        )
        # Without geometry, whatever the size: model_copy does not check max_size against its range.
        self.image = image.model_copy(update={"crop": "none", "orient": "none", "aspect": "keep"})
        self.num_channels = num_channels

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """The arguments that a configuration says."""
        if cfg.MODEL.KEYPOINT_ON:
            return {"is_train": is_train, "augmentations": (), "use_keypoint": True}
        return {**super().from_config(cfg, is_train), "num_channels": len(cfg.MODEL.PIXEL_MEAN)}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any] | None:
        """One image for the model.

        Raises InputError: the file is missing, damaged, or of another size than its record.
        """
        if self.is_train and not dataset_dict.get("use_boxes", True):
            return None
        sample = copy.deepcopy(dataset_dict)
        inputs = _FloatInput(self._read(sample))
        transforms = self.augmentations(inputs)
        size_hw = inputs.image.shape[:2]
        # np.array copies: what is here may be a view that cannot be written.
        sample["image"] = torch.as_tensor(np.array(inputs.image.transpose(2, 0, 1), dtype=np.float32, order="C"))
        if self.proposal_topk is not None:
            utils.transform_proposals(sample, size_hw, transforms, proposal_topk=self.proposal_topk)
        annotations = sample.pop("annotations", None)
        if self.is_train and annotations is not None:
            native = (sample["height"], sample["width"])
            sample["instances"] = self._instances(annotations, native, transforms, size_hw)
        return sample

    def _read(self, sample: dict[str, Any]) -> NDArray[np.float32]:
        """The stored file's channels (H, W, C) on the scale from 0 to 255; repeated ones take no memory."""
        path = Path(sample["file_name"])
        pixels = read_image(path)
        height, width = pixels.shape
        expected = sample.setdefault("height", height), sample.setdefault("width", width)
        if pixels.shape != expected:
            raise InputError(
                f"{path}: the file is {height}x{width}, its record says {expected[0]}x{expected[1]} (height x width); "
                "re-run the converter"
            )
        channels, _ = prepare_image(pixels, self.image.model_copy(update={"max_size": max(height, width)}))
        channels *= 255
        return np.broadcast_to(channels.transpose(1, 2, 0), (height, width, self.num_channels))

    def _instances(
        self, annotations: list[dict[str, Any]], native_hw: tuple[int, int], transforms: Any, size_hw: tuple[int, int]
    ) -> Any:
        """detectron2's `Instances` of the lesions that stay visible."""
        changed = []
        for item in annotations:
            if item.get("iscrowd", 0):
                continue
            if not self.use_instance_mask:
                item.pop("segmentation", None)
            elif "segmentation" not in item:
                item["segmentation"] = box_rle(utils.get_bbox(item), native_hw)
            item.pop("keypoints", None)
            item = utils.transform_instance_annotations(item, transforms, size_hw)
            if "segmentation" in item and isinstance(item["segmentation"], np.ndarray):
                item["segmentation"] = np.array(item["segmentation"])
            changed.append(item)
        instances = utils.annotations_to_instances(changed, size_hw, mask_format="bitmask")
        if self.recompute_boxes and instances.has("gt_masks"):  # an image without lesions has none
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return utils.filter_empty_instances(instances)


class _FloatInput(T.AugInput):
    """A float image (H, W, C) under augmentations."""

    image: NDArray[np.float32]

    def transform(self, tfm: Any) -> None:
        for step in tfm.transforms if isinstance(tfm, T.TransformList) else [tfm]:
            if isinstance(step, T.ResizeTransform):
                self.image = _resize(self.image, (step.new_h, step.new_w), step.interp)
                continue
            image = step.apply_image(self.image)
            self.image = image[..., None] if image.ndim == 2 else image  # OpenCV drops a single channel


def _resize(image: NDArray[np.float32], size_hw: tuple[int, int], interpolation: int) -> NDArray[np.float32]:
    """PIL's resize, which averages when it shrinks, channel by channel; equal channels once."""
    count = image.shape[2] if image.strides[2] else 1
    planes = [Image.fromarray(np.ascontiguousarray(image[..., channel], np.float32)) for channel in range(count)]
    resized = np.stack([np.asarray(plane.resize(size_hw[::-1], interpolation)) for plane in planes], axis=-1)
    return np.broadcast_to(resized, (*size_hw, image.shape[2]))


def _check(image: ImageConfig, num_channels: int) -> None:
    """Refuse what would be silently passed over."""
    unused = [
        f"{name}={getattr(image, name)}"
        for name, neutral in _GEOMETRY.items()
        if name in image.model_fields_set and getattr(image, name) not in neutral
    ]
    if unused:
        raise InputError(
            f"image: {', '.join(unused)} has no effect here: detectron2's augmentations resize and flip (cfg.INPUT). "
            "Leave it out; channels alone count"
        )
    if len(image.channels) not in (1, num_channels):
        raise InputError(
            f"image.channels are {len(image.channels)} ({', '.join(image.channels)}), the model takes {num_channels} "
            f"(the length of MODEL.PIXEL_MEAN); expected 1 or {num_channels}"
        )
