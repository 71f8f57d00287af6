"""Draw docs/images/leakage.png: one network under two splits, from the logs of the two runs.

example:
  python docs/make_leakage_figure.py output/classification/leakage_rotated_copies output/classification/leakage_patients
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mammodet.files import write_bytes
from mammodet.reporting.curves import COLOURS, to_png
from mammodet.reporting.report_training import read_history

PAGE = Path(__file__).parent / "images" / "leakage.png"
PANELS = (("train/loss", "training loss"), ("val/loss", "validation loss"), ("val/auc_tumor", "validation ROC AUC"))


def main() -> None:
    """One line for each run in each panel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("copies", type=Path, help="run of leakage_rotated_copies.yaml")
    parser.add_argument("patients", type=Path, help="run of leakage_patients.yaml")
    chosen = parser.parse_args()
    figure = Figure(figsize=(10.5, 3.3), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, 3)
    runs = (("turned copies, divided at random", chosen.copies), ("women on one side only", chosen.patients))
    for number, (name, folder) in enumerate(runs):
        rows = read_history(folder / "metrics.csv")
        for axes, (column, title) in zip(grid, PANELS, strict=True):
            axes.plot([row["epoch"] for row in rows], [row[column] for row in rows], color=COLOURS[number], label=name)
            axes.set_title(title, fontsize=10)
            axes.set_xlabel("epoch", fontsize=9)
            axes.grid(alpha=0.25)
    grid[2].axhline(0.5, color="#888888", linestyle=":", linewidth=1)
    grid[2].set_ylim(0.2, 1)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    write_bytes(PAGE, to_png(figure, dpi=110))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
