"""Passwords and keys of the stack: generated once, in one file that only its owner can read."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.files import write_atomically

FILE = "credentials.env"
OWNER_ONLY = 0o600
# Every name, and how many random bytes it has; AIRFLOW__CORE__FERNET_KEY is a key of 32 bytes in base64.
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
_FERNET = "AIRFLOW__CORE__FERNET_KEY"


def read_env(file: Path) -> dict[str, str]:
    """Return the NAME=value lines of `file`; raise UserError where it is missing or a line is something else."""
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
    """Return the credentials kept in `state`; what is missing is generated, what is there stays as it is.

    The file has mode 600. Raises UserError where others can read it, since then it holds secrets no more.
    """
    file = state / FILE
    known = read_env(file) if file.is_file() else {}
    if known and file.stat().st_mode & 0o077:
        raise UserError(
            f"{file}: others can read it (mode {file.stat().st_mode & 0o777:o}, expected 600); if nobody did, "
            f"`chmod 600 {file}`, else delete the stack's state and begin anew"
        )
    # Letters and digits only: the values pass through shells, URLs and configuration files.
    # Keys that sign are as long as the hash they sign with.
    made = {name: secrets.token_hex(32 if "SECRET" in name else 16) for name in _PASSWORDS}
    made[_FERNET] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    complete = {**made, **known}
    if complete != known:
        lines = (f"{name}={value}\n" for name, value in complete.items())
        head = "# Generated on the first start. Airflow and MLflow: user admin.\n"
        write_atomically(file, head + "".join(lines), mode=OWNER_ONLY)
    return complete
