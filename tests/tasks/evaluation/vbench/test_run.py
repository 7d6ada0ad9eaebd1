"""A run's held-out windows go to VBench as they are: recorded pixels, and what the checkpoint generates."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.scoring.windows import Windows
from tasks.evaluation.vbench.run import write_run
from tasks.evaluation.vbench.videos import bytes_of
from tasks.sharding.reader import ClipIndex, decode_video


def test_recorded_and_generated_windows_stand_side_by_side(run, tmp_path):
    told: list[tuple[int, int]] = []
    rows = write_run(run, "test", 1, tmp_path, lambda done, total, note: told.append((done, total)))
    windows = Windows(run.dataset_dir, ClipIndex(run.dataset_dir).split("test"), run.preset)
    counts = {name: len(paths) for name, paths in rows.items()}
    pairs = 2 * len(windows)
    assert counts == {
        "ground truth, mosaics": pairs, "ground truth, views": 4 * pairs, "model, mosaics": pairs,
        "model, views": 4 * pairs,
    }  # fmt: skip
    recorded = decode_video(rows["ground truth, mosaics"][0].read_bytes())
    assert np.array_equal(recorded, bytes_of(windows.video([0]))[0, 0])
    generated = decode_video(rows["model, mosaics"][0].read_bytes())
    assert generated.shape == recorded.shape
    assert not np.array_equal(generated, recorded)
    assert told[-1] == (len(windows), len(windows))


def test_a_split_without_clips_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(ClipIndex, "split", lambda self, name: [])
    with pytest.raises(EvaluationError, match="has no clips in split 'val': score another split"):
        write_run(run, "val", 1, tmp_path)
