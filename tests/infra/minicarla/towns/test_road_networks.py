"""The twelve road networks: usable by the real client, a function of the name, and rich enough for the six types."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from random import Random

import pytest

from infra.minicarla.towns import (
    TownError,
    load_town,
    town_from_opendrive,
    town_names,
    validate_opendrive,
    validate_opendrives,
)
from infra.minicarla.towns.generators import LAYOUTS, STREET
from infra.minicarla.towns.layout import Layout
from infra.minicarla.towns.opendrive_writer import write_opendrive

SHARED = Path(__file__).resolve().parents[4].parent / "shared"
REAL_MAPS = ("Town01_2020", "Town03_2019", "Town07_2020", "Town10HD_2020")

# One process looks at all towns: sites for each trajectory type, found from carla.Map alone.
SITES = """
import json, math, sys
import carla

def yaw(w): return w.transform.rotation.yaw
def off(a, b): return abs((a - b + 180) % 360 - 180)
def xy(w): return w.transform.location.x, w.transform.location.y

def straight(w, metres, tolerance=4.0):
    start, walked = w, [w]
    while len(walked) * 2 < metres:
        after = [n for n in w.next(2.0) if off(yaw(n), yaw(start)) < tolerance]
        if not after: return []
        w = after[0]; walked.append(w)
    return walked

for text in json.load(sys.stdin):
    m = carla.Map("probe", text)
    ways = m.generate_waypoints(4.0)
    grid = {}
    for w in ways:
        grid.setdefault((round(xy(w)[0] / 20), round(xy(w)[1] / 20)), []).append(w)
    def oncoming(w):
        x, y = xy(w)
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                for o in grid.get((round(x / 20) + i, round(y / 20) + j), []):
                    if off(yaw(o), yaw(w)) > 170 and 2.5 < math.dist(xy(o), (x, y)) < 20: return True
        return False
    meeting = following = 0
    for w in ways:
        if w.is_junction: continue
        walked = straight(w, 90)
        if walked:
            meeting += all(oncoming(v) for v in walked[::5])
        following += bool(w.next(100.0))
    kinds = dict(crossing=0, turning=0, merging=0, diverging=0)
    arms_long = 0
    for j in {w.get_junction().id: w.get_junction() for w in ways if w.is_junction}.values():
        pairs = j.get_waypoints(carla.LaneType.Driving)
        turn = [(round((yaw(b) - yaw(a) + 180) % 360 - 180), a, b) for a, b in pairs]
        ahead = [(a, b) for t, a, b in turn if abs(t) < 35]
        crossing = [(p, q) for p in ahead for q in ahead if 60 < off(yaw(p[0]), yaw(q[0])) < 120
                    and all(a.previous(45.0) and b.next(45.0) for a, b in (p, q))
                    and not any(v.is_junction for a, b in (p, q) for v in (a.previous(44.0)[0], b.next(44.0)[0]))]
        kinds["crossing"] += bool(crossing)
        kinds["turning"] += any(off(yaw(a), yaw(c)) > 145 for t, a, b in turn if t < -50 for c, d in ahead)
        ends = [(round(xy(b)[0]), round(xy(b)[1])) for _, a, b in turn]
        kinds["merging"] += any(ends.count(e) > 1 for e in ends)
        starts = [(round(xy(a)[0]), round(xy(a)[1])) for _, a, b in turn]
        kinds["diverging"] += any(starts.count(e) > 1 for e in starts)
    print(json.dumps(dict(meeting=meeting, following=following, **kinds)), flush=True)
"""


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {name: load_town(name).opendrive for name in town_names()}


def test_town_names_are_the_twelve_minis() -> None:
    assert town_names() == [f"Mini{k:02d}" for k in range(1, 13)]


def test_real_client_reads_all_twelve(texts: dict[str, str]) -> None:
    reports = validate_opendrives(list(texts.values()))
    for name, report in zip(texts, reports, strict=True):
        assert report.junctions >= 5, name
        assert report.four_way_junctions >= 1, name
        assert report.lane_km > 2.5, name
        assert report.topology_edges >= 70, name
        assert report.lane_m_without_next <= 40, f"{name}: {report.lane_m_without_next} m of lanes lead nowhere"


def test_every_town_has_sites_for_all_six_types(texts: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SITES],
        input=json.dumps(list(texts.values())),
        capture_output=True,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(texts)
    for name, sites in zip(texts, found, strict=True):
        assert sites["meeting"] >= 4, (name, sites)
        assert sites["following"] >= 20, (name, sites)
        assert min(sites["crossing"], sites["turning"]) >= 1, (name, sites)
        assert min(sites["merging"], sites["diverging"]) >= 3, (name, sites)


def test_opendrive_is_a_pure_function_of_the_name(texts: dict[str, str]) -> None:
    code = (
        "import hashlib; from infra.minicarla.towns import load_town, town_names;"
        "print([hashlib.sha256(load_town(n).opendrive.encode()).hexdigest() for n in town_names()])"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1
    assert len(set(texts.values())) == 12


def test_no_two_towns_share_layout_and_ids_are_distinct(texts: dict[str, str]) -> None:
    shapes = set()
    for name, text in texts.items():
        root = ET.fromstring(text)
        roads = [int(r.get("id", "")) for r in root.iter("road")]
        junctions = [int(j.get("id", "")) for j in root.iter("junction")]
        assert len(set(roads)) == len(roads), name
        assert not set(roads) & set(junctions), name
        for road in root.iter("road"):
            if road.get("junction") != "-1":
                lanes = [lane for lane in road.iter("lane") if lane.get("type") == "driving"]
                assert [lane.get("id") for lane in lanes] == ["-1"], name
        shapes.add((len(roads), len(junctions), round(sum(float(r.get("length", "0")) for r in root.iter("road")))))
        reference = root.find("header/geoReference")
        assert reference is not None
        assert "+proj=tmerc" in (reference.text or "")
    assert len(shapes) == 12


def test_roads_join_without_gap_or_kink(texts: dict[str, str]) -> None:
    """A connecting road starts and ends on the lanes it joins, with their heading (read back by our own reader)."""
    from infra.minicarla.towns.road_network import driving, read_road_network

    for name, text in texts.items():
        lanes = driving(read_road_network(text))
        tips = []
        for s in lanes:
            for k, sign in ((0, -1.0), (-1, 1.0)):
                away = s.heading[k] + (0 if sign > 0 else math.pi)
                tips.append((s.junction >= 0, *s.centre[k], away))
        outer = [t for t in tips if not t[0]]
        for inside, x, y, away in tips:
            if not inside:
                continue
            gaps = [
                (math.hypot(x - u, y - v), abs(math.remainder(away - a - math.pi, 2 * math.pi))) for _, u, v, a in outer
            ]
            gap, kink = min(gaps)
            assert gap < 0.02, (name, x, y)
            assert kink < 0.01, (name, x, y)


def test_spawn_points_lie_on_driving_lanes() -> None:
    code = """
import carla, json
from infra.minicarla.towns import load_town, town_names
for n in town_names():
    t = load_town(n); m = carla.Map(n, t.opendrive)
    worst = 0
    for x, y, z, pitch, yaw, roll in t.spawn_points:
        w = m.get_waypoint(carla.Location(x, y, 0.0))
        far = w.transform.location.distance(carla.Location(x, y, 0.0))
        turn = abs((w.transform.rotation.yaw - yaw + 180) % 360 - 180)
        worst = max(worst, far + turn / 10)
    print(json.dumps([n, len(t.spawn_points), worst]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 12
    for name, count, worst in rows:
        assert count >= 10, name
        assert worst < 0.3, name


def test_unknown_town_is_named_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TownError, match="there is no town 'Mini99'; known are Mini01"):
        load_town("Mini99")
    with pytest.raises(TownError, match="Mini12"):
        load_town("/Game/Carla/Maps/Nowhere", tmp_path)


def test_maps_folder_adds_towns(tmp_path: Path, texts: dict[str, str]) -> None:
    (tmp_path / "Elsewhere.xodr").write_text(texts["Mini07"], encoding="utf-8")
    assert town_names(tmp_path)[-1] == "Elsewhere"
    town = load_town("/Game/Carla/Maps/Elsewhere", tmp_path)
    assert town.opendrive == texts["Mini07"]
    assert len(town.spawn_points) == len(load_town("Mini07").spawn_points)
    assert load_town("/Game/Carla/Maps/Mini07").opendrive == texts["Mini07"]


@pytest.mark.parametrize(
    "text", ["", "<OpenDRIVE/>", "no xml at all", "<OpenDRIVE><road id='1' length='5'/></OpenDRIVE>"]
)
def test_broken_text_is_refused_before_it_can_crash_a_client(text: str) -> None:
    with pytest.raises(TownError):
        town_from_opendrive("Broken", text)


def test_validation_survives_a_text_that_crashes_the_client(texts: dict[str, str]) -> None:
    root = ET.fromstring(texts["Mini02"])
    for plan in root.iter("planView"):
        plan.clear()
    with pytest.raises(TownError, match="text number 1 is not usable"):
        validate_opendrives([texts["Mini02"], ET.tostring(root, encoding="unicode")])


def test_heights_are_flattened_and_flat_text_is_kept(texts: dict[str, str]) -> None:
    record = '<elevation s="0.0" a="1.5" b="-2.0e-1" c="0" d="0"/>'
    flat = texts["Mini03"]
    hilly = flat.replace("<elevationProfile />", f"<elevationProfile>{record}</elevationProfile>", 1)
    assert hilly != flat
    town = town_from_opendrive("Hilly", hilly)
    assert record not in town.opendrive
    assert '<elevation s="0.0" a="0" b="0" c="0" d="0"/>' in town.opendrive
    assert town_from_opendrive("Flat", flat).opendrive == flat


@pytest.mark.parametrize("name", REAL_MAPS)
def test_real_carla_maps_become_towns(name: str) -> None:
    path = SHARED / "maps" / f"{name}.xodr"
    if not path.exists():
        pytest.skip(f"no {path}")
    town = load_town(name, path.parent)
    assert len(town.spawn_points) > 50
    assert validate_opendrive(town.opendrive).junctions > 5


def test_generators_answer_to_their_parameters() -> None:
    grid, parameters = LAYOUTS["Mini01"]
    one = write_opendrive("x", grid(Random(1), **parameters))
    assert one == write_opendrive("x", grid(Random(1), **parameters))
    assert one != write_opendrive("x", grid(Random(2), **parameters))


def test_streets_too_short_for_their_junctions_are_refused() -> None:
    layout = Layout()
    a, b = layout.node(0, 0), layout.node(20, 0)
    layout.street(a, b, STREET)
    for node, side in ((a, -1), (b, 1)):
        for dx, dy in ((side * 80, 0), (0, 80), (0, -80)):
            x, y = layout.nodes[node]
            layout.street(node, layout.node(x + dx, y + dy), STREET)
    with pytest.raises(TownError, match="place the junctions farther apart"):
        write_opendrive("tight", layout)


def test_two_streets_that_meet_are_one_street() -> None:
    layout = Layout()
    a, b, c = layout.node(0, 0), layout.node(80, 0), layout.node(80, 80)
    layout.street(a, b, STREET)
    layout.street(b, c, STREET)
    with pytest.raises(TownError, match="joins only two streets"):
        write_opendrive("corner", layout)
