"""One recording: drive the cars along the plan, store the ticks of its windows, write complete clips or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import carla
import numpy as np

from infra.storage import atomic_dir, sha256_file
from model.camera import FOV_DEG, VIEWS, camera_poses, carla_to_c2w, intrinsics
from tasks.planning.rows import PlannedRecording
from tasks.planning.weather import WEATHERS
from tasks.recording.barrier import CameraImage
from tasks.recording.depth import depth_cm
from tasks.recording.encode import VideoWriter, halved, halved_nearest, mosaic, write_npz
from tasks.recording.errors import RecordingError
from tasks.recording.gates import RecordingScores
from tasks.recording.rig import AGENTS, Rig, transform_from_pose
from tasks.recording.visibility import Box, identify_extra_actors, sees_other_car, stored_ids

WARM_UP_TICKS = 60
AGENT_NAMES = [f"agent{agent}" for agent in range(AGENTS)]
MAX_LUMINANCE_CHANGE = 0.5
"""Change of the mean luminance (0..255) per tick up to which the brightness counts as settled."""
SPAWN_CLEARANCE_M = 0.3
"""CARLA does not spawn an actor that touches the ground: it is spawned this much higher, then put down."""


class ClipWriter:
    """Writes the videos of one window, the clip that starts at tick `start`."""

    def __init__(self, recording: PlannedRecording, start: int, folder: Path) -> None:
        self.recording, self.start, self.folder = recording, start, folder
        self.ticks = [start + recording.stride * k for k in range(recording.frames)]
        folder.mkdir()
        size, fps = (recording.view_width, recording.view_height), 1 / (recording.stride * recording.fixed_delta_s)
        self.writers = [VideoWriter([folder / f"{agent}.mp4" for agent in AGENT_NAMES], *size, fps)]
        if recording.record_ground_truth:
            paths = [folder / f"{agent}.{kind}.mkv" for agent in AGENT_NAMES for kind in ("depth", "instance")]
            self.writers.append(VideoWriter(paths, *size, fps, lossless_16bit=True))

    def write(self, rgb: list[np.ndarray], ground_truth: list[np.ndarray]) -> None:
        """Append one tick: a colour mosaic per agent, then depth and instance mosaics per agent where recorded."""
        for writer, frames in zip(self.writers, (rgb, ground_truth), strict=False):
            writer.write(*frames)

    def close(self) -> None:
        for writer in self.writers:
            writer.close()
        frame_counts = {writer.frames for writer in self.writers}
        if frame_counts != {self.recording.frames}:
            raise RecordingError(f"window {self.start} holds {frame_counts} frames instead of {self.recording.frames}.")

    def abort(self) -> None:
        for writer in self.writers:
            writer.abort()


class Recorder:
    """Records on one world with one rig; both last as long as the town and the picture size stay the same."""

    def __init__(self, world: Any, client: Any, rig: Rig) -> None:
        self.world, self.client, self.rig = world, client, rig
        self.extra_boxes: list[Box] = []
        """Bounding boxes of the current recording's extra actors."""

    def record(self, recording: PlannedRecording, dataset_dir: Path) -> None:
        """Make recordings/<id>/ of the data set. RecordingError says why not; nothing is left behind then."""
        self.rig.teleport(self.client, recording.poses[0])  # out of the extra actors' way
        extra_actors: list[Any] = []
        try:
            extra_actors += (self.spawn_extra_actor(planned) for planned in recording.extra_actors)
            pairs = zip(recording.extra_actors, extra_actors, strict=True)
            self.extra_boxes = [actor_box(planned, actor) for planned, actor in pairs]
            with atomic_dir(dataset_dir / "recordings" / recording.recording_id) as folder:
                self.record_clips(recording, folder)
        finally:
            for actor in extra_actors:
                actor.destroy()

    def spawn_extra_actor(self, planned: dict[str, Any]) -> Any:
        """Spawn an extra actor at its planned pose. RecordingError where something else stands there."""
        blueprint = self.world.get_blueprint_library().find(planned["blueprint"])
        for name, value in planned.get("attributes", {}).items():
            blueprint.set_attribute(name, value)
        pose = np.array(planned["transform"])
        spawn_pose = pose.copy()
        spawn_pose[2] += SPAWN_CLEARANCE_M
        actor = self.world.try_spawn_actor(blueprint, transform_from_pose(spawn_pose))
        if actor is None:
            raise RecordingError(f"{planned['blueprint']} could not be put at {pose[:3].tolist()}: the place is taken.")
        if planned["blueprint"].startswith("vehicle."):
            actor.set_simulate_physics(False)
        actor.set_transform(transform_from_pose(pose))
        return actor

    def record_clips(self, recording: PlannedRecording, folder: Path) -> None:
        self.world.set_weather(carla.WeatherParameters(**WEATHERS[recording.weather]))
        self.warm_up(recording)
        clips: list[ClipWriter] = []
        scores = RecordingScores(fact=recording.fact)
        try:
            clips += (ClipWriter(recording, start, folder / f"w{start:03d}") for start in recording.windows)
            times_s: list[float] = []
            other_ids: dict[tuple[int, int], int] = {}
            for tick in ticks_to_drive(recording, clips):
                images, time_s = self.step(recording, tick)
                times_s.append(time_s)
                storing = [clip for clip in clips if tick in clip.ticks]
                if storing:
                    self.store_tick(recording, tick, images, storing, scores, other_ids)
            for clip in clips:
                clip.close()
        except BaseException:
            for clip in clips:
                clip.abort()
            raise
        if not np.allclose(np.diff(times_s), recording.fixed_delta_s, atol=1e-4):
            raise RecordingError("the simulator's clock did not run at the plan's step.")
        scores.collisions = len(self.rig.collisions)
        scores.judge(recording.gates)
        for clip in clips:
            self.write_cameras(recording, clip)
            self.write_meta(recording, clip, scores.summary())
        write_record(folder, recording, scores.summary())

    def warm_up(self, recording: PlannedRecording) -> None:
        """Put the cars at their start and tick until the brightness holds for two ticks (trap 11: brightness must
        settle)."""
        previous_luminance, settled_ticks = -1.0, 0
        for _ in range(WARM_UP_TICKS):
            images, _ = self.step(recording, 0)
            luminance = float(np.mean([image.bgra[..., :3].mean() for image in images[: AGENTS * len(VIEWS)]]))
            settled_ticks = settled_ticks + 1 if abs(luminance - previous_luminance) < MAX_LUMINANCE_CHANGE else 0
            if settled_ticks >= 2:
                self.rig.collisions.clear()
                return
            previous_luminance = luminance
        raise RecordingError(f"the brightness did not settle in {WARM_UP_TICKS} ticks.")

    def step(self, recording: PlannedRecording, tick: int) -> tuple[list[CameraImage], float]:
        """Drive one tick of the plan; return all its images and the simulator's time in seconds."""
        return self.rig.step(self.client, recording.poses[tick])

    def store_tick(
        self,
        recording: PlannedRecording,
        tick: int,
        images: list[CameraImage],
        clips: list[ClipWriter],
        scores: RecordingScores,
        other_ids: dict[tuple[int, int], int],
    ) -> None:
        """Halve a tick's views, join them into mosaics and append these to the clips that store this tick.

        other_ids: ids of vehicles that are no agents, by instance code; those that appear are added.
        """
        cameras = AGENTS * len(VIEWS)  # of each kind, in this order: colour, depth, instance
        extent, centre = self.rig.bounding_boxes()
        rgb: list[np.ndarray] = []
        ground_truth: list[np.ndarray] = []
        for agent in range(AGENTS):
            agent_cameras = slice(agent * len(VIEWS), (agent + 1) * len(VIEWS))
            views = [halved(image.bgra) for image in images[agent_cameras]]
            pose, other_pose = recording.poses[tick, agent], recording.poses[tick, 1 - agent]
            seen = sees_other_car(views, pose, other_pose, extent[1 - agent], centre[1 - agent])
            rgb.append(mosaic(views))
            if recording.record_ground_truth:
                depth = [depth_cm(image.bgra) for image in images[cameras:][agent_cameras]]
                instance = [image.bgra for image in images[2 * cameras :][agent_cameras]]
                identify_extra_actors(instance, depth, pose, self.extra_boxes, self.rig.agent_ids, other_ids)
                ids = [halved_nearest(stored_ids(image, self.rig.agent_ids, other_ids)) for image in instance]
                ground_truth += (mosaic([halved_nearest(image) for image in depth]), mosaic(ids))
                scores.add_instances(agent, ground_truth[-1], first=tick == recording.windows[0])
            for clip in clips:
                scores.add(clip.start, agent, views, seen)
        for clip in clips:
            clip.write(rgb, ground_truth)

    def write_cameras(self, recording: PlannedRecording, clip: ClipWriter) -> None:
        """Write cameras.npz from the commanded poses, which every image's pose was checked against."""
        agents = recording.poses[clip.ticks].transpose(1, 0, 2)
        cameras = camera_poses(agents).transpose(0, 2, 1, 3)
        K = intrinsics(recording.view_width // 2, recording.view_height // 2, FOV_DEG)
        extent, centre = self.rig.bounding_boxes()
        ticks_since_start = np.array(clip.ticks) - clip.ticks[0]
        write_npz(
            clip.folder / "cameras.npz",
            {
                "K": np.broadcast_to(K, (AGENTS, len(VIEWS), 3, 3)),
                "c2w": carla_to_c2w(cameras),
                "carla_pose": cameras,
                "agent_pose": agents,
                "agent_extent": extent,
                "agent_box_center": centre,
                "time_s": ticks_since_start * recording.fixed_delta_s,
            },
        )

    def write_meta(self, recording: PlannedRecording, clip: ClipWriter, scores: dict[str, float]) -> None:
        """Write meta.json: what was planned, how it was rendered, and the gates' scores."""
        meta = {
            "recording_id": recording.recording_id,
            "scene_id": recording.scene_id,
            "variant": recording.variant,
            "window": clip.start,
            "town": recording.town,
            "opendrive_sha256": recording.opendrive_sha256,
            "type": recording.trajectory_type,
            "weather": recording.weather,
            "weather_parameters": WEATHERS[recording.weather],
            "split": recording.split,
            "site": recording.site,
            "jitter": recording.jitter,
            "motion_mode": recording.motion_mode,
            "skip_unused_ticks": recording.skip_unused_ticks,
            "fps": 1 / (recording.stride * recording.fixed_delta_s),
            "frames": recording.frames,
            "stride": recording.stride,
            "views": list(VIEWS),
            "rendered_view": [recording.view_width, recording.view_height],
            "camera_attributes": self.rig.camera_attributes,
            "extra_actors": recording.extra_actors,
            "fact": recording.fact,
            "scores": scores,
        }
        (clip.folder / "meta.json").write_text(json.dumps(meta, sort_keys=True, indent=1))


def actor_box(planned: dict[str, Any], actor: Any) -> Box:
    """Return the bounding box of a spawned extra actor at its planned pose."""
    box = actor.bounding_box
    extent = np.array([box.extent.x, box.extent.y, box.extent.z])
    centre = np.array([box.location.x, box.location.y, box.location.z])
    return Box(np.array(planned["transform"], np.float64), extent, centre)


def ticks_to_drive(recording: PlannedRecording, clips: list[ClipWriter]) -> list[int]:
    """Return the ticks to simulate, in order: all up to the last that is stored, or only the stored ones."""
    stored = sorted({tick for clip in clips for tick in clip.ticks})
    return stored if recording.skip_unused_ticks else list(range(stored[-1] + 1))


def write_record(folder: Path, recording: PlannedRecording, scores: dict[str, float]) -> None:
    """Write recording.json: the id, the hash of every file in the folder, and the scores."""
    files = {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    record = {"recording_id": recording.recording_id, "files": files, "scores": scores}
    (folder / "recording.json").write_text(json.dumps(record, sort_keys=True, indent=1))
