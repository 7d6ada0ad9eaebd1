"""Long videos: each window goes on from the last frame of the one before, ten windows where a recording holds them.

A recording's clips overlap, so they are joined: after a clip's last frame comes the frame of another clip that is
nearest to one step later. Where clips start at ticks that are no multiple of the stride, that step is up to half a step
shorter or longer. The model is given the true cameras of every frame, and is compared with that frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from infra.storage import sha256_bytes
from tasks.encoding.frames import model_video
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.measures.shared_world import drift
from tasks.evaluation.measures.shared_world.localisation import sightings, summary
from tasks.evaluation.measures.shared_world.world import as_frames, read_window_truth
from tasks.evaluation.scoring import scores as names
from tasks.evaluation.scoring.probes import ToViews
from tasks.evaluation.scoring.sampling import Sampler
from tasks.evaluation.scoring.scores import Scores
from tasks.evaluation.scoring.shared_world import SharedWorld
from tasks.evaluation.scoring.windows import Window, Windows, balanced
from tasks.sharding.reader import Cameras, ClipPair, read_pair

MOST_ROLLOUTS, MOST_WINDOWS = 9, 10


def score_rollouts(
    sampler: Sampler, windows: Windows, scores: Scores, world: SharedWorld, to_views: ToViews
) -> dict[str, str]:
    """Score rollouts over whole recordings, at one step and, where those are few, at the preset's; return what is
    missing and why."""
    frames = windows.frames
    by_recording: dict[str, list[str]] = {}
    for key, clip in windows.rows.items():
        by_recording.setdefault(clip["recording_id"], []).append(key)
    recordings = list(by_recording)
    measured = False
    for position in balanced([windows.rows[by_recording[name][0]]["scene_id"] for name in recordings], MOST_ROLLOUTS):
        keys = by_recording[recordings[position]]
        recording = joined([read_pair(key, windows.clips.read(windows.rows[key])) for key in keys])
        count = min(MOST_WINDOWS, (len(recording.cameras.time_s) - 1) // (frames - 1))
        if count < 2:
            continue
        measured = True
        window = Window(windows.rows[recording.key], 0)
        truth = model_video(recording.videos[:, : count * (frames - 1) + 1], windows.preset.video)[None]
        rows = rows_of(sampler, windows.preset.sampling.sampling_steps, recording, window, truth)
        views = {row: to_views(video)[0] for row, video in rows.items()}
        for row, video in views.items():
            if row != names.GROUND_TRUTH:
                scores.put_figures(
                    row, window, drift.figures(video, views[names.GROUND_TRUTH], views[names.CODEC], frames)
                )
        put_other_car(recording, window, views, count, scores, world)
    return {} if measured else {"rollout_drift": f"not measured: no recording holds two windows of {frames} frames"}


def joined(clips: Sequence[ClipPair]) -> ClipPair:
    """Return a recording's clips as one: the first clip, then those that go on from its end; alone where none does."""
    clips = sorted(clips, key=lambda clip: int(clip.meta.get("window", 0)))
    first, stride = clips[0], int(clips[0].meta.get("stride", 0))
    parts, last = [(first, 0)], last_tick(first, stride)
    while stride:
        following = [(clip, frame) for clip in clips[1:] if (frame := next_frame(clip, stride, last)) is not None]
        if not following:
            break
        clip, frame = max(following, key=lambda part: last_tick(part[0], stride))
        parts, last = [*parts, (clip, frame)], last_tick(clip, stride)
    return replace(
        first,
        videos=np.concatenate([clip.videos[:, frame:] for clip, frame in parts], 1),
        depth_m=concatenated([None if clip.depth_m is None else clip.depth_m[:, frame:] for clip, frame in parts]),
        instance=concatenated([None if clip.instance is None else clip.instance[:, frame:] for clip, frame in parts]),
        cameras=joined_cameras(parts),
    )


def last_tick(clip: ClipPair, stride: int) -> int:
    return int(clip.meta.get("window", 0)) + stride * (len(clip.cameras.time_s) - 1)


def next_frame(clip: ClipPair, stride: int, last: int) -> int | None:
    """Return the frame of a clip that is nearest to one step after the tick `last`; None where it holds none within
    half a step, or none after it."""
    after = last + stride - int(clip.meta["window"])
    frame = round(after / stride)
    within = 2 * abs(frame * stride - after) < stride
    return frame if within and 0 <= frame < len(clip.cameras.time_s) else None


def concatenated(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Return arrays [A, F, ...] one after the other; None where one is missing."""
    present = [part for part in parts if part is not None]
    return np.concatenate(present, 1) if len(present) == len(parts) else None


def joined_cameras(parts: Sequence[tuple[ClipPair, int]]) -> Cameras:
    """Return the cameras of clips from the given frames on, time counted from the first clip's start."""
    first = parts[0][0]
    second_per_tick = float(np.diff(first.cameras.time_s[:2]).sum()) / max(1, int(first.meta.get("stride", 1)))
    offsets = [(int(clip.meta.get("window", 0)) - int(first.meta.get("window", 0))) for clip, _ in parts]
    cut = [(clip.cameras, frame) for clip, frame in parts]
    return replace(
        first.cameras,
        c2w=np.concatenate([cameras.c2w[:, :, frame:] for cameras, frame in cut], 2),
        carla_pose=np.concatenate([cameras.carla_pose[:, :, frame:] for cameras, frame in cut], 2),
        agent_pose=np.concatenate([cameras.agent_pose[:, frame:] for cameras, frame in cut], 1),
        time_s=np.concatenate(
            [
                cameras.time_s[frame:] + offset * second_per_tick
                for (cameras, frame), offset in zip(cut, offsets, strict=True)
            ]
        ),
    )


def rows_of(
    sampler: Sampler, steps: int, recording: ClipPair, window: Window, truth: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return the videos to compare [1, A, 3, T, H, W] by row: generated ones from the first frame and the cameras."""
    rows = {
        names.GROUND_TRUTH: truth,
        names.CODEC: sampler.round_trip(truth),
        names.COPY: truth[:, :, :, :1].expand_as(truth),
        names.ONE_STEP: roll_out(sampler, recording.cameras, window, truth, 1),
    }
    if 1 < steps <= names.FEW_STEPS:
        rows[names.FULL_STEPS] = roll_out(sampler, recording.cameras, window, truth, steps)
    return rows


def roll_out(sampler: Sampler, cameras: Cameras, window: Window, truth: torch.Tensor, steps: int) -> torch.Tensor:
    """Return a video as long as the true one [1, A, 3, T, H, W], from its first frame and the cameras."""
    seed = int(sha256_bytes(window.name.encode())[:12], 16)
    rolled = sampler.pipeline.rollout(
        truth[:, :, :, 0].to(sampler.device),
        torch.from_numpy(cameras.K)[None],
        torch.from_numpy(cameras.c2w[:, :, : truth.shape[3]])[None],
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        dtype=sampler.dtype,
    )
    return rolled.videos.float().cpu()


def put_other_car(
    recording: ClipPair,
    window: Window,
    views: dict[str, torch.Tensor],
    count: int,
    scores: Scores,
    world: SharedWorld,
) -> None:
    """Score where the other car is in each window of a rollout, where the recording tells and the detector can."""
    if world.detector is None:
        return
    video, frames = world.windows.preset.video, world.windows.frames
    for number in range(count):
        start = number * (frames - 1)
        try:
            truth = read_window_truth(recording, video, start)
        except EvaluationError:
            return  # the windows' own figures have said why
        for row, rolled in views.items():
            part = as_frames(rolled[:, :, start : start + frames], truth.frames)
            found = summary(list(sightings(truth, part, world.detector)))
            figures = {f"rollout_{name}_{number + 1}": found[name] for name in ("other_recall", "other_bearing_deg")}
            scores.put_figures(row, window, figures)
