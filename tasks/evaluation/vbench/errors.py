"""What can go wrong around VBench."""


class VBenchError(RuntimeError):
    """VBench cannot be set up or run: what, which value, what to do."""
