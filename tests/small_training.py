"""Shared by the tests of both backends: a learner that learns, and a run that is killed and resumed."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mammodet.engine.checked_run import Run
from mammodet.engine.module import TrainingModule
from mammodet.engine.run_folder import LAST
from mammodet.engine.train import train
from mammodet.modeling.mammo_rcnn import MammoRCNN
from mammodet.modeling.masks import paste_mask

#: Overrides of two epochs on small images.
SHORT = (
    "data.image.max_size=64",
    "data.batch_size=4",
    "data.num_workers=0",
    "train.epochs=2",
    "train.optimizer=adamw",
    "train.lr=1e-3",
    "train.warmup_steps=2",
    "train.monitor=val/auc_tumor_head",
    "train.accelerator=cpu",
)


def assert_overfits_four_images(model: MammoRCNN) -> None:
    """Four images with one bright disc or none, found again after a few dozen steps."""
    torch.manual_seed(0)
    model.train()
    images, targets, labels = [], [], []
    for index, centre in enumerate([(20, 20), (44, 30), (30, 44), None]):
        image, mask = 0.1 * torch.rand(1, 64, 64), torch.zeros(64, 64, dtype=torch.uint8)
        if centre is not None:
            rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
            mask[(rows - centre[1]) ** 2 + (columns - centre[0]) ** 2 <= 64] = 1
            image[0] += 0.8 * mask
        x, y = centre or (0, 0)
        boxes = torch.tensor([[x - 8.0, y - 8.0, x + 9.0, y + 9.0]])[: int(centre is not None)]
        masks = mask[None][: len(boxes)]
        images.append(image)
        targets.append({"boxes": boxes, "labels": torch.ones(len(boxes), dtype=torch.int64), "masks": masks})
        labels.append([float(centre is not None), float(index == 0)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(200):
        torch.manual_seed(step)
        optimizer.param_groups[0]["lr"] = 3e-3 if step < 120 else 5e-4  # settled, so that rounding decides nothing
        losses = model(images, targets, torch.tensor(labels), [True] * 4).losses
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        output = model(images)
    for found, target in zip(output.detections[:3], targets[:3], strict=True):
        assert found["scores"][0] > 0.5
        assert (found["boxes"][0] - target["boxes"][0]).abs().max() < 4
        (mask,) = pasted(found["masks"][:1], found["boxes"][:1], tuple(target["masks"].shape[1:])) > 0.5
        overlap, union = (mask & target["masks"][0].bool()), (mask | target["masks"][0].bool())
        assert overlap.sum() / union.sum() > 0.6
    assert (output.detections[3]["scores"] < 0.5).all()
    assert output.logits is not None
    assert ((torch.sigmoid(output.logits) > 0.5).float() == torch.tensor(labels)).all()


def pasted(masks: Tensor, boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Masks (n, 1, M, M) on the grids of boxes (n, 4) at the pixels of an image: (n, H, W)."""
    whole = torch.zeros((len(masks), *size_hw))
    for place, mask, box in zip(whole, masks, boxes, strict=True):
        patch, (x, y) = paste_mask(mask[0].numpy(), box.numpy(), size_hw)
        place[y : y + patch.shape[0], x : x + patch.shape[1]] = torch.from_numpy(patch)
    return whole


def read_rows(output: Path) -> list[dict[str, str]]:
    with open(output / "metrics.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_resumes_exactly(whole: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run into `folder / "whole"` ends as one that is killed in its second epoch of three and resumed."""
    train(whole)
    broken = replace(whole, config=whole.config.model_copy(update={"output_dir": folder / "broken"}))
    step = TrainingModule.training_step

    def killed(self: TrainingModule, batch: object, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == 1 and batch_idx == 1:
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingModule, "training_step", killed)
    with pytest.raises(RuntimeError, match="killed"):
        train(broken)
    monkeypatch.setattr(TrainingModule, "training_step", step)
    train(broken, resume=True)

    one, other = (torch.load(folder / name / LAST, weights_only=True) for name in ("whole", "broken"))
    assert one["global_step"] == other["global_step"] == 6
    for part in ("state_dict", "current_model_state"):
        for name, tensor in one[part].items():
            assert torch.equal(tensor, other[part][name]), (part, name)
    moments = [content["optimizer_states"][0]["state"][0]["exp_avg"] for content in (one, other)]
    assert torch.equal(*moments)
    assert one["lr_schedulers"][0]["_last_lr"] == other["lr_schedulers"][0]["_last_lr"]
    tables = [
        [{key: value for key, value in row.items() if key != "seconds"} for row in read_rows(folder / name)]
        for name in ("whole", "broken")
    ]
    assert tables[0] == tables[1]
