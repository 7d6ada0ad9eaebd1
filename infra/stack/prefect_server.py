"""Prefect's server behind the gate.

    python -m infra.stack.prefect_server [--host 127.0.0.1] [--port 4200] [--allow-host NAME] [--log FILE]

It asks for PREFECT_SERVER_API_AUTH_STRING, without which it does not start: who reaches an open Prefect can run any
command as its user.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from infra.stack.gate import Gate, own_origins
from infra.stack.log_size import keep_small


def main() -> int:
    """Serve until SIGTERM; return 2 when there is no auth string."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=4200)
    parser.add_argument("--allow-host", action="append", default=[], help="a name beside 127.0.0.1 and localhost")
    parser.add_argument("--log", type=Path, help="the file that standard output goes to, to be kept small")
    given = parser.parse_args()
    if not os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        print("PREFECT_SERVER_API_AUTH_STRING is not set: give it as user:password.", file=sys.stderr)
        return 2
    os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(own_origins(given.port))
    os.umask(0o077)
    if given.log:
        keep_small(given.log)
    import uvicorn
    from prefect.server.api.server import create_app

    gate = Gate(create_app(final=True), given.port, given.allow_host)
    # Without proxy_headers=False uvicorn believes X-Forwarded-For of any local process.
    uvicorn.run(gate, host=given.host, port=given.port, log_level="warning", proxy_headers=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
