"""`python -m infra.carla_servers.guard PARENT COMMAND ...`: become COMMAND, and die when PARENT does.

The kernel sends SIGKILL when the thread that started this process ends (PR_SET_PDEATHSIG), however it ends. The parent
may have died before that was asked for; so its pid is compared afterwards.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the process that started this is gone")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
