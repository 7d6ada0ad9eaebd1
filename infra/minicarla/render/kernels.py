"""How every kernel is compiled.

`_nrt=False` and `forceinline=True` make readable code with named tuples of arrays nine times faster (no reference
counting); such kernels cannot allocate. fastmath stays off: pictures are the same bits on every machine and run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numba

HERE = Path(__file__).parent
settings: Any = numba.config  # made of environment variables


@lru_cache
def sources_digest() -> str:
    """Return a digest of all sources that machine code is made of."""
    sources = [*sorted(HERE.glob("*.py")), HERE.parent / "scenery.py"]
    return hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]


@contextmanager
def cache_of_these_sources() -> Iterator[None]:
    """Keep machine code of other sources out of sight.

    Numba looks only at the file of the function that is called: what that one inlines from other files, or the class of
    a named tuple, could have changed since.
    """
    before = settings.CACHE_DIR
    settings.CACHE_DIR = str(Path(before or HERE / "__pycache__") / f"kernels-{sources_digest()}")
    try:
        yield
    finally:
        settings.CACHE_DIR = before


def compiled(function: Callable, *, cache: bool = True, **options: Any) -> Callable:
    """Return a function that compiles `function` when it is first called, and caches its machine code."""
    with cache_of_these_sources():
        return numba.njit(nogil=True, cache=cache, error_model="numpy", **options)(function)


helper = partial(compiled, _nrt=False, forceinline=True)
"""For functions that kernels call."""
kernel = partial(compiled, _nrt=False)
"""For what Python calls."""
allocating = compiled
"""For kernels that make arrays."""

FAR_M = 1000.0
NOTHING = -1
