"""`end_together.py OWNER PROCESS ...`: as soon as one of these processes has ended, kill all but the owner.

Each is a pidfd, which never means another process. For processes that somebody else starts and that should not outlive
the owner, a kill -9 of it included; what we start ourselves runs under a supervisor (supervisor.py).

It is started by path with `python -I -S`, in a session of its own: standard library only.
"""

from __future__ import annotations

import contextlib
import select
import signal
import sys


def main() -> None:
    owner, *others = (int(word) for word in sys.argv[1:])
    poll = select.poll()
    for process in (owner, *others):
        poll.register(process, select.POLLIN)
    poll.poll()
    for process in others:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)


if __name__ == "__main__":
    main()
