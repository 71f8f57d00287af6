"""The phantom of the RSNA archive."""

import numpy as np
import pydicom
import pytest

from mammodet.data.dicom import read_stored
from mammodet.errors import InputError
from mammodet.phantom.rsna import encode_jpeg_lossless, write_rsna_archive


def test_phantom_depends_on_its_seed_and_not_on_the_number_of_processes(tmp_path):
    for name, seed, jobs in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        write_rsna_archive(tmp_path / name, patients=4, size=64, seed=seed, jobs=jobs, progress=False)
    archives = [
        {
            path.relative_to(tmp_path / name).as_posix(): path.read_bytes()
            for path in (tmp_path / name).rglob("*.*")
            if path.is_file()
        }
        for name in "abc"
    ]
    assert archives[0] == archives[1]
    assert archives[0].keys() == archives[2].keys()
    assert archives[0] != archives[2]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"patients": 0}, "--patients 0: expected a whole number from 1 to 9999"),
        ({"size": 8}, "--size 8: expected a whole number from 64 to 6000"),
        ({"difficulty": "hard"}, "--difficulty hard: expected one of realistic, easy"),
        ({"positive_fraction": 1.5}, "--positive-fraction 1.5: expected a number from 0 to 1"),
        ({"quirks": ["odd"]}, "--quirks odd: expected some of missing_image"),
        ({"limit": 0}, "--limit 0: expected a whole number of 1 or more"),
        ({"jobs": 0}, "jobs 0: expected 1 or more"),
        ({"seed": -1}, "seed -1: expected a whole number of 0 or more"),
    ],
)
def test_phantom_refuses_wrong_options(tmp_path, options, told):
    with pytest.raises(InputError, match=told):
        write_rsna_archive(tmp_path / "archive", **options)


@pytest.mark.parametrize("bits", [9, 12, 14, 16])
def test_lossless_jpeg_is_what_other_decoders_read(tmp_path, bits):
    """Against libjpeg: noise of the full range, whose differences have every number of bits, and both extremes."""
    from small_dicom import compressed, image, save

    rng = np.random.default_rng(bits)
    top = (1 << bits) - 1
    pixels = rng.integers(0, top + 1, (40, 33), dtype=np.uint16)
    pixels[0, :8] = [0, top, 0, top // 2 + 1, 0, top, top, 0]
    pixels[20:] = top // 3  # differences of 0
    frame = encode_jpeg_lossless(pixels, bits)
    dataset = compressed(image(pixels, bits), frame)
    path = save(tmp_path / "a.dcm", dataset, pydicom.uid.JPEGLosslessSV1)
    assert np.array_equal(read_stored(path), pixels)
