"""Hostile messages beside an honest client: `python -m pytest -m slow tests/hostile -s` prints counts by outcome."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.hostile.attackers import Attack
from tests.infra.minicarla.served import ROOT, Served

SEED = 20261128
TIMES_SLOWER = 25.0
"""The attackers take the processor too, all from one machine."""
LONGEST_TICK_S = 5.0
MOST_MB = 400.0
"""Above what the server takes at the start: half messages, backlogs, threads."""


class Honest:
    """The honest client's process."""

    def __init__(self, port: int, ticks_alone: int) -> None:
        command = [sys.executable, str(Path(__file__).with_name("honest_client.py")), str(port), str(ticks_alone)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline().split()
        assert line[:1] == ["alone"], "the honest client ended before the attack"
        self.alone_ms = float(line[1])

    def figures(self) -> dict:
        """Stop it; what it saw beside the attack."""
        output, _ = self.process.communicate("stop\n", timeout=60)
        assert self.process.returncode == 0
        return json.loads(output)


class Memory:
    """The server's greatest memory while it is watched."""

    def __init__(self, served: Served) -> None:
        self.served, self.stopped = served, threading.Event()
        self.before = self.most = served.memory_mb()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self) -> None:
        while not self.stopped.wait(0.2):
            self.most = max(self.most, self.served.memory_mb())

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()


def attack(tmp_path: Path, messages: int, attackers: int, ticks_alone: int) -> None:
    """Send hostile messages beside an honest client and check everybody."""
    log = tmp_path / "server.log"
    served = Served(log)
    try:
        honest = Honest(served.port, ticks_alone)
        with Memory(served) as memory:
            begun = time.monotonic()
            hostile = Attack(served.port, SEED, attackers)
            hostile.run(messages)
            took = time.monotonic() - begun
            figures = honest.figures()
        for outcome, count in sorted(hostile.outcomes.items()):
            print(f"{count:7d} {outcome}")
        print(f"{sum(hostile.outcomes.values()):7d} messages in {took:.0f} s, {len(hostile.faults)} faults")
        print(f"honest client: {figures}, alone {honest.alone_ms:.2f} ms")
        print(f"server: {memory.before:.0f} MB before, {memory.most:.0f} at most, {served.memory_mb():.0f} after")
        assert served.process.poll() is None
        assert hostile.faults == []
        assert figures["wrong"] == []
        assert figures["ticks"] > 20
        assert figures["median_ms"] < TIMES_SLOWER * honest.alone_ms
        assert figures["longest_ms"] < 1e3 * LONGEST_TICK_S
        assert memory.most < memory.before + MOST_MB
        assert "Traceback" not in log.read_text()
    finally:
        served.stop()


def test_a_thousand_hostile_messages_disturb_nobody(tmp_path):
    attack(tmp_path, messages=1_000, attackers=4, ticks_alone=50)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_thousand_hostile_messages_disturb_nobody(tmp_path):
    attack(tmp_path, messages=50_000, attackers=8, ticks_alone=300)
