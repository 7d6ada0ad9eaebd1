"""A data set at a URL: fetched once, whole and checked, within a bound; what is wrong with it is one sentence."""

from __future__ import annotations

import hashlib
import threading

import fsspec
import pytest
import s3fs

from infra import places
from infra.places import NotThereError, Place, PlaceError, Version, dataset_folder
from infra.storage import home
from tests.s3 import BUCKET, Bucket, use

SHARD = "shards/train/train-{:06d}.tar"


@pytest.fixture
def place(endpoint, bucket, tmp_path, monkeypatch, request):
    """A place of the test's own in the bucket."""
    use(monkeypatch, endpoint, tmp_path)
    return Place.of(f"s3://{BUCKET}/{request.node.name.replace('[', '-').replace(']', '')}")


def put(bucket: Bucket, place: Place, name: str, data: bytes) -> str:
    bucket.put(f"{place.name}/{name}", data)
    return hashlib.sha256(data).hexdigest()


def shards(bucket: Bucket, place: Place, count: int, size: int = 1000) -> list[tuple[str, str]]:
    """Put shards there; return their names and hashes."""
    names = [SHARD.format(number) for number in range(count)]
    return [(name, put(bucket, place, name, bytes([number]) * size)) for number, name in enumerate(names)]


def test_a_path_and_a_file_url_are_the_folder_itself(tmp_path):
    assert Place.of(tmp_path) == Place.of(str(tmp_path)) == Place.of(f"file://{tmp_path}") == Place(tmp_path)
    assert dataset_folder(f"file://{tmp_path}") == tmp_path
    assert dataset_folder("demo") == home() / "datasets" / "demo"


def test_a_working_copy_knows_its_url(place):
    assert Place.of(place.folder) == place == Place.of(f"{place.url}/")
    assert place.folder.parent == home() / "datasets"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("ftp://host/name", "unknown scheme"),
        ("s3://bucket", "names no data set in a bucket"),
        ("s3:///name", "names no data set in a bucket"),
        ("s3://key:secret@bucket/name", "keys belong into the AWS variables"),
        ("file://host/folder", "names no folder of this machine"),
    ],
)
def test_an_impossible_url_is_one_sentence(url, sentence):
    with pytest.raises(PlaceError, match=sentence) as found:
        Place.of(url)
    assert "secret" not in str(found.value)


def test_memory_is_a_place_too(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path))
    fsspec.filesystem("memory").pipe_file("/place/name", b"content")
    place = Place.of("memory://place")
    assert place.fetch("name").read_bytes() == b"content"
    (place.folder / "made").write_bytes(b"here")
    assert place.publish("made", hashlib.sha256(b"here").hexdigest())
    assert fsspec.filesystem("memory").cat_file("/place/made") == b"here"


def test_a_changed_table_is_fetched_anew(bucket, place):
    put(bucket, place, "dataset.json", b"one")
    assert place.fetch("dataset.json").read_bytes() == b"one"
    put(bucket, place, "dataset.json", b"two")
    assert place.fetch("dataset.json").read_bytes() == b"two"


def test_a_shard_with_the_hash_wanted_is_not_asked_for_again(bucket, place, monkeypatch):
    ((name, digest),) = shards(bucket, place, 1)
    place.fetch(name, digest)
    monkeypatch.setattr(places, "file_system", None)
    with place.hold(name, digest) as path:
        assert path.read_bytes() == bytes(1000)


def test_shards_stay_within_the_bound_and_the_oldest_leaves(bucket, place, monkeypatch):
    monkeypatch.setenv(places.CACHE_VARIABLE, "2500")
    (one, two, three) = shards(bucket, place, 3)
    for name, digest in (one, two, one, three):
        with place.hold(name, digest):
            pass
    assert [path for _, _, path in places.shard_copies()] == [place.folder / one[0], place.folder / three[0]]


def test_a_shard_being_read_stays(bucket, place, monkeypatch):
    monkeypatch.setenv(places.CACHE_VARIABLE, "1500")
    one, two = shards(bucket, place, 2)
    with place.hold(*one) as path:
        with pytest.raises(PlaceError, match=r"do not fit into the 1500 bytes .* SHAREVERSE_CACHE_BYTES"):
            place.fetch(*two)
        assert path.read_bytes() == bytes(1000)
    place.fetch(*two)
    assert not path.exists()


def test_many_readers_share_one_bounded_cache(bucket, place, monkeypatch):
    monkeypatch.setenv(places.CACHE_VARIABLE, "3000")
    held, wrong = shards(bucket, place, 6), []

    def read(start: int) -> None:
        for step in range(12):
            number = (start + step) % 6
            with place.hold(*held[number]) as path:
                if path.read_bytes() != bytes([number]) * 1000:
                    wrong.append(number)

    readers = [threading.Thread(target=read, args=(start,)) for start in (0, 3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert not wrong
    assert sum(size for _, size, _ in places.shard_copies()) <= 3000


def test_other_content_than_recorded_is_refused(bucket, place):
    ((name, digest),) = shards(bucket, place, 1)
    bucket.put(f"{place.name}/{name}", bytes(900))
    with pytest.raises(PlaceError, match="is not what the data set's record says: it has 900 bytes"):
        place.fetch(name, digest)
    assert not (place.folder / name).exists()


def test_an_object_that_changes_meanwhile_is_refused(bucket, place, monkeypatch):
    ((name, digest),) = shards(bucket, place, 1)
    versions = iter([Version(1000, "before"), Version(1000, "after")])
    monkeypatch.setattr(Place, "version", lambda self, name: next(versions))
    with pytest.raises(PlaceError, match="was changed while it was read"):
        place.fetch(name, digest)


def test_a_stream_that_ends_early_is_refused(bucket, place, monkeypatch):
    ((name, digest),) = shards(bucket, place, 1)
    monkeypatch.setattr(Place, "chunks", lambda self, name: iter([bytes(400)]))
    with pytest.raises(PlaceError, match="ended after 400 of 1000 bytes"):
        place.fetch(name, digest)


def test_a_missing_file_and_a_missing_bucket_are_told_apart(place):
    with pytest.raises(NotThereError, match=r"dataset\.json is not there"):
        place.fetch("dataset.json")
    with pytest.raises(PlaceError, match="there is no bucket 'nobodys'"):
        Place.of("s3://nobodys/name").fetch("dataset.json")


def test_without_keys_the_sentence_says_so(place, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(PlaceError, match="without keys: set AWS_ACCESS_KEY_ID"):
        place.fetch("dataset.json")


def test_a_bound_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv(places.CACHE_VARIABLE, "64 GB")
    with pytest.raises(PlaceError, match="SHAREVERSE_CACHE_BYTES is '64 GB'"):
        places.cache_bytes()


def test_a_published_file_is_uploaded_once(bucket, place):
    path = place.folder / SHARD.format(0)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"sealed")
    digest = hashlib.sha256(b"sealed").hexdigest()
    assert place.publish(SHARD.format(0), digest)
    assert not place.publish(SHARD.format(0), digest)
    assert bucket.get(f"{place.name}/{SHARD.format(0)}") == b"sealed"


def test_a_published_file_that_was_lost_or_altered_is_uploaded_again(bucket, place):
    name = SHARD.format(0)
    (place.folder / name).parent.mkdir(parents=True)
    (place.folder / name).write_bytes(b"sealed")
    digest = hashlib.sha256(b"sealed").hexdigest()
    place.publish(name, digest)
    bucket.client.delete_object(Bucket=BUCKET, Key=f"{place.name}/{name}")
    assert place.publish(name, digest)
    bucket.put(f"{place.name}/{name}", b"longer than before")
    assert place.publish(name, digest)
    assert bucket.get(f"{place.name}/{name}") == b"sealed"
    assert not place.publish(name, digest, again=True)
