"""The towns that a server offers: the embedded ones and those of a folder, each map checked when first asked for."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import Future
from pathlib import Path

from ..scenery import Town
from .catalogue import load_town, map_text, town_names
from .errors import TownError
from .generators import LAYOUTS
from .job import load_checked

KEPT = 16
"""Maps whose outcome is remembered, a few megabytes each."""


class TownLibrary:
    """Loads towns from any number of threads; two that ask for one map wait for one check.

    A map is checked anew when its text has changed.
    """

    def __init__(self, maps_dir: str | Path | None = None) -> None:
        self.maps_dir = maps_dir
        self.checked: OrderedDict[tuple[str, str], Future[Town]] = OrderedDict()
        self.lock = threading.Lock()

    def names(self) -> list[str]:
        """Return the towns' names, also of those whose maps are unusable."""
        return town_names(self.maps_dir)

    def load(self, name: str) -> Town:
        """Return the town of this name. TownError for one that does not exist or whose map is unusable."""
        stem = name.rsplit("/", 1)[-1]
        if stem in LAYOUTS:
            return load_town(stem)
        return self.from_opendrive(stem, map_text(name, self.maps_dir))

    def from_opendrive(self, name: str, text: str) -> Town:
        """Return a map's text as a town of this name. TownError for a text that the real client cannot use."""
        key = name, hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
        with self.lock:
            is_first = key not in self.checked
            town = self.checked.setdefault(key, Future())
            self.checked.move_to_end(key)
            while len(self.checked) > KEPT:
                self.checked.popitem(last=False)
        if is_first:
            try:
                town.set_result(load_checked(name, text))
            except TownError as error:
                town.set_exception(error)
            finally:
                if not town.done():  # not the map's fault, so the outcome is not remembered
                    town.set_exception(TownError(f"the map {name} could not be checked; ask for it again"))
                    with self.lock:
                        self.checked.pop(key, None)
        return town.result()
