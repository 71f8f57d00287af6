"""Prepared images in files and in memory: hits, misses, damage, and that nothing is answered from an old file."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_engine import config_for

from mammodet.config import ImageConfig
from mammodet.data.images import write_png
from mammodet.data.prepared import DiskCache, MemoryCache, Prepared, prepare_record
from mammodet.engine.checked_run import prepare
from mammodet.engine.loaders import Loaders
from mammodet.engine.train import Machines, Pace, RunLog, _trainer
from mammodet.errors import InputError
from mammodet.records import ImageRecord

IMAGE = ImageConfig(max_size=32, channels=["full", "tissue", "clahe"])


@pytest.fixture
def record(tmp_path: Path) -> ImageRecord:
    """An image of 40x30 pixels in `data` with a crop box."""
    write_image(tmp_path, seed=0)
    return ImageRecord(1, "images/a ü.png", (40, 30), breast_box_xyxy=(2.0, 3.0, 28.0, 39.0))


def write_image(folder: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 30), dtype=np.uint8)
    write_png(folder / "data/images/a ü.png", pixels)


def cache_of(tmp_path: Path, image: ImageConfig = IMAGE) -> DiskCache:
    return DiskCache(tmp_path / "data/.prepared", tmp_path / "data", image)


def assert_same(found: Prepared, expected: Prepared) -> None:
    assert found[0].dtype == np.float32
    assert found[0].tobytes() == expected[0].tobytes()
    assert found[0].shape == expected[0].shape
    assert found[1] == expected[1]


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "data/.prepared").rglob("*.*"))


def test_disk_cache_answers_bit_for_bit_and_reads_the_image_once(tmp_path, record, monkeypatch):
    expected = prepare_record(tmp_path / "data", IMAGE, record)
    assert_same(cache_of(tmp_path)(record), expected)
    [made] = files(tmp_path)
    assert made.suffix == ".npz"
    monkeypatch.setattr("mammodet.data.prepared.read_image", None)
    assert_same(cache_of(tmp_path)(record), expected)


def test_a_change_of_whatever_decides_the_content_makes_a_new_file(tmp_path, record, monkeypatch):
    cache_of(tmp_path)(record)
    other_box = replace(record, breast_box_xyxy=(0.0, 0.0, 30.0, 40.0))
    smaller = ImageConfig(**{**IMAGE.model_dump(), "max_size": 48})
    fewer = ImageConfig(**{**IMAGE.model_dump(), "channels": ["tissue"]})
    for number, (image, item) in enumerate(((IMAGE, other_box), (smaller, record), (fewer, record)), 2):
        found = cache_of(tmp_path, image)(item)
        assert_same(found, prepare_record(tmp_path / "data", image, item))
        assert len(files(tmp_path)) == number
    assert cache_of(tmp_path).path(replace(record, size_hw=(30, 40))) not in files(tmp_path)
    monkeypatch.setattr("mammodet.data.prepared.PREPARATION", -1)
    assert not cache_of(tmp_path).path(record).exists()


def test_a_changed_image_is_prepared_anew(tmp_path, record):
    path = tmp_path / "data/images/a ü.png"
    first = cache_of(tmp_path)(record)
    write_image(tmp_path, seed=1)
    second = cache_of(tmp_path)(record)
    assert not np.array_equal(first[0], second[0])
    assert_same(second, prepare_record(tmp_path / "data", IMAGE, record))
    # The same size and time within a nanosecond's reach: the time alone tells.
    before = cache_of(tmp_path).path(record)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert cache_of(tmp_path).path(record) not in (before, None)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "flipped"])
def test_a_damaged_file_is_made_anew(tmp_path, record, damage):
    expected = cache_of(tmp_path)(record)
    path = cache_of(tmp_path).path(record)
    whole = path.read_bytes()
    places = range(0, len(whole), 97) if damage == "flipped" else [len(whole) // 2]
    for place in places:
        broken = {
            "empty": b"",
            "cut": whole[:place],
            "text": b"no array",
            "flipped": whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :],
        }[damage]
        path.write_bytes(broken)
        assert_same(cache_of(tmp_path)(record), expected)
        assert_same(cache_of(tmp_path)(record), expected)
    if damage != "flipped":
        assert path.stat().st_size == len(whole)


def test_the_cache_moves_with_its_data_and_an_outer_folder_tells_data_sets_apart(tmp_path, record):
    cache_of(tmp_path)(record)
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "data", tmp_path / "moved/data")
    assert cache_of(tmp_path / "moved").path(record).is_file()
    shutil.copytree(tmp_path / "moved/data", tmp_path / "twin", copy_function=shutil.copy2)
    outer = [DiskCache(tmp_path / "outer", tmp_path / name, IMAGE).path(record) for name in ("moved/data", "twin")]
    assert outer[0] != outer[1]


def test_a_folder_that_cannot_be_written_is_told_with_what_to_do(tmp_path, record):
    (tmp_path / "file").write_text("")
    cache = DiskCache(tmp_path / "file/cache", tmp_path / "data", IMAGE)
    for work in (lambda: cache(record), lambda: cache.fill([record], jobs=1, name="x", say=print)):
        with pytest.raises(InputError, match=r"cannot be written.*data.cache_dir=.*data.cache=none"):
            work()


@pytest.mark.parametrize("kind", ["disk", "memory"])
@pytest.mark.parametrize("jobs", [1, 2])
def test_fill_prepares_what_is_missing_in_parallel(tmp_path, record, kind, jobs, monkeypatch):
    for number in range(2, 6):
        shutil.copy(tmp_path / "data/images/a ü.png", tmp_path / f"data/images/{number}.png")
    records = [record, *(replace(record, image_id=number, file_name=f"images/{number}.png") for number in range(2, 6))]
    cache = cache_of(tmp_path) if kind == "disk" else MemoryCache(tmp_path / "data", IMAGE)
    cache(record)
    said: list[str] = []
    cache.fill(records, jobs=jobs, name="preparing", say=said.append)
    assert any(line.startswith("preparing 4/4" if kind == "disk" else "preparing 5/5") for line in said)
    assert ("preparing: 1 of 5" if kind == "disk" else "preparing: 5 images take") in "\n".join(said)
    monkeypatch.setattr("mammodet.data.prepared.read_image", None)
    for item in records:
        assert_same(cache(item), cache(record))


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_fill_names_all_images_that_cannot_be_prepared(tmp_path, record, kind):
    (tmp_path / "data/images/2.png").write_bytes(b"no image")
    records = [
        replace(record, image_id=2, file_name="images/2.png"),
        replace(record, image_id=3, file_name="images/missing.png"),
        replace(record, image_id=4, size_hw=(30, 40)),
        record,
    ]
    cache = cache_of(tmp_path) if kind == "disk" else MemoryCache(tmp_path / "data", IMAGE)
    with pytest.raises(InputError, match=r"3 faults") as caught:
        cache.fill(records, jobs=1, name="x", say=print)
    for part in ("2.png", "missing.png", "the file is 40x30, its record says 30x40"):
        assert part in str(caught.value)


def test_loaders_give_the_same_batches_with_every_cache(phantom_root, tmp_path):
    batches = {}
    for cache in ("none", "memory", "disk", "disk"):
        config = config_for(
            phantom_root, tmp_path / "out", f"data.cache={cache}", f"data.cache_dir={tmp_path / 'cache'}",
            "train.precision=32",
        )  # fmt: skip
        loaders = Loaders(prepare(config))
        loaders.trainer = _trainer(config, Machines(), RunLog(tmp_path / "log"), Pace(1, 1))
        loaders.prepare_data()
        loaders.setup("fit")
        batches[cache] = [*loaders.train_dataloader(), *loaders.val_dataloader()]
        for one, other in zip(batches["none"], batches[cache], strict=True):
            assert [record.image_id for record in one.records] == [record.image_id for record in other.records]
            assert all(map(torch.equal, one.images, other.images))
            assert all(
                torch.equal(target[key], twin[key])
                for target, twin in zip(one.targets, other.targets, strict=True)
                for key in target
            )
            assert one.traces == other.traces
    drawn = {record.image_id for batch in batches["disk"] for record in batch.records}
    assert len(list((tmp_path / "cache").rglob("*.npz"))) >= len(drawn) > 0
