"""The clips that a report shows: those where the cars see each other largest, and those where the model is worst."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from tasks.evaluation.report.pictures import RECORDED, Film, pixels
from tasks.evaluation.report.report import label_of
from tasks.evaluation.scoring.breakdown import worst_windows
from tasks.evaluation.scoring.exchange import WITHOUT
from tasks.evaluation.scoring.sampling import Sampler
from tasks.evaluation.scoring.score import Evaluation, Example
from tasks.evaluation.scoring.scores import CODEC, COPY, FULL_STEPS, ONE_STEP
from tasks.evaluation.scoring.windows import Window, Windows

WORST = 3
COMPARED = (FULL_STEPS, ONE_STEP, WITHOUT, COPY, CODEC)
LARGEST_ERROR = 0.4
"""Mean difference of the three colours (of 1) from which an error map is at its brightest."""


def error_map(generated: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean difference of the colours of [..., 3] uint8 as a colour: black none, yellow LARGEST_ERROR."""
    difference = np.abs(generated.astype(np.float32) - truth).mean(-1) / 255
    colours = matplotlib.colormaps["inferno"](difference / LARGEST_ERROR)[..., :3]
    return (colours * 255).round().astype(np.uint8)


def steps_label(steps: int) -> str:
    return f"{steps} steps" if steps != 1 else "1 step"


def worst_examples(evaluation: Evaluation, dataset_dir: Path, sampler: Sampler) -> list[Example]:
    """Generate again the windows in which the model is worst at its full steps (noise depends on the window alone).

    Those that are among the evaluation's examples are shown there.
    """
    preset, examples = sampler.preset, []
    shown = {example.window.name for example in evaluation.examples}
    for window in worst_windows(evaluation.scores, FULL_STEPS, WORST):
        if window.name in shown:
            continue
        windows, index = located(dataset_dir, window, sampler)
        truth, raymaps = windows.video([index]), windows.raymaps([index])
        one, full = (sampler.generate(truth[:, :, :, 0], raymaps, [window.name], n)[0] for n in (1, evaluation.steps))
        examples.append(Example(window, truth[0], one, full, preset.video.views))
    return examples


def located(dataset_dir: Path, window: Window, sampler: Sampler) -> tuple[Windows, int]:
    """Return the windows of a window's clip, and its index among them."""
    windows = Windows(dataset_dir, [window.row], sampler.preset)
    return windows, [found.start for found in windows].index(window.start)


def psnr_of(window: Window, evaluation: Evaluation) -> dict[str, float]:
    """Return a window's PSNR by the labels of the rows that are compared."""
    arrays = evaluation.scores.arrays
    return {label_of(row, evaluation): float(arrays[row, "psnr"][window.name].mean()) for row in COMPARED
            if window.name in arrays.get((row, "psnr"), {})}  # fmt: skip


def make_films(
    evaluation: Evaluation, dataset_dir: Path, sampler: Sampler, without: Sampler | None = None
) -> list[Film]:
    """Return the evaluation's examples and its worst windows, with the run without exchange where one is given."""
    films, label = [], steps_label(evaluation.steps)
    worst = worst_examples(evaluation, dataset_dir, sampler)
    for number, example in enumerate([*evaluation.examples, *worst]):
        truth, full = pixels(example.truth), pixels(example.full_steps)
        sources = {RECORDED: truth, f"model, {label}": full}
        if evaluation.steps != 1:
            sources["model, 1 step"] = pixels(example.one_step)
        if without is not None:
            windows, index = located(dataset_dir, example.window, without)
            first, raymaps = example.truth[None, :, :, 0], windows.raymaps([index])
            blind = without.generate(first, raymaps, [example.window.name], evaluation.steps)[0]
            sources[f"without exchange, {label}"] = pixels(blind)
        sources[f"error of the model, {label}"] = error_map(full, truth)
        psnr = psnr_of(example.window, evaluation)
        films.append(Film(example.window, number >= len(evaluation.examples), sources, psnr, example.views))
    return films
