"""A state folder with something of everything, and the commands that its users run on it."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from infra.storage import sha256_bytes, sha256_file
from model.presets import Preset
from tasks.encoding.latents import LatentWindows
from tasks.evaluation.__main__ import main as evaluation
from tasks.evaluation.scoring.windows import Windows
from tasks.planning.plan import make_plan
from tasks.planning.preset import PlanPreset
from tasks.planning.rows import read_plan
from tasks.planning.spares import read_spares
from tasks.recording.ledger import Ledger
from tasks.runs.run import read_run
from tasks.sharding.__main__ import main as sharding
from tasks.sharding.card import write_card
from tasks.sharding.reader import ClipIndex, ClipPairs
from tasks.sharding.shards import write_shards
from tests.hostile.outcomes import Refused

MEANT = ("digest", "plan_sha256", "index_sha256", "clips", "counts", "shards")
"""Keys of dataset.json that say something of the data."""
FRAMES = 9


def tiny(home: Path) -> Path:
    return home / "datasets" / "tiny"


def toy(home: Path) -> Path:
    return home / "datasets" / "toy"


def called(main: Callable[[list[str]], int], *arguments: str) -> None:
    """Call a command line. Refused with what it said when its code is not 0."""
    try:
        code = main(list(arguments))
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    if code:
        raise Refused(sys.stderr.getvalue())  # type: ignore[attr-defined]


def meaning(dataset_dir: Path) -> list[Any]:
    """Return what a data set is: what its record says of the data, and the hashes of its files."""
    record = json.loads((dataset_dir / "dataset.json").read_text())
    files = [dataset_dir / name for name in ("plan.parquet", "index.parquet", *sorted(record["shards"]))]
    return [{key: record.get(key) for key in MEANT}, [sha256_file(path) for path in files]]


def digest(*arrays: Any) -> str:
    return sha256_bytes(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))


def verify(home: Path) -> Any:
    called(sharding, "verify", str(tiny(home)))
    return meaning(tiny(home))


def verify_converted(home: Path) -> Any:
    called(sharding, "verify", str(home / "datasets" / "other"))
    return meaning(home / "datasets" / "other")


def read_pairs(home: Path) -> Any:
    """As the benchmark and the card do."""
    pairs = ClipPairs(tiny(home), "test")
    return [digest(pair.videos, pair.cameras.c2w, pair.depth_m, pair.instance) for pair in pairs]


def read_windows(home: Path) -> Any:
    """As an evaluation does."""
    windows = Windows(toy(home), ClipIndex(toy(home)).split("test"), Preset.load("tiny"))
    return digest(windows.video([0, 1]).numpy(), windows.raymaps([0]).numpy())


def write_again(home: Path) -> Any:
    """As collect-dataset does when it is run again; what it writes must be whole, and what is missing is said."""
    for recording_id, reason in write_shards(tiny(home)).missing.items():
        raise Refused(f"{recording_id}: {reason}")
    return verify(home)


def card(home: Path) -> Any:
    write_card(tiny(home))
    return sorted(path.name for path in (tiny(home) / "dataset_card").iterdir())


def plan(home: Path) -> Any:
    """As collect-dataset does: the plan is there, and no simulator is started."""

    def no_server() -> Any:
        raise Refused("planned anew.")

    make_plan(tiny(home), PlanPreset.load("tiny"), no_server)
    rows = [*read_plan(tiny(home) / "plan.parquet"), *read_spares(tiny(home))]
    return [[row.recording_id, row.windows, digest(row.poses)] for row in rows]


def ledger(home: Path) -> Any:
    """What is done, after what is damaged was put aside and entered again from the recordings; else it is said."""
    book = Ledger(tiny(home))
    try:
        names = sorted(path.name for path in (tiny(home) / "recordings").iterdir())
        again = [name for name in names if not book.is_done(name)]
        if again:
            raise Refused(f"{again[0]} is to be recorded again.")
        return names
    finally:
        book.close()


def convert(home: Path) -> Any:
    target = home / "datasets" / "new"
    called(sharding, "convert", str(home / "source"), str(target), "--frames", str(FRAMES))
    called(sharding, "verify", str(target))
    return meaning(target)


def convert_again(home: Path) -> Any:
    called(sharding, "convert", str(home / "source"), str(home / "datasets" / "other"), "--frames", str(FRAMES))
    return verify_converted(home)


def open_run(home: Path) -> Any:
    run = read_run()
    return [run.run_id, run.dataset, run.dataset_digest, run.preset.to_dict(), run.name]


def read_latents(home: Path) -> Any:
    """As training does."""
    windows = LatentWindows(next(toy(home).glob("latents/*")), "train")
    return [[w.key, digest(w.mean.numpy(), w.first.numpy(), w.K.numpy(), w.c2w.numpy())] for w in windows]


def generate(home: Path) -> Any:
    key = json.loads((home / "clip.json").read_text())
    called(evaluation, "generate", "--clip", key, "--out", str(home / "out"), "--steps", "1")
    return [sha256_file(path) for path in sorted((home / "out").iterdir())]


def services(home: Path) -> Any:
    sys.argv = ["infra.stack", "status"]
    called(lambda arguments: runpy.run_module("infra.stack", run_name="__main__") and 0)
    said = sys.stdout.getvalue()  # type: ignore[attr-defined]
    if ".damaged-" in said:
        raise Refused(said.splitlines()[0])  # put aside, and said
    return said.replace(str(home), "")


def model_preset(home: Path) -> Any:
    return Preset.load(str(home / "model.toml")).to_dict()


def plan_preset(home: Path) -> Any:
    return PlanPreset.load(str(home / "plan.toml")).to_dict()


def copy_of(home: Path, parts: tuple[str, ...], target: Path) -> Path:
    """Copy parts of a house by hard links; SQLite's files, which are written into, by content."""

    def copy(source: str, place: str) -> None:
        shutil.copy2(source, place) if "ledger" in source else os.link(source, place)

    for part in parts:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if (home / part).is_dir():
            shutil.copytree(home / part, target / part, copy_function=copy)
        else:
            copy(str(home / part), str(target / part))
    return target
