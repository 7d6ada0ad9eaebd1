"""Runs long work on maps in a process of its own: bad text cannot crash the server, whose threads stay responsive."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from ..scenery import Scenery, Town
from .errors import TownError

ROOT = Path(__file__).resolve().parents[3]
LIMIT_S = 300.0
Result = TypeVar("Result")


class TownJob:
    """One run of worker.py. `run` works once; `cancel` may be called from another thread at any time."""

    def __init__(self, job: str, **values: Any) -> None:
        self.request = {"job": job, **values}
        self.lock = threading.Lock()
        self.cancelled = self.timed_out = False
        self.process: subprocess.Popen[bytes] | None = None

    def cancel(self) -> None:
        """End the job; `run` raises TownError."""
        with self.lock:
            self.cancelled = True
            if self.process is not None:
                self.process.kill()

    def run(self, read: Callable[[IO[bytes]], Result], limit_s: float = LIMIT_S) -> Result:
        """Return what `read` returns for the answer. TownError for a refusal, or a process that ended early."""
        with tempfile.TemporaryFile() as errors:
            process = self.start(errors)
            assert process.stdin is not None
            assert process.stdout is not None
            timer = threading.Timer(limit_s, self.expire)
            timer.start()
            try:
                process.stdin.write(json.dumps(self.request).encode() + b"\n")
                process.stdin.flush()  # and stays open: the process ends when it is closed
                return read(process.stdout)
            except (OSError, EOFError) as error:  # the answer broke off
                raise TownError(self.failure(process.wait(), errors, limit_s)) from error
            finally:
                timer.cancel()
                process.kill()
                process.wait()
                process.stdout.close()
                with suppress(BrokenPipeError):  # of a request that was not read to its end
                    process.stdin.close()

    def start(self, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
        with self.lock:
            if self.cancelled:
                raise TownError("it was given up")
            self.process = subprocess.Popen(
                [sys.executable, "-m", "infra.minicarla.towns.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment,
            )  # fmt: skip
            return self.process

    def expire(self) -> None:
        self.timed_out = True
        assert self.process is not None
        self.process.kill()

    def failure(self, code: int, errors: IO[bytes], limit_s: float) -> str:
        """Return why there is no answer."""
        if self.cancelled:
            return "it was given up"
        if self.timed_out:
            return f"it took longer than {limit_s:g} s"
        errors.seek(0)
        last = errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        return f"the process that read it ended with code {code} ({last[0]})"


def read_line(answer: IO[bytes]) -> dict[str, Any]:
    """Return a line of the answer, parsed. TownError when it is a refusal, EOFError at the end."""
    line = answer.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    values = json.loads(line)
    if "error" in values:
        raise TownError(values["error"])
    return values


def town_from_values(values: dict[str, Any]) -> Town:
    """Return the Town that `dataclasses.asdict` and JSON turned into these values."""
    return Town(**values | {"spawn_points": tuple(tuple(pose) for pose in values["spawn_points"])})


def write_scenery(answer: IO[bytes], scenery: Scenery) -> None:
    """Write a line with the numbers and the arrays' types and shapes, then the arrays' bytes."""
    line: dict[str, Any] = {}
    arrays = []
    for field in dataclasses.fields(Scenery):
        value = getattr(scenery, field.name)
        if isinstance(value, np.ndarray):
            arrays.append(np.ascontiguousarray(value))
            line[field.name] = {"type": value.dtype.str, "shape": value.shape}
        else:
            line[field.name] = value
    answer.write(json.dumps(line).encode() + b"\n")
    for array in arrays:
        answer.write(array.reshape(-1).view(np.uint8).data)


def read_scenery(answer: IO[bytes]) -> Scenery:
    """Read what `write_scenery` wrote."""
    values = read_line(answer)
    for name, value in values.items():
        if isinstance(value, dict):
            values[name] = np.empty(value["shape"], value["type"])
            unread = values[name].reshape(-1).view(np.uint8).data
            while unread:
                count = answer.readinto(unread)  # type: ignore[attr-defined]
                if not count:
                    raise EOFError
                unread = unread[count:]
    return Scenery(**values | {"origin_xy": tuple(values["origin_xy"])})


def load_checked(name: str, text: str) -> Town:
    """A map's text as a town, once the real client has read it. TownError for a text that is no usable map."""
    try:
        return TownJob("load", name=name, text=text).run(lambda answer: town_from_values(read_line(answer)))
    except TownError as error:
        raise TownError(f"the map {name} cannot be a town: {error}") from error


class SceneryJob(TownJob):
    """Builds a town's scenery."""

    def __init__(self, town: Town) -> None:
        super().__init__("build", **dataclasses.asdict(town))

    def scenery(self) -> Scenery:
        """Wait for the scenery. TownError when it cannot be built, or after `cancel`."""
        return self.run(read_scenery)
