"""What stands in the place of `Localization` for a classifier: no AP, no FROC, no masks, but strata of its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mammodet.evaluation.bootstrap import Estimates, Measure
from mammodet.evaluation.cases import cases
from mammodet.evaluation.flat import Ints, flat_detections, flat_lesions
from mammodet.evaluation.localization import LesionOutcome
from mammodet.evaluation.roc import score_figures
from mammodet.evaluation.sizes import size_bins
from mammodet.evaluation.strata import Stratum, make_strata
from mammodet.records import LABELS, Dataset, ImagePrediction

#: Said wherever a detector has figures of places.
NO_BOXES = "A classifier gives no boxes: it has no AP, no FROC and no outlines."


class NoBoxes:
    """The figures of places that a classifier does not have, as a section of metrics.json.

    Args:
        predictions: one per image of the data set, in its order.
        clusters: int (images,), the patient of each image.
    Raises:
        ValueError: there are detections.
    """

    def __init__(self, dataset: Dataset, predictions: Sequence[ImagePrediction], clusters: Ints) -> None:
        found = [prediction for prediction in predictions if len(prediction.detections)]
        if found:
            raise ValueError(
                f"the model is said to be a classifier, and yet {len(found)} images have detections, for instance "
                f"{found[0].file_name!r}; its kind should be 'detector'"
            )
        self._clusters = clusters
        self._lesions = flat_lesions(dataset)
        sizes = size_bins(dataset, flat_detections(dataset, predictions), self._lesions)
        by_label = {label: cases(dataset, predictions, "image", label) for label in LABELS}
        self._label = next((label for label, one in by_label.items() if 0 < one.labels.sum() < len(one)), None)
        self._strata: list[Stratum] = []
        self.measures: list[Measure] = []
        if self._label is not None:
            chosen = by_label[self._label]
            # By a lesion's pathology or size there are sensitivities alone.
            self._strata = [stratum for stratum in make_strata(dataset, self._lesions, sizes) if stratum.of_images]
            self.measures += [
                score_figures(_name(stratum), chosen.take(stratum.images[chosen.images]), clusters)
                for stratum in self._strata
            ]

    @property
    def n_lesions(self) -> int:
        """Lesions to be found."""
        return int((~self._lesions.ignored).sum())

    @property
    def n_ignored(self) -> int:
        """Regions that count neither way."""
        return int(self._lesions.ignored.sum())

    def notes(self) -> list[str]:
        """That there are no boxes."""
        return [NO_BOXES]

    def to_json(self, estimates: Estimates) -> dict[str, Any]:
        """`strata`; `detection`, `froc` and `masks` are None, and the other sections of places are missing."""
        return {
            "detection": None,
            "froc": None,
            "strata": [self._stratum(estimates, stratum) for stratum in self._strata],
            "masks": None,
        }

    def outcomes(self) -> list[LesionOutcome]:
        """None: no lesion was looked for."""
        return []

    def _stratum(self, estimates: Estimates, stratum: Stratum) -> dict[str, Any]:
        images = np.flatnonzero(stratum.images)
        return {
            "variable": stratum.variable,
            "value": stratum.value,
            "n_images": len(images),
            "n_lesions": int((stratum.lesions & ~self._lesions.ignored).sum()),
            "n_patients": len(np.unique(self._clusters[images])),
            "label": self._label,
            "roc_auc": estimates.value(f"{_name(stratum)}/roc_auc"),
            "roc_auc_ci95": estimates.interval(f"{_name(stratum)}/roc_auc"),
        }


def _name(stratum: Stratum) -> str:
    return f"strata/{stratum.variable}/{stratum.value}"
