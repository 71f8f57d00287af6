"""Parts of a data set with figures of their own: by image and by lesion, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_cases import dataset, image, lesion, prediction
from small_metrics import flat

from mammodet.evaluation.evaluate import Entry, evaluate
from mammodet.evaluation.options import Options

A, B, FAR = (10, 10, 30, 30), (50, 50, 80, 80), (70, 5, 95, 20)


def strata(data, predictions):
    found = evaluate(data, [Entry("ours", predictions)], Options(resamples=0)).metrics.models[0].strata
    return {(one.variable, one.value): flat(one) for one in found}


def named(one, **attributes):
    return replace(one, attributes=attributes)


def test_image_strata_have_their_own_false_positives():
    data = dataset(
        image(1, lesion(A), density="A", view="CC"),
        image(2, density="A", view="CC"),
        image(3, lesion(A), density="B", view="CC"),
    )
    predictions = [prediction(1, (FAR, 0.9), (A, 0.5)), prediction(2, (FAR, 0.8), (B, 0.7)), prediction(3, (A, 0.6))]
    found = strata(data, predictions)
    assert set(found) == {("density", "A"), ("density", "B")}  # one view only: nothing to compare
    # At one false positive per image: on A two of the three, which keeps out the lesion at 0.5; on B none is needed.
    assert found["density", "A"]["sensitivity_at_1"] == 0.0
    assert found["density", "B"]["sensitivity_at_1"] == 1.0
    assert (found["density", "A"]["n_images"], found["density", "A"]["n_lesions"]) == (2, 1)


def test_lesion_strata_share_the_false_positives_of_the_whole():
    data = dataset(
        image(1, named(lesion(A), pathology="MALIGNANT"), named(lesion(B), pathology="BENIGN"), patient_id="p"),
        image(2, patient_id="q"),
    )
    predictions = [prediction(1, (A, 0.9), (B, 0.3)), prediction(2, (FAR, 0.8), (A, 0.7), (B, 0.6))]
    found = strata(data, predictions)
    # Two false positives per two images: the threshold passes 0.7 and stops above 0.6.
    assert found["pathology", "MALIGNANT"]["sensitivity_at_1"] == 1.0
    assert found["pathology", "BENIGN"]["sensitivity_at_1"] == 0.0
    assert found["pathology", "BENIGN"]["n_patients"] == 1


def test_what_is_not_known_is_a_stratum_of_its_own_beside_known_ones():
    data = dataset(image(1, lesion(A), density="A"), image(2, lesion(A)), image(3, lesion(A), density=" "))
    found = strata(data, [prediction(number) for number in (1, 2, 3)])
    assert found["density", "not known"]["n_images"] == 2
    assert not strata(dataset(image(1, lesion(A)), image(2)), [prediction(1), prediction(2)])


@pytest.mark.parametrize(
    ("spacing", "values"),
    [
        # sides 20 and 30 px of 0.5 mm: 10 mm stands on the border and belongs to the lower bin
        ((0.5, 0.5), {"up to 10 mm", "10 to 20 mm"}),
        (None, set()),  # both are small to COCO
    ],
)
def test_lesion_size_is_in_millimetres_where_spacing_is_known(spacing, values):
    data = dataset(image(1, lesion(A), lesion(B), spacing_mm_rc=spacing))
    found = strata(data, [prediction(1, (A, 0.9))])
    assert {value for variable, value in found if variable == "lesion size"} == values


@pytest.mark.parametrize("tumor", [None, 1])
def test_image_strata_have_the_auc_of_the_first_label_with_both_classes(tumor):
    data = dataset(
        *(image(n, density="AB"[n % 2], labels={"tumor": tumor, "malignant": int(n > 2)}) for n in range(1, 5))
    )
    found = strata(data, [prediction(n, scores={"malignant": n / 10, "tumor": 0.5}) for n in range(1, 5)])
    assert found["density", "A"]["label"] == "malignant"
    assert found["density", "A"]["roc_auc"] == 1.0
