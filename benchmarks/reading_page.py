"""The reading page: from the click on an exam to its first image, and the server's memory under parallel requests.

needs Playwright, Chromium and psutil; memory is read from Linux's /proc.

example:
  mammodet phantoms --archive rsna --patients 3 --size 3000 --output phantoms
  mammodet predict --input phantoms/train_images --output preds
  python benchmarks/reading_page.py preds --images phantoms/train_images
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil
from measuring import arguments, peak_mb
from playwright.sync_api import Page, sync_playwright

# until a canvas shows more than black
FIRST = """() => new Promise((resolve) => {
  const look = () => {
    for (const canvas of document.querySelectorAll("#panels canvas")) {
      if (!canvas.width) continue;
      const { data } = canvas.getContext("2d").getImageData(0, canvas.height >> 1, canvas.width, 1);
      if (data.some((value, n) => n % 4 < 3 && value > 40)) return resolve();
    }
    setTimeout(look, 20);
  };
  look();
})"""
# until every image is there with all its pixels
WHOLE = """() => new Promise((resolve) => {
  const look = () => document.querySelector("#status").textContent ? setTimeout(look, 20) : resolve();
  look();
})"""
LAST = "[...document.querySelectorAll('#exams button')].at(-1).click()"


def main() -> None:
    """Print times and CPU seconds of opening the page and of clicks, and the memory before and after."""
    parser = arguments(__doc__)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--requests", type=int, default=200)
    chosen = parser.parse_args()
    command = [sys.executable, "-m", "mammodet", "view", str(chosen.predictions), "--images", str(chosen.images)]
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with sync_playwright() as library:
        browser = library.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for repeat in range(2 * chosen.repeats):
            with _server(command) as (process, address):
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                if repeat % 2:
                    _open(page, address)
                    page.evaluate(FIRST)
                    _watch(page, process, "click while another exam is read", partial(page.evaluate, LAST))
                else:
                    _watch(page, process, "page opened, nothing read before", partial(_open, page, address))
                    _watch(page, process, "click, not read before", partial(page.evaluate, LAST))
                    _watch(page, process, "click, read before", partial(page.evaluate, LAST))
                page.close()
        browser.close()
    with _server(command) as (process, address):
        parts = urlsplit(address)
        pixels = f"http://{parts.netloc}/api/studies/0/images/0/pixels?{parts.query}"
        _read(pixels)
        before, start = peak_mb(process), time.perf_counter()
        with ThreadPoolExecutor(chosen.requests) as pool:
            sizes = list(pool.map(_read, [pixels] * chosen.requests))
        seconds = time.perf_counter() - start
        print(f"{len(sizes)} requests in parallel, {sizes[0] / 1e6:.1f} MB each: {seconds:.0f} s")
        print(f"server's largest memory: {before:.0f} MB before, {peak_mb(process):.0f} MB after")


@contextmanager
def _server(command: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Process number and address."""
    process = subprocess.Popen([*command, "--no-browser"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.pid, next(found[0] for line in process.stdout if (found := re.search(r"http\S+", line)))
    finally:
        process.terminate()
        process.wait()


def _open(page: Page, address: str) -> None:
    page.goto(address, timeout=600_000)
    page.wait_for_selector("#panels canvas", timeout=600_000)


def _watch(page: Page, server: int, name: str, act: Callable[[], None]) -> None:
    used, start = _cpu_seconds(server), time.perf_counter()
    act()
    for until, code in (("first image", FIRST), ("all whole", WHOLE)):
        page.evaluate(code)
        seconds = time.perf_counter() - start
        ours, theirs = (now - then for now, then in zip(_cpu_seconds(server), used, strict=True))
        print(f"{name}: {until} after {seconds:.2f} s; CPU: server {ours:.2f} s, browser {theirs:.2f} s", flush=True)


def _read(address: str) -> int:
    with urlopen(address, timeout=600) as answer:
        return sum(len(part) for part in iter(lambda: answer.read(2**20), b""))


def _cpu_seconds(server: int) -> tuple[float, float]:
    """Of the server, and of the browser with all its processes."""
    processes = {one.pid: sum(one.cpu_times()[:2]) for one in psutil.Process().children(recursive=True)}
    return processes.pop(server), sum(processes.values())


if __name__ == "__main__":
    main()
