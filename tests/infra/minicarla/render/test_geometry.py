"""Where things appear, how far away, and as what."""

from __future__ import annotations

import numpy as np
import pytest

from infra.minicarla.render.rays import prepare
from infra.minicarla.render.renderer import Picture, body_rows
from infra.minicarla.render.world import FIRST_ID
from infra.minicarla.scenery import Body, CameraKind, Label, Shape
from model.camera import MOUNTS, carla_to_c2w, intrinsics, project

from .conftest import WALL, camera, coupe, identities, metres

EYE = (0.0, 0.0, 1.75, 0.0, 0.0, 0.0)
BOX = Body(Shape.BOX, (12.0, -3.0, 0.0, 0.0, 30.0, 0.0), (1.5, 1.0, 1.6), (0.2, 0.3, 0.8), Label.STATIC, 300)


def test_depth_of_the_ground_is_the_height_over_the_slope(draw):
    depth = metres(draw(camera((0, 0, 1.75, 0, 200, 0), CameraKind.DEPTH, 90, 60)))
    rows = np.arange(40, 60)
    expected = 1.75 / ((2 * (rows + 0.5) / 60 - 1) * 60 / 90)
    assert np.allclose(depth[rows], expected[:, None], atol=1e-3)


def test_depth_of_a_wall_is_its_distance_along_the_axis(draw):
    depth = metres(draw(camera((5.0, 6.0, 1.75, 0, 0, 0), CameraKind.DEPTH)))
    face_m = WALL["center"][0] - WALL["half"][0] - 5.0
    assert np.allclose(depth[25:36, 40:56], face_m, atol=1e-3)
    assert metres(draw(camera((0, 0, 1.75, 60, 0, 0), CameraKind.DEPTH))).min() == pytest.approx(1000.0)


def test_tags_and_ids_tell_road_building_tree_sky_and_actors(draw):
    codes = draw(camera(EYE, CameraKind.INSTANCE), coupe((10, 0, 0, 0, 90, 0), actor_id=700), BOX)
    tag, identity = codes[..., 2], identities(codes)
    beyond_the_map = Label.TERRAIN
    named = {Label.ROADS, Label.BUILDINGS, Label.VEGETATION, Label.SKY, Label.CAR, Label.STATIC, beyond_the_map}
    assert set(np.unique(tag)) == named
    assert np.array_equal(draw(camera(EYE, CameraKind.SEMANTIC), coupe((10, 0, 0, 0, 90, 0), 700), BOX)[..., 2], tag)
    ids = {Label.CAR: 700, Label.STATIC: 300, Label.BUILDINGS: FIRST_ID, Label.VEGETATION: FIRST_ID + 1}
    for label, expected in ids.items():
        assert set(identity[tag == label]) == {expected}
    assert not identity[(tag == Label.ROADS) | (tag == Label.SKY)].any()


@pytest.mark.parametrize("pose", [EYE, (2.0, -7.0, 3.0, -12.0, 35.0, 0.0), (20.0, -9.0, 2.2, 5.0, 140.0, 9.0)])
def test_a_box_appears_where_the_models_cameras_project_it(draw, pose):
    width, height = 240, 160
    x, y, yaw = *BOX.pose[:2], np.radians(BOX.pose[4])
    corners = np.array([
        (x + np.cos(yaw) * a - np.sin(yaw) * b, y + np.sin(yaw) * a + np.cos(yaw) * b, c)
        for a in (-1.5, 1.5) for b in (-1.0, 1.0) for c in (0.0, 3.2)
    ])  # fmt: skip
    pixels, depth = project(corners * (1, -1, 1), intrinsics(width, height, 90.0), carla_to_c2w(np.array(pose)))
    codes = draw(camera(pose, CameraKind.INSTANCE, width, height), BOX)
    rows, columns = np.nonzero(identities(codes) == 300)
    assert (depth > 0).all()
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    expected = np.clip([*pixels.min(0), *pixels.max(0)], 0, [width, height] * 2)
    assert np.abs(seen - expected).max() < 1.0


def test_no_camera_of_the_rig_sees_its_own_car(draw):
    for mount in MOUNTS.values():
        codes = draw(camera(mount, CameraKind.SEMANTIC, 360, 240), coupe((0, 0, 0, 0, 0, 0)))
        assert not (codes[..., 2] == Label.CAR).any()


@pytest.mark.parametrize("view", MOUNTS)
def test_a_camera_on_the_roof_hardly_looks_for_its_own_car(view):
    """What stands in a tile's list is tried at each of its pixels."""
    width, height, nothing = 192, 128, np.zeros((0, 13))
    picture = Picture(camera(MOUNTS[view], CameraKind.RGB, width, height))
    rows = body_rows([coupe((0, 0, 0, 0, 0, 0))])
    lists = prepare(nothing, nothing, rows, picture.eye, picture.axes, picture.tan_x, width, height)
    assert len(lists.item) < len(lists.start) / 2


def test_a_camera_below_the_ground_sees_no_ground(draw):
    tags = draw(camera((0, 0, -1.0, -30.0, 0, 0), CameraKind.SEMANTIC))[..., 2]
    assert not (tags == Label.ROADS).any()


def test_the_wall_prop_hides_a_coupe_from_the_cameras(draw):
    wall = Body(Shape.BOX, (6.0, 0.0, 0.0, 0.0, 90.0, 0.0), (5.0, 0.15, 1.6), (0.6, 0.6, 0.6), Label.WALLS, 9)
    view = camera(EYE, CameraKind.SEMANTIC)
    assert (draw(view, coupe((12, 0, 0, 0, 0, 0)))[..., 2] == Label.CAR).sum() > 30
    assert not (draw(view, coupe((12, 0, 0, 0, 0, 0)), wall)[..., 2] == Label.CAR).any()
