"""Both servers, started, and everybody who must not get in: docs/SECURITY.md as tests."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mlflow
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from infra.installation import CODE
from infra.stack import control, services
from infra.stack.password import auth_string, authorization
from infra.stack.prefect_client import http_request, password_works

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@dataclass(frozen=True)
class Servers:
    """What was started, and where its state lies."""

    home: Path
    prefect: str
    mlflow: str

    @property
    def api(self) -> str:
        return f"{self.prefect}/api"


@pytest.fixture(scope="module")
def servers():
    """Prefect and MLflow in a folder that another user could look into, were it not for the home's own mode."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        patch.setenv("SHAREVERSE_HOME", str(home))
        try:
            with services.stack_lock():
                control.start_servers({}, None)
            found = services.read_services()
            yield Servers(home, found["prefect"].address, found["mlflow"].address)
        finally:
            control.down()
        assert not any(service.process() for service in found.values())


def test_without_the_password_prefect_answers_401(servers):
    for path in ("/admin/version", "/deployments/name/collect-dataset/local", "/docs", "/nothing", "/health/"):
        assert http_request(servers.api + path)[0] == 401, path
    for path in ("/deployments/filter", "/flow_runs/", "/health", "/variables/"):
        assert http_request(servers.api + path, body={})[0] == 401, path
    wrong = base64.b64encode(b"shareverse:guessed").decode()
    for header in (f"Basic {wrong}", "Basic", f"Bearer {auth_string()}", "Basic \x00", ""):
        assert http_request(servers.api + "/admin/version", {"Authorization": header})[0] in (400, 401), header
    assert http_request(servers.api + "/admin/version", authorization())[0] == 200
    assert password_works(servers.prefect)


def test_what_prefect_tells_everybody_is_that_it_lives(servers):
    assert http_request(servers.api + "/health") == (200, b"true")
    assert http_request(servers.api + "/ready")[0] == 200
    settings = json.loads(http_request(servers.prefect + "/ui-settings")[1])
    assert settings["auth"] == "BASIC"  # the page asks for it
    assert auth_string() not in json.dumps(settings)


@pytest.mark.parametrize("server", ["prefect", "mlflow"])
def test_foreign_hosts_and_origins_are_refused_even_with_the_password(servers, server):
    address, path = getattr(servers, server), "/api/admin/version" if server == "prefect" else "/version"
    assert http_request(address + path, authorization())[0] == 200
    assert http_request(address + path, authorization() | {"Host": "evil.example"})[0] == 403
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert http_request(address + path, authorization() | {"Origin": origin})[0] == 403
        assert http_request(address + path, authorization() | {"Origin": origin}, body={})[0] == 403
        preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert http_request(address + path, preflight, method="OPTIONS")[0] == 403
    assert http_request(address + path, authorization() | {"Origin": address})[0] == 200


@pytest.mark.parametrize("path", ["/events/in", "/events/out", "/logs/out", "/work_pools/local/workers/connect"])
def test_websockets_ask_for_the_password(servers, path):
    address = servers.api.replace("http", "ws") + path
    with pytest.raises((ConnectionClosed, InvalidStatus)), connect(address) as socket:
        socket.recv(timeout=10)
    for token in (None, "shareverse:guessed"):
        with (
            pytest.raises((ConnectionClosed, InvalidStatus)),
            connect(address, subprotocols=["prefect"]) as socket,
        ):
            socket.send(json.dumps({"type": "auth", "token": token}))
            socket.recv(timeout=10)
    with pytest.raises(InvalidStatus), connect(address, subprotocols=["prefect"], origin="http://evil.example"):
        pass


def test_websockets_let_the_password_in(servers):
    with connect(servers.api.replace("http", "ws") + "/events/in", subprotocols=["prefect"]) as socket:
        socket.send(json.dumps({"type": "auth", "token": auth_string()}))
        assert json.loads(socket.recv(timeout=10)) == {"type": "auth_success"}


def test_mlflow_serves_its_own_user(servers, tmp_path):
    (tmp_path / "note.txt").write_text("here")
    client = mlflow.MlflowClient(servers.mlflow)
    run = client.create_run(client.create_experiment("one"))
    client.log_artifact(run.info.run_id, str(tmp_path / "note.txt"))
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["note.txt"]
    assert list((servers.home / "services" / "mlflow" / "artifacts").rglob("note.txt"))


def status_for_nobody(address: str, request: str) -> bytes:
    """Send a request as another user; return the first line of the answer."""
    script = (
        f"import os, socket, sys; os.setgid({NOBODY}); os.setuid({NOBODY}); client = socket.socket(); "
        f"client.connect(('127.0.0.1', {services.port_of(address)})); client.sendall(sys.stdin.buffer.read()); "
        "os.write(1, client.recv(4096))"
    )
    done = subprocess.run([sys.executable, "-c", script], input=request.encode(), capture_output=True, timeout=30)
    return done.stdout.split(b"\r\n")[0]


@as_root
@pytest.mark.parametrize("path", ["/", "/version", "/api/2.0/mlflow/experiments/search?max_results=1", "/health"])
def test_mlflow_serves_no_other_user(servers, path):
    for more in ("", "X-Forwarded-For: 127.0.0.1\r\n"):
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}Connection: close\r\n\r\n"
        assert status_for_nobody(servers.mlflow, request) == b"HTTP/1.1 403 Forbidden"


@as_root
def test_another_user_reads_no_file_of_ours(servers):
    wanted = [servers.home, servers.home / "services", servers.home / "services" / "prefect_auth"]
    for path in wanted:
        command = ["ls", path] if path.is_dir() else ["cat", path]
        other = subprocess.run(command, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True)
        assert other.returncode != 0, path
        assert b"Permission denied" in other.stderr


def test_every_file_below_the_home_is_its_owners_alone(servers):
    paths = [servers.home, *servers.home.rglob("*")]
    assert {path.name for path in paths} >= {"prefect.db", "mlflow.db", "prefect.log", "services.json", "prefect_auth"}
    assert [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_the_password_stands_in_its_file_alone(servers):
    secret = auth_string().split(":")[1]
    holders = [path for path in servers.home.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert holders == [servers.home / "services" / "prefect_auth"]
    for process in psutil.process_iter(["cmdline"]):
        assert secret not in " ".join(process.info["cmdline"] or ())


def test_servers_listen_on_the_loopback_alone(servers):
    for service in services.read_services().values():
        process = service.process()
        if process:
            listening = [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
            assert listening == ["127.0.0.1"]


def test_a_password_changed_under_a_running_server_is_told(servers):
    path = servers.home / "services" / "prefect_auth"
    before = path.read_text()
    path.write_text(f"shareverse:{'x' * 40}\n")
    with pytest.raises(services.StackError, match="answers 401 without a password and 401 with"):
        password_works(servers.prefect)
    path.write_text(before)


def test_a_server_without_a_password_does_not_start(monkeypatch):
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    done = subprocess.run(
        [sys.executable, "-m", "infra.stack.prefect_server"], capture_output=True, text=True, cwd=CODE
    )
    assert done.returncode == 2
    assert "PREFECT_SERVER_API_AUTH_STRING is not set" in done.stderr
