"""The reading page: from the click on an exam to its first image, and the server's memory under parallel requests.

needs Playwright, Chromium and psutil; memory is read from Linux's /proc.

example:
  mammodet phantoms --archive rsna --patients 1 --size 3000 --output phantoms
  mammodet predict --input phantoms/test_images --output preds
  python benchmarks/reading_page.py preds --images phantoms/test_images
"""

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

import psutil
from measuring import arguments, peak_mb
from playwright.sync_api import sync_playwright

# from the click to the first canvas that shows more than black
CLICK = """() => new Promise((resolve) => {
  const start = performance.now();
  document.querySelectorAll("#exams button")[0].click();
  const look = () => {
    for (const canvas of document.querySelectorAll("#panels canvas")) {
      if (!canvas.width) continue;
      const { data } = canvas.getContext("2d").getImageData(0, canvas.height >> 1, canvas.width, 1);
      if (data.some((value, n) => n % 4 < 3 && value > 40)) return resolve((performance.now() - start) / 1000);
    }
    setTimeout(look, 20);
  };
  look();
})"""
# until every image is there with all its pixels
REST = """() => new Promise((resolve) => {
  const start = performance.now();
  const status = document.querySelector("#status");
  const look = () => status.textContent ? setTimeout(look, 20) : resolve((performance.now() - start) / 1000);
  look();
})"""


def main() -> None:
    """Print the times and CPU seconds of each click, and the memory before and after."""
    parser = arguments(__doc__)
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
            page.wait_for_selector("#panels canvas", timeout=600_000)
            page.evaluate(REST)
            for _ in range(chosen.repeats):
                used, seconds = [_cpu_seconds(server.pid)], 0.0
                for name, code in (("first image", CLICK), ("all whole", REST)):
                    seconds += page.evaluate(code)
                    used.append(_cpu_seconds(server.pid))
                    ours, theirs = (now - then for now, then in zip(used[-1], used[0], strict=True))
                    print(f"{name} {seconds:.2f} s after the click; CPU: server {ours:.2f} s, browser {theirs:.2f} s")
            browser.close()
        parts = urlsplit(address)
        pixels = f"http://{parts.netloc}/api/studies/0/images/0/pixels?{parts.query}"
        before, start = peak_mb(server.pid), time.perf_counter()
        with ThreadPoolExecutor(chosen.requests) as pool:
            sizes = list(pool.map(_read, [pixels] * chosen.requests))
        seconds = time.perf_counter() - start
        print(f"{len(sizes)} requests in parallel, {sizes[0] / 1e6:.1f} MB each: {seconds:.0f} s")
        print(f"server's largest memory: {before:.0f} MB before, {peak_mb(server.pid):.0f} MB after")
    finally:
        server.terminate()


def _read(address: str) -> int:
    with urlopen(address, timeout=600) as answer:
        return sum(len(part) for part in iter(lambda: answer.read(2**20), b""))


def _cpu_seconds(server: int) -> tuple[float, float]:
    """Of the server, and of the browser with all its processes."""
    processes = {one.pid: sum(one.cpu_times()[:2]) for one in psutil.Process().children(recursive=True)}
    return processes.pop(server), sum(processes.values())


if __name__ == "__main__":
    main()
