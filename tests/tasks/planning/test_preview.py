"""The preview: a plan's table and pictures without a simulator."""

from __future__ import annotations

import sys

from PIL import Image

from infra.minicarla.towns import load_town
from tasks.planning import preview


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["preview", *map(str, arguments)])
    return preview.main()


def test_a_plan_is_shown_in_numbers_and_pictures(tmp_path, monkeypatch, capsys):
    (tmp_path / "Mini03.xodr").write_text(load_town("Mini03").opendrive)
    options = ["--override", "recordings_per_town=6", "--override", "repeats=2", "--pictures", tmp_path / "pictures"]
    assert run(monkeypatch, "demo", tmp_path, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| town | straight meeting | following | crossing |")
    assert lines[2].startswith("| Mini03 | 1 of ")
    assert lines[3] == "| together | 1 | 1 | 1 | 1 | 1 | 1 | 6 |"
    assert lines[4].startswith("6 recordings and 6 spare ones, planned in ")
    with Image.open(tmp_path / "pictures" / "Mini03.png") as picture:
        assert min(picture.size) > 500


def test_what_cannot_be_planned_is_one_sentence(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "demo", tmp_path) == 1
    assert capsys.readouterr().err == (
        f"{tmp_path} holds no road network of Mini01, Mini02, Mini03, Mini04, Mini05, Mini06, Mini07, Mini08, Mini09, "
        "Mini10, Mini11, Mini12: name files after their towns.\n"
    )
