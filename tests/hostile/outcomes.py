"""What a command makes of a damaged house: run in a process of its own, which may hang or die."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRELOADED = ["tests.hostile.house"]
DEADLINE_S = 60.0
REFUSED, RIGHT, UNSEEN = "refused in one sentence", "rightly accepted", "accepted, which nothing can tell"
TRACEBACK, HANG, WRONG, LONG = "TRACEBACK", "HANG", "WRONGLY ACCEPTED", "NOT ONE SENTENCE"
BAD = (TRACEBACK, HANG, WRONG, LONG)
Command = Callable[[Path], Any]
"""Works on a state folder and returns a value of JSON: equal ones for equal data."""


class Refused(Exception):
    """A command that ended with a message and a code that is not 0."""


def forkserver() -> Any:
    """Return a context whose processes start at once: imports are done, no thread runs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def run(command: Command, home: Path, answer: Path) -> None:
    """Run a command and write its value, its refusal or its traceback to `answer`. For a process of its own."""
    os.environ["SHAREVERSE_HOME"] = str(home)
    os.chdir(home)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            result = {"value": command(home)}
    except Refused as refusal:
        result = {"refused": str(refusal)}
    except BaseException as error:  # noqa: BLE001 - tracebacks are what is looked for
        ours = type(error).__module__.split(".")[0] in ("tasks", "model", "infra", "flows")
        result = {"refused": str(error)} if ours else {"traceback": traceback.format_exc()}
    answer.write_text(json.dumps(result))


def outcome_of(context: Any, command: Command, home: Path, answer: Path) -> dict[str, Any]:
    """Return what `run` wrote; {"hang": ...} or {"traceback": ...} of a process that did not end, or died."""
    process = context.Process(target=run, args=(command, home, answer))
    process.start()
    process.join(DEADLINE_S)
    if process.is_alive():
        process.kill()
        process.join()
        return {"hang": f"did not end in {DEADLINE_S:.0f} s"}
    found = json.loads(answer.read_text()) if answer.exists() else {"traceback": f"died with code {process.exitcode}"}
    answer.unlink(missing_ok=True)
    return found


def judged(found: dict[str, Any], whole: Any, may_be_unseen: bool) -> tuple[str, str]:
    """Return the name of an outcome and what was said; `whole`: the command's value on the undamaged house."""
    if "hang" in found:
        return HANG, found["hang"]
    if "traceback" in found:
        return TRACEBACK, found["traceback"]
    if "refused" in found:
        one = len(found["refused"].strip().splitlines()) == 1
        return (REFUSED if one else LONG), found["refused"]
    if found["value"] == whole:
        return RIGHT, ""
    return (UNSEEN if may_be_unseen else WRONG), f"{found['value']!r:.300} instead of {whole!r:.300}"
