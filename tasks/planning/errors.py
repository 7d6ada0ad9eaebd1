"""The planning layer's errors."""


class PlanningError(ValueError):
    """A plan that cannot be made: what, which value, what to do."""


class TooFewSites(PlanningError):
    """A town that cannot host its share of a trajectory type."""
