"""Generate a clip with a trained run:

python -m tasks.evaluation generate --run 1a2b3c4d5e6f --clip KEY --out DIR [--steps 20] [--windows 3]

or own pictures and trajectories with an exported one:

python -m tasks.evaluation generate --pictures a0.png a1.png --trajectories t.json --model FOLDER --out DIR
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infra.storage import StorageError
from model.codec import CodecError
from model.presets import PresetError
from tasks.encoding.latents import EncodingError
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.generate import DEFAULT_MODEL, generate_clip, generate_own
from tasks.evaluation.report.write import latents_dir_of
from tasks.recording.errors import RecordingError
from tasks.runs.errors import RunError
from tasks.runs.run import read_run
from tasks.sharding.shards import ShardError

ERRORS = (
    EvaluationError, RunError, EncodingError, ShardError, CodecError, PresetError, RecordingError, StorageError,
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.evaluation", description="Use a trained run.")
    commands = parser.add_subparsers(dest="command", required=True)
    generate = commands.add_parser("generate", help="write both agents' mosaics and their eight views as videos")
    generate.add_argument("--run", default="", help="id of the run (default: the one opened last)")
    generate.add_argument("--clip", help="key of a clip of the run's data set")
    generate.add_argument("--pictures", nargs="+", default=[], help="in place of a clip: first mosaics, one per agent")
    generate.add_argument(
        "--trajectories", type=Path, help="JSON file with CARLA poses per agent (model/trajectories.py)"
    )
    generate.add_argument("--model", default=DEFAULT_MODEL, help="folder that `shareverse export` wrote")
    generate.add_argument("--out", required=True, type=Path, help="folder for the videos")
    generate.add_argument("--steps", type=int, default=0, help="sampling steps (default: the preset's)")
    generate.add_argument("--windows", type=int, default=1, help="windows of the model's length, one after another")
    generate.add_argument("--seed", type=int, default=0, help="seed of the noise, from 0")
    given = parser.parse_args(arguments)
    if given.steps < 0 or given.steps > 1000:
        print(f"--steps is {given.steps}: give 1 to 1000, or 0 for the preset's.", file=sys.stderr)
        return 1
    if not 0 <= given.seed < 2**63:
        print(f"--seed is {given.seed}: give a whole number from 0 to {2**63 - 1}.", file=sys.stderr)
        return 1
    own = bool(given.pictures and given.trajectories)
    if own == bool(given.clip) or bool(given.pictures) != bool(given.trajectories):
        print("give either --clip, or --pictures and --trajectories.", file=sys.stderr)
        return 1
    try:
        if own:
            paths = generate_own(
                given.model, given.pictures, given.trajectories, given.out, steps=given.steps, seed=given.seed
            )
        else:
            run = read_run(given.run)
            paths = generate_clip(
                run, latents_dir_of(run), given.clip, given.out,
                steps=given.steps, windows=given.windows, seed=given.seed,
            )  # fmt: skip
    except ERRORS as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or given.out
        print(f"{where}: {error.strerror or error}: make room, or name another --out.", file=sys.stderr)
        return 1
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
