"""Two red cars with four cameras each, spawned once per town and teleported (trap 9: servers leak memory)."""

from __future__ import annotations

from typing import Any

import carla
import numpy as np

from model.camera import FOV_DEG, MOUNTS, VIEWS, camera_poses
from tasks.planning.rows import AGENTS
from tasks.recording.barrier import Barrier, CameraImage, pose_from_transform
from tasks.recording.depth import depth_cm
from tasks.recording.errors import RecordingError, ServerFault
from tasks.recording.visibility import other_car_code

VEHICLE_BLUEPRINT = "vehicle.audi.tt"
COLOR = "178,14,20"
TICK_TIMEOUT_S = 60.0
"""Limit for a tick and for its images; after that the server is not used again (trap 5: ticks can hang)."""
LOAD_TIMEOUT_S, CALL_TIMEOUT_S = 120.0, 20.0
"""Limits for loading a town, and for any other call but a tick."""
LONGEST_SUBSTEPPED_S = 0.1
"""Longest step that CARLA divides: ten substeps of 0.01 s. Cars without physics need none."""
POSITION_TOLERANCE_M, ANGLE_TOLERANCE_DEG = 1e-3, 1e-2
FACING_DISTANCE_M = 9.0
"""Distance between the cars while their instance codes are read."""
CAMERA_KINDS = ("rgb", "depth", "instance_segmentation")
RGB_ATTRIBUTES = {
    "exposure_mode": "manual",
    "exposure_compensation": "0.0",
    "motion_blur_intensity": "0.0",
    "motion_blur_max_distortion": "0.0",
    "lens_flare_intensity": "0.0",
    "enable_postprocess_effects": "true",
}
"""Equal and fixed on all eight cameras; lens defaults stay untouched (trap 11: brightness must settle)."""


def transform_from_pose(pose: np.ndarray) -> carla.Transform:
    """Return the carla.Transform of x, y, z, pitch, yaw, roll [6] in metres and degrees."""
    x, y, z, pitch, yaw, roll = (float(value) for value in pose)
    return carla.Transform(carla.Location(x, y, z), carla.Rotation(pitch, yaw, roll))


def open_world(client: Any, town: str, fixed_delta_s: float) -> Any:
    """Load a town as a new episode that advances `fixed_delta_s` seconds per tick, and only when told; return it."""
    client.set_timeout(LOAD_TIMEOUT_S)
    world = client.load_world(town, True, carla.MapLayer.All)
    client.set_timeout(CALL_TIMEOUT_S)
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, fixed_delta_s
    settings.substepping = fixed_delta_s <= LONGEST_SUBSTEPPED_S
    world.apply_settings(settings)
    return world


def check_pose(name: str, actual: Any, commanded: np.ndarray) -> None:
    """Raise RecordingError unless two poses [6] agree to 1 mm and 0.01 degrees (trap 1: poses arrive late)."""
    distance_m = float(np.abs(np.subtract(actual[:3], commanded[:3])).max())
    angle_deg = float(np.abs((np.subtract(actual[3:], commanded[3:]) + 180) % 360 - 180).max())
    if distance_m > POSITION_TOLERANCE_M or angle_deg > ANGLE_TOLERANCE_DEG:
        raise RecordingError(f"{name} is {distance_m * 1000:.1f} mm and {angle_deg:.3f} degrees from where it was put.")


class Rig:
    """The cars and cameras of one episode. Cameras are numbered kind by kind, car by car, view by view."""

    def __init__(self, world: Any, width: int, height: int, *, ground_truth: bool) -> None:
        self.world, self.image_size, self.ground_truth = world, (width, height), ground_truth
        self.kinds = CAMERA_KINDS if ground_truth else CAMERA_KINDS[:1]
        self.barrier = Barrier(AGENTS * len(VIEWS) * len(self.kinds))
        self.cars: list[Any] = []
        self.sensors: list[Any] = []
        self.collision_sensors: list[Any] = []
        self.collisions: list[tuple[int, str]] = []
        self.camera_attributes: dict[str, str] = {}
        self.agent_ids: dict[tuple[int, int], int] = {}
        """Instance code, (G, B) of an instance image -> stored id: 1 for agent 0, 2 for agent 1."""
        library = world.get_blueprint_library()
        points = world.get_map().get_spawn_points()
        if len(points) < AGENTS:
            raise RecordingError(f"{world.get_map().name} has {len(points)} spawn points and the rig needs {AGENTS}.")
        for agent in range(AGENTS):
            self.spawn_car(library, points, agent)
        for kind in self.kinds:
            for car in self.cars:
                for view in VIEWS:
                    self.spawn_camera(library, kind, car, view)

    def spawn_car(self, library: Any, points: list, agent: int) -> None:
        blueprint = library.find(VEHICLE_BLUEPRINT)
        blueprint.set_attribute("color", COLOR)
        blueprint.set_attribute("role_name", "hero" if agent == 0 else f"agent{agent}")  # trap 12: large maps
        for point in points[agent::AGENTS]:
            car = self.world.try_spawn_actor(blueprint, point)
            if car is not None:
                break
        else:
            raise RecordingError(f"no spawn point of {self.world.get_map().name} is free for car {agent}.")
        car.set_simulate_physics(False)
        self.cars.append(car)
        sensor = self.world.spawn_actor(library.find("sensor.other.collision"), carla.Transform(), attach_to=car)
        sensor.listen(lambda event: self.collisions.append((agent, event.other_actor.type_id)))
        self.collision_sensors.append(sensor)

    def spawn_camera(self, library: Any, kind: str, car: Any, view: str) -> None:
        blueprint = library.find(f"sensor.camera.{kind}")
        width, height = self.image_size
        attributes = {"image_size_x": str(width), "image_size_y": str(height), "fov": str(FOV_DEG)}
        if kind == "rgb":
            attributes |= RGB_ATTRIBUTES
        for name, value in attributes.items():
            blueprint.set_attribute(name, value)
        x, y, z, pitch, yaw, roll = MOUNTS[view]
        mount = carla.Transform(carla.Location(x, y, z), carla.Rotation(pitch, yaw, roll))
        sensor = self.world.spawn_actor(blueprint, mount, attach_to=car)
        sensor.listen(self.barrier.callback(len(self.sensors)))
        if kind == "rgb":
            self.camera_attributes = dict(sorted(sensor.attributes.items()))
        self.sensors.append(sensor)

    def bounding_boxes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return half sizes and centres of the agents' bounding boxes, each [A, 3], in metres in the car's frame."""
        boxes = [car.bounding_box for car in self.cars]
        extent = [[b.extent.x, b.extent.y, b.extent.z] for b in boxes]
        centre = [[b.location.x, b.location.y, b.location.z] for b in boxes]
        return np.array(extent, np.float64), np.array(centre, np.float64)

    def teleport(self, client: Any, poses: np.ndarray) -> None:
        """Move both cars to poses [A, 6] with one acknowledged batch. RecordingError when one cannot be moved."""
        pairs = zip(self.cars, poses, strict=True)
        commands = [carla.command.ApplyTransform(car, transform_from_pose(pose)) for car, pose in pairs]
        for answer in client.apply_batch_sync(commands):  # never with a tick in it (trap 2: batches that tick hang)
            if answer.error:
                raise RecordingError(f"a car could not be moved: {answer.error}")

    def step(self, client: Any, poses: np.ndarray) -> tuple[list[CameraImage], float]:
        """Move both cars to poses [A, 6], tick, and return all images of that tick and its time.

        RecordingError unless everything is where it was put.
        """
        self.teleport(client, poses)
        frame = self.world.tick(TICK_TIMEOUT_S)
        snapshot = self.world.get_snapshot()
        if snapshot.frame != frame:
            raise ServerFault(f"the world is at frame {snapshot.frame} instead of {frame}.")
        for agent, (car, pose) in enumerate(zip(self.cars, poses, strict=True)):
            actor = snapshot.find(car.id)
            if actor is None:
                raise RecordingError(f"car {agent} is gone.")
            check_pose(f"car {agent}", pose_from_transform(actor.get_transform()), pose)
        images = self.barrier.wait(frame, TICK_TIMEOUT_S)
        commanded = camera_poses(poses).reshape(-1, 6)
        for camera, image in enumerate(images):
            check_pose(f"camera {camera}", image.pose, commanded[camera % len(commanded)])
        return images, snapshot.timestamp.elapsed_seconds

    def find_instance_codes(self, client: Any) -> None:
        """Let the cars face each other and read which instance code belongs to which agent.

        The pixels vote, because simulators number instances differently. It is done once per rig, so that clips do not
        depend on what was recorded before them. RecordingError where no spawn point gives both codes.
        """
        cameras = AGENTS * len(VIEWS)  # of each kind
        extent, centre = self.bounding_boxes()
        for point in self.world.get_map().get_spawn_points():
            here = np.array(pose_from_transform(point))
            ahead = here.copy()
            yaw = np.radians(here[4])
            ahead[:2] += FACING_DISTANCE_M * np.array([np.cos(yaw), np.sin(yaw)])
            poses = np.stack([here, ahead])
            images, _ = self.step(client, poses)
            for agent in range(AGENTS):
                agent_cameras = slice(agent * len(VIEWS), (agent + 1) * len(VIEWS))
                depth = [depth_cm(image.bgra) for image in images[cameras:][agent_cameras]]
                instance = [image.bgra for image in images[2 * cameras :][agent_cameras]]
                other = 1 - agent
                code = other_car_code(instance, depth, poses[agent], poses[other], extent[other], centre[other])
                if code is not None:
                    self.agent_ids[code] = other + 1
            if sorted(self.agent_ids.values()) == list(range(1, AGENTS + 1)):
                return
            self.agent_ids.clear()
        raise RecordingError("the agents' instance codes could not be told from the instance images.")

    def destroy(self) -> None:
        """Stop and destroy sensors through their own handles, then the cars (trap 10: sensors before cars)."""
        for sensor in (*self.sensors, *self.collision_sensors):
            sensor.stop()
            sensor.destroy()
        for car in self.cars:
            car.destroy()
