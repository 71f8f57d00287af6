"""Training curves of one or several runs, laid over each other. Knows no torch."""

from collections.abc import Sequence
from pathlib import Path

from mammodet.errors import InputError, raise_faults
from mammodet.files import short_names
from mammodet.reporting.curves import write_figures
from mammodet.reporting.report_training import Rows, curves_figure, read_history

TABLE = "metrics.csv"


def write_curves(runs: Sequence[Path], output: Path, *, names: Sequence[str] = ()) -> list[Path]:
    """Draw the curves of trainings into `curves.png` and `curves.svg`.

    Args:
        runs: folders with a `metrics.csv`, or such files.
        names: of the runs; none for what their paths differ in.
    Returns:
        the files' paths.
    Raises:
        InputError: no such table, an empty one, or not as many names as runs.
    """
    if names and len(names) != len(runs):
        raise InputError(f"--names: {len(names)} names for {len(runs)} runs; give one each")
    if len(set(names)) != len(names):
        raise InputError(f"--names {' '.join(names)}: expected different names")
    histories, faults = [], []
    for run in runs:
        try:
            histories.append(_history(Path(run)))
        except InputError as error:
            faults.append(str(error))
    raise_faults(faults, where="runs")
    named = dict(zip(names or run_names(runs), histories, strict=True))
    return write_figures(output, {"curves": curves_figure(named)})


def _history(run: Path) -> Rows:
    path = run / TABLE if run.is_dir() else run
    try:
        rows = read_history(path)
    except FileNotFoundError:
        inside = sorted(other.parent.name for other in run.glob(f"*/{TABLE}"))
        hint = f"; it holds runs: {', '.join(inside[:6])}; name them, as {run}/*" if inside else ""
        raise InputError(f"{path}: no such file; expected the folder of a training{hint}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    rows = [row for row in rows if "epoch" in row]
    if not rows:
        raise InputError(f"{path}: holds no epoch; expected the {TABLE} of a training, with a column 'epoch'")
    return rows


def run_names(runs: Sequence[Path]) -> list[str]:
    """Short names: the last parts of the paths, as many as tell them apart; with numbers where nothing does."""
    paths = [path.parent if path.name == TABLE else path for path in map(Path, runs)]
    names = short_names(paths)
    alike = len(set(names)) < len(names)
    return [f"{path.name} ({number})" for number, path in enumerate(paths, start=1)] if alike else names
