"""`.env`: our settings, read back unchanged, among a user's own lines; and the password in it."""

from __future__ import annotations

import os
import stat

import psutil
import pytest
from dotenv import dotenv_values

from infra.stack.environment import environment, merge_settings, use_services, write_dotenv
from infra.stack.password import auth_string, authorization, password_file, password_hint
from infra.stack.services import Service, StackError, write_service
from infra.storage import StorageError

OWN = """# mine
export WANDB_MODE=offline
PREFECT_LOGGING_LEVEL="DEBUG"   # loud
NOTE='two
lines'
not a setting
"""


@pytest.fixture
def dotenv(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path / "home"))
    return tmp_path / ".env"


def test_a_users_own_lines_are_kept_and_ours_replaced(dotenv):
    dotenv.write_text(f"SHAREVERSE_HOME=/old\n{OWN}PREFECT_API_URL=http://127.0.0.1:1/api")
    write_dotenv(dotenv)
    first = dotenv.read_text()
    assert first.startswith(OWN)
    assert "/old" not in first
    assert dotenv_values(dotenv)["NOTE"] == "two\nlines"
    write_dotenv(dotenv)
    assert dotenv.read_text() == first
    assert stat.S_IMODE(dotenv.stat().st_mode) == 0o600


NAMES = ("plain", "a #b", "it's", 'say "so"', "größe", "a$HOME", "back\\slash", " lead ", "a=b")


@pytest.mark.parametrize("name", NAMES)
def test_a_home_of_any_name_is_read_back_unchanged(tmp_path, monkeypatch, name):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path / name))
    write_dotenv(tmp_path / ".env")
    read_back = dotenv_values(tmp_path / ".env")
    assert read_back["SHAREVERSE_HOME"] == str(tmp_path / name)
    assert read_back["PREFECT_API_AUTH_STRING"] == auth_string()


def test_a_home_that_cannot_be_written_down_is_refused_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path / "${HOME}"))
    (tmp_path / ".env").write_text(OWN)
    with pytest.raises(StackError, match="cannot carry SHAREVERSE_HOME"):
        write_dotenv(tmp_path / ".env")
    assert (tmp_path / ".env").read_text() == OWN


def test_bytes_that_are_no_text_are_kept(dotenv):
    dotenv.write_bytes(b"NAME=\xff\xfe\n")
    write_dotenv(dotenv)
    assert dotenv.read_bytes().startswith(b"NAME=\xff\xfe\n")


def test_a_dotenv_that_is_no_plain_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path / "home"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("folder", "link"):
        with pytest.raises(StackError, match="not a plain file of yours"):
            write_dotenv(tmp_path / name)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_dotenv_of_another_user_is_refused(dotenv):
    dotenv.write_text("")
    os.chown(dotenv, 65534, 65534)
    with pytest.raises(StackError, match="not a plain file of yours"):
        write_dotenv(dotenv)


def test_the_first_settings_of_an_empty_file():
    assert merge_settings("", {"A": "1"}).splitlines()[1:] == ["A=1"]


def test_the_password_is_drawn_once_for_each_home(tmp_path, monkeypatch):
    drawn = set()
    for name in ("one", "two"):
        monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path / name))
        assert auth_string() == auth_string() == environment()["PREFECT_API_AUTH_STRING"]
        assert stat.S_IMODE(password_file().stat().st_mode) == 0o600
        assert auth_string().split(":")[1] not in password_hint()
        drawn.add(auth_string())
    assert len(drawn) == 2
    assert authorization()["Authorization"].startswith("Basic ")


def test_a_process_is_told_where_the_services_are_once_all_of_them_run(dotenv, monkeypatch):
    monkeypatch.setattr(os, "environ", {**os.environ})
    for name in ("prefect", "mlflow", "worker"):
        with pytest.raises(StackError, match=f"{name} does not run: start the services with `make up`"):
            use_services()
        write_service(Service(name, os.getpid(), psutil.Process().create_time(), "http://127.0.0.1:4200"))
    use_services()
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert os.environ["PREFECT_API_AUTH_STRING"] == auth_string()


def test_no_proxy_is_sent_the_password(dotenv, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert environment()["NO_PROXY"] == "example.org,127.0.0.1,localhost"


LONG = "x" * 30


@pytest.mark.parametrize("text", ["", "short:word", LONG, f"user:{LONG}\nmore", f"ü:{LONG}", f"a b:{LONG}"])
def test_a_damaged_password_is_one_sentence(dotenv, text):
    auth_string()
    password_file().write_text(text)
    with pytest.raises(StorageError, match="make down"):
        auth_string()
