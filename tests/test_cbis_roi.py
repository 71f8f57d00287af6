"""Which file is the mask, and where it lies on the image: answers worked out by hand on small pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mammodet.converters.cbis_ddsm.archive import SourceFile
from mammodet.converters.cbis_ddsm.roi import locate, read_roi
from mammodet.converters.mask_files import LesionError, is_uniform_scale, resize_mask, two_valued
from mammodet.data.images import write_jpeg, write_png


def picture(height: int = 120, width: int = 80) -> np.ndarray:
    """A 16-bit picture without repeats."""
    return np.random.default_rng(height * width).integers(0, 65536, (height, width), dtype=np.uint16)


def mask_of(size_hw: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """uint8 0 and 255, set in each (top, left, height, width)."""
    mask = np.zeros(size_hw, np.uint8)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = 255
    return mask


def files(folder: Path, **pictures: np.ndarray) -> list[SourceFile]:
    found = []
    for name, pixels in pictures.items():
        path = folder / f"{name}.png"
        write_png(path, pixels)
        found.append(SourceFile(path))
    return found


def test_mask_is_told_by_content_whatever_the_names_say(tmp_path):
    image = picture()
    mask = mask_of((120, 80), (30, 20, 10, 12))
    crop = image[30:40, 20:32]
    for names in ({"a": mask, "b": crop}, {"a": crop, "b": mask}):
        roi = read_roi(files(tmp_path, **names), image)
        assert np.array_equal(roi.mask, mask > 0)
        assert roi.note is None
        assert roi.crop_agrees is True
    assert roi.mask_path.name == "b.png"


def test_wrong_claims_do_not_matter(tmp_path):
    image = picture()
    mask = mask_of((120, 80), (30, 20, 10, 12))
    first, second = files(tmp_path, mask=mask, crop=image[30:40, 20:32])
    swapped = [SourceFile(first.path, "crop"), SourceFile(second.path, "mask")]
    assert np.array_equal(read_roi(swapped, image).mask, mask > 0)


def test_all_parts_of_a_mask_are_kept(tmp_path):
    mask = mask_of((120, 80), (10, 10, 5, 5), (50, 40, 3, 3), (100, 70, 1, 1))
    assert read_roi(files(tmp_path, mask=mask), picture()).mask.sum() == 25 + 9 + 1


def test_mask_may_have_any_two_values(tmp_path):
    mask = (mask_of((120, 80), (30, 20, 10, 12)) > 0).astype(np.uint8)  # 0 and 1
    assert read_roi(files(tmp_path, mask=mask), picture()).mask.sum() == 120


def test_crop_of_another_size_is_told(tmp_path):
    image = picture()
    roi = read_roi(files(tmp_path, mask=mask_of((120, 80), (30, 20, 10, 12)), crop=image[10:60, 10:60]), image)
    assert roi.crop_agrees is False


def test_uniform_rescale_is_brought_back(tmp_path):
    # 1.5 times the image: rows 30-59 and columns 15-44 there are rows 20-39 and columns 10-29 here.
    mask = mask_of((180, 120), (30, 15, 30, 30))
    roi = read_roi(files(tmp_path, mask=mask), picture())
    assert roi.note == "mask rescaled from 180x120"
    assert np.array_equal(roi.mask, mask_of((120, 80), (20, 10, 20, 20)) > 0)


@pytest.mark.parametrize(
    ("found", "image", "uniform"),
    [
        ((5041, 2056), (4386, 1789), True),  # Mass-Test_P_00145_LEFT_CC
        ((4624, 3056), (4688, 3088), False),  # Calc-Test_P_00353_LEFT_CC
        ((100, 50), (100, 51), True),  # a pixel of rounding
        ((100, 50), (100, 55), False),
        ((49, 25), (100, 50), False),  # less than half: more likely a crop
    ],
)
def test_uniform_scale(found, image, uniform):
    assert is_uniform_scale(found, image) is uniform


def test_padded_frame_of_the_same_shape_is_placed_by_its_crop(tmp_path):
    # 20 rows and 15 columns around an image of 400x300: a uniform scale of 1.1, that it is not.
    image = picture(400, 300)
    mask = mask_of((440, 330), (220, 115, 40, 50))
    roi = read_roi(files(tmp_path, mask=mask, crop=image[200:240, 100:150]), image)
    assert roi.note == "mask of 440x330 placed by its crop"
    assert np.array_equal(roi.mask, mask_of((400, 300), (200, 100, 40, 50)) > 0)


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_uniform_rescale_is_kept_where_its_crop_agrees(tmp_path, scale):
    image = cv2.resize(picture(50, 40), (240, 300), interpolation=cv2.INTER_CUBIC)
    crop = cv2.resize(image[100:160, 50:120], None, fx=scale, fy=scale)  # of the image's resolution, or the mask's
    mask = mask_of((450, 360), (150, 75, 90, 105))
    roi = read_roi(files(tmp_path, mask=mask, crop=crop), image)
    assert roi.note == "mask rescaled from 450x360"
    assert np.array_equal(roi.mask, mask_of((300, 240), (100, 50, 60, 70)) > 0)


def test_uniform_rescale_is_kept_inside_a_wide_crop(tmp_path):
    image = picture()
    mask = mask_of((180, 120), (30, 15, 30, 30))  # rows 20-39 and columns 10-29 of the image
    assert read_roi(files(tmp_path, mask=mask, crop=image[5:65, 0:70]), image).note == "mask rescaled from 180x120"
    with pytest.raises(LesionError, match="shows another region"):
        read_roi(files(tmp_path, mask=mask, crop=image[50:110, 0:70]), image)


def test_uniform_rescale_is_refused_where_its_crop_is_of_another_size_and_not_found(tmp_path):
    mask = mask_of((180, 120), (30, 15, 30, 30))
    with pytest.raises(LesionError, match="its crop is not found on the image"):
        read_roi(files(tmp_path, mask=mask, crop=picture(40, 44)), picture())


@pytest.mark.parametrize(("dy", "dx"), [(6, 4), (0, -3), (-5, 7)])
def test_mask_of_a_cut_or_padded_frame_is_placed_by_its_crop(tmp_path, dy, dx):
    image = picture(400, 300)
    crop = image[200:240, 100:150]
    # In the mask's frame, 390x306, the lesion lies elsewhere than on the image.
    mask = mask_of((390, 306), (200 + dy, 100 + dx, 40, 50))
    roi = read_roi(files(tmp_path, mask=mask, crop=crop), image)
    assert roi.note == "mask of 390x306 placed by its crop"
    assert np.array_equal(roi.mask, mask_of((400, 300), (200, 100, 40, 50)) > 0)


def test_stretched_mask_is_placed_by_its_crop(tmp_path):
    image = picture(400, 300)
    crop = image[200:240, 100:150]
    # 340x300: the rows are pressed to 0.85, so 40 rows of lesion became 34, at row 170.
    mask = mask_of((340, 300), (170, 100, 34, 50))
    roi = read_roi(files(tmp_path, mask=mask, crop=crop), image)
    assert np.array_equal(roi.mask, mask_of((400, 300), (200, 100, 40, 50)) > 0)


def refusal(tmp_path, image=None, **pictures) -> str:
    with pytest.raises(LesionError) as caught:
        read_roi(files(tmp_path, **pictures), picture(400, 300) if image is None else image)
    return str(caught.value)


def test_odd_mask_size_without_a_crop_is_refused(tmp_path):
    assert refusal(tmp_path, mask=mask_of((390, 306), (9, 9, 9, 9))) == (
        "its mask has 390x306 pixels, the image 400x300 (height x width): no uniform scale, "
        "and there is no crop to tell its place"
    )


def test_odd_mask_size_with_a_crop_from_elsewhere_is_refused(tmp_path):
    mask = mask_of((390, 306), (200, 100, 40, 50))
    other = np.random.default_rng(9).integers(0, 65536, (40, 50), dtype=np.uint16)
    assert refusal(tmp_path, mask=mask, crop=other).endswith("its crop is not found on the image")
    image = picture(400, 300)
    larger = image[100:200, 100:200]
    assert refusal(tmp_path, mask=mask, crop=larger).endswith("its crop of 100x100 pixels shows another region")


@pytest.mark.parametrize(
    ("pictures", "reason"),
    [
        ({}, "its mask and crop are missing"),
        ({"mask": mask_of((400, 300))}, "its mask mask.png is empty"),
        ({"mask": mask_of((400, 300), (0, 0, 400, 299))}, "its mask mask.png covers 100 % of the image"),
        (
            {"a": picture(400, 300), "b": picture(30, 40)},
            "no mask of the image's size (400x300, height x width) among its files: a.png is a grey picture; "
            "b.png has 30x40 pixels",
        ),
    ],
)
def test_lesion_without_a_usable_mask_is_refused_with_its_reason(tmp_path, pictures, reason):
    assert refusal(tmp_path, **pictures) == reason


def test_inverted_mask_is_refused_where_its_crop_tells(tmp_path):
    inverted = 255 - mask_of((400, 300), (50, 50, 120, 150))  # 85 % of the image
    assert refusal(tmp_path, mask=inverted, crop=picture(120, 150)) == (
        "its mask mask.png covers 85 % of the image, its crop has only 120x150 pixels: is the mask inverted?"
    )


def test_damaged_mask_is_refused_by_name(tmp_path):
    (file,) = files(tmp_path, mask=mask_of((400, 300), (9, 9, 9, 9)))
    file.path.write_bytes(file.path.read_bytes()[:-30])
    with pytest.raises(LesionError, match=r"no mask of the image's size.*mask\.png: is cut short"):
        read_roi([file], picture(400, 300))


def test_mask_in_a_jpeg_is_read_through_its_rings(tmp_path):
    mask = mask_of((400, 300), (101, 53, 61, 87))
    write_jpeg(tmp_path / "1-1.jpg", mask, quality=75)
    write_jpeg(tmp_path / "1-2.jpg", (picture(61, 87)))
    roi = read_roi([SourceFile(tmp_path / "1-2.jpg"), SourceFile(tmp_path / "1-1.jpg")], picture(400, 300))
    assert np.array_equal(roi.mask, mask > 0)


def test_two_values():
    assert two_valued(np.array([[0, 7], [7, 0]], np.uint16), lossy=False).tolist() == [[False, True], [True, False]]
    assert two_valued(np.array([[0, 7], [8, 0]], np.uint16), lossy=False) is None
    assert not two_valued(np.zeros((2, 2), np.uint8), lossy=False).any()
    assert two_valued(np.tile(np.arange(256, dtype=np.uint8), (8, 1)), lossy=True) is None
    assert two_valued(np.array([[3, 250, 0, 255]], np.uint8), lossy=True).tolist() == [[False, True, False, True]]


def test_a_lesion_of_one_pixel_never_vanishes_when_reduced():
    mask = np.zeros((100, 100), bool)
    mask[50, 50] = True
    small = resize_mask(mask, (10, 10))
    assert small.sum() == 1
    assert small[5, 5]


def test_crop_is_located_to_the_pixel_on_a_large_image():
    coarse = np.random.default_rng(3).integers(0, 65536, (150, 90), dtype=np.uint16)
    image = cv2.resize(coarse, (900, 1500), interpolation=cv2.INTER_LINEAR)
    assert locate(image[701:801, 333:433], image) == (333, 701)


def test_crop_that_fits_in_two_places_is_not_sure():
    image = picture(200, 200)
    image[100:150, 100:150] = image[10:60, 10:60]
    assert locate(image[10:60, 10:60], image) is None
    assert locate(np.full((20, 20), 7, np.uint16), image) is None
    assert locate(picture(300, 300), image) is None


def test_enlarging_never_loses_a_lesion():
    # 77x37 to 96x46, one pixel: the nearest new centres see less than half of it, in both directions together.
    for row in range(30, 40):
        assert resize_mask(mask_of((77, 37), (row, 18, 1, 1)) > 0, (96, 46)).any()
    assert not resize_mask(np.zeros((77, 37), bool), (96, 46)).any()
