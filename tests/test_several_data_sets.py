"""Several data sets in one training: names, numbers, categories, patients, weights, and what a checkpoint remembers."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import SMALL
from small_training import SHORT

from mammodet.config import Config, SamplingConfig, load_config
from mammodet.converters import mias
from mammodet.converters.base import SplitOptions
from mammodet.data.coco import data_hash, read_coco, write_coco
from mammodet.data.dataset import LesionDataset
from mammodet.data.predictions import read_predictions
from mammodet.data.sampling import EpochSampler
from mammodet.data.several import map_categories
from mammodet.data.sources import SourceFile, seen_patients, sources_of
from mammodet.data.subset import Filter, write_subset
from mammodet.engine.checked_run import Run, prepare
from mammodet.engine.checkpoint import KEY, read_facts
from mammodet.engine.folds import read_folds
from mammodet.engine.predict import Predictor, predict_to_folder
from mammodet.engine.run_folder import BEST
from mammodet.engine.train import train
from mammodet.errors import InputError
from mammodet.phantom.mias import write_mias_archive
from mammodet.records import Dataset, ImageRecord, Lesion
from mammodet.reporting.evaluation_files import evaluate_files
from mammodet.targets import Target

OPTIONS = (*SMALL, "model.detector.arch=faster_rcnn", "data.image.max_size=32", "data.num_workers=0")


def lesion(category: str = "mass", **more: object) -> Lesion:
    return Lesion(category, (2.0, 2.0, 9.0, 9.0), None, "box", **more)  # type: ignore[arg-type]


def write_set(
    path: Path,
    *patients: str | None,
    archive: str | None = None,
    categories: tuple[str, ...] = ("mass",),
    first: int = 1,
    **more: object,
) -> Path:
    """One image of 16x16 px with a lesion per patient, ids from 1, named by their number from `first`."""
    known = {"labels": {"tumor": 1, "malignant": 0}, "lesions": (lesion(categories[0]),)} | more
    records = []
    for number, patient in enumerate(patients, start=1):
        name = f"images/{first + number - 1}.png"
        records.append(ImageRecord(number, name, (16, 16), patient, **known))  # type: ignore[arg-type]
        write_noise(path.parent / name, len(path.parent.name) * 1000 + first + number)
    write_coco(Dataset(categories, tuple(records), {"archive": archive} if archive else {}), path)
    return path


def write_noise(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8))


def run_of(root: Path, *overrides: str) -> Run:
    return prepare(load_config(None, (*OPTIONS, f"data.root={root}", "model.aggregation.rule=max", *overrides)))


def refusal(root: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as error:
        run_of(root, *overrides)
    return str(error.value)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Sets `a` and `bb`, three patients for training and one for validation each, with the same image names."""
    for name in ("a", "bb"):
        write_set(tmp_path / name / "train.json", *(f"{name}{number}" for number in (1, 2, 3)), archive=name)
        write_set(tmp_path / name / "val.json", f"{name}4", archive=name, first=4)
    return tmp_path


BOTH = ("data.train=[a/train.json,bb/train.json]", "data.val=[a/val.json,bb/val.json]")


# The config


def test_a_list_takes_paths_and_sections_and_comes_back_from_its_yaml(tmp_path: Path) -> None:
    config = load_config(None, ["data.root=d", "data.train=[a/t.json, {file: ../b/t.json, categories: {x: y, z: }}]"])
    assert isinstance(config.data.train, list)
    assert [each.file for each in config.data.train] == ["a/t.json", "../b/t.json"]
    assert config.data.train[1].categories == {"x": "y", "z": None}
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "config.yaml") == config
    single = load_config(None, ["data.root=d", "data.train={file: a/t.json, weight: 2}"])
    assert [(each.path, each.root) for each in single.data.files("train")] == [(Path("d/a/t.json"), Path("d/a"))]


def test_one_plain_file_keeps_its_images_below_the_root() -> None:
    plain = load_config(None, ["data.root=d", "data.train=a/t.json"]).data
    assert [(each.path, each.root) for each in plain.files("train")] == [(Path("d/a/t.json"), Path("d"))]
    beside = load_config(None, ["data.root=d", "data.train=[/x/t.json]", "data.val=a/v.json"]).data
    assert [(each.path, each.root) for each in beside.files("train")] == [(Path("/x/t.json"), Path("/x"))]
    assert [(each.path, each.root) for each in beside.files("val")] == [(Path("d/a/v.json"), Path("d/a"))]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.train=[{file: a, weigth: 2}]"], r"data\.train\.0\.weigth: unknown key; did you mean 'weight'\?"),
        (["data.train=[a, {file: b, weight: 0}]"], r"data\.train\.1\.weight: 0: .*greater than 0"),
        (["data.train=[]"], r"data\.train: \[\]: .*at least 1 item"),
        (["data.train=[a, b]", "data.fold=1"], r"data\.train=\[a/fold1_train\.json, b/fold1_train\.json\]"),
        (["data.val=[a]", "data.unsafe_split=rotated_copies"], "leave out lists"),
        (["data.val=[{file: a, weight: 2}]"], "weight of a: validation images count once"),
        (["data.train=[a, {file: b, weight: 2}]", "data.sampling.per_patient=true"], "leave one out"),
    ],
)
def test_faulty_lists_are_refused_with_the_place(overrides: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_config(None, overrides)


def test_all_folds_refuses_a_list(phantom_root: Path) -> None:
    with pytest.raises(InputError, match=r"leave out data\.fold, data\.train"):
        read_folds(load_config(None, (f"data.root={phantom_root}", "data.train=[train.json]")))


# Names and numbers


def test_joined_images_have_numbers_and_names_of_their_own(two: Path) -> None:
    run = run_of(two, *BOTH)
    assert [(record.image_id, record.file_name, record.patient_id) for record in run.train.images] == [
        (1, "a/images/1.png", "a1"),
        (2, "a/images/2.png", "a2"),
        (3, "a/images/3.png", "a3"),
        (4, "bb/images/1.png", "bb1"),
        (5, "bb/images/2.png", "bb2"),
        (6, "bb/images/3.png", "bb3"),
    ]
    assert [(record.image_id, record.file_name) for record in run.val.images] == [
        (7, "a/images/4.png"),
        (8, "bb/images/4.png"),
    ]
    samples = LesionDataset(run.train, run.root, run.config.data.image, (), with_masks=False)
    assert [samples[index].record.image_id for index in (0, 5)] == [1, 6]
    assert run.facts.patients == ("a1", "a2", "a3", "a4", "bb1", "bb2", "bb3", "bb4")


def test_files_may_lie_outside_the_root_and_the_hash_does_not_depend_on_the_place(two: Path, tmp_path: Path) -> None:
    run = run_of(two, *BOTH)
    shutil.copytree(two, tmp_path / "moved")
    moved = tmp_path / "moved"
    again = run_of(moved / "a", f"data.train=[train.json,{moved}/bb/train.json]", "data.val=[val.json,../bb/val.json]")
    assert again.train.images == run.train.images
    assert again.facts.data_hash == run.facts.data_hash
    swapped = run_of(two, "data.train=[bb/train.json,a/train.json]", BOTH[1])
    assert swapped.facts.data_hash != run.facts.data_hash


def test_a_list_of_parts_of_one_folder_keeps_the_names(two: Path) -> None:
    write_set(two / "a/more.json", "a5", archive="a", first=5)
    run = run_of(two, "data.train=[a/train.json,a/more.json]", "data.val=[a/val.json]")
    assert [record.file_name for record in run.train.images] == [f"images/{number}.png" for number in (1, 2, 3, 5)]


def test_missing_files_are_all_named(two: Path) -> None:
    message = refusal(two, "data.train=[a/train.json,c/train.json]", "data.val=[d/val.json]")
    assert f"{two / 'c/train.json'}: no such file" in message
    assert f"{two / 'd/val.json'}: no such file" in message


def test_images_that_two_files_hold_are_refused(two: Path) -> None:
    message = refusal(two, "data.train=[a/train.json,a/../a/train.json]", "data.val=[bb/val.json]")
    assert "3 images of" in message
    assert "a/images/1.png, a/images/2.png, a/images/3.png; leave one file out" in message


# Categories and labels


def mapped(record: ImageRecord, **categories: str | None) -> ImageRecord:
    faults: list[str] = []
    dataset = map_categories(Dataset(("mass", "calc"), (record,)), categories, "x.json", faults)
    assert faults == []
    return dataset.images[0]


def test_renamed_categories_become_one(two: Path) -> None:
    write_set(two / "bb/train.json", "bb1", categories=("lump", "mass"), archive="bb")
    files = "data.train=[a/train.json,{file: bb/train.json, categories: {lump: mass}}]"
    run = run_of(two, files, BOTH[1])
    assert run.train.categories == ("mass",)
    assert [record.lesions[0].category for record in run.train.images] == ["mass"] * 4
    assert run.train.images[3].lesions[0].attributes == {"category_original": "lump"}


def test_dropped_findings_are_ignored_and_what_they_alone_showed_is_unknown() -> None:
    both = {"tumor": 1, "malignant": 1}
    image = ImageRecord(1, "1.png", (16, 16), labels={**both, "implant": 0}, lesions=(lesion("calc"),))
    alone = mapped(image, calc=None)
    assert [(one.category, one.ignore) for one in alone.lesions] == [("mass", True)]
    assert alone.labels == {"tumor": None, "malignant": None, "implant": 0}
    assert not alone.has_complete_boxes
    # a mass beside it: a tumor, perhaps the malignant one
    beside = replace(image, lesions=(lesion("mass"), lesion("calc")))
    assert mapped(beside, calc=None).labels == {"tumor": 1, "malignant": None, "implant": 0}
    malignant = lesion("mass", attributes={"pathology": "malignant"})
    assert mapped(replace(beside, lesions=(malignant, lesion("calc"))), calc=None).labels["malignant"] == 1
    benign = lesion("calc", attributes={"pathology": "benign"})
    assert mapped(replace(beside, lesions=(lesion("mass"), benign)), calc=None).labels["malignant"] == 1
    # a lesion without a place may be of the dropped category
    unlocalized = replace(image, lesions=(), unlocalized=True)
    assert mapped(unlocalized, calc=None).labels["tumor"] is None
    assert mapped(unlocalized, calc="mass").labels["tumor"] == 1
    normal = replace(image, lesions=(), labels={"tumor": 0, "malignant": 0})
    assert mapped(normal, calc=None) == normal


def test_categories_that_differ_are_refused_with_the_remedy(two: Path) -> None:
    write_set(two / "bb/train.json", "bb1", categories=("lump", "calc"))
    message = refusal(two, *BOTH)
    assert f"{two / 'a/train.json'} has mass; {two / 'bb/train.json'} has lump, calc" in message
    assert "{file: ..., categories: {lesion: mass, calcification: null}}" in message


def test_faulty_mappings_are_refused_together(two: Path) -> None:
    files = "data.train=[{file: a/train.json, categories: {mas: x}},{file: bb/train.json, categories: {mass: }}]"
    message = refusal(two, files, BOTH[1])
    assert "a/train.json: categories ['mas']: not among its own, ['mass']" in message
    assert "bb/train.json: categories: no category is left of ['mass']" in message


def test_a_label_that_a_set_does_not_know_is_unknown_there(two: Path) -> None:
    write_set(two / "bb/train.json", "bb1", archive="bb", labels={"implant": 1})
    run = run_of(two, *BOTH, "model.image_head.targets=[tumor,malignant]")
    samples = LesionDataset(run.train, run.root, run.config.data.image, run.config.model.targets, with_masks=False)
    assert samples[0].labels.tolist() == [1, 0]
    assert samples[3].labels.isnan().all()


def test_subset_writes_files_with_mapped_categories(tmp_path: Path) -> None:
    write_set(tmp_path / "test.json", "p1", categories=("lump", "calc"))
    write_subset(tmp_path, "mass", Filter(categories={"lump": "mass", "calc": None}))
    assert read_coco(tmp_path / "mass_test.json").categories == ("mass",)
    with pytest.raises(InputError, match=r"categories \['x'\]: not among its own"):
        write_subset(tmp_path, "more", Filter(categories={"x": "y"}))


# Patients and copies


def same_ids(root: Path) -> None:
    """Set `bb` of other people with the ids of `a`, one of them in its validation set."""
    write_set(root / "bb/train.json", "a1", "b2", archive="bb")
    write_set(root / "bb/val.json", "a2", archive="bb", first=4)


def with_prefix(prefix: str) -> tuple[str, str]:
    entry = f"{{file: bb/SUBSET.json, patient_prefix: '{prefix}'}}"
    return tuple(f"data.{name}=[a/{name}.json,{entry.replace('SUBSET', name)}]" for name in ("train", "val"))  # type: ignore[return-value]


def test_equal_ids_of_two_archives_are_asked_for(two: Path) -> None:
    same_ids(two)
    message = refusal(two, *BOTH)
    assert "2 patient ids of a are those of bb: a1, a2." in message
    assert "{file: bb/train.json, patient_prefix: bb/}" in message
    assert "patient_prefix: ''" in message


def test_a_prefix_tells_people_apart_and_an_empty_one_makes_them_the_same(two: Path) -> None:
    same_ids(two)
    run = run_of(two, *with_prefix("bb/"))
    assert run.facts.patients == ("a1", "a2", "a3", "a4", "bb/a1", "bb/a2", "bb/b2")
    assert "1 patients are in training and in validation: a2" in refusal(two, *with_prefix(""))


def test_a_prefix_cannot_hide_a_leak_within_an_archive(two: Path) -> None:
    files = "data.train=[{file: a/train.json, patient_prefix: x/}]"
    assert "a: its files have different values of patient_prefix" in refusal(two, files, "data.val=[a/val.json]")
    shutil.copytree(two / "a", two / "copy")
    files = "data.train=[a/train.json,{file: copy/val.json, patient_prefix: x/}]"
    assert "a: its files have different values of patient_prefix" in refusal(two, files, "data.val=[bb/val.json]")


def test_a_prefix_with_which_ids_of_another_set_begin_is_refused(two: Path) -> None:
    files = ("data.train=[a/train.json,{file: bb/train.json, patient_prefix: a}]", "data.val=[a/val.json]")
    assert "patient_prefix 'a' is how ids of another set begin: a1; choose another" in refusal(two, *files)


def test_patients_of_one_archive_in_another_files_validation_are_refused(two: Path) -> None:
    write_set(two / "other/val.json", "a2", archive="a", first=9)
    message = refusal(two, "data.train=[a/train.json,bb/train.json]", "data.val=[bb/val.json,other/val.json]")
    assert "1 patients are in training and in validation: a2" in message


def test_equal_ids_of_one_archive_in_two_folders_are_taken_for_the_same_people_and_told(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(two / "other/train.json", "a2", "a9", archive="a", first=9)
    run = run_of(two, "data.train=[a/train.json,other/train.json]", "data.val=[bb/val.json]")
    assert run.facts.patients == ("a1", "a2", "a3", "a9", "bb4")
    told = f"1 patients are in {two.resolve()}/a and in {two.resolve()}/other, both of a: taken for the same people"
    assert told in capsys.readouterr().out


def test_an_image_file_of_training_is_found_in_validation_under_another_name(two: Path) -> None:
    shutil.copy(two / "a/images/2.png", two / "bb/images/4.png")
    message = refusal(two, *BOTH)
    assert "1 image files of validation are in training, too: bb/images/4.png (= a/images/2.png)" in message
    content = bytearray((two / "a/images/2.png").read_bytes())
    content[-13] ^= 1  # of the same size, and another one
    (two / "bb/images/4.png").write_bytes(content)
    run_of(two, *BOTH)


def test_archives_of_the_same_women_are_not_joined_across_training_and_validation(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(two / "a/train.json", "P_1", "P_2", archive="CBIS-DDSM")
    write_set(two / "a/val.json", "P_3", archive="CBIS-DDSM", first=4)
    write_set(two / "bb/train.json", "A_1", "A_2", archive="DDSM")
    write_set(two / "bb/val.json", "A_3", archive="DDSM", first=4)
    message = refusal(two, *BOTH)
    assert "1 fault" in message
    assert "CBIS-DDSM and DDSM hold films of the same women under different ids" in message
    run = run_of(two, *with_prefix(""))  # the user says that ids were made common
    assert run.facts.patients == ("A_1", "A_2", "A_3", "P_1", "P_2", "P_3")
    command = f"mammodet audit {two}/a/train.json --with {two}/bb/train.json {two}/a/val.json {two}/bb/val.json"
    assert command in capsys.readouterr().out


# Weights


def drawn(keys: EpochSampler) -> list[int]:
    return [key.position for key in keys]


def pool(*tumor: int) -> Dataset:
    images = tuple(
        ImageRecord(number, f"{number}.png", (8, 8), labels={"tumor": value}) for number, value in enumerate(tumor)
    )
    return Dataset(("mass",), images)


def test_images_of_weight_two_are_drawn_twice_as_often() -> None:
    # 6 images of weight 1 and 3 of weight 2: 12 draws show each of the former once, of the latter twice
    weights = [1.0] * 6 + [2.0] * 3
    sampler = EpochSampler(pool(*[0] * 9), range(9), batch_size=4, seed=0, weights=weights, epoch_size=12)
    counts = Counter(drawn(sampler))
    assert [counts[number] for number in range(9)] == [1] * 6 + [2] * 3
    assert drawn(sampler) == drawn(sampler)
    first = drawn(sampler)
    sampler.set_epoch(1)
    assert drawn(sampler) != first
    assert [sum(position >= 6 for position in first[start : start + 4]) for start in (0, 4, 8)] == [2, 2, 2]


def test_weights_hold_within_the_share_of_negatives() -> None:
    # positives 0-1 of weight 1, 2 of weight 2; negatives 3-5 of weight 1, 6 of weight 3
    weights = [1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 3.0]
    sampler = EpochSampler(
        pool(1, 1, 1, 0, 0, 0, 0), range(7), batch_size=8, seed=0, negative_fraction=0.6, weights=weights, epoch_size=40
    )
    counts = Counter(drawn(sampler))
    assert [counts[number] for number in range(7)] == [4, 4, 8, 4, 4, 4, 12]


def test_weights_hold_within_the_classes_of_a_rule() -> None:
    weights = [1.0, 3.0, 1.0, 1.0]
    balanced = SamplingConfig(rule="balanced", target="tumor")
    given = {"sampling": balanced, "target": Target("tumor"), "weights": weights, "epoch_size": 16}
    sampler = EpochSampler(pool(1, 1, 0, 0), range(4), batch_size=4, seed=0, **given)
    counts = Counter(drawn(sampler))
    assert [counts[number] for number in range(4)] == [2, 6, 4, 4]


def test_two_processes_draw_with_weights_what_one_does() -> None:
    given = {"seed": 3, "weights": [1.0, 2.0, 5.0], "epoch_size": 16}
    one = drawn(EpochSampler(pool(0, 0, 0), range(3), batch_size=4, **given))  # type: ignore[arg-type]
    parts = [
        drawn(EpochSampler(pool(0, 0, 0), range(3), batch_size=2, rank=rank, world_size=2, **given))  # type: ignore[arg-type]
        for rank in (0, 1)
    ]
    together = [key for step in range(0, 8, 2) for part in parts for key in part[step : step + 2]]
    assert together == one


def test_weights_of_the_config_reach_the_images(two: Path) -> None:
    assert run_of(two, *BOTH).weights is None
    run = run_of(two, "data.train=[a/train.json,{file: bb/train.json, weight: 2.5}]", BOTH[1])
    assert run.weights == (1, 1, 1, 2.5, 2.5, 2.5)


# What a checkpoint remembers


def test_patients_of_a_set_with_a_prefix_are_compared_with_its_own_archive() -> None:
    files = [SourceFile("a.json", archive="a"), SourceFile("b.json", archive="b", patient_prefix="b/")]
    model = {"patients": ["P1", "b/P2"], "files": [file.to_json() for file in files]}
    of = {name: Dataset(("mass",), (), {"archive": name}) for name in ("a", "b", "c")}
    assert {name: seen_patients(model, dataset) for name, dataset in of.items()} == {
        "a": {"P1"}, "b": {"P2"}, "c": {"P1", "P2"},
    }  # fmt: skip
    assert seen_patients(model, Dataset(("mass",), ())) == {"P1", "P2"}
    # files of a checkpoint that does not say its archive count against every set
    model["files"].append(SourceFile("older.ckpt").to_json())  # type: ignore[attr-defined]
    assert seen_patients(model, of["b"]) == {"P1", "P2"}


@pytest.mark.parametrize("files", [3, [3], [{"subset": "test"}], [{"subset": "val", "file": 3}]])
def test_files_of_a_model_that_cannot_be_read_are_refused(files: object) -> None:
    with pytest.raises(InputError, match="'files' of a model"):
        sources_of({"files": files})


@pytest.fixture(scope="module")
def phantoms(phantom_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantom archives beside each other, of other people with the same ids."""
    folder = tmp_path_factory.mktemp("two sets")
    shutil.copytree(phantom_root, folder / "one")
    write_mias_archive(folder / "archive", patients=12, size=128, seed=5, difficulty="easy", progress=False)
    mias.convert(folder / "archive", folder / "two", mias.MiasOptions(splits=SplitOptions(0.2, 0.3), progress=False))
    for path in (folder / "two").glob("*.json"):
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict) and "images" in value:
            value["info"]["archive"] = "second"
            path.write_text(json.dumps(value), encoding="utf-8")
    return folder


def phantom_config(root: Path, output: Path, *overrides: str) -> Config:
    sets = [
        f"data.{name}=[one/{name}.json,{{file: two/{name}.json, patient_prefix: two/, WEIGHT}}]"
        for name in ("train", "val")
    ]
    sets = [sets[0].replace("WEIGHT", "weight: 2"), sets[1].replace(", WEIGHT", "")]
    options = (*SMALL, f"data.root={root}", f"output_dir={output}", *SHORT, *sets, *overrides)
    return load_config(None, options)


def test_a_model_of_two_sets_is_refused_on_either_training_set_and_scored_on_either_test_set(
    phantoms: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    run = prepare(phantom_config(phantoms, output, "data.negative_fraction=0.5", "data.epoch_size=8"))
    assert run.root == phantoms.resolve()
    train(run)
    _, facts = read_facts(output / BEST)
    assert [(Path(str(file.file)).parent.name, file.subset, file.archive) for file in facts.files] == [
        ("one", "train", "phantom"),
        ("two", "train", "second"),
        ("one", "val", "phantom"),
        ("two", "val", "second"),
    ]
    assert facts.files[1].data_hash == data_hash(read_coco(phantoms / "two/train.json"))
    assert facts.split_hash is None
    train(run, resume=True)  # finished: nothing is left to do
    assert "files" in torch.load(output / BEST, weights_only=True)[KEY]

    predictor = Predictor.from_checkpoint(output / BEST, "cpu")
    for name in ("one", "two"):
        path = phantoms / name / "test.json"
        found, _ = predict_to_folder(predictor, read_coco(path), path.parent, tmp_path / name, progress=False)
        assert len(read_predictions(found).model["files"]) == 4
        metrics = evaluate_files(path, [found], tmp_path / f"eval {name}", report=False, progress=False)
        assert metrics.models[0].protocol.patients_seen_in_training == 0
    for name, subset, words in (("one", "val", "validation"), ("two", "train", "training")):
        path = phantoms / name / f"{subset}.json"
        found, _ = predict_to_folder(predictor, read_coco(path), path.parent, tmp_path / subset, progress=False)
        with pytest.raises(InputError) as error:
            evaluate_files(path, [found], tmp_path / "eval", report=False, progress=False)
        patients = {record.patient_id for record in read_coco(path).images}
        assert f"in training or validation ({len(patients) + 2}):" in str(error.value)
        assert f"its data hash is that of the {words} file {path}" in str(error.value)
        assert f"it is the {subset} part of the split" in str(error.value)
