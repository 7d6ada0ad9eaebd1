"""`supervisor.py OWNER LIFELINE STATUS GRACE COMMAND ...`: run COMMAND and leave nothing of it behind.

The command and all its descendants are ended when the owner ends, however it ends, when the command itself ends, or on
request. OWNER is a pidfd of the owner. LIFELINE is the read end of a pipe: a byte or its end is the request. STATUS is
the write end of another one; it is told, a line each: `started PID SUPERVISOR` or `failed ERRNO`, then `ended CODE`
once nothing of the command is alive. GRACE are the seconds between SIGTERM and SIGKILL.

Why it is a process of its own, detached and in its own session: PR_SET_PDEATHSIG on the command reaches that process
alone and not what a script starts, a killed owner runs no clean-up, and Ray kills the children of a worker that exits.
As a child subreaper it becomes the parent of every descendant that loses its own, also of those that called setsid or
forked twice. Should it be killed itself, the kernel kills the command and the owner the rest (see `GuardedProcess`).

It is started for every CARLA server and training process, by path with `python -I -S`: standard library only.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
RESCAN_S = 0.1
"""Descendants may appear without a signal; so they are listed again this often while they are being ended."""
STOP_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def main() -> None:
    """Detach, start the command and watch over it."""
    owner, lifeline, status = (int(word) for word in sys.argv[1:4])
    grace_s, command = float(sys.argv[4]), sys.argv[5:]
    if os.fork():
        os._exit(0)
    for descriptor in (owner, lifeline, status):
        os.set_inheritable(descriptor, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake = wake_on(signal.SIGCHLD, *STOP_SIGNALS)
    if wait_readable([owner, lifeline], 0.0):
        return
    try:
        tree = Tree(start(command))
    except OSError as error:
        tell(status, f"failed {error.errno or 0}")
        return
    tell(status, f"started {tree.pid} {os.getpid()}")
    release_output()
    while tree.reap() and tree.code is None:
        if {owner, lifeline} & wait_readable([owner, lifeline, wake]) or stop_requested(wake):
            break
    tree.end(wake, grace_s)
    tell(status, f"ended {tree.code}")
    os._exit(0)


def prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def wake_on(*signals: int) -> int:
    """Return a descriptor that becomes readable on these signals; each is a byte of its number."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in signals:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def stop_requested(wake: int) -> bool:
    """Read the signals that have arrived; tell whether one of them asks to stop."""
    try:
        return bool(set(os.read(wake, 4096)) & set(STOP_SIGNALS))
    except BlockingIOError:
        return False


def wait_readable(descriptors: list[int], seconds: float | None = None) -> set[int]:
    """Return the descriptors that can be read, waiting up to `seconds` for the first; None: without limit."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(None if seconds is None else 1000 * seconds)}


def tell(status: int, line: str) -> None:
    try:
        os.write(status, f"{line}\n".encode())
    except BrokenPipeError:
        return  # the owner is gone


def release_output() -> None:
    """Let go of the command's output, so that it ends with the command."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def start(command: list[str]) -> int:
    """Start the command in a session of its own; return its pid. OSError when it cannot be executed."""
    supervisor = os.getpid()
    trouble, report = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)  # Python ignores them, and an ignored signal stays ignored
            if os.getppid() == supervisor:
                os.execvp(command[0], command)
        except OSError as error:
            os.write(report, str(error.errno or 0).encode())
        finally:
            os._exit(127)
    os.close(report)
    reason = os.read(trouble, 16)
    os.close(trouble)
    if reason:
        os.waitpid(pid, 0)
        raise OSError(int(reason), os.strerror(int(reason)))
    return pid


class Tree:
    """The command and its descendants. Their end is known for certain: a subreaper without children has none."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None
        """The command's exit code once it has ended, minus the signal's number if one ended it."""

    def reap(self) -> bool:
        """Collect the children that have ended; return whether any is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                self.code = os.waitstatus_to_exitcode(status)

    def end(self, wake: int, grace_s: float) -> None:
        """Send SIGTERM to every descendant and, after a while, SIGKILL until nothing is left."""
        deadline = time.monotonic() + grace_s
        asked: set[int] = set()
        while self.reap():
            late = time.monotonic() >= deadline
            for pid in descendants(os.getpid()):
                if late or pid not in asked:
                    send(pid, signal.SIGKILL if late else signal.SIGTERM)
                    asked.add(pid)
            wait_readable([wake], RESCAN_S)
            stop_requested(wake)


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return  # it has ended, or it runs as another user, whom we may not end


def descendants(ancestor: int) -> list[int]:
    """Return the pids of a process's descendants, ancestors first."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(parent_of(name), []).append(int(name))
    pids = [ancestor]
    for pid in pids:
        pids += children.get(pid, [])
    return pids[1:]


def parent_of(pid: str) -> int:
    """Return a process's parent; 0 when it has ended or cannot be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


if __name__ == "__main__":
    main()
