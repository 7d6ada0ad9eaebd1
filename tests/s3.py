"""A real S3-compatible server (moto's), started in the test's process and reached over HTTP by the usual variables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from infra.storage import home

BUCKET = "bucket"
AWS_VARIABLES = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")


@contextmanager
def s3_server() -> Iterator[str]:
    """Run a server with an empty bucket on a free port; yield its address."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def use(patch: pytest.MonkeyPatch, endpoint: str, folder: Path) -> None:
    """Set the variables that lead to a server, and a state folder of its own."""
    for name in AWS_VARIABLES:
        patch.delenv(name, raising=False)
    patch.setenv("AWS_ENDPOINT_URL", endpoint)
    patch.setenv("AWS_ACCESS_KEY_ID", "key")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("SHAREVERSE_HOME", str(folder))
    s3fs.S3FileSystem.clear_instance_cache()


class Bucket:
    """The bucket as another program sees it."""

    def __init__(self, endpoint: str) -> None:
        self.client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        self.client.create_bucket(Bucket=BUCKET)

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=name, Body=data)

    def get(self, name: str) -> bytes:
        return self.client.get_object(Bucket=BUCKET, Key=name)["Body"].read()

    def names(self, prefix: str) -> dict[str, str]:
        """Return the time of writing by name, of all objects that begin so."""
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {entry["Key"]: entry["LastModified"].isoformat() for entry in found}

    def upload(self, folder: Path, prefix: str) -> None:
        """Put what a reader needs of a data set there."""
        for path in [*folder.glob("*.parquet"), folder / "dataset.json", *folder.glob("shards/*/*.tar")]:
            self.put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())


def copies() -> list[str]:
    """Return the names of the shards that lie in working copies."""
    return sorted(path.name for path in (home() / "datasets").glob("*/shards/*/*.tar"))
