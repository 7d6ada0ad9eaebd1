"""Every end of a guarded command, with scripts that start things as carelessly as CarlaUE4.sh does."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from infra.process_guard import GuardedProcess, kill_marked, marked_pids
from tests.processes import family, until

GRACE_S = 0.6
ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = {
    "a child, not exec'ed": "sleep 1000; true",
    "a child in the background": "sleep 1000 & wait",
    "another session": "setsid sleep 1000 & wait",
    "forked twice": "(setsid sleep 1000 &) ; sleep 1001; true",
    "deaf to SIGTERM": "trap '' TERM; sleep 1000; true",
    "deaf, in another session, forked twice": "trap '' TERM; (setsid sleep 1000 &) ; sleep 1001; true",
    "kills its own group": "trap 'kill -9 0' TERM; sleep 1000 & wait",
}


@pytest.fixture
def started():
    with family() as ours:
        yield ours


def sleepers(ours, script: str) -> list[psutil.Process]:
    """Wait for the script's sleeping processes."""
    count = script.count("sleep ")
    until(lambda: len(ours.alive("sleep 100")) >= count)
    return [process for process in ours.alive("sleep 100") if process.name() == "sleep"]


def run(ours, script: str) -> GuardedProcess:
    return GuardedProcess(["sh", "-c", script], env=ours.environment, grace_s=GRACE_S)


@pytest.mark.parametrize("name", SCRIPTS)
def test_stop_ends_whatever_a_script_started(started, name):
    process = run(started, SCRIPTS[name])
    sleepers(started, SCRIPTS[name])
    assert process.poll() is None
    process.stop()
    assert process.poll() is not None
    assert not [left for left in process.tree() if psutil.pid_exists(left)]
    assert not started.left(2.0)
    process.stop()  # a second time does no harm


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_that_is_killed_alone_takes_its_children_along(started, name):
    process = run(started, SCRIPTS[name])
    sleepers(started, SCRIPTS[name])
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(GRACE_S + 3.0) == -signal.SIGKILL
    assert not started.left(2.0)


OWNER = """
import os, sys
from infra.process_guard import GuardedProcess
held = os.fork()                    # as multiprocessing does: it inherits every descriptor
if held == 0:
    os.environ.clear(); os.execvp("sleep", ["sleep", "3"])
processes = [GuardedProcess(["sh", "-c", script], grace_s=0.6) for script in sys.argv[1:]]
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, None])
def test_everything_ends_with_the_owner(started, number):
    """Killed in any way, or at its own end without `stop`."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, *SCRIPTS.values()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=started.environment, cwd=ROOT,
    )  # fmt: skip
    assert owner.stdout.readline() == b"ready\n"
    for script in SCRIPTS.values():
        sleepers(started, script)
    if number is not None:
        owner.send_signal(number)
    owner.stdin.close()
    owner.wait(10)
    owner.stdout.close()
    assert not started.left()


def test_the_end_of_the_thread_that_started_it_is_not_the_owners(started):
    """PR_SET_PDEATHSIG alone would take it for that."""
    made: list[GuardedProcess] = []
    thread = threading.Thread(target=lambda: made.append(run(started, "sleep 1000; true")))
    thread.start()
    thread.join()
    assert made[0].wait(0.3) is None
    made[0].stop()


@pytest.mark.parametrize("name", ["a child, not exec'ed", "deaf, in another session, forked twice"])
def test_a_supervisor_that_is_killed_leaves_nothing_either(started, name):
    process = run(started, SCRIPTS[name])
    sleepers(started, SCRIPTS[name])
    os.kill(process.supervisor, signal.SIGKILL)
    assert process.wait(5.0) == -signal.SIGKILL
    assert not started.left(2.0)


def test_a_supervisor_that_hangs_is_ended_by_its_owner(started, monkeypatch):
    monkeypatch.setattr("infra.process_guard.KILL_TIMEOUT_S", 0.2)
    process = run(started, SCRIPTS["another session"])
    sleepers(started, SCRIPTS["another session"])
    os.kill(process.supervisor, signal.SIGSTOP)
    process.stop()
    assert process.poll() is not None
    assert not started.left(2.0)


def test_signals_to_the_supervisor_end_the_command(started):
    """A shutdown of the machine sends SIGTERM to all."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        process = run(started, SCRIPTS["forked twice"])
        sleepers(started, SCRIPTS["forked twice"])
        os.kill(process.supervisor, number)
        assert process.wait(3.0) is not None
        assert not started.left(2.0)


def test_the_supervisor_is_no_child_of_its_owner_nor_in_its_session(started):
    """Ray kills the children of a worker that exits."""
    process = run(started, "sleep 1000; true")
    assert process.supervisor not in {child.pid for child in psutil.Process().children(recursive=True)}
    assert os.getsid(process.supervisor) not in (os.getsid(0), os.getsid(process.pid))
    assert process.pid in process.tree()
    process.stop()


def test_the_exit_code_is_the_commands():
    for command, code in (("exit 0", 0), ("exit 7", 7), ("kill -SEGV $$", -signal.SIGSEGV)):
        with GuardedProcess(["sh", "-c", command]) as process:
            assert process.wait(10) == code
            assert process.returncode == code


def test_the_exit_is_known_only_when_nothing_is_left(started):
    process = run(started, "(trap '' TERM; exec setsid sleep 1000) & sleep 0.1; exit 3")
    assert process.wait(0.1 + GRACE_S / 2) is None
    assert process.wait(5.0) == 3
    assert not started.alive()


def test_output_environment_folder_and_signals_are_the_commands(tmp_path):
    script = "pwd; echo $NAME >&2; trap | cat; yes | head -1"  # `yes` would complain if SIGPIPE were ignored
    with GuardedProcess(["sh", "-c", script], env={**os.environ, "NAME": "söme"}, cwd=tmp_path) as process:
        assert process.output.read().decode().splitlines() == [str(tmp_path), "söme", "y"]
        assert process.wait(10) == 0
    with open(tmp_path / "log", "wb") as log, GuardedProcess(["sh", "-c", "echo told; echo so >&2"], output=log) as it:
        assert it.wait(10) == 0
    assert (tmp_path / "log").read_text() == "told\nso\n"


def test_the_output_ends_with_the_command(started):
    process = run(started, "echo last words")
    assert process.output.read() == b"last words\n"


def test_what_cannot_be_executed_is_an_oserror(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("no program")
    before = set(os.listdir("/proc/self/fd"))
    for command, number in ((str(tmp_path / "none"), errno.ENOENT), (str(plain), errno.EACCES)):
        with pytest.raises(OSError, match=command) as caught:
            GuardedProcess([command])
        assert caught.value.errno == number
    plain.chmod(0o755)
    with pytest.raises(OSError, match="Exec format error"):
        GuardedProcess([str(plain)])
    with pytest.raises(FileNotFoundError):
        GuardedProcess(["true"], cwd=tmp_path / "none")
    assert set(os.listdir("/proc/self/fd")) == before


def test_nothing_is_started_for_an_owner_that_is_gone(tmp_path):
    """It ended while the supervisor was being started."""
    source = Path(sys.modules["infra.process_guard.supervisor"].__file__)
    gone = subprocess.Popen(["true"])
    owner = os.pidfd_open(gone.pid)
    gone.wait()
    lifeline, request = os.pipe()
    status, told = os.pipe()
    passed = (owner, lifeline, told)
    command = [sys.executable, "-I", "-S", source, *map(str, passed), "1", "touch", str(tmp_path / "started")]
    subprocess.run(command, pass_fds=passed, check=True)
    for descriptor in passed:
        os.close(descriptor)
    assert os.read(status, 100) == b""  # its end: the supervisor is gone without a word
    assert not list(tmp_path.iterdir())
    os.close(status)
    os.close(request)


def test_the_owner_keeps_no_descriptors_and_no_threads(started):
    before = set(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(3):
        with run(started, "sleep 1000; true") as process:
            assert process.poll() is None
        process.output.close()
    until(lambda: threading.active_count() <= before[1], 2.0)
    assert set(os.listdir("/proc/self/fd")) == before[0]


def test_only_what_bears_the_mark_is_killed(started):
    mine, other = run(started, "sleep 1000; true"), run(started, "sleep 1001; true")
    assert {mine.pid, mine.supervisor} <= set(marked_pids(mine.mark))
    kill_marked(mine.mark)
    assert mine.wait(5.0) is not None
    assert other.wait(0.2) is None
    other.stop()


def test_a_start_is_cheap(started):
    """The demo starts dozens; an interpreter with its site packages and a few imports costs ten times as much."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with run(started, "sleep 1000") as process:
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        supervisor = psutil.Process(process.supervisor)
        used = supervisor.cpu_times().user + supervisor.cpu_times().system
        assert used + after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.15
        assert supervisor.memory_info().rss < 20e6
