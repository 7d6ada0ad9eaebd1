"""The unmodified carla client against the embedded server, with a renderer that draws the camera's pose."""

from __future__ import annotations

import queue
import signal
import socket
import subprocess
import sys
import time

import carla
import numpy as np
import pytest

from infra.minicarla import towns
from tests.infra.minicarla.served import Served, free_port


@pytest.fixture(scope="module")
def server():
    served = Served()
    yield served
    served.stop()


@pytest.fixture
def client(server):
    client = carla.Client("127.0.0.1", server.port, worker_threads=16)
    client.set_timeout(20.0)
    return client


@pytest.fixture
def world(client):
    """A fresh synchronous episode. Its sensors are stopped at the end: a client that exits with one aborts."""
    world = client.load_world("Mini01")
    settings = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, 1 / 30
    world.apply_settings(settings)
    yield world
    for sensor in world.get_actors().filter("sensor.*"):
        if sensor.is_listening():
            sensor.stop()
    client.load_world("Mini01")


def car(world, x=0.0, y=0.0, blueprint="vehicle.audi.tt"):
    transform = carla.Transform(carla.Location(x, y, 0.0))
    return world.spawn_actor(world.get_blueprint_library().find(blueprint), transform)


def camera(world, parent, transform=None, kind="rgb", width=32, height=24):
    blueprint = world.get_blueprint_library().find(f"sensor.camera.{kind}")
    for name, value in (("image_size_x", width), ("image_size_y", height)):
        blueprint.set_attribute(name, str(value))
    sensor = world.spawn_actor(blueprint, transform or carla.Transform(), attach_to=parent)
    images: queue.Queue = queue.Queue()

    def keep(image):
        pixels = np.frombuffer(image.raw_data, np.uint8).reshape(image.height, image.width, 4).copy()
        images.put((image.frame, image.transform, pixels))

    sensor.listen(keep)
    return sensor, images


def test_versions_and_maps(client):
    assert client.get_server_version() == client.get_client_version() == "0.9.16"
    assert [f"/Game/Carla/Maps/Mini{n:02d}" for n in range(1, 13)] == client.get_available_maps()


def test_load_world_gives_the_town_its_map_and_a_lit_default_weather(client):
    world = client.load_world("/Game/Carla/Maps/Mini05")
    assert world.get_map().name == "Carla/Maps/Mini05"
    assert world.get_map().to_opendrive() == towns.load_town("Mini05").opendrive
    assert len(world.get_map().get_spawn_points()) >= 10
    assert world.get_weather().sun_altitude_angle > 30
    assert not world.get_settings().synchronous_mode
    assert world.wait_for_tick(5.0).frame > 0


def test_unknown_town_is_one_clear_sentence(client):
    with pytest.raises(RuntimeError, match=r"no town 'Atlantis'.*Mini01"):
        client.load_world("Atlantis")
    assert client.get_world().get_map().name


def test_generate_opendrive_world(client):
    world = client.generate_opendrive_world(towns.load_town("Mini03").opendrive)
    assert world.get_map().name == "Carla/Maps/OpenDriveMap"
    assert len(world.get_map().get_topology()) > 10


def test_images_carry_the_frame_and_the_pose_of_their_tick(world):
    vehicle = car(world)
    mount = carla.Transform(carla.Location(1.0, 0.0, 1.7), carla.Rotation(yaw=90))
    cameras = [camera(world, vehicle, mount, kind) for kind in ("rgb", "depth", "semantic_segmentation")]
    for step in range(10):
        target = carla.Transform(carla.Location(10.0 + step, 3.0, 0.0), carla.Rotation(yaw=5.0 * step))
        vehicle.set_transform(target)
        frame = world.tick()
        assert world.get_snapshot().frame == frame
        assert vehicle.get_transform().location.distance(target.location) < 1e-4
        for _, images in cameras:
            stamp, transform, pixels = images.get(timeout=5)
            assert stamp == frame
            assert transform.location.distance(target.transform(carla.Location(1.0, 0.0, 1.7))) < 1e-3
            assert abs(transform.rotation.yaw - (90 + 5 * step)) < 1e-3
            assert pixels[0, 0].tolist() == [round(transform.location.x), 90 + 5 * step, 1, 255]
    assert all(images.empty() for _, images in cameras)


def test_weather_comes_back_as_set(world):
    world.set_weather(carla.WeatherParameters.HardRainNoon)
    assert world.get_weather() == carla.WeatherParameters.HardRainNoon


def test_blueprints_have_what_recording_sets(world):
    library = world.get_blueprint_library()
    for name in ("vehicle.audi.tt", "vehicle.mercedes.sprinter", "vehicle.carlamotors.firetruck"):
        blueprint = library.find(name)
        assert blueprint.has_attribute("color")
        assert blueprint.get_attribute("number_of_wheels").as_int() == 4
    wall = world.spawn_actor(library.find("static.prop.wall"), carla.Transform(carla.Location(x=80)))
    world.tick()
    assert 2 * wall.bounding_box.extent.z > 1.75 + 1
    red = library.find("vehicle.audi.tt").get_attribute("color").as_color()
    assert red.r > 1.6 * red.g
    exposure = library.find("sensor.camera.rgb").get_attribute("exposure_mode")
    assert "manual" in exposure.recommended_values


def test_spawning_into_another_car_is_refused(world):
    car(world)
    with pytest.raises(RuntimeError, match="collision at spawn"):
        car(world, x=1.0)
    transform = carla.Transform(carla.Location(x=1.0))
    assert world.try_spawn_actor(world.get_blueprint_library().find("vehicle.audi.tt"), transform) is None
    assert car(world, y=2.2).id


def test_bad_camera_size_is_refused(world):
    with pytest.raises(RuntimeError, match=r"image_size_x .* '99999'.* from 1 to 4096"):
        camera(world, car(world), width=99999)


def test_batch_with_chained_commands_and_errors(client, world):
    vehicle = car(world)
    library = world.get_blueprint_library()
    spawn, place, future = carla.command.SpawnActor, carla.command.ApplyTransform, carla.command.FutureActor
    at = [carla.Transform(carla.Location(x=x)) for x in (77, 200, 77.5, 250, 300)]
    blueprint = library.find("vehicle.audi.tt")
    results = client.apply_batch_sync(
        [
            place(vehicle, at[0]),
            spawn(blueprint, at[1]),
            spawn(blueprint, at[2]),
            carla.command.DestroyActor(99999),
            spawn(blueprint, at[3]).then(carla.command.SetSimulatePhysics(future, False)).then(place(future, at[4])),
        ]
    )
    world.tick()
    assert [bool(result.error) for result in results] == [False, False, True, True, False]
    assert abs(vehicle.get_location().x - 77) < 1e-4
    assert abs(world.get_actor(results[4].actor_id).get_location().x - 300) < 1e-4


def test_collision_sensor_reports_the_other_car(world):
    first, second = car(world), car(world, x=20)
    sensor = world.spawn_actor(world.get_blueprint_library().find("sensor.other.collision"), carla.Transform(), first)
    events: queue.Queue = queue.Queue()
    sensor.listen(lambda event: events.put((event.frame, event.other_actor.id)))
    world.tick()
    first.set_location(carla.Location(x=16.2))
    frame = world.tick()
    assert events.get(timeout=5) == (frame, second.id)
    first.set_location(carla.Location(x=15.0))
    world.tick()
    assert events.empty()


def test_destroying_a_car_takes_its_sensors_along(world):
    vehicle = car(world)
    sensor, _ = camera(world, vehicle)
    world.tick()
    sensor.stop()
    vehicle.destroy()
    world.tick()
    assert [actor.type_id for actor in world.get_actors()] == ["spectator"]


def test_target_velocity_moves_a_car_with_physics_only(world):
    free, held = car(world), car(world, y=10)
    held.set_simulate_physics(False)
    for vehicle in (free, held):
        vehicle.set_target_velocity(carla.Vector3D(x=6))
    for _ in range(30):
        world.tick()
    assert abs(free.get_location().x - 6) < 1e-3
    assert held.get_location().x == 0
    assert abs(free.get_velocity().x - 6) < 1e-6


def test_two_clients_see_one_world_and_one_camera(server, world):
    vehicle = car(world)
    sensor, images = camera(world, vehicle)
    world.tick()
    other = carla.Client("127.0.0.1", server.port, worker_threads=8)
    other.set_timeout(20.0)
    other_world = other.get_world()
    world.tick()
    theirs: queue.Queue = queue.Queue()
    shared = other_world.get_actor(sensor.id)
    shared.listen(lambda image: theirs.put(image.frame))
    frame = world.tick()
    assert theirs.get(timeout=5) == frame
    shared.stop()
    seen = set()
    while not images.empty():
        seen.add(images.get()[0])
    assert frame in seen or images.get(timeout=5)[0] == frame


def test_garbage_and_silent_connections_leave_the_server_alive(server, client):
    for port in (server.port, server.port + 1):
        for data in (b"", b"\x01", bytes(range(256)) * 40):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(data)
    assert client.get_server_version() == "0.9.16"


KILLED_CLIENT = """
import carla, sys
client = carla.Client("127.0.0.1", int(sys.argv[1]), worker_threads=8); client.set_timeout(20)
world = client.load_world("Mini02")
settings = world.get_settings(); settings.synchronous_mode = True; settings.fixed_delta_seconds = 0.1
world.apply_settings(settings)
blueprint = world.get_blueprint_library().find("sensor.camera.rgb")
camera = world.spawn_actor(blueprint, carla.Transform()); camera.listen(lambda image: None)
print("ticking", flush=True)
while True: world.tick()
"""


def test_a_killed_client_does_not_harm_the_next(server, client):
    before = server.connections()
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_CLIENT, str(server.port)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline().strip() == "ticking"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    world = client.load_world("Mini01")
    assert len(world.get_actors()) == 1
    deadline = time.monotonic() + 10
    while server.connections() > before + 2:  # this client's own two
        assert time.monotonic() < deadline, "the killed client's connections were not dropped"
        world.wait_for_tick(5.0)


def launch(*arguments):
    command = [sys.executable, "-m", "infra.minicarla", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_process_ends_on_sigterm_and_frees_its_port():
    port = free_port()
    process = launch(f"-carla-rpc-port={port}", "-RenderOffScreen", "-nosound", "-quality-level=Epic")
    assert "127.0.0.1" in process.stdout.readline()
    taken = launch(f"-carla-rpc-port={port}")
    assert taken.wait(30) == 2
    assert f"Port {port}" in taken.stderr.read()
    process.terminate()
    assert process.wait(10) == 0


@pytest.mark.parametrize("arguments", [("-quality=1",), ("--town", "Nowhere")])
def test_bad_options_are_refused(arguments):
    process = launch(f"-carla-rpc-port={free_port()}", *arguments)
    assert process.wait(30) == 2
    assert arguments[-1] in process.stderr.read()


NOT_THERE = {
    "a recorder": (lambda client, world, car: client.start_recorder("x"), "start_recorder: .* has no recorder"),
    "ray casts": (lambda client, world, car: world.cast_ray(carla.Location(), carla.Location(x=1)), "no ray casts"),
    "a projection": (lambda client, world, car: world.ground_projection(carla.Location(), 1.0), "no ray casts"),
    "names": (lambda client, world, car: world.get_names_of_all_objects(), "get_names_of_all_objects: "),
    "telemetry": (lambda client, world, car: car.get_telemetry_data(), "no vehicle physics"),
    "wheels": (lambda client, world, car: car.get_wheel_steer_angle(carla.VehicleWheelLocation.FL_Wheel), "physics"),
    "bones": (lambda client, world, car: car.get_bone_names(), "no skeletons and components"),
    "boxes": (lambda client, world, car: world.get_level_bbs(carla.CityObjectLabel.Buildings), "label 3 .* no list"),
    "collisions": (lambda client, world, car: car.set_collisions(False), "collisions .* always on"),
    "layers": (lambda client, world, car: world.unload_map_layer(carla.MapLayer.Buildings), "have no layers"),
    "textures": (
        lambda client, world, car: world.apply_color_texture_to_object(
            "x", carla.MaterialParameter.Diffuse, carla.TextureColor(1, 1)
        ),
        "no exchange of textures",
    ),
    "a town": (lambda client, world, car: client.load_world("\x07"), "name is '.*': give printable UTF-8"),
    "a settings' step": (lambda client, world, car: step(world, 1e9), "fixed_delta_seconds is 1000000000.0"),
    "a place": (
        lambda client, world, car: world.spawn_actor(
            world.get_blueprint_library().find("vehicle.audi.tt"), carla.Transform(carla.Location(x=1e9))
        ),
        "transform location x is 1000000000.0",
    ),
}


def step(world, seconds):
    settings = world.get_settings()
    settings.fixed_delta_seconds = seconds
    world.apply_settings(settings)


@pytest.mark.parametrize("what", NOT_THERE)
def test_what_is_refused_reaches_the_client_as_a_sentence(client, world, what):
    """In CARLA's own form of an error; msgpack-rpc's own would be a bare `rpc_error` in Python."""
    call, sentence = NOT_THERE[what]
    with pytest.raises(RuntimeError, match=sentence):
        call(client, world, car(world))
    world.tick()


def test_a_refused_command_of_a_batch_reaches_the_client(client, world):
    vehicle = car(world)
    push, drive = carla.command.ApplyImpulse, carla.command.ApplyVehicleControl
    answers = client.apply_batch_sync(
        [push(vehicle, carla.Vector3D(x=1)), drive(vehicle, carla.VehicleControl(throttle=1.0)),
         drive(vehicle, carla.VehicleControl(brake=1.0))]
    )  # fmt: skip
    assert "no effect" in answers[0].error
    assert "throttle 1" in answers[1].error
    assert not answers[2].error
    world.tick()
    assert vehicle.get_control().brake == 1.0


def test_common_calls_at_the_start_of_a_program_work(client, world):
    vehicle = car(world)
    world.freeze_all_traffic_lights(True)
    world.reset_all_traffic_lights()
    world.load_map_layer(carla.MapLayer.Buildings)
    vehicle.set_collisions(True)
    vehicle.set_light_state(carla.VehicleLightState.NONE)
    assert world.get_traffic_light_from_opendrive_id("1") is None
    assert list(world.get_lightmanager().get_all_lights()) == []
    assert vehicle.get_physics_control().wheels
    assert world.get_spectator().get_transform() is not None
    world.get_spectator().set_transform(carla.Transform(carla.Location(z=50)))
    world.tick()
    assert world.get_spectator().get_transform().location.z == 50
