"""Trainings that leave the base as it is, from the first step to the exported pipeline."""

from __future__ import annotations

import shutil

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file

from model.pipeline import ShareVersePipeline
from model.trainable import is_added
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.export import export_run
from tasks.evaluation.report.write import latents_dir_of
from tasks.evaluation.scoring.sampling import Sampler
from tasks.training.group import train
from tests.tasks.training.conftest import BASE

pytest.importorskip("peft")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # trainings of several minutes
WEIGHTS = "diffusion_pytorch_model.safetensors"
STEPS = {"train_steps": 4, "checkpoint_every": 2, "validate_every": 4, "lora_rank": 4, "lora_alpha": 8.0}


@pytest.fixture
def run_on_base(new_run, tmp_path):
    """Make runs on a small base: returns the run, its latents and the base's weights."""
    torch.manual_seed(0)
    folder = tmp_path / "base" / "transformer"
    CogVideoXTransformer3DModel(**BASE).save_pretrained(folder)
    save_file({"empty": torch.zeros(1, 8)}, tmp_path / "empty.safetensors")
    given = {"base_model": str(tmp_path / "base"), "text_embedding": str(tmp_path / "empty.safetensors")}
    return lambda **changes: (*new_run(**STEPS | given | changes), load_file(folder / WEIGHTS))


def model_at(run, step):
    return load_file(run.folder / f"checkpoints/step-{step:06d}/model/{WEIGHTS}")


@pytest.mark.parametrize("trainable", ["added", "lora"])
def test_a_frozen_base_trains_resumes_and_is_handed_on(run_on_base, tmp_path, trainable):
    run, latents, base = run_on_base(trainable=trainable)
    train(run, latents, 1)
    found = model_at(run, 4)
    updated = {name for name, value in base.items() if not torch.equal(found[name], value)}
    targets = ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")
    assert updated == ({name for name in base if name.endswith(targets)} if trainable == "lora" else set())
    assert any(not torch.equal(model_at(run, 2)[name], value) for name, value in found.items() if is_added(name))

    shutil.rmtree(run.folder / "checkpoints/step-000004")
    train(run, latents, 1)
    again = model_at(run, 4)
    assert again.keys() == found.keys()
    assert all(torch.equal(again[name], value) for name, value in found.items())

    sampler = Sampler.of_checkpoint(run.preset, run.latest_checkpoint(), latents_dir_of(run))
    assert sampler.pipeline.transformer.num_parameters() == sum(value.numel() for value in found.values())
    if trainable == "added":
        with pytest.raises(EvaluationError, match="has no adapter"):
            export_run(run, tmp_path / "none", merge=False)
        return
    export_run(run, tmp_path / "merged")
    export_run(run, tmp_path / "beside", merge=False)
    assert not (tmp_path / "merged" / "adapter").exists()
    videos = [
        generated(ShareVersePipeline.from_pretrained(tmp_path / name, merge_adapter=merge))
        for name, merge in (("merged", True), ("beside", True), ("beside", False))
    ]
    for video in videos[1:]:
        torch.testing.assert_close(video, videos[0], rtol=0, atol=1e-3)


def generated(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    torch.manual_seed(3)
    first, rays = torch.rand(1, 2, 3, 32, 48), torch.randn(1, 2, 3, 24, 4, 6)
    return pipeline.generate(first, rays, num_inference_steps=2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("trainable", ["added", "lora"])
def test_zero_3_trains_on_a_frozen_base_as_zero_2_does(run_on_base, trainable):
    changes = {"trainable": trainable, "ema_decay": 0.0, "batch_size": 2}
    (cut, latents, base), (whole, *_) = (run_on_base(zero_stage=stage, **changes) for stage in (3, 2))
    for run in (cut, whole):
        train(run, latents, 2)
    found, expected = model_at(cut, 4), model_at(whole, 4)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    kept = {name for name, value in base.items() if torch.equal(found[name], value)}
    assert len(kept) == len(base) - (8 if trainable == "lora" else 0)  # four layers in each of two blocks

    shutil.rmtree(cut.folder / "checkpoints/step-000004")
    train(cut, latents, 2)
    again = model_at(cut, 4)
    assert all(torch.equal(again[name], value) for name, value in found.items())
