"""Read a study, its findings and its errors in the browser, and keep a reader's verdicts (docs/view.md)."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mammodet.cli import Parser
from mammodet.errors import InputError

if TYPE_CHECKING:
    from mammodet.data.inputs import Inputs
    from mammodet.data.predictions import Predictions
    from mammodet.evaluation.calibration_file import Calibration
    from mammodet.serving.study import Study

EXAMPLE = """examples (docs/view.md):
  mammodet view films/ study.zip                         predict now, with the starter model
  mammodet view preds/ --images films/                   what mammodet predict wrote
  mammodet view data/mias/test.json --predictions preds/ truth and predictions side by side
  mammodet view preds/ --images films/ --export corrected.json
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument(
        "input",
        nargs="+",
        metavar="PATH",
        help="a predictions folder or file, a data set (COCO JSON), or images, DICOM files, zip files, folders to "
        "predict now",
    )
    main.add_argument("--predictions", type=Path, help="predictions of the data set or images: a folder or a file")
    main.add_argument("--images", type=Path, metavar="FOLDER", help="the folder that was predicted (the predictions')")
    main.add_argument("--checkpoint", type=Path, default=Path("starter"), help="model that predicts (%(default)s)")
    main.add_argument("--calibration", type=Path, help="calibration file, for operating points (that of the model)")
    main.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="keeps verdicts.json, and predictions that are made now (beside the predictions, else mammodet_view/NAME)",
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
        raise InputError(f"mammodet view needs {error.name}: pip install 'mammodet[view]'") from None
    from mammodet.data.coco import write_coco
    from mammodet.files import locked
    from mammodet.serving.verdicts import VerdictStore

    given = [Path(path) for path in chosen.input]
    file = _predictions_file(given[0]) if len(given) == 1 else None
    if file is not None and chosen.predictions is not None:
        raise InputError(f"{file} and --predictions {chosen.predictions}: both hold predictions; name the images first")
    if file is None and chosen.predictions is not None:
        file = _predictions_file(chosen.predictions)
        if file is None:
            raise InputError(
                f"--predictions {chosen.predictions}: holds no predictions.json, and is no predictions file"
            )
    output = chosen.output or (file.parent if file is not None else Path("mammodet_view", given[0].stem or "study"))
    with TemporaryDirectory(prefix="mammodet-") as folder:
        study = _study(chosen, file, output, Path(folder))
        with locked(output, "another mammodet view shows it; close that, or choose another --output"):
            store = VerdictStore(study, output)
            if chosen.export is not None:
                write_coco(store.corrected(), chosen.export)
                print(f"wrote {chosen.export}")
                return 0
            return serve(
                study, store, chosen.checkpoint, chosen.device, chosen.port, open_browser=not chosen.no_browser
            )


def _predictions_file(path: Path) -> Path | None:
    from mammodet.data.predictions import FORMAT
    from mammodet.files import read_json

    if path.is_dir():
        return path / "predictions.json" if (path / "predictions.json").is_file() else None
    if path.suffix.lower() != ".json":
        return None
    value = read_json(path)
    return path if isinstance(value, dict) and value.get("format") == FORMAT else None


def _study(chosen: argparse.Namespace, file: Path | None, output: Path, folder: Path) -> Study:
    """The images with what is predicted of them, predicted now where nothing is known of them."""
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
            inputs, predictions, own = _predict_now(chosen, folder, output)
            calibration = calibration or own
    for item in inputs.skipped:
        print(f"skipped {item.file_name}: {item.reason}")
    return Study.of(Path(chosen.input[0]).name or "study", inputs, predictions, calibration)


def _predict_now(
    chosen: argparse.Namespace, folder: Path, output: Path
) -> tuple[Inputs, Predictions, Calibration | None]:
    from mammodet.commands.predict import starter_line
    from mammodet.data.inputs import gather
    from mammodet.data.predictions import read_predictions
    from mammodet.engine.ensemble import Ensemble
    from mammodet.engine.predict import predict_to_folder
    from mammodet.models import STARTER, starter_path
    from mammodet.serving.study import predicted_only

    is_starter = chosen.checkpoint == Path(STARTER)
    predictor = Ensemble.from_checkpoints([starter_path() if is_starter else chosen.checkpoint], chosen.device)
    if is_starter:
        print(starter_line(predictor.card))
    inputs = gather(chosen.input, predictor.facts.categories, unpack_to=folder)
    path, _ = predict_to_folder(predictor, inputs.dataset, inputs.root, output, unreadable=inputs.skipped)
    predictions = read_predictions(path)
    return predicted_only(inputs, predictions), predictions, predictor.calibration
