"""A refused call answers its caller with a sentence and changes nothing; a call without effect is refused."""

from __future__ import annotations

import math
import struct

import pytest

from infra.minicarla.protocol import messages, rpc, streams, subscribers
from infra.minicarla.world import commands, episode
from tests.infra.minicarla.conftest import SETTINGS
from tests.infra.minicarla.served import ROOT, Rpc, at, description, refusal

STILL = [0.0, 0.0, 0.0]
BRAKE = [0.0, 0.0, 1.0, True, False, False, 0]


@pytest.fixture
def car(honest):
    actor = honest.call("spawn_actor", description("vehicle.audi.tt"), at(500.0))[0]
    yield actor
    honest.call("destroy_actor", actor)


def batch(rpc: Rpc, *commands: list) -> list[str | None]:
    """The refusal of each command, None for one that was done."""
    answers = rpc.result("apply_batch", [[command] for command in commands], False)
    return [answer[0][1][0] if answer[0][0] == 0 else None for answer in answers]


def actors(rpc: Rpc) -> list[int]:
    return [actor[0] for actor in rpc.call("get_actors_by_id", list(range(10_000)))]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e300, 1e8, "0", None, True, []])
def test_no_pose_or_velocity_that_later_ticks_could_not_bear(honest, car, bad):
    for name, value in (
        ("set_actor_transform", [[0.0, bad, 0.0], STILL]),
        ("set_actor_transform", [STILL, [0.0, bad, 0.0]]),
        ("set_actor_location", [bad, 0.0, 0.0]),
        ("set_actor_target_velocity", [0.0, 0.0, bad]),
        ("set_actor_target_angular_velocity", [0.0, bad, 0.0]),
    ):
        with pytest.raises(RuntimeError, match=r"is .*: give a finite number"):
            honest.call(name, car, value)
    transform, velocity = [STILL, [bad, 0.0, 0.0]], [bad, 0.0, 0.0]
    assert all(batch(honest, [6, [car, transform]], [8, [car, velocity]], [9, [car, velocity]], [19, [car, velocity]]))
    honest.call("tick_cue")


def test_an_actor_that_drives_off_stops_where_maps_end(honest, car):
    honest.call("set_actor_location", car, [9_999_000.0, 0.0, 0.0])
    honest.call("set_actor_target_velocity", car, [10_000.0, 0.0, 0.0])
    for _ in range(5):
        honest.call("tick_cue")
    honest.call("set_actor_location", car, [500.0, 0.0, 0.0])


@pytest.mark.parametrize("name", ["vehicle.audi.tt", "static.prop.wall", "sensor.camera.rgb"])
@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("color", "300,0,0"), ("color", "1,2"), ("color", "nan,1,2"), ("color", ""), ("role_name", "\x00"),
        ("number_of_wheels", "5"), ("sticky_control", "perhaps"), ("image_size_x", "0"), ("image_size_x", "1e3"),
        ("image_size_y", "99999"), ("fov", "nan"), ("fov", "0"), ("sensor_tick", "-1"), ("sensor_tick", "inf"),
        ("exposure_mode", "none"), ("gamma", "1e300"), ("no_such", "1"),
    ],
)  # fmt: skip
def test_a_refused_spawn_leaves_no_actor_behind(honest, name, attribute, value):
    before = actors(honest)
    with pytest.raises(RuntimeError, match=attribute):
        honest.call("spawn_actor", description(name, **{attribute: value}), at(700.0))
    assert actors(honest) == before


def test_a_batch_does_each_command_wholly_or_not_at_all(honest, car):
    before = actors(honest)
    tt, there = description("vehicle.audi.tt"), at(600.0)
    fine = [0, [tt, there, [False], 208, "", [[[14, [0, False]]], [[6, [0, at(650.0)]]]]]]
    half = [0, [tt, there, [False], 0, "", [[[14, [0, False]]], [[16, [0, True]]]]]]
    gone = [0, [tt, there, [False], 0, "", [[[1, [0]]], [[14, [0, False]]]]]]
    nested = [0, [tt, there, [False], 0, "", [[[0, [tt, there, [False], 0, "", []]]]]]]
    refused = batch(honest, fine, half, gone, nested, [1, [99_999]], [6, [car, at(501.0)]], [99, []], [6, []], [6])
    assert [sentence is None for sentence in refused] == [True, False, False, False, False, True, False, False, False]
    assert "a command chained to it failed: there is no autopilot" in refused[1]
    (new,) = set(actors(honest)) - set(before)
    honest.call("destroy_actor", new)
    assert batch(honest, []) == ["command variant is []: give a list of which, payload"]
    assert batch(honest, [1, [car, 1]], [6, [car]], [6, [car, at(), 1]], [14, [car, True, True]]).count(None) == 0


def test_a_malformed_batch_is_answered(honest):
    for given in (None, 5, "x", [[]] * 20_000):
        assert refusal(honest.result("apply_batch", given, False))
    for command in (None, 5, [], [[]], [None], [[0, None]], [[0, []]], [[math.nan, []]], [["0", []]]):
        assert refusal(honest.result("apply_batch", [command], False))


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("set_actor_autopilot", True, "autopilot"),
        ("apply_control_to_vehicle", [0.5, 0.0, 0.0, False, False, False, 1], "throttle"),
        ("apply_control_to_vehicle", [0.0, 0.5, 0.0, False, False, False, 1], "steer"),
        ("enable_actor_constant_velocity", [1.0, 0.0, 0.0], "constant velocity"),
        ("set_actor_target_angular_velocity", [0.0, 0.0, 10.0], "turn"),
        ("set_actor_enable_gravity", True, "gravity"),
        ("set_actor_collisions", False, "collisions"),
        ("add_actor_impulse", [1.0, 0.0, 0.0], "impulses"),
        ("add_actor_force", [1.0, 0.0, 0.0], "forces"),
        ("add_actor_angular_impulse", [1.0, 0.0, 0.0], "impulses"),
        ("add_actor_torque", [1.0, 0.0, 0.0], "torques"),
        ("apply_physics_control", [], "physics"),
        ("set_vehicle_light_state", [3], "lamps"),
        ("apply_ackermann_control_to_vehicle", [], "vehicle physics"),
        ("apply_control_to_walker", [], "walkers"),
        ("set_traffic_light_state", 2, "traffic lights"),
        ("start_recorder", False, "recorder"),
        ("no_such_function", None, "no function 'no_such_function'"),
    ],
)
def test_what_would_have_no_effect_is_refused_with_what_to_do(honest, car, name, value, word):
    with pytest.raises(RuntimeError, match=word) as error:
        honest.call(name, car, value)
    assert ":" in str(error.value) or "no function" in str(error.value)


def test_what_holds_anyway_is_granted(honest, car):
    for name, *arguments in (
        ("set_actor_autopilot", car, False),
        ("apply_control_to_vehicle", car, BRAKE),
        ("disable_actor_constant_velocity", car),
        ("set_actor_enable_gravity", car, False),
        ("set_actor_collisions", car, True),
        ("set_actor_target_angular_velocity", car, STILL),
        ("set_vehicle_light_state", car, [0]),
        ("load_map_layer", 65535),
        ("unload_map_layer", 0),
        ("freeze_all_traffic_lights", True),
        ("reset_all_traffic_lights",),
        ("update_lights_state", "me", [], False),
    ):
        honest.call(name, *arguments)
    assert honest.call("get_environment_objects", 12) == []
    assert honest.call("query_lights_state", "me") == []


def test_batch_commands_without_effect_say_so(honest, car):
    control = [0.5, 0.0, 0.0, False, False, False, 1]
    vector = [1.0, 0.0, 0.0]
    refused = batch(
        honest, [2, [car, control]], [3, [car, []]], [4, [car, []]], [5, [car, []]], [7, [car, at(), 1.0]],
        [10, [car, vector]], [11, [car, vector]], [12, [car, vector]], [13, [car, vector]], [15, [car, True]],
        [16, [car, True]], [17, [car, True]], [18, [car, 1]], [20, [car]], [21, [car, 0]],
    )  # fmt: skip
    assert all(refused)
    assert batch(honest, [2, [car, BRAKE]], [14, [car, False]], [15, [car, False]], [16, [car, False]]) == [None] * 4


def test_a_brake_does_not_stop_a_car_that_coasts_and_does_not_say_so(honest, car):
    honest.call("set_actor_target_velocity", car, [1.0, 0.0, 0.0])
    with pytest.raises(RuntimeError, match="set_target_velocity"):
        honest.call("apply_control_to_vehicle", car, BRAKE)


def test_settings_and_weather_are_refused_whole(honest):
    weather = honest.call("get_weather_parameters")
    for bad in ([*weather[:13], math.nan], weather[:13], [*weather, 1.0], [1e9] * 14, None):
        with pytest.raises(RuntimeError, match="weather"):
            honest.call("set_weather_parameters", bad)
    assert honest.call("get_weather_parameters") == weather
    for at_index, bad in ((0, 1), (2, [True, math.nan]), (2, [True, 0.0]), (2, 0.05), (2, []), (4, math.inf), (5, 0)):
        values = [*SETTINGS]
        values[at_index] = bad
        with pytest.raises(RuntimeError, match="settings"):
            honest.call("set_episode_settings", values)
    assert honest.call("get_episode_settings") == SETTINGS


def test_text_that_is_not_unicode_reaches_no_other_client(honest):
    with pytest.raises(RuntimeError, match="printable UTF-8"):
        honest.call("spawn_actor", description("vehicle.audi.tt", role_name="\udcff\udc80"), at(800.0))


def test_the_answer_about_many_ids_holds_each_actor_once(honest, car):
    assert len(honest.call("get_actors_by_id", [car] * 10_000)) == 1


def test_images_go_on_after_refused_settings_and_a_new_episode(synchronous, honest):
    for step in (math.nan, math.inf, -1.0):
        with pytest.raises(RuntimeError, match="fixed_delta_seconds"):
            honest.call("set_episode_settings", [True, False, [True, step], *SETTINGS[3:]])
    honest.call("load_new_episode", "Mini01", True, 65535)
    honest.call("set_episode_settings", SETTINGS)
    token = honest.call("spawn_actor", description("sensor.camera.rgb", image_size_x="8", image_size_y="8"), at())[5]
    with Rpc(synchronous.port + 1) as reader:
        (stream,) = struct.unpack("<I", token[:4])
        honest.call("get_sensor_token", stream)
        reader.send(struct.pack("<I", stream))
        frame = honest.call("tick_cue")
        assert struct.unpack("<IQQ", reader.socket.recv(20))[2] == frame


def test_the_documents_figures_are_the_servers():
    text = (ROOT / "docs" / "EMBEDDED_SERVER.md").read_text()
    assert f"{messages.MAX_BYTES >> 20} MiB, {messages.MAX_VALUES:,} values, {messages.MAX_DEPTH} levels" in text
    assert f"finished within {rpc.MESSAGE_S:g} s" in text
    assert f"| RPC connections | {rpc.MAX_CONNECTIONS};" in text
    assert f"| stream connections | {streams.MAX_SUBSCRIBERS};" in text
    assert f"closed when {subscribers.BACKLOG_BYTES >> 20} MiB (and {subscribers.BACKLOG_MESSAGES} messages)" in text
    assert f"reads nothing for {subscribers.STALLED_S:g} s" in text
    assert f"| actors; attached in a chain | {episode.MAX_ACTORS:,}; {episode.MAX_DEPTH} |" in text
    assert f"| a batch; commands chained | {commands.MAX_COMMANDS:,}; {commands.MAX_CHAINED} |" in text
