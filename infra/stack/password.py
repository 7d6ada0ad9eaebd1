"""The auth string of this home's Prefect server, `user:password` in one file that its owner alone can read."""

from __future__ import annotations

import base64
import re
import secrets
import shlex
from pathlib import Path

from infra.private_files import SECRET_ADVICE, read_or_create_secret
from infra.storage import StorageError, home

AUTH_STRING = re.compile(r"[A-Za-z0-9._~-]+:[A-Za-z0-9._~-]{20,}")
"""Characters that need no quotes in `.env`, in a shell or in a web form."""


def password_file() -> Path:
    """Return the file that holds the auth string."""
    return home() / "services" / "prefect_auth"


def auth_string() -> str:
    """Return the auth string, created where there is none. StorageError for a damaged file."""
    secret = read_or_create_secret(password_file(), f"shareverse:{secrets.token_urlsafe(32)}")
    if not AUTH_STRING.fullmatch(secret):
        raise StorageError(
            f"{password_file()} holds no auth string, user:password with a password of 20 letters or more: "
            f"{SECRET_ADVICE}"
        )
    return secret


def authorization() -> dict[str, str]:
    """Return the HTTP header that Prefect's API asks for."""
    return {"Authorization": "Basic " + base64.b64encode(auth_string().encode()).decode()}


def password_hint() -> str:
    """Return the sentence on where to find the password that Prefect's page asks for."""
    return f"Prefect's page asks once for a password, the line that `cat {shlex.quote(str(password_file()))}` prints."
