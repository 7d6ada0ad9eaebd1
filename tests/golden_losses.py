"""`python -m tests.golden_losses`: train preset `tiny` on the synthetic data set and renew its loss curve.

The curve stands in tests/assets/losses/tiny.txt. A change of it is a change of numerics, which the commit explains.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from model.presets import Preset
from tasks.runs.run import create_run
from tasks.training.group import train
from tests.local_encoding import encode_here
from tests.synthetic_dataset import write_dataset

CURVE = Path(__file__).parent / "assets" / "losses" / "tiny.txt"
COLUMNS = ("train/loss", "train/grad_norm", "val/loss")


def measured(latents_dir: Path) -> list[list[str]]:
    """Train `tiny`, as it is, in one process; return a line of words per step: the step and COLUMNS."""
    rows: list[dict] = []
    train(create_run("synthetic", Preset.load("tiny"), "golden"), latents_dir, 1, lambda *_: None, rows.extend)
    return [
        [str(row["step"]), *(f"{row[name]:.6f}" if name in row else "-" for name in COLUMNS)]
        for row in rows
        if COLUMNS[0] in row
    ]


def recorded() -> list[list[str]]:
    """Return the curve of the repository, as `measured` does."""
    return [line.split() for line in CURVE.read_text().splitlines() if not line.startswith("#")]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SHAREVERSE_HOME"] = folder
        latents = encode_here(write_dataset(Path(folder) / "datasets" / "synthetic"), Preset.load("tiny"))
        lines = ["# step " + " ".join(COLUMNS), *(" ".join(words) for words in measured(latents))]
    CURVE.write_text("\n".join(lines) + "\n")
    print(f"{CURVE} is renewed: say in the commit why.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
