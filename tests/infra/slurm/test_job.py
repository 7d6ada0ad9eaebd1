"""The Slurm job with stand-ins for srun, scontrol and Python: what it starts, what it ends, and with which code."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import Family, family, until

ROOT = Path(__file__).resolve().parents[3]
STAND_INS = Path(__file__).parent
JOB = ROOT / "infra/slurm/shareverse.sbatch"
Submit = Callable[..., subprocess.Popen]


@pytest.fixture
def job_family() -> Iterator[Family]:
    with family() as started:
        yield started


@pytest.fixture
def submit(tmp_path, job_family) -> Submit:
    def start(flow: str, *arguments: str, **more: str) -> subprocess.Popen:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        environment = {name: value for name, value in job_family.environment.items() if not name.startswith("PREFECT")}
        environment |= {
            "PATH": f"{STAND_INS}:{os.environ['PATH']}", "SHAREVERSE_PYTHON": str(STAND_INS / "python"),
            "SHAREVERSE_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path), "LOG": str(tmp_path / "log"),
            "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1,n2,n3",
            "HEAD_ADDRESS": "127.0.0.1", "RAY_PORT": str(port), "FLOW": flow, **more,
        }  # fmt: skip
        command = ["bash", str(JOB), *arguments]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    return start


def lines(tmp_path: Path, kind: str) -> list[str]:
    """What the stand-ins logged of a kind."""
    log = tmp_path / "log"
    return sorted(line for line in log.read_text().splitlines() if line.startswith(kind)) if log.exists() else []


@pytest.mark.parametrize("code", [0, 3])
def test_the_job_starts_every_node_and_ends_with_the_flow(submit, tmp_path, job_family, code):
    job = submit(str(code), "collect-dataset/paper", "--param", "servers=fit", CARLA_PER_NODE="4")
    assert job.wait(60) == code
    address = next(word for word in lines(tmp_path, "flow")[0].split() if word.startswith("127.0.0.1:"))
    assert lines(tmp_path, "flow") == [f"flow {address} 0o100600 collect-dataset/paper --param servers=fit"]
    head, *workers = lines(tmp_path, "ray")
    assert head.startswith("ray n1 start --block --num-cpus=1 --head --node-ip-address=127.0.0.1")
    assert [line.split()[1] for line in workers] == ["n2", "n3"]
    assert all(f"--address={address}" in line for line in workers)
    assert head.endswith('--resources {"carla": 4}')
    assert not job_family.left()
    assert not list((tmp_path / "home/slurm").iterdir())  # the token is gone


def test_a_job_that_is_told_to_end_ends_its_flow_first_and_then_ray(submit, tmp_path, job_family):
    job = submit("waits", "collect-dataset/local")
    until(lambda: lines(tmp_path, "flow") and len(lines(tmp_path, "ray")) == 3)
    assert "carla" not in "".join(lines(tmp_path, "ray"))
    job.send_signal(signal.SIGTERM)
    assert job.wait(30) == 143
    ended = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("ended")]
    assert (ended[0], sorted(ended[1:])) == ("ended flow", ["ended n1", "ended n2", "ended n3"])
    assert not job_family.left()


@pytest.mark.parametrize(
    ("flow", "sentence"),
    [("no head", "Ray's head on n1 ended while starting."), ("loses its head", "Ray's head on n1 has ended")],
)
def test_a_head_that_ends_is_named_and_ends_the_job(submit, job_family, flow, sentence):
    job = submit(flow, "collect-dataset/local")
    assert job.wait(60) == 1
    assert job.stderr is not None
    assert sentence in job.stderr.read()
    assert not job_family.left()


def test_the_script_is_one_for_sbatch():
    head = JOB.read_text().split("\nset -uo")[0].splitlines()
    options = [line.split()[1] for line in head if line.startswith("#SBATCH")]
    assert head[0] == "#!/bin/bash"
    assert {"--no-kill", "--exclusive", "--signal=B:TERM@180", "--ntasks-per-node=1"} <= set(options)
