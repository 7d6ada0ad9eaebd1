"""Runs commands that leave no process behind: everything they start ends with them, with their owner or on request."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from infra.process_guard import supervisor

log = logging.getLogger(__name__)
GUARD_VARIABLE = "SHAREVERSE_GUARD"
"""Environment variable of everything that a guarded command starts; its value names the guard."""
GRACE_S = 3.0
"""Time between SIGTERM and SIGKILL."""
KILL_TIMEOUT_S = 5.0
"""Time after SIGKILL in which everything that can be killed has ended."""


class GuardedProcess:
    """A command that runs with all its descendants under a supervisor, which ends them together (see supervisor.py).

    They end within seconds when this process ends, however it ends; when the command does; and on `stop`. Its exit is
    known only when nothing of it is left: `poll() is not None` means that all its processes are gone.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        output: int | IO[bytes] = subprocess.PIPE,
        grace_s: float = GRACE_S,
    ) -> None:
        """Start it; `output` takes stdout and stderr, a pipe by default. OSError when it cannot be executed."""
        self.command, self.grace_s = list(command), grace_s
        self.mark = uuid.uuid4().hex
        self.returncode: int | None = None
        """The command's exit code, minus the signal's number if one ended it; None while anything of it is alive."""
        self.ended = threading.Event()
        environment = {**(os.environ if env is None else env), GUARD_VARIABLE: self.mark}
        status = self.supervise(environment, cwd, output)
        self.pid, self.supervisor = self.read_start(status)
        threading.Thread(target=self.watch, args=(status,), name=f"guard of {self.pid}", daemon=True).start()

    def supervise(self, environment: Mapping[str, str], cwd: Path | None, output: int | IO[bytes]) -> IO[bytes]:
        """Start the supervisor; return the pipe that it reports to."""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            owner = os.pidfd_open(os.getpid())
            theirs.callback(os.close, owner)
            lifeline, self.lifeline = open_pipe(theirs, ours)
            status, told = open_pipe(ours, theirs)
            passed = [owner, lifeline.fileno(), told.fileno()]
            starter = subprocess.Popen(
                [sys.executable, "-I", "-S", supervisor.__file__, *map(str, passed), str(self.grace_s),
                 *self.command],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, pass_fds=passed,
                env=environment, cwd=cwd, start_new_session=True,
            )  # fmt: skip
            starter.wait()  # it leaves the supervisor detached
            self.output: IO[bytes] | None = starter.stdout
            ours.pop_all()
            return status

    def read_start(self, status: IO[bytes]) -> tuple[int, int]:
        """Read the supervisor's first report; return the pids of the command and of the supervisor.

        OSError when the command could not be started.
        """
        word, *numbers = (status.readline() or b"failed 0").split()
        if word == b"started":
            return int(numbers[0]), int(numbers[1])
        number = int(numbers[0])
        status.close()
        self.lifeline.close()
        if self.output:
            self.output.close()
        raise OSError(number, os.strerror(number) if number else "its supervisor did not start", self.command[0])

    def watch(self, status: IO[bytes]) -> None:
        """Wait for the supervisor's report; end the rest when it was killed and cannot."""
        with status:
            report = status.readline().split()
            status.read()  # its end: the supervisor has gone as well
        if report:
            self.returncode = int(report[1])
        else:
            log.warning("The supervisor of %s was killed: ending what it watched over.", self.command[0])
            kill_marked(self.mark)
            self.returncode = -signal.SIGKILL
        self.ended.set()

    def poll(self) -> int | None:
        """Return the command's exit code; None while anything of it is alive."""
        return self.returncode if self.ended.is_set() else None

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait up to `seconds` (None: without limit) for the end of everything; return what `poll` does."""
        self.ended.wait(seconds)
        return self.poll()

    def request_stop(self) -> None:
        """Ask for the end of everything without waiting for it."""
        with contextlib.suppress(BrokenPipeError, ValueError):  # the supervisor has ended, or it was asked before
            self.lifeline.write(b".")
        self.lifeline.close()

    def stop(self) -> None:
        """End everything that the command started: SIGTERM, after `grace_s` SIGKILL. May be called again."""
        self.request_stop()
        # without an end: the supervisor was stopped, or something cannot even be killed
        if self.wait(self.grace_s + KILL_TIMEOUT_S) is None:
            kill_marked(self.mark)
            if self.wait(1.0) is None:
                log.error("%s cannot be ended: processes %s.", self.command[0], marked_pids(self.mark))

    def tree(self) -> list[int]:
        """Return the pids of the command and all its descendants."""
        return supervisor.descendants(self.supervisor)

    def __enter__(self) -> GuardedProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def open_pipe(readers: contextlib.ExitStack, writers: contextlib.ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    """Return both ends of a pipe, unbuffered; each is closed with its stack."""
    reading, writing = os.pipe()
    return readers.enter_context(open(reading, "rb", 0)), writers.enter_context(open(writing, "wb", 0))


def marked_pids(mark: str) -> list[int]:
    """Return the pids of the processes that the guard with this mark started, as far as this user can see them."""
    entry, pids = f"{GUARD_VARIABLE}={mark}".encode(), []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if entry in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                pids.append(int(name))
    return pids


def kill_marked(mark: str, timeout_s: float = KILL_TIMEOUT_S) -> None:
    """Kill what the guard with this mark started, until nothing is left or the time is over."""
    deadline = time.monotonic() + timeout_s
    while (left := marked_pids(mark)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended just now, or became another user
                descriptor = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    supervisor.wait_readable([descriptor], 1.0)
                finally:
                    os.close(descriptor)
