"""Image files: depth kept exactly, damage told."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from mammodet.data.images import (
    is_dicom,
    is_image,
    read_image,
    read_orientation,
    read_size_hw,
    to_display,
    to_unit,
    write_png,
)
from mammodet.errors import InputError

RNG = np.random.default_rng(0)
EIGHT = RNG.integers(0, 256, (30, 40), dtype=np.uint8)
SIXTEEN = RNG.integers(0, 65536, (30, 40), dtype=np.uint16)


def encode(path: Path, pixels: np.ndarray) -> Path:
    good, content = cv2.imencode(path.suffix, pixels)
    assert good
    path.write_bytes(content.tobytes())
    return path


@pytest.mark.parametrize("suffix", [".png", ".pgm", ".tif", ".tiff", ".bmp", ".PNG"])
def test_eight_bit_files_are_read_exactly(tmp_path, suffix):
    pixels = read_image(encode(tmp_path / f"x{suffix}", EIGHT))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, EIGHT)


@pytest.mark.parametrize("suffix", [".png", ".pgm", ".tif"])
def test_sixteen_bit_files_are_read_exactly(tmp_path, suffix):
    pixels = read_image(encode(tmp_path / f"x{suffix}", SIXTEEN))
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, SIXTEEN)


def test_jpeg_is_read_to_its_own_accuracy(tmp_path):
    smooth = np.add.outer(np.arange(30), 3 * np.arange(40)).astype(np.uint8)
    pixels = read_image(encode(tmp_path / "x.jpg", smooth))
    assert pixels.shape == (30, 40)
    assert np.abs(pixels.astype(int) - smooth).max() <= 4


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"P5\n2 2\n255\n" + bytes([10, 10, 35, 32]), [[10, 10], [35, 32]]),  # pixels that look like white space
        (b"P5\n# scanned\n2 2\n# by hand\n255\n\x00\x01\x02\x03", [[0, 1], [2, 3]]),
        (b"P5 3 1 4095 \x00\x01\x00\x02\x0f\xff", [[16, 32, 65535]]),  # 12 bits, high byte first: 65535 / 4095 = 16.004
        (b"P5\n2 1\n15\n\x03\x0f", [[51, 255]]),
        (b"P2\n2 1\n255\n7 8\n", [[7, 8]]),
        (b"P5\n1 1\n255\n\x07trailing", [[7]]),
    ],
)
def test_pgm_variants_are_read(tmp_path, content, expected):
    (tmp_path / "x.pgm").write_bytes(content)
    assert read_image(tmp_path / "x.pgm").tolist() == expected


def test_colour_with_equal_channels_is_that_channel(tmp_path):
    for pixels in (EIGHT, SIXTEEN):
        path = encode(tmp_path / "x.png", np.repeat(pixels[..., None], 3, axis=2))
        assert np.array_equal(read_image(path), pixels)


def test_colour_becomes_its_luminance(tmp_path):
    blue_green_red = np.zeros((2, 3, 3), np.uint8)
    blue_green_red[:, 0], blue_green_red[:, 1], blue_green_red[:, 2] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    # ITU-R BT.601: 0.114 B + 0.587 G + 0.299 R
    assert read_image(encode(tmp_path / "x.png", blue_green_red))[0].tolist() == [23, 117, 60]


def test_alpha_is_dropped(tmp_path):
    alpha = np.zeros_like(EIGHT)
    path = encode(tmp_path / "x.png", np.stack([EIGHT, EIGHT, EIGHT, alpha], axis=2))
    assert np.array_equal(read_image(path), EIGHT)
    Image.fromarray(np.stack([EIGHT, alpha], axis=2), "LA").save(tmp_path / "y.png")
    assert np.array_equal(read_image(tmp_path / "y.png"), EIGHT)


def test_names_with_blanks_and_other_letters_are_read(tmp_path):
    path = tmp_path / "Patientin Ä 01" / "größe 乳.png"
    write_png(path, EIGHT)
    assert np.array_equal(read_image(path), EIGHT)


def test_suffix_may_lie_about_the_kind(tmp_path):
    encode(tmp_path / "x.png", EIGHT).rename(tmp_path / "x.jpg")
    assert np.array_equal(read_image(tmp_path / "x.jpg"), EIGHT)


@pytest.mark.parametrize("suffix", [".pgm", ".png", ".jpg", ".bmp"])
def test_truncated_files_are_refused(tmp_path, suffix):
    path = encode(tmp_path / f"x{suffix}", EIGHT)
    content = path.read_bytes()
    for length in (1, 10, len(content) // 2, len(content) - 20, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"x\.\w+: "):
            read_image(path)


@pytest.mark.parametrize(("kind", "suffix"), [(".jpg", ".png"), (".png", ".jpg"), (".pgm", ".png")])
def test_truncated_files_are_refused_under_a_wrong_suffix(tmp_path, kind, suffix):
    content = encode(tmp_path / f"x{kind}", EIGHT).read_bytes()
    (tmp_path / f"y{suffix}").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError, match="is cut short"):
        read_image(tmp_path / f"y{suffix}")


def test_truncated_tiff_is_refused_or_has_all_its_pixels(tmp_path):
    path = encode(tmp_path / "x.tif", SIXTEEN)
    content, refused = path.read_bytes(), 0
    for length in range(1, len(content), 37):
        path.write_bytes(content[:length])
        try:
            assert np.array_equal(read_image(path), SIXTEEN)  # only the directory's last bytes are missing
        except InputError:
            refused += 1
    assert refused > 0.9 * len(content) / 37


def test_truncated_tiff_with_its_directory_in_front_is_refused(tmp_path):
    path = tmp_path / "x.tif"
    Image.fromarray(SIXTEEN).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(InputError):
        read_image(path)


def test_truncated_pgm_says_how_much_is_missing(tmp_path):
    (tmp_path / "x.pgm").write_bytes(b"P5\n4 3\n255\n" + bytes(7))
    with pytest.raises(InputError, match=r"is cut short: 7 pixel bytes, expected 12 \(4x3\)"):
        read_image(tmp_path / "x.pgm")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.png", b"", "the file is empty"),
        ("x.png", b"not an image at all", "cannot be decoded"),
        ("x.pgm", b"P5\nwide high\n255\n", "the PGM header is damaged"),
        ("x.pgm", b"P5\n" + b"9" * 5000 + b" 2\n255\n" + bytes(9), "the PGM header is damaged"),
        ("x.pgm", b"P5\n0 0\n255\n", "cannot be decoded"),
        ("x.dcm", b"DICM", "is not a DICOM file"),
        ("x.nii", b"abc", "cannot read '.nii' files; expected one of .png"),
        ("x", b"abc", "cannot read '' files"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / name)


def test_missing_files_folders_and_impossible_names_are_told(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for name, message in (
        ("nowhere.png", "no such image"),
        ("folder.png", "is a folder"),
        ("a" * 300 + ".png", "cannot be read"),
        ("a\0.png", "cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            read_image(tmp_path / name)


def test_floating_point_images_are_refused(tmp_path):
    Image.fromarray(SIXTEEN.astype(np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match="pixels are float32; expected 8- or 16-bit unsigned integers"):
        read_image(tmp_path / "x.tif")


def test_to_unit_puts_both_depths_on_one_scale():
    eight, sixteen = to_unit(np.array([[0, 51, 255]], np.uint8)), to_unit(np.array([[0, 13107, 65535]], np.uint16))
    assert eight.dtype == sixteen.dtype == np.float32
    assert eight.tolist() == sixteen.tolist() == [[0, pytest.approx(0.2), 1]]


def test_to_unit_keeps_all_sixteen_bits_apart():
    levels = np.arange(65536, dtype=np.uint16)
    assert len(np.unique(to_unit(levels))) == 65536


def test_to_display_leaves_eight_bits_alone_and_stretches_sixteen():
    assert np.array_equal(to_display(EIGHT), EIGHT)
    twelve = np.full((40, 40), 2048, np.uint16)
    twelve[:, 20:] = 4096
    shown = to_display(twelve)
    assert shown.dtype == np.uint8
    assert (shown[0, 0], shown[0, -1]) == (128, 255)
    assert to_display(np.zeros((9, 9), np.uint16)).max() == 0


def test_write_png_keeps_sixteen_bits_and_the_order_of_colours(tmp_path):
    write_png(tmp_path / "grey.png", SIXTEEN)
    assert np.array_equal(read_image(tmp_path / "grey.png"), SIXTEEN)
    red = np.zeros((4, 5, 3), np.uint8)
    red[..., 0] = 255
    write_png(tmp_path / "red.png", red)
    assert Image.open(tmp_path / "red.png").convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grey.png", "red.png"]


# as the picture lies


def turned(path: Path, pixels: np.ndarray, orientation: object, **options: object) -> Path:
    """A file whose Exif data state an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("suffix", "pixels"), [(".jpg", EIGHT), (".png", SIXTEEN), (".tif", SIXTEEN), (".tif", EIGHT)])
def test_pictures_are_read_upright_by_all_eight_orientations(tmp_path, suffix, pixels, orientation):
    path = tmp_path / f"x{suffix}"
    if suffix == ".tif":
        Image.fromarray(pixels).save(path, tiffinfo={274: orientation})
        stored = pixels
    else:
        stored = np.asarray(Image.open(turned(path, pixels, orientation)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(stored)
    picture.getexif().update(exif)
    upright = np.asarray(ImageOps.exif_transpose(picture))
    assert np.array_equal(read_image(path), upright)
    assert read_size_hw(path) == upright.shape == ((40, 30) if orientation > 4 else (30, 40))
    assert read_orientation(path) == orientation


def test_orientation_of_a_marked_corner_by_hand(tmp_path):
    corner = np.zeros((2, 3), np.uint8)
    corner[0, 0] = 200
    # 6: the stored picture's first row is the right side of the upright one, its first column the top
    assert read_image(turned(tmp_path / "x.png", corner, 6)).tolist() == [[0, 200], [0, 0], [0, 0]]


def test_orientation_may_follow_the_pixels_of_a_png(tmp_path):
    content = encode(tmp_path / "x.png", EIGHT).read_bytes()
    exif = Image.Exif()
    exif[0x0112] = 3
    body = exif.tobytes()[6:]
    chunk = struct.pack(">L4s", len(body), b"eXIf") + body + struct.pack(">L", zlib.crc32(b"eXIf" + body))
    (tmp_path / "x.png").write_bytes(content[:-12] + chunk + content[-12:])
    assert np.array_equal(read_image(tmp_path / "x.png"), EIGHT[::-1, ::-1])


def test_orientations_that_are_none_are_refused_and_zero_is_upright(tmp_path):
    assert np.array_equal(read_image(turned(tmp_path / "x.png", EIGHT, 0)), EIGHT)
    with pytest.raises(InputError, match=r"x\.png: its orientation .* is '9'; expected 1 to 8"):
        read_image(turned(tmp_path / "x.png", EIGHT, 9))


@pytest.mark.parametrize(("orientation", "is_read"), [(1, True), (3, False), (6, False)])
def test_orientation_in_a_text_chunk_of_a_png_is_refused(tmp_path, orientation, is_read):
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(exif.tobytes()):8}\n{exif.tobytes().hex()}\n", zip=True)
    Image.fromarray(pixels).save(tmp_path / "a.png", pnginfo=text)
    if is_read:
        assert np.array_equal(read_image(tmp_path / "a.png"), pixels)
        return
    with pytest.raises(InputError, match="its Exif orientation is in a text chunk"):
        read_image(tmp_path / "a.png")


def test_exif_data_that_are_cut_short_are_refused(tmp_path):
    path = turned(tmp_path / "x.jpg", EIGHT, 6)
    content = path.read_bytes()
    one, many = (b"\x01\x12\0\x03\0\0" + count for count in (b"\0\x01", b"\xff\xff"))
    assert content.count(one) == 1
    path.write_bytes(content.replace(one, many))  # 65535 orientations, which the file has not
    with pytest.raises(InputError, match="its Exif data cannot be read"):
        read_image(path)


# photometric interpretation and levels


def test_white_is_zero_tiff_is_inverted_at_every_depth(tmp_path):
    for pixels, white in ((EIGHT, 255), (SIXTEEN, 65535)):
        path = tmp_path / "x.tif"
        Image.fromarray(pixels).save(path)
        content = path.read_bytes()
        tag = struct.pack("<HHLHH", 262, 3, 1, 1, 0)
        path.write_bytes(content.replace(tag, struct.pack("<HHLHH", 262, 3, 1, 0, 0)))
        assert np.array_equal(read_image(path), white - pixels)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"P5 2 1 100 \x00\x64", [[0, 255]]),
        (b"P5 2 1 256 \x00\x01\x01\x00", [[256, 65535]]),  # 65535 / 256 = 255.996
        (b"P2 2 1 3\n1 3\n", [[85, 255]]),
        (b"P6 1 1 15 \x0f\x00\x00", [[76]]),  # red: 0.299 * 255
        (b"P3 1 1 255 7 7 7", [[7]]),
    ],
)
def test_the_largest_value_of_a_pnm_file_is_white(tmp_path, content, expected):
    (tmp_path / "x.pgm").write_bytes(content)
    assert read_image(tmp_path / "x.pgm").tolist() == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P5 2 1 100 \x00\x65", "holds the value 101; its header says at most 100"),
        (b"P2 2 1 100 1 101", "holds the value 101"),
        (b"P2 2 1 255 1 x", "something else than numbers"),
        (b"P2 2 2 255 1 2 3 ", "is cut short: 3 values, expected 4"),
        (b"P5 1 1 255 \x07P5 1 1 255 \x08", "holds several pictures"),
        (b"P5 1 1 0 \x07", "its largest value is 0"),
        (b"P4 8 1 \x07", "kind b'P4'"),
    ],
)
def test_faulty_pnm_files_are_refused(tmp_path, content, message):
    (tmp_path / "x.pgm").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / "x.pgm")


def test_several_pictures_in_a_file_are_refused(tmp_path):
    pages = [Image.fromarray(EIGHT), Image.fromarray(EIGHT)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "x.png", save_all=True, append_images=[Image.fromarray(255 - EIGHT)])
    for name, message in (("x.tif", "several pages"), ("x.png", "several pictures")):
        with pytest.raises(InputError, match=message):
            read_image(tmp_path / name)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits", "tiff_adobe_deflate"])
@pytest.mark.parametrize("pixels", [EIGHT, SIXTEEN])
def test_tiff_whose_strip_lacks_data_is_refused(tmp_path, pixels, compression):
    path = tmp_path / "x.tif"
    Image.fromarray(pixels).save(path, compression=compression)
    assert np.array_equal(read_image(path), pixels)
    content = bytearray(path.read_bytes())
    with Image.open(path) as image:
        (count,) = image.tag_v2[279]
    at = content.index(struct.pack("<HHLL", 279, 4, 1, count)) + 8
    content[at : at + 4] = struct.pack("<L", count // 2)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cut short"):
        read_image(path)


def test_jpeg_within_tiff_and_colours_in_planes_are_refused(tmp_path):
    path = tmp_path / "x.tif"
    Image.fromarray(EIGHT).save(path, compression="jpeg")
    with pytest.raises(InputError, match="is a TIFF of compression 7"):
        read_image(path)
    Image.fromarray(EIGHT).convert("RGB").save(path)
    plane = struct.pack("<HHLL", 284, 3, 1, 1)
    path.write_bytes(path.read_bytes().replace(plane, struct.pack("<HHLL", 284, 3, 1, 2)))
    with pytest.raises(InputError, match="planar configuration 2"):
        read_image(path)


# whole and bounded


def jpegs() -> list[bytes]:
    """Of every structure: progressive, restart intervals, optimised codes, colours."""
    smooth = np.add.outer(2 * np.arange(70), np.arange(93)).astype(np.uint8)
    found = []
    for pixels in (smooth, RNG.integers(0, 256, (70, 93), dtype=np.uint8)):
        for mode in ("L", "RGB"):
            for options in (
                {"quality": 30},
                {"quality": 100, "optimize": True},
                {"progressive": True, "quality": 95},
                {"restart_marker_blocks": 3, "quality": 75, "subsampling": 2},
                {"restart_marker_rows": 1, "progressive": True},
            ):
                content = io.BytesIO()
                Image.fromarray(pixels).convert(mode).save(content, "JPEG", **options)
                found.append(content.getvalue())
    return found


@pytest.mark.parametrize("number", range(20))
def test_jpeg_whose_scan_was_cut_is_refused_whatever_its_structure(tmp_path, number):
    whole, path = jpegs()[number], tmp_path / "x.jpg"
    path.write_bytes(whole + b"padding")
    assert read_image(path).shape == (70, 93)
    scan = whole.rindex(b"\xff\xda") + 20
    for share in (0.0, 0.25, 0.6, 0.95):
        cut = whole[: scan + int(share * (len(whole) - 2 - scan))].rstrip(b"\xff")
        path.write_bytes(cut + b"\xff\xd9")
        with pytest.raises(InputError, match="is cut short"):
            read_image(path)


def test_jpeg_without_its_last_scans_or_a_restart_interval_is_refused(tmp_path):
    grey = Image.fromarray(EIGHT)
    progressive, restarts = io.BytesIO(), io.BytesIO()
    grey.save(progressive, "JPEG", progressive=True)
    grey.save(restarts, "JPEG", restart_marker_blocks=2)
    content = progressive.getvalue()
    (tmp_path / "x.jpg").write_bytes(content[: content.rindex(b"\xff\xda")] + b"\xff\xd9")
    with pytest.raises(InputError, match="scans are missing"):
        read_image(tmp_path / "x.jpg")
    content = restarts.getvalue()
    first, second = content.index(b"\xff\xd0"), content.index(b"\xff\xd1")
    (tmp_path / "x.jpg").write_bytes(content[:first] + content[second:])
    with pytest.raises(InputError, match=r"restart marker D1 .* data are missing"):
        read_image(tmp_path / "x.jpg")
    last = content.rindex(b"\xff\xd7")
    (tmp_path / "x.jpg").write_bytes(content[:last] + b"\xff\xd9")
    with pytest.raises(InputError, match=r"a scan has \d+ restart intervals, expected 10"):
        read_image(tmp_path / "x.jpg")


def png_of(width: int, height: int, depth: int = 8) -> bytes:
    """A PNG whose header states a size that its data do not have."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))

    header = struct.pack(">LLBBBBB", width, height, depth, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def jpeg_of(width: int, height: int) -> bytes:
    content = bytearray(cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1].tobytes())
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def tiff_of(width: int, height: int) -> bytes:
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    tags += [(277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 9)]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + b"".join(struct.pack("<HHLL", *tag) for tag in tags) + bytes(4)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jpg", jpeg_of(32000, 32000), "states 32000 rows x 32000 columns"),
        ("x.jpg", jpeg_of(4000, 4000), r"\d+ bytes cannot hold the 4000 rows x 4000 columns"),
        ("x.png", png_of(2**30, 2**30), "states 1073741824 rows"),
        ("x.png", png_of(8000, 8000), r"\d+ bytes cannot hold the 8000 rows x 8000 columns"),
        ("x.pgm", b"P5 32000 32000 255\n", "states 32000 rows"),
        ("x.pgm", b"P2 8000 8000 255\n1 2 3", "22 bytes cannot hold"),
        ("x.tif", tiff_of(8000, 8000), "bytes cannot hold the 8000 rows"),
        ("x.tif", tiff_of(60000, 60000), "60000|too many pixels"),
        ("x.bmp", b"BM" + struct.pack("<LLL3lHHLLllLL", 99, 0, 54, 40, 8000, 8000, 1, 8, *[0] * 6), "cannot hold"),
        ("x.png", b"\0\0\0\x0cjP  \r\n\x87\n", "begins with .* as no JPEG, PNG, TIFF, PNM or BMP file does"),
    ],
)
def test_sizes_that_a_file_cannot_hold_are_refused_by_the_header(tmp_path, name, content, message, monkeypatch):
    (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    for read in (read_size_hw, read_image):
        with pytest.raises(InputError, match=message):
            read(tmp_path / name)


def test_pipes_and_devices_are_refused_unopened(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name, message in (("x.png", "is a pipe; expected an image"), ("zero.png", "is a device")):
        with pytest.raises(InputError, match=message):
            read_image(tmp_path / name)


def test_dicom_is_told_by_suffix_or_by_its_mark(tmp_path):
    marked = bytes(128) + b"DICM"
    for name, expected in (
        ("a.dcm", True),
        ("a.IMA", True),
        ("IM-0001", True),
        ("1.2.840.113619.2.66.2158408118", True),
        ("a.dcm.bak", False),
        ("a.png", False),
        ("DICOMDIR", False),
    ):
        (tmp_path / name).write_bytes(marked)
        assert is_dicom(tmp_path / name) is expected, name
    (tmp_path / "README").write_text("text")
    os.mkfifo(tmp_path / "pipe")
    assert not is_dicom(tmp_path / "README")
    assert not is_dicom(tmp_path / "pipe")
    assert not is_dicom(tmp_path / "nowhere")
    assert is_image(tmp_path / "a.png")
    assert is_image(tmp_path / "IM-0001")
    assert not is_image(tmp_path / "README")
