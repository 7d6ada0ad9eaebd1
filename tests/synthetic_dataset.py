"""A small data set in the clip contract, without a simulator: coloured boxes that move past two agents.

Everything is drawn from the seed, so that equal calls give equal bytes. Val and test carry depth and instance ids.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.storage import sha256_bytes, sha256_file
from model.camera import MOUNTS, VIEWS, carla_matrix, carla_pose, carla_to_c2w, intrinsics
from tasks.recording.encode import VideoWriter, write_npz
from tasks.sharding.shards import write_shards

AGENTS = 2
FPS = 10.0
TYPES = ("straight_meeting", "following", "crossing")
WEATHERS = ("clear_noon", "wet_overcast", "foggy_sunset")


def write_dataset(
    dataset_dir: Path,
    *,
    train: int = 4,
    val: int = 2,
    test: int = 2,
    frames: int = 17,
    view_width: int = 48,
    view_height: int = 32,
    seed: int = 0,
    samples_per_shard: int = 2,
) -> Path:
    """Write so many recordings a split, one clip each, with views of the given (stored) size; return the folder."""
    rows = []
    for split, count in (("train", train), ("val", val), ("test", test)):
        for number in range(count):
            recording_id = sha256_bytes(f"{seed} {split} {number}".encode())[:12]
            rows.append(
                {"recording_id": recording_id, "scene_id": recording_id, "variant": "base",
                 "town": f"Synthetic{SPLIT_NUMBERS[split]:02d}", "trajectory_type": TYPES[number % len(TYPES)],
                 "weather": WEATHERS[number % len(WEATHERS)], "split": split, "windows": [0]}
            )  # fmt: skip
            write_recording(dataset_dir, rows[-1], frames, view_width, view_height)
    pq.write_table(pa.Table.from_pylist(rows), dataset_dir / "plan.parquet")
    write_shards(dataset_dir, samples_per_shard=samples_per_shard)
    return dataset_dir


SPLIT_NUMBERS = {"train": 1, "val": 2, "test": 3}


def write_recording(dataset_dir: Path, row: dict, frames: int, width: int, height: int) -> None:
    """Write one recording's folder: clip members and recording.json."""
    folder = dataset_dir / "recordings" / row["recording_id"]
    clip = folder / "w000"
    clip.mkdir(parents=True)
    rng = np.random.default_rng(int(row["recording_id"], 16))
    cars = car_poses(rng, frames)
    scene = Scene(rng)
    truth = row["split"] != "train"
    for agent in range(AGENTS):
        size = (2 * width, 2 * height, FPS)
        videos = {"mp4": VideoWriter(clip / f"agent{agent}.mp4", *size)}
        if truth:
            for kind in ("depth", "instance"):
                videos[kind] = VideoWriter(clip / f"agent{agent}.{kind}.mkv", *size, lossless_16bit=True)
        for frame in range(frames):
            colour, depth, instance = scene.mosaic(cars[:, frame], agent, width, height)
            videos["mp4"].write(colour)
            if truth:
                videos["depth"].write(depth)
                videos["instance"].write(instance)
        for video in videos.values():
            video.close()
    write_cameras(clip / "cameras.npz", cars, width, height)
    meta = {
        "recording_id": row["recording_id"], "scene_id": row["scene_id"], "variant": "base", "window": 0,
        "town": row["town"], "type": row["trajectory_type"], "weather": row["weather"], "split": row["split"],
        "fps": FPS, "frames": frames, "stride": 3, "views": list(VIEWS), "rendered_view": [width, height],
        "scores": {},
    }  # fmt: skip
    (clip / "meta.json").write_text(json.dumps(meta, sort_keys=True, indent=1))
    files = {str(path.relative_to(folder)): sha256_file(path) for path in sorted(clip.iterdir())}
    (folder / "recording.json").write_text(json.dumps({"recording_id": row["recording_id"], "files": files}))


def car_poses(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Return [A, F, 6]: two cars that drive towards each other on one road."""
    speed = rng.uniform(0.4, 0.8)
    steps = np.arange(frames) * speed
    poses = np.zeros((AGENTS, frames, 6))
    poses[0, :, 0], poses[0, :, 1] = steps - 8, -2.0
    poses[1, :, 0], poses[1, :, 1], poses[1, :, 4] = 8 - steps, 2.0, 180.0
    return poses


def camera_poses(cars: np.ndarray) -> np.ndarray:
    """Return [A, V, F, 6] of the four cameras on each car [A, F, 6]."""
    mounts = carla_matrix(np.array([MOUNTS[view] for view in VIEWS]))
    return carla_pose(np.einsum("afij,vjk->avfik", carla_matrix(cars), mounts))


def write_cameras(path: Path, cars: np.ndarray, width: int, height: int) -> None:
    cameras = camera_poses(cars)
    write_npz(
        path,
        {
            "K": np.broadcast_to(intrinsics(width, height, 90.0), (AGENTS, len(VIEWS), 3, 3)),
            "c2w": carla_to_c2w(cameras),
            "carla_pose": cameras,
            "agent_pose": cars,
            "agent_extent": np.tile([2.1, 0.9, 0.7], (AGENTS, 1)),
            "agent_box_center": np.tile([0.0, 0.0, 0.7], (AGENTS, 1)),
            "time_s": np.arange(cars.shape[1]) / FPS,
        },
    )


class Scene:
    """A sky, a ground, six posts and the other car, drawn as upright rectangles from far to near."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.sky = rng.integers(150, 256, 3)
        self.ground = rng.integers(40, 120, 3)
        self.posts = np.stack([rng.uniform(-20, 20, 6), rng.choice([-7.0, 7.0], 6), np.full(6, 1.5)], 1)
        self.colours = rng.integers(0, 256, (6, 3))

    def mosaic(self, cars: np.ndarray, agent: int, width: int, height: int) -> tuple[np.ndarray, ...]:
        """Return BGR [2h, 2w, 3] uint8, depth in cm and instance ids [2h, 2w] uint16 of one agent at one time."""
        cameras = carla_to_c2w(camera_poses(cars[:, None]))[agent, :, 0]
        views = [self.view(c2w, cars[1 - agent], 2 - agent, width, height) for c2w in cameras]
        return tuple(
            np.concatenate([np.concatenate(part[:2], 1), np.concatenate(part[2:], 1)])
            for part in zip(*views, strict=True)
        )

    def view(
        self, c2w: np.ndarray, other: np.ndarray, other_id: int, width: int, height: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        colour = np.empty((height, width, 3), np.uint8)
        colour[: height // 2], colour[height // 2 :] = self.sky, self.ground
        depth = np.full((height, width), 65535, np.uint16)
        row = np.arange(height // 2, height) + 0.5
        depth[height // 2 :] = np.minimum(175 * (width / 2) / (row - height / 2), 65535).astype(np.uint16)[:, None]
        instance = np.zeros((height, width), np.uint16)
        boxes = [(post, paint, 0, 0.6) for post, paint in zip(self.posts, self.colours, strict=True)]
        boxes.append((other[:3] + np.array([0, 0, 0.7]), np.array([20, 20, 200]), other_id, 0.9))
        placed = []
        for centre, paint, number, half in boxes:
            local = (centre * (1, -1, 1) - c2w[:3, 3]) @ c2w[:3, :3]
            placed.append((local[2], local, paint, number, half))
        for far, local, paint, number, half in sorted(placed, key=lambda box: -box[0]):
            if far < 0.5:
                continue
            scale = width / 2 / far
            left, right = np.clip(np.rint(width / 2 + scale * (local[0] + np.array([-half, half]))), 0, width).astype(
                int
            )
            top, low = np.clip(np.rint(height / 2 + scale * (local[1] + np.array([-half, half]))), 0, height).astype(
                int
            )
            colour[top:low, left:right] = paint
            depth[top:low, left:right] = round(100 * far)
            instance[top:low, left:right] = number
        return colour, depth, instance
