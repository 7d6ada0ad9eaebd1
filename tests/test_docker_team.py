"""docker/compose.team.yaml agrees with docker/compose.yaml, which it is laid over, and with the project."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
TEAM_TEXT = (ROOT / "docker/compose.team.yaml").read_text()
TEAM = yaml.safe_load(TEAM_TEXT)
BASE = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
SERVICES = TEAM["services"]


def test_it_adds_a_database_and_publishes_no_port():
    assert TEAM["name"] == BASE["name"]
    assert SERVICES.keys() - BASE["services"].keys() == {"postgres", "minio", "bucket"}
    assert not [name for name, service in SERVICES.items() if "ports" in service or "network_mode" in service]
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"minio", "bucket"}


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_servers_wait_for_their_database(name):
    assert SERVICES[name]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    test = SERVICES["postgres"]["healthcheck"]["test"]
    assert test[1] == "pg_isready"


def test_both_databases_exist_and_their_drivers_are_in_the_image():
    names = {SERVICES["postgres"]["environment"]["POSTGRES_DB"]}
    names |= set(re.findall(r"^CREATE DATABASE (\w+);$", (ROOT / "docker/databases.sql").read_text(), re.MULTILINE))
    prefect = SERVICES["prefect"]["environment"]["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    mlflow = SERVICES["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"]
    assert {address.rsplit("/", 1)[1] for address in (prefect, mlflow)} == names
    assert prefect.startswith("postgresql+asyncpg://shareverse:${SHAREVERSE_DATABASE_PASSWORD}@postgres:")
    assert mlflow.startswith("postgresql+psycopg2://shareverse:${SHAREVERSE_DATABASE_PASSWORD}@postgres:")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {re.match(r"[\w-]+", requirement)[0] for requirement in extras["team"]} == {"psycopg2-binary", "boto3"}
    assert 'pip install -e ".[team]" -c constraints.txt' in (ROOT / "docker/Dockerfile").read_text()


def test_mlflow_differs_from_the_base_in_its_stores_alone():
    stores = ("--backend-store-uri=", "--artifacts-destination=")
    base = [word for word in BASE["services"]["mlflow"]["command"] if not word.startswith(stores)]
    assert SERVICES["mlflow"]["command"] == base


def test_passwords_have_no_default_and_are_in_no_command():
    password = SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"]
    variable, sentence = re.fullmatch(r"\$\{(\w+):\?([^}]+)\}", password).groups()
    assert "docker/.env" in sentence
    assert f'echo "{variable}=$(openssl rand -hex 32)" >> docker/.env' in TEAM_TEXT
    commands = str([service.get("command") for service in SERVICES.values()])
    assert "PASSWORD" not in commands
    assert "KEY" not in commands


def test_data_are_on_named_volumes():
    named = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert named - {"./databases.sql"} == set(TEAM["volumes"])
    assert (ROOT / "docker/databases.sql").is_file()
