"""The loop: frames follow the plan or the keys, come in time, wait for nobody, and are saved."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from PIL import Image

from model.pictures import first_frames
from model.trajectories import cameras
from tasks.play.cars import Control
from tasks.play.errors import PlayError
from tasks.play.scenes import FOLDER, FRAME_S, picture_file, poses_from_dicts, read_scene, scene_names
from tasks.play.session import Session
from tasks.sharding.convert import convert
from tests.tasks.play.conftest import OTHER_SCENE, SCENE, until


def frame_numbered(session, number):
    return next((frame for frame in list(session.frames) if frame.number >= number), None)


def test_every_scene_can_be_read_and_its_cars_start_apart():
    names = scene_names()
    assert len(names) >= 6
    for name in names:
        scene = read_scene(name)
        assert scene.town in ("Mini10", "Mini11", "Mini12")
        assert scene.first_pictures.shape == (2, 256, 384, 3)
        assert scene.trajectories.shape[1] > 30
        assert scene.roads


def test_a_scene_that_is_not_there_is_refused_with_those_that_are(session):
    with pytest.raises(PlayError, match="there is no scene 'nowhere': the scenes are 1-crossing, "):
        session.choose("nowhere")
    with pytest.raises(PlayError, match="there is no scene"):
        read_scene("nowhere")


@pytest.mark.parametrize("name", scene_names())
@pytest.mark.parametrize("frames", [9, 17, 25, 49])
def test_scenes_are_examples_for_generate(name, frames):
    given = [str(picture_file(name, agent)) for agent in range(2)]
    assert first_frames(given, 128, 192, "four").shape == (2, 3, 128, 192)
    options = {"agents": 2, "frames": frames, "views": "four", "fps": 1 / FRAME_S, "fov_deg": 90.0}
    _, c2w = cameras(str(FOLDER / f"{name}.json"), **options)
    assert (c2w.shape[2] - 1) % (frames - 1) == 0
    assert torch.equal(c2w[:, :, -1], c2w[:, :, -2])  # both cars stand at the end


def test_damaged_scenes_are_one_sentence(tmp_path):
    (tmp_path / "a.json").write_text('{"title": "A"}')
    with pytest.raises(PlayError, match="make the scenes again"):
        read_scene("a", tmp_path)


def test_frames_follow_the_plan_while_nobody_drives(session, scenes):
    until(lambda: frame_numbered(session, 20))
    for frame in list(session.frames):
        assert np.array_equal(frame.poses, scenes[SCENE].trajectories[:, frame.number])


def test_frames_are_due_one_after_the_other_at_the_worlds_rate(session):
    until(lambda: frame_numbered(session, 24))
    due = np.array([frame.due_s for frame in list(session.frames)])
    assert np.diff(due).min() >= FRAME_S - 1e-6
    shown = session.shown(due[5] + 0.01)
    assert shown.number == 5
    assert session.shown(due[0] - 1) is None


def test_the_next_chunk_is_begun_as_late_as_it_may_be(session, world):
    world.chunk_s = 0.1
    until(lambda: len(world.chunks) >= 3)
    made = len(world.chunks)
    ahead = session.frames[-1].due_s - time.monotonic()
    assert ahead < (world.chunk_frames + 1) * FRAME_S
    time.sleep(max(0.0, ahead - 0.35))
    assert len(world.chunks) == made


def test_a_slow_model_spreads_its_frames(session, world):
    world.chunk_s = 1.2
    until(lambda: len(world.chunks) >= 2)
    time.sleep(0.05)
    due = [frame.due_s for frame in list(session.frames)][-8:]
    assert np.diff(due).min() > 1.2 / 8


def test_keys_come_back_with_the_first_frame_under_them(session):
    until(lambda: frame_numbered(session, 1))
    session.seats.take(0, "me")
    session.seats.drive(0, "me", Control(1, 1), 17)
    until(lambda: any(frame.seats[0].number == 17 for frame in list(session.frames)))
    first = next(frame for frame in list(session.frames) if frame.seats[0].number == 17)
    assert first.seats[0].driver == "me"
    assert first.number % 8 == 1
    assert first.states[0].planned_frame is None
    assert first.states[1].planned_frame == first.number


def chunks_while_resting(session, world):
    """Wait until the loop rests, wake it for nothing, and return how many chunks there are: no more than before."""
    until(lambda: session.rests > 0)
    made, rests = len(world.chunks), session.rests
    session.announce()
    until(lambda: session.rests > rests)
    assert len(world.chunks) == made
    return made


def test_without_watchers_nothing_is_made(session, world):
    until(lambda: len(world.chunks) >= 1)
    session.watch(-1)
    made = chunks_while_resting(session, world)
    session.watch(1)
    until(lambda: len(world.chunks) > made)


def test_pause_and_restart_and_another_scene(session, world):
    until(lambda: len(world.chunks) >= 1)
    session.pause(True)
    made = chunks_while_resting(session, world)
    session.choose(OTHER_SCENE)
    until(lambda: len(world.chunks) > made)
    assert session.state()["scene"] == OTHER_SCENE
    assert not session.state()["paused"]
    assert [frame.number for frame in list(session.frames)][:2] == [0, 1]


def test_a_model_that_fails_is_told_and_the_session_goes_on(session, world):
    until(lambda: len(world.chunks) >= 1)
    world.failure = RuntimeError("not enough memory:\n you tried to allocate 9 GB")
    until(lambda: session.notices)
    (notice,) = session.notices
    assert notice == "The model failed: not enough memory: you tried to allocate 9 GB. Start the scene anew."
    assert session.state()["paused"]
    made = len(world.chunks)
    session.choose(SCENE)
    until(lambda: len(world.chunks) > made)


def test_a_shorter_chunk_takes_so_many_frames(world, scenes, tmp_path):
    session = Session(world, scenes, SCENE, tmp_path, chunk=3)
    session.watch(1)
    session.begin()
    try:
        until(lambda: len(world.chunks) >= 2)
        assert world.chunks[0].shape == (2, 3, 6)
    finally:
        session.end()


def test_a_take_is_videos_and_trajectories_that_convert_takes(session, tmp_path):
    until(lambda: frame_numbered(session, 8))
    session.record(True)
    assert session.state()["recording"]
    until(lambda: frame_numbered(session, 26))
    session.record(False)
    until(lambda: session.notices)
    assert "frames are saved in" in session.notices[-1]
    (folder,) = (tmp_path / "takes").iterdir()
    trajectories = [poses_from_dicts(car) for car in json.loads((folder / "t.json").read_text())]
    assert len(trajectories) == 2
    assert len(trajectories[0]) == len(trajectories[1]) >= 9
    assert len(trajectories[0]) % session.model.chunk_frames == 1
    assert Image.open(folder / "a1.png").size == (96, 64)
    names = {path.name for path in folder.glob("*.mp4")}
    assert {"agent0.mp4", "agent1.mp4", "agent0_front.mp4", "agent1_right.mp4"} <= names
    summary = convert(folder / "clips", tmp_path / "data", frames=9)
    assert summary


def test_what_is_recorded_when_the_session_ends_is_saved(world, scenes, tmp_path):
    session = Session(world, scenes, SCENE, tmp_path)
    session.watch(1)
    session.begin()
    until(lambda: frame_numbered(session, 1))
    session.record(True)
    until(lambda: frame_numbered(session, 9))
    session.end()
    assert "frames are saved in" in session.notices[-1]
    (folder,) = tmp_path.iterdir()
    assert (folder / "t.json").is_file()


def test_a_take_that_cannot_be_written_is_one_sentence(world, scenes, tmp_path):
    (tmp_path / "takes").write_text("a file")
    session = Session(world, scenes, SCENE, tmp_path / "takes")
    session.watch(1)
    session.begin()
    try:
        until(lambda: frame_numbered(session, 1))
        session.record(True)
        session.record(False)
        until(lambda: session.notices)
        assert session.notices[-1].startswith("The recording could not be saved: ")
    finally:
        session.end()
