"""The runs that the tests of training use."""

from tests.tasks.training.conftest import new_run, state  # noqa: F401 - fixtures
