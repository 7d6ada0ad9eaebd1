"""One recording: drive the cars along the plan, keep the ticks of its windows, write whole clips or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import carla
import numpy as np

from infra.storage import atomic_dir, sha256_file
from model.camera import VIEWS, carla_to_c2w, intrinsics
from tasks.planning.rows import PlannedRecording
from tasks.planning.weather import WEATHERS
from tasks.recording.barrier import Shot
from tasks.recording.depth import depth_cm
from tasks.recording.encode import VideoWriter, halved, halved_nearest, mosaic, write_npz
from tasks.recording.errors import RecordingError
from tasks.recording.gates import Scores
from tasks.recording.rig import AGENTS, Rig, transform_of
from tasks.recording.seeing import FOV_DEG, Box, camera_poses, find_extra_codes, remapped, sees

WARM_UP_TICKS = 60
NAMES = [f"agent{agent}" for agent in range(AGENTS)]
STABLE = 0.5
"""Change of mean luminance a tick that counts as stable."""
SPAWN_ABOVE_M = 0.3
"""An actor that touches the ground cannot be spawned in CARLA."""


class Window:
    """The clip that starts at one offset: its videos and the ticks it takes."""

    def __init__(self, recording: PlannedRecording, start: int, folder: Path) -> None:
        self.recording, self.start, self.folder = recording, start, folder
        self.ticks = [start + recording.stride * k for k in range(recording.frames)]
        folder.mkdir()
        size, fps = (recording.view_width, recording.view_height), 1 / (recording.stride * recording.fixed_delta_s)
        self.writers = [VideoWriter([folder / f"{agent}.mp4" for agent in NAMES], *size, fps)]
        if recording.record_ground_truth:
            truth = [folder / f"{agent}.{kind}.mkv" for agent in NAMES for kind in ("depth", "instance")]
            self.writers.append(VideoWriter(truth, *size, fps, lossless_16bit=True))

    def write(self, colours: list[np.ndarray], truth: list[np.ndarray]) -> None:
        """Append a tick: one mosaic per agent, then depth and instance per agent, nothing where none is recorded."""
        for writer, frames in zip(self.writers, (colours, truth), strict=False):
            writer.write(*frames)

    def close(self) -> None:
        for writer in self.writers:
            writer.close()
        counts = {writer.frames for writer in self.writers}
        if counts != {self.recording.frames}:
            raise RecordingError(f"window {self.start} holds {counts} frames instead of {self.recording.frames}.")

    def abort(self) -> None:
        for writer in self.writers:
            writer.abort()


class Recorder:
    """Records on one world with one rig; both last as long as the town and the picture size stay the same."""

    def __init__(self, world: Any, client: Any, rig: Rig) -> None:
        self.world, self.client, self.rig = world, client, rig
        self.extra_boxes: list[Box] = []
        """Of the extra actors of the recording in hand."""

    def record(self, recording: PlannedRecording, dataset_dir: Path) -> None:
        """Make recordings/<id>/ of the data set. RecordingError says why not; then nothing is left behind."""
        self.rig.place(self.client, recording.poses[0])  # out of the way of what is to stand there
        extra: list[Any] = []
        try:
            extra += (self.spawn_extra(actor) for actor in recording.extra_actors)
            self.extra_boxes = [
                box_of(actor, extra) for actor, extra in zip(recording.extra_actors, extra, strict=True)
            ]
            with atomic_dir(dataset_dir / "recordings" / recording.recording_id) as folder:
                self.record_into(recording, folder)
        finally:
            for actor in extra:
                actor.destroy()

    def spawn_extra(self, actor: dict[str, Any]) -> Any:
        blueprint = self.world.get_blueprint_library().find(actor["blueprint"])
        for name, value in actor.get("attributes", {}).items():
            blueprint.set_attribute(name, value)
        pose = np.array(actor["transform"])
        above = pose.copy()
        above[2] += SPAWN_ABOVE_M
        spawned = self.world.try_spawn_actor(blueprint, transform_of(above))
        if spawned is None:
            raise RecordingError(f"{actor['blueprint']} could not be put at {pose[:3].tolist()}: the place is taken.")
        if actor["blueprint"].startswith("vehicle."):
            spawned.set_simulate_physics(False)
        spawned.set_transform(transform_of(pose))
        return spawned

    def record_into(self, recording: PlannedRecording, folder: Path) -> None:
        self.world.set_weather(carla.WeatherParameters(**WEATHERS[recording.weather]))
        self.warm_up(recording)
        windows: list[Window] = []
        scores = Scores(fact=recording.fact)
        try:
            windows += (Window(recording, start, folder / f"w{start:03d}") for start in recording.windows)
            times_s: list[float] = []
            others: dict[tuple[int, int], int] = {}
            for tick in ticks_to_drive(recording, windows):
                shots, now_s = self.step(recording, tick)
                times_s.append(now_s)
                chosen = [window for window in windows if tick in window.ticks]
                if chosen:
                    self.keep(recording, tick, shots, chosen, scores, others)
            for window in windows:
                window.close()
        except BaseException:
            for window in windows:
                window.abort()
            raise
        if not np.allclose(np.diff(times_s), recording.fixed_delta_s, atol=1e-4):
            raise RecordingError("the simulator's clock did not run at the plan's step.")
        scores.collisions = len(self.rig.collisions)
        scores.judge(recording.gates)
        for window in windows:
            self.write_cameras(recording, window)
            self.write_meta(recording, window, scores.summary())
        write_record(folder, recording, scores.summary())

    def warm_up(self, recording: PlannedRecording) -> None:
        """Put the cars at their start and tick until the picture's brightness stands (trap 11: brightness must
        settle)."""
        before, steady = -1.0, 0
        for _ in range(WARM_UP_TICKS):
            shots, _ = self.step(recording, 0)
            level = float(np.mean([shot.bgra[..., :3].mean() for shot in shots[: AGENTS * len(VIEWS)]]))
            steady = steady + 1 if abs(level - before) < STABLE else 0
            if steady >= 2:
                self.rig.collisions.clear()
                return
            before = level
        raise RecordingError(f"the brightness did not settle in {WARM_UP_TICKS} ticks.")

    def step(self, recording: PlannedRecording, tick: int) -> tuple[list[Shot], float]:
        """Return all images of a planned tick and its time."""
        return self.rig.step(self.client, recording.poses[tick])

    def keep(
        self,
        recording: PlannedRecording,
        tick: int,
        shots: list[Shot],
        windows: list[Window],
        scores: Scores,
        others: dict[tuple[int, int], int],
    ) -> None:
        """Halve the views of a tick, lay their mosaics and hand them to the clips that take this tick."""
        count = AGENTS * len(VIEWS)
        extent, centre = self.rig.box()
        colours: list[np.ndarray] = []
        truth: list[np.ndarray] = []
        for agent in range(AGENTS):
            mine = slice(agent * len(VIEWS), (agent + 1) * len(VIEWS))
            views = [halved(shot.bgra) for shot in shots[mine]]
            pose, other = recording.poses[tick, agent], recording.poses[tick, 1 - agent]
            seen = sees(views, pose, other, extent[1 - agent], centre[1 - agent])
            colours.append(mosaic(views))
            if recording.record_ground_truth:
                depth = [depth_cm(shot.bgra) for shot in shots[count:][mine]]
                instance = [shot.bgra for shot in shots[2 * count :][mine]]
                find_extra_codes(instance, depth, pose, self.extra_boxes, self.rig.instance_codes, others)
                ids = [halved_nearest(remapped(image, self.rig.instance_codes, others)) for image in instance]
                truth += (mosaic([halved_nearest(image) for image in depth]), mosaic(ids))
                scores.add_instances(agent, truth[-1], first=tick == recording.windows[0])
            for window in windows:
                scores.add(window.start, agent, views, seen)
        for window in windows:
            window.write(colours, truth)

    def write_cameras(self, recording: PlannedRecording, window: Window) -> None:
        """Write cameras.npz from the commanded poses, which every image's pose was checked against."""
        agents = recording.poses[window.ticks].transpose(1, 0, 2)
        cameras = camera_poses(agents).transpose(0, 2, 1, 3)
        K = intrinsics(recording.view_width // 2, recording.view_height // 2, FOV_DEG)
        extent, centre = self.rig.box()
        steps = np.array(window.ticks) - window.ticks[0]
        write_npz(
            window.folder / "cameras.npz",
            {
                "K": np.broadcast_to(K, (AGENTS, len(VIEWS), 3, 3)),
                "c2w": carla_to_c2w(cameras),
                "carla_pose": cameras,
                "agent_pose": agents,
                "agent_extent": extent,
                "agent_box_center": centre,
                "time_s": steps * recording.fixed_delta_s,
            },
        )

    def write_meta(self, recording: PlannedRecording, window: Window, scores: dict[str, float]) -> None:
        meta = {
            "recording_id": recording.recording_id,
            "scene_id": recording.scene_id,
            "variant": recording.variant,
            "window": window.start,
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
        (window.folder / "meta.json").write_text(json.dumps(meta, sort_keys=True, indent=1))


def box_of(planned: dict[str, Any], actor: Any) -> Box:
    """Return where an extra actor is and how large."""
    box = actor.bounding_box
    extent = np.array([box.extent.x, box.extent.y, box.extent.z])
    centre = np.array([box.location.x, box.location.y, box.location.z])
    return Box(np.array(planned["transform"], np.float64), extent, centre)


def ticks_to_drive(recording: PlannedRecording, windows: list[Window]) -> list[int]:
    """Return the ticks to simulate, in order: all up to the last that is stored, or only the stored ones."""
    stored = sorted({tick for window in windows for tick in window.ticks})
    return stored if recording.skip_unused_ticks else list(range(stored[-1] + 1))


def write_record(folder: Path, recording: PlannedRecording, scores: dict[str, float]) -> None:
    """Write recording.json, the hashes of everything in the folder."""
    files = {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    record = {"recording_id": recording.recording_id, "files": files, "scores": scores}
    (folder / "recording.json").write_text(json.dumps(record, sort_keys=True, indent=1))
