"""Folders of weights: what is no plain file of a sensible size is refused before it is read."""

from __future__ import annotations

import os

import pytest

from model.weights import WeightsError, read_json_object, stored_shapes


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
