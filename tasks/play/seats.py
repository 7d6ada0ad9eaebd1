"""Seats: who drives which car. Each has one driver at most; its car follows its planned trajectory without one."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from tasks.planning.rows import AGENTS
from tasks.play.cars import Control
from tasks.play.errors import PlayError


@dataclass
class Seat:
    """A car's seat."""

    driver: str = ""
    """Who sits there: a connection's name; empty: nobody"""
    control: Control = field(default_factory=Control)
    number: int = 0
    """Of the driver's newest message, which comes back with the first frame that was made under it"""


class Seats:
    """The seats of all cars. Every method may be called from any thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seats = [Seat() for _ in range(AGENTS)]

    def take(self, seat: int, driver: str) -> None:
        """Give a driver a seat; again is nothing new. PlayError when somebody else sits there."""
        with self.lock:
            holder = self.seats[seat].driver
            if holder and holder != driver:
                raise PlayError(f"Car {seat} has a driver already: take the other one, or wait until this one is free.")
            if not holder:
                self.seats[seat] = Seat(driver)

    def leave(self, driver: str, seat: int | None = None) -> None:
        """Free a seat, or all, of what a driver holds."""
        with self.lock:
            for number, held in enumerate(self.seats):
                if held.driver == driver and seat in (None, number):
                    self.seats[number] = Seat()

    def drive(self, seat: int, driver: str, control: Control, number: int) -> None:
        """Set what a driver wants of the car. PlayError unless the driver sits there."""
        with self.lock:
            if self.seats[seat].driver != driver:
                raise PlayError(f"Car {seat} is not yours: take its seat before you drive it.")
            self.seats[seat] = Seat(driver, control, number)

    def now(self) -> list[Seat]:
        """Return the seats as they are."""
        with self.lock:
            return list(self.seats)
