"""Fit and measure what tells mammograms from other pictures (`mammodet/data/guard.py`).

Mammograms: folders of real archives, and phantoms; each image as it is, and as others may store it: flipped, cropped,
enlarged, with a frame, a label, a raised background, another gamma, stretched, small. Others: the pictures that
scikit-image, scikit-learn and Matplotlib bring along, folders of your own, drawn pages, chest films, slices, ultrasound
and noise, and the mammograms inverted. Each archive is judged by a model fitted without it, each other picture by one
fitted without a fifth of them, it included. Needs scikit-learn.

example:
  python benchmarks/domain_guard.py --real MIAS=data/mias/images CBIS=data/cbis/images CESM=data/cesm/images \\
      --phantoms /tmp/phantoms --hostile films/chest --output mammodet/data/guard.json
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from joblib import Parallel, delayed
from measuring import arguments
from numpy.typing import NDArray

from mammodet.data.breast import Breast, find_breast
from mammodet.data.guard import DOUBTED, JUDGED, LEAST, MEASURES, REFUSED, measure, scaled_terms
from mammodet.data.images import IMAGE_SUFFIXES, Pixels, is_image, read_image
from mammodet.errors import InputError
from mammodet.files import write_json

Image = NDArray[np.float32]  # on 0 to 1
VARIANTS = 2  # of every second real image
DRAWN = 60  # pictures of each kind


@dataclass(frozen=True)
class Row:
    """What was measured of one picture; `group` is an archive or a kind of other pictures."""

    group: str
    name: str
    mammogram: bool
    changed: str
    values: NDArray[np.float64]


def varied(pixels: Image, rng: np.random.Generator) -> tuple[str, Image]:
    """A mammogram as another vendor or viewer may store it, and what was done to it."""
    done = [str(name) for name in rng.permutation(list(_CHANGES))[: rng.integers(1, 4)]]
    breast = find_breast(_deep(pixels)) if {"raised", "crop"} & set(done) else None
    for name in sorted(done, key=list(_CHANGES).index):  # those that need the breast come first
        pixels = _CHANGES[name](pixels, breast, rng)
    return "+".join(sorted(done)), pixels


def _crop(pixels: Image, breast: Breast, rng: np.random.Generator) -> Image:
    """Around the breast or into it: a contact-filling view."""
    x1, y1, x2, y2 = breast.box_xyxy
    shares = rng.uniform(0, 0.25, 4)
    left, right = int(x1 + shares[0] * (x2 - x1)), int(x2 - shares[1] * (x2 - x1))
    top, bottom = int(y1 + shares[2] * (y2 - y1)), int(y2 - shares[3] * (y2 - y1))
    return pixels[top : max(bottom, top + 64), left : max(right, left + 64)]


def _frame(pixels: Image, _: object, rng: np.random.Generator) -> Image:
    wide = [int(share * max(pixels.shape)) for share in rng.uniform(0, 0.2, 4)]
    level = float(rng.choice([0, 0.3, 0.5, 1.0]))
    return np.asarray(cv2.copyMakeBorder(pixels, *wide, cv2.BORDER_CONSTANT, value=[level]), dtype=np.float32)


def _label(pixels: Image, _: object, rng: np.random.Generator) -> Image:
    height, width = pixels.shape
    text = np.zeros(pixels.shape, np.uint8)
    place = int(rng.uniform(0, 0.6) * width), int(rng.uniform(0.05, 0.95) * height)
    cv2.putText(text, "R MLO 12.03.2004", place, cv2.FONT_HERSHEY_SIMPLEX, width / 700, (255,), max(width // 300, 1))
    return np.maximum(pixels, text.astype(np.float32) / 255)


def _raised(pixels: Image, breast: Breast, rng: np.random.Generator) -> Image:
    """A grey background, darker than the breast still."""
    return np.where(breast.mask_at(pixels.shape), pixels, np.maximum(pixels, rng.uniform(0.1, 0.3)))


_CHANGES: dict[str, Callable[..., Image]] = {
    "raised": _raised,
    "crop": _crop,
    "flipped": lambda pixels, _, rng: pixels[:, ::-1],
    "upside down": lambda pixels, _, rng: pixels[::-1],
    "frame": _frame,
    "label": _label,
    "gamma": lambda pixels, _, rng: pixels ** np.float32(np.exp(rng.uniform(-0.7, 0.7))),
    "window": lambda pixels, _, rng: np.clip(pixels * rng.uniform(1.0, 1.6) - rng.uniform(0, 0.15), 0, 1),
    "noise": lambda pixels, _, rng: np.clip(pixels + rng.normal(0, 0.02, pixels.shape).astype(np.float32), 0, 1),
    "stretched": lambda pixels, _, rng: cv2.resize(pixels, None, fx=rng.uniform(0.6, 1.0), fy=rng.uniform(0.6, 1.0)),
    "small": lambda pixels, _, rng: cv2.resize(pixels, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA),
}


def drawn(kind: str, seed: int) -> Image:
    """A page, chest film, slice, ultrasound, or noise, of about 400 pixels."""
    rng = np.random.default_rng([seed, len(kind)])
    height, width = rng.integers(300, 520, 2)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    found = _DRAWN[kind](y, x, rng).astype(np.float32)
    return np.clip(found + rng.normal(0, rng.uniform(0, 0.03), found.shape).astype(np.float32), 0, 1)


def _page(y: Image, x: Image, rng: np.random.Generator) -> Image:
    found = np.full(y.shape, 255, np.uint8)
    scale = rng.uniform(0.3, 1.0)
    for row in range(int(30 * scale) + 10, y.shape[0] - 8, int(30 * scale) + 6):
        text = "".join(rng.choice(list("abcdefghi klmno prstu vw"), rng.integers(5, 60)))
        cv2.putText(found, text, (15, row), cv2.FONT_HERSHEY_SIMPLEX, scale, (0,), 1 + int(scale > 0.7))
    return (found if rng.random() < 0.7 else 255 - found).astype(np.float32) / 255


def _ellipse(y: Image, x: Image, centre: tuple[float, float], axes: tuple[float, float]) -> Image:
    """1 inside, falling to 0 over a soft border."""
    radius = np.sqrt(((y - centre[0]) / axes[0]) ** 2 + ((x - centre[1]) / axes[1]) ** 2)
    return np.clip((1 - radius) * 8 + 0.5, 0, 1)


def _chest(y: Image, x: Image, rng: np.random.Generator) -> Image:
    found = rng.uniform(0.5, 0.8) * _ellipse(y, x, (0.4, rng.uniform(-0.1, 0.1)), (1.3, rng.uniform(0.85, 1.3)))
    tall, wide, apart = rng.uniform(0.5, 0.75), rng.uniform(0.28, 0.38), rng.uniform(0.38, 0.48)
    for side in (-1, 1):
        lung = _ellipse(y, x, (rng.uniform(-0.15, 0.0), side * apart), (tall, wide))
        found = found * (1 - rng.uniform(0.55, 0.8) * lung)
        found += 0.1 * lung * (np.sin(14 * (y + 0.3 * np.abs(x))) > 0.6)
    found += 0.3 * _ellipse(y, x, (0.0, 0.0), (1.2, 0.08)) + 0.2 * _ellipse(y, x, (0.25, 0.15), (0.3, 0.25))
    return found / max(float(found.max()), 1e-3)


def _slice(y: Image, x: Image, rng: np.random.Generator) -> Image:
    axes = rng.uniform(0.5, 0.75), rng.uniform(0.6, 0.95)
    found = rng.uniform(0.4, 0.6) * _ellipse(y, x, (0, 0), axes)
    found += 0.5 * (_ellipse(y, x, (0, 0), axes) - _ellipse(y, x, (0, 0), (axes[0] - 0.06, axes[1] - 0.06)))
    for _ in range(rng.integers(2, 7)):
        centre = rng.uniform(-0.35, 0.35, 2)
        found += rng.uniform(-0.4, 0.4) * _ellipse(y, x, tuple(centre), tuple(rng.uniform(0.05, 0.3, 2)))
    return found + 0.4 * _ellipse(y, x, (axes[0] * 0.6, 0), (0.12, 0.12))


def _ultrasound(y: Image, x: Image, rng: np.random.Generator) -> Image:
    depth = np.hypot(x, y + 1.2)
    fan = (depth > 0.35) & (depth < rng.uniform(1.7, 2.1)) & (np.abs(np.arctan2(x, y + 1.2)) < rng.uniform(0.4, 0.7))
    if rng.random() < 0.4:
        fan = (np.abs(x) < rng.uniform(0.5, 0.95)) & (y > -0.9) & (y < rng.uniform(0.4, 0.9))
    speckle = cv2.GaussianBlur(rng.rayleigh(0.35, y.shape).astype(np.float32), (0, 0), rng.uniform(0.8, 2.0))
    layers = 0.6 + 0.4 * np.sin(depth * rng.uniform(4, 14) + rng.uniform(0, 6))
    cyst = 1 - 0.9 * _ellipse(y, x, tuple(rng.uniform(-0.4, 0.4, 2)), tuple(rng.uniform(0.1, 0.3, 2)))
    return fan * speckle * layers * cyst * np.exp(-0.4 * depth) * 2


def _noise(y: Image, x: Image, rng: np.random.Generator) -> Image:
    cells = int(rng.choice([4, 16, 64, 300]))
    coarse = rng.random((cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (x.shape[1], x.shape[0]), interpolation=int(rng.choice([0, 1]))))


_DRAWN = {"page": _page, "chest": _chest, "slice": _slice, "ultrasound": _ultrasound, "noise": _noise}


def _deep(pixels: Image) -> Pixels:
    return np.round(np.clip(pixels, 0, 1) * 65535).astype(np.uint16)


def _unit(path: Path) -> Image | None:
    """An image on 0 to 1, at most 400 pixels long; None where it cannot be read or shows nothing."""
    try:
        pixels = read_image(path)
    except InputError:
        return None
    if max(pixels.shape) < LEAST or np.ptp(pixels) == 0:
        return None
    scale = min(400 / max(pixels.shape), 1.0)
    small = cv2.resize(pixels.astype(np.float32), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.clip((small - small.min()) / max(float(np.ptp(small)), 1.0), 0, 1)


def real_rows(group: str, path: Path, seed: int) -> list[Row]:
    """A mammogram as it is, varied, and inverted."""
    pixels = _unit(path)
    if pixels is None:
        return []
    rng = np.random.default_rng(seed)
    rows = [Row(group, path.name, True, "", measure(_deep(pixels)))]
    for _ in range(VARIANTS if seed % 2 == 0 else 0):
        change, other = varied(pixels, rng)
        rows.append(Row(group, path.name, True, change, measure(_deep(other))))
    rows.append(Row(f"{group} inverted", path.name, False, "inverted", measure(_deep(1 - pixels))))
    return rows


def other_rows(group: str, path: Path, seed: int) -> list[Row]:
    """A picture, its parts, and both inverted."""
    pixels = _unit(path)
    if pixels is None:
        return []
    rng = np.random.default_rng(seed)
    parts = [("", pixels), ("inverted", 1 - pixels)]
    for _ in range(4):
        shares = rng.uniform(0.3, 0.8)
        height, width = (int(side * shares) for side in pixels.shape)
        if min(height, width) >= LEAST:
            top, left = rng.integers(0, pixels.shape[0] - height), rng.integers(0, pixels.shape[1] - width)
            parts.append(("part", pixels[top : top + height, left : left + width]))
    return [Row(group, path.name, False, name, measure(_deep(part))) for name, part in parts if np.ptp(part) > 0.02]


def drawn_rows(kind: str, seed: int) -> list[Row]:
    """A drawn picture."""
    return [Row(f"drawn {kind}", f"{kind} {seed}", False, "", measure(_deep(drawn(kind, seed))))]


def library_pictures() -> Iterator[tuple[str, Path]]:
    """Pictures that libraries bring along."""
    import matplotlib
    import skimage
    import sklearn

    for module in (skimage, sklearn, matplotlib):
        for path in sorted(Path(str(module.__file__)).parent.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES and "tests" not in path.parts:
                yield module.__name__, path


def fit(rows: list[Row]) -> dict[str, list[float]]:
    """A logistic model on the scaled measurements and their squares; both classes weigh the same."""
    from sklearn.linear_model import LogisticRegression

    values, labels = np.array([row.values for row in rows]), np.array([row.mammogram for row in rows])
    judged = values[:, :JUDGED]
    mean, std = judged[labels].mean(axis=0), np.maximum(judged.std(axis=0), 1e-3)
    names = [(row.mammogram, row.group.split()[0] if row.mammogram else row.group) for row in rows]
    counts = {name: names.count(name) for name in set(names)}
    weights = np.array([1 / counts[name] ** 0.5 for name in names])
    for label in (True, False):
        weights[labels == label] *= len(rows) / 2 / weights[labels == label].sum()
    model = LogisticRegression(C=0.1, max_iter=5000).fit(scaled_terms(values, mean, std), labels, weights)
    parts = {"mean": mean, "std": std, "linear": model.coef_[0, :JUDGED], "square": model.coef_[0, JUDGED:]}
    rounded = {name: [round(float(value), 5) for value in part] for name, part in parts.items()}
    return {"bias": [round(float(model.intercept_[0]), 5)], **rounded}


def probabilities(model: dict[str, list[float]], rows: list[Row]) -> NDArray[np.float64]:
    """Of being a mammogram."""
    terms = scaled_terms(np.array([row.values for row in rows]), np.array(model["mean"]), np.array(model["std"]))
    logit = model["bias"][0] + terms @ np.array([*model["linear"], *model["square"]])
    return np.asarray(1 / (1 + np.exp(-logit)))


def crossed(rows: list[Row]) -> NDArray[np.float64]:
    """Each row's probability by a model that was fitted without its archive, or without its fifth of the pictures."""
    real = {row.group for row in rows if row.mammogram}
    numbers: dict[str, int] = {}
    folds = []
    for row in rows:
        archive = row.group.removesuffix(" inverted")
        folds.append(archive if archive in real else str(numbers.setdefault(row.name, len(numbers)) % 5))
    found = np.zeros(len(rows))
    for fold in set(folds):
        model = fit([row for row, own in zip(rows, folds, strict=True) if own != fold])
        places = [place for place, own in enumerate(folds) if own == fold]
        found[places] = probabilities(model, [rows[place] for place in places])
    return found


def main() -> int:
    """Measure, cross-validate, print the table, and write the model where asked."""
    parser = arguments(__doc__)
    parser.add_argument("--real", nargs="+", required=True, metavar="NAME=FOLDER", help="mammograms of an archive")
    parser.add_argument("--phantoms", type=Path, nargs="*", default=[], help="folders that mammodet phantoms wrote")
    parser.add_argument("--hostile", type=Path, nargs="*", default=[], help="folders of other pictures")
    parser.add_argument("--output", type=Path, help="write the model, fitted to all, to this JSON file")
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args()
    rows = collect(chosen)
    _print(rows, crossed(rows))
    if chosen.output is not None:
        command = "python benchmarks/domain_guard.py with the folders of docs/images.md"
        write_json(chosen.output, {"made_by": command, "measures": list(MEASURES[:JUDGED]), "model": fit(rows)})
    return 0


def collect(chosen: argparse.Namespace) -> list[Row]:
    """What is measured of all pictures."""
    tasks = [
        delayed(real_rows)(name, path, number)
        for name, folder in (each.split("=", 1) for each in chosen.real)
        for number, path in enumerate(sorted(Path(folder).iterdir()))
        if is_image(path)
    ]
    tasks += [
        delayed(real_rows)("phantoms", path, number)
        for folder in chosen.phantoms
        for number, path in enumerate(sorted(each for each in folder.rglob("*") if each.is_file() and is_image(each)))
    ]
    others = [
        *library_pictures(),
        *((folder.name, path) for folder in chosen.hostile for path in sorted(folder.iterdir()) if is_image(path)),
    ]
    tasks += [delayed(other_rows)(name, path, number) for number, (name, path) in enumerate(others)]
    tasks += [delayed(drawn_rows)(kind, seed) for kind in _DRAWN for seed in range(DRAWN)]
    return [row for part in Parallel(n_jobs=chosen.jobs)(tasks) for row in part]


def _print(rows: list[Row], found: NDArray[np.float64]) -> None:
    """How many are refused, and how many are predicted with a warning (doubted)."""
    print("| pictures | images | refused | doubted | changed versions | refused | doubted |\n|" + "---|" * 7)
    for group in dict.fromkeys(row.group for row in rows):
        cells = [group]
        for changed in (False, True):
            own = [row.group == group and (row.changed not in ("", "inverted")) == changed for row in rows]
            refused, doubted = found[own] < REFUSED, (found[own] >= REFUSED) & (found[own] < DOUBTED)
            cells.append(str(sum(own)) if any(own) else "")
            cells += [f"{part.sum()} ({part.mean():.1%})" if any(own) else "" for part in (refused, doubted)]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    raise SystemExit(main())
