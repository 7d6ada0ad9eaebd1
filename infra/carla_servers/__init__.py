"""CARLA server processes: the real one and the embedded one, launched, watched and ended the same way."""

from .launcher import CarlaServer, CarlaServerError, NotReady, SimulatorSpec

__all__ = ["CarlaServer", "CarlaServerError", "NotReady", "SimulatorSpec"]
