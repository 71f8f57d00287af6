"""Masks of boxes in the image, by hand and against torchvision's paste."""

from __future__ import annotations

import pytest
import torch
from small_training import pasted as paste_masks
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import roi_align


def test_mask_of_its_own_size_is_pasted_as_it_is() -> None:
    mask = torch.rand(1, 1, 28, 28)
    pasted = paste_masks(mask, torch.tensor([[4.0, 6.0, 32.0, 34.0]]), (40, 50))
    torch.testing.assert_close(pasted[0, 6:34, 4:32], mask[0, 0])
    assert pasted.sum().item() == pytest.approx(mask.sum().item(), rel=1e-5)


def test_pixels_take_the_mask_at_their_centres() -> None:
    """A mask of two columns, 0 and 1, on a box from x = 1.5 to 5.5: centres at 2 px and 1 px from its column's."""
    mask = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    pasted = paste_masks(mask, torch.tensor([[1.5, 0.0, 5.5, 2.0]]), (2, 8))
    # columns of the mask are centred on 2.5 and 4.5, pixels on 2.5, 3.5, 4.5; beyond, the mask fades to 0 at 6.5
    assert pasted[0, 0].tolist() == pytest.approx([0, 0, 0, 0.5, 1, 0.5, 0, 0])


def test_box_beyond_the_image_is_cut_and_none_gives_none() -> None:
    pasted = paste_masks(
        torch.ones(2, 1, 4, 4), torch.tensor([[-4.0, -4.0, 4.0, 4.0], [90.0, 90.0, 94.0, 94.0]]), (8, 8)
    )
    assert (pasted >= 0.5).sum(dim=(1, 2)).tolist() == [16, 0]
    assert paste_masks(torch.zeros(0, 1, 28, 28), torch.zeros(0, 4), (8, 9)).shape == (0, 8, 9)


@pytest.mark.parametrize("side", [8, 12, 16])
def test_full_mask_covers_its_box(side: int) -> None:
    boxes = torch.tensor([[10.0, 10.0, 10.0 + side, 10.0 + side]])
    assert int((paste_masks(torch.ones(1, 1, 28, 28), boxes, (64, 64)) >= 0.5).sum()) == side**2


@pytest.mark.parametrize(("radius", "too_large"), [(5, 1.15), (8, 1.03), (20, 1.03)])
def test_mask_of_a_disc_keeps_its_place_and_area(radius: int, too_large: float) -> None:
    """Whereas torchvision's paste enlarges it."""
    generator = torch.Generator().manual_seed(0)
    own, theirs, true = 0, 0, 0
    rows, columns = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    for _ in range(20):
        x, y = (40 + 40 * torch.rand(2, generator=generator)).tolist()
        disc = (columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2
        places = disc.nonzero()
        box = torch.cat([places.amin(0).flip(0), places.amax(0).flip(0) + 1]).float()[None]
        mask = roi_align(disc[None, None].float(), [box], 28, aligned=True)
        found = paste_masks(mask, box, (128, 128))[0] >= 0.5
        assert int((found != disc).sum()) <= 2
        true, own = true + int(disc.sum()), own + int(found.sum())
        theirs += int((paste_masks_in_image(mask, box, (128, 128)) >= 0.5).sum())
    assert own / true == pytest.approx(1, abs=0.005)
    assert theirs / true > too_large
