"""Two pages drive the two cars of a real server, in a real browser, with the embedded simulator beside them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from model.presets import Preset
from tasks.play.truth import NICENESS
from tests.tasks.evaluation.browser import Browser, program
from tests.tasks.play.random_model import write_random_model

ROOT = Path(__file__).resolve().parents[3]
SIMULATOR_S = 400
"""The renderer may have to be compiled first."""
ERRORS = ("error", "assert")
OVERLAPS = """(() => {
  const names = 'header > *, nav > *, .top > *, .worlds canvas, .figures, .pad > *, #map, #notes > *';
  const parts = [...document.querySelectorAll(names)].filter((part) => part.getClientRects().length);
  const inside = (a, b) => a.contains(b) || b.contains(a);
  const found = [];
  for (const a of parts) for (const b of parts) {
    if (a === b || inside(a, b)) continue;
    const p = a.getBoundingClientRect(), q = b.getBoundingClientRect();
    const across = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    if (across > 1 && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 1)
      found.push(`${a.tagName}#${a.id}.${a.className} over ${b.tagName}#${b.id}.${b.className}`);
  }
  return found;
})()"""
FRONT = "document.querySelector('.car .generated .front').toDataURL()"
MAP = "document.querySelector('#map canvas').toDataURL()"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[str, subprocess.Popen]]:
    """A server with a random model, and the address that it printed."""
    folder = write_random_model(tmp_path / "model", Preset.load("tiny").replace(height=64, width=96))
    environment = os.environ | {"SHAREVERSE_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "flows.cli", "play", str(folder), "--no-browser", "--scene", "3-following"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)
    assert found, line
    yield found.group(), process
    if process.poll() is None:
        process.kill()
        process.wait()


def wait(page: Browser, condition: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not page.js(condition):
        assert time.monotonic() < deadline, f"the page never came to {condition}"
        time.sleep(0.1)


def faults(page: Browser) -> list[dict]:
    """What a page logged as an error."""
    return [
        entry
        for entry in page.logged()
        if entry.get("type") in ERRORS or "entry" in entry or "exceptionDetails" in entry
    ]


def simulators_of(home: Path) -> list[psutil.Process]:
    """Return the embedded servers that a state folder's processes have started."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "infra.minicarla" in (process.info["cmdline"] or ()):
            with contextlib.suppress(psutil.Error):
                found += [process] if process.environ().get("SHAREVERSE_HOME") == str(home) else []
    return found


@pytest.mark.skipif(program() is None, reason="there is no Chromium")
def test_two_pages_drive_two_cars(served, tmp_path):
    address, process = served
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(address.split("?")[0])
    assert refused.value.code == 403
    assert refused.value.read().decode().startswith("This page needs the token")

    with Browser() as first:
        first.visit(address, 1280)
        wait(first, "window.shareverse?.frames > 3")
        before = first.js(f"[{FRONT}, {MAP}, shareverse.lastFrame.cars.map((car) => car.x)]")
        with Browser() as second:
            second.visit(f"{address}&seat=1", 390, height=844)
            wait(second, "window.shareverse?.frames > 3")
            first.key("KeyW", down=True)
            second.key("ArrowUp", down=True)
            second.key("KeyD", down=True)
            for page in (first, second):
                wait(page, "shareverse.lastFrame.cars.every((car) => car.driven && car.answers > 0)")
                assert page.js("shareverse.state.seats") == [True, True]
            wait(first, "document.getElementById('latency').textContent.endsWith(' s')")
            after = first.js(f"[{FRONT}, {MAP}, shareverse.lastFrame.cars.map((car) => car.x)]")
            assert all(a != b for a, b in zip(before, after, strict=True))

            first.key("ArrowUp", down=True)
            wait(first, "document.querySelector('#notices .bad')?.textContent.startsWith('Car 1 has a driver already')")
            first.key("ArrowUp", down=False)
            assert second.js("document.documentElement.scrollWidth") <= 390
            assert second.js(OVERLAPS) == []
            second.screenshot(tmp_path / "390.png", whole=True)
            assert faults(second) == []
        wait(first, "!shareverse.state.seats[1]")  # its page is closed

        first.key("KeyW", down=False)
        first.js("document.querySelector('.car[data-seat=\"0\"] .seat').click()")
        wait(first, "!shareverse.state.seats[0]")
        first.js("document.getElementById('restart').click()")  # the cars are near each other again
        first.js("document.getElementById('truth').click()")
        wait(first, "shareverse.truths > 2", SIMULATOR_S)
        wait(first, "document.querySelector('.car .figures').textContent.includes(' dB')")
        wait(
            first,
            "[...document.querySelectorAll('.figures')].some((part) => !part.textContent.includes('not in sight'))",
        )
        for width in (1280, 390):
            first.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
            count = first.js("shareverse.frames")
            wait(first, f"shareverse.frames > {count + 1}")
            assert first.js("document.documentElement.scrollWidth") <= width
            assert first.js(OVERLAPS) == []
            first.screenshot(tmp_path / f"truth-{width}.png", whole=True)

        first.js("document.getElementById('record').click()")
        wait(first, "shareverse.state.recording")
        count = first.js("shareverse.frames")
        wait(first, f"shareverse.frames > {count + 12}")
        first.js("document.getElementById('record').click()")
        wait(first, "document.querySelector('#notices li')?.textContent.includes('frames are saved in')")
        first.js("document.getElementById('restart').click()")
        wait(first, "shareverse.lastFrame.start === 3")
        assert faults(first) == []

    simulators = simulators_of(tmp_path / "home")
    assert simulators
    assert {simulator.nice() for simulator in simulators} == {NICENESS}
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert psutil.wait_procs(simulators, 20)[1] == []
    (take,) = (tmp_path / "home" / "play" / "takes").iterdir()
    assert (take / "t.json").is_file()
