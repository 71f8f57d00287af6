"""Read a study, its findings and its errors in the browser, and keep a reader's verdicts (docs/view.md)."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from mammodet.cli import Parser
from mammodet.errors import InputError

if TYPE_CHECKING:
    from mammodet.data.inputs import Inputs
    from mammodet.data.predictions import Predictions
    from mammodet.engine.predict import Predictor
    from mammodet.evaluation.results import Metrics
    from mammodet.serving.study import Study

EXAMPLE = """examples (docs/view.md):
  mammodet view                                          an empty page, onto which files are dropped
  mammodet view films/ study.zip                         predict now, with the starter model
  mammodet view preds/ --images films/                   what mammodet predict wrote
  mammodet view data/mias/test.json --predictions preds/ truth and predictions side by side
  mammodet view eval/                                    what mammodet evaluate wrote: its report, with links to cases
  mammodet view preds/ --images films/ --export corrected.json
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument(
        "input",
        nargs="*",
        metavar="PATH",
        help="a predictions folder or file, a data set (COCO JSON), an evaluation's folder, or images, DICOM files, "
        "zip files, folders to predict now (none: what is dropped on the page)",
    )
    main.add_argument("--predictions", type=Path, help="predictions of the data set or images: a folder or a file")
    main.add_argument("--images", type=Path, metavar="FOLDER", help="the folder that was predicted (the predictions')")
    main.add_argument(
        "--checkpoint", type=Path, default=Path("starter"), help="model that predicts, uploads too (%(default)s)"
    )
    main.add_argument("--calibration", type=Path, help="calibration file, for operating points (that of the model)")
    main.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="keeps verdicts.json, uploads, and predictions that are made now (beside the predictions, else "
        "mammodet_view/NAME; mammodet_view where nothing is named)",
    )
    main.add_argument("--export", type=Path, metavar="FILE", help="write the corrected images as COCO JSON, and end")
    main.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (a free one)")
    main.add_argument("--no-browser", action="store_true", help="print the address, open no browser")
    main.add_argument("--device", default="auto", help="auto, cpu, cuda (%(default)s)")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Show until interrupted."""
    chosen = parser().parse_args(arguments)
    try:
        from mammodet.serving.server import serve
    except ModuleNotFoundError as error:
        raise InputError(f'mammodet view needs {error.name}: pip install "mammodet[view]"') from None
    from mammodet import api
    from mammodet.data.coco import write_coco
    from mammodet.engine.ensemble import Ensemble
    from mammodet.files import locked
    from mammodet.models import model_path
    from mammodet.serving.cases import CaseFinder
    from mammodet.serving.uploads import Shown, Uploads
    from mammodet.serving.verdicts import VerdictStore

    evaluated = _evaluation(chosen)
    file = _predictions_file(Path(chosen.input[0])) if len(chosen.input) == 1 else None
    if file is not None and chosen.predictions is not None:
        raise InputError(f"{file} and --predictions {chosen.predictions}: both hold predictions; name the images first")
    if file is None and chosen.predictions is not None:
        file = _predictions_file(chosen.predictions)
        if file is None:
            raise InputError(
                f"--predictions {chosen.predictions}: holds no predictions.json, and is no predictions file"
            )
    name = Path(chosen.input[0]).stem or "study" if chosen.input else ""
    output = chosen.output or (file.parent if file is not None else Path("mammodet_view", name))
    several = len(evaluated) > 1
    if several:
        output = chosen.output or evaluated[0].file.parent
        if chosen.export is not None or chosen.calibration is not None:
            raise InputError(f"{evaluated[0].file}: holds several models; choose one of them with --predictions")

    @cache
    def model() -> Predictor:
        return Ensemble.from_checkpoints([model_path(chosen.checkpoint)], chosen.device)

    if chosen.export is not None and not chosen.input:
        raise InputError("--export: name what was read; an upload is a folder of predictions beside its images/")
    with TemporaryDirectory(prefix="mammodet-") as folder:
        studies = [_study(chosen, one, one.predictions, output, Path(folder), model) for one in evaluated]
        if chosen.input and not studies:
            studies = [_study(chosen, None, file, output, Path(folder), model)]
        with locked(output, "another mammodet view shows it; close that, or choose another --output"):
            places = [output / f"model_{number}" if several else output for number in range(1, len(studies) + 1)]
            shown = [Shown(study, VerdictStore(study, place)) for study, place in zip(studies, places, strict=True)]
            if chosen.export is not None:
                write_coco(shown[0].store.corrected(), chosen.export)
                print(f"wrote {chosen.export}")
                return 0
            uploads = Uploads(output / "uploads", shown)
            uploads.reopen()
            report = evaluated[0].file.with_name("report.html") if evaluated else None
            return serve(
                uploads,
                lambda: api.Predictor(model()),
                chosen.port,
                report=report if report is not None and report.exists() else None,
                finders=[CaseFinder(study, one.metrics, one.model) for study, one in zip(studies, evaluated)],  # noqa: B905
                open_browser=not chosen.no_browser,
            )


class _Evaluated(NamedTuple):
    """An evaluation's `metrics.json`, the number of a model that is shown, and its predictions."""

    file: Path
    metrics: Metrics
    model: int
    predictions: Path


def _evaluation(chosen: argparse.Namespace) -> list[_Evaluated]:
    """The models of an evaluation's folder; then its data set and their predictions are what is shown."""
    if len(chosen.input) != 1:
        return []
    path = Path(chosen.input[0])
    file = path / "metrics.json" if path.is_dir() and not (path / "predictions.json").exists() else path
    if file.name != "metrics.json" or not file.is_file():
        return []
    from mammodet.evaluation.results import read_metrics
    from mammodet.files import file_hash

    metrics = read_metrics(file)
    every = [
        _Evaluated(file, metrics, number, Path(str(model.protocol.predictions)))
        for number, model in enumerate(metrics.models)
    ]
    wanted = None if chosen.predictions is None else _predictions_file(chosen.predictions)
    found = [one for one in every if chosen.predictions is None or one.predictions == wanted]
    for named in (metrics.protocol.ground_truth, *(one.predictions for one in found)):
        if named is None or not Path(named).is_file():
            raise InputError(f"{file}: was made of {named}, which is not there; call mammodet view where evaluate ran")
    made_of = {one.predictions: metrics.models[one.model].protocol.predictions_sha256 for one in found}
    others = [str(path) for path, made in made_of.items() if made != file_hash(path)]
    if others or not found:
        raise InputError(f"{', '.join(others) or chosen.predictions}: is not what {file} was made of; evaluate again")
    chosen.input, chosen.predictions = [str(metrics.protocol.ground_truth)], found[0].predictions
    return found


def _predictions_file(path: Path) -> Path | None:
    from mammodet.data.predictions import FORMAT
    from mammodet.files import read_json

    if path.is_dir():
        return path / "predictions.json" if (path / "predictions.json").is_file() else None
    if path.suffix.lower() != ".json":
        return None
    value = read_json(path)
    return path if isinstance(value, dict) and value.get("format") == FORMAT else None


def _study(
    chosen: argparse.Namespace,
    evaluated: _Evaluated | None,
    file: Path | None,
    output: Path,
    folder: Path,
    model: Callable[[], Predictor],
) -> Study:
    """The images with what is predicted of them, predicted now where nothing is known of them."""
    from mammodet.data.coco import data_hash
    from mammodet.data.inputs import gather
    from mammodet.data.predictions import read_predictions
    from mammodet.evaluation.calibration_file import read_calibration
    from mammodet.serving.study import Study, bare_inputs

    calibration = read_calibration(chosen.calibration) if chosen.calibration is not None else None
    predictions = read_predictions(file) if file is not None else None
    if predictions is not None and chosen.predictions is None and file is not None:
        inputs = bare_inputs(predictions, chosen.images or file.parent)
    else:
        categories = predictions.categories if predictions is not None else ()
        inputs = gather(chosen.input, categories, unpack_to=folder)
        known = any(record.has_answers for record in inputs.dataset.images)
        if predictions is None and not known:
            inputs, predictions = _predict_now(chosen, folder, output, model())
            calibration = calibration or model().calibration
    for item in inputs.skipped:
        print(f"skipped {item.file_name}: {item.reason}")
    models = evaluated.metrics.models if evaluated is not None else []
    title = models[evaluated.model].name if evaluated is not None and len(models) > 1 else Path(chosen.input[0]).name
    study = Study.of(title or "study", inputs, predictions, calibration)
    if evaluated is None:
        return study
    protocol = evaluated.metrics.protocol
    if protocol.ground_truth_hash != data_hash(inputs.dataset):
        raise InputError(f"{chosen.input[0]}: is not what {evaluated.file} was made of; evaluate again")
    return replace(study, rule=protocol.match or study.rule, count_seconds=protocol.duplicates != "ignored")


def _predict_now(
    chosen: argparse.Namespace, folder: Path, output: Path, model: Predictor
) -> tuple[Inputs, Predictions]:
    from mammodet.commands.predict import starter_line
    from mammodet.data.inputs import gather
    from mammodet.data.predictions import read_predictions
    from mammodet.engine.predict import predict_to_folder
    from mammodet.models import STARTER
    from mammodet.serving.study import predicted_only

    if chosen.checkpoint == Path(STARTER):
        print(starter_line(model.card))
    inputs = gather(chosen.input, model.facts.categories, unpack_to=folder)
    path, _ = predict_to_folder(model, inputs.dataset, inputs.root, output, unreadable=inputs.skipped)
    predictions = read_predictions(path)
    return predicted_only(inputs, predictions), predictions
