"""What is trained: everything, what is added to the base, or that and LoRA; adapters in peft's layout."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file

from model.build import build_transformer
from model.presets import Preset, PresetError
from model.trainable import CONFIG, WEIGHTS, choose_trained, is_added, load_adapter, merged, save_adapter
from model.weights import WeightsError
from tests.tasks.training.conftest import BASE

peft = pytest.importorskip("peft")
TINY = Preset.load("tiny")
LORA = {"trainable": "lora", "lora_rank": 4, "lora_alpha": 8.0}
LAYERS = {
    f"transformer_blocks.{block}.attn1.{layer}" for block in (0, 1) for layer in ("to_q", "to_k", "to_v", "to_out.0")
}


@pytest.fixture
def preset(tmp_path):
    torch.manual_seed(0)
    CogVideoXTransformer3DModel(**BASE).save_pretrained(tmp_path / "base" / "transformer")
    return TINY.replace(base_model=str(tmp_path / "base"), **LORA)


@pytest.fixture
def trained(preset):
    """A model whose added weights and low-rank matrices are all off zero."""
    model = build_transformer(preset)
    choose_trained(model, preset)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    return model


@torch.no_grad()
def output(model):
    torch.manual_seed(2)
    latents, rays = torch.randn(1, 2, 3, 16, 4, 6), torch.randn(1, 2, 3, 24, 4, 6)
    return model(latents, torch.randn(1, 1, 8), torch.tensor([500]), raymaps=rays).sample


def base_and_added(preset, trained):
    model = build_transformer(preset)
    model.load_state_dict({name: value for name, value in trained.state_dict().items() if is_added(name)}, strict=False)
    return model


def test_the_preset_says_what_is_trained(preset):
    for trainable in ("all", "added", "lora"):
        model, choice = build_transformer(preset), preset.replace(trainable=trainable)
        before = output(model)
        choose_trained(model, choice)
        assert torch.equal(output(model), before)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        rest = {name for name in trained if not is_added(name)}
        assert {name for name, _ in model.named_parameters() if is_added(name)} < trained | {""}
        if trainable == "lora":
            assert rest == {f"{layer}.lora_{part}.default.weight" for layer in LAYERS for part in "AB"}
        else:
            assert bool(rest) == (trainable == "all")


def test_the_same_seed_draws_the_same_matrices(preset):
    models = [build_transformer(preset) for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        choose_trained(model, preset.replace(seed=seed))
    first, same, other = (
        model.state_dict()["transformer_blocks.0.attn1.to_q.lora_A.default.weight"] for model in models
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_random_weights_do_not_stay_frozen():
    with pytest.raises(PresetError, match=r"trainable is 'added' and base_model is empty .*: .* name a base_model"):
        TINY.replace(trainable="added")


def test_a_run_that_trains_everything_keeps_its_id():
    assert not {"trainable", "lora_rank", "lora_alpha", "lora_targets"} & TINY.identity()["training"].keys()


@pytest.mark.parametrize("way", ["merged", "beside", "peft", "state"])
def test_an_adapter_comes_back_merged_or_not(preset, trained, tmp_path, way):
    expected = output(trained)
    save_adapter(trained.state_dict(), preset, tmp_path / "adapter")
    model = base_and_added(preset, trained)
    assert not torch.allclose(output(model), expected, atol=1e-3)
    if way == "peft":
        model = peft.PeftModel.from_pretrained(model, str(tmp_path / "adapter"))
    elif way == "state":
        model.load_state_dict(merged(trained.state_dict(), preset.training.lora_alpha / preset.training.lora_rank))
    else:
        load_adapter(model, tmp_path / "adapter", merge=way == "merged")
    assert hasattr(model, "peft_config") == (way in ("beside", "peft"))
    torch.testing.assert_close(output(model), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / CONFIG).unlink(), "there is no such file"),
        (lambda folder: (folder / CONFIG).write_text(json.dumps({"r": 0})), "describes no LoRA adapter"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"no"), "cannot be read"),
        (lambda folder: change(folder, lambda w: dict(list(w.items())[1:])), "does not fit the model"),
        (
            lambda folder: change(folder, lambda w: {n: v[:, :1].clone() for n, v in w.items()}),
            "does not fit the model",
        ),
        (lambda folder: change(folder, lambda w: {n: v * torch.nan for n, v in w.items()}), "is no matrix"),
        (lambda folder: change(folder, lambda w: w | {"other": torch.zeros(1)}), "is no matrix"),
    ],
)
def test_a_damaged_adapter_is_refused_in_one_sentence(preset, trained, tmp_path, damage, said):
    folder = tmp_path / "adapter"
    save_adapter(trained.state_dict(), preset, folder)
    damage(folder)
    with pytest.raises(WeightsError, match=said):
        load_adapter(build_transformer(preset), folder, merge=True)


def change(folder, how):
    save_file(how(load_file(folder / WEIGHTS)), folder / WEIGHTS)
