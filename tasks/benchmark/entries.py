"""What can be scored: one class with one method, and the entries that every benchmark needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from model.raymap import build_raymaps
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.scenes import BenchScenes
from tasks.benchmark.warping import warp
from tasks.evaluation.scoring.sampling import Sampler

RANGE_SLACK = 1e-3
"""A video may leave [-1, 1] by rounding."""


class Entry(ABC):
    """Any model that turns first frames and camera trajectories into videos can enter:

    class Mine(Entry):
        name = "mine"

        def __init__(self, model):
            self.model = model

        def generate(self, first, K, c2w, names):
            frames = c2w.shape[3]
            seeds = [int.from_bytes(name.encode()[-6:], "big") for name in names]
            return self.model(first, K, c2w, frames=frames, seeds=seeds).clamp(-1, 1)

    score_entry(Mine(model), scenes, detector).metrics()
    """

    name: str
    takes_any_partner: bool = True
    """Whether the entry can be given a partner from another scene; what is tied to a recording cannot."""

    @abstractmethod
    def generate(self, first: torch.Tensor, K: torch.Tensor, c2w: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
        """Return mosaics [N, A, 3, T, H, W] in [-1, 1] of N scenes, A agents, T frames, on the CPU.

        first [N, A, 3, H, W] in [-1, 1]: first frames, four views each (front, rear / left, right). K [N, A, V, 3, 3]:
        intrinsics in pixels, of views whose principal point is their middle. c2w [N, A, V, T, 4, 4]: cameras to world,
        OpenCV axes, metres, z up. names [N]: equal names must give equal randomness.
        """


def generated(
    entry: Entry, first: torch.Tensor, K: torch.Tensor, c2w: torch.Tensor, names: Sequence[str]
) -> torch.Tensor:
    """Return what an entry generates. BenchmarkError when it is not of the agreed shape and range."""
    videos = entry.generate(first, K, c2w, names)
    count, agents, channels, height, width = first.shape
    wanted = (count, agents, channels, c2w.shape[3], height, width)
    if not isinstance(videos, torch.Tensor) or tuple(videos.shape) != wanted:
        shape = tuple(videos.shape) if hasattr(videos, "shape") else type(videos).__name__
        raise BenchmarkError(
            f"entry {entry.name!r} gave {shape}: it must give a tensor of {wanted} [N, A, 3, T, H, W]."
        )
    videos = videos.detach().float().cpu()
    largest = float(videos.abs().max())
    if not largest <= 1 + RANGE_SLACK:  # false for what is no number, too
        raise BenchmarkError(f"entry {entry.name!r} gave values up to {largest:g}: videos must lie in [-1, 1].")
    return videos


class Ours(Entry):
    """A checkpoint of this project."""

    def __init__(self, sampler: Sampler, steps: int, name: str = "ours") -> None:
        self.sampler, self.steps, self.name = sampler, steps, name

    def generate(self, first: torch.Tensor, K: torch.Tensor, c2w: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
        raymaps = build_raymaps(K, c2w, **self.sampler.preset.raymap_options)
        size = self.sampler.batch
        return torch.cat([
            self.sampler.generate(first[at : at + size], raymaps[at : at + size], names[at : at + size], self.steps)
            for at in range(0, len(names), size)
        ])  # fmt: skip


class CopyFirstFrame(Entry):
    """Nothing moves."""

    name = "copy first frame"

    def generate(self, first: torch.Tensor, K: torch.Tensor, c2w: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
        return first[:, :, :, None].expand(-1, -1, -1, c2w.shape[3], -1, -1).contiguous()


class Recorded(Entry):
    """An entry that is given the recordings of the scenes: it knows what no model does."""

    takes_any_partner = False

    def __init__(self, scenes: BenchScenes) -> None:
        self.scenes = scenes
        self.places = {name: place for place, name in enumerate(scenes.names)}

    def recordings(self, first: torch.Tensor, c2w: torch.Tensor, names: Sequence[str]) -> list[tuple[int, bool]]:
        """Return the place of each scene, and whether the partner's inputs are its twin's and not its own."""
        scenes, other = self.scenes, self.scenes.partner
        chosen = []
        for given, cameras, name in zip(first[:, other], c2w[:, other], names, strict=True):
            place = self.places[name]
            own = torch.equal(given, scenes.first[place, other]) and torch.equal(cameras, scenes.c2w[place, other])
            twin = torch.equal(given, scenes.twin_first[place, other])
            chosen.append((place, not own and twin and torch.equal(cameras, scenes.twin_c2w[place, other])))
        return chosen


class GroundTruth(Recorded):
    """The recording itself; the scene's where the inputs do not tell it from its twin."""

    name = "ground truth"

    def generate(self, first: torch.Tensor, K: torch.Tensor, c2w: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
        truths = self.scenes.truth, self.scenes.twin_truth
        return torch.stack([truths[twin][place] for place, twin in self.recordings(first, c2w, names)])


class Warping(Recorded):
    """First frames carried into later views by true depth: no learning, but all of the geometry.

    With both agents' pictures it is the strong baseline: it pastes what the partner saw. With one's own picture alone
    it cannot know the fact. What no picture shows is filled with one's own first frame.
    """

    def __init__(self, scenes: BenchScenes, *, both: bool) -> None:
        super().__init__(scenes)
        self.both = both
        self.name = "warping of both first frames" if both else "warping of one's own first frame"

    def generate(self, first: torch.Tensor, K: torch.Tensor, c2w: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
        depths = self.scenes.depth_m, self.scenes.twin_depth_m
        videos = []
        for number, (place, twin) in enumerate(self.recordings(first, c2w, names)):
            videos.append(warp(first[number], K[number], c2w[number], depths[twin][place], both=self.both))
        return torch.stack(videos)
