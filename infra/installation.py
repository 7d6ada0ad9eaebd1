"""Tells whether the code is a clone of the repository or installed by pip, and what follows from it.

In a clone, state and `.env` lie in the repository and `make` runs the commands. Installed, nothing is written beside
the packages: state lies in the user's data folder, and the command is `shareverse`.
"""

from __future__ import annotations

import os
from pathlib import Path

CODE = Path(__file__).resolve().parents[1]
"""The folder that holds flows/, tasks/, model/ and infra/: the repository, or site-packages."""


def in_clone() -> bool:
    """Tell whether the code is a clone's: there prefect.yaml lies beside the packages, in a wheel only in flows/."""
    return (CODE / "prefect.yaml").is_file()


def default_home() -> Path:
    """Return the state folder where SHAREVERSE_HOME is not set: the clone's `var/`, or one in the user's data folder.

    The XDG base directory specification says where that is, and that a relative XDG_DATA_HOME is to be ignored.
    """
    if in_clone():
        return CODE / "var"
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (data if data.is_absolute() else Path.home() / ".local" / "share") / "shareverse"


def shell_command(name: str) -> str:
    """Return how the user runs a command: `make up` in a clone, `shareverse up` where it is installed."""
    return f"make {name}" if in_clone() else f"shareverse {name}"
