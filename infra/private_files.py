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

PROJECT_FOLDERS = frozenset({"services", "datasets", "runs", "vbench"})
"""The folders that the project creates under SHAREVERSE_HOME."""
SECRET_ADVICE = f"run `{shell_command('down')}`, move the file away, run `{shell_command('up')}`: a new one is drawn."
GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def private_folder(folder: Path) -> Path:
    """Make `folder`, with its missing parents, accessible to its owner alone; return it.

    StorageError when it is not a folder of this user, or cannot be made.
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
    if status.st_mode & GROUP_AND_OTHERS:
        folder.chmod(status.st_mode & ~GROUP_AND_OTHERS & 0o7777)
    return folder


@contextlib.contextmanager
def private_file(path: Path, text: str) -> Iterator[Path]:
    """Yield a temporary file beside `path` with mode 0600 that holds `text`, synced; remove it afterwards."""
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


def read_or_create_secret(path: Path, drawn: str) -> str:
    """Return the secret in the file `path`, which is made with the secret `drawn` where there is none.

    Two processes that do this at once return the same secret. StorageError where the file is unreadable.
    """
    private_folder(path.parent)
    if not os.path.lexists(path):
        with private_file(path, drawn + "\n") as temporary, contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    secret = read_bytes(path, SECRET_ADVICE).strip()
    restrict_to_owner(path)
    try:
        return secret.decode("ascii")
    except UnicodeDecodeError as error:
        raise StorageError(f"{path} holds no password: {SECRET_ADVICE}") from error


def restrict_to_owner(path: Path) -> None:
    """Take away the rights of group and others on a file or folder. Symbolic links and other users' files are left."""
    with contextlib.suppress(FileNotFoundError):  # a running service removes files
        status = path.lstat()
        if not stat.S_ISLNK(status.st_mode) and status.st_uid == os.geteuid() and status.st_mode & GROUP_AND_OTHERS:
            path.chmod(status.st_mode & ~GROUP_AND_OTHERS & 0o7777)


def restrict_folder(folder: Path) -> None:
    """Restrict a folder and everything in it to the owner. The folder itself comes last, as a mark of completion."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            restrict_to_owner(Path(parent) / name)
    restrict_to_owner(folder)


def restrict_home() -> None:
    """Restrict the project's folders under SHAREVERSE_HOME to their owner. Restricted ones are not searched again.

    The home itself is restricted only if it holds nothing else: otherwise it is a folder for other things too.
    """
    for name in sorted(PROJECT_FOLDERS):
        folder = home() / name
        if folder.is_dir() and (name == "services" or folder.stat().st_mode & GROUP_AND_OTHERS):
            restrict_folder(folder)
    if {entry.name for entry in os.scandir(home())} <= PROJECT_FOLDERS:
        restrict_to_owner(home())
