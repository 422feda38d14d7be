"""Passwords and keys of the stack, generated once into a file that only its owner can read."""

from __future__ import annotations

import base64
import secrets
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
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
)


def read_env(file: Path) -> dict[str, str]:
    """Return the NAME=value lines of `file`; raise UserError where it is missing or has another kind of line."""
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    values = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, sign, value = text.partition("=")
        if not sign or not name.replace("_", "").isalnum():
            raise UserError(f"{file}, line {number}: expected NAME=value")
        values[name] = value
    return values


def credentials(state: Path) -> dict[str, str]:
    """Return the credentials in `state`; generate those that are missing.

    The file has mode 600. Raises UserError where others can read it, since its contents are no longer secret.
    """
    file = state / FILE
    saved = read_env(file) if file.is_file() else {}
    if saved and file.stat().st_mode & 0o077:
        raise UserError(
            f"{file}: others can read it (mode {file.stat().st_mode & 0o777:o}, expected 600); if no one did, "
            f"`chmod 600 {file}`, else delete the stack's state and start again"
        )
    # Hexadecimal digits only: the values pass through shells, URLs and configuration files.
    # Signing keys are as long as the hash they sign with.
    generated = {name: secrets.token_hex(32 if "SECRET" in name else 16) for name in _PASSWORDS}
    generated["AIRFLOW__CORE__FERNET_KEY"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    complete = {**generated, **saved}
    if complete != saved:
        lines = (f"{name}={value}\n" for name, value in complete.items())
        head = "# Generated on the first start. Airflow and MLflow: user admin.\n"
        write_atomically(file, head + "".join(lines), mode=OWNER_ONLY)
    return complete
