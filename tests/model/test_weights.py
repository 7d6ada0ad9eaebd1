"""Folders of weights: what is no plain file of a sensible size is refused before it is read."""

from __future__ import annotations

import json
import os

import pytest

from model.codec import LinearCodec
from model.weights import WeightsError, load_weights, read_json_object, stored_shapes


@pytest.mark.timeout(20)
def test_pipes_devices_and_enormous_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 2**40)
    for name in ("pipe", "device", "sparse", "missing"):
        with pytest.raises(WeightsError, match=r"cannot be read|more than"):
            read_json_object(tmp_path / name)


@pytest.mark.timeout(20)
def test_an_index_that_names_a_pipe_is_refused(tmp_path):
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text('{"weight_map": {"a": "pipe"}}')
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsError, match="cannot be read"):
        stored_shapes(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("chroma_weight", None, "describes no LinearCodec .chroma_weight is None: give a number above 0"),
        ("chroma_weight", [None], "chroma_weight is .None.: give a number above 0"),
        ("chroma_weight", "2", "chroma_weight is '2': give a number above 0"),
        ("chroma_weight", 0, "chroma_weight is 0: give a number above 0"),
        ("chroma_weight", float("nan"), "says chroma_weight nan, which is no number of a model"),
        ("latent_channels", 10**400, "says latent_channels 1000000"),
        ("latent_channels", -1, "describes no LinearCodec"),
    ],
)
def test_a_configuration_of_impossible_numbers_is_one_sentence(tmp_path, name, value, sentence):
    LinearCodec(4).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(WeightsError, match=sentence) as caught:
        load_weights(LinearCodec, tmp_path)
    assert "\n" not in str(caught.value)
