"""Which processes count as our services, whatever became of the record, and that two clones do not collide."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading

import psutil
import pytest

from infra.stack import control, services
from infra.stack.__main__ import main
from infra.stack.log_size import rotate
from infra.stack.password import auth_string
from infra.stack.services import ADDRESS_MARK, FLOW_MARK, NAME_MARK, Service, StackError

SLEEP = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path))
    services.services_dir().mkdir(parents=True)
    return services.services_dir()


def sleeper(name: str | None = None, session: bool = True, **marks: str) -> subprocess.Popen:
    """A process that waits; with a name it bears the marks of a service."""
    marks |= {NAME_MARK: name, ADDRESS_MARK: "http://127.0.0.1:1"} if name else {}
    process = subprocess.Popen(
        SLEEP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=session, env=os.environ | marks
    )
    process.stdout.readline()
    return process


def recorded(name: str = "mlflow") -> tuple[subprocess.Popen, Service]:
    """A process in a session of its own, recorded as a service."""
    process = sleeper()
    service = Service(name, process.pid, psutil.Process(process.pid).create_time(), "http://127.0.0.1:1")
    services.write_service(service)
    return process, service


def end(process: subprocess.Popen) -> None:
    process.stdin.close()
    process.wait(10)


def test_a_pid_that_somebody_else_has_now_is_not_our_service(state):
    ours = Service("mlflow", os.getpid(), psutil.Process().create_time(), "")
    assert ours.process() is not None
    assert Service("mlflow", os.getpid(), ours.started - 60, "").process() is None


def test_down_ends_exactly_the_recorded_process(state):
    process, _ = recorded()
    bystander = sleeper()
    control.down()
    assert not psutil.pid_exists(process.pid)
    assert bystander.poll() is None
    end(bystander)
    assert "mlflow stopped http://127.0.0.1:1" in control.status_lines()[1]


def test_status_prints_a_line_a_service_and_where_the_password_stands(state, capsys, monkeypatch):
    process, service = recorded("prefect")
    monkeypatch.setattr(sys, "argv", ["stack", "status"])
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"prefect running http://127.0.0.1:1 {process.pid}"
    assert lines[2] == "worker stopped - -"
    assert str(state / "prefect_auth") in lines[3]
    services.stop(service)


def test_a_taken_port_is_passed_over():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert services.free_port(taken) != taken


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"[", b"\xff\xfe", b"null", b"{}", b"[1]", b'[{"name": "mlflow"}]', b"[" * 100_000,
        b'[{"name": "mlflow", "pid": 0, "started": 1.0, "address": "http://127.0.0.1:1"}]',
        b'[{"name": "mlflow", "pid": -1, "started": 1.0, "address": "http://127.0.0.1:1"}]',
        b'[{"name": "mlflow", "pid": 7, "started": NaN, "address": "http://127.0.0.1:1"}]',
        b'[{"name": "mlflow", "pid": 7, "started": 1.0, "address": "http://elsewhere:1"}]',
        b'[{"name": "mlflow", "pid": 7, "started": 1.0, "address": null}]',
        b'[{"name": ["mlflow"], "pid": 7, "started": 1.0, "address": "http://127.0.0.1:1"}]',
    ],
)  # fmt: skip
def test_a_damaged_record_is_put_aside_and_running_services_are_found_without_it(state, damage, capsys, monkeypatch):
    process = sleeper("worker")
    (state / "services.json").write_bytes(damage)
    monkeypatch.setattr(sys, "argv", ["stack", "status"])
    assert main() == 0
    told = capsys.readouterr()
    assert f"worker running http://127.0.0.1:1 {process.pid}" in told.out
    (aside,) = state.glob("services.json.damaged-*")
    assert aside.read_bytes() == damage
    assert told.err.count("\n") == 1
    assert str(aside) in told.err
    control.down()
    assert not psutil.pid_exists(process.pid)


def test_a_record_that_is_a_folder_is_put_aside(state, capsys):
    (state / "services.json").mkdir()
    assert services.read_services() == {}
    assert "put aside" in capsys.readouterr().err


def test_another_homes_service_and_our_flow_runs_are_not_taken_for_our_services(state):
    processes = [
        sleeper("worker", SHAREVERSE_HOME="/elsewhere"),
        sleeper("worker", **{FLOW_MARK: "1"}),
        sleeper("worker", session=False),
    ]
    assert services.find_services() == []
    for process in processes:
        end(process)


def test_flow_runs_without_a_worker_are_ended(state):
    flow, stranger = sleeper("worker", **{FLOW_MARK: "1"}), sleeper(**{FLOW_MARK: "1"})
    services.end_orphaned_flows()
    assert not psutil.pid_exists(flow.pid)
    assert stranger.poll() is None
    end(stranger)


def test_a_server_whose_port_was_taken_does_not_start_behind_the_workers_back(state):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"http://127.0.0.1:{other.getsockname()[1]}"
        worker = sleeper("worker", MLFLOW_TRACKING_URI=address)
        with pytest.raises(StackError, match=f"another program listens at {address}"):
            control.ensure_server("mlflow", None, psutil.Process(worker.pid))
        end(worker)


def test_a_service_of_an_earlier_version_or_with_another_password_is_told(state):
    other = {NAME_MARK: "worker", "PREFECT_API_AUTH_STRING": "a:b"}
    for marks, reason in (({}, "earlier version"), (other, "another password")):
        process = sleeper(**marks)
        service = Service("worker", process.pid, psutil.Process(process.pid).create_time(), "http://127.0.0.1:1")
        with pytest.raises(StackError, match=rf"worker \(pid {process.pid}\) .*{reason}.*make down"):
            control.check_reusable(service)
        end(process)
    process = sleeper("worker", PREFECT_API_AUTH_STRING=auth_string())
    (service,) = services.find_services()
    control.check_reusable(service)
    end(process)


def test_one_command_waits_for_the_other(state):
    entered, order = threading.Event(), []

    def second() -> None:
        with services.stack_lock():
            order.append("second")

    with services.stack_lock():
        thread = threading.Thread(target=lambda: (entered.set(), second()))
        thread.start()
        entered.wait(10)
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_service_that_ends_at_once_is_told_with_its_log(state):
    service = services.launch("mlflow", [sys.executable, "-c", "print('no')"], "http://127.0.0.1:1", dict(os.environ))
    with pytest.raises(StackError, match=r"mlflow ended while starting; its log is .*mlflow\.log"):
        services.wait_for(service, lambda: False)
    assert (state / "mlflow.log").read_text() == "no\n"


def test_what_a_service_writes_is_its_owners_alone(state):
    script = f"open({str(state / 'made')!r}, 'w'); import os; os.mkdir({str(state / 'folder')!r})"
    service = services.launch("mlflow", [sys.executable, "-c", script], "http://127.0.0.1:1", dict(os.environ))
    services.wait_for(service, lambda: not service.process())
    assert (state / "made").stat().st_mode & 0o077 == 0
    assert (state / "folder").stat().st_mode & 0o077 == 0
    assert (state / "mlflow.log").stat().st_mode & 0o077 == 0


def test_a_full_log_is_moved_aside_under_its_writer(tmp_path):
    log = tmp_path / "worker.log"
    with open(log, "ab", buffering=0) as writer:
        writer.write(b"a" * 100)
        assert not rotate(log, 100)
        writer.write(b"b")
        assert rotate(log, 100)
        writer.write(b"next")
    assert log.read_bytes() == b"next"
    assert (tmp_path / "worker.log.1").read_bytes() == b"a" * 100 + b"b"
    assert (tmp_path / "worker.log.1").stat().st_mode & 0o077 == 0


def test_a_damaged_database_is_one_sentence(tmp_path):
    (tmp_path / "prefect.db").write_bytes(b"no database " * 1000)
    with pytest.raises(StackError, match=r"prefect\.db cannot be read .*move it away"):
        control.check_database(tmp_path / "prefect.db")
    control.check_database(tmp_path / "none.db")


def test_a_home_that_cannot_be_is_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path / "file"))
    for command in ("up", "down"):
        monkeypatch.setattr(sys, "argv", ["stack", command])
        assert main() == 1
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert "SHAREVERSE_HOME" in told


def test_the_record_is_json_that_others_may_read(state):
    process, service = recorded()
    (entry,) = json.loads((state / "services.json").read_text())
    assert entry == {"name": "mlflow", "pid": process.pid, "started": service.started, "address": service.address}
    end(process)
