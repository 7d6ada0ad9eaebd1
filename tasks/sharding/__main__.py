"""Data sets from the command line:

python -m tasks.sharding verify DATASET                 read a data set, a folder or a URL, from end to end
python -m tasks.sharding convert FOLDER DATASET_DIR     make one of clips of other origin (docs/OTHER_DATA.md)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infra.reading import one_line
from infra.storage import StorageError
from tasks.planning.errors import PlanningError
from tasks.recording.errors import RecordingError
from tasks.sharding.convert import convert
from tasks.sharding.errors import ShardError
from tasks.sharding.verify import verify


def size(text: str) -> tuple[int, int]:
    """Return WIDTHxHEIGHT as numbers."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write for example 360x240")
    return int(width), int(height)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.sharding", description="Data sets.")
    commands = parser.add_subparsers(dest="command", required=True)
    verifying = commands.add_parser("verify", help="read a data set from end to end")
    verifying.add_argument("dataset", help="folder or URL")
    converting = commands.add_parser("convert", help="make a data set of clips of other origin")
    converting.add_argument("folder", type=Path, help="train/NAME/, val/NAME/, test/NAME/")
    converting.add_argument("dataset", type=Path, help="folder to make, best under datasets/")
    converting.add_argument("--frames", type=int, default=49, help="frames of a stored clip, 8k+1 (default: 49)")
    converting.add_argument("--view", type=size, help="WIDTHxHEIGHT of the stored views (default: as they are)")
    given = parser.parse_args(arguments)
    try:
        if given.command == "verify":
            print(f"{verify(given.dataset)} clip pairs are whole.")
        else:
            summary = convert(given.folder, given.dataset, frames=given.frames, view=given.view)
            print(f"{summary.clips} clips in {summary.written + summary.kept} shards, digest {summary.digest}.")
    except (ShardError, PlanningError, RecordingError, StorageError) as error:
        print(one_line(error) + ".", file=sys.stderr)
        return 1
    except OSError as error:  # the disk is full, or may not be written
        print(f"{error.filename or 'The disk'}: {error.strerror or one_line(error)}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
