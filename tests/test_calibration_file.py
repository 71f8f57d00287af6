"""The calibration file: round trip, every fault with its message, and what it makes of scores."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_calibration import CALIBRATION, CHECKPOINT, FIT, OTHER, PROVENANCE, model_facts
from small_cases import prediction

from mammodet.data.predictions import Predictions, read_predictions, write_predictions
from mammodet.errors import InputError
from mammodet.evaluation.calibration_file import (
    Calibration,
    check_belongs,
    label_predictions,
    read_calibration,
    to_json,
    write_calibration,
)
from mammodet.files import canonical_hash


def test_file_reads_back_what_was_written(tmp_path):
    write_calibration(CALIBRATION, tmp_path / "c.json")
    assert read_calibration(tmp_path / "c.json") == CALIBRATION
    plain = Calibration("none", ("youden",), PROVENANCE, (replace(FIT, scaling=None, points=FIT.points[1:], after={}),))
    write_calibration(plain, tmp_path / "plain.json")
    assert read_calibration(tmp_path / "plain.json") == plain


def test_points_are_read_in_the_order_of_the_goals(tmp_path):
    value = to_json(CALIBRATION)
    value["fits"][0]["points"].reverse()
    (tmp_path / "c.json").write_text(json.dumps(value), encoding="utf-8")
    assert read_calibration(tmp_path / "c.json") == CALIBRATION


def test_file_tells_a_reader_what_each_threshold_is_worth():
    point = to_json(CALIBRATION)["fits"][0]["points"][0]
    assert point["threshold_probability"] == pytest.approx(1 / 17)
    assert (point["sensitivity"], point["specificity"], point["ppv"]) == (1, 0.5, pytest.approx(4 / 7))


def faulty(change: Any) -> Any:
    value = copy.deepcopy(to_json(CALIBRATION))
    change(value)
    return value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format="x/1"), "format is 'x/1'; expected 'mammodet-calibration/1'"),
        (lambda v: v.pop("method"), "method is missing"),
        (
            lambda v: v.update(method="isotonic"),
            "method: String should match pattern '^(platt|temperature|none)$' (is 'isotonic')",
        ),
        (lambda v: v.update(method="none"), "method 'none' has no 'scaling'"),
        (lambda v: v.update(goals=[]), "'goals' are []; expected at least one"),
        (lambda v: v.update(goals=["youden", "youden"]), "none twice"),
        (lambda v: v.update(goals=["best"]), "goals.0: goal 'best': expected one like youden"),
        (lambda v: v.update(goals=["youden"]), "are for sensitivity@0.9, youden; expected each of youden once"),
        (lambda v: v.update(goals=[*v["goals"], "f@1"]), "each of sensitivity@0.9, youden, f@1 once"),
        (lambda v: v.update(fitted_on=None), "fitted_on is None; expected an object"),
        (
            lambda v: v["fitted_on"].update(checkpoint_sha256="abc"),
            "fitted_on.checkpoint_sha256: String should match pattern '^[0-9a-f]{64}$' (is 'abc')",
        ),
        (lambda v: v["fitted_on"].pop("data_hash"), "fitted_on.data_hash is missing"),
        (
            lambda v: v["fitted_on"].update(over_images="median"),
            "fitted_on.over_images: String should match pattern '^(max|mean)$' (is 'median')",
        ),
        (lambda v: v["fitted_on"].update(patients=[1]), "fitted_on.patients.0 is 1; expected text"),
        (lambda v: v["fitted_on"].update(fitted_on_test=0), "fitted_on.fitted_on_test is 0; expected true or false"),
        (lambda v: v["fitted_on"].update(rule=7), "fitted_on.rule is 7; expected text"),
        (lambda v: v.update(fits=[]), "'fits' are empty"),
        (lambda v: v.update(fits=[1]), "fits.0 is 1; expected an object"),
        (lambda v: v["fits"].append(v["fits"][0]), "'fits' hold image, tumor 2 times"),
        (
            lambda v: v["fits"][0].update(level="film"),
            "fits.0.level: String should match pattern '^(image|breast|patient)$' (is 'film')",
        ),
        (
            lambda v: v["fits"][0].update(label="cyst"),
            "fits.0.label: String should match pattern '^(tumor|malignant)$' (is 'cyst')",
        ),
        (lambda v: v["fits"][0].update(n_positive=-1), "fits.0.n_positive is -1; expected at least 0"),
        (lambda v: v["fits"][0].update(n_negative=7), "counts 4 positive and 6 negative cases; the fit had 4 and 7"),
        (lambda v: v["fits"][0]["scaling"].update(a=-1), "expected finite numbers, a above 0"),
        (lambda v: v["fits"][0]["scaling"].update(b="x"), "fits.0.scaling.b is 'x'; expected a number"),
        (lambda v: v["fits"][0].update(scaling=None), "method 'platt' has a 'scaling' with 'a' and 'b'"),
        (
            lambda v: v["fits"][0]["points"][0].update(threshold=1.5),
            "fits.0.points.0.threshold is 1.5; expected at most 1",
        ),
        (lambda v: v["fits"][0]["points"][0].update(tp=2.5), "fits.0.points.0.tp is 2.5; expected a whole number"),
        (lambda v: v["fits"][0]["points"].pop(), "'points' and 'not_reached' are for sensitivity@0.9"),
        (lambda v: v["fits"][0].update(before={"ece": "x"}), "fits.0.before.ece is 'x'; expected a number"),
        (lambda v: v.update(refused=[{"level": "image"}]), "refused.0.label is missing"),
    ],
)
def test_fault_in_a_file_is_told(tmp_path, change, message):
    (tmp_path / "c.json").write_text(json.dumps(faulty(change)), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_calibration(tmp_path / "c.json")
    assert message in str(caught.value)
    assert "c.json" in str(caught.value)


def test_all_faults_of_a_file_are_told_at_once(tmp_path):
    def change(value: Any) -> None:
        value["fits"][0]["scaling"]["a"] = 0
        value["fits"][1]["points"][0]["threshold"] = -1
        value["fitted_on"]["version"] = None

    (tmp_path / "c.json").write_text(json.dumps(faulty(change)), encoding="utf-8")
    with pytest.raises(InputError, match="3 faults"):
        read_calibration(tmp_path / "c.json")


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"format": "mammodet-calibration/1"}'])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "c.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="mammodet calibrate"):
        read_calibration(tmp_path / "c.json")


# its use


def test_label_is_decided_on_the_raw_score_and_shown_as_probability():
    found = CALIBRATION.labels("image", {"tumor": 0.8, "malignant": 0.9})
    assert found == {
        "tumor": {
            "label": 1,
            "probability": pytest.approx(16 / 17),
            "threshold": pytest.approx(1 / 17),
            "score_threshold": 0.2,
            "goal": "sensitivity@0.9",
        }
    }
    assert CALIBRATION.labels("image", {"tumor": 0.2})["tumor"]["label"] == 1
    assert CALIBRATION.labels("image", {"tumor": 0.19999})["tumor"]["label"] == 0


def test_label_is_unknown_where_its_goal_was_not_reached():
    found = CALIBRATION.labels("breast", {"tumor": 0.8})["tumor"]
    assert (found["label"], found["threshold"], found["score_threshold"]) == (None, None, None)
    assert found["probability"] == pytest.approx(16 / 17)


def test_label_without_a_scaling_has_no_probability():
    plain = replace(CALIBRATION, method="none", fits=(replace(FIT, scaling=None),))
    found = plain.labels("image", {"tumor": 0.3})["tumor"]
    assert (found["label"], found["probability"], found["threshold"]) == (1, None, 0.2)


def test_evaluation_reads_points_and_probabilities():
    assert CALIBRATION.points("image", "tumor")[0] == {"goal": "sensitivity@0.9", "threshold": 0.2}
    assert CALIBRATION.points("patient", "tumor") == []
    scores = np.array([0.5, 0.8])
    assert CALIBRATION.probabilities("image", "tumor", scores) == pytest.approx([0.5, 16 / 17])
    assert CALIBRATION.probabilities("patient", "tumor", scores) is None


def test_labels_are_added_and_nothing_else_changes(tmp_path):
    images = (prediction(1, scores={"tumor": 0.8}), prediction(2, scores={"tumor": 0.1}))
    breasts = ({"patient_id": "p", "laterality": "L", "scores": {"tumor": 0.8}},)
    before = Predictions(images, ("mass",), {"checkpoint_sha256": CHECKPOINT}, breasts, ())
    write_predictions(before, tmp_path / "p.json")
    value = json.loads((tmp_path / "p.json").read_text())
    label_predictions(tmp_path / "p.json", CALIBRATION)
    labelled = json.loads((tmp_path / "p.json").read_text())
    assert [item["labels"]["tumor"]["label"] for item in labelled["images"]] == [1, 0]
    assert labelled["breasts"][0]["labels"]["tumor"]["label"] is None
    assert labelled["model"]["calibration"]["sha256"] == canonical_hash(to_json(CALIBRATION))
    assert labelled["model"]["calibration"]["other_checkpoint"] is False
    for item in (*labelled["images"], *labelled["breasts"]):
        del item["labels"]
    del labelled["model"]["calibration"]
    assert labelled == value


def test_labelled_predictions_can_be_read(tmp_path):
    before = Predictions((prediction(1, scores={"tumor": 0.8}),), ("mass",), {"checkpoint_sha256": OTHER}, (), ())
    write_predictions(before, tmp_path / "p.json")
    label_predictions(tmp_path / "p.json", CALIBRATION)
    after = read_predictions(tmp_path / "p.json")
    assert after.images[0].scores == {"tumor": 0.8}
    assert after.model["calibration"]["goal"] == "sensitivity@0.9"
    assert after.model["calibration"]["other_checkpoint"] is True


def test_calibration_belongs_to_its_checkpoint():
    check_belongs(CALIBRATION, model_facts(), "c.json")
    with pytest.raises(InputError) as caught:
        check_belongs(CALIBRATION, model_facts(OTHER), "c.json")
    assert CHECKPOINT in str(caught.value)
    assert OTHER in str(caught.value)
    assert "--allow-other-checkpoint" in str(caught.value)
    check_belongs(CALIBRATION, model_facts(OTHER), "c.json", allow_other=True)


def test_calibration_without_a_checkpoint_belongs_to_none():
    nameless = replace(CALIBRATION, provenance=replace(PROVENANCE, checkpoint_sha256=None))
    with pytest.raises(InputError, match="named none"):
        check_belongs(nameless, model_facts(None), "c.json")
    assert nameless.describe({})["other_checkpoint"] is True


def test_calibration_of_other_scores_is_refused_whatever_is_allowed():
    with pytest.raises(InputError, match="by the rule 'learned', this model aggregates by 'head'"):
        check_belongs(CALIBRATION, model_facts(rule="head"), "c.json", allow_other=True)
    with pytest.raises(InputError, match="--over-images mean"):
        check_belongs(CALIBRATION, model_facts(over_images="mean"), "c.json", allow_other=True)
    images_alone = replace(CALIBRATION, fits=(FIT,))  # nothing was joined
    check_belongs(images_alone, model_facts(over_images="mean"), "c.json")
