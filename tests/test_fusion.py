"""Answers of several versions of an image, or of several detectors, become one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL

from mammodet.config import Config, load_config
from mammodet.data.coco import read_coco
from mammodet.data.prepared import prepare_record
from mammodet.engine.checked_run import prepare
from mammodet.engine.ensemble import Ensemble
from mammodet.engine.fusion import Look, View, fuse, fuse_detections, tiles_of, views_of, with_tiles
from mammodet.engine.predict import Predictor
from mammodet.engine.train import train
from mammodet.errors import InputError
from mammodet.geometry import mask_to_rle, rle_to_mask
from mammodet.modeling.second_boxes import softened
from mammodet.records import Dataset, Detections, ImagePrediction, ImageRecord
from mammodet.trace import Trace


def found(*rows: tuple[float, float, float, float, float], category: int = 1, masks: bool = False) -> Detections:
    """Rows of x1, y1, x2, y2, score."""
    values = np.array(rows, dtype=float).reshape(-1, 5)
    rles = None
    if masks:
        rles = []
        for x1, y1, x2, y2, _ in rows:
            mask = np.zeros((40, 40), dtype=bool)
            mask[int(y1) : int(y2), int(x1) : int(x2)] = True
            rles.append(mask_to_rle(mask))
    return Detections(values[:, :4], values[:, 4], np.full(len(values), category), rles)


def test_boxes_are_weighted_by_their_scores_and_lone_ones_count_less() -> None:
    one = found((0, 0, 10, 10, 0.9), (30, 30, 40, 40, 0.6))
    other = found((2, 0, 12, 10, 0.3))
    joined = fuse_detections([one, other], 0.5)
    # (0.9 * 0 + 0.3 * 2) / 1.2 = 0.5; mean score 0.6, found by both. The lone one: 0.6 of one of two.
    assert joined.boxes_xyxy.tolist() == [[0.5, 0, 10.5, 10], [30, 30, 40, 40]]
    assert joined.scores.tolist() == pytest.approx([0.6, 0.3])


def test_weaker_boxes_of_the_same_answer_do_not_count() -> None:
    one = found((0, 0, 10, 10, 0.9), (1, 0, 11, 10, 0.3))
    joined = fuse_detections([one, found((0, 0, 10, 10, 0.7))], 0.5)
    assert joined.boxes_xyxy.tolist() == [[0, 0, 10, 10]]
    assert joined.scores.tolist() == pytest.approx([0.8])


def test_categories_and_distant_boxes_stay_apart() -> None:
    joined = fuse_detections([found((0, 0, 10, 10, 0.9)), found((0, 0, 10, 10, 0.8), category=2)], 0.5)
    assert joined.category_ids.tolist() == [1, 2]
    assert joined.scores.tolist() == pytest.approx([0.45, 0.4])
    assert len(fuse_detections([found((0, 0, 10, 10, 0.9)), found((6, 0, 16, 10, 0.8))], 0.5)) == 2


def test_masks_hold_the_pixels_with_half_of_the_weight() -> None:
    joined = fuse_detections([found((0, 0, 10, 10, 0.9), masks=True), found((2, 0, 12, 10, 0.3), masks=True)], 0.5)
    assert joined.rles is not None
    mask = rle_to_mask(joined.rles[0])
    assert mask[:10, :10].all()  # three quarters of the weight, or all
    assert not mask[:, 10:].any()  # a quarter


def test_nothing_found_stays_nothing() -> None:
    assert len(fuse_detections([found(), found()], 0.5)) == 0
    assert fuse_detections([found(masks=True), found(masks=True)], 0.5).rles == []


def test_scores_are_the_mean_and_one_answer_stays_as_it_is() -> None:
    answers = [
        ImagePrediction(1, "a.png", (40, 40), {"tumor": score}, found((0, 0, 10, 10, score)), {"max": {"tumor": score}})
        for score in (0.2, 0.6)
    ]
    joined = fuse(answers, 0.5)
    assert joined.scores == {"tumor": 0.4}
    assert joined.scores_by_rule == {"max": {"tumor": 0.4}}
    assert fuse(answers[:1], 0.5) is answers[0]


def look(dataset: Dataset, root: Path, config: Config) -> Look:
    """The first image of a data set, as a network sees it."""
    record = dataset.images[0]
    return Look(*prepare_record(root, config.data.image, record), record)


def test_versions_lead_back_to_the_same_native_pixels(phantom_root: Path) -> None:
    config = load_config(
        None, ["data.image.max_size=96", "model.test_time.flip=true", "model.test_time.scales=[1, 1.5]"]
    )
    dataset = read_coco(phantom_root / "train.json")
    sample = look(dataset, phantom_root, config)
    views = views_of(config.model.test_time)
    assert views == [View(), View(flip=True), View(scale=1.5), View(flip=True, scale=1.5)]
    box = np.array([[30.0, 40.0, 50.0, 70.0]])
    for view in views:
        seen = view.of(sample)
        assert seen.trace.output_size_hw == tuple(seen.image.shape[-2:])
        assert seen.trace.boxes_backward(seen.trace.boxes_forward(box)) == pytest.approx(box)
    assert np.array_equal(views[1].of(sample).image, sample.image[..., ::-1])


def tiled(height: int, width: int, side: int) -> list[Look]:
    image, record = np.ones((1, height, width), np.float32), ImageRecord(1, "a.png", (height + 5, width))
    trace = Trace(record.size_hw).then("crop", 0, 5, width, height)
    return tiles_of(Look(image[:, :side, :side], trace, record, Look(image, trace, record)), side)


def test_tiles_cover_the_native_pixels_and_lead_back() -> None:
    tiles = tiled(60, 100, 40)  # overlapping by 10 or more: from 0, 30, 60 to the right, and 0, 20 down
    places = [tuple(tile.trace.boxes_backward([(0, 0, 40, 40)])[0]) for tile in tiles]
    assert places == [(x, y + 5, x + 40, y + 45) for y in (0, 20) for x in (0, 30, 60)]
    assert tiles_of(Look(tiles[0].image, tiles[0].trace, tiles[0].record), 40) == []


def test_detections_of_tiles_join_those_of_the_image() -> None:
    looks = tiled(40, 70, 40)  # columns 0 to 40 and 30 to 70, rows 5 to 45
    whole = ImagePrediction(1, "a.png", (45, 70), {"tumor": 0.4}, found((5, 10, 25, 30, 0.4)))
    left = found((6, 11, 24, 29, 0.9), (20, 10, 40, 20, 0.8), (31, 30, 38, 40, 0.3), (0, 5, 9, 9, 0.2))
    right = found((32, 30, 38, 40, 0.5), (60, 20, 70, 30, 0.6))
    answers = [ImagePrediction(1, "a.png", (45, 70), {"tumor": 0.0}, part) for part in (left, right)]
    joined = with_tiles(whole, looks, answers)
    # The second of the left tile is cut by its seam; the third and the image's own are nested with stronger ones.
    assert joined.detections.scores.tolist() == [0.9, 0.6, 0.5, 0.2]
    assert joined.detections.boxes_xyxy[1].tolist() == [60, 20, 70, 30]
    assert joined.scores == {"tumor": 0.4}


@pytest.fixture(scope="module")
def checkpoint(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector after one step."""
    config = load_config(
        None,
        [
            *SMALL,
            f"data.root={phantom_root}",
            "data.image.max_size=96",
            "data.num_workers=0",
            "train.epochs=1",
            "data.epoch_size=4",
            "train.monitor=val/auc_tumor_head",
            "train.accelerator=cpu",
            "model.aggregation.rule=max",
            "model.detector.score_threshold=0",
            f"output_dir={tmp_path_factory.mktemp('fusion')}",
        ],
    )
    return train(prepare(config))


def test_predictor_fuses_the_versions_of_an_image(checkpoint: Path, phantom_root: Path) -> None:
    dataset = read_coco(phantom_root / "test.json")
    plain = Ensemble.from_checkpoints([checkpoint], "cpu")
    settings = load_config(None, ["model.test_time.flip=true"]).model.test_time
    flipped = Ensemble.from_checkpoints([checkpoint], "cpu", settings)
    seen = look(dataset, phantom_root, plain.config)
    (answer,) = flipped._run([[seen]])
    parts = [plain._run([[view.of(seen)]])[0] for view in (View(), View(flip=True))]
    expected = fuse(parts, 0.5)
    assert answer.scores == expected.scores
    assert np.array_equal(answer.detections.boxes_xyxy, expected.detections.boxes_xyxy)
    assert flipped.describe()["config"]["model"]["test_time"]["flip"] is True


def test_each_model_of_an_ensemble_sees_images_as_it_was_trained_to(checkpoint: Path, phantom_root: Path) -> None:
    dataset = read_coco(phantom_root / "test.json")
    small = Predictor.from_checkpoint(checkpoint, "cpu")
    large = Predictor.from_checkpoint(checkpoint, "cpu")
    image = large.config.data.image.change(max_size=128)
    large.config = large.config.change(data=large.config.data.change(image=image))
    joined = list(Ensemble([small, large, small]).predict(dataset, phantom_root))
    parts = [list(each.predict(dataset, phantom_root)) for each in (small, large)]
    assert parts[0] != parts[1]
    for answer, first, second in zip(joined, *parts, strict=True):
        expected = fuse([first, second, first], 0.5)
        assert answer.scores == expected.scores
        assert np.array_equal(answer.detections.boxes_xyxy, expected.detections.boxes_xyxy)
        assert answer.detections.rles == expected.detections.rles


def test_predictor_looks_at_tiles_of_finer_images(checkpoint: Path, phantom_root: Path) -> None:
    dataset = read_coco(phantom_root / "test.json")
    settings = load_config(None, ["model.test_time.tiles=true"]).model.test_time
    plain, tiled = (
        list(Ensemble.from_checkpoints([checkpoint], "cpu", each).predict(dataset, phantom_root))
        for each in (None, settings)
    )
    counts = [len(each.detections) for part in (plain, tiled) for each in part if isinstance(each, ImagePrediction)]
    assert sum(counts[len(plain) :]) > sum(counts[: len(plain)])
    assert [each.scores for each in tiled] == [each.scores for each in plain]


def test_scores_are_softened_once_versions_are_fused(checkpoint: Path, phantom_root: Path) -> None:
    settings = load_config(None, ["model.test_time.flip=true"]).model.test_time
    plain, soft = (Ensemble.from_checkpoints([checkpoint], "cpu", settings) for _ in range(2))
    detector = soft.config.model.detector.model_copy(update={"soft_nms_sigma": 0.4})
    soft.config = soft.config.model_copy(update={"model": soft.config.model.model_copy(update={"detector": detector})})
    seen = look(read_coco(phantom_root / "test.json"), phantom_root, plain.config)
    (fused,), (answer,) = plain._run([[seen]]), soft._run([[seen]])
    lowered = softened(fused.detections.boxes_xyxy, fused.detections.category_ids, fused.detections.scores, 0.4)
    assert not np.array_equal(lowered, fused.detections.scores)
    kept = lowered[lowered >= detector.score_threshold]
    assert answer.detections.scores.tolist() == pytest.approx(-np.sort(-kept), rel=1e-6)
    assert answer.scores == fused.scores


def test_detectors_answer_together(checkpoint: Path, phantom_root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(checkpoint.read_bytes())
    dataset = read_coco(phantom_root / "test.json")
    together = list(Ensemble.from_checkpoints([checkpoint, copy], "cpu").predict(dataset, phantom_root))
    alone = list(Predictor.from_checkpoint(checkpoint, "cpu").predict(dataset, phantom_root))
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, ImagePrediction)
        assert isinstance(other, ImagePrediction)
        assert one.scores == other.scores
        assert len(one.detections) <= len(other.detections)


def test_detectors_with_other_rules_are_not_joined(checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["mammodet"]["config"]["model"]["aggregation"]["rule"] = "noisy_or"
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"model\.aggregation\.rule 'max' -> 'noisy_or'"):
        Ensemble.from_checkpoints([checkpoint, tmp_path / "other.ckpt"], "cpu")


def test_sizes_have_bounds() -> None:
    with pytest.raises(InputError, match="scales"):
        load_config(None, ["model.test_time.scales=[9]"])
