"""`end_together.py OWNER DAEMON ... -- CHILD ...`: when the owner or a daemon has ended, kill the daemons and children.

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
    border = sys.argv.index("--")
    owner, *daemons = (int(word) for word in sys.argv[1:border])
    children = [int(word) for word in sys.argv[border + 1 :]]
    poll = select.poll()
    for process in (owner, *daemons):
        poll.register(process, select.POLLIN)
    poll.poll()
    for process in (*daemons, *children):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)


if __name__ == "__main__":
    main()
