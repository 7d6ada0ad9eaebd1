"""Two red cars with four cameras each, spawned once a town and teleported (traps 9 to 11)."""

from __future__ import annotations

from typing import Any

import carla
import numpy as np

from model.camera import MOUNTS, VIEWS
from tasks.recording.barrier import Barrier, Shot, pose_of
from tasks.recording.depth import depth_cm
from tasks.recording.errors import RecordingError, ServerFault
from tasks.recording.seeing import FOV_DEG, agent_codes, camera_poses

AGENTS = 2
VEHICLE = "vehicle.audi.tt"
COLOR = "178,14,20"
TICK_S = 60.0
"""Patience with a tick and its images; after that the server is not used again (trap 5: ticks can hang)."""
PLACE_TOLERANCE_M, ANGLE_TOLERANCE_DEG = 1e-3, 1e-2
FACING_M = 9.0
"""Distance at which the cars stand when their instance codes are found."""
KINDS = ("rgb", "depth", "instance_segmentation")
RGB_ATTRIBUTES = {
    "exposure_mode": "manual",
    "exposure_compensation": "0.0",
    "motion_blur_intensity": "0.0",
    "motion_blur_max_distortion": "0.0",
    "lens_flare_intensity": "0.0",
    "enable_postprocess_effects": "true",
}
"""Equal and fixed on all eight cameras; lens defaults stay untouched (trap 11: brightness must settle)."""


def transform_of(pose: np.ndarray) -> carla.Transform:
    x, y, z, pitch, yaw, roll = (float(value) for value in pose)
    return carla.Transform(carla.Location(x, y, z), carla.Rotation(pitch, yaw, roll))


def check_pose(what: str, found: Any, wanted: np.ndarray) -> None:
    """Raise RecordingError unless two poses agree to 1 mm and 0.01 degrees (trap 1: poses arrive late)."""
    place = float(np.abs(np.subtract(found[:3], wanted[:3])).max())
    angle = float(np.abs((np.subtract(found[3:], wanted[3:]) + 180) % 360 - 180).max())
    if place > PLACE_TOLERANCE_M or angle > ANGLE_TOLERANCE_DEG:
        raise RecordingError(f"{what} is {place * 1000:.1f} mm and {angle:.3f} degrees from where it was put.")


class Rig:
    """The cars and cameras of one episode."""

    def __init__(self, world: Any, width: int, height: int, *, ground_truth: bool) -> None:
        self.world, self.size, self.ground_truth = world, (width, height), ground_truth
        self.kinds = KINDS if ground_truth else KINDS[:1]
        self.barrier = Barrier(AGENTS * len(VIEWS) * len(self.kinds))
        self.cars: list[Any] = []
        self.sensors: list[Any] = []
        self.collision_sensors: list[Any] = []
        self.collisions: list[tuple[int, str]] = []
        self.camera_attributes: dict[str, str] = {}
        self.instance_codes: dict[tuple[int, int], int] = {}
        """(G, B) of an instance image -> 1 for agent 0, 2 for agent 1."""
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
        blueprint = library.find(VEHICLE)
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
        attributes = {"image_size_x": str(self.size[0]), "image_size_y": str(self.size[1]), "fov": str(FOV_DEG)}
        if kind == "rgb":
            attributes |= RGB_ATTRIBUTES
        for name, value in attributes.items():
            blueprint.set_attribute(name, value)
        x, y, z, pitch, yaw, roll = MOUNTS[view]
        mount = carla.Transform(carla.Location(x, y, z), carla.Rotation(pitch, yaw, roll))
        sensor = self.world.spawn_actor(blueprint, mount, attach_to=car)
        sensor.listen(self.barrier.receiver(len(self.sensors)))
        if kind == "rgb":
            self.camera_attributes = dict(sorted(sensor.attributes.items()))
        self.sensors.append(sensor)

    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Return half sizes and centre (car's frame) of the agents' bounding boxes, each [A, 3]."""
        boxes = [car.bounding_box for car in self.cars]
        extent = [[b.extent.x, b.extent.y, b.extent.z] for b in boxes]
        centre = [[b.location.x, b.location.y, b.location.z] for b in boxes]
        return np.array(extent, np.float64), np.array(centre, np.float64)

    def place(self, client: Any, poses: np.ndarray) -> None:
        """Move both cars to poses [A, 6] with one acknowledged batch. RecordingError when one cannot be moved."""
        pairs = zip(self.cars, poses, strict=True)
        commands = [carla.command.ApplyTransform(car, transform_of(pose)) for car, pose in pairs]
        for answer in client.apply_batch_sync(commands):  # never with a tick in it (trap 2: batches that tick hang)
            if answer.error:
                raise RecordingError(f"a car could not be moved: {answer.error}")

    def step(self, client: Any, poses: np.ndarray) -> tuple[list[Shot], float]:
        """Move both cars to poses [A, 6], tick, and return all images of that tick and its time.

        RecordingError unless everything is where it was put.
        """
        self.place(client, poses)
        frame = self.world.tick(TICK_S)
        snapshot = self.world.get_snapshot()
        if snapshot.frame != frame:
            raise ServerFault(f"the world is at frame {snapshot.frame} instead of {frame}.")
        for agent, (car, pose) in enumerate(zip(self.cars, poses, strict=True)):
            found = snapshot.find(car.id)
            if found is None:
                raise RecordingError(f"car {agent} is gone.")
            check_pose(f"car {agent}", pose_of(found.get_transform()), pose)
        shots = self.barrier.wait(frame, TICK_S)
        wanted = camera_poses(poses).reshape(-1, 6)
        for number, shot in enumerate(shots):
            check_pose(f"camera {number}", shot.pose, wanted[number % len(wanted)])
        return shots, snapshot.timestamp.elapsed_seconds

    def find_instance_codes(self, client: Any) -> None:
        """Stand the cars before each other and read which instance code is which agent.

        By vote over pixels, as simulators number instances differently; once a rig, so that clips do not depend on what
        was recorded before them.
        """
        count = AGENTS * len(VIEWS)
        extent, centre = self.box()
        for point in self.world.get_map().get_spawn_points():
            here = np.array(pose_of(point))
            ahead = here.copy()
            yaw = np.radians(here[4])
            ahead[:2] += FACING_M * np.array([np.cos(yaw), np.sin(yaw)])
            poses = np.stack([here, ahead])
            shots, _ = self.step(client, poses)
            for agent in range(AGENTS):
                mine = slice(agent * len(VIEWS), (agent + 1) * len(VIEWS))
                depth = [depth_cm(shot.bgra) for shot in shots[count:][mine]]
                instance = [shot.bgra for shot in shots[2 * count :][mine]]
                other = 1 - agent
                code = agent_codes(instance, depth, poses[agent], poses[other], extent[other], centre[other])
                if code is not None:
                    self.instance_codes[code] = other + 1
            if sorted(self.instance_codes.values()) == list(range(1, AGENTS + 1)):
                return
            self.instance_codes.clear()
        raise RecordingError("the agents' instance codes could not be told from the instance images.")

    def destroy(self) -> None:
        """Stop and destroy sensors through their own handles, then the cars (trap 10: sensors before cars)."""
        for sensor in (*self.sensors, *self.collision_sensors):
            sensor.stop()
            sensor.destroy()
        for car in self.cars:
            car.destroy()
