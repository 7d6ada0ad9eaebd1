"""Files of a run that are damaged: one sentence each, with what to do; and one training of a run at a time."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from infra.locks import hold_lock
from infra.storage import StorageError
from model.build import build_transformer
from model.codec import CodecError, load_codec
from tasks.encoding.latents import EncodingError, LatentWindows
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.scoring.sampling import Sampler
from tasks.runs.checkpoint_record import check_files, check_resumable, file_hashes
from tasks.runs.errors import RunError
from tasks.runs.run import create_run, read_run
from tasks.runs.spool import read_rows, rewind
from tasks.training.ema import WeightAverage
from tasks.training.group import train
from tests.tasks.training.conftest import TINY

TEXTS = ["", "{", "[]", "null", "3", '{"a": NaN}', b"\xff", b"\0" * 40, "[" * 100_000]


def spoil(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def one_sentence(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_run_records_that_are_damaged(new_run, text):
    run, _ = new_run("damaged-records")
    whole = (run.folder / "run.json").read_bytes()
    spoil(run.folder / "run.json", text)
    with pytest.raises(RunError, match=r"run\.json.*restore it, or remove it") as found:
        read_run(run.run_id)
    one_sentence(found)
    (run.folder / "run.json").write_bytes(whole)
    spoil(run.folder / "finished.json", text)
    with pytest.raises(RunError, match=r"finished\.json.*score the run again"):
        run.finished()
    (run.folder / "finished.json").unlink()
    spoil(run.spool, text if text else "{\n")
    with open(run.spool, "ab") as file:
        file.write(b"\n")
    with pytest.raises(RunError, match=r"line \d+ of .*metrics\.jsonl.*remove that line"):
        rewind(run.spool, 1)
    with pytest.raises(RunError, match=r"line \d+ of "):
        read_rows(run.spool)


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "../x"}, {"name": 3}, {"dataset_digest": "0" * 64}, {"preset": {}},
        {"preset": {"name": "x", "video": 3}},
    ],
)  # fmt: skip
def test_a_run_record_that_was_changed(new_run, change):
    run, _ = new_run("changed-record")
    marker = run.folder / "run.json"
    whole = marker.read_text()
    marker.write_text(json.dumps(json.loads(whole) | change))
    with pytest.raises(RunError, match=r"run\.json"):
        read_run(run.run_id)
    with pytest.raises(RunError, match=r"run\.json"):
        create_run("synthetic", TINY, "changed-record")
    marker.write_text(whole)


@pytest.mark.parametrize("run_id", ["../../etc", "nothing", "a\0b", "\udcff", "F" * 12, "x" * 5000])
def test_ids_that_are_none(new_run, run_id):
    run, _ = new_run()
    with pytest.raises(RunError, match="there is no run ") as found:
        read_run(run_id)
    assert one_sentence(found).isprintable()
    (run.folder.parent / "last").write_bytes(run_id.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError, match=r"which is no run's id: name a run by its id"):
        read_run()


def test_a_run_folder_that_is_a_file(new_run):
    run, _ = new_run("a-file")
    shutil.rmtree(run.folder)
    run.folder.write_text("")
    with pytest.raises(RunError, match="is a file: move it away"):
        create_run("synthetic", TINY, "a-file")
    run.folder.unlink()


@pytest.fixture
def checkpoints(new_run):
    """A run with two made checkpoints, as training leaves them but for the engine's state."""
    run, latents = new_run("made", ema_decay=0.9)
    model = build_transformer(run.preset)
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
    for step in (2, 4):
        folder = run.folder / f"checkpoints/step-{step:06d}"
        model.save_pretrained(folder / "model")
        WeightAverage(model, 0.9).save(folder / "ema.safetensors")
        (folder / "engine").mkdir(exist_ok=True)
        (folder / "engine/state.pt").write_bytes(b"state")
        record = {"run_id": run.run_id, "step": step, "processes": 1, "files": file_hashes(folder)}
        (folder / "trainer.json").write_text(json.dumps(record))
    return run, latents, run.latest_checkpoint()


def test_whole_checkpoints_are_gone_on_from(checkpoints):
    run, _, last = checkpoints
    check_resumable(last, run, 1)
    check_files(last)


@pytest.mark.parametrize("name", ["engine/state.pt", "model/config.json", "ema.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "folder"])
def test_a_damaged_newest_checkpoint_is_refused_and_the_older_one_named(checkpoints, name, damage):
    run, latents, last = checkpoints
    file = last / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    if damage == "flip":
        file.write_bytes(data)
    elif damage == "cut":
        file.write_bytes(data[:3])
    else:
        file.unlink()
        if damage == "folder":
            file.mkdir()
    with pytest.raises(RunError, match=rf"step-000004(/| is damaged: ){name}.* go on from step-000002") as found:
        train(run, latents, 1)
    one_sentence(found)


@pytest.mark.parametrize("text", [*TEXTS, "{}", '{"files": 3}', '{"processes": "1"}'], ids=range(len(TEXTS) + 3))
def test_a_damaged_trainer_record(checkpoints, text):
    run, _, last = checkpoints
    spoil(last / "trainer.json", text)
    with pytest.raises(RunError, match=r"trainer\.json.*step-000002") as found:
        check_resumable(last, run, 1)
    one_sentence(found)


def test_averages_of_another_model_or_none(checkpoints):
    run, _, last = checkpoints
    average = WeightAverage(build_transformer(run.preset), 0.9)
    save_file({"a": torch.zeros(1)}, last / "ema.safetensors")
    with pytest.raises(RunError, match="holds other weights than this model's"):
        average.load(last / "ema.safetensors")
    (last / "ema.safetensors").write_bytes(b"x")
    with pytest.raises(RunError, match="cannot be read"):
        average.load(last / "ema.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: {n: torch.full_like(v, torch.nan) for n, v in weights.items()}, "values that are not finite"),
        (lambda weights: dict(list(weights.items())[1:]), "lacks the tensor"),
        (lambda weights: weights | {"more": torch.zeros(1)}, "holds the tensor more"),
        (lambda weights: {n: v.flatten()[:1].clone() for n, v in weights.items()}, "where its config.json says"),
    ],
)
def test_weights_that_are_no_weights_of_the_run_generate_nothing(checkpoints, change, said):
    run, latents, last = checkpoints
    file = last / "model/diffusion_pytorch_model.safetensors"
    save_file(change(load_file(file)), file)
    with pytest.raises(RunError, match="is not what its hash says"):
        Sampler.of_checkpoint(run.preset, last, latents)
    (last / "trainer.json").write_text("{}")  # as of earlier versions, without hashes
    with pytest.raises(EvaluationError, match=said) as found:
        Sampler.of_checkpoint(run.preset, last, latents)
    assert "train the run again" in one_sentence(found)


def test_a_model_of_another_configuration_generates_nothing(checkpoints):
    run, latents, last = checkpoints
    shutil.rmtree(last / "model")
    build_transformer(run.preset.replace(num_layers=3)).save_pretrained(last / "model")
    (last / "trainer.json").write_text("{}")
    with pytest.raises(EvaluationError, match="has num_layers 3 and its run's configuration says 2"):
        Sampler.of_checkpoint(run.preset, last, latents)


@pytest.fixture
def cache(state, tmp_path):
    return shutil.copytree(state[1], tmp_path / "latents")


@pytest.mark.parametrize("text", [*TEXTS, "{}"], ids=range(len(TEXTS) + 1))
def test_latents_that_are_damaged(cache, text):
    for name in ("latents.json", "index.parquet"):
        whole = (cache / name).read_bytes()
        spoil(cache / name, text)
        with pytest.raises(EncodingError, match=rf"{name}.*run train-shareverse again") as found:
            LatentWindows(cache, "train")
        one_sentence(found)
        (cache / name).write_bytes(whole)
    (cache / "shards/train/train-000000.tar").unlink()
    with pytest.raises(EncodingError, match=r"cannot be read.*encode again"):
        LatentWindows(cache, "train")[0]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_a_codec_that_is_damaged(cache, text):
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        whole = (cache / "codec" / name).read_bytes()
        spoil(cache / "codec" / name, text)
        with pytest.raises(CodecError, match="run train-shareverse again") as found:
            load_codec(TINY.codec, cache)
        one_sentence(found)
        (cache / "codec" / name).write_bytes(whole)
    file = cache / "codec/diffusion_pytorch_model.safetensors"
    save_file({name: value * torch.nan for name, value in load_file(file).items()}, file)
    with pytest.raises(CodecError, match="not finite"):
        load_codec(TINY.codec, cache)


def test_a_run_is_trained_by_one_process_at_a_time_and_free_when_that_is_killed(new_run):
    run, latents = new_run("twice")
    held = run.folder / "training.lock"
    script = f"import fcntl, sys; f = open({str(held)!r}, 'a'); fcntl.flock(f, 2); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(RunError, match="is being trained by another process: wait until it ends"):
            train(run, latents, 1)
        assert not (run.folder / "checkpoints").exists()
        other.kill()
        other.wait()
        with hold_lock(held, "still held"):
            pass


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def none(*given):
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(StorageError, match="its file system has no locks; set SHAREVERSE_HOME"):
        hold_lock(tmp_path / "lock", "held").__enter__()
    with pytest.raises(StorageError, match="cannot be opened"):
        hold_lock(tmp_path, "held").__enter__()
