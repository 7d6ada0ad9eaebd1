"""The command line: python -m infra.stack up | down | status."""

from __future__ import annotations

import sys

import psutil

from infra.stack import StackError, down, password_hint, status_lines, up
from infra.storage import StorageError


def main() -> int:
    """Return what `perform` does, or 2 for a wrong command."""
    command = sys.argv[1] if len(sys.argv) == 2 else ""
    if command not in ("up", "down", "status"):
        print("usage: python -m infra.stack up | down | status", file=sys.stderr)
        return 2
    return perform(command)


def perform(command: str) -> int:
    """Do what `up`, `down` or `status` says; return 0, or 1 with a sentence on stderr when a service fails."""
    try:
        if command == "up":
            up()
        elif command == "down":
            down()
        print("\n".join(status_lines()))
    except (StackError, StorageError) as error:
        print(error, file=sys.stderr)
        return 1
    except psutil.NoSuchProcess as error:
        print(f"A service ended while it was looked at ({error}): run the command again.", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The services' state cannot be kept: {error}.", file=sys.stderr)
        return 1
    if command != "down":
        print(password_hint(), file=sys.stderr if command == "up" else sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
