"""Passwords and keys of the stack, generated once into a file that only its owner can read."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.files import write_atomically

FILE = "credentials.env"
OWNER_ONLY = 0o600
_PASSWORDS = (
    "POSTGRES_PASSWORD",
    "AIRFLOW_DB_PASSWORD",
    "MLFLOW_DB_PASSWORD",
    "AIRFLOW_ADMIN_PASSWORD",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_TRACKING_PASSWORD",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "SPARK_SECRET",
    "REDIS_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
)
_FERNET_KEY = "AIRFLOW__CORE__FERNET_KEY"
# The values pass through shells, URLs, configuration files and JSON: nothing in them means anything there.
_VALUE = re.compile(r"[A-Za-z0-9_=-]{12,128}")


def read_env(file: Path) -> dict[str, str]:
    """Return the NAME=value lines of `file`; raise UserError where it is missing or has another kind of line."""
    return {name: value for _, name, value in _assignments(file)}


def read_credentials(file: Path) -> dict[str, str]:
    """Return the credentials in `file`; raise UserError naming the line for any other name or form of value.

    Each becomes an environment variable, so a line of another name could change what programs do. No message contains a
    value.
    """
    found = {}
    for number, name, value in _assignments(file):
        if name not in (*_PASSWORDS, _FERNET_KEY):
            raise UserError(
                f"{file}, line {number}: {name} is no password of the stack; delete the line (settings of components "
                "go into docker/airflow.env)"
            )
        if not _VALUE.fullmatch(value):
            raise UserError(f"{file}, line {number}: {name}: expected 12 to 128 letters, digits, `-`, `_` and `=`")
        found[name] = value
    return found


def _assignments(file: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line number, name and value of every NAME=value line."""
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8; expected lines NAME=value") from None
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, sign, value = text.partition("=")
        if not sign or not name.replace("_", "").isalnum():
            raise UserError(f"{file}, line {number}: expected NAME=value")
        yield number, name, value


def credentials(state: Path) -> dict[str, str]:
    """Return the credentials in `state`; generate those that are missing.

    The file has mode 600. Raises UserError where others can read it, since its contents are no longer secret.
    """
    file = state / FILE
    saved = read_credentials(file) if file.is_file() else {}
    if saved and file.stat().st_mode & 0o077:
        raise UserError(
            f"{file}: others can read it (mode {file.stat().st_mode & 0o777:o}, expected 600); if no one did, "
            f"`chmod 600 {file}`, else delete the stack's state and start again"
        )
    # Signing keys are as long as the hash they sign with.
    generated = {name: secrets.token_hex(32 if "SECRET" in name else 16) for name in _PASSWORDS}
    generated[_FERNET_KEY] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    complete = {**generated, **saved}
    if complete != saved:
        lines = (f"{name}={value}\n" for name, value in complete.items())
        head = "# Generated on the first start. Airflow and MLflow: user admin.\n"
        write_atomically(file, head + "".join(lines), mode=OWNER_ONLY)
    return complete
