"""`python -m tasks.evaluation generate` on a run whose model knows nothing."""

from __future__ import annotations

import json

import av
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from tasks.evaluation.__main__ import main
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.export import export_run
from tasks.evaluation.report.write import latents_dir_of
from tasks.evaluation.scoring.sampling import Sampler
from tasks.evaluation.scoring.windows import Windows
from tasks.runs.run import create_run
from tasks.sharding.reader import ClipIndex

VIDEOS = {"agent0.mp4", "agent1.mp4"} | {
    f"agent{agent}_{view}.mp4" for agent in (0, 1) for view in ("front", "rear", "left", "right")
}


def clip_of(run) -> str:
    return ClipIndex(run.dataset_dir).split("test")[0]["key"]


def frames_of(path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_two_mosaics_and_eight_views(run, tmp_path, capsys):
    out = tmp_path / "videos"
    assert main(["generate", "--run", run.run_id, "--clip", clip_of(run), "--out", str(out), "--steps", "1"]) == 0
    assert {path.name for path in out.iterdir()} == VIDEOS
    assert {frames_of(path) for path in out.iterdir()} == {run.preset.video.frames}
    assert set(capsys.readouterr().out.split()) == {str(out / name) for name in VIDEOS}


def test_own_pictures_and_trajectories_in_one_command(run, tmp_path, capsys):
    model, out, width, height = tmp_path / "model", tmp_path / "videos", run.preset.video.width, run.preset.video.height
    export_run(run, model)
    pictures = [tmp_path / "a0.png", tmp_path / "a1.png"]
    for picture in pictures:
        Image.new("RGB", (2 * width, 2 * height), (90, 120, 60)).save(picture)
    pose = {"x": 0.0, "y": 0.0, "z": 0.0, "pitch": 0.0, "yaw": 0.0, "roll": 0.0}
    file = tmp_path / "t.json"
    file.write_text(json.dumps([[pose | {"x": 0.3 * frame + 9 * agent} for frame in range(17)] for agent in (0, 1)]))
    own = ["generate", "--pictures", *map(str, pictures), "--trajectories", str(file), "--out", str(out)]
    assert CliRunner().invoke(app, [*own, "--model", str(model), "--steps", "1"]).exit_code == 0
    assert {path.name for path in out.iterdir()} == VIDEOS
    assert frames_of(out / "agent1_left.mp4") == 17
    for arguments, sentence in (
        ([*own], "name --model"),
        ([*own, "--model", str(tmp_path)], "model_index.json cannot be read"),
        ([*own, "--model", str(model), "--clip", "key"], "give either --clip, or --pictures"),
        ([*own[:1], *own[4:], "--model", str(model)], "give either --clip, or --pictures"),
        ([*own[:3], *own[4:], "--model", str(model)], "2 trajectories and 1 pictures"),
        (["generate", "--pictures", str(file), str(file), *own[4:], "--model", str(model)], "cannot be read"),
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 1
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1


def test_several_windows_make_one_longer_video(run, tmp_path):
    arguments = ["generate", "--run", run.run_id, "--clip", clip_of(run), "--out", str(tmp_path), "--windows", "2"]
    assert main([*arguments, "--steps", "1"]) == 0
    assert frames_of(tmp_path / "agent0.mp4") == 17


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("--run", "ffffffffffff"), "there is no run 'ffffffffffff'"),
        (("--clip", "nothing"), "has no clip 'nothing'"),
        (("--windows", "9"), "9 windows are 73 frames"),
        (("--steps", "-1"), "--steps is -1"),
    ],
)
def test_bad_input_is_one_sentence(run, tmp_path, capsys, change, sentence):
    arguments = {"--run": run.run_id, "--clip": clip_of(run), "--out": str(tmp_path), "--steps": "1"} | dict([change])
    assert main(["generate", *(word for pair in arguments.items() for word in pair)]) == 1
    message = capsys.readouterr().err.strip()
    assert sentence in message
    assert "\n" not in message
    assert not list(tmp_path.glob("*.mp4"))


def test_a_run_without_a_checkpoint_or_codec_is_one_sentence(run, tmp_path, capsys):
    arguments = ["--clip", clip_of(run), "--out", str(tmp_path)]
    untrained = create_run("toy", run.preset, "no checkpoint")
    assert main(["generate", "--run", untrained.run_id, *arguments]) == 1
    assert "has no checkpoint" in capsys.readouterr().err
    other_codec = create_run("toy", run.preset.replace(latent_channels=4), "no codec")
    (other_codec.folder / "checkpoints").symlink_to(run.folder / "checkpoints")
    assert main(["generate", "--run", other_codec.run_id, *arguments]) == 1
    assert "no fitted linear codec" in capsys.readouterr().err


def test_a_model_that_generates_no_numbers_is_refused(run):
    sampler = Sampler.of_checkpoint(run.preset, run.latest_checkpoint(), latents_dir_of(run))
    windows = Windows(run.dataset_dir, ClipIndex(run.dataset_dir).split("test")[:1], run.preset)
    first, raymaps = windows.video([0])[:, :, :, 0], windows.raymaps([0])
    assert torch.isfinite(sampler.generate(first, raymaps, ["a"], 1)).all()
    with torch.no_grad():
        next(sampler.pipeline.transformer.parameters()).fill_(float("nan"))
    with pytest.raises(EvaluationError, match="no numbers"):
        sampler.generate(first, raymaps, ["a"], 1)
