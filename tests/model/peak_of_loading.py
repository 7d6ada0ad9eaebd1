"""`python -m tests.model.peak_of_loading PRESET_JSON`: print by how many bytes this process grew at most while it built
a preset's transformer in bfloat16, and how large that is."""

from __future__ import annotations

import json
import resource
import sys

import torch

from model.build import build_transformer
from model.presets import Preset


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(preset: str) -> None:
    before = peak()
    model = build_transformer(Preset.from_dict(json.loads(preset)), torch.bfloat16)
    print(peak() - before, sum(tensor.nbytes for tensor in model.state_dict().values()))


if __name__ == "__main__":
    main(*sys.argv[1:])
