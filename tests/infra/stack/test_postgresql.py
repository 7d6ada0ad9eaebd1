"""Prefect's server and MLflow's on a real PostgreSQL server: started, written, read back, started again."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from importlib.util import find_spec

import pytest

from infra.stack import control
from infra.stack.password import authorization
from infra.stack.prefect_client import http_request
from infra.stack.services import Service, StackError, free_port, services_dir, stop, wait_for
from infra.stack.stores import (
    MLFLOW_ARTIFACTS,
    MLFLOW_DATABASE,
    PREFECT_DATABASE,
    mlflow_artifacts,
    mlflow_database,
    prefect_database,
)
from tests.infra.stack.postgresql import BINARIES, postgresql, query

WRITE_A_RUN = """
import mlflow, sys
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("team")
with mlflow.start_run(run_name="first") as run:
    mlflow.log_metric("loss", 0.25, step=3)
    mlflow.log_text("a page", "page.txt")
print(run.info.run_id)
"""
READ_THE_RUN = """
import mlflow, sys
mlflow.set_tracking_uri(sys.argv[1])
run = mlflow.get_run(sys.argv[2])
print(run.info.run_name, run.data.metrics["loss"], mlflow.artifacts.load_text(run.info.artifact_uri + "/page.txt"))
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path / "home"))
    for name in (PREFECT_DATABASE, MLFLOW_DATABASE, MLFLOW_ARTIFACTS):
        monkeypatch.delenv(name, raising=False)


def python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[-1]


def post(service: Service, path: str, body: object) -> dict:
    status, answer = http_request(f"{service.address}/api/{path}", authorization(), body)
    assert status in (200, 201), (status, answer)
    return json.loads(answer)


def test_without_a_team_both_keep_files_in_this_home(tmp_path):
    assert prefect_database(tmp_path) == f"sqlite+aiosqlite:///{tmp_path}/prefect.db"
    assert mlflow_database(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert mlflow_artifacts(tmp_path) == f"{tmp_path}/artifacts"


@pytest.mark.parametrize("value", ["postgresql://user:secret@host/db", "sqlite:///x.db", "elsewhere"])
def test_another_database_is_refused_without_telling_its_password(tmp_path, monkeypatch, value):
    monkeypatch.setenv(MLFLOW_DATABASE, value)
    with pytest.raises(StackError, match=r"give postgresql\+psycopg2://user:password@host:port/name") as refused:
        mlflow_database(tmp_path)
    assert value not in str(refused.value)


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("infra.stack.stores.find_spec", lambda name: None)
    monkeypatch.setenv(MLFLOW_ARTIFACTS, "s3://bucket/mlflow")
    with pytest.raises(StackError, match=r"boto3, which is not installed: pip install 'shareverse\[team\]'"):
        mlflow_artifacts(tmp_path)
    monkeypatch.setenv(PREFECT_DATABASE, "postgresql+asyncpg://user:secret@host/db")
    with pytest.raises(StackError, match="asyncpg, which is not installed"):
        prefect_database(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(BINARIES is None, reason="Debian's package postgresql is not installed")
@pytest.mark.skipif(find_spec("psycopg2") is None, reason="the extra `team` is not installed")
def test_runs_are_kept_in_postgresql_and_outlive_the_servers(monkeypatch):
    with postgresql("prefect", "mlflow") as address:
        monkeypatch.setenv(PREFECT_DATABASE, f"postgresql+asyncpg://{address}/prefect")
        monkeypatch.setenv(MLFLOW_DATABASE, f"postgresql+psycopg2://{address}/mlflow")
        prefect, mlflow = started()
        try:
            flow = post(prefect, "flows/", {"name": "collect-dataset"})
            run = post(prefect, "flow_runs/", {"flow_id": flow["id"], "name": "first", "state": {"type": "COMPLETED"}})
            mlflow_run = python(WRITE_A_RUN, mlflow.address)
        finally:
            stop(prefect), stop(mlflow)
        assert query(address, "prefect", "SELECT name, state_type FROM flow_run") == ["first|COMPLETED"]
        assert query(address, "mlflow", "SELECT key, value FROM latest_metrics") == ["loss|0.25"]
        prefect, mlflow = started()
        try:
            assert post(prefect, "flow_runs/filter", {})[0]["id"] == run["id"]
            assert python(READ_THE_RUN, mlflow.address, mlflow_run) == "first 0.25 a page"
        finally:
            stop(prefect), stop(mlflow)
    assert not list(services_dir().rglob("*.db"))
    assert address not in "".join(path.read_text() for path in services_dir().glob("*.log"))


def started() -> tuple[Service, Service]:
    """Prefect's server and MLflow's, as `up` starts them, once both answer."""
    services = control.start_prefect(free_port(None)), control.start_mlflow(free_port(None))
    for service in services:
        wait_for(service, partial(control.is_ready, service))
    return services
