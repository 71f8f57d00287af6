"""Train a lesion detector or an image classifier, or evaluate one.

The command line is that of detectron2's train_net.py: a config file, then KEY=VALUE overrides.
"""

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path

from mammodet.cli import Parser
from mammodet.config import Config, load_config
from mammodet.data.dataset_files import has_dataset
from mammodet.errors import InputError

EXAMPLE = """examples:
  mammodet train --config-file mias/mask_rcnn_r50_fpn data.fold=0
  mammodet train --config-file mias/mask_rcnn_r50_fpn data.fold=0 --resume
  mammodet train --config-file mias/mask_rcnn_r50_fpn data.fold=1 output_dir=output/mias/fold1
  mammodet train --config-file classification/mias_abnormal_cnn --all-folds
  mammodet train --config-file mias/mask_rcnn_r50_fpn --eval-only \\
      model.weights=output/mias/mask_rcnn_r50_fpn/best.ckpt
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = Parser(description=__doc__, epilog=EXAMPLE)
    main.add_argument(
        "--config-file",
        type=Path,
        required=True,
        metavar="FILE",
        help="YAML file, or the name of a shipped config (docs/config.md)",
    )
    main.add_argument("--resume", action="store_true", help="continue from last.ckpt in the output folder")
    main.add_argument("--overwrite", action="store_true", help="replace the run in the output folder")
    main.add_argument(
        "--all-folds",
        action="store_true",
        help="train on every fold of data.root and evaluate the out-of-fold predictions; --resume keeps finished folds",
    )
    main.add_argument("--force-data", action="store_true", help="with --resume: go on although the data changed")
    main.add_argument("--eval-only", action="store_true", help="evaluate model.weights on data.test")
    main.add_argument("--num-gpus", type=int, metavar="N", help="GPUs per machine; 0: CPU (all)")
    main.add_argument("--num-machines", type=int, default=1, metavar="N", help="machines (%(default)s)")
    main.add_argument("--machine-rank", type=int, default=0, metavar="N", help="this machine, from 0 (%(default)s)")
    main.add_argument("--dist-url", default="auto", metavar="URL", help="tcp://HOST:PORT of machine 0 (%(default)s)")
    main.add_argument("opts", nargs="*", metavar="KEY=VALUE", help="overrides, for instance train.lr=0.001")
    return main


def main(arguments: list[str] | None = None) -> int:
    """Train, or evaluate a checkpoint."""
    # intermixed: overrides may stand before, between and after the flags
    chosen = parser().parse_intermixed_args(arguments)
    config = load_config(chosen.config_file, chosen.opts)
    command = "mammodet train " + shlex.join(arguments if arguments is not None else sys.argv[1:])
    if chosen.eval_only:
        if chosen.resume or chosen.overwrite or chosen.all_folds:
            raise InputError("--eval-only trains nothing: leave out --resume, --overwrite and --all-folds")
        return _evaluate(config, command, "cpu" if chosen.num_gpus == 0 else "auto")
    if chosen.all_folds:
        if chosen.force_data:
            raise InputError("--all-folds trains each fold on its own data: leave out --force-data")
        return _all_folds(config, command, chosen)
    speaks = chosen.machine_rank == 0 and int(os.environ.get("LOCAL_RANK", 0)) == 0
    if speaks:  # before the imports, which take long on a busy machine
        files = [str(each.path) for subset in ("train", "val") for each in config.data.files(subset)]
        print(f"reading {', '.join(files)}", flush=True)
    from mammodet.engine.checked_run import prepare
    from mammodet.engine.run_folder import TABLE
    from mammodet.engine.train import Machines, train

    machines = Machines(chosen.num_gpus, chosen.num_machines, chosen.machine_rank, chosen.dist_url)
    run_ = prepare(config)
    best = train(
        run_, resume=chosen.resume, overwrite=chosen.overwrite, force_data=chosen.force_data, machines=machines
    )
    if speaks:
        print(f"curves: {best.parent / TABLE}, or {shlex.join(['tensorboard', '--logdir', str(best.parent)])}")
        _print_next(run_.config, best, chosen)
    return 0


def _print_next(config: Config, best: Path, chosen: argparse.Namespace) -> None:
    """The commands that follow a training, to be pasted as they are."""
    truth = config.data.root / config.data.test if config.data.test is not None else None
    if truth is not None and has_dataset(truth):
        output = config.output_dir / f"eval_{truth.stem}"
        device = ["--num-gpus", "0"] if chosen.num_gpus == 0 else []
        same = ["--config-file", best.with_name("config.yaml"), *device, "--eval-only"]
        print(f"next: measure it on images that it has never seen ({output}/report.html), and look at them")
        print(_command("train", *same, f"model.weights={best}"))
        drawn = ["--predictions", output / "predictions.json", "--output", output / "pictures"]
        print(_command("visualize", "--ground-truth", truth, *drawn))
    print("next: predict images of your own (put their folder for FOLDER), and look at them")
    preds = config.output_dir / "preds"
    print(_command("predict", "--checkpoint", best, "--input", "FOLDER", "--output", preds))
    drawn = ["--predictions", preds / "predictions.json", "--output", preds / "pictures"]
    print(_command("visualize", "--images", "FOLDER", *drawn))


def _command(sub: str, *arguments: object) -> str:
    """A command line to be pasted, with the Python of this one where `mammodet` is not on the path."""
    called = ["mammodet"] if shutil.which("mammodet") else [sys.executable, "-m", "mammodet"]
    return "  " + shlex.join([*called, sub, *map(str, arguments)])


def _all_folds(config: Config, command: str, chosen: argparse.Namespace) -> int:
    from mammodet.engine.folds import train_folds
    from mammodet.engine.train import Machines
    from mammodet.reporting.evaluation_files import evaluate_files

    machines = Machines(chosen.num_gpus, chosen.num_machines, chosen.machine_rank, chosen.dist_url)
    devices = machines.num_gpus if machines.num_gpus else config.train.devices or 1
    if machines.num_machines > 1 or devices > 1:
        raise InputError(
            f"--all-folds trains in one process, here {machines.num_machines} machines with {devices} devices: give "
            "one device, or train the folds at the same time with data.fold=K and an output_dir each"
        )
    path, truth = train_folds(config, resume=chosen.resume, overwrite=chosen.overwrite, machines=machines)
    evaluate_files(truth, [path], path.parent, command=command, patient_key=config.data.patient_key)
    checkpoints = sorted(str(best) for best in config.output_dir.glob("fold*/best.ckpt"))
    if config.model.detects:  # boxes of several detectors are not joined
        return 0
    print("next: the mean of the folds' models on images that none of them has seen")
    print(_command("predict", "--checkpoint", *checkpoints, "--input", "FOLDER", "--output", path.parent / "preds"))
    return 0


def _evaluate(config: Config, command: str, device: str) -> int:
    if config.model.weights in ("none", "coco", "imagenet"):
        raise InputError(f"--eval-only: model.weights={config.model.weights}; expected the path of a checkpoint")
    if config.data.test is None:
        raise InputError("--eval-only: data.test is null; name a file below data.root, as in data.test=test.json")
    from mammodet.data.coco import read_coco
    from mammodet.engine.checked_run import patient_key
    from mammodet.engine.predict import Predictor, predict_to_folder
    from mammodet.engine.unsafe_split import make_unsafe_split
    from mammodet.models import model_path
    from mammodet.reporting.evaluation_files import clear_evaluation, evaluate_files

    checkpoint = model_path(config.model.weights)
    predictor = Predictor.from_checkpoint(checkpoint, device, config)
    if config.data.unsafe_split is not None:
        config = make_unsafe_split(config)
    assert config.data.test is not None
    truth = config.data.root / config.data.test  # its images are found from its own folder
    plain = Path(config.data.test).parent == Path()
    output = config.output_dir / (f"eval_{truth.stem}" if plain else f"eval_{truth.parent.name}_{truth.stem}")
    dataset = read_coco(truth, skip_invalid=config.data.skip_invalid)
    clear_evaluation(output)  # that of older predictions must not stand beside new ones
    workers, key = config.data.num_workers, patient_key(config)
    path, skipped = predict_to_folder(predictor, dataset, truth.parent, output, num_workers=workers, key=key)
    for item in skipped:
        print(f"skipped {item.file_name}: {item.reason}", file=sys.stderr)
    evaluate_files(
        truth,
        [path],
        output,
        history=checkpoint.parent / "metrics.csv",
        patient_key=config.data.patient_key,
        command=command,
    )
    return 1 if skipped else 0
