"""The reading page: from the click on an exam to its first image, and the server's memory under parallel requests.

needs Playwright and Chromium; memory is read from Linux's /proc.

example:
  mammodet phantoms --archive rsna --patients 1 --size 3000 --output phantoms
  mammodet predict --input phantoms/test_images --output preds
  python benchmarks/reading_page.py preds --images phantoms/test_images
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from playwright.sync_api import sync_playwright

# from the click to the first canvas that shows more than black, and to the last
CLICK = """() => new Promise((resolve) => {
  const start = performance.now(), times = new Map();
  document.querySelector("#exams button").click();
  const look = () => {
    const canvases = [...document.querySelectorAll("#panels canvas")];
    for (const canvas of canvases) {
      if (times.has(canvas) || !canvas.width) continue;
      const { data } = canvas.getContext("2d").getImageData(0, canvas.height >> 1, canvas.width, 1);
      if (data.some((value, n) => n % 4 < 3 && value > 40)) times.set(canvas, performance.now() - start);
    }
    if (canvases.length && canvases.every((canvas) => times.has(canvas))) resolve([...times.values()]);
    else setTimeout(look, 20);
  };
  look();
})"""


def main() -> None:
    """Print the times of each click, and the memory before and after."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--requests", type=int, default=200)
    chosen = parser.parse_args()
    command = [sys.executable, "-m", "mammodet", "view", str(chosen.predictions), "--images", str(chosen.images)]
    server = subprocess.Popen([*command, "--no-browser"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = next(found[0] for line in server.stdout if (found := re.search(r"http\S+", line)))
        print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        with sync_playwright() as library:
            browser = library.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(address)
            page.wait_for_selector("#panels canvas")
            for _ in range(chosen.repeats):
                times = sorted(page.evaluate(CLICK))
                print(f"first image {times[0] / 1000:.2f} s, all {len(times)} {times[-1] / 1000:.2f} s after the click")
            browser.close()
        parts = urlsplit(address)
        pixels = f"http://{parts.netloc}/api/studies/0/images/0/pixels?{parts.query}"
        before, start = _peak_mb(server.pid), time.perf_counter()
        with ThreadPoolExecutor(chosen.requests) as pool:
            sizes = list(pool.map(_read, [pixels] * chosen.requests))
        seconds = time.perf_counter() - start
        print(f"{len(sizes)} requests in parallel, {sizes[0] / 1e6:.1f} MB each: {seconds:.0f} s")
        print(f"server's largest memory: {before:.0f} MB before, {_peak_mb(server.pid):.0f} MB after")
    finally:
        server.terminate()


def _read(address: str) -> int:
    with urlopen(address, timeout=600) as answer:
        return sum(len(part) for part in iter(lambda: answer.read(2**20), b""))


def _peak_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


if __name__ == "__main__":
    main()
