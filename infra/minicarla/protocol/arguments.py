"""Parsers of RPC arguments: each returns the checked value, or refuses it with one sentence.

An RPC declares its arguments by annotation, `def set_actor_location(self, actor: Id, location: Location)`; the server
checks them before the method runs. A parser takes a value from the wire and its name in messages, and raises RpcError.
"""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

from infra.minicarla.protocol.errors import RpcError

Parser = Callable[[Any, str], Any]

MAX_M = 1e7
"""Coordinates beyond this are outside any map."""
MAX_DEG = 1e6
MAX_M_S = 1e4
MAX_NAME = 256
MAX_OPENDRIVE = 1 << 24
MAX_LIST = 10_000

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlevel = 4


def abbreviated(value: Any) -> str:
    """Return a value as printable, short text for a message."""
    return ascii(_short.repr(value))[1:-1][:120] if not isinstance(value, str) else ascii(value[:60])


# -- parsers --------------------------------------------------------------------------------------------------------


def number(low: float, high: float) -> Parser:
    """A finite number from `low` to `high`; NaN and the infinities are outside any range."""

    def parse(value: Any, what: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise RpcError(f"{what} is {abbreviated(value)}: give a finite number from {low:g} to {high:g}")
        return float(value)

    return parse


def whole_number(low: int, high: int) -> Parser:
    """A whole number from `low` to `high`."""

    def parse(value: Any, what: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise RpcError(f"{what} is {abbreviated(value)}: give a whole number from {low} to {high}")
        return value

    return parse


def flag(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise RpcError(f"{what} is {abbreviated(value)}: give true or false")
    return value


def text(max_length: int = MAX_NAME, *, printable: bool = True) -> Parser:
    """A string with at most `most` characters."""

    def parse(value: Any, what: str) -> str:
        if not isinstance(value, str):
            raise RpcError(f"{what} is {abbreviated(value)}: give a string")
        if len(value) > max_length:
            raise RpcError(f"{what} has {len(value)} characters: give at most {max_length}")
        if printable and not value.isprintable():  # no more than a byte that was not UTF-8
            raise RpcError(f"{what} is {abbreviated(value)}: give printable UTF-8 text")
        return value

    return parse


def list_of(item: Parser, max_length: int = MAX_LIST) -> Parser:
    """A list of at most `most` items."""

    def parse(value: Any, what: str) -> list:
        if not isinstance(value, list):
            raise RpcError(f"{what} is {abbreviated(value)}: give a list")
        if len(value) > max_length:
            raise RpcError(f"{what} has {len(value)} items: give at most {max_length}")
        return [item(entry, f"item {index} of {what}") for index, entry in enumerate(value)]

    return parse


def struct_of(**parsers: Parser) -> Parser:
    """A struct: a list with exactly these members in this order."""

    def parse(value: Any, what: str) -> list:
        if not isinstance(value, list) or len(value) != len(parsers):
            raise RpcError(f"{what} is {abbreviated(value)}: give a list of {', '.join(parsers)}")
        return [parser(part, f"{what} {name}") for part, (name, parser) in zip(value, parsers.items(), strict=True)]

    return parse


def optional(item: Parser) -> Parser:
    """[false], returned as None, or [true, item]."""

    def parse(value: Any, what: str) -> Any:
        if isinstance(value, list) and len(value) == 1 and value[0] is False:
            return None
        if isinstance(value, list) and len(value) == 2 and value[0] is True:
            return item(value[1], what)
        raise RpcError(f"{what} is {abbreviated(value)}: give [false], or [true, value]")

    return parse


def anything(value: Any, what: str) -> Any:
    """A value that nothing reads."""
    return value


def vector(limit: float) -> Parser:
    """Three finite numbers within +-limit, returned as a tuple."""
    axis = number(-limit, limit)
    xyz = struct_of(x=axis, y=axis, z=axis)
    return lambda value, what: tuple(xyz(value, what))


_ANGLE = number(-MAX_DEG, MAX_DEG)
_TRANSFORM = struct_of(location=vector(MAX_M), rotation=struct_of(pitch=_ANGLE, yaw=_ANGLE, roll=_ANGLE))


def pose(value: Any, what: str) -> tuple[float, ...]:
    """A Transform: [[x, y, z], [pitch, yaw, roll]], returned as six numbers."""
    location, rotation = _TRANSFORM(value, what)
    return (*location, *rotation)


# -- the types that methods name in their signatures -----------------------------------------------------------------

Ignored = Annotated[Any, anything]
Flag = Annotated[bool, flag]
Name = Annotated[str, text()]
Id = Annotated[int, whole_number(0, 2**32 - 1)]
Ids = Annotated[list[int], list_of(whole_number(0, 2**32 - 1))]
Byte = Annotated[int, whole_number(0, 255)]
Port = Annotated[int, whole_number(0, 65535)]
Layers = Annotated[int, whole_number(0, 65535)]
Location = Annotated[tuple[float, float, float], vector(MAX_M)]
Velocity = Annotated[tuple[float, float, float], vector(MAX_M_S)]
"""Metres per second."""
AngularVelocity = Annotated[tuple[float, float, float], vector(MAX_DEG)]
"""Degrees per second."""
Transform = Annotated[tuple[float, float, float, float, float, float], pose]
OpenDrive = Annotated[str, text(MAX_OPENDRIVE, printable=False)]

_COUNT = number(0, 1e5)
OpenDriveParameters = Annotated[
    list,
    struct_of(
        vertex_distance=_COUNT,
        max_road_length=_COUNT,
        wall_height=_COUNT,
        additional_width=_COUNT,
        smooth_junctions=flag,
        enable_mesh_visibility=flag,
        enable_pedestrian_navigation=flag,
    ),
]
EpisodeSettings = Annotated[
    list,
    struct_of(
        synchronous_mode=flag,
        no_rendering_mode=flag,
        fixed_delta_seconds=optional(number(1e-3, 10.0)),
        substepping=flag,
        max_substep_delta_time=number(1e-6, 10.0),
        max_substeps=whole_number(1, 10_000),
        max_culling_distance=number(0, MAX_M),
        deterministic_ragdolls=flag,
        tile_stream_distance=number(0, MAX_M),
        actor_active_distance=number(0, MAX_M),
        spectator_as_ego=flag,
    ),
]
_PERCENT, _FACTOR = number(-1, 100), number(-1, 1e6)
WeatherParameters = Annotated[
    list,
    struct_of(
        cloudiness=_PERCENT,
        precipitation=_PERCENT,
        precipitation_deposits=_PERCENT,
        wind_intensity=_PERCENT,
        sun_azimuth_angle=number(-360, 720),
        sun_altitude_angle=number(-90, 90),
        fog_density=_PERCENT,
        fog_distance=_FACTOR,
        fog_falloff=_FACTOR,
        wetness=_PERCENT,
        scattering_intensity=_FACTOR,
        mie_scattering_scale=_FACTOR,
        rayleigh_scattering_scale=_FACTOR,
        dust_storm=_PERCENT,
    ),
]
"""CARLA's preset `Default` is -1 throughout."""
_SHARE = number(0, 1)
VehicleControl = Annotated[
    list,
    struct_of(
        throttle=_SHARE,
        steer=number(-1, 1),
        brake=_SHARE,
        hand_brake=flag,
        reverse=flag,
        manual_gear_shift=flag,
        gear=whole_number(-128, 127),
    ),
]
LightFlags = Annotated[int, whole_number(0, 2**32 - 1)]
LightState = Annotated[list, struct_of(flags=whole_number(0, 2**32 - 1))]
AttributeValues = list_of(struct_of(id=text(), type=whole_number(0, 255), value=text(printable=False)), 200)
ActorDescription = Annotated[list, struct_of(uid=whole_number(0, 2**32 - 1), id=text(), attributes=AttributeValues)]


def parser(declared: Any) -> Parser:
    """Return the parser of one of the types above."""
    return declared.__metadata__[0]


class Signature:
    """The declared arguments of one method. TypeError for a method with an argument that declares nothing."""

    def __init__(self, function: Callable) -> None:
        self.name = function.__name__
        hints = get_type_hints(function, include_extras=True)
        given = [argument for argument in inspect.signature(function).parameters.values() if argument.name != "self"]
        undeclared = [a.name for a in given if not hasattr(hints.get(a.name), "__metadata__")]
        if undeclared:
            raise TypeError(f"{self.name} does not declare what {undeclared[0]} may be: annotate it")
        self.parsers = [(argument.name, parser(hints[argument.name])) for argument in given]
        self.required = sum(argument.default is argument.empty for argument in given)

    def check(self, arguments: list) -> list:
        """Return the checked arguments; RpcError names the first that cannot be."""
        if not self.required <= len(arguments) <= len(self.parsers):
            names = ", ".join(name for name, _ in self.parsers) or "none"
            raise RpcError(f"{self.name} was called with {len(arguments)} arguments: give {names}")
        return [parse(value, name) for value, (name, parse) in zip(arguments, self.parsers, strict=False)]
