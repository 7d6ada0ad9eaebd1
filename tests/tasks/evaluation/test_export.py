"""`shareverse export`: a run's model as a folder that loads, with a card that says what was measured and what not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from flows.cli import app
from model.build import build_transformer
from model.codec import load_codec
from model.pipeline import ShareVersePipeline
from model.presets import Preset
from model.transformer import ShareVerseTransformer3DModel
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.export import export_run, holds_cogvideox

REPORT = {
    "checkpoint": "/elsewhere/step-000006",
    "verdict": ["It learned.", "The cameras are used."],
    "convention": "PSNR is taken per frame.",
    "rows": [
        {"row": "model", "label": "model, 1 step", "windows": 3, "psnr": {"mean": 20.58, "low": 20.1, "high": 21.0}},
        {"row": "copy", "label": "first frame, copied", "windows": 3, "psnr": {"mean": 18.63}, "ssim": {"mean": 0.489}},
    ],
}


@pytest.fixture
def scored(run):
    """Return a function that leaves a report of the fake run; it is gone after the test."""
    file = run.folder / "evaluation" / "report.json"

    def put(text: str) -> None:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)

    yield put
    file.unlink(missing_ok=True)


def test_what_is_exported_loads_and_is_the_checkpoint(run, tmp_path):
    export_run(run, tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "README.md", "run.json", "model_index.json", "transformer", "codec", "scheduler", "text",
        "MLmodel", "code",
    }  # fmt: skip
    loaded = ShareVerseTransformer3DModel.from_pretrained(tmp_path / "model" / "transformer").state_dict()
    weights = load_file(run.latest_checkpoint() / "model" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    assert load_codec(run.preset.codec, tmp_path / "model").config.latent_channels == run.preset.codec.latent_channels


def test_the_cards_example_runs_in_the_folder_and_gives_what_the_pipeline_gives(run, tmp_path):
    export_run(run, tmp_path / "model")
    pipeline = ShareVersePipeline.from_pretrained(tmp_path / "model")
    assert (pipeline.config.fps, pipeline.config.frames) == (10.0, run.preset.video.frames)
    assert str(run.folder) not in (tmp_path / "model" / "transformer" / "config.json").read_text()
    card = (tmp_path / "model" / "README.md").read_text()
    assert "license: apache-2.0" in card
    example = card.split("```python")[1].split("```")[0]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", example], cwd=tmp_path / "model", env=environment, check=True)
    with Image.open(tmp_path / "model" / "agent0.png") as picture:
        assert picture.size == (run.preset.video.width, run.preset.video.height)


SERVE = """
import base64, io, json, sys
import mlflow, numpy, pandas, torch
from PIL import Image
served = mlflow.pyfunc.load_model(sys.argv[1])
file = io.BytesIO()
Image.new("RGB", (48, 32), (90, 120, 60)).save(file, "PNG")
pictures = [base64.b64encode(file.getvalue()).decode()] * 2
trajectories = numpy.zeros((2, 9, 6)).tolist()
row = {"pictures": json.dumps(pictures), "trajectories": json.dumps(trajectories), "num_inference_steps": 1, "seed": 3}
frames = served.predict(pandas.DataFrame([row]))[0]
from model.pipeline import ShareVersePipeline
import model
assert model.__file__.startswith(sys.argv[1]), model.__file__
pipe = ShareVersePipeline.from_pretrained(sys.argv[1])
images = [Image.open(io.BytesIO(base64.b64decode(text))) for text in pictures]
ours = pipe(images, trajectories, num_inference_steps=1, generator=torch.Generator().manual_seed(3)).videos
for agent in (0, 1):
    for frame in range(9):
        shown = Image.open(io.BytesIO(base64.b64decode(frames[agent][frame])))
        assert numpy.array_equal(numpy.asarray(shown), numpy.asarray(ours[agent][frame]))
"""


def test_mlflow_serves_the_folder_without_this_repository(run, tmp_path):
    folder = tmp_path / "model"
    export_run(run, folder)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([sys.executable, "-c", SERVE, str(folder)], cwd=tmp_path, env=environment, check=True)
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pt", ".bin")]


def test_the_card_holds_the_evaluations_figures(run, scored, tmp_path):
    scored(json.dumps(REPORT))
    export_run(run, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "|  | PSNR, dB | SSIM |" in card
    assert "| model, 1 step | 20.580 [20.100, 21.000] | – |" in card
    assert "| first frame, copied | 18.630 | 0.489 |" in card
    assert "- It learned.\n- The cameras are used." in card
    assert run.dataset_digest in card


@pytest.mark.parametrize("report", [None, REPORT | {"checkpoint": "/elsewhere/step-000004"}])
def test_a_checkpoint_that_was_not_scored_has_no_figures(run, scored, tmp_path, report):
    if report:
        scored(json.dumps(report))
    export_run(run, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "Not measured" in card
    assert f"shareverse evaluate --run {run.run_id}" in card
    assert "20.58" not in card


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"checkpoint": 1}', json.dumps(REPORT | {"rows": [{"psnr": 1}]})])
def test_a_damaged_report_is_one_sentence_and_nothing_is_written(run, scored, tmp_path, text):
    scored(text)
    with pytest.raises(EvaluationError, match=r"report\.json .*export again"):
        export_run(run, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(EvaluationError, match="is not empty"):
        export_run(run, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_the_command_exports_or_says_why_not(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["export", "last", "model"])
    assert (done.exit_code, done.stdout) == (0, "model\n"), done.stderr
    assert (tmp_path / "model" / "transformer" / "config.json").is_file()
    for arguments, sentence in ((["ffffffffffff", "other"], "there is no run"), (["last", "model"], "is not empty")):
        done = CliRunner().invoke(app, ["export", *arguments])
        assert done.exit_code == 1
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1


def test_cogvideox_licence_is_that_of_its_weights_alone(tmp_path):
    tiny = Preset.load("tiny")
    build_transformer(tiny.replace(cross_agent="off")).save_pretrained(tmp_path / "own" / "transformer")
    assert not holds_cogvideox(tiny)
    assert not holds_cogvideox(tiny.replace(base_model=str(tmp_path / "own")))
    assert holds_cogvideox(tiny.replace(base_model="THUDM/CogVideoX-5b-I2V"))
    assert holds_cogvideox(tiny.replace(codec="cogvideox"))


def test_a_run_that_is_no_base_is_refused_in_a_sentence(run, tmp_path):
    done = CliRunner().invoke(app, ["export-base", run.run_id, str(tmp_path / "base")])
    assert done.exit_code == 1
    assert "is no base: it has cross-agent blocks" in done.stderr
    assert done.stderr.count("\n") == 1
