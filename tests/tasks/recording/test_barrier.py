"""One tick, all images, each where it should be (traps 1, 3 and 4)."""

from __future__ import annotations

from types import SimpleNamespace

import carla
import numpy as np
import pytest

from tasks.recording.barrier import Barrier, pose_from_transform
from tasks.recording.errors import RecordingError
from tasks.recording.rig import check_pose, transform_from_pose


def image(frame: int, buffer: bytearray | None = None) -> SimpleNamespace:
    """What a camera's callback gets."""
    data = buffer if buffer is not None else bytearray([frame % 256] * 2 * 3 * 4)
    return SimpleNamespace(frame=frame, transform=carla.Transform(), height=2, width=3, raw_data=memoryview(data))


def test_images_come_in_the_sensors_order_whatever_the_order_of_arrival():
    barrier = Barrier(3)
    for sensor in (2, 0, 1):
        barrier.callback(sensor)(image(7 + 0 * sensor, bytearray([sensor] * 24)))
    assert [shot.bgra[0, 0, 0] for shot in barrier.wait(7, 1.0)] == [0, 1, 2]


def test_older_images_are_dropped():
    barrier = Barrier(2)
    for frame in (5, 6, 7):
        for sensor in (0, 1):
            barrier.callback(sensor)(image(frame))
    assert {shot.frame for shot in barrier.wait(7, 1.0)} == {7}


def test_a_missing_image_is_named():
    barrier = Barrier(3)
    barrier.callback(1)(image(7))
    with pytest.raises(RecordingError, match=r"cameras \[0, 2\] sent no image of frame 7"):
        barrier.wait(7, 0.05)


def test_a_late_image_of_the_last_tick_does_not_stand_in():
    barrier = Barrier(1)
    barrier.callback(0)(image(6))
    with pytest.raises(RecordingError, match="no image of frame 7"):
        barrier.wait(7, 0.05)


def test_an_image_of_a_later_tick_is_refused():
    barrier = Barrier(2)
    barrier.callback(1)(image(8))
    with pytest.raises(RecordingError, match="camera 1 sent frame 8 while frame 7 was expected"):
        barrier.wait(7, 1.0)


def test_the_client_may_reuse_its_buffer_after_the_callback():
    barrier, buffer = Barrier(1), bytearray([11] * 24)
    barrier.callback(0)(image(7, buffer))
    buffer[:] = bytes([99] * 24)
    (shot,) = barrier.wait(7, 1.0)
    assert (shot.bgra == 11).all()


WANTED = np.array([10.0, -4.0, 0.2, 0.0, 179.999, 0.0])


@pytest.mark.parametrize("axis", range(6))
def test_a_pose_that_is_off_is_refused(axis):
    limit = 1e-3 if axis < 3 else 1e-2
    near, off = WANTED.copy(), WANTED.copy()
    near[axis] += 0.8 * limit
    off[axis] -= 1.5 * limit
    check_pose("car 0", near, WANTED)
    with pytest.raises(RecordingError, match=r"car 0 is .* from where it was put"):
        check_pose("car 0", off, WANTED)


def test_a_full_turn_is_no_difference():
    check_pose("car 0", np.add(WANTED, (0, 0, 0, 0, -360, 0)), WANTED)


def test_poses_survive_carla_transforms():
    pose = np.array([1.5, -2.25, 0.5, 3.0, -91.0, 7.0])
    assert np.allclose(pose_from_transform(transform_from_pose(pose)), pose, atol=1e-5)
