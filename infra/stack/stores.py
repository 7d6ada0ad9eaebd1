"""Where Prefect's and MLflow's servers keep their state: files of this home, or a team's PostgreSQL and object storage.

docs/CLUSTER.md says how to set the variables. A database's password stands in them, so they are read here and handed on
in environments only.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from infra.stack.services import StackError

PREFECT_DATABASE = "SHAREVERSE_PREFECT_DATABASE"
MLFLOW_DATABASE = "SHAREVERSE_MLFLOW_DATABASE"
MLFLOW_ARTIFACTS = "SHAREVERSE_MLFLOW_ARTIFACTS"
INSTALL = "pip install 'shareverse[team]' -c constraints.txt"


def postgresql(variable: str, driver: str) -> str | None:
    """Return the PostgreSQL database that a variable names, None where it is not set.

    StackError for another database or driver, without naming the value, and where the driver is not installed.
    """
    value = os.environ.get(variable)
    if not value:
        return None
    if not value.startswith(f"postgresql+{driver}://"):
        raise StackError(f"{variable} names no database: give postgresql+{driver}://user:password@host:port/name.")
    if find_spec(driver) is None:
        raise StackError(f"{variable} needs the package {driver}, which is not installed: {INSTALL}.")
    return value


def prefect_database(folder: Path) -> str:
    """Return the address of Prefect's database, as SQLAlchemy writes it: the team's, or a file in `folder`."""
    return postgresql(PREFECT_DATABASE, "asyncpg") or f"sqlite+aiosqlite:///{folder / 'prefect.db'}"


def mlflow_database(folder: Path) -> str:
    """Return the address of MLflow's database: the team's, or a file in `folder`."""
    return postgresql(MLFLOW_DATABASE, "psycopg2") or f"sqlite:///{folder / 'mlflow.db'}"


def mlflow_artifacts(folder: Path) -> str:
    """Return where MLflow's server keeps artifacts: an address such as s3://bucket/path, or a folder in `folder`.

    StackError for an address on S3 where its client is not installed.
    """
    place = os.environ.get(MLFLOW_ARTIFACTS) or str(folder / "artifacts")
    if place.startswith("s3://") and find_spec("boto3") is None:
        raise StackError(f"{MLFLOW_ARTIFACTS} needs the package boto3, which is not installed: {INSTALL}.")
    return place
