"""The configuration: files over files, overrides, and refusals that name what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mammodet.config import Config, differences, load_config, make_config
from mammodet.errors import InputError

CONFIGS = sorted((Path(__file__).parent.parent / "configs").rglob("*.yaml"))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def faults(values: dict) -> str:
    with pytest.raises(InputError) as caught:
        make_config(values, where="test.yaml")
    return str(caught.value)


# Files


def test_no_file_gives_the_defaults():
    assert load_config(None) == Config()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(CONFIGS[0].parent)))
def test_every_config_of_the_repository_loads(path):
    config = load_config(path)
    assert make_config(config.to_dict(), where="itself") == config


def test_there_are_configs_to_load():
    assert "base.yaml" in [path.name for path in CONFIGS]
    assert len(CONFIGS) >= 2


def test_empty_file_gives_the_defaults(tmp_path):
    assert load_config(write(tmp_path / "a.yaml", "# nothing yet\n")) == Config()


def test_file_lies_over_its_base_and_the_base_of_that(tmp_path):
    write(tmp_path / "base.yaml", "seed: 1\ntrain: {lr: 0.5, epochs: 7}\ndata: {image: {max_size: 256, crop: none}}\n")
    write(tmp_path / "mias/middle.yaml", "_base_: ../base.yaml\ntrain: {lr: 0.25}\n")
    path = write(tmp_path / "mias/mine.yaml", "_base_: middle.yaml\ndata: {image: {max_size: 512}}\n")
    config = load_config(path, ["train.momentum=0.5"])
    assert (config.seed, config.train.lr, config.train.epochs, config.train.momentum) == (1, 0.25, 7, 0.5)
    assert (config.data.image.max_size, config.data.image.crop) == (512, "none")


def test_lists_replace_those_of_the_base(tmp_path):
    write(tmp_path / "base.yaml", "data: {image: {channels: [full, tissue, clahe]}}\n")
    path = write(tmp_path / "mine.yaml", "_base_: base.yaml\ndata: {image: {channels: [clahe]}}\n")
    assert load_config(path).data.image.channels == ["clahe"]


def test_base_may_be_shared_by_two_files_of_a_chain(tmp_path):
    write(tmp_path / "base.yaml", "seed: 3\n")
    assert load_config(write(tmp_path / "one.yaml", "_base_: base.yaml\n")).seed == 3
    assert load_config(write(tmp_path / "two.yaml", "_base_: one.yaml\n")).seed == 3


@pytest.mark.parametrize("loop", [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "b"}])
def test_base_loops_are_told(tmp_path, loop):
    for name, base in loop.items():
        write(tmp_path / f"{name}.yaml", f"_base_: {base}.yaml\n")
    with pytest.raises(InputError, match=r"\.yaml: its _base_ leads back to itself"):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_base_: nowhere.yaml", r"nowhere\.yaml: no such file"),
        ("_base_: .", "is a folder; expected a YAML file"),
        ("_base_: [a.yaml]", "expected the path of one YAML file"),
        ("- a\n- b", "holds a list; expected keys and values"),
        ("just text", "holds a str; expected keys and values"),
        ("train: {lr: 1", "is not valid YAML"),
        ("train: !!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("output_dir: 2026-13-45", "is not valid YAML: month must be in 1..12"),
        ("a: " + "[" * 5000, "is not valid YAML"),
    ],
)
def test_bad_files_are_told(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_config(write(tmp_path / "a.yaml", text))


def test_file_that_is_not_text_is_told(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00\x80seed")
    with pytest.raises(InputError, match="is not valid YAML"):
        load_config(tmp_path / "a.yaml")


def test_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such file"):
        load_config(tmp_path / "nowhere.yaml")


# Overrides


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.lr=1e-3", "train", "lr", 0.001),
        ("train.lr=1.0e-3", "train", "lr", 0.001),
        ("train.lr=.5", "train", "lr", 0.5),
        ("train.lr=1", "train", "lr", 1.0),
        ("train.epochs=3", "train", "epochs", 3),
        ("train.early_stopping=null", "train", "early_stopping", None),
        ("train.early_stopping=", "train", "early_stopping", None),
        ("train.precision=32", "train", "precision", "32"),
        ("data.fold=2", "data", "fold", 2),
        ("data.skip_invalid=true", "data", "skip_invalid", True),
        ("train.step_epochs=[1, 2]", "train", "step_epochs", [1, 2]),
        ("data.root=data/my hospital=2", "data", "root", Path("data/my hospital=2")),
        ("model.weights=runs/best.ckpt", "model", "weights", "runs/best.ckpt"),
    ],
)
def test_override_values_are_read_as_yaml(override, section, key, value):
    found = getattr(getattr(load_config(None, [override]), section), key)
    assert found == value
    assert type(found) is type(value) or isinstance(value, Path)


def test_overrides_of_detectron2s_users_are_taken():
    config = load_config(None, ["SOLVER.BASE_LR", "0.003", "MODEL.WEIGHTS", "none", "train.epochs", "7"])
    assert (config.train.lr, config.model.weights, config.train.epochs) == (0.003, "none", 7)
    with pytest.raises(InputError, match=r"override 'MODEL\.WEIGHTS': expected KEY=VALUE"):
        load_config(None, ["MODEL.WEIGHTS"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs=2", "epochs: unknown key; did you mean train.epochs?"),
        ("lr=0.1", "did you mean train.lr?"),
        ("name=resnet18", "did you mean model.detector.backbone.name?"),
    ],
)
def test_bare_key_names_its_section(override, message):
    with pytest.raises(InputError) as caught:
        load_config(None, [override])
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["mias/mask_rcnn_r50_fpn", "configs/mias/mask_rcnn_r50_fpn.yaml"])
def test_shipped_config_is_found_by_name_from_any_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    shipped = load_config(Path(name))
    assert shipped == load_config(CONFIGS[0].parent / "mias/mask_rcnn_r50_fpn.yaml")
    own = write(tmp_path / name, "train: {epochs: 3}\n")
    assert load_config(own.relative_to(tmp_path)).train.epochs == 3


def test_unknown_config_names_the_nearest_ones():
    with pytest.raises(InputError, match=r"did you mean mias/mask_rcnn_r50_fpn"):
        load_config(Path("mias/mask_rcnn_r50_fp"))


def test_overrides_go_deep_and_the_last_one_counts():
    config = load_config(None, ["data.image.channels=[full, clahe]", "seed=1", "seed=2", "data.image={max_size: 64}"])
    assert config.seed == 2
    assert config.data.image.max_size == 64
    assert config.data.image.channels == ["tissue"]  # the whole section was replaced


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr", "expected KEY=VALUE, for instance train.lr=0.01"),
        ("=5", "expected KEY=VALUE"),
        ("train.lr=[1", "'\\[1' is not a YAML value"),
        ("output_dir=2026-13-45", "is not a YAML value"),
        ("train.step_epochs=" + "[" * 5000, "is not a YAML value"),
        ("seed.x=1", "seed"),
        ("train..lr=1", "unknown key"),
        ("_base_=x.yaml", "_base_: unknown key"),
        ("train=5", "train: 5: "),
    ],
)
def test_bad_overrides_are_told(override, message):
    with pytest.raises(InputError, match=message):
        load_config(None, [override])


def test_override_below_a_value_is_told(tmp_path):
    path = write(tmp_path / "a.yaml", "seed: 4\n")
    with pytest.raises(InputError, match=r"override 'seed\.x=1': 'seed' is a value, not a section"):
        load_config(path, ["seed.x=1"])


# Checks


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"lrr": 1}}, "train.lrr: unknown key; did you mean 'lr'?"),
        ({"tain": {}}, "tain: unknown key; did you mean 'train'?"),
        ({"data": {"image": {"maxsize": 1}}}, "data.image.maxsize: unknown key; did you mean 'max_size'?"),
        (
            {"model": {"zzz": 1}},
            "model.zzz: unknown key; known here: kind, detector, detectron2, image_head, aggregation, test_time, "
            "pixels, weights",
        ),
    ],
)
def test_unknown_key_comes_with_the_nearest_name(values, message):
    assert message in faults(values)


def test_all_faults_are_told_at_once():
    text = faults(
        {
            "seed": -1,
            "train": {"lr": 0, "epochs": "many", "optimiser": "sgd"},
            "data": {"batch_size": 0, "image": {"channels": ["tisue"], "max_size": 8}, "negative_fraction": 1.5},
        }
    )
    assert text.startswith("config test.yaml: 8 faults")
    for key in (
        "seed: -1",
        "train.lr: 0",
        "train.epochs: 'many'",
        "train.optimiser: unknown key; did you mean 'optimizer'",
        "data.batch_size: 0",
        "data.image.channels.0: 'tisue'",
        "data.image.max_size: 8",
        "data.negative_fraction: 1.5",
    ):
        assert f"  - {key}" in text
    assert text.endswith("docs/config.md lists every key.")


def classifier(settings: dict | None = None, **model: object) -> dict:
    return {"model": {"kind": "classifier", "classifier": settings or {}, **model}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"image_head": {"enabled": False}}}, "aggregation.rule 'learned' needs image_head.enabled=true"),
        (
            {"model": {"image_head": {"enabled": False}, "aggregation": {"rule": "head"}}},
            "aggregation.rule 'head' needs image_head.enabled=true",
        ),
        ({"model": {"weights": "coco"}}, "weights 'coco' were trained with batch norm"),
        ({"model": {"weights": "coco"}}, "choose FrozenBN (or BN)"),
        (
            {"model": {"weights": "coco", "detector": {"backbone": {"name": "resnet18", "norm": "FrozenBN"}}}},
            "weights 'coco' exist for resnet50 only",
        ),
        ({"model": {"detector": {"backbone": {"norm": "FrozenBN"}}}}, "FrozenBN without weights never learns"),
        (
            {"model": {"detector": {"backbone": {"name": "resnet51"}}}},
            "backbone 'resnet51': expected resnet18, resnet34",
        ),
        ({"model": {"detector": {"anchors": {"sizes": [8, 16]}}}}, "anchors.sizes: 2 entries; expected 5"),
        ({"train": {"schedule": "step", "step_epochs": [27, 20]}}, "step_epochs [27, 20]: expected rising numbers"),
        ({"train": {"accelerator": "cpu", "precision": "16-mixed"}}, "16-mixed needs a GPU"),
        ({"train": {"lr": float("inf")}}, "train.lr: inf"),
        ({"train": {"lr": float("nan")}}, "train.lr: nan"),
        ({"train": {"ema_decay": 1.0}}, "train.ema_decay: 1.0"),
        ({"data": {"image": {"channels": []}}}, "data.image.channels"),
        ({"data": {"sampling": {"rule": "balanced"}}}, "sampling.rule=balanced needs sampling.target"),
        ({"data": {"sampling": {"rule": "oversample", "target": "tumor"}}}, "needs sampling.factor above 1"),
        ({"data": {"sampling": {"factor": 2}}}, "sampling.factor=2 is for sampling.rule=oversample, not all"),
        (
            {"data": {"sampling": {"rule": "balanced", "target": "birads"}}},
            "data.sampling.target=birads: not among the questions that the model answers: tumor, malignant",
        ),
        (
            {"data": {"negative_fraction": 0.5, "sampling": {"rule": "balanced", "target": "tumor"}}},
            "data.negative_fraction and data.sampling.rule both choose what is drawn",
        ),
        ({"data": {"unsafe_split": "rotated_copies", "fold": 1}}, "unsafe_split splits at random: leave out data.fold"),
        (classifier(weights="coco"), "weights 'coco' are a detector's"),
        (
            classifier(test_time={"flip": True}),
            "model.test_time: is for detectors (model.kind=detector), and this model is a",
        ),
        (classifier(detector={}), "model.detector: is for detectors"),
        ({"model": {"classifier": {}}}, "model.classifier: is for classifiers (model.kind=classifier)"),
        ({"model": {"kind": "oracle"}}, "model.kind: 'oracle': expected detector or classifier"),
        (classifier(aggregation={"rule": "max"}), "model.aggregation.rule: unknown key; known here: over_images"),
        (classifier({"network": "efficientnet_b0", "norm": "BN"}), "efficientnet_b0 has norms of its own"),
        (classifier({"network": "resnet18", "trainable_layers": 3}), "trainable_layers=3: is for timm's networks"),
        (classifier({"network": "cnn"}, weights="imagenet"), "do not exist for network=cnn"),
        (classifier({"norm": "FrozenBN"}), "classifier.norm=FrozenBN without weights never learns"),
        (classifier({"network": "resnet51"}), "network 'resnet51': expected cnn, resnet18"),
        (classifier({"heads": {}}), "model.classifier.heads"),
        (classifier({"heads": {"tumor": {"loss": "cross_entropy"}}}), "is a label, its loss is bce or focal"),
        (classifier({"heads": {"density": {"loss": "bce"}}}), "heads.density: has several classes"),
        (classifier({"heads": {"density": {"positive_weight": 2}}}), "positive_weight is for labels"),
        (classifier({"heads": {"tumor": {"class_weights": "balanced"}}}), "heads.tumor: is a label; class_weights"),
        (classifier({"heads": {"density+": {}}}), "heads.density+: expected names joined by '+'"),
        (classifier({"heads": {"density+density": {}}}), "each once, as density+malignant"),
        (classifier({"heads": {"density": {"classes": ["A", "A"]}}}), "expected at least two different names"),
        (
            classifier({"heads": {"density": {"classes": ["A", "B"], "collapse": {"tumor": ["C"]}}}}),
            "collapse names classes ['C'], which are not among ['A', 'B']",
        ),
        (
            classifier({"heads": {"density": {"classes": ["A", "B"], "class_weights": [1, 2, 3]}}}),
            "class_weights: 3 for 2 classes",
        ),
        (
            classifier({"heads": {"tumor": {"los": "bce"}}}),
            "model.classifier.heads.tumor.los: unknown key; did you mean 'loss'?",
        ),
        (
            {**classifier({"network": "cnn", "cnn": {"blocks": [[8]] * 6}}), "data": {"image": {"max_size": 32}}},
            "data.image.max_size=32: is halved away by the 6 blocks",
        ),
        (
            {**classifier(), "data": {"negative_fraction": 0.5}},
            "data.negative_fraction is for detectors; for classifiers see data.sampling",
        ),
        ({"data": None}, "data"),
        ({1: 2}, "1"),
    ],
)
def test_impossible_values_and_combinations_are_refused(values, message):
    text = faults(values)
    assert message in text
    assert text.startswith("config test.yaml: ")


def test_combinations_that_work_are_taken():
    for values in (
        {"image_head": {"enabled": False}, "aggregation": {"rule": "max"}},
        {"weights": "coco", "detector": {"backbone": {"norm": "FrozenBN"}}},
        {"weights": "runs/best.ckpt", "detector": {"backbone": {"norm": "GN"}}},
        {"detector": {"backbone": {"name": "timm/convnext_tiny"}, "anchors": {"sizes": "auto"}}},
        {"kind": "classifier", "weights": "imagenet", "classifier": {"network": "timm/convnext_tiny"}},
        {"kind": "classifier", "weights": "imagenet", "classifier": {"network": "efficientnet_b0"}},
    ):
        assert make_config({"model": values}, where="x").model is not None


def test_settings_of_the_other_kind_are_dropped_from_what_version_0_1_wrote():
    detector, other = Config().to_dict(), load_config(None, ["model.kind=classifier"]).to_dict()
    whole = {"kind": "classifier", **{key: value for key, value in detector["model"].items() if key != "kind"}}
    whole["classifier"] = other["model"]["classifier"]
    for key in ("test_time", "pixels"):  # the oldest had none
        del whole[key]
    assert make_config({"model": whole}, where="config.yaml") == load_config(None, ["model.kind=classifier"])
    assert make_config({"model": {**whole, "kind": "detector"}}, where="config.yaml") == Config()
    whole["detector"]["max_detections"] = 7  # the default of another version
    assert make_config({"model": whole}, where="config.yaml") == load_config(None, ["model.kind=classifier"])
    part = {"kind": "classifier", "aggregation": {"rule": "learned", "top_k": 3, "over_images": "mean"}, "detector": {}}
    assert make_config({"model": part}, where="old.ckpt", stored=True).model.aggregation.over_images == "mean"
    with pytest.raises(InputError, match=r"model\.detector: is for detectors"):
        make_config({"model": part}, where="mine.yaml")


def test_config_comes_back_from_its_yaml():
    config = load_config(None, ["data.root=data/größe", "data.fold=3", "train.early_stopping=5", "data.val=x.json"])
    again = make_config(yaml.safe_load(config.to_yaml()), where="yaml")
    assert again == config


def test_files_of_a_fold_and_of_the_holdout():
    holdout, fold = load_config(None, ["data.root=d"]).data, load_config(None, ["data.root=d", "data.fold=0"]).data
    assert [each.path for each in (*holdout.files("train"), *holdout.files("val"))] == [
        Path("d/train.json"),
        Path("d/val.json"),
    ]
    assert [each.path for each in (*fold.files("train"), *fold.files("val"))] == [
        Path("d/fold0_train.json"),
        Path("d/fold0_val.json"),
    ]
    named = load_config(None, ["data.root=d", "data.fold=0", "data.train=mine.json"]).data
    assert [each.path for each in named.files("train")] == [Path("d/mine.json")]


def test_differences_name_the_keys():
    then, now = Config().to_dict(), load_config(None, ["train.lr=0.5", "data.fold=1"]).to_dict()
    assert differences(then, then) == []
    assert differences(then, now) == ["data.fold None -> 1", "train.lr 0.01 -> 0.5"]


def test_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("seed: 1\ntrain: {lr: 0.1}\nseed: 2\n")
    with pytest.raises(InputError, match=r"a\.yaml: is not valid YAML: the key 'seed' stands twice"):
        load_config(path)


def test_base_that_is_no_path_is_refused(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("_base_: [b.yaml]\n")
    with pytest.raises(InputError, match="expected the path of one YAML file"):
        load_config(path)


def test_section_that_is_a_value_is_told_in_plain_words():
    with pytest.raises(InputError, match="train: 3: expected a section of keys"):
        load_config(None, ["train=3"])
