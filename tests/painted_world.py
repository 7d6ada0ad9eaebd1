"""A painted world with a hidden fact, as a data set in the clip contract, without a simulator.

A two-faced billboard stands between two cars that pass it in opposite directions. The face that agent 1 sees at frame
0 has one of four colours; agent 0 starts behind the board and drives past, so that it sees that face in its later
frames only. Nothing else that agent 0 is given depends on it. The other face, which agent 0 sees at frame 0 and agent 1
later, is coloured independently. Instance ids: 3 the hidden face, 4 the other one; the cars are not drawn.

Everything is drawn from the seed, so that equal calls give equal bytes.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.storage import sha256_bytes, sha256_file
from model.camera import VIEWS, carla_to_c2w, intrinsics
from tasks.sharding.shards import write_shards
from tests.synthetic_dataset import camera_poses, write_cameras

AGENTS, FRAMES, FPS = 2, 9, 10.0
WIDTH, HEIGHT = 24, 16
"""Of a view; the mosaic is 48x32."""
COLOURS = ((230, 38, 31), (31, 191, 51), (38, 64, 230), (242, 217, 26))
LANDMARKS = np.array([[0.85, 0.5, 0.75], [0.4, 0.7, 0.75], [0.6, 0.45, 0.3], [0.9, 0.9, 0.9], [0.25, 0.25, 0.3]])
TOWNS = {"train": ("PaintedA", "PaintedB"), "test": ("PaintedC", "PaintedD")}
BOARD_M = 1.0
"""How thick the board is."""
FACE_ID, BACK_ID = 3, 4
FAR_CM = 65535
X264 = {"crf": "10", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}


def write_painted_dataset(
    dataset_dir: Path, *, train: int, test: int, seed: int = 0, shared_town: bool = False
) -> Path:
    """Write so many scenes a split, of the test split each with its twin; return the folder.

    `shared_town`: a split that nobody should score, because a town of it was trained on.
    """
    rows = []
    for split, count in (("train", train), ("test", test)):
        for number in range(count):
            scene = Scene(np.random.default_rng([seed, split == "test", number]))
            scene_id = sha256_bytes(f"painted {seed} {split} {number}".encode())[:12]
            town = TOWNS["train" if shared_town else split][number % 2]
            variants = {"base": scene.face}
            if split == "test":
                variants["fact_changed"] = (scene.face + 1 + number % 3) % len(COLOURS)
            for variant, face in variants.items():
                rows.append(
                    {"recording_id": sha256_bytes(f"{scene_id} {variant}".encode())[:12], "scene_id": scene_id,
                     "variant": variant, "town": town, "trajectory_type": "straight_meeting", "weather": "clear_noon",
                     "split": split, "windows": [0]}
                )  # fmt: skip
                write_recording(dataset_dir, rows[-1], scene, face)
    pq.write_table(pa.Table.from_pylist(rows), dataset_dir / "plan.parquet")
    write_shards(dataset_dir)
    return dataset_dir


@dataclass
class Box:
    low: np.ndarray
    high: np.ndarray
    paint: np.ndarray


class Scene:
    """Everything but the pixels, in the board's own axes: x along the road, y to the left, z up, metres."""

    def __init__(self, rng: np.random.Generator) -> None:
        side = rng.choice([-1.0, 1.0])
        self.face, self.back = (int(k) for k in rng.integers(len(COLOURS), size=2))
        self.half, self.top, self.offset = rng.uniform(1.5, 2.0), rng.uniform(3.2, 4.2), rng.uniform(-0.3, 0.3)
        self.poses = np.zeros((AGENTS, FRAMES, 3))  # x, y, yaw
        for agent, sign in enumerate((1.0, -1.0)):
            x = np.linspace(-rng.uniform(5, 7), rng.uniform(4, 6), FRAMES)
            y = np.linspace(rng.uniform(2.5, 3.3), rng.uniform(2.5, 3.3), FRAMES)
            yaw = np.arctan2(side * (y[-1] - y[0]), x[-1] - x[0]) + (0 if sign > 0 else np.pi)
            self.poses[agent] = np.stack([sign * x, sign * side * y, np.full(FRAMES, yaw)], -1)
        self.boxes = []
        for quadrant in rng.permutation(4):
            centre = np.array([(-1, 1)[quadrant // 2] * rng.uniform(3, 9), (-1, 1)[quadrant % 2] * rng.uniform(6, 9)])
            half = rng.uniform(0.6, 1.4, 2)
            self.boxes.append(
                Box(np.float32([*(centre - half), 0]), np.float32([*(centre + half), rng.uniform(1.5, 4)]),
                    LANDMARKS[rng.integers(len(LANDMARKS))])
            )  # fmt: skip
        self.ground = rng.uniform([0.3, 0.3, 0.25], [0.45, 0.45, 0.35])
        self.sky = rng.uniform([0.6, 0.7, 0.8], [0.75, 0.85, 1.0])
        self.heading, self.shift = np.radians(rng.uniform(-30, 30)), rng.uniform(-20, 20, 2)

    def cars(self, *, in_town: bool) -> np.ndarray:
        """Return CARLA poses [A, F, 6] of the cars, in the board's axes or where the board stands in its town."""
        x, y, yaw = np.moveaxis(self.poses, -1, 0)
        if in_town:
            cosine, sine = np.cos(self.heading), np.sin(self.heading)
            x, y = cosine * x - sine * y + self.shift[0], sine * x + cosine * y + self.shift[1]
            yaw = yaw + self.heading
        still = np.zeros_like(x)
        return np.stack([x, -y, still, still, -np.degrees(yaw), still], -1)

    def paint(self, face: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return mosaics [A, F, H, W, 3] uint8 RGB, depth in cm and instance ids [A, F, H, W] uint16."""
        c2w = carla_to_c2w(camera_poses(self.cars(in_town=False))).swapaxes(1, 2).astype(np.float32)  # A F V
        u, v = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
        local = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(intrinsics(WIDTH, HEIGHT, 90.0)).T
        rays = np.einsum("...ij,hwj->...hwi", c2w[..., :3, :3], local.astype(np.float32))
        rays = np.where(np.abs(rays) < 1e-6, np.float32(1e-6), rays)
        eyes = np.broadcast_to(c2w[..., None, None, :3, 3], rays.shape)
        downward = rays[..., 2] < 0
        depth = np.where(downward, -eyes[..., 2] / rays[..., 2], np.float32(np.inf))
        rgb = self.background(eyes, rays, depth, downward)
        for box in self.boxes:
            axis, distance = struck(eyes, rays, box.low, box.high, depth)
            hit = np.isfinite(distance)
            rgb[hit] = box.paint * np.array([1, 0.8, 0.9])[axis[hit], None]
            depth = np.minimum(depth, distance)
        board = (np.float32([-BOARD_M / 2, self.offset - self.half, 0.3]),
                 np.float32([BOARD_M / 2, self.offset + self.half, self.top]))  # fmt: skip
        axis, distance = struck(eyes, rays, *board, depth)
        depth = np.minimum(depth, distance)
        rgb[np.isfinite(distance)] = 0.5
        front, back = (np.isfinite(distance) & (axis == 0) & (eyes[..., 0] * side > 0) for side in (1, -1))
        rgb[front], rgb[back] = np.array(COLOURS[face]) / 255, np.array(COLOURS[self.back]) / 255
        ids = np.where(front, FACE_ID, np.where(back, BACK_ID, 0)).astype(np.uint16)
        centimetres = np.minimum(np.rint(100 * np.minimum(depth, 1e4)), FAR_CM).astype(np.uint16)
        return mosaic((rgb * 255).round().astype(np.uint8)), mosaic(centimetres), mosaic(ids)

    def background(self, eyes: np.ndarray, rays: np.ndarray, depth: np.ndarray, downward: np.ndarray) -> np.ndarray:
        """Return a chequered ground that fades into the sky."""
        far, sky = np.minimum(depth, 1e4), self.sky.astype(np.float32)
        x, y = (eyes[..., i] + far * rays[..., i] for i in (0, 1))
        ground = ((np.floor(x / 2) + np.floor(y / 2)) % 2 * 0.12 + 0.94)[..., None] * self.ground.astype(np.float32)
        fade = np.clip(far / 40, 0, 1)[..., None]
        return np.where(downward[..., None], ground * (1 - fade) + sky * fade, sky)


def struck(
    eyes: np.ndarray, rays: np.ndarray, low: np.ndarray, high: np.ndarray, depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the axis across which each ray enters a box, and how far away, inf where it misses or is stopped first."""
    faces = (low - eyes) / rays, (high - eyes) / rays
    near, far = np.minimum(*faces), np.maximum(*faces)
    axis, distance = near.argmax(-1), near.max(-1)
    hit = (distance < far.min(-1)) & (distance > 0) & (distance < depth)
    return axis, np.where(hit, distance, np.float32(np.inf))


def mosaic(views: np.ndarray) -> np.ndarray:
    """Join [A, F, V, h, w, ...] to [A, F, 2h, 2w, ...]."""
    front, rear, left, right = np.moveaxis(views, 2, 0)
    return np.concatenate([np.concatenate([front, rear], 3), np.concatenate([left, right], 3)], 2)


def encoded(frames: np.ndarray, codec: str) -> bytes:
    """Return H.264 in mp4 of [F, H, W, 3] uint8 RGB, FFV1 in mkv of [F, H, W] uint16."""
    grey = codec == "ffv1"
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska" if grey else "mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=int(FPS), options={} if grey else X264)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "gray16le" if grey else "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="gray16le" if grey else "rgb24")
            if not grey:
                picture = picture.reformat(format="yuv420p", dst_colorspace="itu709")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return buffer.getvalue()


def write_recording(dataset_dir: Path, row: dict, scene: Scene, face: int) -> None:
    """Write one recording's folder: clip members and recording.json."""
    folder = dataset_dir / "recordings" / row["recording_id"]
    clip = folder / "w000"
    clip.mkdir(parents=True)
    colour, depth, ids = scene.paint(face)
    for agent in range(AGENTS):
        (clip / f"agent{agent}.mp4").write_bytes(encoded(colour[agent], "libx264"))
        if row["split"] == "test":
            (clip / f"agent{agent}.depth.mkv").write_bytes(encoded(depth[agent], "ffv1"))
            (clip / f"agent{agent}.instance.mkv").write_bytes(encoded(ids[agent], "ffv1"))
    write_cameras(clip / "cameras.npz", scene.cars(in_town=True), WIDTH, HEIGHT)
    fact = {"task": "appearance", "distance": "large", "observer": 0, "label": face, "labels": len(COLOURS),
            "colors": [",".join(map(str, colour)) for colour in COLOURS], "actors": [FACE_ID - 3],
            "informative": True}  # fmt: skip
    meta = {
        "recording_id": row["recording_id"], "scene_id": row["scene_id"], "variant": row["variant"], "window": 0,
        "town": row["town"], "type": row["trajectory_type"], "weather": row["weather"], "split": row["split"],
        "fps": FPS, "frames": FRAMES, "stride": 1, "views": list(VIEWS), "rendered_view": [2 * WIDTH, 2 * HEIGHT],
        "scores": {}, "fact": fact,
    }  # fmt: skip
    (clip / "meta.json").write_text(json.dumps(meta, sort_keys=True, indent=1))
    files = {str(path.relative_to(folder)): sha256_file(path) for path in sorted(clip.iterdir())}
    (folder / "recording.json").write_text(json.dumps({"recording_id": row["recording_id"], "files": files}))
