"""The benchmarks run: what they print is read by people, and no time is asserted here."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from infra.minicarla.render import Renderer
from infra.minicarla.render.warm_up import plain

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_prints_ratios(name):
    done = subprocess.run([sys.executable, f"benchmarks/{name}.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()


def test_the_render_benchmark_draws_at_every_tick(monkeypatch, capsys):
    """The renderer answers an unchanged scene without drawing it; a benchmark of that would flatter it."""
    spec = importlib.util.spec_from_file_location("render", ROOT / "benchmarks/render.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    drawn, draw = [], Renderer.draw
    monkeypatch.setattr(Renderer, "draw", lambda self, *asked: drawn.append(asked) or draw(self, *asked))
    monkeypatch.setattr(benchmark.towns, "build_scenery", lambda town: plain())
    monkeypatch.setattr(benchmark, "SIZES", ((16, 16),))
    benchmark.measure("Mini02", repeats=3)
    assert len(drawn) == len(set(drawn)) == len(benchmark.WEATHERS) * (1 + 3)
    assert all(len(cameras) == benchmark.VIEWS for cameras, _, _ in drawn)
    assert "wet" in capsys.readouterr().out
