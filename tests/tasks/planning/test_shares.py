"""Shares by capacity: level over towns, junctions and sites, complete, and what lacks is said in numbers."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.minicarla.towns import load_town
from tasks.planning.errors import PlanningError
from tasks.planning.plan import plan_data_set
from tasks.planning.preset import PlanPreset
from tasks.planning.shares import level, wanted_by_type
from tasks.planning.site_order import BalancedOrder
from tasks.planning.summary import lacking, lacking_spares, shortfalls, table


@given(st.integers(0, 200), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=12))
@settings(max_examples=300, deadline=None)
def test_what_is_dealt_is_level(wanted, places):
    rooms, held = zip(*places, strict=True)
    dealt = level(wanted, rooms, held)
    assert sum(dealt) == min(wanted, sum(rooms))
    assert all(0 <= count <= room for count, room in zip(dealt, rooms, strict=True))
    after = [have + count for have, count in zip(held, dealt, strict=True)]
    highest = max((total for total, count in zip(after, dealt, strict=True) if count), default=0)
    could_take_more = [total for total, count, room in zip(after, dealt, rooms, strict=True) if count < room]
    assert all(total >= highest - 1 for total in could_take_more)


places = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=40)
"""Junction and approach of every site of a town."""


@given(places, st.integers(1, 4), st.integers(0, 9), st.sets(st.integers(0, 39), max_size=8), st.integers(0, 160))
@settings(max_examples=150, deadline=None)
def test_sites_come_by_turns(places, repeats, per_junction, undrivable, wanted):
    sites = [
        SimpleNamespace(name=number, junction=str(junction), approaches=str(approach))
        for number, (junction, approach) in enumerate(places)
    ]
    order = BalancedOrder(sites, np.random.default_rng(0), repeats, per_junction)
    uses: Counter[int] = Counter()
    while uses.total() < wanted and (taken := order.take()):
        site, before = taken
        assert before == uses[site.name]
        if site.name in undrivable:
            order.drop()
        else:
            uses[site.name] += 1
    assert max(uses.values(), default=0) <= repeats
    of_junctions = Counter(site.junction for site in sites for _ in range(uses[site.name]))
    most = max(of_junctions.values(), default=0)
    assert not per_junction or most <= per_junction
    for junction in order.town.parts:  # who is behind has no site left
        name = junction.parts[0].parts[0].site.junction
        assert junction.uses == of_junctions[name]
        assert junction.uses >= most - 1 or junction.room == 0
    if uses.total() < wanted:
        assert order.room == 0
        assert uses.total() == order.room_with(repeats)


@pytest.fixture(scope="module")
def three_towns():
    """Preset and plan of three towns, one of them held out; Mini03 has few sites of some types."""
    preset = PlanPreset.load("demo").replace(
        towns=["Mini03", "Mini04", "Mini10"], shares="capacity", recordings_per_town=60, repeats=2,
        max_acceleration_mps2=2.0, max_oncoming_m=10.0,
    )  # fmt: skip
    return preset, plan_data_set(preset, maps_of(preset))


def maps_of(preset):
    return {town: load_town(town).opendrive for town in preset.towns}


def test_a_plan_by_capacity_reaches_its_number(three_towns):
    preset, planned = three_towns
    rows = planned.recordings.drop_columns(["poses"]).to_pylist()
    assert len(rows) == 180
    assert Counter(row["trajectory_type"] for row in rows) == wanted_by_type(preset)
    assert not lacking(preset, planned.cells)
    assert not shortfalls(preset, planned.cells)
    sites = Counter((row["town"], row["trajectory_type"], row["site"]) for row in rows + planned.spares.to_pylist())
    assert max(sites.values()) <= 2
    for kind in preset.trajectory_types:
        cells = [cell for cell in planned.cells if cell.trajectory_type == kind]
        for cell in cells:  # less than another town only where its sites are used up
            assert cell.planned >= max(other.planned for other in cells) - 1 or cell.order.room == 0
    weathers = Counter((row["town"], row["trajectory_type"], row["weather"]) for row in rows)
    for town, kind, _ in weathers:
        counts = [weathers[town, kind, weather] for weather in preset.weathers]
        assert max(counts) - min(counts) <= 1


def test_spares_are_of_each_split(three_towns):
    preset, planned = three_towns
    spares = planned.spares.drop_columns(["poses"]).to_pylist()
    assert {row["split"] for row in spares} == {"train", "val"}
    assert not lacking_spares(preset, planned.cells)


def test_a_plan_by_capacity_is_the_same_again(three_towns):
    preset, planned = three_towns
    fewer = preset.replace(spare_share=0)
    assert plan_data_set(fewer, maps_of(preset)).recordings.equals(planned.recordings)


def test_what_lacks_is_said_in_numbers():
    preset = PlanPreset.load("demo").replace(
        towns=["Mini03"], shares="capacity", recordings_per_town=90, trajectory_types=["crossing", "following"],
        short_towns="less",
    )  # fmt: skip
    planned = plan_data_set(preset, maps_of(preset))
    missing = lacking(preset, planned.cells)["Mini03"]
    held = Counter(row["trajectory_type"] for row in planned.recordings.to_pylist())
    assert all(held[kind] + count == 45 for kind, count in missing.items())
    sentences = shortfalls(preset, planned.cells)
    assert len(sentences) == len(missing) + 1
    assert any(
        f"Mini03, crossing: 45 scenes wanted, {held['crossing']} possible. With repeats = " in line
        for line in sentences
    )
    count = planned.recordings.num_rows
    assert sentences[-1] == f"The plan holds {count} of 90 scenes, that is {3 * count} of 270 clip pairs."
    assert f"| Mini03 | {held['crossing']} of {held['crossing']} |" in table(preset, planned.cells)
    with pytest.raises(PlanningError, match=r"Mini03, crossing: 45 scenes wanted.*set short_towns to 'less'"):
        plan_data_set(preset.replace(short_towns="refuse"), maps_of(preset))


def test_the_papers_preset_names_every_town_once():
    preset = PlanPreset.load("paper")
    assert not [town for town in preset.towns if town.endswith("_Opt")]  # the roads of the towns they are named after
    assert len(preset.windows) * sum(wanted_by_type(preset).values()) >= 55_000


def test_what_makes_no_sense_is_refused():
    with pytest.raises(PlanningError, match="recordings_per_junction"):
        PlanPreset.load("demo").replace(recordings_per_junction=5)
    with pytest.raises(PlanningError, match="hidden_facts"):
        PlanPreset.load("shared-world-bench").replace(shares="capacity")
