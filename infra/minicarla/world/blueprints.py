"""The blueprint library: vehicles, walls and sensors, with CARLA's names and attributes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from infra.minicarla.protocol.arguments import abbreviated
from infra.minicarla.protocol.errors import RpcError
from infra.minicarla.protocol.wire import SensorType
from infra.minicarla.scenery import CameraKind, Label, Shape

WHOLE_NUMBER = re.compile(r" ?[+-]?[0-9]{1,10} ?")
DECIMAL_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


class AttributeType(IntEnum):
    BOOL = 1
    INT = 2
    FLOAT = 3
    STRING = 4
    COLOR = 5


@dataclass(frozen=True)
class BodyModel:
    """The look of an actor's body; half sizes in metres."""

    shape: Shape
    half: tuple[float, float, float]
    label: Label
    color: str
    wheels: int = 4
    base_type: str = "car"


COLORS = ("178,14,20", "15,15,17", "225,225,222", "24,60,140", "20,110,60", "235,190,30", "128,130,134")

BODIES = {
    "vehicle.audi.tt": BodyModel(Shape.COUPE, (2.09, 0.99, 0.69), Label.CAR, COLORS[0]),
    "vehicle.mercedes.sprinter": BodyModel(Shape.VAN, (2.96, 0.99, 1.28), Label.CAR, COLORS[2], base_type="van"),
    "vehicle.carlamotors.firetruck": BodyModel(
        Shape.TRUCK, (4.24, 1.28, 1.84), Label.TRUCK, COLORS[0], base_type="truck"
    ),
    "static.prop.wall": BodyModel(Shape.BOX, (5.0, 0.15, 1.6), Label.WALLS, "168,160,148", 0, ""),
    "static.prop.wall_long": BodyModel(Shape.BOX, (12.0, 0.15, 1.8), Label.WALLS, "150,150,152", 0, ""),
    "static.prop.container": BodyModel(Shape.BOX, (3.03, 1.22, 1.3), Label.STATIC, "44,92,120", 0, ""),
}

CAMERAS = {
    "sensor.camera.rgb": (SensorType.RGB, CameraKind.RGB),
    "sensor.camera.depth": (SensorType.DEPTH, CameraKind.DEPTH),
    "sensor.camera.semantic_segmentation": (SensorType.SEMANTIC, CameraKind.SEMANTIC),
    "sensor.camera.instance_segmentation": (SensorType.INSTANCE, CameraKind.INSTANCE),
}
COLLISION = "sensor.other.collision"

LENS = {
    "lens_circle_falloff": "5.0", "lens_circle_multiplier": "0.0", "lens_k": "-1.0", "lens_kcube": "0.0",
    "lens_x_size": "0.08", "lens_y_size": "0.08",
}  # fmt: skip
RGB_ONLY = {
    "bloom_intensity": "0.675", "fstop": "1.4", "iso": "100.0", "gamma": "2.2", "lens_flare_intensity": "0.1",
    "shutter_speed": "200.0", "min_fstop": "1.2", "exposure_compensation": "0.0", "exposure_min_bright": "10.0",
    "exposure_max_bright": "12.0", "exposure_speed_up": "3.0", "exposure_speed_down": "1.0",
    "calibration_constant": "16.0",
    "focal_distance": "1000.0", "blur_amount": "1.0", "blur_radius": "0.0", "motion_blur_intensity": "0.45",
    "motion_blur_max_distortion": "0.35", "motion_blur_min_object_screen_size": "0.1", "slope": "0.88", "toe": "0.55",
    "shoulder": "0.26", "black_clip": "0.0", "white_clip": "0.04", "temp": "6500.0", "tint": "0.0",
    "chromatic_aberration_intensity": "0.0", "chromatic_aberration_offset": "0.0",
}  # fmt: skip

MAX_IMAGE_SIDE = 4096
RANGES = {"image_size_x": (1, MAX_IMAGE_SIDE), "image_size_y": (1, MAX_IMAGE_SIDE), "fov": (1, 178.9)}
"""Smallest and largest value of the attributes that have bounds of their own."""
MAX_NUMBER = 1e9

Attribute = list
"""[id, type, default, recommended values, is modifiable, restricted to recommended]"""


def attribute(
    name: str,
    kind: AttributeType,
    value: str,
    recommended: tuple[str, ...] = (),
    modifiable: bool = True,
    restricted: bool = False,
) -> Attribute:
    return [name, int(kind), value, list(recommended), modifiable, restricted]


def check_attribute(blueprint: str, definition: Attribute, value: str) -> None:
    """Raise RpcError unless an attribute may have this value: of its type, in its range, among its choices."""
    name, kind, default, recommended, modifiable, restricted = definition
    advice = ""
    if not value.isprintable():
        advice = "give printable UTF-8 text"
    elif not modifiable and value != default:
        advice = f"it cannot be changed from {default!r}"
    elif restricted and value not in recommended:
        advice = f"give one of {', '.join(recommended)}"
    elif kind == AttributeType.BOOL and value.lower() not in ("true", "false", "1", "0"):
        advice = "give true or false"
    elif kind in (AttributeType.INT, AttributeType.FLOAT):
        low, high = RANGES.get(name, (0 if name == "sensor_tick" else -MAX_NUMBER, MAX_NUMBER))
        if not is_number(value, whole=kind == AttributeType.INT) or not low <= float(value) <= high:
            advice = f"give a {'whole ' if kind == AttributeType.INT else ''}number from {low:g} to {high:g}"
    elif kind == AttributeType.COLOR:
        parts = value.split(",")
        if len(parts) != 3 or not all(is_number(part, whole=True) and 0 <= int(part) <= 255 for part in parts):
            advice = "give red,green,blue from 0 to 255"
    if advice:
        raise RpcError(f"attribute {name} of {blueprint} is {abbreviated(value)}: {advice}")


def is_number(value: str, *, whole: bool) -> bool:
    """Tell whether a text is a decimal number in ASCII, of at most 32 characters."""
    return len(value) <= 32 and re.fullmatch(WHOLE_NUMBER if whole else DECIMAL_NUMBER, value) is not None


def body_attributes(name: str, body: BodyModel) -> list[Attribute]:
    attributes = [
        attribute("role_name", AttributeType.STRING, "prop" if body.wheels == 0 else "autopilot"),
        attribute("color", AttributeType.COLOR, body.color, COLORS),
        attribute("object_type", AttributeType.STRING, "", (), False),
    ]
    if body.wheels:
        attributes += [
            attribute("number_of_wheels", AttributeType.INT, str(body.wheels), (), False),
            attribute("base_type", AttributeType.STRING, body.base_type, (), False),
            attribute("generation", AttributeType.INT, "1", (), False),
            attribute("special_type", AttributeType.STRING, "", (), False),
            attribute("has_lights", AttributeType.BOOL, "false", (), False),
            attribute("sticky_control", AttributeType.BOOL, "true"),
        ]
    else:
        attributes.append(attribute("size", AttributeType.STRING, "large", (), False))
    return attributes


def camera_attributes(name: str) -> list[Attribute]:
    attributes = [
        attribute("role_name", AttributeType.STRING, "front"),
        attribute("image_size_x", AttributeType.INT, "800"),
        attribute("image_size_y", AttributeType.INT, "600"),
        attribute("fov", AttributeType.FLOAT, "90.0"),
        attribute("sensor_tick", AttributeType.FLOAT, "0.0"),
    ]
    numbers = LENS | (RGB_ONLY if name == "sensor.camera.rgb" else {})
    attributes += [attribute(key, AttributeType.FLOAT, value) for key, value in numbers.items()]
    if name == "sensor.camera.rgb":
        attributes += [
            attribute("blade_count", AttributeType.INT, "5"),
            attribute("exposure_mode", AttributeType.STRING, "histogram", ("manual", "histogram"), restricted=True),
            attribute("enable_postprocess_effects", AttributeType.BOOL, "true"),
        ]
    return attributes


def blueprint_library() -> dict[str, list]:
    """Return the definitions by id, each [uid, id, tags, attributes] as on the wire."""
    entries = [(name, body_attributes(name, body)) for name, body in BODIES.items()]
    entries += [(name, camera_attributes(name)) for name in CAMERAS]
    entries.append((COLLISION, [attribute("role_name", AttributeType.STRING, "front")]))
    return {
        name: [uid, name, name.replace(".", ","), attributes] for uid, (name, attributes) in enumerate(entries, start=1)
    }


def fill_attributes(definition: list, given: Iterable[list]) -> dict[str, list]:
    """Return a new actor's attributes, name -> [name, type, value], from its blueprint and the client's changes.

    RpcError for an attribute that the blueprint does not have, or a value that it may not have.
    """
    _, blueprint, _, declared = definition
    by_name = {attribute[0]: attribute for attribute in declared}
    attributes = {name: attribute[:3] for name, attribute in by_name.items()}
    for name, _, value in given:
        if name not in by_name:
            raise RpcError(f"{blueprint} has no attribute {abbreviated(name)}: see its blueprint")
        check_attribute(blueprint, by_name[name], value)
        attributes[name] = [name, by_name[name][1], value]
    return attributes
