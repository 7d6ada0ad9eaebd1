"""The Slurm job with a real Ray on two hosts, which are network namespaces; only srun and scontrol are stand-ins."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.network_hosts import can_make_hosts, network_hosts
from tests.processes import family

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), can_make_hosts]
ROOT = Path(__file__).resolve().parents[3]
TAKEN_AWAY = ("PREFECT", "RAY_", "SHAREVERSE_", "SLURM_")


def test_a_data_set_recorded_by_a_job_equals_one_recorded_here(tiny, tmp_path):
    prefix = f"sv{os.getpid()}-"
    with network_hosts(prefix, 2) as hosts, family() as started:
        environment = {name: value for name, value in started.environment.items() if not name.startswith(TAKEN_AWAY)}
        environment |= {
            "PATH": f"{Path(__file__).parent}:{os.environ['PATH']}", "SHAREVERSE_PYTHON": sys.executable,
            "SHAREVERSE_HOME": str(tmp_path / "home"), "NAMESPACES": prefix, "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": ",".join(hosts),
        }  # fmt: skip
        command = ["ip", "netns", "exec", prefix + hosts[0], "bash", str(ROOT / "infra/slurm/shareverse.sbatch")]
        command += ["collect-dataset/local", "--param", "dataset=tiny", "--param", "plan_preset=tiny"]
        command += ["--param", "servers=2"]  # of one CPU each, which is what a host has: both hosts record
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not started.left()
    outcome = json.loads(done.stdout[re.search(r"^\{$", done.stdout, re.MULTILINE).start() :])
    assert outcome["digest"] == tiny.sharding.digest
    assert outcome["failed"] == []
    assert not list((tmp_path / "home/slurm").iterdir())
