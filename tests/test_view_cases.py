"""Links from an evaluation's report to the cases behind its figures: as many as each figure counts."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from urllib.parse import parse_qsl

import numpy as np
import pytest
from small_cases import dataset, image, lesion, prediction
from small_view import HOST, TOKEN, client

from mammodet.commands import main
from mammodet.data.coco import write_coco
from mammodet.data.images import write_png
from mammodet.data.inputs import gather
from mammodet.data.predictions import Predictions, read_predictions, write_predictions
from mammodet.errors import InputError
from mammodet.evaluation.results import read_metrics
from mammodet.serving.cases import CaseFinder
from mammodet.serving.study import Study
from mammodet.serving.verdicts import VerdictStore

HIT, OTHER, NOWHERE = (10.0, 10.0, 30.0, 30.0), (60.0, 60.0, 80.0, 80.0), (40.0, 40.0, 50.0, 50.0)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Four breasts of three patients; the first lesion is found, the second after a false positive, the third never."""
    tmp_path = tmp_path_factory.mktemp("cases")

    def record(number, *lesions, **more):
        return image(number, *lesions, labels={"tumor": int(bool(lesions))}, **more)

    records = (
        record(1, lesion(HIT), patient_id="p1", laterality="R", view="CC", density="B"),
        record(2, patient_id="p1", laterality="R", view="MLO", density="B"),
        record(3, lesion(HIT), lesion(OTHER), patient_id="p2", laterality="L", view="CC", density="C"),
        record(4, patient_id="p3", laterality="L", view="CC", density="C"),
        record(5, patient_id="p3", laterality="R", view="CC", density="C"),
    )
    found = (
        prediction(1, (HIT, 0.9), scores={"tumor": 0.9}, masks=True, class_scores={"density": {"B": 0.9, "C": 0.1}}),
        prediction(2, scores={"tumor": 0.2}, masks=True, class_scores={"density": {"B": 0.2, "C": 0.8}}),
        prediction(3, (HIT, 0.5), scores={"tumor": 0.5}, masks=True, class_scores={"density": {"B": 0.3, "C": 0.7}}),
        prediction(4, (NOWHERE, 0.7), scores={"tumor": 0.7}, masks=True, class_scores={"density": {"B": 0, "C": 1}}),
        prediction(5, scores={"tumor": 0.1}, masks=True),
    )
    for one in records:
        write_png(tmp_path / one.file_name, np.zeros((100, 100), np.uint8))
    write_coco(dataset(*records), tmp_path / "test.json")
    write_predictions(Predictions(found, ("mass",), {"checkpoint": "a"}), tmp_path / "preds" / "predictions.json")
    files = ["--ground-truth", str(tmp_path / "test.json"), "--predictions", str(tmp_path / "preds/predictions.json")]
    main(["evaluate", *files, "--resamples", "0", "--output", str(tmp_path / "eval")])
    inputs = gather([tmp_path / "test.json"], (), unpack_to=tmp_path / "unused")
    study = Study.of("test.json", inputs, read_predictions(tmp_path / "preds" / "predictions.json"))
    return study, CaseFinder(study, read_metrics(tmp_path / "eval" / "metrics.json"), 0), tmp_path


def rows(finder, **query):
    return [row["images"] for row in finder.find(query)["rows"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"cases": "lesions", "fppi": "0.125"}, [[2]]),
        ({"cases": "lesions"}, [[0], [2]]),
        ({"cases": "lesions", "variable": "density", "value": "B", "fppi": "1"}, []),
        ({"cases": "lesions", "match": "center", "denominator": "normal images", "fppi": "1"}, [[2]]),
        ({"cases": "images", "variable": "density", "value": "B"}, [[0], [1]]),
        ({"cases": "scores", "level": "image", "label": "tumor", "call": "tp"}, [[0], [2]]),
        ({"cases": "scores", "level": "image", "label": "tumor", "call": "fn", "threshold": "0.6"}, [[2]]),
        ({"cases": "scores", "level": "image", "label": "tumor", "call": "wrong", "threshold": "0.6"}, [[3], [2]]),
        ({"cases": "scores", "level": "breast", "label": "tumor", "call": "positive"}, [[0, 1], [2]]),
        ({"cases": "scores", "level": "breast", "label": "tumor", "call": "tn"}, [[4]]),
        ({"cases": "scores", "level": "patient", "label": "tumor", "call": "negative"}, [[3, 4]]),
        ({"cases": "classes", "question": "density", "true": "B", "predicted": "C"}, [[1]]),
        ({"cases": "classes", "question": "density", "predicted": "C", "wrong": "true"}, [[1]]),
        ({"cases": "classes", "question": "density"}, [[0], [1], [2], [3]]),
        ({"cases": "outlines", "per": "found lesion"}, [[0], [2]]),
        ({"cases": "pictures", "of": "missed", "threshold": "0.3"}, [[2]]),
        ({"cases": "pictures", "of": "false", "threshold": "0.3"}, [[3]]),
        ({"cases": "pictures", "of": "clean", "threshold": "0.3"}, [[0], [1], [4]]),
    ],
)
def test_cases_are_those_that_a_figure_counts(evaluated, query, expected):
    assert rows(evaluated[1], **query) == expected


@pytest.mark.parametrize(("fppi", "missed", "threshold"), [("0.125", 2, 0.9), ("0.25", 1, 0.5)])
def test_missed_lesions_are_those_below_the_score_of_so_many_false_positives(evaluated, fppi, missed, threshold):
    found = evaluated[1].find({"cases": "lesions", "fppi": fppi})
    assert (found["words"].split(": ")[1], found["threshold"]) == (f"{missed} of 3", threshold)


def test_every_link_of_a_report_is_answered_with_as_many_cases_as_the_figure_says(evaluated):
    study, finder, tmp_path = evaluated
    pages = client(study, VerdictStore(study, tmp_path / "preds"), finders=[finder])
    report = (tmp_path / "eval" / "report.html").read_text(encoding="utf-8")
    links = re.findall(r'data-cases="(cases=[^"]*)">([^<]*)<', report)
    kinds = {dict(parse_qsl(html.unescape(link)))["cases"] for link, _ in links}
    assert kinds == {"lesions", "images", "scores", "classes", "outlines", "pictures"}
    counted = 0
    for link, figure in links:
        answer = pages.get(f"/api/cases?{html.unescape(link)}")
        assert answer.status_code == 200, link
        found, query = answer.json(), dict(parse_qsl(html.unescape(link)))
        if figure.isdecimal() and query["cases"] in ("images", "scores", "classes"):
            assert len(found["rows"]) == int(figure) or "n_patients" in link or query.get("variable"), link
            counted += query["cases"] == "scores"
        if query["cases"] == "lesions" and "fppi" in query and "match" not in query:
            missed, of = map(int, found["words"].split(": ")[1].split(" of "))
            assert f"{1 - missed / of:.3f}" == figure, link
    assert counted
    assert re.search(r"<a [^>]*data-cases=\"cases=classes[^>]*true=B&amp;predicted=C\"", report)


def test_links_of_a_comparison_lead_to_the_cases_of_their_model(evaluated, tmp_path, monkeypatch):
    folder = evaluated[2]
    other = tmp_path / "other.json"
    predictions = read_predictions(folder / "preds" / "predictions.json")
    blind = [prediction(one.image_id, (NOWHERE, 0.1), scores=one.scores, masks=True) for one in predictions.images]
    write_predictions(replace(predictions, images=tuple(blind)), other)
    files = [str(folder / "preds/predictions.json"), str(other)]
    options = ["--names", "a <b>", "blind", "--resamples", "0", "--output", str(tmp_path / "eval")]
    main(["evaluate", "--ground-truth", str(folder / "test.json"), "--predictions", *files, *options])
    seen = []
    monkeypatch.setattr("mammodet.serving.server.serve", lambda *given, **more: seen.append((given[0], more)) or 0)
    main(["view", str(tmp_path / "eval")])
    ((uploads, more),) = seen
    assert [one.study.title for one in uploads.shown] == ["a <b>", "blind"]
    assert [one.store.path for one in uploads.shown] == [
        tmp_path / "eval" / f"model_{number}" / "verdicts.json" for number in (1, 2)
    ]
    pages = client(*uploads.shown[0], finders=more["finders"])
    report = more["report"].read_text(encoding="utf-8")
    links = [dict(parse_qsl(html.unescape(link))) for link in re.findall(r'data-cases="([^"]*)"', report)]
    assert {query.get("model", query.get("study")) for query in links} == {"a <b>", "blind"}
    assert {frozenset(query) & {"image", "cases"} for query in links} == {frozenset({"image"}), frozenset({"cases"})}
    missed = {}
    for query in links:
        if "cases" in query:
            answer = pages.get("/api/cases", params=query)
            assert (answer.status_code, answer.json()["study"]) == (200, int(query["model"] == "blind")), query
            if query["cases"] == "lesions" and "fppi" in query and len(query) == 3:
                missed[query["model"], query["fppi"]] = [row["images"] for row in answer.json()["rows"]]
    assert (missed["a <b>", "1"], missed["blind", "1"]) == ([[2]], [[0], [2]])
    main(["view", str(tmp_path / "eval"), "--predictions", str(other)])
    assert [one.study.title for one in seen[1][0].shown] == ["blind"]
    for refused in (
        ["--export", "x.json"],
        ["--calibration", "x.json"],
        ["--predictions", str(folder / "preds/x.json")],
    ):
        with pytest.raises(InputError):
            main(["view", str(tmp_path / "eval"), *refused])


def test_links_that_are_none_are_refused(evaluated):
    finder = evaluated[1]
    for query in (
        {"cases": "<script>"},
        {"cases": "lesions", "path": "/etc"},
        {"cases": "lesions", "category": "cat"},
        {"cases": "images", "variable": "density", "value": "Z"},
        {"cases": "scores", "level": "image", "label": "tumor", "model": "another"},
    ):
        with pytest.raises(InputError):
            finder.find(query)


def test_cases_need_an_evaluation_and_the_token(evaluated):
    study, finder, tmp_path = evaluated
    store = VerdictStore(study, tmp_path / "preds")
    assert client(study, store).get("/api/cases?cases=lesions").status_code == 404
    pages = client(study, store, finders=[finder], Authorization="")
    assert pages.get("/api/cases?cases=lesions").status_code == 401
    assert pages.get(f"/api/cases?cases=lesions&token={TOKEN}").status_code == 200
    assert pages.get(f"/api/cases?cases=x&token={TOKEN}", headers={"Host": HOST}).status_code == 422
