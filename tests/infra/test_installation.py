"""Where state and `.env` lie, and which command is named: in a clone and where the packages are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import installation, mlflow_tracking
from infra.stack import environment
from infra.storage import home


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Packages without a clone around them, and a user's home folder."""
    monkeypatch.setattr(installation, "CODE", tmp_path / "site-packages")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    for name in ("SHAREVERSE_HOME", "XDG_DATA_HOME", "SHAREVERSE_GIT_SHA"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_clone_holds_its_state_whatever_the_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("SHAREVERSE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    repository = Path(__file__).resolve().parents[2]
    assert home() == repository / "var"
    assert environment.dotenv_file() == repository / ".env"
    assert installation.shell_command("up") == "make up"


def test_installed_state_lies_in_the_users_data_folder(installed, monkeypatch):
    assert home() == installed / "me" / ".local" / "share" / "shareverse"
    assert environment.dotenv_file() == home() / "services" / ".env"
    assert environment.environment()["NUMBA_CACHE_DIR"] == str(home() / "services" / "numba")
    assert installation.shell_command("up") == "shareverse up"
    monkeypatch.setenv("XDG_DATA_HOME", str(installed / "data"))
    assert home() == installed / "data" / "shareverse"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert home() == installed / "me" / ".local" / "share" / "shareverse"
    monkeypatch.setenv("SHAREVERSE_HOME", str(installed / "elsewhere"))
    assert home() == installed / "elsewhere"


def test_installed_packages_are_of_no_commit(installed):
    assert mlflow_tracking.git_sha() == "unknown"
