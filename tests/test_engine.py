"""Training, resuming, checkpoints, prediction: on a phantom archive, with a tiny network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_dicom
import torch
from conftest import SMALL
from small_training import SHORT, assert_resumes_exactly, read_rows

from mammodet.config import Config, load_config
from mammodet.data.coco import read_coco, write_coco
from mammodet.data.images import read_image, write_png
from mammodet.data.inputs import Inputs, Skipped, gather
from mammodet.data.predictions import read_predictions
from mammodet.engine.answers import to_detections
from mammodet.engine.checked_run import prepare
from mammodet.engine.checkpoint import KEY, load_model, read_facts
from mammodet.engine.module import NonFiniteLossError, lr_factor, make_optimizer
from mammodet.engine.predict import Predictor, predict_to_folder
from mammodet.engine.resume import Start
from mammodet.engine.run_folder import BEST, LAST
from mammodet.engine.train import Machines, train
from mammodet.errors import InputError
from mammodet.evaluation.options import Options
from mammodet.modeling.build import build_model
from mammodet.phantom.cbis_ddsm import write_cbis_archive
from mammodet.records import Lesion
from mammodet.reporting.evaluation_files import evaluate_files
from mammodet.trace import Trace


def config_for(root: Path, output: Path, *overrides: str) -> Config:
    return load_config(None, (*SMALL, f"data.root={root}", f"output_dir={output}", *SHORT, *overrides))


@pytest.fixture(scope="module")
def trained(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a finished two-epoch run."""
    output = tmp_path_factory.mktemp("run ö") / "out"
    train(prepare(config_for(phantom_root, output)))
    return output


def test_train_writes_checkpoints_config_and_metrics(trained: Path, phantom_root: Path) -> None:
    _, facts = read_facts(trained / BEST)
    assert facts.categories == ("lesion",)
    assert facts.split_hash == json.loads((phantom_root / "splits.json").read_text())["hash"]
    train_patients = {record.patient_id for record in read_coco(phantom_root / "train.json").images}
    val_patients = {record.patient_id for record in read_coco(phantom_root / "val.json").images}
    assert set(facts.patients) == train_patients | val_patients
    assert facts.stack is not None
    assert "optimizer_states" not in torch.load(trained / BEST, weights_only=True)
    assert "optimizer_states" in torch.load(trained / LAST, weights_only=True)
    assert load_config(trained / "config.yaml").to_dict() == facts.config
    rows = read_rows(trained)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["train/loss"]) > 0 and row["val/auc_tumor_head"] for row in rows)
    assert any((trained / "tensorboard").iterdir())


def test_last_epoch_is_validated_wherever_the_others_are(phantom_root: Path, tmp_path: Path) -> None:
    train(prepare(config_for(phantom_root, tmp_path / "out", "train.epochs=3", "train.validate_every=2")))
    assert [bool(row["val/bbox_AP50"]) for row in read_rows(tmp_path / "out")] == [False, True, True]


def test_resumed_run_equals_an_uninterrupted_one(
    phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("train.epochs=3", "train.ema_decay=0.9", "data.epoch_size=8", "data.negative_fraction=0.5")
    assert_resumes_exactly(prepare(config_for(phantom_root, tmp_path / "whole", *options)), tmp_path, monkeypatch)


def test_train_refuses_a_folder_that_holds_a_run(trained: Path, phantom_root: Path) -> None:
    run = prepare(config_for(phantom_root, trained))
    with pytest.raises(InputError, match=r"--resume.*--overwrite"):
        train(run)


def test_resume_with_other_data_is_refused_unless_forced(trained: Path, phantom_root: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(trained, output)
    run = prepare(config_for(phantom_root, output))
    changed = replace(run, facts=replace(run.facts, data_hash="0" * 64))
    with pytest.raises(InputError, match="training data changed"):
        train(changed, resume=True)
    train(changed, resume=True, force_data=True)


def test_resume_takes_a_run_of_a_version_that_had_fewer_settings(
    trained: Path, phantom_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "older"
    shutil.copytree(trained, output)
    content = torch.load(output / LAST, weights_only=True)
    for key in ("detectron2", "test_time"):
        del content[KEY]["config"]["model"][key]
    del content[KEY]["config"]["model"]["detector"]["backbone"]["stride_in_1x1"]
    torch.save(content, output / LAST)
    train(prepare(config_for(phantom_root, output, "train.epochs=3")), resume=True)
    printed = capsys.readouterr().out
    assert "resuming with a changed setting: train.epochs 2 -> 3" in printed
    assert "detectron2" not in printed


def test_resume_with_another_model_is_refused(trained: Path, phantom_root: Path) -> None:
    run = prepare(config_for(phantom_root, trained, "model.detector.fpn_channels=24"))
    with pytest.raises(InputError, match=r"model.detector.fpn_channels 16 -> 24"):
        train(run, resume=True)


def test_checkpoint_of_another_architecture_is_refused(trained: Path, phantom_root: Path, tmp_path: Path) -> None:
    wanted = config_for(phantom_root, tmp_path, "model.detector.backbone.name=resnet34")
    with pytest.raises(InputError, match=r"resnet18.*resnet34"):
        load_model(trained / BEST, wanted)
    content = torch.load(trained / BEST, weights_only=True)
    content[KEY]["config"]["model"]["detector"]["fpn_channels"] = 24
    torch.save(content, tmp_path / "odd.ckpt")
    with pytest.raises(InputError, match=r"(?s)another architecture.*\(16, 64, 1, 1\) in the checkpoint"):
        load_model(tmp_path / "odd.ckpt")


def test_thresholds_and_aggregation_of_a_config_replace_those_of_the_checkpoint(
    trained: Path, phantom_root: Path
) -> None:
    wanted = config_for(phantom_root, trained, "model.detector.score_threshold=0.7", "model.aggregation.rule=max")
    model, config, _ = load_model(trained / BEST, wanted)
    assert config.model.aggregation.rule == "max"
    assert model.detector.model.roi_heads.score_thresh == 0.7


def test_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "plain.pth")
    with pytest.raises(InputError, match="not a mammodet checkpoint"):
        read_facts(tmp_path / "plain.pth")


def test_checkpoint_without_its_fitted_aggregation_is_refused(trained: Path) -> None:
    with pytest.raises(InputError, match=r"was not fitted(?s:.*)mammodet train --config-file .*config.yaml'? --resume"):
        Predictor.from_checkpoint(trained / LAST, "cpu")


def test_device_that_is_not_there_is_refused(trained: Path) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        Predictor.from_checkpoint(trained / BEST, "quantum")


def test_prepare_tells_all_faults_of_the_data_at_once(phantom_root: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantom_root, data)
    training, validation = read_coco(data / "train.json"), read_coco(data / "val.json")
    boxes_only = tuple(
        replace(record, lesions=tuple(Lesion(item.category, item.box_xyxy, None, "box") for item in record.lesions))
        for record in training.images
    )
    write_coco(replace(training, images=boxes_only), data / "train.json")
    shared = replace(validation.images[0], patient_id=training.images[0].patient_id, lesions=())
    normal = tuple(replace(record, lesions=(), labels={"tumor": 0, "malignant": 0}) for record in validation.images[1:])
    write_coco(replace(validation, images=(replace(shared, labels={"tumor": 0}), *normal)), data / "val.json")
    (data / validation.images[1].file_name).unlink()
    with pytest.raises(InputError) as caught:
        prepare(config_for(data, tmp_path / "out", "train.monitor=val/bbox_AP50"))
    message = str(caught.value)
    for part in (
        "1 patients are in training and in validation",
        "have no mask; choose faster_rcnn, or let data.box_masks=ellipse make masks of their boxes",
        "1 image files are missing",
        "no lesion with a place",
        "learned needs validation images with and without tumor",
    ):
        assert part in message, part


def test_loss_that_is_not_finite_stops_with_the_image_names(
    phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare(config_for(phantom_root, tmp_path / "out"))
    model = build_model(run.config, 1)
    parameter = next(iter(model.parameters()))
    parameter.data.fill_(float("nan"))
    monkeypatch.setattr("mammodet.engine.train.build_model", lambda *_args, **_options: model)
    # torchvision itself asserts finite boxes only in eval mode; the loss must be caught first.
    with pytest.raises(NonFiniteLossError, match=r"not finite in epoch 0, step 0.*images/mdb"):
        train(run)


def test_unreadable_training_image_stops_with_its_name(phantom_root: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantom_root, data)
    victim = data / read_coco(data / "train.json").images[0].file_name
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(InputError, match=victim.name):
        train(prepare(config_for(data, tmp_path / "out")))


def test_monitor_that_does_not_exist_is_refused_with_the_names(phantom_root: Path, tmp_path: Path) -> None:
    run = prepare(config_for(phantom_root, tmp_path / "out", "train.monitor=val/accuracy"))
    with pytest.raises(InputError, match=r"not among the figures.*val/auc_tumor"):
        train(run)


@pytest.mark.parametrize(
    ("machines", "message"),
    [
        (Machines(num_gpus=99), "this machine has"),
        (Machines(num_gpus=0, num_machines=2), "--dist-url"),
        (Machines(num_gpus=0, num_machines=2, machine_rank=2, dist_url="tcp://a:1"), "--machine-rank 2"),
        (Machines(num_gpus=0, dist_url="http://a"), "expected auto or tcp"),
    ],
)
def test_machines_that_cannot_be_are_refused(
    machines: Machines, message: str, phantom_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        train(prepare(config_for(phantom_root, tmp_path / "out")), machines=machines)


@pytest.mark.slow
def test_two_processes_train_and_validate_every_image(phantom_root: Path, tmp_path: Path) -> None:
    config = config_for(phantom_root, tmp_path / "out", "train.epochs=1", "data.batch_size=2", "train.devices=2")
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    command = [sys.executable, "-m", "mammodet", "train", "--config-file", str(tmp_path / "config.yaml")]
    done = subprocess.run([*command, "--num-gpus", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    _, facts = read_facts(tmp_path / "out" / BEST)
    assert facts.stack is not None
    rows = read_rows(tmp_path / "out")
    images = len(read_coco(phantom_root / "train.json").images)
    assert int(rows[0]["step"]) == -(-images // 4)  # two processes of two images a step


@pytest.mark.slow
def test_two_processes_agree_though_one_alone_sees_an_image_that_teaches_no_boxes(
    phantom_root: Path, tmp_path: Path
) -> None:
    """Its losses have another name there; a process that waited for the other's would wait for ever."""
    content = json.loads((phantom_root / "train.json").read_text())
    for image in content["images"]:
        image["unlocalized"] = False
    bare = next(image for image in content["images"] if image["labels"]["tumor"] == 1)
    bare["unlocalized"] = True
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] != bare["id"]]
    (tmp_path / "train.json").write_text(json.dumps(content))
    options = (f"data.train={tmp_path / 'train.json'}", "train.epochs=2", "data.batch_size=1", "train.devices=2")
    config = config_for(phantom_root, tmp_path / "out", *options)
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    command = [sys.executable, "-m", "mammodet", "train", "--config-file", str(tmp_path / "config.yaml")]
    done = subprocess.run([*command, "--num-gpus", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert all(float(row["train/loss"]) > 0 for row in read_rows(tmp_path / "out"))


@pytest.fixture
def boxes_only(phantom_root: Path, tmp_path: Path) -> Path:
    """The phantom archive, whose lesions have lost their masks."""
    data = tmp_path / "data"
    shutil.copytree(phantom_root, data)
    for name in ("train.json", "val.json", "test.json"):
        dataset = read_coco(data / name)
        images = tuple(
            replace(record, lesions=tuple(replace(item, rle=None, geometry="box") for item in record.lesions))
            for record in dataset.images
        )
        write_coco(replace(dataset, images=images), data / name)
    return data


def test_ellipses_of_boxes_teach_masks_and_are_no_truth(boxes_only: Path, tmp_path: Path) -> None:
    options = ("data.box_masks=ellipse", "train.epochs=1", "model.detector.score_threshold=0")
    best = train(prepare(config_for(boxes_only, tmp_path / "out", *options)))
    truth = boxes_only / "test.json"
    predictor = Predictor.from_checkpoint(best, "cpu")
    path, _ = predict_to_folder(predictor, read_coco(truth), boxes_only, tmp_path / "preds")
    assert all(image.detections.rles for image in read_predictions(path).images)
    metrics = evaluate_files(truth, [path], tmp_path / "eval", options=Options(resamples=0), progress=False)
    (model,) = metrics.models
    assert model.masks is model.detection.segm is None
    assert "taught outlines as the ellipse inside it" in (tmp_path / "eval/model_card.md").read_text(encoding="utf-8")


def test_faster_rcnn_trains_on_boxes_without_masks(boxes_only: Path, tmp_path: Path) -> None:
    data = boxes_only
    best = train(prepare(config_for(data, tmp_path / "out", "model.detector.arch=faster_rcnn", "train.epochs=1")))
    result = next(Predictor.from_checkpoint(best, "cpu").predict(read_coco(data / "test.json"), data))
    assert not isinstance(result, Skipped)
    assert result.detections.rles is None


@pytest.mark.parametrize(
    "override", ["train.schedule=plateau", "train.schedule=step", "train.optimizer=sgd", "data.num_workers=2"]
)
def test_every_schedule_and_optimizer_trains(override: str, phantom_root: Path, tmp_path: Path) -> None:
    options = (override, "train.epochs=1", "data.epoch_size=8", "train.lr=1e-4")
    assert train(prepare(config_for(phantom_root, tmp_path / "out", *options))).exists()


def test_every_augmentation_at_once_trains(boxes_only: Path, tmp_path: Path) -> None:
    options = (
        "data.augment={scale: [0.7, 1.4], sizes: [48, 64, 80], elastic: 0.03, window: 0.1, tone_curve: 0.5, "
        "gamma: 0.3, blur: 1, cutout: 2, copy_paste: 0.7, mixup: 0.5}",
        "data.box_masks=ellipse",
        "train.epochs=1",
    )
    assert train(prepare(config_for(boxes_only, tmp_path / "out", *options))).exists()


def test_copy_paste_without_single_lesions_is_refused(phantom_root: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantom_root, data)
    training = read_coco(data / "train.json")
    lesion = next(record.lesions[0] for record in training.images if record.lesions)
    images = tuple(replace(record, lesions=(lesion, lesion) if record.lesions else ()) for record in training.images)
    write_coco(replace(training, images=images), data / "train.json")
    options = ("data.augment.copy_paste=0.5",)
    with pytest.raises(InputError, match=r"copy_paste=0.5: 0 training images have a single lesion with a place"):
        prepare(config_for(data, tmp_path / "out", *options))
    prepare(config_for(data, tmp_path / "out", *options, "data.augment.enabled=false"))


def test_early_stopping_ends_before_the_last_epoch(phantom_root: Path, tmp_path: Path) -> None:
    options = ("train.epochs=6", "train.early_stopping=1", "train.lr=1e-12", "data.epoch_size=4")
    output = tmp_path / "out"
    train(prepare(config_for(phantom_root, output, *options)))
    assert len((output / "metrics.csv").read_text().splitlines()) - 1 < 6


def test_lr_factor_by_hand() -> None:
    new = Start()
    cosine = load_config(None, ["train.warmup_steps=4", "train.epochs=2"]).train
    assert [lr_factor(cosine, step, 7, new) for step in (0, 1, 3)] == [0.25, 0.5, 1.0]
    assert lr_factor(cosine, 9, 7, new) == pytest.approx(0.5)
    assert lr_factor(cosine, 14, 7, new) == pytest.approx(0.0)
    steps = load_config(None, ["train.schedule=step", "train.warmup_steps=0", "train.step_epochs=[1, 3]"]).train
    assert [lr_factor(steps, step, 5, new) for step in (0, 4, 5, 14, 15)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    constant = load_config(None, ["train.schedule=constant", "train.warmup_steps=0"]).train
    assert lr_factor(constant, 7, 5, new) == 1.0


def test_lr_factor_goes_on_by_epochs_where_the_batches_change() -> None:
    """Two epochs of four steps were done, two more of one step are left."""
    settings = load_config(None, ["train.warmup_steps=0", "train.epochs=4"]).train
    after = Start(epochs=2, steps=8)
    assert [lr_factor(settings, step, 1, after) for step in (8, 9, 10)] == pytest.approx([0.5, 0.146447, 0.0], abs=1e-6)
    warm = load_config(None, ["train.warmup_steps=4", "train.epochs=4"]).train  # warm after one epoch, three are left
    assert [lr_factor(warm, step, 1, after) for step in (8, 9, 10)] == pytest.approx([0.75, 0.25, 0.0])
    late = load_config(None, ["train.warmup_steps=9", "train.epochs=4"]).train  # warm after three epochs
    assert [lr_factor(late, step, 1, after) for step in (8, 9, 10)] == pytest.approx([1.0, 1.0, 0.0])
    # A resumed run with the same batches has the very same rates.
    assert [lr_factor(warm, step, 4, after) for step in range(17)] == [
        lr_factor(warm, step, 4, Start()) for step in range(17)
    ]


def test_optimizer_does_not_decay_biases_and_norms() -> None:
    model = build_model(load_config(None, SMALL), 1)
    groups = make_optimizer(model, load_config(None, ["train.weight_decay=0.3"]).train).param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert all(parameter.ndim <= 1 for parameter in groups[1]["params"])


def test_backbone_learns_at_its_own_rate() -> None:
    model = build_model(load_config(None, SMALL), 1)
    settings = load_config(None, ["train.lr=0.1", "train.backbone_lr_factor=0.5", "train.weight_decay=0.3"]).train
    groups = make_optimizer(model, settings).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.1, 0.3), (0.1, 0), (0.05, 0.3), (0.05, 0)]
    slow = {id(parameter) for group in groups[2:] for parameter in group["params"]}
    assert slow == {id(parameter) for name, parameter in model.named_parameters() if "backbone.body" in name}


def test_predictions_return_to_native_pixels_by_hand() -> None:
    trace = Trace((100, 80)).then("crop", 10, 20, 60, 60).then("resize", 30, 30)
    found = {
        "boxes": np.array([[10.0, 5.0, 20.0, 15.0]]),
        "scores": np.array([0.5]),
        "labels": np.array([1]),
        "masks": np.ones((1, 1, 28, 28)),
    }
    detections = to_detections(found, trace)
    assert detections.boxes_xyxy.tolist() == [[30.0, 30.0, 50.0, 50.0]]
    assert detections.rles is not None
    from mammodet.geometry import rle_to_mask

    mask = rle_to_mask(detections.rles[0])
    assert mask.shape == (100, 80)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (30, 49, 30, 49)


def test_predict_goes_on_after_an_interruption(
    trained: Path, phantom_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = read_coco(phantom_root / "test.json")
    predictor = Predictor.from_checkpoint(trained / BEST, "cpu")
    whole, skipped = predict_to_folder(predictor, dataset, phantom_root, tmp_path / "whole")
    assert not skipped
    seen: list[str] = []
    run = Predictor._run

    def counted(self: Predictor, samples: list) -> list:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.extend(look.record.file_name for (look,) in samples)
        return run(self, samples)

    monkeypatch.setattr(Predictor, "_run", counted)
    with pytest.raises(KeyboardInterrupt):
        predict_to_folder(predictor, dataset, phantom_root, tmp_path / "part")
    partial = tmp_path / "part" / "predictions.partial.jsonl"
    assert not (tmp_path / "part" / "predictions.json").exists()
    partial.write_text(partial.read_text() + '{"image_id": 5, "file_na')  # the line that a kill cut short
    monkeypatch.setattr(Predictor, "_run", run)
    part, _ = predict_to_folder(predictor, dataset, phantom_root, tmp_path / "part")
    assert read_predictions(part).images[0].scores == read_predictions(whole).images[0].scores
    assert part.read_text() == whole.read_text()
    assert not partial.exists()


def look_into(folder: Path) -> Inputs:
    return gather([folder], ["lesion"], unpack_to=folder / "unpacked")


def test_predict_skips_and_lists_unreadable_images(trained: Path, phantom_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images with ü"
    folder.mkdir()
    dataset = read_coco(phantom_root / "test.json")
    for record in dataset.images[:3]:
        shutil.copy(phantom_root / record.file_name, folder)
    cut = folder / Path(dataset.images[0].file_name).name
    cut.write_bytes(cut.read_bytes()[:-60])
    (folder / "text.png").write_text("no image")
    (folder / "notes.txt").write_text("not looked at")
    given = look_into(folder)
    found, unreadable = given.dataset, given.skipped
    assert {item.file_name for item in unreadable} == {"text.png", cut.name}
    predictor = Predictor.from_checkpoint(trained / BEST, "cpu")
    path, skipped = predict_to_folder(predictor, found, folder, tmp_path / "out", unreadable=unreadable)
    assert {item.file_name for item in skipped} == {"text.png", cut.name}
    assert len(read_predictions(path).images) == 2
    assert len(json.loads((tmp_path / "out" / "skipped.json").read_text())) == 2


def test_predict_reads_a_folder_of_dicom_files_with_what_their_headers_say(trained: Path, tmp_path: Path) -> None:
    write_cbis_archive(tmp_path / "archive ü", patients=2, size=128, quirks=(), progress=False)
    folder = tmp_path / "archive ü" / "CBIS-DDSM"
    given = look_into(folder)
    found, unreadable = given.dataset, given.skipped
    assert not unreadable
    assert len(found.images) == 12  # 4 images, their crops and masks
    films = [record for record in found.images if str(record.patient_id).endswith(("CC", "MLO"))]
    assert [(record.laterality, record.view) for record in films] == [
        (str(record.patient_id).split("_")[3][0], str(record.patient_id).split("_")[4]) for record in films
    ]
    predictor = Predictor.from_checkpoint(trained / BEST, "cpu")
    path, skipped = predict_to_folder(predictor, replace(found, images=tuple(films)), folder, tmp_path / "out")
    assert not skipped
    assert [item.view for item in read_predictions(path).images] == [record.view for record in films]


def test_predict_on_a_folder_equals_predict_on_the_data_set(trained: Path, phantom_root: Path) -> None:
    """The crop found on the fly is the one that the converter stored."""
    predictor = Predictor.from_checkpoint(trained / BEST, "cpu")
    dataset = read_coco(phantom_root / "test.json")
    bare = look_into(phantom_root / "images").dataset
    wanted = {Path(record.file_name).name: record for record in dataset.images}
    bare = replace(bare, images=tuple(record for record in bare.images if record.file_name in wanted))
    results = {Path(item.file_name).name: item for item in predictor.predict(dataset, phantom_root)}
    for result in predictor.predict(bare, phantom_root / "images"):
        other = results[result.file_name]
        assert result.scores == other.scores
        assert np.array_equal(result.detections.boxes_xyxy, other.detections.boxes_xyxy)


def test_predict_reads_16_bit_images(trained: Path, phantom_root: Path, tmp_path: Path) -> None:
    import cv2

    record = read_coco(phantom_root / "test.json").images[0]
    pixels = read_image(phantom_root / record.file_name).astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "deep.png"), pixels)
    predictor = Predictor.from_checkpoint(trained / BEST, "cpu")
    deep = look_into(tmp_path).dataset
    result = next(predictor.predict(deep, tmp_path))
    shallow = next(predictor.predict(replace(read_coco(phantom_root / "test.json"), images=(record,)), phantom_root))
    assert not isinstance(result, Skipped)
    assert not isinstance(shallow, Skipped)
    assert result.scores == pytest.approx(shallow.scores, abs=1e-3)


def test_predict_finds_dicom_files_without_their_suffix_and_refuses_what_is_no_mammogram(
    trained: Path, tmp_path: Path
) -> None:
    pixels = np.zeros((128, 128), np.uint16)
    pixels[20:100, :70] = np.random.default_rng(0).integers(500, 900, (80, 70))
    (tmp_path / "in").mkdir()
    for number, name in enumerate(("IM-0001", "1.2.840.113619.2.66.2158408118", "a.IMA", "b.DCM", "b.dcm.bak")):
        small_dicom.save(tmp_path / "in" / name, small_dicom.image(pixels, 12, SOPInstanceUID=f"1.2.3.{number}"))
    (tmp_path / "in" / "notes.txt").write_text("not looked at")
    write_png(tmp_path / "in" / "black.png", np.zeros((128, 128), np.uint8))
    os.mkfifo(tmp_path / "in" / "pipe.png")
    given = look_into(tmp_path / "in")
    found, unreadable = given.dataset, given.skipped
    assert {record.file_name for record in found.images} == {
        *("1.2.840.113619.2.66.2158408118", "IM-0001", "a.IMA", "b.DCM", "black.png")
    }
    assert ["is a pipe" in item.reason for item in unreadable] == [True]
    predictor = Predictor.from_checkpoint(trained / BEST, "cpu")
    path, skipped = predict_to_folder(predictor, found, tmp_path / "in", tmp_path / "out")
    assert [item.file_name for item in skipped] == ["black.png"]
    warnings = [text for item in read_predictions(path).images for text in item.warnings]
    assert [text.partition(" of ")[0] for text in warnings] == ["texture"] * 4  # noise, unlike the training images


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no readable image"):
        look_into(tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        look_into(tmp_path / "none")


@pytest.mark.gpu
def test_training_on_a_gpu_agrees_with_the_cpu_forward(trained: Path, phantom_root: Path) -> None:
    dataset = read_coco(phantom_root / "test.json")
    results = [
        [item.scores for item in Predictor.from_checkpoint(trained / BEST, device).predict(dataset, phantom_root)]
        for device in ("cpu", "cuda")
    ]
    for one, other in zip(*results, strict=True):
        assert one == pytest.approx(other, abs=1e-3)
