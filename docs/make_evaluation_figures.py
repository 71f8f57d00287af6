"""Draw the figures of docs/evaluation.md; what they show is computed by mammodet, not drawn by hand.

python docs/make_evaluation_figures.py
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle

from mammodet.evaluation.bootstrap import Bootstrap
from mammodet.evaluation.evaluate import Entry, evaluate
from mammodet.evaluation.masks import hausdorff95
from mammodet.evaluation.matching import match_quality
from mammodet.evaluation.options import Options
from mammodet.evaluation.roc import FIGURES as SCORES
from mammodet.evaluation.roc import ScoreFigures, reliability, scores_of
from mammodet.files import write_bytes
from mammodet.geometry import box_iou
from mammodet.records import Dataset, Detections, ImagePrediction, ImageRecord, Lesion
from mammodet.reporting.curves import to_png

FOLDER = Path(__file__).parent / "images"
TRUTH, FOUND, WRONG, IGNORED = "#009E73", "#1F83C6", "#D55E00", "#888888"
LESION = (20.0, 20.0, 60.0, 60.0)
DETECTIONS = {
    "tight": (24.0, 18.0, 62.0, 60.0),
    "shifted": (32.0, 32.0, 76.0, 76.0),
    "too large": (5.0, 5.0, 90.0, 90.0),
    "small, inside": (38.0, 40.0, 52.0, 52.0),
    "beside": (52.0, 50.0, 88.0, 86.0),
}
RULES = ("iou@0.1", "iou@0.2", "iou@0.5", "center")


def figure(size: tuple[float, float], columns: int) -> tuple[Figure, list[Axes]]:
    """Panels side by side."""
    made = Figure(figsize=size, layout="constrained")
    return made, list(np.atleast_1d(made.subplots(1, columns)))


def draw_box(axes: Axes, box: Sequence[float], colour: str, style: str = "-") -> None:
    """A box in pixels."""
    x1, y1, x2, y2 = box
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=2, linestyle=style))


def frame(axes: Axes, title: str, size: float = 100) -> None:
    """An image's frame, y down."""
    axes.set_xlim(0, size)
    axes.set_ylim(size, 0)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.set_title(title, fontsize=10)


def match_rules() -> Figure:
    """One lesion, five detections, and which rules count them."""
    made, panels = figure((12, 3.9), len(DETECTIONS))
    for axes, (name, box) in zip(panels, DETECTIONS.items(), strict=True):
        frame(axes, name)
        x1, y1, x2, y2 = LESION
        axes.add_patch(Ellipse(((x1 + x2) / 2, (y1 + y2) / 2), x2 - x1, y2 - y1, color=TRUTH, alpha=0.25))
        draw_box(axes, LESION, TRUTH)
        draw_box(axes, box, FOUND, "--")
        axes.plot((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, "+", color=FOUND, markersize=9)
        overlap = float(box_iou([box], [LESION])[0, 0])
        hits = [
            f"{rule}: {'found' if match_quality(np.array([box]), np.array([LESION]), rule)[0, 0] > 0 else 'no'}"
            for rule in RULES
        ]
        axes.set_xlabel(f"IoU {overlap:.2f}\n" + "\n".join(hits), fontsize=9)
    return made


def example() -> tuple[Dataset, list[ImagePrediction]]:
    """Four images: two lesions, one lesion and a region to ignore, none, none."""
    lesions = ([(10, 15, 40, 45), (60, 55, 90, 85)], [(20, 20, 50, 50)], [], [])
    ignored: Sequence[Sequence[tuple[float, ...]]] = ([], [(55, 55, 95, 95)], [], [])
    found: Sequence[Sequence[tuple[tuple[float, ...], float]]] = (
        [((12, 17, 40, 44), 0.9), ((14, 12, 44, 40), 0.7), ((58, 10, 80, 30), 0.5)],
        [((60, 62, 80, 82), 0.8), ((22, 24, 52, 50), 0.6)],
        [((30, 40, 60, 70), 0.4)],
        [],
    )
    records, predictions = [], []
    for number in range(4):
        members = [Lesion("mass", tuple(map(float, box)), None, "box") for box in lesions[number]]
        members += [Lesion("mass", tuple(map(float, box)), None, "box", ignore=True) for box in ignored[number]]
        name = f"{number}.png"
        records.append(
            ImageRecord(number, name, (100, 100), f"p{number}", labels={"tumor": int(bool(lesions[number]))},
                        lesions=tuple(members))
        )  # fmt: skip
        detections = Detections(
            np.array([box for box, _ in found[number]], dtype=float).reshape(-1, 4),
            np.array([score for _, score in found[number]], dtype=float),
            np.ones(len(found[number]), dtype=np.int64),
        )
        predictions.append(ImagePrediction(number, name, (100, 100), {}, detections))
    return Dataset(("mass",), tuple(records)), predictions


def froc_example() -> Figure:
    """The images of `example`, and their curve."""
    dataset, predictions = example()
    made, panels = figure((14, 3.4), 5)
    for axes, record, prediction in zip(panels, dataset.images, predictions, strict=False):
        frame(axes, f"image {record.image_id + 1}")
        for lesion in record.lesions:
            draw_box(axes, lesion.box_xyxy, IGNORED if lesion.ignore else TRUTH, ":" if lesion.ignore else "-")
        boxes, scores = prediction.detections.boxes_xyxy, prediction.detections.scores
        for box, score in zip(boxes, scores, strict=True):
            draw_box(axes, box, FOUND, "--")
            axes.text(box[2] + 1, box[1] + 4, f"{score:.1f}", color=FOUND, fontsize=9, va="center")
    curve = evaluate(dataset, [Entry("x", predictions)], Options(resamples=0)).metrics.models[0].froc.curve
    axes = panels[-1]
    axes.step(curve.fppi, curve.sensitivity, where="post", color=FOUND)
    axes.plot(curve.fppi, curve.sensitivity, "o", color=FOUND)
    for fppi, sensitivity, threshold in zip(curve.fppi, curve.sensitivity, curve.threshold, strict=True):
        if threshold is not None:
            axes.annotate(
                f"{threshold:.1f}", (fppi, sensitivity), textcoords="offset points", xytext=(5, -11), fontsize=9
            )
    axes.set_xlim(-0.03, 0.85)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("false positives per image")
    axes.set_title("lesions found; numbers: thresholds", fontsize=10)
    return made


def outlines() -> Figure:
    """Two pairs with the same Dice and other distances."""
    made, panels = figure((8, 3.6), 2)
    rows, columns = np.ogrid[:100, :100]
    truth = (rows - 50) ** 2 + (columns - 45) ** 2 <= 25**2
    pairs = {
        "too small all around": (rows - 50) ** 2 + (columns - 45) ** 2 <= 23.3**2,
        "a spur": truth | ((abs(rows - 50) <= 5) & (columns > 45) & (columns < 97)),
    }
    for axes, (name, mask) in zip(panels, pairs.items(), strict=True):
        dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        frame(axes, f"{name}: Dice {dice:.2f}, HD95 {hausdorff95(mask, truth):.1f} px")
        axes.contour(truth, [0.5], colors=TRUTH, linewidths=2)
        axes.contour(mask, [0.5], colors=FOUND, linewidths=2, linestyles="--")
    return made


def calibration() -> Figure:
    """Scores that are too sure, and what a fitted slope makes of them."""
    rng = np.random.default_rng(0)
    raw = rng.normal(0, 1.2, 20_000)
    labels = rng.random(len(raw)) < 1 / (1 + np.exp(-raw))
    made, panels = figure((8, 3.8), 2)
    for axes, (name, factor) in zip(
        panels, {"scores three times too sure": 3.0, "scaled back": 1.0}.items(), strict=True
    ):
        scores = 1 / (1 + np.exp(-factor * raw))
        found = reliability(labels, scores)
        ece = scores_of(labels.astype(int), scores).ece.value
        axes.plot([0, 1], [0, 1], ":", color=IGNORED)
        axes.plot(found.mean_score, found.share_positive, "o-", color=FOUND)
        axes.set_title(f"{name}: ECE {ece:.3f}", fontsize=10)
        axes.set_xlabel("mean score in the bin")
        axes.set_ylabel("share of positive cases")
        axes.set_aspect("equal")
    return made


def intervals() -> Figure:
    """The AUC of forty studies of 50 women with four images each; intervals over images and over women."""
    rng = np.random.default_rng(1)
    truth = 0.8023  # Phi(1.2 / 2 ** 0.5), the AUC that the simulated scores have
    made, panels = figure((11, 3.6), 2)
    shown: dict[str, list[list[float]]] = {"images": [], "patients": []}
    for seed in range(40):
        labels = np.repeat(rng.random(50) < 0.4, 4).astype(int)
        patient = np.repeat(np.arange(50), 4)
        raw = labels * 1.2 + rng.normal(0, 0.8, 50)[patient] + rng.normal(0, 0.6, 200)
        scores = 1 / (1 + np.exp(-raw))
        for kind, clusters in (("images", np.arange(200)), ("patients", patient)):
            bootstrap = Bootstrap.of(int(clusters.max()) + 1, 500, seed)
            area = bootstrap.figures(ScoreFigures(labels, scores, clusters))[SCORES.index("roc_auc")]
            shown[kind].append(list(area.ci95 or (np.nan, np.nan)))
    for axes, (kind, rows) in zip(panels, shown.items(), strict=True):
        missed = 0
        for place, (low, high) in enumerate(rows):
            holds = low <= truth <= high
            missed += not holds
            axes.plot([place, place], [low, high], color=FOUND if holds else WRONG, linewidth=2.5)
        axes.axhline(truth, color=TRUTH, linewidth=1)
        axes.set_ylim(0.55, 1)
        axes.set_xticks([])
        axes.set_title(f"resampling {kind}: {missed} of 40 intervals of 95 % miss the truth", fontsize=10)
        axes.set_xlabel("simulated studies")
    panels[0].set_ylabel("image ROC AUC")
    return made


FIGURES: dict[str, Callable[[], Figure]] = {
    "match_rules": match_rules,
    "froc_example": froc_example,
    "outlines": outlines,
    "calibration": calibration,
    "intervals": intervals,
}


def main() -> None:
    """Write every figure."""
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        for name, make in FIGURES.items():
            write_bytes(FOLDER / f"evaluation_{name}.png", to_png(make(), dpi=90))
            print(f"wrote docs/images/evaluation_{name}.png")


if __name__ == "__main__":
    main()
