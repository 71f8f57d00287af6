"""What the scripts share: ways of doing the same take turns, and their time and memory."""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

Seconds = dict[str, list[float]]


def arguments(text: str | None) -> argparse.ArgumentParser:
    """A command line with a script's docstring as its help."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)


def take_turns(work: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu") -> Seconds:
    """Seconds of each piece of work, called in turn, after a round that warms up.

    On a CPU its own seconds, which other programs on the machine disturb less than wall time.
    """
    import torch  # here: scripts that measure memory do without it

    on_gpu = device.startswith("cuda")
    clock = time.perf_counter if on_gpu else time.process_time
    seconds: Seconds = {name: [] for name in work}
    for repeat in range(repeats + 1):
        for name, run in work.items():
            torch.manual_seed(0)
            start = clock()
            run()
            if on_gpu:
                torch.cuda.synchronize()
            if repeat:
                seconds[name].append(clock() - start)
    return seconds


def show(seconds: Seconds) -> None:
    """A line for each: its median, and the median and range of its ratios to the first, round by round."""
    base = next(iter(seconds.values()))
    for name, each in seconds.items():
        ratios = [one / other for one, other in zip(each, base, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:26} {statistics.median(each):8.3f} s   {spread}")


def peak_mb(process: int | str = "self") -> float:
    """Largest resident memory of a process; Linux only, where getrusage counts what the parent had, too."""
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
