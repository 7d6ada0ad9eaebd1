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
KEPT = 0.95
"""Of the ticks per second that the honest client makes alone. In a short attack one late tick is much: KEPT_SHORTLY."""
KEPT_SHORTLY = 0.4
LONGEST_TICK_S = 1.0
"""Half of what CARLA's examples give a call."""
MOST_MB = 400.0
"""Above what the server takes at the start: half messages, backlogs, threads."""


class Honest:
    """The honest client's process."""

    def __init__(self, port: int, seconds_alone: float) -> None:
        command = [sys.executable, str(Path(__file__).with_name("honest_client.py")), str(port), str(seconds_alone)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the honest client ended before the attack"
        self.alone = json.loads(line)

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


def attack(tmp_path: Path, messages: int, attackers: int, seconds_alone: float, kept: float) -> None:
    """Send hostile messages beside an honest client and check everybody."""
    log = tmp_path / "server.log"
    served = Served(log)
    try:
        honest = Honest(served.port, seconds_alone)
        with Memory(served) as memory:
            begun = time.monotonic()
            hostile = Attack(served.port, SEED, attackers)
            hostile.run(messages)
            took = time.monotonic() - begun
            figures = honest.figures()
        for outcome, count in sorted(hostile.outcomes.items()):
            print(f"{count:7d} {outcome}")
        print(f"{sum(hostile.outcomes.values()):7d} messages in {took:.0f} s, {len(hostile.faults)} faults")
        print(f"honest client alone: {honest.alone}")
        print(f"honest client beside the attack: {figures}")
        print(f"server: {memory.before:.0f} MB before, {memory.most:.0f} at most, {served.memory_mb():.0f} after")
        assert served.process.poll() is None
        assert hostile.faults == []
        assert figures["wrong"] == []
        assert figures["per_second"] > kept * honest.alone["per_second"]
        assert figures["longest_ms"] < 1e3 * LONGEST_TICK_S
        assert memory.most < memory.before + MOST_MB
        assert "Traceback" not in log.read_text()
    finally:
        served.stop()


def test_a_thousand_hostile_messages_disturb_nobody(tmp_path):
    attack(tmp_path, messages=1_000, attackers=4, seconds_alone=1, kept=KEPT_SHORTLY)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_thousand_hostile_messages_disturb_nobody(tmp_path):
    attack(tmp_path, messages=50_000, attackers=8, seconds_alone=10, kept=KEPT)
