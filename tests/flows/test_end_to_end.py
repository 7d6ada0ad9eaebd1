"""The whole line as a user runs it: services, both deployments by their bare names, again, changed, killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import psutil
import pytest

from infra.storage import sha256_file

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
TRAIN = ("train-shareverse", "-p", "dataset=tiny", "-p", "preset=tiny")
COLLECT = ("collect-dataset", "-p", "dataset=tiny", "-p", "plan_preset=tiny")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class House:
    """A copy of the repository with services of its own, as in a second clone."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "var"
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
        for name in filter(None, tracked.decode().split("\0")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        dropped = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_HOME", "MLFLOW_TRACKING_URI")
        self.environment = {name: value for name, value in os.environ.items() if name not in dropped}
        self.environment |= {"SHAREVERSE_HOME": str(self.state), "PATH": f"{BIN}:{os.environ['PATH']}"}

    def call(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)

    def stack(self, command: str) -> list[str]:
        done = self.call(sys.executable, "-m", "infra.stack", command)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        """`prefect deployment run` with a bare name, watched to its end."""
        return self.call("prefect", "deployment", "run", *arguments, "--watch")

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            ["prefect", "deployment", "run", *arguments, "--watch"],
            cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def shards(self, dataset: str = "tiny") -> dict[str, str]:
        folder = self.state / "datasets" / dataset
        return {str(path.relative_to(folder)): sha256_file(path) for path in sorted((folder / "shards").rglob("*.tar"))}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    house = House(tmp_path_factory.mktemp("clone"))
    pids = [int(line.split()[3]) for line in house.stack("up")]
    yield house
    house.stack("down")
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_collect_then_train_then_nothing_to_do(house):
    collected = house.run(*COLLECT)
    assert collected.returncode == 0, collected.stdout + collected.stderr
    shards = house.shards()
    assert len(shards) == 2
    trained = house.run(*TRAIN)
    assert trained.returncode == 0, trained.stdout + trained.stderr

    address = next(line.split()[2] for line in house.stack("status") if line.startswith("mlflow"))
    client = mlflow.MlflowClient(address)
    experiment = client.get_experiment_by_name("shareverse").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    assert {"eval/psnr", "eval/psnr_1_step", "eval/ssim", "eval/temporal_flickering"} <= set(run.data.metrics)
    for baseline in ("copy_first_frame", "blurred_first_frame", "codec"):
        assert f"eval/{baseline}/psnr" in run.data.metrics
    assert "eval/lpips" in run.data.metrics or "missing.lpips" in run.data.tags
    assert run.data.tags["prefect.flow_run_id"]
    assert run.data.params["sampling_steps"] == "2"
    digest = json.loads((house.state / "datasets" / "tiny" / "dataset.json").read_text())["digest"]
    assert run.inputs.dataset_inputs[0].dataset.digest == digest[:36]

    weights = sorted((house.state / "runs").rglob("*.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in weights}
    assert house.run(*COLLECT).returncode == 0
    assert house.run(*TRAIN).returncode == 0
    assert house.shards() == shards
    assert before == {path: path.stat().st_mtime_ns for path in sorted((house.state / "runs").rglob("*.safetensors"))}
    assert len(client.search_runs([experiment])) == 1

    assert house.run(*TRAIN, "-p", "seed=1").returncode == 0
    assert len(client.search_runs([experiment])) == 2


def test_bad_parameters_end_with_an_error(house):
    assert house.run("collect-dataset", "-p", "plan_preset=nowhere", "-p", "dataset=other").returncode != 0
    assert house.run("collect-dataset", "-p", 'weathers=["hail"]').returncode != 0
    assert house.run("train-shareverse", "-p", "dataset=nothing").returncode != 0


def flow_process(house: House) -> psutil.Process | None:
    """The engine process that runs a flow of this clone: a descendant of its worker."""
    worker = next(line for line in house.stack("status") if line.startswith("worker"))
    for process in psutil.Process(int(worker.split()[3])).children(recursive=True):
        if "prefect.engine" in " ".join(process.cmdline()) or "prefect.flow_engine" in " ".join(process.cmdline()):
            return process
    return None


def test_killed_while_recording_then_run_again_gives_the_same_bytes(house):
    wanted = house.shards()
    assert wanted, "the first test records"
    watching = house.start("collect-dataset", "-p", "dataset=again", "-p", "plan_preset=tiny")
    recordings = house.state / "datasets" / "again" / "recordings"
    deadline = time.monotonic() + 240
    while not (recordings.is_dir() and any(recordings.iterdir())):
        assert time.monotonic() < deadline
        assert watching.poll() is None
        time.sleep(0.1)  # polls a folder of another process
    flow = flow_process(house)
    assert flow is not None
    os.kill(flow.pid, signal.SIGKILL)
    watching.wait(240)
    again = house.run("collect-dataset", "-p", "dataset=again", "-p", "plan_preset=tiny")
    assert again.returncode == 0, again.stdout + again.stderr
    assert house.shards("again") == wanted
