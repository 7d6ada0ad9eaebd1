"""What processes hold, on the machine and as nvidia-smi tells it."""

from __future__ import annotations

import os
import shutil
import subprocess
from types import SimpleNamespace

from infra.carla_servers import memory

PMON = """\
# gpu        pid  type    fb   command
# Idx          #   C/G    MB   name
    0       4711     G   6120   CarlaUE4-Linux-
    0       4712     C    300   python
    1       4713     G   7000   CarlaUE4-Linux-
    2          -     -      -   -
"""
WITH_CCPM = """\
# gpu         pid   type     fb   ccpm    command
# Idx           #    C/G     MB     MB    name
    0       4711     G   6120      0    CarlaUE4-Linux-
"""


def test_memory_of_what_is_alive():
    own = memory.memory_of([os.getpid()])
    assert 2**20 < own < 2**36
    assert memory.memory_of([2**22 + 1]) == 0


def test_video_memory_is_that_of_these_processes(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", lambda *given, **named: SimpleNamespace(stdout=PMON))
    assert memory.gpu_memory_of([4711, 4712, 1]) == 6420 * 2**20
    assert memory.gpu_memory_of([1]) is None
    assert memory.frame_buffers(WITH_CCPM) == [(4711, 6120)]


def test_video_memory_is_unknown_where_nvidia_smi_is_missing_or_hangs(monkeypatch, caplog):
    def hang(*given, **named):
        raise subprocess.TimeoutExpired("nvidia-smi", 30)

    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert memory.gpu_memory_of([1]) is None
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", hang)
    assert memory.gpu_memory_of([1]) is None
    assert "the video memory is unknown" in caplog.text
