"""CARLA server processes: the real one and the embedded one, launched, watched and ended the same way."""

from .errors import CarlaServerError, NotReady
from .launcher import CarlaServer, SimulatorSpec

__all__ = ["CarlaServer", "CarlaServerError", "NotReady", "SimulatorSpec"]
