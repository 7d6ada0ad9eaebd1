"""The rig on a real server: where the other car's middle is projected, its mask lies, and its mask is red."""

from __future__ import annotations

import carla
import numpy as np
import pytest

from infra.carla_servers import CarlaServer
from model.camera import FOV_DEG, VIEWS, camera_poses, carla_matrix, carla_to_c2w, intrinsics, project
from tasks.planning.weather import WEATHERS
from tasks.recording.barrier import pose_from_transform
from tasks.recording.depth import depth_cm
from tasks.recording.errors import RecordingError
from tasks.recording.rig import AGENTS, Rig
from tasks.recording.visibility import stored_ids
from tests.conftest import SPEC

WIDTH, HEIGHT = 192, 128
COUNT = AGENTS * len(VIEWS)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A client and a rig with depth and instance cameras in Mini01 at clear noon."""
    with CarlaServer(SPEC, tmp_path_factory.mktemp("logs"), "server0") as server:
        client = server.client
        client.set_timeout(60.0)
        world = client.load_world("Mini01")
        settings = world.get_settings()
        settings.synchronous_mode, settings.fixed_delta_seconds = True, 1 / 30
        world.apply_settings(settings)
        rig = Rig(world, WIDTH, HEIGHT, ground_truth=True)
        world.set_weather(carla.WeatherParameters(**WEATHERS["clear_noon"]))
        rig.find_instance_codes(client)
        yield client, rig
        rig.destroy()


def beside(pose: np.ndarray, forward_m: float, right_m: float, turn_deg: float) -> np.ndarray:
    """Return a pose shifted in a car's own frame and turned."""
    yaw = np.radians(pose[4])
    moved = pose.copy()
    moved[0] += forward_m * np.cos(yaw) - right_m * np.sin(yaw)
    moved[1] += forward_m * np.sin(yaw) + right_m * np.cos(yaw)
    moved[4] += turn_deg
    return moved


def spots(rig: Rig) -> list[np.ndarray]:
    return [np.array(pose_from_transform(point)) for point in rig.world.get_map().get_spawn_points()]


def mask_of(images, rig: Rig, view: str) -> tuple[np.ndarray, np.ndarray]:
    """Return agent 0's picture [h, w, 3] RGB of a view and agent 1's mask in it."""
    number = VIEWS.index(view)
    instance = stored_ids(images[2 * COUNT + number].bgra, rig.agent_ids, {})
    return images[number].bgra[..., 2::-1].astype(float), instance == 2


def red_share(rgb: np.ndarray, mask: np.ndarray) -> float:
    """Of the mask's pixels: R > 1.6 G and R > 60."""
    red, green = rgb[mask][:, 0], rgb[mask][:, 1]
    return float(((red > 1.6 * green) & (red > 60)).mean())


@pytest.mark.parametrize(
    ("view", "forward", "right", "turn"),
    [("front", 7.0, 0.0, 0.0), ("front", 8.0, 0.0, 90.0), ("front", 9.0, 1.0, 180.0), ("rear", -8.0, 0.0, 30.0),
     ("left", 0.0, -6.0, 0.0), ("right", 1.0, 5.0, -60.0)],
    ids=["behind it", "from its side", "before it", "it follows", "on the left", "on the right"],
)  # fmt: skip
def test_the_other_car_is_where_it_is_projected_and_red(stage, view, forward, right, turn):
    client, rig = stage
    extent, centre = rig.bounding_boxes()
    checked = 0
    for here in spots(rig)[:4]:
        if view == "right":
            here = beside(here, 0.0, 0.0, 180.0)  # the street is on that side
        poses = np.stack([here, beside(here, forward, right, turn)])
        images, _ = rig.step(client, poses)
        rgb, mask = mask_of(images, rig, view)
        number = VIEWS.index(view)
        camera = camera_poses(poses[0])[number]
        middle = (carla_matrix(poses[1]) @ (*centre[1], 1.0))[:3] * (1, -1, 1)
        pixel, along = project(middle[None], intrinsics(WIDTH, HEIGHT, FOV_DEG), carla_to_c2w(camera))
        u, v = np.floor(pixel[0]).astype(int)
        depth = depth_cm(images[COUNT + number].bgra)[v, u] / 100
        if depth < along[0] - extent[1].max() - 0.3:
            continue  # a tree or a lamp stands before it
        assert mask[v, u]
        assert mask.sum() > 150
        assert red_share(rgb, mask) >= 0.3, (view, here)
        checked += 1
    assert checked >= 2


def test_it_is_red_in_shade_too(stage):
    """At every spawn point: some are in the sun, some under trees and behind houses."""
    client, rig = stage
    light, shares = [], []
    for here in spots(rig)[:24]:
        images, _ = rig.step(client, np.stack([here, beside(here, 7.0, 0.0, 0.0)]))
        rgb, mask = mask_of(images, rig, "front")
        light.append(rgb[mask].max(-1).mean())
        shares.append(red_share(rgb, mask))
    assert max(light) > 1.5 * min(light), "no spot in shade was among them"
    assert min(shares) >= 0.3


def test_a_car_that_is_not_where_it_was_put_is_refused(stage, monkeypatch):
    client, rig = stage
    poses = np.stack([spots(rig)[0], spots(rig)[1]])
    rig.step(client, poses)
    monkeypatch.setattr(carla.Client, "apply_batch_sync", lambda self, commands: [])
    moved = poses.copy()
    moved[1, 0] += 0.5
    with pytest.raises(RecordingError, match=r"car 1 is 500\.0 mm and 0\.000 degrees from where it was put"):
        rig.step(client, moved)
    rig.barrier.wait(rig.world.get_snapshot().frame, 10.0)


def test_all_cameras_share_one_exposure_and_keep_their_lens(stage):
    _, rig = stage
    attributes = rig.camera_attributes
    assert attributes["exposure_mode"] == "manual"
    assert attributes["motion_blur_intensity"] in ("0.0", "0")
    assert (attributes["image_size_x"], attributes["image_size_y"], float(attributes["fov"])) == ("192", "128", 90.0)
    rgb = [sensor for sensor in rig.sensors if sensor.type_id == "sensor.camera.rgb"]
    assert len(rgb) == COUNT
    assert len({tuple(sorted(s.attributes.items())) for s in rgb}) == 1
