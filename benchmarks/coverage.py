"""How often an interval of nominal 95 % holds the truth, in simulated studies of a few and of many women.

Two images per woman, alike through a shift of her own; every second image with a lesion, of which nine in ten are
detected; one false positive per image on average. The truth is the figure of a study of 40 000 women.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py [--studies 300] [--patients 40 100 300]
"""

import numpy as np
from measuring import arguments

from mammodet.evaluation.average_precision import AveragePrecision
from mammodet.evaluation.bootstrap import Bootstrap, Measure
from mammodet.evaluation.flat import FlatDetections, FlatLesions
from mammodet.evaluation.froc import CurveMaker, FrocFigures
from mammodet.evaluation.matching import match_all
from mammodet.evaluation.results import Figure
from mammodet.evaluation.roc import ScoreFigures
from mammodet.records import Dataset, ImageRecord, Lesion

PLACE, ELSEWHERE = (10.0, 10.0, 30.0, 30.0), (60.0, 60.0, 80.0, 80.0)
LESION = Lesion("mass", PLACE, None, "box")
#: Which measure of a study a figure is of, and its place there.
FIGURES = {"box AP50": (0, 1), "sensitivity at 1 FPPI": (1, 3), "ROC AUC": (2, 0)}


def study(patients: int, seed: int) -> list[Measure]:
    """The figures of one simulated study."""
    rng = np.random.default_rng(seed)
    images = patients * 2
    clusters = np.arange(images) // 2
    shift = rng.normal(0, 0.5, patients)[clusters]
    has_lesion = rng.random(images) < 0.5
    places = np.flatnonzero(has_lesion)
    detected = rng.random(len(places)) < 0.9
    alarms = np.repeat(np.arange(images), rng.poisson(1.0, images))
    raw = np.concatenate(
        [
            rng.normal(1.0, 1, len(places))[detected] + shift[places[detected]],
            rng.normal(-0.5, 1, len(alarms)) + shift[alarms],
        ]
    )
    image = np.concatenate([places[detected], alarms])
    boxes = np.concatenate([np.tile(PLACE, (int(detected.sum()), 1)), np.tile(ELSEWHERE, (len(alarms), 1))])
    scores = 1 / (1 + np.exp(-raw))
    order = np.lexsort((-scores, image))
    found = FlatDetections(image[order], boxes[order], scores[order], np.ones(len(order), dtype=np.int64), None)
    lesions = FlatLesions(
        places,
        np.tile(PLACE, (len(places), 1)),
        np.ones(len(places), dtype=np.int64),
        np.zeros(len(places), dtype=bool),
        (LESION,) * len(places),
    )
    dataset = Dataset(("mass",), tuple(ImageRecord(number, str(number), (100, 100)) for number in range(images)))
    maker = CurveMaker(found, lesions, match_all(found, lesions, "iou@0.5"), clusters)
    of_image = 1 / (1 + np.exp(-(1.2 * has_lesion + shift + rng.normal(0, 0.8, images))))
    return [
        AveragePrecision(dataset, found, lesions, clusters),
        FrocFigures([maker.curve(maker.false_positives(np.ones(images, dtype=bool)))]),
        ScoreFigures(has_lesion, of_image, clusters),
    ]


def figures_of(measures: list[Measure], bootstrap: Bootstrap) -> dict[str, Figure]:
    """Those of FIGURES."""
    found = [bootstrap.figures(measure) for measure in measures]
    return {name: found[measure][place] for name, (measure, place) in FIGURES.items()}


def main() -> None:
    """Simulate and count."""
    parser = arguments(__doc__)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--patients", type=int, nargs="+", default=[40, 100, 300])
    chosen = parser.parse_args()
    truth = figures_of(study(40_000, 10**6), Bootstrap(40_000, 0, 0))
    for patients in chosen.patients:
        held = dict.fromkeys(FIGURES, 0)
        for seed in range(chosen.studies):
            found = figures_of(study(patients, seed), Bootstrap(patients, 200, seed))
            for shown in FIGURES:
                low, high = found[shown].ci95 or (np.nan, np.nan)
                held[shown] += bool(low <= (truth[shown].value or 0) <= high)
        shares = ", ".join(f"{name} {100 * count / chosen.studies:.1f} %" for name, count in held.items())
        print(f"{patients} patients, {chosen.studies} studies: {shares}")


if __name__ == "__main__":
    main()
