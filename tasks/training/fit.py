"""`shareverse preflight`: what a training of a preset needs, whether it fits, what would, and how long it takes."""

from __future__ import annotations

from typing import Any

from infra.storage import StorageError
from model.base_model import has_local_copy
from model.build import empty_transformer
from model.codec import CodecError
from model.presets import FOLDER, Preset, PresetError
from tasks.encoding.encode import clip_bytes
from tasks.training.flops import PEAK_BF16, flops_per_pair
from tasks.training.live_memory import over_layers
from tasks.training.needs import RUNTIME_BYTES, Needs, needs_of
from tasks.training.resources import GB, Machine, host_memory_needed, machine_of, misfit

ERRORS = (PresetError, CodecError, StorageError)

ASSUMED_CARD, ASSUMED_SHARE = "A100", 0.28
"""The rate that is assumed: that share of that card's peak. The share is a pass's of preset paper on an H200."""
ASSUMED_CPU_FLOPS = 50e9
"""Per process on a CPU: a core of an AMD EPYC with AVX-512."""
CLIPS = 1000
WIDTH = 46


def ask(
    name: str,
    changes: dict[str, Any],
    machine: tuple[int | None, float | None, float | None],
    pairs_per_s: float | None = None,
) -> None:
    """Print the table of a preset with changes. StorageError where it does not fit, which names presets that do.

    `machine`: GPUs, GB of each and GB of the host; None: this machine's. Without GPUs two processes on the CPU.
    """
    preset, described = Preset.load(name).replace(**changes), machine_of(*machine)
    processes = described.gpus or 2
    print(report(preset, processes, described, pairs_per_s))
    if why := misfit(preset, processes, described):
        fitting = ", ".join(presets_that_fit(preset, processes, described)) or "none"
        raise StorageError(f"{why} Presets that fit: {fitting}.")


def report(preset: Preset, processes: int, machine: Machine, pairs_per_s: float | None = None) -> str:
    """Return the table of a preset's needs on a machine, and how long its training takes at `pairs_per_s` of all
    processes together, or at an assumed rate."""
    needs = needs_of(preset, processes)
    lines = [heading(preset, needs, processes), *card_lines(preset, needs, machine)]
    host = host_memory_needed(preset, processes, machine)
    each = needs.host if machine.gpus else needs.on_device
    lines += ["", "the host", row(f"{processes} processes", processes * each)]
    if needs.offloaded:
        lines += [row("optimiser and gradients", processes * needs.offloaded)]
    if machine.gpus:
        lines += [row("weights of a checkpoint that is written", needs.saving)]
    lines += [total(host, machine.host_memory)]
    lines += ["", "the disk", *disk_lines(preset, needs), "", time_line(preset, processes, machine, pairs_per_s)]
    return "\n".join(lines)


def row(what: str, size: float) -> str:
    return f"  {what:{WIDTH}}{size / GB:9.2f} GB"


def total(needed: float, there: float) -> str:
    return f"{row('together', needed)} of {there / GB:.1f}: {'fits' if needed <= there else 'DOES NOT FIT'}"


def heading(preset: Preset, needs: Needs, processes: int) -> str:
    """Return what is trained, in a paragraph."""
    video, training = preset.video, preset.training
    base = preset.transformer.base_model
    sizes = "" if not base or has_local_copy(base) else f" {base} is not on this machine: the preset's sizes count."
    return (
        f"{preset.name}: {needs.parameters / 1e9:.3g} billion parameters, {needs.trained / 1e9:.3g} trained; "
        f"{video.frames} frames of {video.width}x{video.height}; {training.micro_batch_size} of {training.batch_size} "
        f"pairs a pass, ZeRO-{training.zero_stage}, processes: {processes}.{sizes}\n"
    )


def card_lines(preset: Preset, needs: Needs, machine: Machine) -> list[str]:
    """Return the rows of one card, or of one process on a CPU."""
    passing = needs.kept + needs.workspace
    phases = {"a pass": passing, "the optimiser's step": needs.update, "a validation": needs.validation}
    largest = max(phases, key=lambda name: phases[name])
    others = ", ".join(f"{name} {size / GB:.2f}" for name, size in phases.items() if name != largest)
    where = "a card" if machine.gpus else "a process, on the CPU"
    end = [total(needs.on_device, machine.gpu_memory)] if machine.gpus else [row("together", needs.on_device)]
    return [
        where,
        row("weights", needs.weights),
        row("gradients", needs.gradients),
        row("optimiser", needs.optimizer),
        row("averages of weights", needs.averages),
        row("VAE", needs.vae),
        row("CUDA itself, libraries (assumed)", RUNTIME_BYTES),
        row("activations kept for the backward pass", needs.kept),
        row("workspace of a pass, bucket of gradients", needs.workspace),
        *([row(f"{largest}, beyond a pass", phases[largest] - passing)] if largest != "a pass" else []),
        *end,
        f"  At its largest in {largest}; in its place {others} GB.",
    ]


def disk_lines(preset: Preset, needs: Needs) -> list[str]:
    kept = preset.training.keep_checkpoints + 1
    return [
        row(f"{kept} checkpoints, one of them being written", kept * needs.checkpoint),
        row(f"latents of {CLIPS} pairs of clips, at most", CLIPS * clip_bytes(preset)),
    ]


def time_line(preset: Preset, processes: int, machine: Machine, pairs_per_s: float | None) -> str:
    """Return how long the training takes, and at what rate."""
    if pairs_per_s is None:
        peak = ASSUMED_SHARE * PEAK_BF16[ASSUMED_CARD] if machine.gpus else ASSUMED_CPU_FLOPS
        of = f"{ASSUMED_SHARE:.0%} of an {ASSUMED_CARD}'s peak" if machine.gpus else "a core's"
        why = f"assumed: {peak / 1e12:.3g} TFLOP/s per process, {of}; --pairs-per-s takes a measured rate"
        empty = empty_transformer(preset, base_needed=False)
        (flops,) = over_layers(empty, lambda part: (flops_per_pair(part, preset),))
        pairs_per_s = processes * peak / flops
    else:
        why = "as measured"
    pairs = preset.training.train_steps * preset.training.batch_size
    return f"time: {duration(pairs / pairs_per_s)} for {pairs} pairs at {pairs_per_s:.3g} pairs/s ({why})."


def duration(seconds: float) -> str:
    """Return seconds in the largest unit of which there is more than one."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def presets_that_fit(preset: Preset, processes: int, machine: Machine) -> list[str]:
    """Return the names of the other built-in presets that fit a machine, those with the most parameters first."""
    fitting: list[tuple[int, int, str]] = []
    for path in sorted(FOLDER.glob("*.toml")):
        other = Preset.load(path.stem)
        if other.name == preset.name:
            continue
        try:
            if not misfit(other, processes, machine):
                needs = needs_of(other, processes)
                fitting.append((needs.parameters, needs.trained, other.name))
        except PresetError:  # its base is here, and is not one that it can take
            continue
    return [name for *_, name in sorted(fitting, reverse=True)]
