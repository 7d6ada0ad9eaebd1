"""What stops `shareverse play`."""

from __future__ import annotations


class PlayError(RuntimeError):
    """A model, a scene or an option that cannot be played: what is wrong, and what to do, in a sentence."""
