"""A process for one long job on a map: `python -m infra.minicarla.towns.worker`. TownJob starts it.

It reads one line of JSON, {"job": name, ...}, and answers with a line of JSON, a scenery's arrays behind it. It ends
when its input does: with the process that started it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import resource
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from .errors import TownError
from .job import town_from_values, write_scenery

MEMORY_BYTES = 4 << 30
CPU_S = 300

log = logging.getLogger(__name__)


def main() -> None:
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what carla prints is no answer
    limit(resource.RLIMIT_AS, MEMORY_BYTES)
    limit(resource.RLIMIT_CPU, CPU_S)
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_input, daemon=True).start()
    try:
        JOBS[request.pop("job")](answer, **request)
    except TownError as error:
        reply(answer, error=str(error))
    except MemoryError:
        reply(answer, error=f"it needs more than {MEMORY_BYTES >> 30} GiB of memory; give a smaller map")
    except Exception as error:
        log.exception("unforeseen")
        reply(answer, error=f"{type(error).__name__}: {error}; repair the file")
    answer.flush()
    os._exit(0)  # the other thread still reads


def end_with_input() -> None:
    """End this process when its input ends: nobody waits for its work then."""
    while os.read(0, 4096):
        continue
    os._exit(1)


def limit(kind: int, most: int) -> None:
    """Limit the resources that bad text can use."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def reply(answer: BinaryIO, **values: Any) -> None:
    answer.write(json.dumps(values).encode() + b"\n")
    answer.flush()


def load(answer: BinaryIO, name: str, text: str) -> None:
    """Answer with the town of a map that the real client can use."""
    from .catalogue import town_from_opendrive
    from .validation import map_report

    town = town_from_opendrive(name, text)
    map_report(town.opendrive)
    reply(answer, **dataclasses.asdict(town))


def report(answer: BinaryIO, texts: list[str]) -> None:
    """Answer with one line per text: what the real client sees in it."""
    from .validation import map_report

    for text in texts:
        reply(answer, **dataclasses.asdict(map_report(text)))


def build(answer: BinaryIO, **town: Any) -> None:
    """Build a town's scenery."""
    from .build import build_scenery

    write_scenery(answer, build_scenery(town_from_values(town)))


JOBS: dict[str, Callable[..., None]] = {"load": load, "report": report, "build": build}

if __name__ == "__main__":
    main()
