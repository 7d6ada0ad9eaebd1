"""The planning layer's one error."""


class PlanningError(ValueError):
    """A plan that cannot be made: what, which value, what to do."""
