"""`python docs/site/film_play.py [MODEL]`: film `shareverse play` in headless Chromium; write docs/images/play.webp.

MODEL: a run's id or an exported folder (default: the run opened last). The keys that are pressed are in DRIVE.
"""

from __future__ import annotations

import io
import itertools
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from tests.tasks.evaluation.browser import Browser  # noqa: E402

TARGET = ROOT / "docs" / "images" / "play.webp"
SCENE, SECONDS, PICTURE_S, READY_S = "1-crossing", 12.0, 0.2, 600.0
WINDOW, WIDTH, QUALITY, MOST_BYTES = (1280, 860), 800, 60, 3_000_000
DRIVE = (
    (1.0, "KeyW", True), (2.0, "ArrowUp", True), (3.5, "KeyD", True), (5.0, "KeyD", False), (6.0, "ArrowLeft", True),
    (7.0, "ArrowLeft", False), (9.0, "KeyS", True),
)  # fmt: skip
"""Seconds after the start, key, and whether it is pressed or let go."""


def film(page: Browser) -> list[tuple[float, Image.Image]]:
    """Drive for SECONDS; return pictures of the page with their times in seconds."""
    pictures, todo, began = [], list(DRIVE), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        while (now := time.monotonic() - began) < SECONDS:
            while todo and todo[0][0] <= now:
                _, key, down = todo.pop(0)
                page.key(key, down=down)
            page.screenshot(shot)
            pictures.append((now, Image.open(io.BytesIO(shot.read_bytes())).convert("RGB")))
            time.sleep(max(0.0, PICTURE_S - (time.monotonic() - began - now)))
    return pictures


def write(pictures: list[tuple[float, Image.Image]]) -> None:
    """Write the animation at its own pace. SystemExit when it is too large for a README."""
    height = round(WIDTH * WINDOW[1] / WINDOW[0])
    frames = [picture.resize((WIDTH, height), Image.Resampling.LANCZOS) for _, picture in pictures]
    times = [when for when, _ in pictures] + [SECONDS]
    durations = [round(1000 * (after - before)) for before, after in itertools.pairwise(times)]
    frames[0].save(
        TARGET, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=QUALITY, method=4
    )
    size = TARGET.stat().st_size
    print(f"{TARGET.relative_to(ROOT)}: {len(frames)} pictures, {size / 1e6:.2f} MB")
    if size > MOST_BYTES:
        raise SystemExit("this is too large for a README: lower QUALITY, WIDTH or SECONDS.")


def main() -> None:
    command = [sys.executable, "-m", "flows.cli", "play", *sys.argv[1:2], "--no-browser", "--scene", SCENE]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        if found is None:
            raise SystemExit(server.wait())
        with Browser() as page:
            page.visit(found.group(), WINDOW[0], height=WINDOW[1])
            page.js("document.getElementById('truth').click()")
            deadline = time.monotonic() + READY_S  # the renderer may have to be compiled
            while not page.js("window.shareverse?.truths > 2"):
                if time.monotonic() > deadline:
                    raise SystemExit(f"the simulator showed nothing for {READY_S:.0f} s: run it again.")
                time.sleep(0.2)
            page.js("document.getElementById('restart').click()")
            write(film(page))
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


if __name__ == "__main__":
    main()
