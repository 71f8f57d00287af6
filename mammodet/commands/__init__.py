"""The command line `mammodet SUB ...`: one module here for each sub-command, imported when it is called."""

import difflib
import importlib
import sys
from typing import NoReturn

from mammodet.cli import run
from mammodet.errors import InputError
from mammodet.version import VERSION

#: Sub-command, its module here, and what it does.
COMMANDS = {
    "convert": ("convert", "make a data set (COCO JSON, images, splits) of an archive"),
    "audit": ("audit", "find what is wrong with a data set before anyone trains on it"),
    "subset": ("subset", "make a data set of some images, categories or labels of another"),
    "patches": ("patches", "cut patches around lesions and of normal tissue"),
    "train": ("train", "train a detector or a classifier, or evaluate one on its test set"),
    "predict": ("predict", "find lesions and score images, with the starter model or yours"),
    "calibrate": ("calibrate", "choose probabilities and thresholds on validation images"),
    "evaluate": ("evaluate", "score predictions: AP, FROC, ROC with intervals, report, comparison"),
    "visualize": ("visualize", "draw ground truth and predictions on the images"),
    "view": ("view", "read studies in the browser, and correct findings"),
    "serve": ("serve", "answer a PACS: studies in, findings back as DICOM objects"),
    "explain": ("explain", "show what a network looks at: layers, Grad-CAM, input, curves"),
    "import": ("import_predictions", "read another program's detections"),
    "export": ("export", "export a model to ONNX Runtime or OpenVINO, which predict without torch"),
    "export-data": ("export_data", "write a data set or predictions for other tools: YOLO, VOC, RF-DETR, CVAT, ..."),
    "pack": ("pack", "pack a checkpoint with calibration and card into one small file"),
    "phantoms": ("phantoms", "draw synthetic mammograms in the layout of an archive"),
    "download": ("download", "download CBIS-DDSM from a public index, sizes shown first"),
}
#: Those that do something without an argument; of others it shows their options.
BARE = ("view",)

START = """mammodet finds and outlines abnormalities in mammograms.

{commands}

mammodet SUB --help shows options and examples; defaults are in parentheses. First steps:
  mammodet predict --input films/ --output preds/        the starter model on your images
  mammodet convert mias --source all-mias --output data/mias --folds 5
  mammodet train --config-file mias/mask_rcnn_r50_fpn data.fold=0
"""


def run_command() -> NoReturn:
    """Run the sub-command that `sys.argv` names, and exit."""
    run(main)


def main(arguments: list[str] | None = None) -> int:
    """Run a sub-command; without one, list them. Raises InputError: an unknown sub-command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print(START.format(commands="\n".join(f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items())))
        return 0
    name, *rest = arguments
    if name in ("-V", "--version"):
        print(f"mammodet {VERSION}")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"mammodet {name}: no such sub-command{hint}; expected one of {', '.join(COMMANDS)}")
    sys.argv[0] = f"mammodet {name}"  # the name that argparse prints
    module = importlib.import_module(f"mammodet.commands.{COMMANDS[name][0]}")
    return int(module.main(rest or ([] if name in BARE else ["--help"])))
