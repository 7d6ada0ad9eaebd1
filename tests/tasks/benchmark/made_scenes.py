"""Scenes of each task made of arrays: flat colours on noise, without cameras that matter."""

from __future__ import annotations

import torch

from tasks.benchmark.scenes import BenchScenes

FRAMES, HEIGHT, WIDTH = 9, 32, 48
COLOURS = ["230,38,31", "31,191,51", "38,64,230", "242,217,26"]
SHOWN = ((slice(5, 9), slice(4, 10), slice(2, 10)), (slice(5, 9), slice(20, 26), slice(30, 38)))
"""Where the two vehicles are in the observer's video: frames, rows, columns."""


def paint(video: torch.Tensor, where: tuple[slice, slice, slice], colour: str) -> None:
    """Paint a rectangle of a video [3, T, H, W]."""
    rgb = torch.tensor([float(value) for value in colour.split(",")]) / 127.5 - 1
    video[(slice(None), *where)] = rgb[:, None, None, None]


def made_scenes(task: str, count: int = 12, *, uninformative: int = 0) -> BenchScenes:
    """Return scenes whose observer shows the fact in its late frames; the last `uninformative` do not inform."""
    generator = torch.Generator().manual_seed(0)
    background = torch.rand(count, 2, 3, FRAMES, HEIGHT, WIDTH, generator=generator) * 0.4 - 0.2
    truths = [background.clone(), background.clone()]
    masks = torch.zeros(count, 2 if task == "binding" else 1, FRAMES, HEIGHT, WIDTH, dtype=torch.bool)
    facts, labels = [], []
    for place in range(count):
        alternatives = len(COLOURS) if task == "appearance" else 2
        label, twin = place % alternatives, (place + 1) % alternatives
        pair = [COLOURS[place % 4], COLOURS[(place + 1 + place // 4) % 4]]
        informative = place < count - uninformative
        for truth, number in zip(truths, (label, twin), strict=True):
            if task == "appearance":
                paint(truth[place, 0], SHOWN[0], COLOURS[number])
            elif task == "binding":
                for slot, where in enumerate(SHOWN):
                    paint(truth[place, 0], where, pair[slot ^ number])
            else:
                paint(truth[place, 0], SHOWN[number], COLOURS[0])
            if informative:
                paint(truth[place, 1], (slice(0, 1), slice(0, 4), slice(0, 4)), COLOURS[number])
        for slot, where in enumerate(SHOWN):
            if task != "appearance" or slot == 0:
                masks[(place, slot if task == "binding" else 0, *where)] = True
        facts.append({"task": task, "distance": "large", "observer": 0, "label": label, "labels": alternatives,
                      "colors": {"appearance": COLOURS, "binding": pair, "trajectory": []}[task],
                      "actors": list(range({"appearance": 1, "binding": 2, "trajectory": 0}[task])),
                      "informative": informative})  # fmt: skip
        labels.append([label, twin])
    c2w = torch.eye(4, dtype=torch.float64).expand(count, 2, 4, FRAMES, 4, 4).clone()
    c2w[..., :3, 3] = torch.randn(count, 2, 4, FRAMES, 3, generator=generator, dtype=torch.float64)
    twin_c2w = c2w.clone()
    if task == "trajectory":
        twin_c2w[:, 1, :, 1:, :3, 3] += 1.0
    K = torch.tensor([[12.0, 0, 12], [0, 12, 8], [0, 0, 1]], dtype=torch.float64).expand(count, 2, 4, 3, 3)
    depth = torch.full((count, 2, FRAMES, HEIGHT, WIDTH), 5.0)
    return BenchScenes(
        task, "large", 0, [f"scene{place}" for place in range(count)], ["Made01"] * count, facts, torch.tensor(labels),
        K, c2w, twin_c2w, truths[0], truths[1], depth, depth, masks,
    )  # fmt: skip
