"""The one error of the towns' layer."""

from __future__ import annotations


class TownError(ValueError):
    """A town, a road layout or an OpenDRIVE text that can't be used: what, which value, what to do."""
