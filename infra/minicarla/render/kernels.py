"""How every kernel is compiled.

`_nrt=False` and `forceinline=True` make readable code with named tuples of arrays nine times faster (no reference
counting); such kernels cannot allocate. fastmath stays off: pictures are the same bits on every machine and run.
"""

from __future__ import annotations

from functools import partial

import numba

helper = partial(numba.njit, nogil=True, cache=True, error_model="numpy", _nrt=False, forceinline=True)
"""For functions that kernels call."""
kernel = partial(numba.njit, nogil=True, cache=True, error_model="numpy", _nrt=False)
"""For what Python calls."""
allocating = partial(numba.njit, nogil=True, cache=True, error_model="numpy")
"""For kernels that make arrays."""

FAR_M = 1000.0
NOTHING = -1
