"""The notebook runs from top to bottom with a small model."""

from pathlib import Path

import nbformat
import torch
from nbclient import NotebookClient

from model.build import build_pipeline, build_transformer
from model.codec import LinearCodec
from model.presets import Preset

NOTEBOOK = Path(__file__).parents[1] / "docs" / "own_pictures.ipynb"


def test_every_cell_runs_and_the_videos_are_written(tmp_path, monkeypatch):
    preset = Preset.load("tiny")
    codec = LinearCodec(preset.codec.latent_channels)
    build_pipeline(preset, build_transformer(preset), codec, torch.zeros(1, 1, 8)).save_pretrained(tmp_path / "model")
    monkeypatch.setenv("SHAREVERSE_MODEL", str(tmp_path / "model"))
    monkeypatch.setenv("SHAREVERSE_VIDEOS", str(tmp_path / "videos"))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # committed without outputs
    NotebookClient(notebook, timeout=240, kernel_name="python3").execute(cwd=str(tmp_path))
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in output["data"] for output in pictures) == 3
    assert len(list((tmp_path / "videos").glob("*.mp4"))) == 10
