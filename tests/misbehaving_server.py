"""The embedded server with CARLA's bad habits: `python -m tests.misbehaving_server FOLDER -carla-rpc-port=N ...`.

FOLDER/faults lists one fault per line; each launch takes the next that no earlier one took, and behaves when none is
left. `FAULT TICKS`: what happens, and after how many ticks (where that means anything).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from infra.carla_servers import SimulatorSpec


@dataclass(frozen=True)
class Misbehaving(SimulatorSpec):
    """Launches this file in place of the embedded server."""

    folder: str = ""

    def command(self, port: int, gpu: int | None) -> list[str]:
        _, _, _, *options = super().command(port, gpu)
        return [sys.executable, "-m", "tests.misbehaving_server", self.folder, *options]


def next_fault(folder: Path) -> tuple[str, int]:
    """Take the next fault; files of that name, made by one process alone, say which are taken."""
    for number, line in enumerate((folder / "faults").read_text().splitlines()):
        with contextlib.suppress(FileExistsError), open(folder / f"taken-{number}", "x") as taken:
            name, ticks = line.split()
            taken.write(f"{os.getpid()} {line}")
            return name, int(ticks)
    return "none", 0


def misbehave(fault: str, after: int) -> None:
    """Change the server's classes so that the fault happens."""
    from infra.minicarla.protocol.streams import StreamServer
    from infra.minicarla.world.episode import World

    if fault == "silent_exit":
        os._exit(0)
    if fault == "never_ready":
        threading.Event().wait()
    tick, begin, publish, ticks = World.tick, World.begin_episode, StreamServer.publish, iter(range(10**9))

    def bad_tick(self, *given, **named):
        if next(ticks) == after:
            if fault == "crash_tick":
                os._exit(139)
            if fault == "hang_tick":
                threading.Event().wait()
        return tick(self, *given, **named)

    def bad_publish(self, stream, *given, **named):
        large = sum(len(part) for part in given[0]) > 4000  # an image, no world snapshot
        if large and fault in ("drop_image", "late_image") and next(ticks) == after:
            if fault == "drop_image":
                return None
            time.sleep(2.0)
        return publish(self, stream, *given, **named)

    def bad_begin(self, *given, **named):
        if fault == "crash_load":
            os._exit(139)
        return begin(self, *given, **named)

    if fault in ("crash_tick", "hang_tick"):
        World.tick = bad_tick
    StreamServer.publish = bad_publish
    World.begin_episode = bad_begin


if __name__ == "__main__":
    misbehave(*next_fault(Path(sys.argv.pop(1))))
    from infra.minicarla.__main__ import main

    code = main()
    sys.stdout.flush()
    os._exit(code)
