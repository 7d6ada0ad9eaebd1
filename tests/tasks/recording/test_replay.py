"""One recording again: equal bytes, a video of both, and a sentence where it cannot be."""

from __future__ import annotations

import json
import re
import shutil

import av
import pytest

from infra.carla_servers import CarlaServerError, SimulatorSpec
from tasks.recording.errors import RecordingError
from tasks.recording.replay import compared, replay_recording
from tests.conftest import SPEC


def test_a_recording_comes_out_the_same_beside_what_is_stored(tiny, tmp_path):
    recording_id = sorted(path.name for path in (tiny.folder / "recordings").iterdir())[0]
    lines = list(replay_recording(tiny.folder, recording_id, SPEC, tmp_path))
    assert lines[0].startswith(f"Recording {recording_id} again: Mini0")
    assert re.fullmatch(r"All \d+ files are equal to the stored ones, byte for byte\.", lines[1])
    assert lines[2:] == [str(tmp_path / f"{recording_id}-{window}.mp4") for window in ("w000", "w009")]
    with av.open(lines[2]) as video:
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(pictures) == 17
    assert pictures[0].shape == (2 * 64, 2 * 96, 3)
    halves = [pictures[0][:, half].astype(int) for half in (slice(96), slice(96, None))]
    assert abs(halves[0] - halves[1]).mean() < 2  # equal before they were compressed


def test_what_differs_is_named():
    stored, made = {"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}
    assert compared(stored, made) == "2 of 3 files differ from the stored ones: b, c."


@pytest.fixture
def planned(tiny, tmp_path):
    """The plan of `tiny`, with nothing recorded."""
    folder = tmp_path / "planned"
    folder.mkdir()
    for name in ("plan.parquet", "plan.json"):
        shutil.copy(tiny.folder / name, folder / name)
    return folder, json.loads(next(tiny.folder.glob("recordings/*/recording.json")).read_text())["recording_id"]


def test_what_is_not_planned_or_cannot_be_recorded_is_one_sentence(planned, tmp_path, monkeypatch):
    folder, recording_id = planned
    with pytest.raises(RecordingError, match=r"plans no recording 'x': plan.parquet has 2, such as "):
        list(replay_recording(folder, "x", SPEC, tmp_path))
    with pytest.raises(CarlaServerError, match="'/nowhere' does not exist"):
        list(replay_recording(folder, recording_id, SimulatorSpec("carla", "/nowhere"), tmp_path))


def test_a_rejected_recording_says_why_and_keeps_nothing(planned, tmp_path, monkeypatch):
    folder, recording_id = planned
    monkeypatch.setattr("tasks.recording.replay.record_alone", lambda *given: "a view is black.")
    told = list(replay_recording(folder, recording_id, SPEC, tmp_path))
    assert told[1:] == ["A quality gate rejects it, and nothing of it is kept: a view is black."]
