"""Every kind of file, harmed in every way, under the command that its user runs.

A command may refuse in one sentence, or go on where the damage means nothing: its value is then the undamaged one's. It
may not end in a traceback, hang, or accept what was changed. Run by `make test-hostile`; the table comes at the end:

python -m pytest -m slow tests/hostile/test_damaged_files.py -s
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from model import presets as model_presets
from model.build import build_transformer
from model.presets import Preset
from tasks.planning import preset as plan_presets
from tasks.runs.run import create_run
from tasks.sharding.convert import convert
from tasks.sharding.reader import ClipIndex
from tests.hostile import house as commands
from tests.hostile.damages import ANY, MEANT, Damage, damages_of
from tests.hostile.outcomes import BAD, REFUSED, RIGHT, UNSEEN, Command, forkserver, judged, outcome_of
from tests.local_encoding import encode_here
from tests.synthetic_dataset import write_dataset
from tests.tasks.sharding.test_convert import write_clip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
TINY, TOY, OTHER = ("datasets/tiny",), ("datasets/toy",), ("datasets/other",)
RUN = (*TOY, "runs", "clip.json")


@dataclass(frozen=True)
class Row:
    """A kind of file and what its user calls. `parts`: of the house, which the command needs."""

    kind: str
    pattern: str
    """Of the file; the first in order that fits."""
    parts: tuple[str, ...]
    command: Command
    hashed: bool = True
    """Something tells whether the content is what was written. Else some damages leave a file of another content."""
    other: tuple[str, ...] = ()
    """How the names of those damages begin, beside MEANT."""
    inside: bool = True
    """Damage its keys, columns and arrays too, not only the file as a whole."""


ROWS = [
    Row("dataset.json", "datasets/tiny/dataset.json", TINY, commands.verify),
    Row("index.parquet", "datasets/tiny/index.parquet", TINY, commands.verify),
    Row("plan.parquet", "datasets/tiny/plan.parquet", TINY, commands.verify),
    Row("shard", "datasets/tiny/shards/test/*.tar", TINY, commands.verify),
    Row("sidecar", "datasets/tiny/shards/test/*.json", TINY, commands.verify),
    Row("dataset.json, read", "datasets/tiny/dataset.json", TINY, commands.read_pairs),
    Row("index.parquet, read", "datasets/tiny/index.parquet", TINY, commands.read_pairs, inside=False),
    Row("shard, read", "datasets/tiny/shards/test/*.tar", TINY, commands.read_pairs),
    Row("dataset.json, scored", "datasets/toy/dataset.json", TOY, commands.read_windows, inside=False),
    Row("shard, scored", "datasets/toy/shards/test/*.tar", TOY, commands.read_windows, inside=False),
    Row("dataset.json, written again", "datasets/tiny/dataset.json", TINY, commands.write_again, inside=False),
    Row("index.parquet, written again", "datasets/tiny/index.parquet", TINY, commands.write_again, inside=False),
    Row("shard, written again", "datasets/tiny/shards/train/*.tar", TINY, commands.write_again),
    Row("sidecar, written again", "datasets/tiny/shards/train/*.json", TINY, commands.write_again, inside=False),
    Row("recording.json, written again", "datasets/tiny/recordings/*/recording.json", TINY, commands.write_again),
    Row("clip's video, written again", "datasets/tiny/recordings/*/w000/agent0.mp4", TINY, commands.write_again),
    Row("clip's cameras, written again", "datasets/tiny/recordings/*/w000/cameras.npz", TINY, commands.write_again),
    Row("clip's meta.json, written again", "datasets/tiny/recordings/*/w000/meta.json", TINY, commands.write_again),
    Row("plan.parquet, card", "datasets/tiny/plan.parquet", TINY, commands.card, inside=False),
    Row("map, card", "datasets/tiny/maps/*.xodr", TINY, commands.card),
    Row("card.json", "datasets/tiny/dataset_card/card.json", TINY, commands.card),
    Row("plan.parquet, planned", "datasets/tiny/plan.parquet", TINY, commands.plan),
    Row("spares.parquet", "datasets/tiny/spares.parquet", TINY, commands.verify),
    Row("spares.parquet, written again", "datasets/tiny/spares.parquet", TINY, commands.write_again, inside=False),
    Row("spares.parquet, planned", "datasets/tiny/spares.parquet", TINY, commands.plan),
    Row("plan.json", "datasets/tiny/plan.json", TINY, commands.plan),
    Row("ledger.sqlite", "datasets/tiny/ledger.sqlite", TINY, commands.ledger),
    Row("recording.json, ledger", "datasets/tiny/recordings/*/recording.json", TINY, commands.ledger, hashed=False,
        inside=False),
    Row("clip.json", "source/test/b/clip.json", ("source",), commands.convert, hashed=False),
    Row("foreign cameras.npz", "source/test/b/agent0/cameras.npz", ("source",), commands.convert, hashed=False),
    Row("foreign mp4", "source/test/b/agent1/left.mp4", ("source",), commands.convert, hashed=False,
        other=("last byte lost",)),
    Row("foreign depth.npy", "source/test/b/agent0/rear.depth.npy", ("source",), commands.convert, hashed=False),
    Row("foreign ids.npy", "source/test/b/agent0/rear.instance.npy", ("source",), commands.convert, hashed=False),
    Row("converted.json", "datasets/other/converted.json", ("source", *OTHER), commands.convert_again, inside=False),
    Row("converted plan.parquet", "datasets/other/plan.parquet", ("source", *OTHER), commands.convert_again,
        inside=False),
    Row("converted recording.json", "datasets/other/recordings/*/recording.json", ("source", *OTHER),
        commands.convert_again),
    Row("converted shard", "datasets/other/shards/test/*.tar", ("source", *OTHER), commands.convert_again),
    Row("converted dataset.json", "datasets/other/dataset.json", OTHER, commands.verify_converted, inside=False),
    Row("run.json", "runs/*/run.json", RUN, commands.open_run),
    Row("runs/last", "runs/last", RUN, commands.open_run),
    Row("latents.json", "datasets/toy/latents/*/latents.json", TOY, commands.read_latents),
    Row("latents' index.parquet", "datasets/toy/latents/*/index.parquet", TOY, commands.read_latents),
    Row("latents' shard", "datasets/toy/latents/*/shards/train/*.tar", TOY, commands.read_latents),
    Row("run.json, generate", "runs/*/run.json", RUN, commands.generate, inside=False),
    Row("shard, generate", "datasets/toy/shards/test/*.tar", RUN, commands.generate),
    Row("index.parquet, generate", "datasets/toy/index.parquet", RUN, commands.generate, inside=False),
    Row("trainer.json", "runs/*/checkpoints/*/trainer.json", RUN, commands.generate, hashed=False),
    Row("model's config.json", "runs/*/checkpoints/*/model/config.json", RUN, commands.generate, hashed=False),
    Row("model's weights", "runs/*/checkpoints/*/model/*.safetensors", RUN, commands.generate, hashed=False),
    Row("codec's config.json", "datasets/toy/latents/*/codec/config.json", RUN, commands.generate, hashed=False),
    Row("codec's weights", "datasets/toy/latents/*/codec/*.safetensors", RUN, commands.generate, hashed=False),
    Row("services.json", "services/services.json", ("services",), commands.services, hashed=False,
        other=("missing", "JSON []")),
    # Half of a preset is one that leaves more to the defaults, and where a base lies is looked up by train-shareverse.
    Row("model preset", "model.toml", ("model.toml",), commands.model_preset, hashed=False,
        other=("cut at", "base_model \"../../etc\"")),
    Row("plan preset", "plan.toml", ("plan.toml",), commands.plan_preset, hashed=False),
]  # fmt: skip


@pytest.fixture(scope="module")
def house(tiny, tmp_path_factory) -> Path:
    """A recorded data set with its card; a synthetic one with latents and a run; a converted one with its source;
    presets and services."""
    home = tmp_path_factory.mktemp("house")
    shutil.copytree(tiny.folder, commands.tiny(home))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHAREVERSE_HOME", str(home))
        commands.card(home)
        make_run(home)
    for split, town in (("train", "A"), ("test", "BB")):
        write_clip(home / "source" / split / town[0].lower(), town=town, depth=split == "test", ids=split == "test")
    convert(home / "source", home / "datasets" / "other", frames=commands.FRAMES)
    shutil.copy(Path(model_presets.__file__).parent / "tiny.toml", home / "model.toml")
    shutil.copy(plan_presets.FOLDER / "tiny.toml", home / "plan.toml")
    service = {"name": "prefect", "pid": 999_999_999, "started": 0.0, "address": "http://127.0.0.1:9"}
    (home / "services").mkdir()
    (home / "services" / "services.json").write_text(json.dumps([service]))
    return home


def make_run(home: Path) -> None:
    """Write a data set, its latents, and a run whose model knows nothing."""
    preset = Preset.load("tiny")
    write_dataset(commands.toy(home), train=2, val=1, test=2)
    latents = encode_here(commands.toy(home), preset)
    run = create_run("toy", preset)
    torch.manual_seed(0)
    checkpoint = run.folder / "checkpoints" / f"step-{preset.training.train_steps:06d}"
    build_transformer(preset).save_pretrained(checkpoint / "model")
    record = {"run_id": run.run_id, "step": preset.training.train_steps, "processes": 1}
    (checkpoint / "trainer.json").write_text(json.dumps(record))
    assert (latents / "codec").is_dir()
    (home / "clip.json").write_text(json.dumps(ClipIndex(commands.toy(home)).split("test")[0]["key"]))


@pytest.fixture(scope="module")
def table():
    """Outcomes by kind of file; printed at the end."""
    counts: dict[str, Counter] = {}
    yield counts
    total = sum(counts.values(), Counter())
    heads = (REFUSED, RIGHT, UNSEEN, *BAD)
    print("\n\n" + " | ".join(["damaged file", *heads]))
    for kind, found in [*counts.items(), ("all", total)]:
        print(" | ".join([kind, *(str(found[head]) for head in heads)]))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.kind)
def test_damage_is_refused_in_one_sentence_or_means_nothing(row, house, table, tmp_path):
    context = forkserver()

    def tried(number: int, damage: Damage | None = None) -> dict[str, Any]:
        home = commands.copy_of(house, row.parts, tmp_path / str(number))
        if damage:
            damage(min(home.glob(row.pattern)))
        found = outcome_of(context, row.command, home, tmp_path / f"{number}.json")
        shutil.rmtree(home)
        return found

    whole = tried(0)
    assert "value" in whole, whole
    faults = []
    damages = damages_of(min(house.glob(row.pattern))) if row.inside else ANY
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = pool.map(tried, range(1, len(damages) + 1), damages.values())
        for name, found in zip(damages, outcomes, strict=True):
            unseen = not row.hashed and name.startswith((*MEANT, *row.other))
            outcome, said = judged(found, whole["value"], unseen)
            table.setdefault(row.kind, Counter())[outcome] += 1
            if outcome in BAD:
                faults.append(f"{name}: {outcome}: {said.strip()[-600:]}")
    assert not faults, "\n".join([f"{row.kind}: {len(faults)} faults", *faults])
