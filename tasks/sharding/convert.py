"""Clips of other origin to a data set in our layout: `python -m tasks.sharding convert FOLDER DATASET`.

FOLDER's layout is described in docs/OTHER_DATA.md. A clip becomes a recording whose windows follow each other; what is
left at its end is dropped. Run it again after a kill: recordings that are whole are kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from infra.reading import read_json, read_sha256
from infra.storage import (
    TEMPORARY_PREFIX,
    OnProgress,
    StorageError,
    atomic_dir,
    atomic_file,
    canonical_json,
    make_folder,
    no_progress,
    sha256_bytes,
    sha256_file,
    sweep_temporary,
)
from model.camera import CAMERA_AXES, FLIP_Y, VIEWS, carla_pose
from tasks.recording.depth import FAR
from tasks.recording.encode import VideoWriter, mosaic, write_npz
from tasks.sharding.contract import check_ids, is_text, read_description
from tasks.sharding.errors import ShardError
from tasks.sharding.foreign import POSES, ForeignAgent, ForeignClip, open_array, read_clips, read_frames
from tasks.sharding.index import COPIED, is_mapping, is_sha256
from tasks.sharding.shards import ShardSummary, write_shards

MOST_IDS = 65535
MARKER = "converted.json"
"""Written first: says that what else lies in the folder was made by `convert`, which may replace it."""
ELSEWHERE = "give the converted one a folder of its own."


def convert(
    folder: Path,
    dataset_dir: Path,
    *,
    frames: int = 49,
    view: tuple[int, int] | None = None,
    samples_per_shard: int = 32,
    on_progress: OnProgress = no_progress,
) -> ShardSummary:
    """Convert every clip of `folder` and write the shards, index and dataset.json of `dataset_dir`.

    frames: length of a stored clip, 8k+1 (trap 37: 8k+1 frames only). view: (width, height) of the stored views, the
    source's by default. ShardError in one sentence for the first thing that is wrong.
    """
    if frames < 9 or frames % 8 != 1:
        raise ShardError(f"frames is {frames}: the model takes 8k+1 of them, give 9, 17, ... 49.")
    folder, dataset_dir = Path(folder), Path(dataset_dir)
    check_target(dataset_dir)
    check_apart(folder, dataset_dir)
    clips = read_clips(folder)
    for clip in clips:
        check_apart(clip.folder, dataset_dir)
    rows = [planned(clip, frames, view or (clip.width, clip.height)) for clip in clips]
    twice = {row["recording_id"] for row in rows}
    if len(twice) < len(rows):
        raise ShardError(f"{folder} holds {len(rows) - len(twice)} clips that equal others: leave them out.")
    sizes = {view or (clip.width, clip.height) for clip in clips}
    if len(sizes) > 1:
        raise ShardError(f"{folder} has clips of different sizes {sorted(sizes)}: give one with --view.")
    size, recordings = sizes.pop(), dataset_dir / "recordings"
    claim(dataset_dir)
    sweep_temporary(recordings)
    for done, (clip, row) in enumerate(zip(clips, rows, strict=True)):
        on_progress(done, len(clips), clip.name)
        target = recordings / row["recording_id"]
        if not is_whole(target, row["recording_id"]):
            with atomic_dir(target) as temporary:
                write_recording(clip, row, frames, size, temporary)
    with atomic_file(dataset_dir / "plan.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
    return write_shards(dataset_dir, samples_per_shard=samples_per_shard, on_progress=on_progress)


def check_apart(folder: Path, dataset_dir: Path) -> None:
    """Raise ShardError where what is read and what is written lie one in the other, through symbolic links too."""
    source, target = (Path(os.path.realpath(path)) for path in (folder, dataset_dir))
    if source == target or source in target.parents or target in source.parents:
        raise ShardError(f"{dataset_dir} and {folder} are one folder or lie one in the other: {ELSEWHERE}")


def check_target(dataset_dir: Path) -> None:
    """Raise ShardError unless the data set can be written there and nothing of anybody else's is in its way."""
    if not is_text(Path(os.path.realpath(dataset_dir)).name):
        raise ShardError(f"{os.fsencode(dataset_dir)!r} is no name in UTF-8 of one line: {ELSEWHERE}")
    if not os.path.lexists(dataset_dir):
        return
    if not dataset_dir.is_dir():
        raise ShardError(f"{dataset_dir} is a file: {ELSEWHERE}")
    if (dataset_dir / "plan.json").exists():
        raise ShardError(f"{dataset_dir} is a planned data set: give the converted one a name of its own.")
    held = sorted(path.name for path in dataset_dir.iterdir() if not path.name.startswith(TEMPORARY_PREFIX))
    if held and MARKER not in held:
        raise ShardError(f"{dataset_dir} holds {held[0]!r} and was not made by convert: {ELSEWHERE}")
    for path in written_folders(dataset_dir):
        if path.is_symlink():
            raise ShardError(f"{path} is a symbolic link, through which nothing is written: {ELSEWHERE}")


def written_folders(dataset_dir: Path) -> Iterator[Path]:
    """Yield the folders of a converted data set that are written into, and those that stand at their places."""
    for name in ("recordings", "shards"):
        yield dataset_dir / name
        yield from (dataset_dir / name).glob("*")


def claim(dataset_dir: Path) -> None:
    """Mark the folder as one of `convert`. StorageError where there can be none."""
    make_folder(dataset_dir)
    sweep_temporary(dataset_dir)
    with atomic_file(dataset_dir / MARKER) as temporary:
        temporary.write_text(json.dumps({"made_by": "python -m tasks.sharding convert"}))


def is_whole(target: Path, recording_id: str) -> bool:
    """Tell whether a recording is there as its record says; what is damaged is converted again."""
    try:
        record = read_json(target / "recording.json", "")
        if record.get("recording_id") != recording_id or not is_mapping(is_sha256)(record.get("files")):
            return False
        return all(read_sha256(target / name, "") == digest for name, digest in record["files"].items())
    except StorageError:
        return False


def planned(clip: ForeignClip, frames: int, view: tuple[int, int]) -> dict[str, Any]:
    """Return the clip's row of plan.parquet; its id is a hash of the clip's files and of what is made of them."""
    if clip.frames < frames:
        raise ShardError(f"{clip.name} has {clip.frames} frames and a stored clip {frames}: give fewer with --frames.")
    if view[0] > clip.width or view[1] > clip.height:
        raise ShardError(
            f"{clip.name} has views of {clip.width}x{clip.height}, smaller than {view[0]}x{view[1]}: give less."
        )
    name = sha256_bytes(canonical_json([clip.digest(), frames, view]).encode())[:12]
    described = clip.description
    row = {
        "recording_id": name, "scene_id": described["scene"] or name, "variant": "base", "town": described["town"],
        "trajectory_type": described["type"], "weather": described["weather"], "split": clip.split,
    }  # fmt: skip
    return dict.fromkeys(COPIED, "") | row | {"windows": list(range(0, clip.frames - frames + 1, frames))}


def write_recording(clip: ForeignClip, row: dict[str, Any], frames: int, view: tuple[int, int], folder: Path) -> None:
    """Write a clip's windows and its recording.json."""
    windows = row["windows"]
    for start in windows:
        (folder / f"w{start:03d}").mkdir()
        write_cameras(clip, start, frames, view, folder / f"w{start:03d}" / "cameras.npz")
        (folder / f"w{start:03d}" / "meta.json").write_text(
            json.dumps(meta(clip, row, start, frames), sort_keys=True, indent=1)
        )
    for number, agent in enumerate(clip.agents):
        places = [folder / f"w{start:03d}" / f"agent{number}" for start in windows]
        write_pictures(clip, agent, places, frames, view)
        for kind in clip.kinds:
            write_codes(clip, agent, kind, places, frames, view)
    for start in windows:
        check_written(folder / f"w{start:03d}", f"{row['recording_id']}-{start:03d}")
    files = {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    (folder / "recording.json").write_text(json.dumps({"recording_id": row["recording_id"], "files": files}))


def check_written(window: Path, key: str) -> None:
    """Raise ShardError where a clip that was just written does not keep the contract that every reader asks for."""
    read_description(key, {path.name: path.read_bytes() for path in window.iterdir()})


def meta(clip: ForeignClip, row: dict[str, Any], start: int, frames: int) -> dict[str, Any]:
    """Return meta.json's content."""
    return {
        "recording_id": row["recording_id"], "scene_id": row["scene_id"], "variant": "base", "window": start,
        "town": row["town"], "type": row["trajectory_type"], "weather": row["weather"], "split": clip.split,
        "fps": float(clip.description["fps"]), "frames": frames, "stride": 1, "views": list(VIEWS),
        "rendered_view": [clip.width, clip.height], "source": clip.name, "scores": {},
    }  # fmt: skip


def pose_of(c2w: np.ndarray) -> np.ndarray:
    """Return CARLA's camera poses [..., 6] of c2w [..., 4, 4]: the inverse of `carla_to_c2w`, |pitch| < 90."""
    matrix = np.zeros_like(c2w)
    matrix[..., :3, :3] = FLIP_Y @ c2w[..., :3, :3] @ CAMERA_AXES.T
    matrix[..., :3, 3] = c2w[..., :3, 3] @ FLIP_Y
    return carla_pose(matrix)


def write_cameras(clip: ForeignClip, start: int, frames: int, view: tuple[int, int], path: Path) -> None:
    """Write cameras.npz of a window; what the source does not know of the agents is NaN."""
    part = slice(start, start + frames)
    scale = np.diag([view[0] / clip.width, view[1] / clip.height, 1.0])
    c2w = np.stack([agent.c2w[:, part] for agent in clip.agents])
    poses = {name: np.stack([agent.poses[name] for agent in clip.agents]) for name in POSES}
    poses["agent_pose"] = poses["agent_pose"][:, part]
    K = np.stack([scale @ agent.K for agent in clip.agents])
    K[..., :2, 2] = view[0] / 2, view[1] / 2
    time_s = np.arange(frames) / float(clip.description["fps"])
    write_npz(path, {"K": K, "c2w": c2w, "carla_pose": pose_of(c2w), "time_s": time_s, **poses})


def shrunk(picture: np.ndarray, view: tuple[int, int]) -> np.ndarray:
    """Return [h, w, 3] uint8 by averaging areas."""
    if picture.shape[1::-1] == view:
        return picture
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(pixels, (view[1], view[0]), mode="area")
    return small[0].permute(1, 2, 0).round().byte().numpy()


def nearest(image: np.ndarray, view: tuple[int, int]) -> np.ndarray:
    """Return [h, w] by the nearest pixel, of two equally near the first: depths and ids are not to be averaged."""
    rows, columns = (((np.arange(small) + 0.5) * large / small - 0.5).astype(int)
                     for small, large in zip(view[::-1], image.shape, strict=True))  # fmt: skip
    return image[rows[:, None], columns]


def write_pictures(
    clip: ForeignClip, agent: ForeignAgent, places: Sequence[Path], frames: int, view: tuple[int, int]
) -> None:
    """Write an agent's mosaics, a file a window. ShardError when a video has another length than its poses."""
    size = (2 * view[0], 2 * view[1], float(clip.description["fps"]))
    readers = [read_frames(agent.folder / f"{name}.mp4", clip.width, clip.height) for name in VIEWS]
    writer, count = None, 0
    try:
        for count, pictures in enumerate(zip(*readers, strict=True), 1):
            if count > clip.frames:
                break
            window, inside = divmod(count - 1, frames)
            if window >= len(places):
                continue
            if inside == 0:
                writer = VideoWriter(places[window].with_suffix(".mp4"), *size)
            assert writer is not None
            writer.write(mosaic([shrunk(picture, view) for picture in pictures]))
            if inside == frames - 1:
                writer.close()
                writer = None
    except ValueError as error:
        raise ShardError(f"{agent.folder} has views of different lengths ({error}): give all the same.") from error
    finally:
        if writer is not None:
            writer.abort()
    if count != clip.frames:
        number = f"{count} frames" if count < clip.frames else f"more than {clip.frames} frames"
        raise ShardError(f"{agent.folder} has videos of {number} and poses of {clip.frames}: give one of each.")


def write_codes(
    clip: ForeignClip, agent: ForeignAgent, kind: str, places: Sequence[Path], frames: int, view: tuple[int, int]
) -> None:
    """Write an agent's depth or instance ids as 16-bit mosaics, one file per window."""
    shape = (clip.frames, clip.height, clip.width)
    arrays = [open_array(agent.folder / f"{name}.{kind}.npy", shape) for name in VIEWS]
    size = (2 * view[0], 2 * view[1], float(clip.description["fps"]))
    for window, place in enumerate(places):
        writer = VideoWriter(place.with_name(f"{place.name}.{kind}.mkv"), *size, lossless_16bit=True)
        try:
            for frame in range(window * frames, (window + 1) * frames):
                views = [nearest(np.asarray(array[frame]), view) for array in arrays]
                coded = [coded_depth(one, clip) if kind == "depth" else coded_ids(one, clip) for one in views]
                writer.write(mosaic(coded))
        except BaseException:
            writer.abort()
            raise
        writer.close()


def coded_depth(depth: np.ndarray, clip: ForeignClip) -> np.ndarray:
    """Return [h, w] uint16 centimetres of depth [h, w] in the source's unit; infinite or beyond 655.34 m: FAR."""
    if not (depth > 0).all():
        raise ShardError(f"{clip.name} has depth that is no positive number: write infinity where nothing was hit.")
    centimetres = np.rint(depth.astype(np.float64) * clip.description["metres_per_unit"] * 100)
    return np.minimum(centimetres, FAR).astype(np.uint16)


def coded_ids(ids: np.ndarray, clip: ForeignClip) -> np.ndarray:
    """Return [h, w] uint16 of instance ids [h, w]."""
    if not np.issubdtype(ids.dtype, np.integer) or ids.min() < 0 or ids.max() > MOST_IDS:
        raise ShardError(f"{clip.name} has instance ids that are no whole numbers from 0 to {MOST_IDS}.")
    check_ids(clip.name, ids, len(clip.agents))
    return ids.astype(np.uint16)
