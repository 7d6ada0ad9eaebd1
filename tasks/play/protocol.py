"""What a page, or a program, may say over the socket: JSON texts, described in docs/PLAY.md."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tasks.planning.rows import AGENTS

MAX_MESSAGE_BYTES = 4096
SHOWN_CHARACTERS = 60


class ProtocolError(ValueError):
    """A message that cannot be understood: why, in a sentence."""


class Said(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


SeatNumber = Annotated[int, Field(ge=0, lt=AGENTS)]
Share = Annotated[float, Field(ge=-1, le=1)]


class TakeSeat(Said):
    """Take a seat that is free."""

    type: Literal["take"]
    seat: SeatNumber


class LeaveSeat(Said):
    """Leave a seat: the car returns to its planned trajectory."""

    type: Literal["leave"]
    seat: SeatNumber


class Steer(Said):
    """What a driver wants from now on. `number` comes back with the first frame that was made under it."""

    type: Literal["drive"]
    seat: SeatNumber
    throttle: Share
    steering: Share
    number: Annotated[int, Field(ge=0, lt=2**53)]


class Choose(Said):
    """Begin a scene; the present one begins anew."""

    type: Literal["scene"]
    name: Annotated[str, Field(max_length=100)]


class Switch(Said):
    """Switch something on or off: pause, the recording, or the truth beside it."""

    type: Literal["pause", "record", "truth"]
    on: bool


class Seen(Said):
    """A frame was shown; without this only a few are sent."""

    type: Literal["seen"]


Message = TakeSeat | LeaveSeat | Steer | Choose | Switch | Seen
ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def parse_message(text: str | bytes) -> Message:
    """Return what was said. ProtocolError for anything that is no message."""
    if len(text) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"A message has at most {MAX_MESSAGE_BYTES} bytes, and this one {len(text)}.")
    try:
        return ADAPTER.validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "the message"
        what = f"{fault['input']!a}"[:SHOWN_CHARACTERS]
        raise ProtocolError(
            f"Not understood: {where} is {what} ({fault['msg']}); docs/PLAY.md has the messages."
        ) from None
