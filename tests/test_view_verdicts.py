"""Verdicts, and the data set that they make."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
from small_cases import prediction
from small_view import ELSEWHERE, HOSTILE, LESION, STUDY, client

from mammodet.commands import main
from mammodet.data.coco import read_coco
from mammodet.errors import InputError
from mammodet.serving.study import Study
from mammodet.serving.verdicts import ConflictError, ImageVerdict, VerdictStore


def test_verdict_is_kept_at_once_and_found_again(study, store, tmp_path):
    sent = {
        "version": 0,
        "marks": [{"verdict": "accepted", "detection": 0}],
        "comment": HOSTILE,
        "done": True,
        "shown_from": 0.5,
    }
    answer = client(study, store).put(f"{STUDY}/images/0/verdict", json=sent)
    assert answer.status_code == 200
    assert answer.json()["version"] == 1
    again = client(study, VerdictStore(study, tmp_path / "preds")).get(STUDY).json()["verdicts"][0]
    assert again["comment"] == HOSTILE
    assert again["marks"][0]["verdict"] == "accepted"
    assert again["done"]


def test_second_window_does_not_overwrite_the_first(study, store):
    pages = client(study, store)
    assert pages.put(f"{STUDY}/images/0/verdict", json={"version": 0, "comment": "first"}).status_code == 200
    late = pages.put(f"{STUDY}/images/0/verdict", json={"version": 0, "comment": "second"})
    assert late.status_code == 409
    assert late.json()["stored"]["comment"] == "first"
    assert pages.put(f"{STUDY}/images/1/verdict", json={"version": 0, "comment": "another image"}).status_code == 200
    assert store.of(0).comment == "first"


def test_parallel_saves_of_one_version_keep_exactly_one(store):
    outcomes = []

    def save(number):
        try:
            outcomes.append(store.save(0, ImageVerdict(comment=str(number))))
        except ConflictError:
            outcomes.append(None)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each is not None for each in outcomes) == 1
    assert store.of(0).version == 1


@pytest.mark.parametrize(
    "marks",
    [
        [{"verdict": "accepted", "detection": 2}],
        [{"verdict": "accepted", "detection": -1}],
        [{"verdict": "accepted", "detection": 0}, {"verdict": "rejected", "detection": 0}],
        [{"verdict": "redrawn", "detection": 0}],
        [{"verdict": "added", "detection": 0, "box_xyxy": [1, 1, 5, 5]}],
        [{"verdict": "added", "box_xyxy": [200, 1, 300, 5]}],
        [{"verdict": "added", "box_xyxy": [1, 1, "1e999", 5]}],
        [{"verdict": "deleted", "detection": 0}],
        [{"verdict": "rejected", "detection": 0, "path": "/etc"}],
        [{"verdict": "rejected", "detection": 0}] * 201,
    ],
)
def test_marks_that_cannot_be_are_refused(study, store, marks):
    answer = client(study, store).put(f"{STUDY}/images/0/verdict", json={"version": 0, "marks": marks})
    assert answer.status_code == 422
    assert not store.path.exists()


def test_verdicts_of_other_predictions_are_refused(study, store, tmp_path):
    store.save(0, ImageVerdict(comment="seen"))
    other = Study(study.title, study.inputs, (None, None), study.categories)
    with pytest.raises(InputError, match=r"verdicts\.json.*move it away"):
        VerdictStore(other, tmp_path / "preds")
    store.path.write_text("{}")
    with pytest.raises(InputError, match="belongs_to"):
        VerdictStore(study, tmp_path / "preds")


def test_corrected_data_set_follows_the_verdicts(study, store, tmp_path):
    marks = [
        {"verdict": "redrawn", "detection": 0, "box_xyxy": [8, 8, 32, 32]},
        {"verdict": "rejected", "detection": 1},
        {"verdict": "added", "box_xyxy": [60, 60, 120, 80]},
    ]
    store.save(0, ImageVerdict.model_validate({"marks": marks, "done": True}))
    store.save(1, ImageVerdict.model_validate({"marks": [{"verdict": "accepted", "detection": 0}]}))
    with pytest.raises(SystemExit):
        main(["view", str(tmp_path / "test.json"), "--exportt", "x"])
    path = tmp_path / "corrected.json"
    assert (
        main(["view", str(tmp_path / "test.json"), "--predictions", str(tmp_path / "preds"), "--export", str(path)])
        == 0
    )
    record = read_coco(path).images[0]
    assert len(read_coco(path).images) == 1  # the second image is not done
    assert [each.box_xyxy for each in record.lesions] == [(8, 8, 32, 32), (60, 60, 100, 80)]
    assert [each.geometry for each in record.lesions] == ["box", "box"]

    store.save(0, ImageVerdict(version=1))
    accepted = {"version": 1, "marks": [{"verdict": "accepted", "detection": 0}], "done": True}
    store.save(1, ImageVerdict.model_validate(accepted))
    record = store.corrected().images[0]
    assert record.label("tumor") == 1
    assert record.lesions[0].box_xyxy == ELSEWHERE
    assert record.lesions[0].rle is not None
    store.save(1, ImageVerdict(version=2, done=True, shown_from=0.61))
    assert store.corrected().images[0].label("tumor") == 0
    assert store.corrected().images[0].lesions == ()


def test_accepting_a_finding_on_a_known_lesion_keeps_the_lesion(study, store):
    marks = [{"verdict": "accepted", "detection": 0}]
    store.save(0, ImageVerdict.model_validate({"marks": marks, "done": True, "shown_from": 0.5}))
    (record,) = store.corrected().images
    assert record.lesions == study.images[0].lesions


@pytest.mark.parametrize("count_seconds", [True, False])
def test_accepting_a_second_finding_on_a_known_lesion_adds_none(study, tmp_path, count_seconds):
    found = prediction(1, (LESION, 0.9), ((11, 11, 31, 31), 0.8), scores={"tumor": 0.9}, masks=True)
    shown = replace(study, predictions=(found, study.predictions[1]), count_seconds=count_seconds)
    store = VerdictStore(shown, tmp_path)
    marks = [{"verdict": "accepted", "detection": number} for number in (0, 1)]
    store.save(0, ImageVerdict.model_validate({"marks": marks, "done": True}))
    assert store.corrected().images[0].lesions == study.images[0].lesions


def test_image_is_not_done_while_a_finding_that_was_shown_has_no_verdict(study, store):
    marks = [{"verdict": "rejected", "detection": 0}]
    sent = {"version": 0, "marks": marks, "done": True, "shown_from": 0.4}
    answer = client(study, store).put(f"{STUDY}/images/0/verdict", json=sent)
    assert answer.status_code == 422
    assert "2 (0.40)" in answer.json()["error"]
    assert not store.path.exists()
    assert client(study, store).put(f"{STUDY}/images/0/verdict", json={**sent, "shown_from": 0.41}).status_code == 200


def test_export_refuses_images_that_an_older_version_marked_as_done(study, store, tmp_path):
    store.save(0, ImageVerdict(done=True, shown_from=1))
    value = json.loads(store.path.read_text())
    del value["images"]["images/im1.png"]["shown_from"]
    store.path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"images/im1\.png: is done, but 2 findings"):
        VerdictStore(study, tmp_path / "preds").corrected()


def test_export_without_a_done_image_is_refused(study, store):
    answer = client(study, store).get(f"{STUDY}/export")
    assert answer.status_code == 422
    assert "done" in answer.json()["error"]


def test_export_is_coco(study, store):
    store.save(0, ImageVerdict(done=True, shown_from=1))
    value = client(study, store).get(f"{STUDY}/export").json()
    assert value["annotations"][0]["bbox"] == [10, 10, 20, 20]
    assert len(value["images"]) == 1
