"""A base is a run's last checkpoint, small and checked, that other runs start from."""

from __future__ import annotations

import pytest
import torch

from model import weights
from model.build import build_transformer
from model.codec import LINEAR_CODEC_FOLDER, fitted_codec_folder
from model.presets import PresetError
from tasks.encoding.encode import prepare_codec
from tasks.encoding.latents import latents_key
from tasks.runs.errors import RunError
from tasks.runs.spool import append_row
from tasks.sharding.reader import ClipIndex
from tasks.training.base import write_base
from tests.tasks.training.conftest import TINY

ALONE = {"cross_agent": "off", "raymap_axes": "own", "prediction": "x", "first_frame": "given"}


@pytest.fixture
def trained(new_run):
    """A run without cross-agent blocks, as after its last step."""
    run, _ = new_run("base", **ALONE)
    checkpoint = run.folder / "checkpoints" / "step-000006"
    if not checkpoint.exists():
        model = build_transformer(run.preset)
        with torch.no_grad():
            model.raymap_encoders["0"].proj.weight.fill_(0.5)
        model.save_pretrained(checkpoint / "model")
        (checkpoint / "trainer.json").write_text("{}")
        append_row(run.spool, {"step": 6, "time_s": 0.0, "train/loss": 0.5, "val/loss": 0.25, "train/step_s": 600.0})
    return run


def test_what_is_written_is_what_a_preset_starts_from(trained, tmp_path, monkeypatch):
    write_base(trained, tmp_path / "base")
    monkeypatch.setitem(weights.BUILT_IN, "shareverse-base", tmp_path / "base")
    preset = TINY.replace(**ALONE | {"cross_agent": "on", "base_model": "shareverse-base",
                                     "fitted_codec": "shareverse-base"})  # fmt: skip
    model = build_transformer(preset)
    assert float(model.raymap_encoders["0"].proj.weight.detach().min()) == 0.5
    stored = weights.load_weights(type(model), tmp_path / "base" / "transformer", low_cpu_mem_usage=False)
    assert {value.dtype for value in stored.state_dict().values()} == {torch.float32}
    assert str(trained.folder) not in (tmp_path / "base" / "transformer" / "config.json").read_text()
    card = (tmp_path / "base" / "README.md").read_text()
    assert "| training | preset `tiny`, seed 0, 6 steps of 2 pairs of clips, 0.2 hours |" in card
    assert "| losses | training 0.5000, validation 0.2500 |" in card
    index = ClipIndex(trained.dataset_dir)
    folder = tmp_path / "latents" / latents_key(index.digest, preset)
    prepare_codec(index, preset, folder)
    mine, theirs = folder / LINEAR_CODEC_FOLDER, fitted_codec_folder(preset.codec)
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == {
        path.name: path.read_bytes() for path in theirs.iterdir()
    }
    damaged = tmp_path / "base" / "transformer" / "diffusion_pytorch_model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(PresetError, match="is not what SHA256SUMS says: check the repository out again"):
        build_transformer(preset)


@pytest.mark.parametrize(("field", "other"), [("prediction", "v"), ("raymap_unit_m", 2.0)])
def test_a_preset_with_another_target_or_other_rays_than_the_base_is_refused(trained, tmp_path, field, other):
    write_base(trained, tmp_path / "base")
    preset = TINY.replace(**ALONE | {"cross_agent": "on", "base_model": str(tmp_path / "base"), field: other})
    with pytest.raises(PresetError, match=f"learned with {field} .* and this preset has {other!r}: set {field} to"):
        build_transformer(preset)


def test_latents_are_known_by_the_weights_of_a_codec_fitted_before(trained, tmp_path):
    write_base(trained, tmp_path / "base")
    preset = TINY.replace(fitted_codec=str(tmp_path / "base"))
    before = latents_key("digest", preset)
    file = tmp_path / "base" / "codec" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert latents_key("digest", preset) != before != latents_key("digest", TINY)


def test_what_is_no_base_is_refused(new_run, trained, tmp_path):
    run, _ = new_run("untrained", **ALONE)
    with pytest.raises(RunError, match="has no checkpoint"):
        write_base(run, tmp_path / "base")
    pair, _ = new_run("pair")
    build_transformer(pair.preset).save_pretrained(pair.folder / "checkpoints" / "step-000006" / "model")
    (pair.folder / "checkpoints" / "step-000006" / "trainer.json").write_text("{}")
    with pytest.raises(RunError, match="is no base: it has cross-agent blocks"):
        write_base(pair, tmp_path / "base")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(RunError, match="is not empty"):
        write_base(trained, tmp_path / "full")
