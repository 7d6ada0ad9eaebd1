"""What is killed comes back with the next `up`, and what lives is left alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra.storage import sha256_file

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Clone:
    """A copy of the repository, as another user would have it: no settings but those that its `.env` holds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "var"
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
        for name in filter(None, tracked.decode().split("\0")):
            if (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        ours = ("PREFECT_", "MLFLOW_", "RAY_", "PYTHONPATH")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environment |= {"PATH": f"{BIN}:{os.environ['PATH']}", "SHAREVERSE_HOME": str(self.state)}

    def start(self, *command: str) -> subprocess.Popen:
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def stack(self, command: str = "up") -> dict[str, list[str]]:
        """Run a command of the stack; return each service's state, address and pid."""
        process = self.start(sys.executable, "-m", "infra.stack", command)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        return {line.split()[0]: line.split()[1:] for line in output.splitlines() if " http://127.0.0.1:" in line}

    def collect(self, dataset: str) -> subprocess.Popen:
        parameters = ("-p", f"dataset={dataset}", "-p", "plan_preset=tiny")
        return self.start("prefect", "deployment", "run", "collect-dataset", *parameters, "--watch")

    def shards(self, dataset: str) -> list[str]:
        return [sha256_file(path) for path in sorted((self.state / "datasets" / dataset).rglob("*.tar"))]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    clone = Clone(tmp_path_factory.mktemp("clone"))
    yield clone
    clone.stack("down")


def kill(service: list[str]) -> None:
    os.kill(int(service[2]), signal.SIGKILL)


def test_two_ups_at_once_start_one_stack(clone):
    both = [clone.start(sys.executable, "-m", "infra.stack", "up") for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len({tuple(line for line in output.splitlines() if "127.0.0.1" in line) for output in outputs}) == 1


def test_up_killed_half_way_and_without_its_record(clone):
    before = clone.stack("status")
    (clone.state / "services" / "services.json").unlink()
    assert clone.stack() == before
    clone.stack("down")
    process = clone.start(sys.executable, "-m", "infra.stack", "up")
    deadline = time.monotonic() + 60
    while "prefect running" not in clone.start(sys.executable, "-m", "infra.stack", "status").communicate()[0]:
        assert time.monotonic() < deadline
    process.kill()
    process.communicate()
    started = clone.stack("status")
    after = clone.stack()
    assert after["prefect"] == started["prefect"]
    assert {state for state, *_ in after.values()} == {"running"}


def test_servers_killed_under_a_flow_come_back_and_the_flow_ends_well(clone):
    before = clone.stack("status")
    watching = clone.collect("first")
    recordings = clone.state / "datasets" / "first"
    deadline = time.monotonic() + 300
    while not recordings.is_dir():
        assert watching.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)  # polls a folder of another process
    kill(before["mlflow"])
    kill(before["prefect"])
    after = clone.stack()
    assert after["worker"] == before["worker"]
    for name in ("prefect", "mlflow"):
        assert after[name][:2] == before[name][:2]
        assert after[name][2] != before[name][2]
    watching.communicate()
    assert clone.collect("second").wait() == 0
    assert clone.shards("second")
    assert clone.shards("first") == clone.shards("second")


def test_a_worker_that_was_killed_comes_back_and_its_flow_does_not_stay(clone):
    before = clone.stack("status")
    watching = clone.collect("third")
    deadline = time.monotonic() + 300
    while not (clone.state / "datasets" / "third").is_dir():
        assert time.monotonic() < deadline
        time.sleep(0.1)  # polls a folder of another process
    flows = psutil.Process(int(before["worker"][2])).children(recursive=True)
    kill(before["worker"])
    after = clone.stack()
    assert after["prefect"] == before["prefect"]
    assert after["worker"][2] != before["worker"][2]
    assert not [process for process in flows if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    watching.communicate()
    assert clone.collect("third").wait() == 0
    assert clone.shards("third") == clone.shards("second")
