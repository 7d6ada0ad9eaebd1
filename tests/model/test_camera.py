"""CARLA poses to OpenCV cameras, against carla itself."""

from __future__ import annotations

import carla
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.camera import MOUNTS, VIEWS, carla_matrix, carla_pose, carla_to_c2w, intrinsics, project

coordinate = st.floats(-500, 500)
poses = st.tuples(coordinate, coordinate, coordinate, st.floats(-89, 89), st.floats(-360, 360), st.floats(-180, 180))


def transform(pose):
    return carla.Transform(carla.Location(*pose[:3]), carla.Rotation(*pose[3:]))


@given(poses)
@settings(max_examples=200, deadline=None)
def test_matrix_is_carlas(pose):
    np.testing.assert_allclose(carla_matrix(np.array(pose)), transform(pose).get_matrix(), atol=2e-4)


@given(poses)
@settings(max_examples=100, deadline=None)
def test_camera_axes_are_forward_right_and_down_of_carla(pose):
    c2w = carla_to_c2w(np.array(pose))
    there = transform(pose)
    flip = np.array([1, -1, 1])
    for column, vector, sign in (
        (2, there.get_forward_vector(), 1),
        (0, there.get_right_vector(), 1),
        (1, there.get_up_vector(), -1),
    ):
        np.testing.assert_allclose(c2w[:3, column], sign * flip * [vector.x, vector.y, vector.z], atol=1e-5)
    np.testing.assert_allclose(c2w[:3, 3], flip * np.array(pose[:3]))
    np.testing.assert_allclose(np.linalg.det(c2w[:3, :3]), 1, atol=1e-9)


def test_what_is_on_the_right_lands_on_the_right_and_below_is_below():
    K, c2w = intrinsics(720, 480, 90), carla_to_c2w(np.zeros(6))
    right_and_below = np.array([[10.0, -2.0, -1.0]])  # CARLA (10, 2, -1): y negated
    (pixel,), (depth,) = project(right_and_below, K, c2w)
    np.testing.assert_allclose(pixel, (360 + 36 * 2, 240 + 36))
    assert depth == 10


def test_side_views_are_mounted_to_their_side():
    assert VIEWS == ("front", "rear", "left", "right")
    looking = {name: carla_to_c2w(np.array(MOUNTS[name]))[:3, 2] for name in VIEWS}
    np.testing.assert_allclose(looking["left"], (0, 1, 0), atol=1e-12)  # CARLA's -y
    np.testing.assert_allclose(looking["rear"], (-1, 0, 0), atol=1e-12)


@given(poses)
@settings(max_examples=100, deadline=None)
def test_poses_come_back_from_their_matrices(pose):
    matrix = carla_matrix(np.array(pose))
    np.testing.assert_allclose(carla_matrix(carla_pose(matrix)), matrix, atol=1e-9)
