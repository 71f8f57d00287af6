"""Run the commands on a folder of inputs that once went wrong, and compare with the right values.

Each case is a folder with a README.txt that gives the command and the right value. Cases whose input is described in
words are made here. Answers to hostile inputs may take 5 s of CPU time beyond the start of a command, and 1 GB.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

from hostile import (
    beyond_epochs,
    colon_name,
    csv_cells,
    damaged_last,
    deflated,
    escapes,
    fifos,
    huge_config,
    jpeg_bomb,
    leakage,
    many_lesions,
    memo_bomb,
    moved_run,
    nan_scores,
    orphans,
    short_jpeg,
    stack_facts,
    stale_predictions,
    terminated,
    tiff_16,
    two_predictions,
    weights_bombs,
    yaml_laughs,
)
from reading import (
    cvat_masks,
    exif,
    flat_cbis,
    full_mias,
    label_studio,
    mias_512,
    mias_1080,
    mias_nan,
    no_suffix,
    number_ids,
    outlines,
    padding,
    shares,
    tomosynthesis,
    via,
    white_is_zero,
)
from running import MADE, WrongError
from training import (
    larger_batch,
    mask_size,
    other_optimizer,
    other_patience,
    other_rate,
    small_shared_memory,
    ties,
    wrong_mode,
)

from mammodet.cli import run

EXAMPLE = """example:
  python tests/check_cases cases --only attack/ data/03
"""
CASES: dict[str, Callable[[Path, Path], None]] = {
    "data/01-cvat-mask-iscrowd": cvat_masks,
    "data/03-exif-turned-jpeg": exif,
    "data/04-string-ids": number_ids,
    "data/05-float-iscrowd": number_ids,
    "data/06-via-export": via,
    "data/07-segmentation-shapes": outlines,
    "data/08-label-studio-paths": label_studio,
    "data/10-mias-rescaled-1080": mias_1080,
    "data/11-mias-half-512": mias_512,
    "data/14-tiff16-min-is-white": white_is_zero,
    "data/16-tomo-sop-single-frame": tomosynthesis,
    "data/17-pixel-padding-becomes-white": padding,
    "data/19-boxes-as-shares": shares,
    "data/22-dicom-no-suffix": no_suffix,
    "data/23-mias-full-names": full_mias,
    "data/25-cbis-flat-by-uid": flat_cbis,
    "data/26-mias-info-nan": mias_nan,
    "attack/01-colon-name-stops-predict": colon_name,
    "attack/02-jpeg-bomb": jpeg_bomb,
    "attack/03-jpeg-without-scan-accepted": short_jpeg,
    "attack/04-tiff16-whiteiszero-not-inverted": tiff_16,
    "attack/05-yaml-laughs": yaml_laughs,
    "attack/06-stride0-weights": weights_bombs,
    "attack/07-deflated-weights-bomb": deflated,
    "attack/08-nan-scores-traceback": nan_scores,
    "attack/09-huge-config-in-checkpoint": huge_config,
    "attack/10-csv-injection": csv_cells,
    "attack/11-fifo-hangs": fifos,
    "attack/15-pickle-memo-bomb": memo_bomb,
    "attack/16-stack-fitted-on-indexerror": stack_facts,
    "attack/17-two-predicts": two_predictions,
    "attack/20-many-lesions-memory": many_lesions,
    "attack/21-leakage": leakage,
    "attack/22-orphan-temp-files": orphans,
    "attack/23-moved-run-loses-best": moved_run,
    "attack/24-stale-predictions-after-interruption": stale_predictions,
    "attack/25-damaged-last-ckpt": damaged_last,
    "attack/26-sigterm-leaves-workers": terminated,
    "attack/27-validate-every-beyond-epochs": beyond_epochs,
    "attack/28-terminal-escapes": escapes,
    "train/01-resume-other-learning-rate": other_rate,
    "train/03-resume-other-patience": other_patience,
    "train/04-resume-other-optimizer": other_optimizer,
    "train/06-best-checkpoint-is-the-worst": wrong_mode,
    "train/07-exif-turned-by-half": exif,
    "train/09-froc-depends-on-order-of-ties": ties,
    "train/10-outlines-a-pixel-too-large": mask_size,
    "train/11-shared-memory-hang": small_shared_memory,
    "train/13-resume-with-larger-batch": larger_batch,
}


def main(arguments: list[str] | None = None) -> int:
    """Check every case, or those that are named; status 1 if one is wrong or has no check."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with data/, attack/ and train/")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="cases whose names hold one of these")
    chosen = parser.parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    MADE["cases"] = chosen.folder.resolve()
    folders = sorted(path.relative_to(chosen.folder).as_posix() for path in chosen.folder.glob("*/*") if path.is_dir())
    wrong = 0
    for name in (name for name in folders if any(part in name for part in chosen.only)):
        check = CASES.get(name)
        said = "WRONG: has no check" if check is None else _outcome(check, chosen.folder.resolve() / name)
        wrong += said != "right"
        print(f"{name:45} {said}", flush=True)
    print(f"{wrong} wrong")
    return int(wrong > 0)


def _outcome(check: Callable[[Path, Path], None], case: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="case") as work:
        try:
            check(case, Path(work) / "out")
        except Exception as error:
            return f"WRONG: {type(error).__name__}: {error}" if not isinstance(error, WrongError) else f"WRONG: {error}"
    return "right"


if __name__ == "__main__":
    run(main)
