"""The local services: Prefect server, MLflow server, one Prefect worker.

    python -m infra.stack up | down | status

State lies under `SHAREVERSE_HOME/services/`, readable by its owner alone. Ports are free ones, so that two clones on
one machine do not collide. docs/SECURITY.md says who may connect to what.
"""

from infra.stack.control import down, status_lines, up
from infra.stack.environment import use_services
from infra.stack.password import password_hint
from infra.stack.services import StackError

__all__ = ["StackError", "down", "password_hint", "status_lines", "up", "use_services"]
