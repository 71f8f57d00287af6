"""From a checkpoint and images to pictures of heat maps and of feature maps, for mammodet explain."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mammodet.data.breast import find_breast
from mammodet.data.dataset import LesionDataset, Sample, collate
from mammodet.data.images import read_image, to_display
from mammodet.data.inputs import Inputs
from mammodet.engine.predict import Predictor
from mammodet.engine.tasks import run_model, to_predictions
from mammodet.errors import InputError
from mammodet.explain.answers import Answer, answer_words, choose_answers
from mammodet.explain.cam import Explainer, padded
from mammodet.explain.draw import HeatPanel, feature_figure, heat_picture
from mammodet.explain.grid import to_native
from mammodet.explain.images import tell_faults
from mammodet.explain.layers import find_layer, layer_table, look, stage_layers
from mammodet.explain.pointing import Place, place_of, summary
from mammodet.files import csv_text, write_bytes, write_text
from mammodet.records import ImagePrediction, ImageRecord
from mammodet.reporting.canvas import Line
from mammodet.reporting.curves import to_png
from mammodet.reporting.gallery import encode, picture_names
from mammodet.reporting.overlay import PREDICTION, TRUTH, identity_lines, truth_text

HEAT_TABLE = "grad_cam.csv"


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was written, and what to say about it."""

    files: list[Path]
    text: str = ""


def describe_layers(predictor: Predictor) -> str:
    """The table of a model's layers, for an image of the size that it is made for."""
    layers, _ = look(predictor.model, probe(predictor))
    return layer_table(layers, sum(parameter.numel() for parameter in predictor.model.parameters()))


def probe(predictor: Predictor) -> torch.Tensor:
    """An image of the model's input size (C, S, S), of noise: on black, a norm may have nothing to divide by."""
    image = predictor.config.data.image
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((len(image.channels), image.max_size, image.max_size), generator=generator)
    return noise.to(predictor.device)


def write_grad_cam(
    predictor: Predictor,
    images: Inputs,
    output: Path,
    *,
    target: str | None = None,
    layer_names: Sequence[str] = (),
    method: str = "grad_cam",
    panel_height: int | None = 900,
    crop_to_breast: bool = False,
    progress: bool = True,
) -> Drawn:
    """Draw a heat map of an answer over each image in its own pixels, and say whether it lies on the lesions.

    Writes `NAME_METHOD.png` for each image, and `grad_cam.csv` with a row for each image and layer.

    Args:
        target: `tumor`, `tumor=0`, `density=C`, or `density` for each image's most probable class; None for the model's
            first question.
        layer_names: none for the last map before it is pooled.
        panel_height: in pixels; None for the image's own resolution.
    Raises:
        InputError: a target, layer or method that does not fit; or images that could not be drawn, after all others.
    """
    answers = choose_answers(predictor.model, predictor.config, target)
    explainer = Explainer(predictor.model, answers, tuple(dict.fromkeys(layer_names)), method)
    samples = _Samples(predictor, images)
    explainer.check(probe(predictor))
    rows: list[dict[str, Any]] = []
    places: dict[str, list[Place]] = {}
    files = []
    for record, name in samples.named(progress, "heat maps"):
        sample = samples.read(record)
        if sample is None:
            continue
        answer, probability, maps = explainer.explain(sample.image.to(predictor.device))
        pixels = read_image(images.root / record.file_name)
        breast = find_breast(pixels).mask_at(record.size_hw)
        path = output / f"{name}_{method}.png"
        panels = []
        for heat_map in maps:
            heat = to_native(heat_map.values, heat_map.grid, sample.trace)
            place = place_of(heat, record, breast)
            rows.append(_row(record, answer, probability, method, heat_map.layer, place, path.name))
            places.setdefault(heat_map.layer, []).append(place)
            cells = " x ".join(str(side) for side in heat_map.values.shape)
            panels.append(HeatPanel(heat, f"{heat_map.layer}, {cells} cells", place.to_text(), place.peak_xy))
        said = f"prediction: {answer_words(answer)} {probability:.2f} · what speaks for it, by {method}"
        lines = [*_truth_lines(record), Line(said, PREDICTION)]
        picture = heat_picture(
            to_display(pixels), record, panels, lines, height=panel_height, crop_to_breast=crop_to_breast
        )
        write_bytes(path, encode(picture, ".png"))
        files.append(path)
    if rows:
        write_text(output / HEAT_TABLE, csv_text([list(rows[0]), *(row.values() for row in rows)]))
        files.append(output / HEAT_TABLE)
    tell_faults(images, samples.faults, output)
    text = "\n".join(f"{layer}\n  " + summary(found).replace("\n", "\n  ") for layer, found in places.items())
    return Drawn(files, text)


def write_feature_maps(
    predictor: Predictor,
    images: Inputs,
    output: Path,
    *,
    layer_names: Sequence[str] = (),
    most: int = 32,
    progress: bool = True,
) -> Drawn:
    """Draw what layers give for each image: `NAME_LAYER.png`.

    Args:
        layer_names: none for the last layer of each size of map.
        most: channels that are drawn of a layer: those that vary most over this image.
    Raises:
        InputError: a layer that does not fit; or images that could not be drawn, after all others.
    """
    if most < 1:
        raise InputError(f"--most {most}: expected 1 or more")
    model = predictor.model
    samples = _Samples(predictor, images)
    layers, _ = look(model, probe(predictor))
    names = tuple(dict.fromkeys(layer_names)) or stage_layers(model, layers)
    for name in names:
        find_layer(layers, name)
    files = []
    for record, stem in samples.named(progress, "feature maps"):
        sample = samples.read(record)
        if sample is None:
            continue
        image = sample.image.to(predictor.device)
        layers, outputs = look(model, image, names)
        (prediction,) = samples.predict(sample)
        shown = padded(model, image)[0, 0].cpu().numpy()
        for name in names:
            layer = find_layer(layers, name)
            output_map = outputs[name].permute(0, 3, 1, 2) if layer.channels_last else outputs[name]
            maps = output_map[0].float().cpu().numpy()
            if not np.isfinite(maps).all():
                samples.faults.append(f"image {record.file_name!r}, layer {name!r}: holds values that are not finite")
                continue
            channels = sorted(np.argsort(-maps.std(axis=(1, 2)), kind="stable")[:most].tolist())
            few = "all" if len(channels) == len(maps) else f"{len(channels)} of {len(maps)}, those that vary most"
            size = " x ".join(str(side) for side in maps.shape)
            runs = f", last of {layer.calls} runs" if layer.calls > 1 else ""
            lines = [line.text for line in _truth_lines(record)]
            lines += [
                _scores_text(prediction),
                f"{name} ({layer.kind}{runs}): {size}, a cell every {layer.grid.step_yx[0]:g} px of the input; "
                f"channels: {few}",
            ]
            path = output / f"{stem}_{name}.png"
            write_bytes(path, to_png(feature_figure(shown, maps, channels, lines), dpi=110))
            files.append(path)
    tell_faults(images, samples.faults, output)
    return Drawn(files)


class _Samples:
    """Images as the model takes them, and what was wrong with some."""

    def __init__(self, predictor: Predictor, images: Inputs) -> None:
        self.predictor, self.images = predictor, images
        self.dataset = LesionDataset(images.dataset, images.root, predictor.config.data.image, (), with_masks=False)
        self.index = {record.image_id: index for index, record in enumerate(images.dataset.images)}
        self.faults: list[str] = []

    def named(self, progress: bool, what: str) -> Any:
        """Records with their pictures' names."""
        records = self.images.dataset.images
        pairs = list(zip(records, picture_names(records, ""), strict=True))
        return tqdm(pairs, desc=what, unit="image", disable=None if progress else True)

    def read(self, record: ImageRecord) -> Sample | None:
        """The sample; None, with a fault noted, where the file cannot be read."""
        try:
            return self.dataset[self.index[record.image_id]]
        except InputError as error:
            self.faults.append(str(error))
            return None

    @torch.inference_mode()
    def predict(self, sample: Sample) -> list[ImagePrediction]:
        """What the model answers for this image alone."""
        batch, config = collate([sample]).to(self.predictor.device), self.predictor.config
        return to_predictions(run_model(config, self.predictor.model, batch), batch, config, self.predictor.stack)


def _truth_lines(record: ImageRecord) -> list[Line]:
    return [*identity_lines(record), Line(truth_text(record), TRUTH)]


def _scores_text(prediction: ImagePrediction) -> str:
    parts = [f"{name} {value:.2f}" for name, value in prediction.scores.items()]
    for question, classes in prediction.class_scores.items():
        best = max(classes, key=lambda name: classes[name])
        parts.append(f"{question} {best} {classes[best]:.2f}")
    return "prediction: " + " · ".join(parts)


def _row(
    record: ImageRecord, answer: Answer, probability: float, method: str, layer: str, place: Place, picture: str
) -> dict[str, Any]:
    hit = place.peak_in_lesion
    return {
        "image_id": record.image_id,
        "file_name": record.file_name,
        "method": method,
        "layer": layer,
        "target": answer.text,
        "score": f"{probability:.6f}",
        "truth": answer.truth(record),
        "lesions": place.lesions,
        "share_in_boxes": _number(place.share_in_boxes),
        "share_by_chance": _number(place.share_by_chance),
        "peak_x": "" if place.peak_xy is None else f"{place.peak_xy[0]:.1f}",
        "peak_y": "" if place.peak_xy is None else f"{place.peak_xy[1]:.1f}",
        "peak_in_lesion": "" if hit is None else int(hit),
        "picture": picture,
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
