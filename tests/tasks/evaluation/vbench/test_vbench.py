"""Table 2: the seam to VBench's process, what is missing, and flickering, which needs no VBench.

A stand-in package of VBench's interface and file format runs behind the real subprocess; where VBench's environment
stands (python -m tasks.evaluation.vbench setup), the last test asks VBench itself.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from tasks.evaluation.vbench import environment, score, weights
from tasks.evaluation.vbench.__main__ import main
from tasks.evaluation.vbench.errors import VBenchError
from tasks.evaluation.vbench.flickering import file_flickering, frames_as_opencv
from tasks.evaluation.vbench.inside import DIMENSIONS as INSIDE_DIMENSIONS
from tasks.evaluation.vbench.score import CONVENTION, numbers, score_videos
from tasks.evaluation.vbench.videos import bytes_of, write_lossless_video, write_rows
from tasks.evaluation.vbench.weights import DIMENSIONS, WEIGHTS
from tests.synthetic_dataset import write_dataset

STANDING = environment.is_ready()
WITHOUT_WEIGHTS = "temporal_flickering"

STAND_IN = '''
import json, os

class VBench:
    """Scores a video by its file's size, in VBench's own result format."""

    def __init__(self, device, full_info_dir, output_path):
        self.output_path = output_path
        os.makedirs(output_path, exist_ok=True)

    def evaluate(self, videos_path, name, dimension_list, local, mode):
        assert local is True and mode == "custom_input"
        assert os.path.isdir(os.environ["VBENCH_CACHE_DIR"]) and os.environ["HF_HUB_OFFLINE"] == "1"
        dimension, = dimension_list
        if dimension == "motion_smoothness":
            raise RuntimeError("Output size is too small")
        scale = 100 if dimension == "imaging_quality" else 1
        files = [os.path.join(videos_path, file) for file in os.listdir(videos_path)]
        results = [{"video_path": f, "video_results": scale * os.path.getsize(f) / 1e6} for f in files]
        mean = sum(r["video_results"] for r in results) / len(results) / scale
        if dimension == "background_consistency":
            results.pop()
        with open(os.path.join(self.output_path, name + "_eval_results.json"), "w") as file:
            json.dump({dimension: [mean, results]}, file)
'''


@pytest.fixture
def clips():
    """Two clips [2, A, 3, T, H, W] in [-1, 1] that change slowly."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 4, 8, 12, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (9, 64, 96), mode="trilinear")
    return fine.unflatten(0, (2, 2)) * 2 - 1


@pytest.fixture
def rows(clips, tmp_path):
    return write_rows(tmp_path / "videos", "truth", clips, 10.0)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of its own, nothing set up."""
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(weights.WEIGHTS_VARIABLE, raising=False)
    return tmp_path / "home"


@pytest.fixture
def stand_in(home, tmp_path, monkeypatch):
    """VBench's environment with the stand-in, all weights there."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "vbench.py").write_text(STAND_IN)
    (tmp_path / "packages" / "torch.py").write_text("class cuda:\n    is_available = staticmethod(lambda: False)\n")
    python = environment.interpreter()
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexport PYTHONPATH="{tmp_path / "packages"}"\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    requirements = environment.sha256_file(environment.REQUIREMENTS)
    environment.marker().write_text(json.dumps({"requirements": requirements, "versions": {"vbench": "0"}}))
    for weight in (weight for several in WEIGHTS.values() for weight in several):
        path = weights.weights_folder() / weight.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr(score, "missing_weights", lambda dimension: [])


def test_the_papers_six_dimensions():
    assert len(DIMENSIONS) == 6
    assert set(INSIDE_DIMENSIONS) == set(DIMENSIONS)
    assert [name for name in DIMENSIONS if not WEIGHTS[name]] == [WITHOUT_WEIGHTS]


def test_rows_hold_mosaics_and_views_without_loss(rows, clips):
    assert {row: len(files) for row, files in rows.items()} == {"truth, mosaics": 4, "truth, views": 16}
    seen = np.stack(list(frames_as_opencv(rows["truth, mosaics"][3])))
    assert np.array_equal(seen[..., ::-1], bytes_of(clips[1, 1]))
    left = np.stack(list(frames_as_opencv(rows["truth, views"][4 * 3 + 2])))  # clip 1, agent 1, view 2
    assert np.array_equal(left[..., ::-1], bytes_of(clips[1, 1])[:, 32:, :48])


def test_flickering_is_vbenchs_formula(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 15, 23, 3), dtype=np.uint8)
    write_lossless_video(tmp_path / "a.mp4", frames, 10.0)
    mae = [np.abs(frames[i].astype(float) - frames[i + 1]).mean() for i in range(3)]
    assert file_flickering(tmp_path / "a.mp4") == pytest.approx((255 - np.mean(mae)) / 255, abs=1e-12)
    write_lossless_video(tmp_path / "still.mp4", frames[[0, 0, 0]], 10.0)
    assert file_flickering(tmp_path / "still.mp4") == 1.0


def test_flickering_of_what_is_no_video(tmp_path):
    write_lossless_video(tmp_path / "one.mp4", np.zeros((1, 16, 16, 3), np.uint8), 10.0)
    with pytest.raises(VBenchError, match="fewer than two frames"):
        file_flickering(tmp_path / "one.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VBenchError, match="no video that can be read"):
        file_flickering(tmp_path / "text.mp4")


def test_without_vbench_flickering_is_measured_and_the_rest_says_why(rows, home):
    scores = score_videos(rows)
    assert set(scores.missing) == set(DIMENSIONS) - {WITHOUT_WEIGHTS}
    assert all("python -m tasks.evaluation.vbench setup" in why for why in scores.missing.values())
    for row, files in rows.items():
        assert set(scores.rows[row]) == {WITHOUT_WEIGHTS}
        mine = np.mean([file_flickering(file) for file in files])
        assert scores.rows[row][WITHOUT_WEIGHTS] == pytest.approx(mine, abs=1e-12)


def test_the_preflight_names_each_missing_file(home):
    (missing,) = weights.missing_weights("motion_smoothness")
    assert missing.startswith(f"{home / 'vbench' / 'weights' / 'amt_model' / 'amt-s.pth'} is missing (from https://")
    assert len(weights.missing_weights("aesthetic_quality")) == 2
    assert weights.missing_weights(WITHOUT_WEIGHTS) == []


def test_a_file_that_is_not_the_published_one_is_told(home):
    path = weights.weights_folder() / "clip_model" / "ViT-B-32.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    assert "is not the published file" in weights.missing_weights("background_consistency")[0]


def test_check_lists_every_dimension(stand_in, capsys, monkeypatch):
    monkeypatch.setattr(score, "missing_weights", weights.missing_weights)
    assert main(["check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == list(DIMENSIONS)
    assert "temporal_flickering: ready" in lines
    assert any("ViT-L-14.pt is not the published file" in line for line in lines)


def test_rows_are_scored_by_vbench_in_its_process(rows, stand_in):
    scores = score_videos(rows)
    for row, files in rows.items():
        sizes = [file.stat().st_size / 1e6 for file in files]
        for dimension in ("aesthetic_quality", "imaging_quality", "subject_consistency"):
            assert scores.rows[row][dimension] == pytest.approx(np.mean(sizes))
            assert list(scores.videos[row][dimension].values()) == pytest.approx(sizes)
    assert scores.missing["motion_smoothness"].startswith("not measured: VBench failed on motion_smoothness: Runtime")
    assert "is None, not a number" in scores.missing["background_consistency"]  # a video that VBench left out
    assert scores.record()["convention"] == CONVENTION


@pytest.mark.parametrize("value", [float("nan"), 1.2, -0.1, None])
def test_no_figure_out_of_range(value):
    with pytest.raises(VBenchError, match="not a number from 0 to 1"):
        numbers("aesthetic_quality", {"videos": {"00000.mp4": value}}, 1)


@pytest.mark.parametrize("answer", [{}, {"videos": []}, {"videos": {"00000.mp4": "0.5"}}])
def test_a_malformed_answer_is_refused(answer):
    with pytest.raises(VBenchError, match=r"lists no videos|is 0\.5, not a number"):
        numbers("aesthetic_quality", answer, 1)


@pytest.mark.parametrize("text", ["", "[]", '{"videos": {"00000.mp4": NaN}}', '{"videos": {'])
def test_a_damaged_answer_ends_in_one_sentence(text, stand_in, monkeypatch, tmp_path):
    script = tmp_path / "inside.py"
    script.write_text(f"import pathlib, sys; pathlib.Path(sys.argv[3]).write_text({text!r})")
    monkeypatch.setattr(score, "INSIDE", script)
    with pytest.raises(VBenchError, match=r"answer\.json holds .*: VBench failed on aesthetic_quality; score again\.$"):
        score.run_vbench("aesthetic_quality", [tmp_path / "a.mp4"])


@pytest.mark.parametrize("text", ["", "no JSON", "[1]"])
def test_a_damaged_probe_ends_in_one_sentence(text, stand_in, monkeypatch, tmp_path):
    script = tmp_path / "inside.py"
    script.write_text(f"print({text!r})")
    monkeypatch.setattr(environment, "INSIDE", script)
    with pytest.raises(VBenchError, match=r"the last line of VBench's probe holds .*: set VBench up again\.$"):
        environment.probe()


def test_the_command_writes_and_prints_the_table(rows, home, tmp_path, capsys):
    folder = rows["truth, mosaics"][0].parent
    assert main(["score", f"truth={folder}", "--out", str(tmp_path / "scores.json")]) == 0
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "scores.json").read_text())
    assert f"{record['rows']['truth'][WITHOUT_WEIGHTS]:.4f}" in printed
    assert CONVENTION in printed
    for wrong, words in (("truth", "is no NAME=FOLDER"), (f"truth={tmp_path / 'none'}", "holds no .mp4 files")):
        assert main(["score", wrong, "--out", str(tmp_path / "other.json")]) == 1
        assert words in capsys.readouterr().err


def test_bad_requests():
    with pytest.raises(VBenchError, match="scene is none of the paper's dimensions"):
        score_videos({"truth": []}, dimensions=["scene"])
    with pytest.raises(VBenchError, match="row 'truth' has no videos"):
        score_videos({"truth": []})
    with pytest.raises(VBenchError, match="there are no videos"):
        score_videos({})


def test_setup_needs_the_right_python_and_tells_what_failed(home, monkeypatch):
    monkeypatch.setattr(environment, "PYTHON", (2, 7))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(VBenchError, match=r"needs Python 2\.7"):
        environment.setup()
    with pytest.raises(VBenchError, match=r"setting up VBench stopped at .*: it broke"):
        environment.run(sys.executable, "-c", "import sys; sys.exit('it broke')")


def test_the_environment_is_made_anew_when_its_requirements_change(stand_in, monkeypatch, tmp_path):
    assert environment.is_ready()
    assert environment.setup() == {"vbench": "0"}
    marker = environment.marker().read_text()
    for damaged in ("", "[]", "{}", "null", marker.replace("versions", "other"), marker[:-1]):
        environment.marker().write_text(damaged)
        assert not environment.is_ready()
    environment.marker().write_text(marker)
    assert environment.is_ready()
    other = tmp_path / "requirements.txt"
    other.write_text("vbench==0.1.6\n")
    monkeypatch.setattr(environment, "REQUIREMENTS", other)
    assert not environment.is_ready()


@pytest.mark.skipif(not STANDING, reason="VBench is not set up: python -m tasks.evaluation.vbench setup")
@pytest.mark.parametrize("kind", ["lossless", "stored"])
def test_flickering_is_vbenchs_own_number(kind, clips, tmp_path):
    if kind == "lossless":
        files = write_rows(tmp_path, "truth", clips, 10.0)["truth, mosaics"]
    else:
        files = sorted(write_dataset(tmp_path / "data").rglob("*.mp4"))[:4]
    theirs = score.run_vbench(WITHOUT_WEIGHTS, files)
    np.testing.assert_allclose([file_flickering(file) for file in files], theirs, rtol=0, atol=1e-6)


@pytest.mark.skipif(not STANDING, reason="VBench is not set up: python -m tasks.evaluation.vbench setup")
def test_vbench_has_the_pinned_versions():
    pins = dict(line.split("==") for line in environment.REQUIREMENTS.read_text().splitlines() if "==" in line)
    found = environment.probe()
    assert found["vbench"] == pins["vbench"] == "0.1.5"
    assert found["transformers"] == pins["transformers"]
    lines = subprocess.run(
        [environment.interpreter(), "-m", "pip", "freeze", "--all"], capture_output=True, text=True, check=True
    ).stdout
    frozen = dict(line.lower().replace("_", "-").split("==") for line in lines.splitlines() if "==" in line)
    assert {name: frozen.get(name) for name in pins} == pins
