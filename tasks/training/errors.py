"""What can go wrong with a run."""

REFUSED = 3
"""Exit status of a training process whose last line says in one sentence why it ended."""
RESTORE = "restore that checkpoint, or remove it and run again to go on from the one before."


class TrainingError(RuntimeError):
    """A run or checkpoint that is missing, damaged or cannot go on: what, and what to do."""


class DivergedError(TrainingError):
    """A training whose loss, gradient or weights are not finite: in which step, and what to do."""

    def __init__(self, message: str, step: int, rate: float) -> None:
        super().__init__(message)
        self.step, self.rate = step, rate
