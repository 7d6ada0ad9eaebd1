"""A data set at a URL is read as one in a folder is, by ClipPairs, verify and encoding."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from webdataset.gopen import gopen_schemes

from infra.places import CACHE_VARIABLE, Place, PlaceError
from model.presets import Preset
from tasks.runs.run import create_run, read_run
from tasks.sharding import __main__ as command_line
from tasks.sharding.errors import ShardError
from tasks.sharding.reader import ClipPairs
from tasks.sharding.verify import verify
from tests.local_encoding import encode_here
from tests.s3 import BUCKET, copies, use
from tests.synthetic_dataset import write_dataset


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("datasets") / "synthetic")


@pytest.fixture
def url(endpoint, bucket, local, tmp_path, monkeypatch, request):
    """The data set's URL, under a prefix of the test's own."""
    use(monkeypatch, endpoint, tmp_path)
    bucket.upload(local, request.node.name)
    return f"s3://{BUCKET}/{request.node.name}"


def test_pairs_are_those_of_the_folder_and_shards_stay_within_the_bound(url, local, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(max(path.stat().st_size for path in local.glob("shards/train/*.tar"))))
    here, there = ClipPairs(local, "train"), ClipPairs(url, "train")
    assert there.index.digest == here.index.digest
    for position in range(len(here)):
        assert (there[position].videos == here[position].videos).all()
        assert len(copies()) == 1


def test_verify_reads_it_from_end_to_end(url, capsys):
    assert command_line.main(["verify", url]) == 0
    assert capsys.readouterr().out == "8 clip pairs are whole.\n"


def test_verify_finds_a_shard_that_was_altered_after_it_was_fetched(url, bucket):
    verify(url)
    shard = next(name for name in bucket.names(url.rpartition("/")[2]) if name.endswith(".tar"))
    bucket.put(shard, bytes(512))
    with pytest.raises(PlaceError, match="is not what the data set's record says: it has 512 bytes"):
        verify(url)


def test_a_damaged_copy_is_said_and_fetched_anew(url):
    pairs = ClipPairs(url, "train")
    expected = pairs[0].videos
    copy = Place.of(url).folder / pairs.rows[0]["shard"]
    data = bytearray(copy.read_bytes())
    data[2000] ^= 1
    copy.write_bytes(data)
    with pytest.raises(ShardError, match="is a damaged copy of s3://"):
        pairs[0]
    assert (pairs[0].videos == expected).all()


def test_what_is_not_finished_is_said(url, bucket):
    bucket.client.delete_object(Bucket=BUCKET, Key=f"{url.rpartition('/')[2]}/dataset.json")
    with pytest.raises(ShardError, match=rf"{url} is no finished data set \(no dataset\.json\)"):
        ClipPairs(url, "train")


def test_latents_and_run_are_those_of_the_folder(url, local, tmp_path):
    preset = Preset.load("tiny")
    run = create_run(url, preset)
    assert read_run(run.run_id).dataset == url
    there = encode_here(run.dataset_dir, preset)
    shutil.copytree(local, tmp_path / "datasets" / "local")
    here = encode_here(tmp_path / "datasets" / "local", preset)
    assert there.name == here.name
    assert json.loads((there / "latents.json").read_text()) == json.loads((here / "latents.json").read_text())
    assert create_run("local", preset).run_id == run.run_id


def recipe(word: str) -> str:
    """Return the page's Python that holds a word."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "DATA_SET.md").read_text()
    (found,) = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if word in code]
    return found


def test_the_page_uploads_what_readers_need(url, bucket, local):
    code = recipe("put_file").replace("var/datasets/demo", str(local))
    exec(code.replace("bucket/demo", f"{BUCKET}/by_the_page"), {})
    uploaded, expected = bucket.names("by_the_page"), bucket.names(url.rpartition("/")[2])
    assert {name.partition("/")[2] for name in uploaded} == {name.partition("/")[2] for name in expected}


def test_plain_webdataset_reads_it_by_the_page(url, local, capsys, monkeypatch):
    monkeypatch.setitem(gopen_schemes, "s3", None)  # put back when the test ends
    exec(recipe("gopen_schemes").replace("s3://bucket/demo", url), {})
    keys = [row["key"] for row in ClipPairs(local, "train").rows[:2]]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == keys
