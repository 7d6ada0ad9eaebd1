"""Ends a flow run with the worker that started it: Prefect leaves it running when the worker is killed."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

import psutil

from infra.process_guard.supervisor import wait_readable

log = logging.getLogger(__name__)
GRACE_S = 3.0
"""Time that a flow run has after its worker's end, for its clean-up: `make down` sends SIGTERM to both. What the flow
run has started then ends within three more seconds."""


def is_worker(command: Sequence[str]) -> bool:
    """Tell whether a command line is a Prefect worker's: that of `make up`, or one started by hand."""
    started_by_hand = {"worker", "start"} <= {*command} and "prefect" in " ".join(command)
    return started_by_hand or "infra.stack.prefect_worker" in command


def worker_of(process: psutil.Process) -> psutil.Process | None:
    """Return the Prefect worker that a process descends from, None for one that was started by hand."""
    for ancestor in process.parents():
        with contextlib.suppress(psutil.AccessDenied, psutil.NoSuchProcess):
            if is_worker(ancestor.cmdline()):
                return ancestor
    return None


def end_with_worker(*hook: Any) -> None:
    """End this process when its worker ends. It is a flow's `on_running` hook and takes its arguments."""
    worker = worker_of(psutil.Process())
    if worker is None:
        return
    try:
        descriptor = os.pidfd_open(worker.pid)
    except ProcessLookupError:  # it ended just now
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Thread(target=end_after, args=(descriptor,), name="end with the worker", daemon=True).start()


def end_after(descriptor: int) -> None:
    """Wait for the end of the process with this pidfd, then end this process."""
    wait_readable([descriptor])
    try:
        with contextlib.suppress(SystemExit):  # raised by rich: the worker was the reader of our output
            log.error("The worker has ended, and this flow run with it: run the deployment again.")
        threading.Event().wait(GRACE_S)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)
