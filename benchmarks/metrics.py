"""What the metrics cost beside decoding: `python benchmarks/metrics.py [--pairs 3]`.

Makes a clip pair of 49 frames at 480x720 as the recorder would (H.264, depth and instance ids as FFV1), decodes and
measures it several times, and prints the ratio; 100 pairs take 100 times as long, because only sums are kept from one
pair to the next. Decoding: both agents' videos, depth and ids. Views: the true video as the model sees it, cut into
views. Measured: one generated video with its ground truth and shuffled floor: PSNR and SSIM of all frames, and the
figures of the shared world on every fourth frame and pixel (world.py).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from model.camera import MOUNTS, VIEWS, carla_matrix, carla_pose, carla_to_c2w, intrinsics
from model.presets import Preset
from tasks.encoding.frames import model_video
from tasks.evaluation.measures.metrics import psnr, views_of
from tasks.evaluation.measures.shared_world.localisation import CarDetector
from tasks.evaluation.measures.shared_world.measure import WindowGeometry, measure_window
from tasks.evaluation.measures.shared_world.world import read_window_truth
from tasks.evaluation.measures.ssim import ssim
from tasks.recording.encode import VideoWriter
from tasks.sharding.reader import Cameras, ClipPair, decode_video

FRAMES, HEIGHT, WIDTH, FPS = 49, 240, 360, 10.0
EYE_HEIGHT_M, WALL_DISTANCE_M = 1.75, 30.0


def oncoming_cars() -> np.ndarray:
    """Return poses [2, F, 6] of cars that drive towards each other."""
    poses, steps = np.zeros((2, FRAMES, 6)), 0.4 * np.arange(FRAMES)
    poses[0, :, 0], poses[0, :, 1] = steps - 15, -2.0
    poses[1, :, 0], poses[1, :, 1], poses[1, :, 4] = 15 - steps, 2.0, 180.0
    return poses


def draw_street(c2w: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return colours [h, w, 3] uint8 and depth [h, w] m of a street between two walls, seen from c2w [4, 4]."""
    world, eye = rays @ c2w[:3, :3].T, c2w[:3, 3]
    with np.errstate(divide="ignore"):
        ground = np.where(world[..., 2] < 0, -eye[2] / world[..., 2], np.inf)
        walls = np.where(world[..., 1] > 0, WALL_DISTANCE_M - eye[1], -WALL_DISTANCE_M - eye[1]) / world[..., 1]
    depth = np.minimum(np.minimum(ground, walls), 600.0)
    points = eye + world * depth[..., None]
    waves = np.sin(points @ np.array([[1.1, 0.2, 0.4], [0.3, 1.3, 0.5], [0.9, 0.4, 1.2]]))
    return (128 + 100 * waves).astype(np.uint8), depth


def write_clip(folder: Path) -> Cameras:
    """Write agentN.mp4, agentN.depth.mkv, agentN.instance.mkv."""
    poses = oncoming_cars()
    mounts = carla_matrix(np.array([MOUNTS[view] for view in VIEWS]))
    cameras = carla_pose(np.einsum("afij,vjk->avfik", carla_matrix(poses), mounts))
    c2w, K = carla_to_c2w(cameras), intrinsics(WIDTH, HEIGHT, 90.0)
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K).T
    for agent in range(2):
        size = (2 * WIDTH, 2 * HEIGHT, FPS)
        video = VideoWriter(folder / f"agent{agent}.mp4", *size)
        truth = [VideoWriter(folder / f"agent{agent}.{kind}.mkv", *size, lossless_16bit=True)
                 for kind in ("depth", "instance")]  # fmt: skip
        for frame in range(FRAMES):
            views = [draw_street(c2w[agent, view, frame], rays) for view in range(len(VIEWS))]
            colours, depth = (mosaic_of([view[part] for view in views]) for part in (0, 1))
            ids = np.zeros(depth.shape, np.uint16)
            ids[100:140, 150:210] = 2 - agent
            colours[ids > 0] = (20, 20, 200)
            video.write(colours)
            truth[0].write(np.minimum(100 * depth, 65535).astype(np.uint16))
            truth[1].write(ids)
        for writer in (video, *truth):
            writer.close()
    return Cameras(
        K=np.broadcast_to(K, (2, 4, 3, 3)).copy(), c2w=c2w, carla_pose=cameras, agent_pose=poses,
        agent_extent=np.tile([2.1, 0.9, 0.7], (2, 1)), agent_box_center=np.tile([0.0, 0.0, 0.7], (2, 1)),
        time_s=np.arange(FRAMES) / FPS,
    )  # fmt: skip


def mosaic_of(views: list[np.ndarray]) -> np.ndarray:
    """Join four views [h, w, ...] into a mosaic: front, rear above left, right."""
    return np.concatenate([np.concatenate(views[:2], 1), np.concatenate(views[2:], 1)])


def decode(folder: Path, cameras: Cameras) -> ClipPair:
    """Decode what `write_clip` wrote, as the reader would."""

    def both(name: str) -> np.ndarray:
        return np.stack([decode_video((folder / f"agent{agent}.{name}").read_bytes()) for agent in range(2)])

    meta = {"rendered_view": [2 * WIDTH, 2 * HEIGHT]}  # as recorded clips: their depth is moved to pixel centres
    return ClipPair(
        "made", meta, both("mp4"), cameras, (both("depth.mkv") / 100).astype(np.float32), both("instance.mkv")
    )


def measure_psnr_ssim(generated: torch.Tensor, truth: torch.Tensor) -> None:
    """Compute PSNR and SSIM of all frames but the first, a few at a time."""
    for start in range(1, FRAMES, 8):
        parts = generated[:, :, start : start + 8], truth[:, :, start : start + 8]
        psnr(*parts), ssim(*parts)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pairs", type=int, default=3)
    pairs = options.parse_args().pairs
    video = Preset.load("paper").video
    cpu_s: dict[str, list[float]] = {"decode": [], "views": [], "shared world": [], "PSNR, SSIM": []}
    with tempfile.TemporaryDirectory() as folder:
        cameras = write_clip(Path(folder))
        for _ in range(pairs + 1):
            started = time.process_time()
            clip = decode(Path(folder), cameras)
            decoded = time.process_time()
            truth = views_of(model_video(clip.videos, video)[None])[0]
            prepared = time.process_time()
            generated, stranger = truth.roll(1, 2), truth.flip(-1)
            made = time.process_time()
            window = WindowGeometry.of_views(read_window_truth(clip, video), truth, {"model": generated}, stranger)
            measure_window(window, CarDetector(0.8), {}, ground_truth="truth", floor="floor")
            measured = time.process_time()
            measure_psnr_ssim(generated, truth)
            ended = time.process_time()
            spent = decoded - started, prepared - decoded, measured - made, ended - measured
            for name, seconds in zip(cpu_s, spent, strict=True):
                cpu_s[name].append(seconds)
    median = {name: statistics.median(seconds[1:]) for name, seconds in cpu_s.items()}
    for name, seconds in median.items():
        print(f"{name:13} {seconds:6.2f} CPU s per pair, {seconds / median['decode']:5.2f} x decoding")
    measuring = sum(median.values()) / median["decode"] - 1
    print(f"all measuring together {measuring:.2f} x decoding")
    print(
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB, whatever the number of pairs"
    )


if __name__ == "__main__":
    main()
