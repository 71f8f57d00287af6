"""Find lesions in images, DICOM studies or a data set, and score each image, breast and patient."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mammodet.cli import Parser
from mammodet.config import TestTimeConfig
from mammodet.errors import InputError
from mammodet.targets import REPORTED_WORDS

if TYPE_CHECKING:
    from mammodet.data.inputs import Inputs, Skipped
    from mammodet.data.patient_keys import PatientKey
    from mammodet.data.study import Exam
    from mammodet.engine.predict import Predictor
    from mammodet.evaluation.calibration_file import Calibration
    from mammodet.models.card import ModelCard
    from mammodet.serving.studies import Limits

DICOM_KINDS = ("sr", "seg", "sc", "gsps")
EXAMPLE = r"""examples:
  mammodet predict --input films/ --output preds/
  mammodet predict --input study.zip other/DICOMDIR 'more/*.dcm' --output preds/ --dicom sr gsps --overlays
  mammodet predict --input films/ --output preds/ --pattern '(?P<patient>p\d+)_(?P<laterality>L|R)_(?P<view>CC|MLO)'
  mammodet predict --checkpoint output/run/best.ckpt --input data/mias/test.json --output preds/
  mammodet predict --checkpoint output/run/best.ckpt --input films/ --output preds/ --calibration calibration.json
  mammodet predict --checkpoint output/cnn/fold*/best.ckpt --input films/ --output preds/
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = Parser(description=__doc__, epilog=EXAMPLE)
    given = main.add_mutually_exclusive_group(required=True)
    given.add_argument(
        "--input",
        nargs="+",
        default=[],
        metavar="PATH",
        help="images, DICOM files, DICOMDIR, zip files, folders (searched to their depth), COCO JSON, or globs of them",
    )
    given.add_argument("--from-dicomweb", metavar="URL", help="take --study from a DICOMweb server (docs/pacs.md)")
    main.add_argument("--study", nargs="+", default=[], metavar="UID", help="Study Instance UIDs, for --from-dicomweb")
    main.add_argument("--stow", action="store_true", help="store the objects of --dicom on that server, too")
    add_limit_options(main, " from --from-dicomweb")
    main.add_argument("--output", type=Path, required=True, help="folder for predictions.json and the tables")
    main.add_argument(
        "--pattern",
        metavar="REGEX",
        help="finds in file names what headers do not say; groups patient, study, laterality, view (example below)",
    )
    main.add_argument("--overlays", action="store_true", help="draw the findings on the images, in OUTPUT/overlays")
    main.add_argument(
        "--page",
        action="store_true",
        help="write a page per exam to OUTPUT/pages, one file to read and to send on; shows patient ids",
    )
    main.add_argument(
        "--dicom",
        nargs="+",
        choices=DICOM_KINDS,
        default=[],
        metavar="KIND",
        help="write DICOM objects to OUTPUT/dicom: sr (structured report), seg (segmentation), sc (secondary capture), "
        "gsps (presentation state with contours); needs DICOM input",
    )
    main.add_argument("--patient-key", type=Path, metavar="FILE", help="hash patient ids by this key (docs/leakage.md)")
    main.add_argument(
        "--deidentify",
        action="store_true",
        help="with --patient-key: no file name, study UID or patient id in what is written (docs/leakage.md)",
    )
    main.add_argument("--num-workers", type=int, default=2, help="processes that read images (%(default)s)")
    main.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="predict one of N shares, in a process or on a machine of its own; the same command without it joins them "
        "(docs/speed.md)",
    )
    add_model_options(main)
    return main


def add_limit_options(main: argparse.ArgumentParser, source: str = "") -> None:
    """Options that bound what comes from the network."""
    for option, default, text in (("--most-mb", 256, "size of an instance"), ("--most-instances", 200, "of a study")):
        main.add_argument(option, type=int, default=default, metavar="N", help=f"{text}{source} (%(default)s)")


def limits_of(chosen: argparse.Namespace) -> Limits:
    """The bounds of `add_limit_options`, and of a node the seconds after which a study is complete."""
    from mammodet.serving.studies import Limits

    options = {"--most-mb": chosen.most_mb, "--most-instances": chosen.most_instances}
    complete_s = getattr(chosen, "complete_after", Limits().complete_s)
    for name, value in {**options, "--complete-after": complete_s}.items():
        if not 0 < value < 2**31:
            raise InputError(f"{name} {value:g}: expected a number above 0")
    return Limits(chosen.most_mb * 2**20, chosen.most_instances, complete_s)


def add_model_options(main: argparse.ArgumentParser) -> None:
    """Options that say which model answers, and how."""
    main.add_argument(
        "--checkpoint",
        type=Path,
        default=[Path("starter")],
        nargs="+",
        metavar="FILE",
        help="best.ckpt of a training, a packed or an exported model; several (folds, seeds) answer together: mean "
        "scores, fused detections (starter: the model that comes with mammodet)",
    )
    main.add_argument(
        "--score-threshold", type=float, default=0.3, metavar="T", help="detections from T are findings (%(default)s)"
    )
    labels = main.add_mutually_exclusive_group()
    labels.add_argument(
        "--calibration",
        type=Path,
        help="calibration file: adds labels and probabilities to the scores (that of a packed model)",
    )
    labels.add_argument("--no-labels", action="store_true", help="scores only, even if a packed model is calibrated")
    main.add_argument(
        "--allow-other-checkpoint",
        action="store_true",
        help="allow a calibration of another checkpoint; the predictions say so",
    )
    main.add_argument("--force", action="store_true", help="predict what is no mammogram, too (docs/images.md)")
    main.add_argument("--flip", action="store_true", help="detectors also look at each image flipped left to right")
    main.add_argument(
        "--scales",
        type=float,
        nargs="+",
        metavar="S",
        help="sizes at which detectors look at each image, relative to that of the training, for instance 1 1.25 (1)",
    )
    main.add_argument("--tiles", action="store_true", help="detectors look at native tiles, too, for small lesions")
    main.add_argument(
        "--bf16",
        action="store_true",
        help="detectors compute in bfloat16: faster on GPUs and processors with AMX or AVX-512 BF16, slower on others",
    )
    main.add_argument(
        "--engine",
        choices=("auto", "torch", "onnx", "openvino"),
        default="auto",
        help="what runs the network; onnx and openvino run exported models, without torch (auto: by the kind of file)",
    )
    main.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")


def main(arguments: list[str] | None = None) -> int:
    """Predict and say what was found."""
    main_parser = parser()
    chosen = main_parser.parse_args(arguments)
    if chosen.page and chosen.patient_key is not None:
        main_parser.error("--page and --patient-key: the page shows patient ids; give one of them")
    if bool(chosen.study) != bool(chosen.from_dicomweb):
        main_parser.error("--from-dicomweb and --study: give both or neither")
    if chosen.stow and not (chosen.from_dicomweb and chosen.dicom):
        main_parser.error("--stow: needs --from-dicomweb, and --dicom to say which objects")
    if chosen.dicom and chosen.deidentify:
        main_parser.error("--dicom and --deidentify: DICOM objects carry the patient of their image; give one of them")
    if chosen.deidentify and chosen.patient_key is None:
        main_parser.error("--deidentify: needs --patient-key FILE, under which names and ids are hashed")
    from mammodet.data.inputs import expand, gather, unpacked
    from mammodet.data.patient_keys import PatientKey
    from mammodet.engine.predict import share_folder

    server = None
    if chosen.from_dicomweb:
        try:
            from mammodet.serving.dicomweb import Server
        except ModuleNotFoundError as error:
            raise InputError(f'--from-dicomweb needs {error.name}: pip install "mammodet[network]"') from None
        server = Server(chosen.from_dicomweb, limits_of(chosen))
    key = PatientKey(chosen.patient_key) if chosen.patient_key is not None else None
    for each in chosen.input or ():  # before a model is loaded, which takes seconds
        expand(each)
    predictor, calibration = open_model(chosen)
    with unpacked(share_folder(chosen.output, chosen.shard) if chosen.shard else chosen.output) as folder:
        given = server.fetch(chosen.study, folder) if server is not None else chosen.input
        inputs = gather(given, predictor.facts.categories, unpack_to=folder, pattern=chosen.pattern)
        _say_exams(inputs)
        if chosen.deidentify and key is not None:
            from mammodet.data.deidentified import deidentified

            _say_skipped(inputs.skipped)
            inputs = deidentified(inputs, key, folder / "deidentified")
            if chosen.overlays:
                _say_letters(inputs)
        if chosen.shard and inputs.root.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                "--shard: takes no zip files, --from-dicomweb or --deidentify, whose files each process would make "
                "for itself; unpack them before, or leave out --shard"
            )
        skipped, objects = predict_inputs(chosen, predictor, inputs, calibration, key)
        if chosen.stow and server is not None:
            server.store(objects)
            print(f"stored {len(objects)} objects on {chosen.from_dicomweb}")
    return 1 if skipped else 0


def open_model(chosen: argparse.Namespace) -> tuple[Predictor, Calibration | None]:
    """The model of `add_model_options`, and what labels its scores."""
    if not 0 <= chosen.score_threshold <= 1:
        raise InputError(f"--score-threshold {chosen.score_threshold}: expected a number from 0 to 1")
    from mammodet.engine.ensemble import Ensemble
    from mammodet.evaluation.calibration_file import read_calibration
    from mammodet.models import model_path

    calibration = read_calibration(chosen.calibration) if chosen.calibration is not None else None
    paths = [model_path(path) for path in chosen.checkpoint]
    predictor = Ensemble.from_checkpoints(
        paths, chosen.device, _test_time(chosen), None if chosen.engine == "auto" else chosen.engine
    )
    if paths != chosen.checkpoint:
        print(starter_line(predictor.card))
    if calibration is None and not chosen.no_labels:
        calibration = predictor.calibration
    return predictor, calibration


def predict_inputs(
    chosen: argparse.Namespace,
    predictor: Predictor,
    inputs: Inputs,
    calibration: Calibration | None,
    key: PatientKey | None,
) -> tuple[list[Skipped], list[Path]]:
    """Predict, write all that is asked for, and say so; answers what was skipped, and the DICOM objects."""
    from mammodet.data.predictions import read_predictions
    from mammodet.engine.predict import predict_to_folder
    from mammodet.json_lists import read_members
    from mammodet.reporting.prediction_tables import write_tables

    if predictor.config.model.detects and inputs.dataset.categories != predictor.facts.categories:
        print(
            f"warning: {chosen.input[0]}: its categories are {list(inputs.dataset.categories)}, those of the model "
            f"{list(predictor.facts.categories)}: mammodet evaluate will refuse to compare them. Rename its "
            "categories (mammodet subset --category) before, or take a model of the same",
            file=sys.stderr,
        )
    if chosen.dicom:
        from mammodet.export.dicom_files import check_sources, write_dicom

        check_sources(inputs, chosen.dicom, with_masks=predictor.config.model.with_masks)
    path, skipped = predict_to_folder(
        predictor,
        inputs.dataset,
        inputs.root,
        chosen.output,
        num_workers=max(chosen.num_workers, 0),
        unreadable=inputs.skipped,
        calibration=calibration,
        allow_other_checkpoint=chosen.allow_other_checkpoint,
        key=key,
        force=chosen.force,
        shard=chosen.shard,
    )
    if chosen.shard:
        print(
            f"{path}: share {chosen.shard[0]} of {chosen.shard[1]} is done; once all are, the same command without "
            "--shard joins them"
        )
        return [], []
    predictions = read_predictions(path)
    inputs = replace(inputs, skipped=tuple(skipped))
    if key is not None:
        inputs = replace(inputs, exams=tuple(_hashed(exam, key) for exam in inputs.exams))
    threshold = chosen.score_threshold
    written = write_tables(predictions, inputs, chosen.output, score_threshold=threshold, calibration=calibration)
    if calibration is not None:
        print(label_table(read_members(path, ("images", "breasts", "patients"))))
    print(f"wrote {path}: {len(predictions.images)} images; {', '.join(table.name for table in written)}")
    if not predictions.patients:
        print("breasts.csv and patients.csv are empty: no image names its patient (--pattern reads it from file names)")
    if chosen.overlays:
        from mammodet.reporting.overlay_files import draw_files

        drawn = draw_files(None, path, inputs.root, chosen.output / "overlays", score_threshold=threshold)
        print(f"wrote {len(drawn)} pictures; open {chosen.output}/overlays/index.html")
    if chosen.page:
        from mammodet.serving.page import write_pages
        from mammodet.serving.study import Study, predicted_only

        study = Study.of(
            Path((chosen.input or chosen.study)[0]).name, predicted_only(inputs, predictions), predictions, calibration
        )
        pages = write_pages(study, chosen.output / "pages")
        print(f"wrote {len(pages)} pages; open {pages[0]}")
    objects: list[Path] = []
    if chosen.dicom:
        objects = write_dicom(predictions, inputs, chosen.output / "dicom", chosen.dicom, threshold, calibration)
        print(f"wrote {len(objects)} DICOM objects to {chosen.output}/dicom")
    _say_skipped(skipped)
    if skipped:
        print(f"{len(skipped)} images were skipped; they are listed in {chosen.output}/skipped.json", file=sys.stderr)
    return skipped, objects


def _shard(text: str) -> tuple[int, int]:
    """`1/4` as (1, 4)."""
    first, _, count = text.partition("/")
    if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N with I from 1 to N, as in 1/4")
    return int(first), int(count)


def _say_letters(inputs: Inputs) -> None:
    from mammodet.data.burned_in import has_letters
    from mammodet.data.images import read_image

    for record in inputs.dataset.images:
        with suppress(InputError):  # it is skipped, with its reason
            if has_letters(read_image(inputs.root / record.file_name)):
                note = "has letters beside the breast, which may name the patient; look at its overlay before it leaves"
                print(f"warning: {record.file_name}: {note}", file=sys.stderr)


def _say_skipped(skipped: Sequence[Skipped]) -> None:
    for item in skipped:
        reason = item.reason.removeprefix(f"{item.file_name}: ")
        print(f"skipped {item.file_name}: {reason}", file=sys.stderr)


def _hashed(exam: Exam, key: PatientKey) -> Exam:
    """An exam without its patient's plain id, which is its name where it has no other."""
    if exam.patient_id is None:
        return exam
    hashed = key.hash(exam.patient_id)
    return replace(exam, patient_id=hashed, name=hashed if exam.name == exam.patient_id else exam.name)


def _say_exams(inputs: Inputs, most: int = 20) -> None:
    """Views that are missing, repeated or special, and what was left out."""
    lines = [f"left out {item.file_name}: {item.reason}" for item in inputs.left_out]
    for exam in inputs.exams:
        notes = [("missing", exam.missing), ("repeated", exam.repeated), ("special", exam.special)]
        found = "; ".join(f"{name} {', '.join(part)}" for name, part in notes if part)
        lines += [f"exam of {exam.patient_id}, {len(exam.files)} images: {found}"] if found else []
    for line in lines[:most]:
        print(line)
    if len(lines) > most:
        print(f"... and {len(lines) - most} more: images.csv and patients.csv have them all")


def _test_time(chosen: argparse.Namespace) -> TestTimeConfig | None:
    """Of `--flip`, `--scales`, `--tiles` and `--bf16`, or None where none is given."""
    if not (chosen.flip or chosen.scales or chosen.tiles or chosen.bf16):
        return None
    scales = chosen.scales or [1.0]
    if not all(0.25 <= scale <= 4 for scale in scales):
        raise InputError(f"--scales {' '.join(f'{scale:g}' for scale in scales)}: expected sizes from 0.25 to 4")
    return TestTimeConfig(flip=chosen.flip, scales=scales, tiles=chosen.tiles, bf16=chosen.bf16)


def starter_line(card: ModelCard | None) -> str:
    """What a user of the starter model must know; without a card it answers beside other models."""
    told = card.line() if card else "research only; the figures of its card do not hold beside other models"
    return f"starter model: {told} (docs/starter.md)"


def label_table(value: dict[str, Any], most: int = 20) -> str:
    """The labels of a predictions file's value: of the first images, and how many breasts and patients have which."""

    made_by = value["model"]["calibration"]
    fitted_on = {"val": "validation", None: "validation"}.get(made_by["subset"], made_by["subset"])
    goal = f"{made_by['goal']} on {'TEST' if made_by['fitted_on_test'] else fitted_on}"
    lines = []
    for image in islice(value["images"], most):
        answers = [
            _answer(name, image["labels"][name], image["scores"][name], goal)
            for name in REPORTED_WORDS
            if name in image["labels"]
        ]
        lines.append(f"{image['file_name']}  {'; '.join(answers) or 'no label: this level was not calibrated'}")
    if len(value["images"]) > most:
        lines.append(f"... and {len(value['images']) - most} more images")
    for places in ("images", "breasts", "patients"):
        labels = [(name, found["label"]) for one in value[places] for name, found in one["labels"].items()]
        for name in sorted({name for name, _ in labels}, key=list(REPORTED_WORDS).index):
            lines.append(f"{places}: {labels.count((name, 1))} of {len(value[places])} {name}")
        if value[places] and not labels:
            lines.append(f"{places}: no labels, this level was not calibrated")
    if made_by["other_checkpoint"]:
        lines.append("The calibration was fitted for another checkpoint: its probabilities and labels may be wrong.")
    return "\n".join(lines)


def _answer(name: str, found: dict[str, Any], score: float, goal: str) -> str:
    number = f"score {score:.3f}" if found["probability"] is None else f"{name} probability {found['probability']:.3f}"
    if found["label"] is None:
        return f"{number}: no label ({found['goal']} was not reached)"
    sign = ">=" if found["label"] else "<"
    return f"{number}: {REPORTED_WORDS[name][found['label']]} ({sign} {found['threshold']:.3g}, {goal})"
