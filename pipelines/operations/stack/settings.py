"""The stack's folders, ports and the environment of its processes."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.core.environment import clean_environment, plain_temporary
from pipelines.core.errors import UserError
from pipelines.core.files import write_atomically
from pipelines.core.formats.table import KEY, STACK, check_format
from pipelines.core.paths import project_root
from pipelines.core.privacy import TELEMETRY_OFF
from pipelines.operations.stack.credentials import OWNER_ONLY, credentials, read_env

LOOPBACK = "127.0.0.1"
# Set for every process of a stack and its children: the folder of the stack's state.
STATE_VARIABLE = "STACK_STATE"
PIPELINE_USER = "pipeline"
_PORTS = "ports.json"


@dataclass(frozen=True)
class Ports:
    """Ports on the loopback interface."""

    postgres: int = 5433
    airflow: int = 8080
    mlflow: int = 5000


@dataclass(frozen=True)
class Stack:
    """A stack: the checkout with its DAGs and configuration, the folder of its state, its ports, the inbox."""

    root: Path
    state: Path
    ports: Ports = field(default_factory=Ports)
    inbox: str | None = None

    @property
    def socket(self) -> Path:
        """The supervisor's socket, in the folder that was saved at its start, since TMPDIR may differ between shells.

        The path is short, because the system allows about 100 characters, and unique to the path of the state folder.
        """
        saved = self.state / "socket_folder"
        folder = saved.read_text(encoding="utf-8") if saved.is_file() else plain_temporary()
        name = hashlib.sha256(str(self.state).encode()).hexdigest()[:12]
        return Path(folder) / f"dynamicid-stack-{os.getuid()}-{name}.sock"

    def prepare_socket(self) -> None:
        """Save the socket's folder for a supervisor that is about to start, and remove an old socket."""
        (self.state / "socket_folder").write_text(plain_temporary(), encoding="utf-8")
        self.socket.unlink(missing_ok=True)

    @property
    def airflow_url(self) -> str:
        """Address of Airflow."""
        return f"http://{LOOPBACK}:{self.ports.airflow}"

    @property
    def mlflow_url(self) -> str:
        """Address of MLflow."""
        return f"http://{LOOPBACK}:{self.ports.mlflow}"

    def check_ports(self) -> None:
        """Raise UserError naming every port that is in use."""
        taken = []
        for name, port in vars(self.ports).items():
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((LOOPBACK, port))
                except OSError:
                    taken.append(f"{port} ({name})")
        if taken:
            raise UserError(
                f"taken on {LOOPBACK}: port {', '.join(taken)}; choose others with --postgres-port, --airflow-port, "
                "--mlflow-port, or end what listens there"
            )

    def environment(self) -> dict[str, str]:
        """Return the variables of every process: from the shared files, credentials, addresses and folders."""
        inherited = {
            name: value
            for name, value in clean_environment().items()
            if not name.startswith(("AIRFLOW", "MLFLOW", "DVC_", "PG", "STACK_", "DYNAMICID_HOME", "SUPERVISOR"))
        }
        secret = credentials(self.state)
        own = {
            STATE_VARIABLE: str(self.state),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": str(self.root / "dags"),  # the triggerer imports the trigger by name
            "PYTHONUNBUFFERED": "1",
            # Airflow renames its processes, which would overwrite their environment and with it STATE_VARIABLE.
            "SPT_NOENV": "1",
            "PGHOST": LOOPBACK,
            "PGPORT": str(self.ports.postgres),
            "PGUSER": "airflow",
            "PGPASSWORD": secret["AIRFLOW_DB_PASSWORD"],
            "AIRFLOW_HOME": str(self.state / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.root / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.root / "dags" / "plugins"),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.passwords_file),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.airflow_url}/execution/",
            "AIRFLOW__API__HOST": LOOPBACK,
            "AIRFLOW__API__PORT": str(self.ports.airflow),
            "AIRFLOW__API__BASE_URL": self.airflow_url,
            "MLFLOW_HOST": LOOPBACK,
            "MLFLOW_PORT": str(self.ports.mlflow),
            "MLFLOW_ARTIFACTS_DESTINATION": str(self.state / "mlartifacts"),
            "MLFLOW_AUTH_CONFIG_PATH": str(self.root / "mlflow" / "basic_auth.ini"),
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            "MLFLOW_TRACKING_USERNAME": PIPELINE_USER,
            "DYNAMICID_PYTHON": sys.executable,
            "DYNAMICID_HOME": str(self.root),
            "DYNAMICID_INBOX": self.inbox
            or os.environ.get("DYNAMICID_INBOX")
            or str(self.root / ".dynamicid" / "inbox"),
        }
        files = {**read_env(self.root / "docker" / "airflow.env"), **read_env(self.root / "mlflow" / "server.env")}
        return {**inherited, **TELEMETRY_OFF, **files, **secret, **own}

    @property
    def passwords_file(self) -> Path:
        """The password file of Airflow's simple auth manager."""
        return self.state / "airflow_passwords.json"

    def write_passwords(self) -> None:
        """Write the generated password of Airflow's administrator."""
        passwords = {"admin": credentials(self.state)["AIRFLOW_ADMIN_PASSWORD"]}
        write_atomically(self.passwords_file, json.dumps(passwords), mode=OWNER_ONLY)


def was_started(state: Path) -> bool:
    """Whether a stack was ever started in the folder `state`."""
    return (state / _PORTS).is_file()


def save_ports(stack: Stack) -> None:
    """Save the ports that a stack is started with."""
    _write_ports(stack.state, stack.ports)


def rewrite_ports(state: Path) -> None:
    """Write the file of the stack's ports in the present format."""
    _write_ports(state, saved_ports(state))


def _write_ports(state: Path, ports: Ports) -> None:
    write_atomically(state / _PORTS, json.dumps({KEY: STACK.version, **vars(ports)}))


def saved_ports(state: Path) -> Ports:
    """Return the ports of the stack in `state`; raise UserError where none was started, or by a newer program."""
    if not was_started(state):
        raise UserError(f"{state}: no stack was started there; `make stack` starts one")
    ports = json.loads((state / _PORTS).read_text(encoding="utf-8"))
    check_format(STACK, state / _PORTS, ports.pop(KEY, None))
    return Ports(**ports)


def stack_in(state: Path, *, started: bool = True) -> Stack:
    """Return this checkout's stack in the folder `state`, with the ports that it was started with.

    A stack that was never started gets the default ports; raises UserError for it where it must have been `started`.
    """
    state = state.absolute()
    return Stack(project_root(), state, saved_ports(state) if started or was_started(state) else Ports())
