"""What can go wrong while scoring."""


class EvaluationError(RuntimeError):
    """A run, clip or data set that cannot be scored: what, which value, what to do."""
