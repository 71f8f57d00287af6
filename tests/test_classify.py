"""Classifiers from config to predictions: training, resuming, folds, ensembles, the unsafe split, and refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mammodet.config import Config, load_config
from mammodet.converters import mias
from mammodet.converters.base import SplitOptions
from mammodet.data.coco import data_hash, read_coco, to_json, write_coco
from mammodet.data.images import read_image, write_png
from mammodet.data.inputs import Skipped
from mammodet.data.predictions import read_predictions
from mammodet.engine.answers import answers_to_predictions
from mammodet.engine.checked_run import prepare
from mammodet.engine.checkpoint import load_model, read_facts
from mammodet.engine.classifier_task import ClassifierTask
from mammodet.engine.ensemble import Ensemble
from mammodet.engine.folds import read_folds, train_folds
from mammodet.engine.fusion import mean_of
from mammodet.engine.module import TrainingModule
from mammodet.engine.predict import Predictor, predict_to_folder
from mammodet.engine.run_folder import BEST, LAST
from mammodet.engine.train import train
from mammodet.engine.unsafe_split import make_unsafe_split
from mammodet.errors import InputError
from mammodet.evaluation.validation import classifier_figures
from mammodet.modeling.classifier import ImageClassifier
from mammodet.phantom.mias import write_mias_archive
from mammodet.records import Dataset, Detections, ImagePrediction, ImageRecord
from mammodet.reporting.evaluation_files import evaluate_files
from mammodet.trace import Trace

CNN = (
    "model.kind=classifier",
    "model.classifier.network=cnn",
    "model.classifier.cnn.blocks=[[8], [8]]",
    "model.classifier.cnn.dense=[16]",
    "data.image.max_size=32",
    "data.batch_size=8",
    "data.num_workers=0",
    "train.epochs=2",
    "train.optimizer=adamw",
    "train.lr=1e-3",
    "train.warmup_steps=0",
    "train.monitor=val/loss",
    "train.monitor_mode=min",
    "train.accelerator=cpu",
)


def config_for(root: Path, output: Path, *overrides: str) -> Config:
    return load_config(None, (*CNN, f"data.root={root}", f"output_dir={output}", *overrides))


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 32 px with a bright square (tumor) or without, in four densities of grey; two views a breast."""
    folder = tmp_path_factory.mktemp("squares é")
    generator = np.random.default_rng(0)
    records = []
    for number in range(48):
        tumor, density = number // 2 % 2, number // 4 % 4
        pixels = (generator.random((32, 32)) * 20 + 25 * density).astype(np.uint8)
        if tumor:
            pixels[8:20, 8:20] = 250
        write_png(folder / f"images/{number}.png", pixels)
        records.append(
            ImageRecord(
                number + 1,
                f"images/{number}.png",
                (32, 32),
                f"p{number // 4}",
                "LR"[number // 2 % 2],
                ("CC", "MLO")[number % 2],
                "ABCD"[density],
                labels={"tumor": tumor, "malignant": tumor if number % 3 else None},
            )
        )
    for name, part in (("train", records[:32]), ("val", records[32:]), ("test", records[32:])):
        split = {"name": "holdout", "subset": name, "seed": 0, "hash": "squares"}
        write_coco(Dataset(("lesion",), tuple(part), {"split": split}), folder / f"{name}.json")
    return folder


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom archive of 12 patients at 128 px in three folds, none apart for a test."""
    folder = tmp_path_factory.mktemp("folds")
    write_mias_archive(folder / "archive", patients=12, size=128, difficulty="easy", progress=False)
    options = mias.MiasOptions(splits=SplitOptions(0.0, 0.3, folds=3), progress=False)
    mias.convert(folder / "archive", folder / "data", options)
    return folder / "data"


# training


def test_a_cnn_learns_labels_and_classes_and_what_follows_from_them(squares, tmp_path):
    overrides = (
        "model.classifier.heads={tumor: {}, malignant: {}, density+tumor: {}}",
        "train.epochs=60",
        "train.lr=5e-3",
        "train.schedule=constant",
        "data.augment.enabled=false",
        "data.image.channels=[full]",
        "data.image.crop=none",
        "data.cache=memory",
    )
    best = train(prepare(config_for(squares, tmp_path / "run", *overrides)))
    model, config, _ = load_model(best)
    assert isinstance(model, ImageClassifier)
    head = config.model.classifier.heads["density+tumor"]
    assert head.classes == [f"{density} {word}" for density in "ABCD" for word in ("no tumor", "tumor")]
    assert head.collapse == {"tumor": ["A tumor", "B tumor", "C tumor", "D tumor"]}
    test = read_coco(squares / "test.json")
    path, _ = predict_to_folder(Predictor.from_checkpoint(best, "cpu"), test, squares, tmp_path, progress=False)
    predictions = read_predictions(path)
    assert predictions.model["kind"] == "classifier"
    figures = classifier_figures(test, predictions.images)
    assert figures["auc_tumor"] == 1.0
    assert figures["auc_malignant"] == 1.0
    assert figures["balanced_accuracy_density+tumor"] > 0.85
    for image in predictions.images:
        assert set(image.scores) == {"tumor", "malignant"}
        assert image.scores["tumor"] == image.scores_by_rule["head"]["tumor"]
        summed = sum(image.class_scores["density+tumor"][f"{density} tumor"] for density in "ABCD")
        assert image.scores_by_rule["sum over density+tumor"]["tumor"] == pytest.approx(summed, abs=5e-6)
        assert len(image.detections) == 0


def test_metrics_table_has_the_classifiers_figures(squares, tmp_path):
    train(prepare(config_for(squares, tmp_path, "model.classifier.heads={tumor: {}, density: {}}")))
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert {"val/loss", "val/auc_tumor", "val/pf1_tumor", "val/balanced_accuracy_density", "train/loss_density"} <= set(
        header.split(",")
    )
    assert len(rows) == 2
    assert "bbox" not in header


def test_validation_loss_is_the_mean_over_images(squares, tmp_path):
    best = train(prepare(config_for(squares, tmp_path, "train.epochs=1", "data.batch_size=5")))
    model, config, facts = load_model(best)
    val = read_coco(squares / "val.json")
    found = list(Predictor(model, config, facts, device="cpu").predict(val, squares))
    truth = [record.labels["tumor"] for record in val.images]
    losses = [
        -np.log(image.scores["tumor"] if label else 1 - image.scores["tumor"])
        for image, label in zip(found, truth, strict=True)
    ]
    row = (tmp_path / "metrics.csv").read_text().splitlines()
    logged = dict(zip(row[0].split(","), row[1].split(","), strict=True))["val/loss"]
    assert float(logged) == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.parametrize("views", ["none", "attention"])
def test_resumed_classifier_equals_an_uninterrupted_one(squares, tmp_path, monkeypatch, views):
    options = (
        "train.epochs=3",
        "data.sampling.rule=balanced",
        "data.sampling.target=tumor",
        f"model.classifier.views={views}",
    )
    whole = prepare(config_for(squares, tmp_path / "whole", *options))
    train(whole)
    broken = replace(whole, config=whole.config.model_copy(update={"output_dir": tmp_path / "broken"}))
    step = TrainingModule.training_step

    def killed(self, batch, batch_idx):
        if self.current_epoch == 1 and batch_idx == 1:
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", killed)
    with pytest.raises(RuntimeError, match="killed"):
        train(broken)
    monkeypatch.setattr(TrainingModule, "training_step", step)
    train(broken, resume=True)
    one, other = (torch.load(tmp_path / name / LAST, weights_only=True)["state_dict"] for name in ("whole", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_joined_views_give_both_views_the_score_of_the_breast(squares, tmp_path):
    best = train(prepare(config_for(squares, tmp_path / "run", "model.classifier.views=attention")))
    test = read_coco(squares / "test.json")
    path, _ = predict_to_folder(Predictor.from_checkpoint(best, "cpu"), test, squares, tmp_path, progress=False)
    images = read_predictions(path).images
    assert [image.image_id for image in images] == [record.image_id for record in test.images]
    for one, other in zip(images[::2], images[1::2], strict=True):
        assert (one.patient_id, one.laterality) == (other.patient_id, other.laterality)
        assert one.scores == other.scores
    assert len({image.scores["tumor"] for image in images}) == len(images) // 2


def test_interrupted_prediction_of_joined_views_ends_with_the_same_file(squares, tmp_path):
    best = train(prepare(config_for(squares, tmp_path / "run", "model.classifier.views=max", "train.epochs=1")))
    predictor = Predictor.from_checkpoint(best, "cpu")
    test = read_coco(squares / "test.json")
    # views of a breast apart from each other in the file
    test = replace(test, images=tuple(sorted(test.images, key=lambda record: (record.view, record.image_id))))
    whole, _ = predict_to_folder(predictor, test, squares, tmp_path / "whole", progress=False)
    results = predictor.predict(test, squares)
    predict, count = predictor.predict, 0

    def stopping(*args, **options):
        nonlocal count
        for result in predict(*args, **options):
            count += 1
            if count == 4:
                raise KeyboardInterrupt
            yield result

    predictor.predict = stopping
    with pytest.raises(KeyboardInterrupt):
        predict_to_folder(predictor, test, squares, tmp_path / "broken", progress=False)
    predictor.predict = predict
    again, _ = predict_to_folder(predictor, test, squares, tmp_path / "broken", progress=False)
    assert again.read_bytes() == whole.read_bytes()
    assert not isinstance(next(results), Skipped)


def test_collapses_and_heads_of_one_label_stand_side_by_side():
    config = load_config(
        None,
        (
            *CNN,
            "model.classifier.heads.malignant={}",
            "model.classifier.heads.class={classes: [b, m], collapse: {malignant: [m], tumor: [b, m]}}",
        ),
    )
    logits = np.array([[0.0, np.log(0.25), np.log(0.75)]], np.float32)
    (found,) = answers_to_predictions([], logits, [ImageRecord(1, "1.png", (8, 8))], [Trace((8, 8))], config)
    assert found.scores == {"malignant": 0.5, "tumor": 1.0}
    assert found.scores_by_rule["head"] == {"malignant": 0.5}
    assert found.scores_by_rule["sum over class"] == pytest.approx({"malignant": 0.75, "tumor": 1.0})
    assert found.class_scores["class"] == pytest.approx({"b": 0.25, "m": 0.75})


def test_density_is_summed_over_pathology():
    config = load_config(
        None,
        (
            *CNN,
            "model.classifier.heads={density+malignant: {classes: [A benign, A malignant, B benign], collapse: {}}}",
        ),
    )
    logits = np.log(np.array([[0.5, 0.25, 0.25]], np.float32))
    (found,) = answers_to_predictions([], logits, [ImageRecord(1, "1.png", (8, 8))], [Trace((8, 8))], config)
    assert found.class_scores["density"] == {"A": 0.75, "B": 0.25}
    assert found.scores == {}


# refusals


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (
            ["model.classifier.heads={implant: {}}"],
            ["the training set has 0 positive and 0 negative images (32 unknown)"],
        ),
        (
            ["model.classifier.heads={birads: {}}"],
            ["training images have 0 classes", "no validation image answers it"],
        ),
        (
            ["model.classifier.heads={density: {classes: [A, B, E]}}"],
            ["density.classes ['E']: no training image is of them; found: A, B, C, D"],
        ),
        (
            ["model.classifier.heads={laterality: {}, density+laterality: {}}", "data.augment.horizontal_flip=0.5"],
            [
                "heads.laterality: data.augment.horizontal_flip=0.5",
                "heads.density+laterality: data.augment.horizontal_flip=0.5",
                "set data.augment.horizontal_flip=0",
            ],
        ),
        (
            ["model.classifier.heads={laterality: {}}", "data.augment.rotate_degrees=180"],
            ["rotate_degrees=180 make right breasts of left ones"],
        ),
        (["train.monitor=val/bbox_AP50"], ["a classifier gives no boxes; choose val/loss"]),
    ],
)  # fmt: skip
def test_questions_that_cannot_be_learnt_are_refused_at_start(squares, tmp_path, overrides, messages):
    with pytest.raises(InputError) as error:
        prepare(config_for(squares, tmp_path, *overrides))
    for message in messages:
        assert message in str(error.value)


@pytest.mark.parametrize(("names", "tells"), [(("LEFT_CC", "r-mlo"), True), (("leftover", "rl", "benign"), False)])
def test_classes_that_name_the_side_forbid_flips(squares, tmp_path, names, tells):
    config = config_for(squares, tmp_path, "model.classifier.heads={class: {}}", "data.augment.horizontal_flip=0.5")
    records = (ImageRecord(n, f"{n}.png", (8, 8), class_name=name) for n, name in enumerate(names))
    dataset = Dataset(("mass",), tuple(records))
    faults = ClassifierTask().faults(config, dataset, dataset)
    assert any("make right breasts of left ones" in fault for fault in faults) is tells


def test_classes_of_validation_alone_are_told_and_wrong(squares, tmp_path, capsys):
    options = ("model.classifier.heads={density: {classes: [A, B]}}", "train.monitor=val/accuracy_density")
    train(prepare(config_for(squares, tmp_path, *options, "train.monitor_mode=max", "train.epochs=1")))
    text = capsys.readouterr().out
    assert "density: validation images of C, D count as wrong; training has none" in text
    header, row = (line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines())
    assert float(dict(zip(header, row, strict=True))["val/accuracy_density"]) <= 0.5


def test_a_monitor_that_is_no_figure_is_refused_with_the_names(squares, tmp_path):
    with pytest.raises(InputError, match=r"train.monitor=val/auc_malignant: not among .*val/auc_tumor.*val/loss"):
        train(prepare(config_for(squares, tmp_path, "train.monitor=val/auc_malignant", "train.monitor_mode=max")))


def test_a_classifier_checkpoint_is_not_taken_for_a_detector(squares, tmp_path):
    best = train(prepare(config_for(squares, tmp_path, "train.epochs=1")))
    with pytest.raises(InputError, match=r"model\.kind 'classifier' -> 'detector'"):
        load_model(best, load_config(None, ()))
    # what a config leaves to the training set is no difference
    _, config, _ = load_model(best, config_for(squares, tmp_path))
    assert config.model.kind == "classifier"


# folds and ensembles


@pytest.fixture(scope="module")
def crossed(folded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("crossed")
    train_folds(config_for(folded, output, "train.epochs=1"))
    return output


def test_each_fold_is_held_out_once_from_training_and_choice(folded):
    folds, truth = read_folds(config_for(folded, Path("unused")))
    assert [fold.number for fold in folds] == [0, 1, 2]
    everyone = {record.image_id for record in read_coco(truth).images}
    assert everyone == {record.image_id for record in read_coco(folded / "all.json").images}
    for number, fold in enumerate(folds):
        sides = [{record.patient_id for record in part.images} for part in (fold.train, fold.val, fold.held_out)]
        assert not sides[0] & sides[1]
        assert not (sides[0] | sides[1]) & sides[2]
        assert {record.image_id for part in (fold.train, fold.val, fold.held_out) for record in part.images} == everyone
        assert data_hash(replace(fold.held_out, info={})) != data_hash(replace(fold.val, info={}))
        held = {record.image_id for record in read_coco(folded / f"fold{number}_val.json").images}
        assert {record.image_id for record in fold.held_out.images} == held


def test_out_of_fold_predictions_name_who_predicted_what(folded, crossed):
    predictions = read_predictions(crossed / "out_of_fold" / "predictions.json")
    truth = read_coco(folded / "folds.json")
    assert [image.image_id for image in predictions.images] == [record.image_id for record in truth.images]
    folds = predictions.model["folds"]
    assert sorted(name for fold in folds for name in fold["images"]) == sorted(
        record.file_name for record in truth.images
    )
    patient_of = {record.file_name: record.patient_id for record in truth.images}
    for number, fold in enumerate(folds):
        assert not {patient_of[name] for name in fold["images"]} & set(fold["patients"])
        _, facts = read_facts(crossed / f"fold{number}" / BEST)
        assert list(facts.patients) == fold["patients"]
        own = read_predictions(crossed / f"fold{number}" / "out_of_fold" / "predictions.json").images
        scores = {image.file_name: image.scores for image in predictions.images}
        assert all(scores[image.file_name] == image.scores for image in own)


def test_out_of_fold_predictions_are_scored_and_patients_of_a_wrong_fold_refused(folded, crossed, tmp_path):
    truth, predictions = folded / "folds.json", crossed / "out_of_fold" / "predictions.json"
    metrics = evaluate_files(truth, [predictions], tmp_path / "eval", report=False, progress=False)
    (model,) = metrics.models
    assert model.image["tumor"].n_positive + model.image["tumor"].n_negative == 24
    value = json.loads(predictions.read_text())
    value["model"]["folds"][0]["patients"] = value["model"]["folds"][1]["patients"]
    (tmp_path / "wrong.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="of the fold that predicted an image of theirs"):
        evaluate_files(truth, [tmp_path / "wrong.json"], tmp_path / "eval", report=False, progress=False)


def test_all_folds_resume_leaves_finished_folds_and_repeats_changed_ones(folded, crossed, tmp_path, capsys):
    output = tmp_path / "again"
    shutil.copytree(crossed, output)
    shutil.rmtree(output / "fold1")
    before = (output / "fold0" / BEST).stat().st_mtime_ns
    # the copies name the folder that they were made in: their settings are those of another run
    config = config_for(folded, output, "train.epochs=1")
    for number in (0, 2):
        path = output / f"fold{number}" / "out_of_fold" / "predictions.json"
        path.write_text(path.read_text().replace(str(crossed), str(output)))
    train_folds(config, resume=True)
    text = capsys.readouterr().out
    assert "fold 0: finished before" in text
    assert "fold 1 of 3" in text
    assert (output / "fold0" / BEST).stat().st_mtime_ns == before
    first, second = (read_predictions(place / "out_of_fold" / "predictions.json").images for place in (crossed, output))
    assert [image.scores for image in first] == [image.scores for image in second]


def test_all_folds_names_every_fold_without_a_positive(folded, tmp_path):
    shutil.copytree(folded, tmp_path / "data")
    for number in (0, 2):
        path = tmp_path / "data" / f"fold{number}_val.json"
        value = to_json(read_coco(path))
        for image in value["images"]:
            image["labels"]["tumor"] = 0
        path.write_text(json.dumps(value))
    with pytest.raises(InputError) as error:
        read_folds(config_for(tmp_path / "data", tmp_path))
    # fold k's checkpoint is chosen by fold k + 1
    assert "fold 1: model.classifier.heads.tumor: the validation set has 0 positive" in str(error.value)
    assert "fold 2: model.classifier.heads.tumor: the validation set has 0 positive" in str(error.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["fold0_val.json", "fold1_val.json"], r"three or more folds .* found: fold0_val\.json, fold1_val\.json"),
        ([], "found: none"),
        (["fold0_val.json", "fold2_val.json", "fold3_val.json"], "found: fold0_val"),
    ],
)
def test_all_folds_needs_three_whole_folds(folded, tmp_path, names, message):
    for name in names:
        write_coco(read_coco(folded / "fold0_val.json"), tmp_path / name)
    with pytest.raises(InputError, match=message):
        read_folds(config_for(tmp_path, tmp_path))


def test_folds_of_two_splits_are_refused(folded, tmp_path):
    shutil.copytree(folded, tmp_path / "data")
    path = tmp_path / "data" / "fold1_val.json"
    value = to_json(read_coco(path))
    value["info"]["split"]["hash"] = "other"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="its folds come from different splits"):
        read_folds(config_for(tmp_path / "data", tmp_path))


def test_ensemble_answers_with_the_mean_and_remembers_all_patients(folded, crossed):
    paths = [crossed / f"fold{number}" / BEST for number in range(3)]
    ensemble = Ensemble.from_checkpoints(paths, "cpu")
    dataset = read_coco(folded / "fold0_val.json")
    dataset = replace(dataset, images=dataset.images[:3])
    together = list(ensemble.predict(dataset, folded))
    alone = [list(Predictor.from_checkpoint(path, "cpu").predict(dataset, folded)) for path in paths]
    for place, image in enumerate(together):
        expected = np.mean([answers[place].scores["tumor"] for answers in alone])
        assert image.scores["tumor"] == pytest.approx(expected, abs=1e-6)
    everyone = {record.patient_id for record in read_coco(folded / "all.json").images}
    assert set(ensemble.describe()["patients"]) == everyone
    assert len(ensemble.describe()["ensemble"]) == 3


def test_mean_of_answers_by_hand():
    found = Detections.empty(with_masks=False)
    one = ImagePrediction(
        1,
        "1.png",
        (8, 8),
        {"tumor": 0.2},
        found,
        {"head": {"tumor": 0.2}},
        class_scores={"density": {"A": 1.0, "B": 0.0}},
    )
    other = replace(
        one,
        scores={"tumor": 0.6},
        scores_by_rule={"head": {"tumor": 0.4}},
        class_scores={"density": {"A": 0.5, "B": 0.5}},
    )
    mean = mean_of([one, other])
    assert mean.scores == {"tumor": 0.4}
    assert mean.scores_by_rule == {"head": {"tumor": 0.3}}
    assert mean.class_scores == {"density": {"A": 0.75, "B": 0.25}}


def test_models_that_do_not_go_together_are_refused(squares, folded, crossed, tmp_path):
    options = ("train.epochs=1", "model.classifier.heads={density: {}}")
    other = train(prepare(config_for(squares, tmp_path, *options)))
    with pytest.raises(InputError) as error:
        Ensemble.from_checkpoints([crossed / "fold0" / BEST, other], "cpu")
    assert "model.classifier.heads.density" in str(error.value)
    with pytest.raises(InputError, match="given more than once"):
        Ensemble.from_checkpoints([other, other], "cpu")


# the split that must not be made


def test_unsafe_split_has_copies_of_one_image_on_all_sides_and_says_so(folded, tmp_path, capsys):
    config = config_for(folded, tmp_path / "run", "data.unsafe_split=rotated_copies", "data.unsafe_copies=8")
    run = prepare(config)
    assert "WARNING: data.unsafe_split=rotated_copies" in capsys.readouterr().err
    root = run.config.data.root
    test = read_coco(root / "test.json")
    assert len(run.train.images) + len(run.val.images) + len(test.images) == 24 * 8
    assert {record.patient_id for record in test.images} & {record.patient_id for record in run.train.images}
    assert run.facts.config["data"]["unsafe_split"] == "rotated_copies"
    assert test.info["split"]["name"] == "unsafe rotated_copies"
    assert all(record.size_hw == (32, 32) and not record.lesions for record in test.images)
    train(run)
    made = (root / "test.json").stat().st_mtime_ns
    make_unsafe_split(config)
    assert (root / "test.json").stat().st_mtime_ns == made, "the copies of the same settings are used again"


def test_unsafe_copies_are_turned_about_the_centre(tmp_path):
    pixels = np.zeros((32, 32), dtype=np.uint8)
    pixels[4:8, 20:28] = 200
    write_png(tmp_path / "images/1.png", pixels)
    record = ImageRecord(1, "images/1.png", (32, 32), "p", labels={"tumor": 1})
    write_coco(Dataset(("lesion",), (record,)), tmp_path / "all.json")
    config = config_for(tmp_path, tmp_path / "run", "data.unsafe_split=rotated_copies", "data.unsafe_copies=4")
    root = make_unsafe_split(config).data.root
    for number in range(4):
        turned = read_image(root / f"images/1_1_turn{number:03d}.png")
        assert np.array_equal(turned, np.rot90(pixels, number)), f"turned {90 * number} degrees"


def test_unsafe_split_of_folds_is_refused(folded, tmp_path):
    with pytest.raises(InputError, match=r"data.unsafe_split splits at random: leave out data.fold"):
        config_for(folded, tmp_path, "data.unsafe_split=rotated_copies", "data.fold=0")


def test_all_folds_in_several_processes_is_refused(folded, tmp_path):
    from mammodet.commands import train as train_net

    path = Path(__file__).parent.parent / "configs" / "classification" / "mias_abnormal_cnn.yaml"
    arguments = ["--config-file", str(path), f"data.root={folded}", f"output_dir={tmp_path}", "--all-folds"]
    with pytest.raises(InputError, match="--all-folds trains in one process, here 1 machines with 2 devices"):
        train_net.main([*arguments, "train.devices=2"])
    with pytest.raises(InputError, match="leave out --force-data"):
        train_net.main([*arguments, "--force-data"])
