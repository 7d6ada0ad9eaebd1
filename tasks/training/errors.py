"""How a training ends that does not end well."""

from tasks.runs.errors import RunError

REFUSED = 3
"""Exit status of a training process whose last line says in one sentence why it ended."""
RESTORE = "restore that checkpoint, or remove it and run again to go on from the one before."


class DivergedError(RunError):
    """A training run whose loss, gradient or weights are not finite: in which step, and what to do."""

    def __init__(self, message: str, step: int, learning_rate: float) -> None:
        super().__init__(message)
        self.step, self.learning_rate = step, learning_rate
