"""Converts clips of other origin into a data set: `python -m tasks.sharding convert FOLDER DATASET`.

FOLDER's layout is described in docs/OTHER_DATA.md. A clip becomes a recording whose windows follow each other; frames
left over at its end are dropped. After a kill, run it again: complete recordings are kept.
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
from tasks.sharding.contract import check_ids, is_text, read_meta_and_cameras
from tasks.sharding.errors import ShardError
from tasks.sharding.foreign import AGENT_ARRAYS, ForeignAgent, ForeignClip, open_array, read_clips, read_frames
from tasks.sharding.index import PLAN_COLUMNS, is_mapping, is_sha256
from tasks.sharding.shards import ShardSummary, write_shards

MAX_ID = 65535
MARKER_FILE = "converted.json"
"""Written first: it marks a folder whose content was made by `convert`, which may replace it."""
OWN_FOLDER_ADVICE = "give the converted one a folder of its own."


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
    source's by default. ShardError for the first fault in the source, or where the data set cannot be written.
    """
    if frames < 9 or frames % 8 != 1:
        raise ShardError(f"frames is {frames}: the model takes 8k+1 of them, give 9, 17, ... 49.")
    folder, dataset_dir = Path(folder), Path(dataset_dir)
    check_target(dataset_dir)
    check_apart(folder, dataset_dir)
    clips = read_clips(folder)
    for clip in clips:
        check_apart(clip.folder, dataset_dir)
    rows = [plan_row(clip, frames, view or (clip.width, clip.height)) for clip in clips]
    distinct = {row["recording_id"] for row in rows}
    if len(distinct) < len(rows):
        raise ShardError(f"{folder} holds {len(rows) - len(distinct)} clips that equal others: leave them out.")
    sizes = {view or (clip.width, clip.height) for clip in clips}
    if len(sizes) > 1:
        raise ShardError(f"{folder} has clips of different sizes {sorted(sizes)}: give one with --view.")
    size, recordings = sizes.pop(), dataset_dir / "recordings"
    mark_converted(dataset_dir)
    sweep_temporary(recordings)
    for done, (clip, row) in enumerate(zip(clips, rows, strict=True)):
        on_progress(done, len(clips), clip.name)
        target = recordings / row["recording_id"]
        if not is_complete(target, row["recording_id"]):
            with atomic_dir(target) as temporary:
                write_converted_recording(clip, row, frames, size, temporary)
    with atomic_file(dataset_dir / "plan.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
    return write_shards(dataset_dir, samples_per_shard=samples_per_shard, on_progress=on_progress)


def check_apart(folder: Path, dataset_dir: Path) -> None:
    """Raise ShardError where source and target are one folder or one contains the other, even through links."""
    source, target = (Path(os.path.realpath(path)) for path in (folder, dataset_dir))
    if source == target or source in target.parents or target in source.parents:
        raise ShardError(f"{dataset_dir} and {folder} are one folder or lie one in the other: {OWN_FOLDER_ADVICE}")


def check_target(dataset_dir: Path) -> None:
    """Raise ShardError unless the data set's folder is new, empty or `convert`'s own, and has a usable name."""
    if not is_text(Path(os.path.realpath(dataset_dir)).name):
        raise ShardError(f"{os.fsencode(dataset_dir)!r} is no name in UTF-8 of one line: {OWN_FOLDER_ADVICE}")
    if not os.path.lexists(dataset_dir):
        return
    if not dataset_dir.is_dir():
        raise ShardError(f"{dataset_dir} is a file: {OWN_FOLDER_ADVICE}")
    if (dataset_dir / "plan.json").exists():
        raise ShardError(f"{dataset_dir} is a planned data set: give the converted one a name of its own.")
    held = sorted(path.name for path in dataset_dir.iterdir() if not path.name.startswith(TEMPORARY_PREFIX))
    if held and MARKER_FILE not in held:
        raise ShardError(f"{dataset_dir} holds {held[0]!r} and was not made by convert: {OWN_FOLDER_ADVICE}")
    for path in written_folders(dataset_dir):
        if path.is_symlink():
            raise ShardError(f"{path} is a symbolic link, through which nothing is written: {OWN_FOLDER_ADVICE}")


def written_folders(dataset_dir: Path) -> Iterator[Path]:
    """Yield the folders of a converted data set that are written into, and whatever lies directly in them."""
    for name in ("recordings", "shards"):
        yield dataset_dir / name
        yield from (dataset_dir / name).glob("*")


def mark_converted(dataset_dir: Path) -> None:
    """Make the folder and mark it as `convert`'s own. StorageError where it cannot be made."""
    make_folder(dataset_dir)
    sweep_temporary(dataset_dir)
    with atomic_file(dataset_dir / MARKER_FILE) as temporary:
        temporary.write_text(json.dumps({"made_by": "python -m tasks.sharding convert"}))


def is_complete(target: Path, recording_id: str) -> bool:
    """Tell whether a recording has all files of its record with their hashes; else it is converted again."""
    try:
        record = read_json(target / "recording.json", "")
        if record.get("recording_id") != recording_id or not is_mapping(is_sha256)(record.get("files")):
            return False
        return all(read_sha256(target / name, "") == digest for name, digest in record["files"].items())
    except StorageError:
        return False


def plan_row(clip: ForeignClip, frames: int, view: tuple[int, int]) -> dict[str, Any]:
    """Return the clip's row of plan.parquet. Its id is a hash of the clip's files and of the conversion's settings."""
    if clip.frames < frames:
        raise ShardError(f"{clip.name} has {clip.frames} frames and a stored clip {frames}: give fewer with --frames.")
    if view[0] > clip.width or view[1] > clip.height:
        raise ShardError(
            f"{clip.name} has views of {clip.width}x{clip.height}, smaller than {view[0]}x{view[1]}: give less."
        )
    recording_id = sha256_bytes(canonical_json([clip.digest(), frames, view]).encode())[:12]
    description = clip.description
    row = {
        "recording_id": recording_id, "scene_id": description["scene"] or recording_id, "variant": "base",
        "town": description["town"], "trajectory_type": description["type"], "weather": description["weather"],
        "split": clip.split,
    }  # fmt: skip
    return dict.fromkeys(PLAN_COLUMNS, "") | row | {"windows": list(range(0, clip.frames - frames + 1, frames))}


def write_converted_recording(
    clip: ForeignClip, row: dict[str, Any], frames: int, view: tuple[int, int], folder: Path
) -> None:
    """Write a clip's windows and its recording.json."""
    windows = row["windows"]
    for start in windows:
        (folder / f"w{start:03d}").mkdir()
        write_cameras(clip, start, frames, view, folder / f"w{start:03d}" / "cameras.npz")
        (folder / f"w{start:03d}" / "meta.json").write_text(
            json.dumps(clip_meta(clip, row, start, frames), sort_keys=True, indent=1)
        )
    for agent_index, agent in enumerate(clip.agents):
        stems = [folder / f"w{start:03d}" / f"agent{agent_index}" for start in windows]
        write_mosaics(clip, agent, stems, frames, view)
        for kind in clip.kinds:
            write_ground_truth(clip, agent, kind, stems, frames, view)
    for start in windows:
        check_written(folder / f"w{start:03d}", f"{row['recording_id']}-{start:03d}")
    files = {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    (folder / "recording.json").write_text(json.dumps({"recording_id": row["recording_id"], "files": files}))


def check_written(window: Path, key: str) -> None:
    """Raise ShardError where a clip that was just written breaks the contract that every reader checks."""
    read_meta_and_cameras(key, {path.name: path.read_bytes() for path in window.iterdir()})


def clip_meta(clip: ForeignClip, row: dict[str, Any], start: int, frames: int) -> dict[str, Any]:
    """Return the content of a window's meta.json."""
    return {
        "recording_id": row["recording_id"], "scene_id": row["scene_id"], "variant": "base", "window": start,
        "town": row["town"], "type": row["trajectory_type"], "weather": row["weather"], "split": clip.split,
        "fps": float(clip.description["fps"]), "frames": frames, "stride": 1, "views": list(VIEWS),
        "rendered_view": [clip.width, clip.height], "source": clip.name, "scores": {},
    }  # fmt: skip


def carla_pose_from_c2w(c2w: np.ndarray) -> np.ndarray:
    """Return CARLA's camera poses [..., 6] of c2w [..., 4, 4]: the inverse of `carla_to_c2w`, for |pitch| < 90."""
    matrix = np.zeros_like(c2w)
    matrix[..., :3, :3] = FLIP_Y @ c2w[..., :3, :3] @ CAMERA_AXES.T
    matrix[..., :3, 3] = c2w[..., :3, 3] @ FLIP_Y
    return carla_pose(matrix)


def write_cameras(clip: ForeignClip, start: int, frames: int, view: tuple[int, int], path: Path) -> None:
    """Write a window's cameras.npz. What the source does not give of the agents is NaN."""
    window = slice(start, start + frames)
    scale = np.diag([view[0] / clip.width, view[1] / clip.height, 1.0])
    c2w = np.stack([agent.c2w[:, window] for agent in clip.agents])
    poses = {name: np.stack([agent.poses[name] for agent in clip.agents]) for name in AGENT_ARRAYS}
    poses["agent_pose"] = poses["agent_pose"][:, window]
    K = np.stack([scale @ agent.K for agent in clip.agents])
    K[..., :2, 2] = view[0] / 2, view[1] / 2
    time_s = np.arange(frames) / float(clip.description["fps"])
    write_npz(path, {"K": K, "c2w": c2w, "carla_pose": carla_pose_from_c2w(c2w), "time_s": time_s, **poses})


def resize_area(picture: np.ndarray, view: tuple[int, int]) -> np.ndarray:
    """Return a picture [h, w, 3] uint8 in the size `view`, (width, height), by averaging areas."""
    if picture.shape[1::-1] == view:
        return picture
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(pixels, (view[1], view[0]), mode="area")
    return small[0].permute(1, 2, 0).round().byte().numpy()


def resize_nearest(image: np.ndarray, view: tuple[int, int]) -> np.ndarray:
    """Return an image [h, w] in the size `view`, (width, height), by the nearest pixel: the first of two equally near.

    For depths and ids, which must not be averaged.
    """
    rows, columns = (((np.arange(small) + 0.5) * large / small - 0.5).astype(int)
                     for small, large in zip(view[::-1], image.shape, strict=True))  # fmt: skip
    return image[rows[:, None], columns]


def write_mosaics(
    clip: ForeignClip, agent: ForeignAgent, stems: Sequence[Path], frames: int, view: tuple[int, int]
) -> None:
    """Write an agent's mosaics, one <stem>.mp4 per window. ShardError when a video is not as long as its poses."""
    size = (2 * view[0], 2 * view[1], float(clip.description["fps"]))
    readers = [read_frames(agent.folder / f"{name}.mp4", clip.width, clip.height) for name in VIEWS]
    writer, count = None, 0
    try:
        for count, pictures in enumerate(zip(*readers, strict=True), 1):
            if count > clip.frames:
                break
            window, frame = divmod(count - 1, frames)
            if window >= len(stems):
                continue
            if frame == 0:
                writer = VideoWriter(stems[window].with_suffix(".mp4"), *size)
            assert writer is not None
            writer.write(mosaic([resize_area(picture, view) for picture in pictures]))
            if frame == frames - 1:
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


def write_ground_truth(
    clip: ForeignClip, agent: ForeignAgent, kind: str, stems: Sequence[Path], frames: int, view: tuple[int, int]
) -> None:
    """Write an agent's depth or instance ids as 16-bit mosaics, one <stem>.<kind>.mkv per window."""
    shape = (clip.frames, clip.height, clip.width)
    arrays = [open_array(agent.folder / f"{name}.{kind}.npy", shape) for name in VIEWS]
    size = (2 * view[0], 2 * view[1], float(clip.description["fps"]))
    for window, stem in enumerate(stems):
        writer = VideoWriter(stem.with_name(f"{stem.name}.{kind}.mkv"), *size, lossless_16bit=True)
        try:
            for frame in range(window * frames, (window + 1) * frames):
                views = [resize_nearest(np.asarray(array[frame]), view) for array in arrays]
                codes = [depth_codes(each, clip) if kind == "depth" else id_codes(each, clip) for each in views]
                writer.write(mosaic(codes))
        except BaseException:
            writer.abort()
            raise
        writer.close()


def depth_codes(depth: np.ndarray, clip: ForeignClip) -> np.ndarray:
    """Return depth [h, w] in the source's unit as uint16 centimetres; FAR where infinite or beyond 655.34 m."""
    if not (depth > 0).all():
        raise ShardError(f"{clip.name} has depth that is no positive number: write infinity where nothing was hit.")
    centimetres = np.rint(depth.astype(np.float64) * clip.description["metres_per_unit"] * 100)
    return np.minimum(centimetres, FAR).astype(np.uint16)


def id_codes(ids: np.ndarray, clip: ForeignClip) -> np.ndarray:
    """Return instance ids [h, w] as uint16. ShardError for ids that are out of range or name an agent too many."""
    if not np.issubdtype(ids.dtype, np.integer) or ids.min() < 0 or ids.max() > MAX_ID:
        raise ShardError(f"{clip.name} has instance ids that are no whole numbers from 0 to {MAX_ID}.")
    check_ids(clip.name, ids, len(clip.agents))
    return ids.astype(np.uint16)
