"""What cannot work is refused before the first clip is encoded, in one sentence that says what to do."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file

from infra.deepspeed_config import DeepSpeedConfigError
from infra.storage import StorageError
from model.codec import CodecError
from model.presets import PresetError
from tasks.runs.errors import RunError
from tasks.runs.run import new_run
from tasks.sharding.shards import ShardError
from tasks.training import resources, task
from tasks.training.needs import needs_of
from tasks.training.preflight import preflight
from tests.synthetic_dataset import write_dataset
from tests.tasks.training.conftest import BASE, TINY

VAE = {
    "down_block_types": ("CogVideoXDownBlock3D",) * 4, "up_block_types": ("CogVideoXUpBlock3D",) * 4,
    "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 8,
}  # fmt: skip


@pytest.fixture
def pretrained(tmp_path):
    """A CogVideoX pipeline's folder, small, that fits the preset tiny; with the empty prompt's embedding."""
    torch.manual_seed(0)
    CogVideoXTransformer3DModel(**BASE).save_pretrained(tmp_path / "base" / "transformer")
    AutoencoderKLCogVideoX(**VAE).save_pretrained(tmp_path / "base" / "vae")
    save_file({"empty": torch.zeros(1, 8)}, tmp_path / "empty.safetensors")
    return tmp_path


@pytest.fixture
def check(state, pretrained, monkeypatch):
    """Run the preflight of a training on the pretrained model, with changes."""
    monkeypatch.setenv("SHAREVERSE_HOME", str(state[0]))
    given = {
        "base_model": str(pretrained / "base"), "codec": "cogvideox", "codec_path": str(pretrained / "base"),
        "text_embedding": str(pretrained / "empty.safetensors"),
    }  # fmt: skip
    return lambda processes=2, dataset="synthetic", **changes: preflight(
        new_run(dataset, TINY.replace(**given | changes)), processes
    )


def rewrite(file, change):
    """Change the tensors of a safetensors file."""
    save_file(change(load_file(file)), file)


def refused(check, error, said, *, advice=":", **given):
    with pytest.raises(error) as found:
        check(**given)
    message = str(found.value)
    assert said in message
    assert advice in message
    assert "\n" not in message


def test_what_fits_passes(check):
    check()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.unlink(), "holds no diffusion_pytorch_model.safetensors"),
        (lambda file: file.write_bytes(file.read_bytes()[:-100]), "cannot be read"),
        (lambda file: file.write_bytes(b""), "cannot be read"),
        (lambda file: rewrite(file, lambda w: w | {"extra": torch.zeros(1)}), "holds the tensor extra"),
        (lambda file: rewrite(file, lambda w: dict(list(w.items())[1:])), "lacks the tensor"),
        (lambda file: rewrite(file, lambda w: {n: v[:1].clone() for n, v in w.items()}), "where its config.json says"),
        (lambda file: rewrite(file, lambda w: {n: v.to(torch.int32) for n, v in w.items()}), "which are no weights"),
        (lambda file: (file.parent / "config.json").write_text("{"), "holds no readable JSON"),
        (lambda file: (file.parent / "config.json").write_text("[]"), "holds a JSON list"),
        (lambda file: (file.parent / "config.json").unlink(), "cannot be"),
    ],
)
def test_base_and_codec_are_told_from_their_headers(check, pretrained, damage, said):
    damage(pretrained / "base/transformer/diffusion_pytorch_model.safetensors")
    refused(check, PresetError, said, advice="base_model")
    CogVideoXTransformer3DModel(**BASE).save_pretrained(pretrained / "base" / "transformer")
    damage(pretrained / "base/vae/diffusion_pytorch_model.safetensors")
    refused(check, CodecError, said, advice="codec_path")


@pytest.mark.parametrize(("field", "value"), [("num_layers", 10**9), ("num_layers", "two"), ("time_embed_dim", [])])
def test_a_configuration_that_makes_no_sense_is_refused_at_once(check, pretrained, field, value):
    config = pretrained / "base/transformer/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {field: value}))
    refused(check, PresetError, str(config), advice="base_model")


def test_models_that_are_nowhere_name_the_command(check):
    for name in ("THUDM/CogVideoX-5b-I2V", "nobody/none", "/nowhere/at all", "../..//x"):
        refused(check, PresetError, "hf download", base_model=name)
        refused(check, CodecError, "hf download", codec_path=name)


def test_what_does_not_fit_is_named(check, pretrained):
    refused(check, PresetError, "has sample_width 6 and this preset's video and codec need 12", width=96)
    refused(check, CodecError, "has latent_channels 8 and this preset needs 4", latent_channels=4, base_model="")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.unlink(), "is no file"),
        (lambda file: file.write_bytes(b"{"), "cannot be read"),
        (lambda file: save_file({"other": torch.zeros(1, 8)}, file), "holds no tensor 'empty'"),
        (lambda file: save_file({"empty": torch.zeros(2, 8)}, file), "is (2, 8) and this model takes (1, 8)"),
        (lambda file: save_file({"empty": torch.full((1, 8), torch.nan)}, file), "not finite"),
        (lambda file: save_file({"empty": torch.zeros(1, 8, dtype=torch.int8)}, file), "not finite numbers"),
    ],
)
def test_a_text_embedding_that_cannot_be_used_names_the_command(check, pretrained, damage, said):
    damage(pretrained / "empty.safetensors")
    refused(check, PresetError, said, advice="python -m model.empty_prompt")


def test_batches_stages_and_data_sets_are_checked(check, state):
    refused(check, DeepSpeedConfigError, "batch_size 2 is no multiple", processes=3)
    refused(check, RunError, "set ema_decay to 0", zero_stage=3)
    refused(check, ShardError, "run collect-dataset first", dataset="nothing")
    refused(check, RunError, "the model takes 25 frames and the clips have 17", frames=25, base_model="")
    write_dataset(state[0] / "datasets" / "unscored", train=1, val=0, test=0, frames=9)
    refused(check, RunError, "has no clips in its test split", dataset="unscored")
    write_dataset(state[0] / "datasets" / "short", train=1, val=0, test=1, frames=9)
    shard = state[0] / "datasets/short/shards/test/test-000000.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises((RunError, ShardError), match=r"test-000000\.tar"):
        check(dataset="short")


def test_disk_and_memory_are_asked_for(check, monkeypatch):
    needs = needs_of(TINY, 1)
    with monkeypatch.context() as patch:
        patch.setattr(resources, "free_memory", lambda: 1000.0)
        refused(check, StorageError, "2 training processes of preset tiny need at least", advice="take fewer processes")
    asked = {}
    monkeypatch.setattr(resources, "require_free_space", lambda folder, needed: asked.update({folder: needed}))
    check()
    assert sum(asked.values()) > TINY.training.keep_checkpoints * needs.checkpoint


@pytest.mark.parametrize("name", ["a\0b", "x" * 65, "tab\there", "line\nbreak", "\udcff", "\x1b[2J"])
def test_names_that_cannot_be_told_are_refused(state, monkeypatch, name):
    monkeypatch.setenv("SHAREVERSE_HOME", str(state[0]))
    with pytest.raises(RunError, match="run_name is ") as found:
        new_run("synthetic", TINY, name)
    assert str(found.value).isprintable()


@pytest.mark.parametrize("name", ["../../etc", "a/b", "..", "ä ö", "x" * 64])
def test_a_run_never_leaves_its_folder_whatever_its_name(state, monkeypatch, name):
    monkeypatch.setenv("SHAREVERSE_HOME", str(state[0]))
    assert new_run("synthetic", TINY, name).folder.parent == state[0] / "runs"


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "a\0b", "\udcff", ".hidden", "x" * 65])
def test_data_sets_are_names_of_folders(state, monkeypatch, name):
    monkeypatch.setenv("SHAREVERSE_HOME", str(state[0]))
    with pytest.raises(RunError, match="dataset is "):
        new_run(name, TINY)


def test_a_refused_training_leaves_nothing_behind(state, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(state[0]))
    monkeypatch.setattr(task, "get_run_logger", lambda: None)
    before = sorted((state[0] / "runs").glob("*"))
    with pytest.raises(PresetError, match="hf download"):
        task.open_run.fn("synthetic", "tiny", {"base_model": "nobody/none"}, "refused", 2)
    assert sorted((state[0] / "runs").glob("*")) == before
