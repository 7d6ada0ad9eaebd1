"""What can go wrong while scoring hidden facts."""


class BenchmarkError(RuntimeError):
    """Scenes, an entry or a detector that cannot be used: what, which value, what to do."""
