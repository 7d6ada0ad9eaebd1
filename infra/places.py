"""A data set's place is a path or a URL: `s3://bucket/name`, `gs://bucket/name`, `memory://name`, `file:///path`.

Of a place at a URL this machine keeps a working copy, a folder under the state folder's `datasets/` that holds also:

.place/place.json      the URL
.place/<file>.json     size and etag of the object that <file> is a copy of, and the sha256 of both
.place/incoming        what is being fetched: it gets its name once it is whole, synced and checked

Tables are fetched once and stay. Shards come when they are read and go again: all shards fetched on this machine
together take at most SHAREVERSE_CACHE_BYTES, and those not used for longest leave first. A file that was made here
stays until it is published. `file://` is another way to write a path: nothing is copied.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import fsspec

from infra.locks import hold_lock
from infra.reading import one_line, read_json
from infra.storage import StorageError, atomic_file, home, make_folder, require_free_space, sha256_bytes, sync_folder

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
REMOTE_SCHEMES = {"s3": "pip install 'shareverse[s3]'", "gs": "pip install gcsfs", "memory": "pip install fsspec"}
"""Scheme -> what installs its file system."""
BUCKET_SCHEMES = frozenset({"s3", "gs"})
CACHE_VARIABLE, DEFAULT_CACHE_BYTES = "SHAREVERSE_CACHE_BYTES", 2**36
BOOKS = ".place"
CHUNK = 2**23
ADVICE = "remove it; what it describes is fetched anew."


class PlaceError(StorageError):
    """A place cannot be read or written, or holds something else than it should."""


class NotThereError(PlaceError):
    """A place has no such file."""


@dataclass(frozen=True)
class Version:
    """What tells two states of an object apart without reading it."""

    size: int
    etag: str


@dataclass(frozen=True)
class Place:
    """Where a data set lies: a folder, or a URL with this machine's working copy of it."""

    folder: Path
    url: str = ""

    @classmethod
    def of(cls, place: Place | Path | str) -> Place:
        """Return the place that a path, the folder of a working copy, or a URL names.

        PlaceError for a URL of an unknown scheme, or without a bucket and a name.
        """
        if isinstance(place, Place):
            return place
        if isinstance(place, str) and is_url(place):
            return place_at(place)
        folder = Path(place)
        marker = folder / BOOKS / "place.json"
        return cls(folder, str(read_json(marker, ADVICE, error=PlaceError).get("url", "")) if marker.exists() else "")

    def __str__(self) -> str:
        return self.url or str(self.folder)

    @property
    def name(self) -> str:
        """The last part of the path or URL."""
        return self.url.rpartition("/")[2] or self.folder.name

    def where(self, name: str) -> str:
        """Return a file's path or URL, for messages."""
        return f"{self.url}/{name}" if self.url else str(self.folder / name)

    def fetch(self, name: str, sha256: str = "") -> Path:
        """Return a file's path on this machine; of a URL, the copy is made where there is none.

        sha256: what the content must have; a copy that has it is not compared with the object any more. Without it, the
        copy is taken while size and etag are those of the object. NotThereError where the place has no such file,
        PlaceError for one that cannot be read, is cut short, changes meanwhile or has other content.
        """
        if self.url and not self.is_current(name, sha256):
            with hold_lock(home() / "places.lock", "", error=PlaceError, on_wait=no_message):
                if not self.is_current(name, sha256):  # another process may have fetched it meanwhile
                    self.download(name, sha256)
        return self.folder / name

    @contextlib.contextmanager
    def hold(self, name: str, sha256: str = "") -> Iterator[Path]:
        """Yield a file's path on this machine as `fetch` does; the copy stays as long as the block."""
        if not self.url:
            yield self.folder / name
            return
        with self.locked(name, sha256) as file:
            yield Path(file.name)

    def locked(self, name: str, sha256: str) -> IO[bytes]:
        """Return a copy as an open file whose lock keeps it from leaving."""
        while True:
            path = self.fetch(name, sha256)
            try:
                file = open(path, "rb")  # noqa: SIM115 - the caller closes it
            except FileNotFoundError:  # it left before it was opened
                continue
            fcntl.flock(file, fcntl.LOCK_SH)
            if os.fstat(file.fileno()).st_nlink:  # else it left before it was locked
                os.utime(self.books(name), ns=(time.time_ns(), time.time_ns()))  # by itself, as coarse as a tick
                return file
            file.close()

    def is_current(self, name: str, sha256: str) -> bool:
        """Tell whether the copy of a file is there, and what `fetch` is to return."""
        record, path = self.record(name), self.folder / name
        if record is None or not path.is_file() or path.stat().st_size != record["size"]:
            return False
        if sha256:
            return bool(record["sha256"] == sha256)
        return self.version(name) == Version(record["size"], record["etag"])

    def books(self, name: str) -> Path:
        """Return the path of what is known of a copy."""
        return self.folder / BOOKS / f"{name}.json"

    def record(self, name: str) -> dict[str, Any] | None:
        """Return size, etag and sha256 of the object that a file is a copy of; None for one that is no copy."""
        path = self.books(name)
        if not path.exists():
            return None
        record: dict[str, Any] = read_json(path, ADVICE, error=PlaceError)
        return record if record.keys() >= {"size", "etag", "sha256"} else None

    def write_record(self, name: str, version: Version, sha256: str) -> None:
        with atomic_file(self.books(name)) as temporary:
            temporary.write_text(json.dumps({"size": version.size, "etag": version.etag, "sha256": sha256}))

    def compare(self, name: str) -> None:
        """Have a file of a URL fetched anew unless size and etag of its copy are still those of the object."""
        record = self.record(name) if self.url else None
        if record is not None and self.version(name) != Version(record["size"], record["etag"]):
            self.forget(name)

    def forget(self, name: str) -> None:
        """Have a file fetched anew: its copy is damaged, or the object was changed."""
        self.books(name).unlink(missing_ok=True)

    def version(self, name: str) -> Version:
        """Return size and etag of an object. NotThereError where there is none, PlaceError for no answer."""
        with told(self.url, name):
            info = file_system(self.url).info(f"{self.url}/{name}")
        marks = (info.get(key) for key in ("ETag", "etag", "mtime", "created"))
        return Version(int(info["size"]), str(next((mark for mark in marks if mark), "")).strip('"'))

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield an object's content."""
        with (
            told(self.url, name),
            file_system(self.url).open(f"{self.url}/{name}", "rb", block_size=CHUNK, cache_type="readahead") as source,
        ):
            while chunk := source.read(CHUNK):
                yield chunk

    def download(self, name: str, sha256: str) -> None:
        """Make the copy of an object, or make it anew, under this machine's lock of places."""
        found, path, incoming = self.version(name), self.folder / name, self.folder / BOOKS / "incoming"
        self.forget(name)
        make_room(found.size)
        require_free_space(self.folder, found.size)
        digest, size = hashlib.sha256(), 0
        with open(incoming, "wb") as file:
            for chunk in self.chunks(name):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(file.fileno())
        if self.version(name) != found:
            raise PlaceError(f"{self.where(name)} was changed while it was read: run again once nobody writes there.")
        if size != found.size:
            raise PlaceError(f"{self.where(name)} ended after {size} of {found.size} bytes: run again.")
        if sha256 not in ("", digest.hexdigest()):
            raise PlaceError(
                f"{self.where(name)} is not what the data set's record says: it has {size} bytes of another SHA256; "
                "upload it again, or run collect-dataset again where it was made."
            )
        make_folder(path.parent)
        os.replace(incoming, path)
        sync_folder(path.parent)
        self.write_record(name, found, digest.hexdigest())

    def publish(self, name: str, sha256: str, *, again: bool = False) -> bool:
        """Upload a file that was made here, whole or not at all; return whether it was uploaded.

        Not uploaded is one that was before, while the object has its size and etag. `again`: the object is read and its
        sha256 compared. Nothing is done for a path, where a file made is published.
        """
        if not self.url or self.is_published(name, sha256, again=again):
            return False
        path = self.folder / name
        size = path.stat().st_size
        self.forget(name)
        with told(self.url, name):
            file_system(self.url).put_file(str(path), f"{self.url}/{name}")
        version = self.version(name)
        if version.size != size:
            raise PlaceError(f"{self.where(name)} has {version.size} bytes of {size} after its upload: run again.")
        self.write_record(name, version, sha256)
        return True

    def is_published(self, name: str, sha256: str, *, again: bool = False) -> bool:
        """Tell whether the place has this content under this name. See `publish`."""
        record = self.record(name)
        if record is None or record["sha256"] != sha256:
            return False
        try:
            if self.version(name) != Version(record["size"], record["etag"]):
                return False
            return not again or self.object_sha256(name) == sha256
        except NotThereError:
            return False

    def object_sha256(self, name: str) -> str:
        """Return the sha256 of an object, read from end to end."""
        digest = hashlib.sha256()
        for chunk in self.chunks(name):
            digest.update(chunk)
        return digest.hexdigest()


def no_message() -> None:
    """Wait for another process' download without a word."""


def is_url(text: str) -> bool:
    """Tell whether a data set's place is written as a URL."""
    return URL.fullmatch(text) is not None


def dataset_folder(dataset: str) -> Path:
    """Return the folder of a data set: `datasets/<name>`, a path's own for `file://`, a URL's working copy."""
    return Place.of(dataset).folder if is_url(dataset) else home() / "datasets" / dataset


def place_at(url: str) -> Place:
    """Return the place at a URL. Its working copy is made where there is none. See `Place.of`."""
    parts, url = urlsplit(url), url.rstrip("/")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.strip("/"):
            raise PlaceError(f"{url} names no folder of this machine: write file:///path/to/the/data-set.")
        return Place.of(Path(unquote(parts.path)))
    if parts.scheme not in REMOTE_SCHEMES:
        raise PlaceError(f"{url} has an unknown scheme: write a path, or s3://, gs://, file:// or memory://.")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise PlaceError(
            f"the {parts.scheme}:// URL has a user, a query or a fragment: keys belong into the AWS variables."
        )
    if parts.scheme in BUCKET_SCHEMES and not (parts.netloc and parts.path.strip("/")):
        raise PlaceError(f"{url} names no data set in a bucket: write {parts.scheme}://bucket/name.")
    last = re.sub(r"[^A-Za-z0-9._-]", "-", url.rpartition("/")[2])[:40]
    folder = home() / "datasets" / f"{parts.scheme}-{last}-{sha256_bytes(url.encode())[:8]}"
    marker = folder / BOOKS / "place.json"
    if not marker.exists():
        with atomic_file(marker) as temporary:
            temporary.write_text(json.dumps({"url": url}))
    return Place(folder, url)


def file_system(url: str) -> fsspec.AbstractFileSystem:
    """Return fsspec's file system of a URL; S3's endpoint and keys come from the usual AWS variables."""
    scheme = url.partition(":")[0]
    try:
        return fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        raise PlaceError(f"{scheme}:// needs a package that is not installed: {REMOTE_SCHEMES[scheme]}.") from error


def missing_bucket(url: str) -> str:
    """Return the name of a URL's bucket where that does not exist, else ""."""
    scheme, _, rest = url.partition("://")
    bucket = rest.partition("/")[0]
    with contextlib.suppress(*service_errors()):  # what cannot be asked for may exist
        if scheme in BUCKET_SCHEMES and not file_system(url).exists(bucket):
            return bucket
    return ""


def service_errors() -> tuple[type[Exception], ...]:
    """Return the classes of errors by which file systems fail that are no OSError."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return (OSError, ValueError)
    return (OSError, ValueError, BotoCoreError, ClientError)


@contextlib.contextmanager
def told(url: str, name: str) -> Iterator[None]:
    """Turn what a file system raises into a PlaceError of one sentence."""
    try:
        yield
    except service_errors() as error:
        where, why = f"{url}/{name}", one_line(error)
        if isinstance(error, FileNotFoundError) and (bucket := missing_bucket(url)):
            raise PlaceError(
                f"{url}: there is no bucket {bucket!r}: make it, or check AWS_ENDPOINT_URL and the name."
            ) from error
        if isinstance(error, FileNotFoundError):
            raise NotThereError(f"{where} is not there: check the URL, and that the data set is finished.") from error
        if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
            raise PlaceError(
                f"{where} cannot be reached without keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a "
                "profile in ~/.aws."
            ) from error
        if isinstance(error, PermissionError):
            raise PlaceError(f"{where}: access is denied ({why}): check the keys and the bucket's policy.") from error
        if isinstance(error, OSError) and error.errno == errno.EBUSY:  # s3fs: the etag is another one
            raise PlaceError(f"{where} was changed while it was read: run again once nobody writes there.") from error
        raise PlaceError(f"{where} cannot be reached ({why}): check the URL, AWS_ENDPOINT_URL and the keys.") from error


def cache_bytes() -> int:
    """Return how many bytes copies of shards may take on this machine. PlaceError for what is no number."""
    text = os.environ.get(CACHE_VARIABLE, "") or str(DEFAULT_CACHE_BYTES)
    if not text.isdecimal() or not int(text):
        raise PlaceError(f"{CACHE_VARIABLE} is {text!r}: give a number of bytes, such as {DEFAULT_CACHE_BYTES}.")
    return int(text)


def make_room(needed: int) -> None:
    """Remove copies of shards, those not used for longest first, until `needed` bytes more are within the bound.

    Those that are being read stay. PlaceError where that is not enough.
    """
    bound, copies = cache_bytes(), shard_copies()
    used = sum(size for _, size, _ in copies)
    for _, size, path in copies:
        if used + needed <= bound:
            return
        used -= size if remove_unused(path) else 0
    if used + needed > bound:
        raise PlaceError(
            f"{needed} bytes do not fit into the {bound} bytes for copies of shards, of which {used} are being read: "
            f"set {CACHE_VARIABLE} to more."
        )


def shard_copies() -> list[tuple[float, int, Path]]:
    """Return time of last use, size and path of the copies of shards on this machine, the oldest first."""
    copies = []
    for books in (home() / "datasets").glob(f"*/{BOOKS}/shards/*/*.tar.json"):
        path = books.parents[3] / books.relative_to(books.parents[2]).with_suffix("")
        with contextlib.suppress(FileNotFoundError):
            copies.append((books.stat().st_mtime, path.stat().st_size, path))
    return sorted(copies)


def remove_unused(path: Path) -> bool:
    """Remove a copy unless it is being read; return whether it is gone."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    return True
