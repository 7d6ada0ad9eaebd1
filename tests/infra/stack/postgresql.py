"""A PostgreSQL server of a test's own, from Debian's binaries, as a user without rights: it refuses to run as root."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from infra.stack.services import free_port
from tests.processes import until

BINARIES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda path: int(path.parent.name))
USER = "nobody"


def as_user(*command: str | Path) -> list[str]:
    """Return a command that runs as USER where this process is root's."""
    drop = ["setpriv", f"--reuid={USER}", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    return [*drop, *map(str, command)]


@contextlib.contextmanager
def postgresql(*databases: str) -> Iterator[str]:
    """Yield `user:password@host:port` of a server that has these databases, reached by password only."""
    assert BINARIES is not None
    folder, port, password = Path(tempfile.mkdtemp(prefix="pg-")), free_port(None), secrets.token_hex(16)
    (folder / "password").write_text(password)
    if os.geteuid() == 0:
        for path in (folder, folder / "password"):
            shutil.chown(path, USER)
    access = ["--username=shareverse", f"--pwfile={folder}/password", "--auth=scram-sha-256"]
    command = as_user(BINARIES / "initdb", "-D", folder / "data", "--no-sync", *access)
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    options = ["-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1", "-F"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            as_user(BINARIES / "postgres", "-D", folder / "data", *options), cwd=folder, stderr=log
        )
    try:
        ready = [str(BINARIES / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        until(lambda: subprocess.run(ready, check=False).returncode == 0, 120)
        address = f"shareverse:{password}@127.0.0.1:{port}"
        for name in databases:
            query(address, "postgres", f"CREATE DATABASE {name}")
        yield address
    finally:
        server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
        server.wait(60)
        shutil.rmtree(folder)


def query(address: str, database: str, statement: str) -> list[str]:
    """Return the rows that a statement gives, each a line with columns between bars."""
    assert BINARIES is not None
    command = [str(BINARIES / "psql"), f"postgresql://{address}/{database}", "-qAtX", "-v", "ON_ERROR_STOP=1"]
    done = subprocess.run([*command, "-c", statement], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()
