"""VBench for the paper's Table 2:

python -m tasks.evaluation.vbench setup                     make its environment (Python 3.11, about 6 GB)
python -m tasks.evaluation.vbench check                     say what each dimension still needs
python -m tasks.evaluation.vbench run --run ID --out scores.json              ground truth and a run's videos
python -m tasks.evaluation.vbench score NAME=FOLDER [NAME=FOLDER ...] --out scores.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from infra.storage import StorageError, atomic_file
from model.codec import CodecError
from model.presets import PresetError
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.vbench.environment import folder, setup
from tasks.evaluation.vbench.errors import VBenchError
from tasks.evaluation.vbench.run import write_run
from tasks.evaluation.vbench.score import VBenchScores, score_videos, unavailable
from tasks.evaluation.vbench.weights import DIMENSIONS, WEIGHTS_VARIABLE, weights_folder
from tasks.runs.errors import RunError
from tasks.runs.run import read_run
from tasks.sharding.shards import ShardError


def videos_in(rows: Sequence[str]) -> dict[str, list[Path]]:
    """Return the .mp4 files of NAME=FOLDER pairs. VBenchError for a pair that is none or a folder without videos."""
    found = {}
    for row in rows:
        name, _, place = row.partition("=")
        if not name or not place:
            raise VBenchError(f"{row!r} is no NAME=FOLDER: write for example truth=videos/truth.")
        found[name] = sorted(Path(place).glob("*.mp4"))
        if not found[name]:
            raise VBenchError(f"{place} holds no .mp4 files: name a folder of videos.")
    return found


def table(scores: VBenchScores) -> str:
    """Return the figures as lines, a row of videos each, then what was not measured."""
    head = "  ".join(["row".ljust(24), *DIMENSIONS])
    lines = [
        "  ".join(
            [row.ljust(24), *(f"{found[name]:.4f}".rjust(len(name)) if name in found else "-".rjust(len(name))
                              for name in DIMENSIONS)]
        )
        for row, found in scores.rows.items()
    ]  # fmt: skip
    return "\n".join([head, *lines, *(f"{name}: {why}." for name, why in scores.missing.items()), scores.convention])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.evaluation.vbench", description="The paper's Table 2.")
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("setup", help="make VBench's own environment")
    making.add_argument("--again", action="store_true", help="make it anew although it stands")
    commands.add_parser("check", help="say what each dimension still needs")
    scoring = commands.add_parser("score", help="score folders of .mp4 files")
    scoring.add_argument("rows", nargs="+", metavar="NAME=FOLDER", help="for example truth=videos/truth")
    scoring.add_argument("--out", type=Path, required=True, help="JSON file to write")
    running = commands.add_parser("run", help="score a run's held-out windows beside the recorded ones")
    running.add_argument("--run", default="", help="id of the run (default: the one opened last)")
    running.add_argument("--split", choices=("val", "test"), default="test")
    running.add_argument("--steps", type=int, default=0, help="sampling steps (default: the preset's)")
    running.add_argument("--out", type=Path, required=True, help="JSON file to write")
    given = parser.parse_args(arguments)
    try:
        if given.command == "setup":
            print(f"Setting up VBench in {folder()} (some minutes the first time) ...", flush=True)
            versions = setup(again=given.again)
            print("VBench imports: " + ", ".join(f"{name} {number}" for name, number in versions.items()))
        elif given.command == "check":
            print(f"Weights are looked for in {weights_folder()} ({WEIGHTS_VARIABLE}).")
            for name in DIMENSIONS:
                print(f"{name}: {unavailable(name) or 'ready'}")
        else:
            with tempfile.TemporaryDirectory() as videos:
                if given.command == "run":
                    for name in filter(unavailable, DIMENSIONS):  # before the videos are generated, not after
                        print(f"{name}: {unavailable(name)}", file=sys.stderr, flush=True)
                    rows = write_run(read_run(given.run), given.split, given.steps, Path(videos))
                else:
                    rows = videos_in(given.rows)
                scores = score_videos(rows)
            with atomic_file(given.out) as temporary:
                temporary.write_text(json.dumps(scores.record(), indent=1))
            print(table(scores))
    except (VBenchError, EvaluationError, ShardError, CodecError, RunError, StorageError, PresetError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
