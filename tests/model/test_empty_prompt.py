"""T5("") is stored as the pipelines would compute it, in the form that training reads."""

from __future__ import annotations

import pytest
import torch
from transformers import T5Config, T5EncoderModel

from model import empty_prompt
from model.build import text_embedding
from model.presets import Preset


@pytest.fixture
def pipeline(tmp_path):
    """A folder like a CogVideoX pipeline's, with a small text encoder."""
    torch.manual_seed(0)
    encoder = T5EncoderModel(T5Config(vocab_size=20, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4))
    encoder.save_pretrained(tmp_path / "base" / "text_encoder")
    return tmp_path / "base", encoder.eval()


@torch.no_grad()
def test_it_is_the_end_token_and_padding_without_a_mask(pipeline):
    base, encoder = pipeline
    ids = torch.tensor([[1, 0, 0, 0]])  # what T5Tokenizer("", padding="max_length", max_length=4) gives
    assert torch.equal(empty_prompt.empty_prompt(str(base), 4), encoder(ids)[0][0])


def test_training_reads_what_the_command_writes(pipeline, tmp_path, monkeypatch, capsys):
    base, _ = pipeline
    file = tmp_path / "empty.safetensors"
    monkeypatch.setattr("sys.argv", ["empty_prompt", str(base), str(file)])
    assert empty_prompt.main() == 0
    preset = Preset.load("paper").replace(text_embed_dim=16, text_embedding=str(file))
    assert text_embedding(preset).shape == (1, 226, 16)
    assert "(226, 16)" in capsys.readouterr().out


def test_a_folder_without_a_text_encoder_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["empty_prompt", str(tmp_path), str(tmp_path / "out")])
    assert empty_prompt.main() == 1
    assert "has no text_encoder/" in capsys.readouterr().err
