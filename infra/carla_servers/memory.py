"""How much memory processes hold, on their machine and on its GPUs."""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
from collections.abc import Collection

import psutil

log = logging.getLogger(__name__)
NVIDIA_SMI_TIMEOUT_S = 30.0


def memory_of(pids: Collection[int]) -> int:
    """Return the bytes of memory that processes hold together; those that have ended hold none."""
    held = 0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            held += psutil.Process(pid).memory_info().rss
    return held


def gpu_memory_of(pids: Collection[int]) -> int | None:
    """Return the bytes of video memory that processes hold together, graphics and computing.

    None where it cannot be known: without nvidia-smi, when it does not answer, or when the driver reports none of these
    pids, as in a container.
    """
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "pmon", "-c", "1", "-s", "m"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S).stdout
    except subprocess.TimeoutExpired:
        log.warning("nvidia-smi did not answer in %g s: the video memory is unknown.", NVIDIA_SMI_TIMEOUT_S)
        return None
    held = [mib * 2**20 for pid, mib in frame_buffers(output) if pid in pids]
    return sum(held) if held else None


def frame_buffers(output: str) -> list[tuple[int, int]]:
    """Return (pid, MiB of video memory) of each line of `nvidia-smi pmon -s m`: gpu, pid, type, fb, ..., command."""
    rows = [line.split() for line in output.splitlines() if not line.startswith("#")]
    return [(int(row[1]), int(row[3])) for row in rows if len(row) > 4 and row[1].isdigit() and row[3].isdigit()]
