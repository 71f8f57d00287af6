"""`MammoRCNN`: a detector and an image head that learn together."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mammodet.modeling.contract import Detector, DetectorOutput
from mammodet.modeling.image_head import ImageHead, image_loss


@dataclass(frozen=True, slots=True)
class ModelOutput:
    """Attributes: `losses` name to scalar (training); `detections` per image (eval); `logits` (B, T) or None."""

    losses: dict[str, Tensor]
    detections: list[dict[str, Tensor]]
    logits: Tensor | None


class MammoRCNN(nn.Module):
    """A detector, whatever its library, with an image head on its features.

    Args:
        detector: fulfils the `Detector` contract.
        image_head: or None for a plain detector.
        targets: names of the head's questions.
        head_weight: weight of the head's loss.
        with_masks: whether detections have masks.
    """

    def __init__(
        self,
        detector: nn.Module,
        image_head: ImageHead | None,
        targets: Sequence[str],
        head_weight: float,
        with_masks: bool,
    ) -> None:
        super().__init__()
        self.detector = detector
        self.image_head = image_head
        self.targets = tuple(targets)
        self.head_weight = head_weight
        self.with_masks = with_masks

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]] | None = None,
        labels: Tensor | None = None,
        use_boxes: Sequence[bool] | None = None,
    ) -> ModelOutput:
        """Losses in training mode, detections and logits in eval mode.

        Args:
            images: float (C, H, W) in [0, 1] each.
            targets: boxes, labels, masks per image (training).
            labels: (B, T) image labels, NaN for unknown (training).
            use_boxes: images that may teach boxes (training).
        """
        detector: Detector = self.detector  # type: ignore[assignment]
        output: DetectorOutput = detector(images, targets, use_boxes)
        logits = self.image_head(output) if self.image_head is not None else None
        losses = dict(output.losses)
        if self.training and logits is not None and labels is not None:
            losses["loss_image"] = self.head_weight * image_loss(logits, labels)
        return ModelOutput(losses, output.detections, logits)
