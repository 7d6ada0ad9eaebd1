"""Maps are checked once each, when they are asked for, in a process that they may crash."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

from infra.minicarla.towns import SceneryJob, TownError, TownLibrary, build_scenery, library, load_town
from infra.minicarla.towns.catalogue import flattened
from infra.minicarla.towns.job import TownJob, read_line


@pytest.fixture
def checks(monkeypatch):
    """The names of the maps that were checked, with a check that takes its time."""
    names = []

    def check(name, text):
        names.append(name)
        threading.Event().wait(0.2)
        if text == "bad":
            raise TownError(f"the map {name} cannot be a town")
        return dataclasses.replace(load_town("Mini01"), name=name, opendrive=text)

    monkeypatch.setattr(library, "load_checked", check)
    return names


def test_two_that_ask_for_one_map_wait_for_one_check(tmp_path, checks):
    (tmp_path / "One.xodr").write_text("good")
    offered = TownLibrary(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        towns = list(pool.map(offered.load, ["One", "/Game/Carla/Maps/One", "One", "One"]))
    assert checks == ["One"]
    assert {town.name for town in towns} == {"One"}


def test_what_came_out_is_remembered_until_the_file_changes(tmp_path, checks):
    (tmp_path / "One.xodr").write_text("bad")
    offered = TownLibrary(tmp_path)
    for _ in range(3):
        with pytest.raises(TownError, match="the map One cannot be a town"):
            offered.load("One")
    assert checks == ["One"]
    (tmp_path / "One.xodr").write_text("good")
    assert offered.load("One").opendrive == "good"
    assert checks == ["One", "One"]


def test_a_check_that_was_hindered_is_made_again(tmp_path, monkeypatch):
    def out_of_processes(name, text):
        raise BlockingIOError("no process")

    monkeypatch.setattr(library, "load_checked", out_of_processes)
    (tmp_path / "One.xodr").write_text(load_town("Mini02").opendrive)
    offered = TownLibrary(tmp_path)
    with pytest.raises(BlockingIOError):
        offered.load("One")
    monkeypatch.undo()
    assert offered.load("One").opendrive == load_town("Mini02").opendrive


def test_the_number_of_remembered_maps_is_bounded(checks):
    offered = TownLibrary()
    for k in range(library.KEPT + 3):
        offered.checked[f"{k}", ""] = library.Future()
    offered.from_opendrive("Last", "good")
    assert len(offered.checked) == library.KEPT


def test_a_map_that_crashes_the_client_is_one_sentence():
    root = ET.fromstring(load_town("Mini02").opendrive)
    for record in root.iter("lanes"):
        record.clear()
    for text in (ET.tostring(root, encoding="unicode"), "\udce9"):
        with pytest.raises(TownError, match=r"the map Bad cannot be a town: .+") as error:
            TownLibrary().from_opendrive("Bad", text)
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("length", ["1e12", "nan"])
def test_a_road_beyond_measure_is_refused(length):
    text = load_town("Mini02").opendrive.replace('length="', f'length="{length}" was="', 1)
    with pytest.raises(TownError, match=r"the map Huge cannot be a town: (?!the process)"):
        TownLibrary().from_opendrive("Huge", text)


def test_scenery_of_a_job_is_the_same_bytes():
    town = load_town("Mini07")
    built, own = SceneryJob(town).scenery(), build_scenery(town)
    for field in dataclasses.fields(own):
        one, other = getattr(built, field.name), getattr(own, field.name)
        assert type(one) is type(other), field.name
        assert np.array_equal(one, other), field.name


def test_a_cancelled_job_ends_its_process():
    job = SceneryJob(load_town("Mini05"))
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(job.scenery)
        while job.process is None:
            assert not outcome.done()
        job.cancel()
        with pytest.raises(TownError, match="given up"):
            outcome.result(20)
    assert job.process.poll() is not None
    with pytest.raises(TownError, match="given up"):
        job.scenery()


OWNER = """
from infra.minicarla.towns import SceneryJob, load_town
SceneryJob(load_town("Mini05")).scenery()
"""


def test_a_job_ends_with_the_process_that_started_it():
    with subprocess.Popen([sys.executable, "-c", OWNER]) as owner:
        while not (jobs := psutil.Process(owner.pid).children()):
            assert owner.poll() is None
        owner.kill()
    assert psutil.wait_procs(jobs, timeout=10)[1] == []


def test_a_job_that_takes_too_long_ends():
    with pytest.raises(TownError, match=r"longer than 0\.01 s"):
        TownJob("report", texts=[]).run(read_line, limit_s=0.01)


def test_heights_are_found_in_linear_time_and_any_notation():
    text = """<elevation s="0" a="1.5" b="-2"/><superelevation a = '3'></superelevation><crossfall a="0.0"/>"""
    assert flattened(text) == (
        """<elevation s="0" a="0" b="0"/><superelevation a = '0'></superelevation><crossfall a="0.0"/>"""
    )
    begun = time.process_time()
    for start in ("<elevation ", "<elevation a='", "<elevation" + " " * 30):
        flattened(start * 200_000)
    assert time.process_time() - begun < 5.0
    with pytest.raises(TownError, match="no numbers; repair the file"):
        flattened("<elevation a='high'/>")
