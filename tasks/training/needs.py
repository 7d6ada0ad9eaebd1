"""What a training needs of cards, host and disk, by arithmetic from its preset.

n parameters, t of them trained, b bytes of a number (2 in bfloat16, 4 in float32), p processes, one per card.

a card       weights b n, gradients b t, AdamW 12 t (float32 weights and two moments; 6 t with moments in 8 bits), cut
             by ZeRO's stage among the processes (Rajbhandari et al., arXiv 1910.02054, figure 1), AdamW and gradients
             not at all where they are the host's; averages 4 t; the VAE's weights; then the largest of
             - a pass: the tensors that live in it (live_memory.py), and the bucket in which gradients are reduced
             - the optimiser's step: gradients in float32 and AdamW's intermediate, of the largest group of parameters
             - a validation: the decoding of a pair's videos, and the weights that averages replace meanwhile
             At the start: the whole weights b n, and a flat copy of the largest trained group.
a host       per process libraries, and 4 n of a model from scratch, which is drawn there (a base goes to the card
             tensor by tensor); where the optimiser is the host's, cut as on a card: AdamW 12 t, gradients 4 t, a copy
             of the weights b t, and b t where gradients accumulate; of the first process, while it writes a
             checkpoint, weights b n and averages 8 t
a checkpoint AdamW's state 12 t, weights b n (b t of a frozen base), the model to sample with (b n, of which averages
             are 4 t in place of b t) and the averages 4 t

Fragmentation, scratch memory of kernels and other programs are not in it: what does not fit cannot work, and what fits
by less than a tenth may not.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from infra.deepspeed_config import REDUCED_ELEMENTS, accumulation_steps, use_bf16
from model.build import empty_transformer
from model.codec import empty_vae
from model.presets import Preset
from model.trainable import choose_trained
from tasks.training.live_memory import decode_memory, pass_memory
from tasks.training.optimizer import parameter_groups

ADAMW_BYTES = {"adamw": 12.0, "adamw8bit": 4 + 2 * (1 + 4 / 256)}
"""Per trained parameter: float32 weights and two moments, in float32 or in a byte and a scale per block of 256."""
FLOAT32 = 4
RUNTIME_BYTES = 0.7e9
"""Of each process beside all this: CUDA's context on a card, libraries on a host. An assumption."""


@dataclass(frozen=True)
class Needs:
    """Bytes; of one card (on a CPU: of one process) where nothing else is said."""

    parameters: int
    """A number, not bytes."""
    trained: int
    """A number: those of them that are trained."""
    weights: float
    gradients: float
    optimizer: float
    averages: float
    vae: float
    kept: float
    """Of the forward pass, for the backward pass."""
    workspace: float
    """Of a pass beyond `kept`, and the bucket of gradients."""
    update: float
    """Of the optimiser's step, in the place of a pass."""
    validation: float
    """Of a validation, in the place of a pass."""
    largest_part: float
    """A number: of the parameters that one process updates at once."""
    building: float
    """Of the model while it is built, in the place of everything else."""
    host: float
    """Of one process on the host beside a card."""
    offloaded: float
    """Of the host for the optimiser of one process."""
    saving: float
    """Of the first process on the host beside a card, while a checkpoint is written."""
    checkpoint: float
    """Of one checkpoint on the disk."""

    @property
    def resident(self) -> float:
        """What is there all the time."""
        return self.weights + self.gradients + self.optimizer + self.averages + self.vae + RUNTIME_BYTES

    @property
    def on_device(self) -> float:
        """The most that a process needs where it computes."""
        working = self.resident + max(self.kept + self.workspace, self.update, self.validation)
        return max(working, self.building + RUNTIME_BYTES)


@functools.lru_cache(maxsize=64)
def needs_of(preset: Preset, processes: int) -> Needs:
    """Return what a training needs, by the preset's own sizes where its base is not on this machine.

    PresetError for a base that does not fit, CodecError for a damaged VAE.
    """
    model, training = empty_transformer(preset, base_needed=False), preset.training
    with torch.device("meta"):
        choose_trained(model, preset)
    parameters = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    groups = [sum(part.numel() for part in group["params"]) for group in parameter_groups(model)]
    trained = sum(groups)
    each = 2 if use_bf16(training.precision) else FLOAT32
    average = FLOAT32 if training.ema_decay else 0
    share = {stage: 1 / processes if training.zero_stage >= stage else 1.0 for stage in (1, 2, 3)}
    memory, vae = pass_memory(preset), 0.0
    if preset.codec.codec != "linear":
        vae = FLOAT32 * sum(parameter.numel() for parameter in empty_vae(preset.codec).parameters())
    offloads = training.offload_optimizer
    accumulates = accumulation_steps(training.batch_size, training.micro_batch_size, processes) > 1
    adamw = ADAMW_BYTES[training.optimizer]
    on_host = adamw + FLOAT32 + each * (2 if accumulates else 1)
    return Needs(
        parameters=parameters,
        trained=trained,
        weights=each * parameters * share[3],
        gradients=0.0 if offloads else each * trained * share[2],
        optimizer=0.0 if offloads else adamw * trained * share[1],
        averages=average * trained,
        vae=vae,
        kept=memory.kept,
        workspace=memory.peak - memory.kept + each * min(REDUCED_ELEMENTS, trained),
        update=0.0 if offloads else (1 if adamw < 12 else 2) * FLOAT32 * max(groups) * share[1],
        largest_part=max(groups) * share[1],
        validation=(decode_memory(preset) + (each * trained if average else 0)) if training.validate_every else 0.0,
        building=each * (parameters + (max(groups) if training.zero_stage < 3 else 0)),
        host=RUNTIME_BYTES + (0 if preset.transformer.base_model else FLOAT32 * parameters),
        offloaded=on_host * trained * share[1] if offloads else 0.0,
        saving=each * parameters + 2 * average * trained,
        checkpoint=(adamw + average) * trained  # the engine keeps what is trained, and a base that is
        + each * (parameters if training.trainable == "all" else trained)
        + each * (parameters - trained)
        + (average or each) * trained,
    )
