"""The environment variables of the services, the flow runs and a fresh shell in the repository."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from infra.installation import CODE, in_clone, shell_command
from infra.private_files import write_private
from infra.stack.gate import LOOPBACK
from infra.stack.password import auth_string
from infra.stack.services import SERVICE_NAMES, StackError, read_services, services_dir
from infra.storage import home

DOTENV_KEYS = (
    "SHAREVERSE_HOME",
    "PREFECT_HOME",
    "PREFECT_API_URL",
    "PREFECT_API_AUTH_STRING",
    "MLFLOW_TRACKING_URI",
    "PREFECT_SERVER_ANALYTICS_ENABLED",
)
"""Variables that `.env` holds for us; the rest of the file is the user's."""
UP = shell_command("up")
HEADING = f"# Written by `{UP}`, which keeps all other lines. It holds a password: it is yours alone to read.\n"


def environment() -> dict[str, str]:
    """Return the environment of every service and of the flow runs that the worker starts."""
    folder = services_dir()
    services = read_services()
    settings = {
        "SHAREVERSE_HOME": str(home()),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_AUTH_STRING": auth_string(),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TORCH_EXTENSIONS_DIR": str(folder / "torch_extensions"),
    }
    if not in_clone():  # else numba keeps what it compiles beside the kernels
        settings["NUMBA_CACHE_DIR"] = os.environ.get("NUMBA_CACHE_DIR") or str(folder / "numba")
    if "prefect" in services:
        settings["PREFECT_API_URL"] = services["prefect"].address + "/api"
    if "mlflow" in services:
        settings["MLFLOW_TRACKING_URI"] = services["mlflow"].address
    for name in ("NO_PROXY", "no_proxy"):  # a proxy would be sent the password
        settings[name] = ",".join(filter(None, [os.environ.get(name), *LOOPBACK]))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, **settings, "PATH": path}


def quote_value(value: str) -> str:
    """Write a value of `.env` so that it is read back unchanged."""
    if re.fullmatch(r"[\w@%+=:,./~-]+", value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def merge_settings(text: str, settings: Mapping[str, str]) -> str:
    """Return the text of `.env` with our settings replaced and all other lines as they were."""
    kept = "".join(part.original.string for part in parse_stream(io.StringIO(text)) if part.key not in settings)
    kept = kept.replace(HEADING, "")
    if kept and not kept.endswith("\n"):
        kept += "\n"
    return kept + HEADING + "".join(f"{key}={quote_value(value)}\n" for key, value in settings.items())


def use_services() -> None:
    """Let this process, and Prefect when it is imported afterwards, find this home's services.

    StackError when one of them does not run.
    """
    services = read_services()
    for name in SERVICE_NAMES:
        if name not in services or not services[name].process():
            raise StackError(f"{name} does not run: start the services with `{UP}`.")
    os.environ.update(environment())


def dotenv_file() -> Path:
    """Return the path of `.env`. Prefect reads it in the current folder, so a fresh shell there finds the services."""
    return (CODE if in_clone() else services_dir()) / ".env"


def write_dotenv(path: Path | None = None) -> None:
    """Write our settings into `.env`, or into `path`.

    StackError when the file is not a plain file of this user, or cannot carry a value.
    """
    path = path or dotenv_file()
    variables = environment()
    settings = {key: variables[key] for key in DOTENV_KEYS if key in variables}
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise StackError(f"{path} is not a plain file of yours, and `{UP}` writes a password into it: move it.")
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise StackError(f"{path} cannot be read ({error.strerror}): move it away.") from error
    text = merge_settings(text, settings)
    read_back = dotenv_values(stream=io.StringIO(text))
    for key, value in settings.items():
        if read_back.get(key) != value:
            raise StackError(f"{path} cannot carry {key}: set SHAREVERSE_HOME to a folder with a plainer name.")
    write_private(path, text)
