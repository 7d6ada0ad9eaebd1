"""MLflow's server behind the gate, for the user alone who started it.

    python -m infra.stack.mlflow_server PORT LOG

MLflow asks for no password, and who reaches it can read and write any file as its user: an experiment's artifacts may
lie in any folder, and a link in that folder leads anywhere.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from infra.stack.gate import Gate
from infra.stack.log_size import keep_small

BACKEND_STORE = "MLFLOW_BACKEND_STORE_URI"
ARTIFACTS_DESTINATION = "MLFLOW_ARTIFACTS_DESTINATION"
"""MLflow's own names of the variables that say where its server keeps runs, and where artifacts."""


def main() -> None:
    """Serve until SIGTERM, with the stores that the environment names: a database's address may hold a password."""
    port, store, artifacts = int(sys.argv[1]), os.environ[BACKEND_STORE], os.environ[ARTIFACTS_DESTINATION]
    keep_small(Path(sys.argv[2]))
    import uvicorn
    from mlflow.server import constants

    # What `mlflow server` tells its web workers; it has no way to put an application of ours around its own.
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: store,
        constants.REGISTRY_STORE_URI_ENV_VAR: store,
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: artifacts,
    }
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(store, store, "mlflow-artifacts:/")
    gate = Gate(app, port, own_user_only=True)
    # Without proxy_headers=False uvicorn believes X-Forwarded-For of any local process.
    uvicorn.run(gate, host="127.0.0.1", port=port, log_level="warning", proxy_headers=False)


if __name__ == "__main__":
    main()
