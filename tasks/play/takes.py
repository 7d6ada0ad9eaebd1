"""What was recorded of a session, on disk: videos, and trajectories that `generate` and `convert` take.

<takes>/<time>-<scene>/
  agent0.mp4, agent0_front.mp4, ...      what was generated
  a0.png, a1.png, t.json                 its first pictures and trajectories: `shareverse generate --pictures ...`
  clips/train/<time>-<scene>/            the same as a clip of docs/OTHER_DATA.md: `shareverse convert clips ...`
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from infra.reading import one_line
from infra.storage import StorageError, atomic_dir, make_folder
from model import mosaic
from model.camera import FOV_DEG, VIEWS, camera_poses, carla_to_c2w, intrinsics
from tasks.evaluation.generate import write_videos
from tasks.play.scenes import FRAME_S, PlayScene, poses_as_dicts
from tasks.recording.encode import VideoWriter, write_npz
from tasks.recording.errors import RecordingError

if TYPE_CHECKING:
    from tasks.play.session import Frame

MOST_FRAMES = 3000
"""Five minutes: a longer take is saved and ended."""


class Take:
    """Frames that are recorded, kept in memory until they are saved."""

    def __init__(self, scene: PlayScene, folder: Path, chunk_frames: int) -> None:
        self.scene, self.chunk_frames = scene, chunk_frames
        self.name = f"{time.strftime('%Y%m%d-%H%M%S')}-{scene.name}"
        self.folder = folder / self.name
        self.frames: list[Frame] = []

    def add(self, frames: list[Frame]) -> None:
        self.frames += frames

    def save(self, tell: Callable[[str], None]) -> threading.Thread:
        """Write the take in a thread of its own; `tell` hears where it lies, or why it could not be written."""
        thread = threading.Thread(target=self.write_and_tell, args=(tell,), name="take")
        thread.start()  # no daemon: what was recorded is written before the program ends
        return thread

    def write_and_tell(self, tell: Callable[[str], None]) -> None:
        if not self.frames:
            tell("Nothing was recorded: no frame was made meanwhile.")
            return
        try:
            make_folder(self.folder.parent)
            with atomic_dir(self.folder) as temporary:
                self.write(temporary)
        except (OSError, StorageError, RecordingError) as error:
            tell(f"The recording could not be saved: {one_line(error)}.")
        else:
            tell(f"{len(self.frames)} frames are saved in {self.folder}.")

    def write(self, folder: Path) -> None:
        """Write everything into a folder."""
        pictures = np.stack([frame.pictures for frame in self.frames], 1)  # [A, T, H, W, 3]
        poses = np.stack([frame.poses for frame in self.frames], 1)  # [A, T, 6]
        videos = torch.from_numpy(pictures).movedim(-1, 1).float().div(127.5).sub(1)
        write_videos(videos, "four", 1 / FRAME_S, folder)
        for agent, video in enumerate(pictures):
            Image.fromarray(video[0]).save(folder / f"a{agent}.png")
        whole = (poses.shape[1] - 1) // self.chunk_frames * self.chunk_frames + 1  # `generate` takes whole windows
        (folder / "t.json").write_text(json.dumps([poses_as_dicts(car[:whole]) for car in poses]))
        self.write_clip(folder / "clips" / "train" / self.name, pictures, poses)

    def write_clip(self, folder: Path, pictures: np.ndarray, poses: np.ndarray) -> None:
        """Write the layout of docs/OTHER_DATA.md. It is in split train, which needs no depth."""
        views = mosaic.split(torch.from_numpy(pictures).movedim(-1, 2)).movedim(3, -1).numpy()  # [A, T, V, h, w, 3]
        height, width = views.shape[3:5]
        K = np.broadcast_to(intrinsics(width, height, FOV_DEG), (len(VIEWS), 3, 3))
        for agent, car in enumerate(poses):
            agent_dir = folder / f"agent{agent}"
            agent_dir.mkdir(parents=True)
            c2w = carla_to_c2w(camera_poses(car)).swapaxes(0, 1)
            write_npz(agent_dir / "cameras.npz", {"K": K, "c2w": c2w, "agent_pose": car})
            for view, name in enumerate(VIEWS):
                writer = VideoWriter(agent_dir / f"{name}.mp4", width, height, 1 / FRAME_S)
                try:
                    for frame in views[agent, :, view]:
                        writer.write(frame[..., ::-1])
                except BaseException:
                    writer.abort()
                    raise
                writer.close()
        clip = {"fps": 1 / FRAME_S, "town": self.scene.town, "weather": self.scene.weather, "type": self.scene.name}
        (folder / "clip.json").write_text(json.dumps(clip))
