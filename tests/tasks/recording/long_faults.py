"""`python -m tests.tasks.recording.long_faults --recordings N --seconds-between-kills S`: records N short recordings
while something is killed every few seconds, and says whether the bytes are those of an undisturbed recording.

Victims: a server, its script, a recorder, Ray's raylet or head, the whole run, which is then started again. Ends with 0
when all bytes are equal and no process is left.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from infra.carla_servers import SimulatorSpec
from tasks.recording.ledger import read_ledger
from tests.processes import Family, family
from tests.tasks.recording.faults import (
    VICTIMS,
    copy_plan,
    kill,
    record_undisturbed,
    recordings,
    stand_in,
    start_recording,
)
from tests.tasks.recording.test_random_kills import SHORT

DAEMONS = {"raylet": "raylet/raylet", "head": "gcs_server"}
RUNS_PER_RECORDING = 3
"""Runs that may be needed, at most, for each recording: more say that nothing is ever finished."""


class Kills:
    """Kills somebody every few seconds, at random, until it is told to stop."""

    def __init__(self, ours: Family, seconds_between: float, seed: int) -> None:
        self.ours, self.mean_s, self.draw = ours, seconds_between, random.Random(seed)
        self.run: subprocess.Popen | None = None
        self.counts: Counter[str] = Counter()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.go_on)

    def go_on(self) -> None:
        while not self.over.wait(self.draw.expovariate(1 / self.mean_s)):
            victim = self.draw.choice((*VICTIMS, *DAEMONS, "run"))
            self.counts[victim] += self.strike(victim)

    def strike(self, victim: str) -> bool:
        """Kill a victim; tell whether it was there."""
        if victim == "run":
            self.run.kill()
            return True
        if victim in DAEMONS:
            found = [process for process, words in self.ours.commands() if words and DAEMONS[victim] in words[0]]
            for process in found:
                process.kill()
            return bool(found)
        return kill(self.ours, victim)


def record_disturbed(folder: Path, script: Path, ours: Family, kills: Kills, most_runs: int) -> int:
    """Start runs until one ends well; return how many it took."""
    for number in range(1, most_runs + 1):
        kills.run = start_recording(folder, ours, script)
        if number == 1:
            kills.thread.start()
        said = kills.run.stdout.read().splitlines()
        kills.run.stdout.close()
        if kills.run.wait() == 0 and "left=0" in said[-1] and "faults={}" in said[-1]:
            return number
    return most_runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=100)
    parser.add_argument("--seconds-between-kills", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, family() as ours:
        place = Path(temporary)
        undisturbed, began = place / "undisturbed", time.monotonic()
        record_undisturbed(undisturbed, SimulatorSpec(), **SHORT, recordings_per_town=given.recordings)
        alone_s, began = time.monotonic() - began, time.monotonic()
        folder, kills = (
            copy_plan(undisturbed, place / "disturbed"),
            Kills(ours, given.seconds_between_kills, given.seed),
        )
        try:
            runs = record_disturbed(folder, stand_in(place), ours, kills, RUNS_PER_RECORDING * given.recordings)
        finally:
            kills.over.set()
            kills.thread.join()
        disturbed_s, left = time.monotonic() - began, ours.left()
        states, events = read_ledger(folder)
        equal = recordings(folder) == recordings(undisturbed)
    print(f"{given.recordings} recordings, seed {given.seed}: {alone_s:.0f} s undisturbed, {disturbed_s:.0f} s with "
          f"{sum(kills.counts.values())} kills in {runs} runs.")  # fmt: skip
    print("Killed:", ", ".join(f"{count} {victim}" for victim, count in sorted(kills.counts.items()) if count))
    print("Ledger:", ", ".join(f"{count} {state}" for state, count in Counter(states.values()).items()) + ";",
          ", ".join(f"{count} {kind}" for kind, count in Counter(event.kind for event in events).items()))  # fmt: skip
    print("The bytes are equal." if equal else "THE BYTES DIFFER.")
    print(f"LEFT: {left}" if left else "No process is left.")
    return 0 if equal and not left else 1


if __name__ == "__main__":
    sys.exit(main())
