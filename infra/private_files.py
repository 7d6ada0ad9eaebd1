"""Files and folders that only their owner can read."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from infra.installation import shell_command
from infra.reading import read_bytes
from infra.storage import TEMPORARY_PREFIX, StorageError, home, sync_folder

OURS = frozenset({"services", "datasets", "runs", "vbench"})
"""The folders that the project makes under SHAREVERSE_HOME."""
ADVICE = f"run `{shell_command('down')}`, move the file away, run `{shell_command('up')}`: a new one is drawn."
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def private_folder(folder: Path) -> Path:
    """Make `folder`, and those above it that lack, readable by their owner alone; return it.

    StorageError when it is no folder of this user.
    """
    try:
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        status = folder.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "it is a file", str(folder))
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be made ({error.strerror}): move away what stands there, or set SHAREVERSE_HOME to "
            "another folder."
        ) from error
    if status.st_uid != os.geteuid():
        raise StorageError(
            f"{folder} belongs to user {status.st_uid}, and you are {os.geteuid()}: set SHAREVERSE_HOME to a folder of "
            "your own."
        )
    if status.st_mode & OTHERS:
        folder.chmod(status.st_mode & ~OTHERS & 0o7777)
    return folder


@contextlib.contextmanager
def private_file(path: Path, text: str) -> Iterator[Path]:
    """Yield a temporary file beside `path`, with mode 0600, that holds `text`, synced; it is removed afterwards."""
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.urandom(4).hex()}-{path.name}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_private(path: Path, text: str) -> None:
    """Write a file with mode 0600, complete and synced or not at all."""
    with private_file(path, text) as temporary:
        os.replace(temporary, path)


def kept_secret(path: Path, drawn: str) -> str:
    """Return the secret that `path` holds; where there is none it is `drawn`, written down. StorageError if unreadable.

    Of two processes that draw at once both return the same.
    """
    private_folder(path.parent)
    if not os.path.lexists(path):
        with private_file(path, drawn + "\n") as temporary, contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    secret = read_bytes(path, ADVICE).strip()
    close_to_others(path)
    try:
        return secret.decode("ascii")
    except UnicodeDecodeError as error:
        raise StorageError(f"{path} holds no password: {ADVICE}") from error


def close_to_others(path: Path) -> None:
    """Take group's and others' rights from a file or folder; what is another user's or a symbolic link is left."""
    with contextlib.suppress(FileNotFoundError):  # a running service removes files
        status = path.lstat()
        if not stat.S_ISLNK(status.st_mode) and status.st_uid == os.geteuid() and status.st_mode & OTHERS:
            path.chmod(status.st_mode & ~OTHERS & 0o7777)


def close_folder(folder: Path) -> None:
    """Close a folder and all below it. The folder itself comes last: closed, it says that all below it is."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            close_to_others(Path(parent) / name)
    close_to_others(folder)


def close_home() -> None:
    """Close what the project keeps under SHAREVERSE_HOME. Folders that are closed already are not searched again.

    The home itself is closed unless it holds anything else: then it is somebody's folder of many things, not ours.
    """
    for name in sorted(OURS):
        folder = home() / name
        if folder.is_dir() and (name == "services" or folder.stat().st_mode & OTHERS):
            close_folder(folder)
    if {entry.name for entry in os.scandir(home())} <= OURS:
        close_to_others(home())
