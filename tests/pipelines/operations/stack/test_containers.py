"""The containers' files are valid, refuse to start without generated passwords, and start what `make stack` starts."""

from __future__ import annotations

import configparser
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from pipelines.operations.stack.images import read_lock
from tests.processes import git, run

FILES = ("Dockerfile", "airflow.Dockerfile", "mlflow.Dockerfile")


@pytest.fixture(scope="module")
def compose(project: Path) -> dict:
    return yaml.safe_load((project / "docker" / "compose.yaml").read_text())


OVERRIDES = ("compose.gpu.yaml", "compose.cluster.yaml")


def test_compose_files_are_valid(project: Path) -> None:
    check = (sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec")
    run(*check, *(f"docker/{name}" for name in ("compose.yaml", *OVERRIDES, "compose.worker.yaml")), cwd=project)


@pytest.mark.parametrize("name", OVERRIDES)
def test_an_override_changes_services_that_there_are(project: Path, compose: dict, name: str) -> None:
    override = yaml.safe_load((project / "docker" / name).read_text())["services"]
    assert set(override) - set(compose["services"]) <= {"redis"}
    for service, changed in override.items():
        for network in changed.get("networks", ()):
            assert network in compose["networks"], service
        for port in changed.get("ports", ()):
            assert port.startswith("${CLUSTER_ADDRESS:?"), "an address must be given: never all of a machine's"


def test_workers_elsewhere_run_the_same_airflow_by_the_same_broker(project: Path, compose: dict) -> None:
    folder = project / "docker"
    cluster, worker = (
        yaml.safe_load((folder / f"compose.{name}.yaml").read_text())["services"] for name in ("cluster", "worker")
    )
    here, there = cluster["airflow-scheduler"]["environment"], worker["worker"]["environment"]
    for name in ("AIRFLOW__CORE__EXECUTOR", "AIRFLOW__CELERY__RESULT_BACKEND"):
        assert here[name] == there[name]
    assert {key for key in compose["services"]["airflow-scheduler"]["environment"] if key.startswith("AIRFLOW")} <= {
        *there,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",  # of the API server and its pages
        "AIRFLOW__API__BASE_URL",
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK",
    }
    pinned = {
        name: re.findall(r"(?:celery|redis|onnxruntime-gpu)==\S+", (folder / name).read_text().replace(";", " "))
        for name in ("Dockerfile", "airflow.Dockerfile")
    }
    assert set(pinned["airflow.Dockerfile"]) < set(pinned["Dockerfile"])
    version = re.search(r"^onnxruntime==(\S+)$", (project / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert f"onnxruntime-gpu=={version}" in pinned["Dockerfile"]


@pytest.mark.parametrize("name", FILES)
def test_dockerfiles_pass_hadolint(project: Path, name: str) -> None:
    run(Path(sys.executable).parent / "hadolint", f"docker/{name}", cwd=project)


def test_files_that_images_copy_and_services_read_exist(project: Path, compose: dict) -> None:
    copied = [
        source
        for name in FILES
        for line in re.findall(r"^COPY (.+) \S+$", (project / "docker" / name).read_text(), re.MULTILINE)
        for source in line.split()
        if not source.startswith("--")
    ]
    # What the DAGs read when Airflow parses them.
    assert {"dags", "profiles", "dvc.yaml", "docker/pools.json"} <= set(copied)
    for path in re.findall(r"/opt/dynamicid/([\w./-]+)", (project / "docker" / "compose.yaml").read_text()):
        assert (project / path).exists() or path.startswith(".venv/"), path
    assert [source for source in copied if not (project / source).exists()] == []
    for name, service in compose["services"].items():
        mounted = [volume.split(":")[0] for volume in service.get("volumes", ()) if volume.startswith(".")]
        dockerfile = ["../" + service["build"]["dockerfile"]] if "build" in service else []
        for file in [*mounted, *dockerfile, *service.get("env_file", ())]:
            assert (project / "docker" / file).exists(), (name, file)


def test_no_password_has_a_default(project: Path, compose: dict) -> None:
    text = (project / "docker" / "compose.yaml").read_text()
    variables = set(re.findall(r"(?<!\$)\$\{(\w+)(:\?)?", text))
    assert {name for name, refused in variables if not refused} == {image.variable for image in read_lock(project)}
    secret = re.compile(r"PASSWORD$|SECRET|FERNET|ACCESS_KEY")
    checked = 0
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if secret.search(name):
                assert str(value).startswith("${"), (name, value)
                checked += 1
    assert checked >= 10


def test_every_variable_is_generated(project: Path, tmp_path: Path) -> None:
    from pipelines.operations.stack.credentials import credentials

    files = (project / "docker").glob("compose*.yaml")
    wanted = {name for file in files for name in re.findall(r"(?<!\$)\$\{(\w+):\?", file.read_text())}
    assert wanted - {"CLUSTER_ADDRESS", "DYNAMICID_INBOX"} <= set(credentials(tmp_path))


# The secrets that each service needs, and no others.
_DATABASE = {"PGPASSWORD", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"}
_OBJECTS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
NEEDED = {
    "postgres": {"POSTGRES_PASSWORD", "AIRFLOW_DB_PASSWORD", "MLFLOW_DB_PASSWORD"},
    "objects": {"S3_ACCESS_KEY", "S3_SECRET_KEY"},
    "bucket": _OBJECTS,
    "mlflow": {*_OBJECTS, "PGPASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY"},
    "mlflow-accounts": {"MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_TRACKING_PASSWORD"},
    "mlflow-clean": {"PGPASSWORD", "MLFLOW_TRACKING_PASSWORD"},
    "airflow-setup": _DATABASE,
    "airflow-api-server": {*_DATABASE, "AIRFLOW_ADMIN_PASSWORD"},
    "airflow-dag-processor": _DATABASE,
    "airflow-triggerer": _DATABASE,
    "airflow-scheduler": {*_DATABASE, "MLFLOW_TRACKING_PASSWORD", "DYNAMICID_SPARK_SECRET"},
    "spark-master": {"_SPARK_AUTH_SECRET"},
    "spark-worker": {"_SPARK_AUTH_SECRET"},
}


def test_each_service_has_the_secrets_that_it_needs_and_no_others(compose: dict) -> None:
    held = {
        name: {key for key, value in service.get("environment", {}).items() if str(value).startswith("${")}
        for name, service in compose["services"].items()
    }
    assert held == {name: NEEDED.get(name, set()) for name in compose["services"]}
    for name in ("spark-master", "spark-worker", "project", "mlflow-accounts"):
        assert compose["services"][name]["env_file"] == [], f"{name}: docker/airflow.env may have addresses of webhooks"


def test_each_service_reaches_only_those_that_it_needs(compose: dict) -> None:
    networks = {
        name: set(service.get("networks", ())) if service.get("network_mode") != "none" else set()
        for name, service in compose["services"].items()
    }
    together = {
        name: {other for other in networks if other != name and networks[name] & networks[other]} for name in networks
    }
    assert together["spark-master"] == {"spark-worker", "airflow-scheduler"}
    assert together["objects"] == {"bucket", "mlflow"}
    assert together["project"] == set()
    assert not together["postgres"] & {"spark-master", "spark-worker", "objects", "project"}
    for name, service in compose["services"].items():
        assert "network_mode" in service or service["networks"], f"{name} is on the network that all share"
    assert all(compose["networks"][name]["internal"] for name in ("spark", "objects"))
    assert "spark.authenticate=true" in compose["services"]["spark-master"]["environment"]["SPARK_DAEMON_JAVA_OPTS"]


def in_image(project: Path, name: str) -> bool:
    """Whether .dockerignore lets a file into an image: the last pattern that fits it or a folder above it decides."""
    kept = True
    for line in (project / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!").removeprefix("**/")
        if not pattern or pattern.startswith("#"):
            continue
        parents = [*map(str, Path(name).parents)][:-1]
        if any(fnmatch(path if "**" not in line else Path(path).name, pattern) for path in (name, *parents)):
            kept = line.startswith("!")
    return kept


def test_an_image_has_the_files_of_the_project(project: Path) -> None:
    tracked = git(project, "ls-files").splitlines()
    results = ("dvc.lock", "weights/")
    left_out = [name for name in tracked if not in_image(project, name) and not name.endswith(".dvc")]
    assert [name for name in left_out if not name.startswith(results)] == []
    assert in_image(project, "data/forgotten.jsonl")


@pytest.mark.parametrize(
    "name",
    [
        *("accounts", "accounts.txt", "credentials.env", "passwords.csv", "holiday/me.jpg", "data/faces/a.parquet"),
        *(".dvc/config.local", "params.local.yaml", ".env", "docker/.env", ".ssh/id_rsa", "mlflow.db", ".git/config"),
        *("docker/server.key", "mlflow/tls.pem", ".dynamicid/stack/credentials.env"),
    ],
)
def test_what_somebody_keeps_in_a_checkout_is_in_no_image(project: Path, name: str) -> None:
    assert not in_image(project, name)


@pytest.mark.parametrize(
    "name", ["accounts", "accounts.txt", "credentials.env", ".env", "docker/server.key", "tls.pem"]
)
def test_git_ignores_secrets_in_a_checkout(project: Path, name: str) -> None:
    git(project, "check-ignore", "--quiet", "--no-index", name)


def test_services_are_limited_not_root_and_checked(compose: dict) -> None:
    for name, service in compose["services"].items():
        assert service["mem_limit"], name
        assert service["cap_drop"] == ["ALL"], name
        if name == "objects-volume":  # changes the owner of a new volume, without a network
            assert service["network_mode"] == "none"
            continue
        assert service.get("user") or (service["image"] == "dynamicid-mlflow"), name
        assert service.get("user") not in ("0", "root", "0:0"), name
        assert "healthcheck" in service or service["restart"] == "no", name
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), (name, port)


def test_volumes_in_use_are_declared(compose: dict) -> None:
    named = {
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", ())
        if not volume.startswith(".")
    }
    assert named == set(compose["volumes"])


def test_supervisor_runs_the_same_servers(project: Path, compose: dict) -> None:
    parser = configparser.RawConfigParser(inline_comment_prefixes=None)
    parser.read(project / "docker" / "supervisord.conf")
    native = {section.removeprefix("program:") for section in parser.sections() if section.startswith("program:")}
    only_contained = {
        "objects",
        "objects-volume",
        "bucket",
        "mlflow-accounts",
        "mlflow-clean",
        "airflow-setup",
        "project",
    }
    only_contained |= {"spark-master", "spark-worker"}  # without containers the stage runs Spark in its own process
    assert native == set(compose["services"]) - only_contained
    for name in native:
        assert parser.get(f"program:{name}", "autorestart") == "true"


def test_both_use_the_same_settings(compose: dict) -> None:
    assert compose["services"]["airflow-scheduler"]["env_file"] == ["airflow.env"]
    assert compose["services"]["mlflow"]["env_file"] == ["../mlflow/server.env"]
    mounts = compose["services"]["postgres"]["volumes"]
    assert any("postgres/init.sql" in mount for mount in mounts)
    assert any("postgres/postgresql.conf" in mount for mount in mounts)


def test_preprocessing_runs_on_the_spark_cluster(compose: dict) -> None:
    scheduler, master = compose["services"]["airflow-scheduler"], compose["services"]["spark-master"]
    command = master["command"]
    address = f"spark://{command[command.index('--host') + 1]}:{command[command.index('--port') + 1]}"
    assert scheduler["environment"]["DYNAMICID_SPARK_MASTER"] == address
    assert compose["services"]["spark-worker"]["command"][-1] == address
    assert scheduler["depends_on"]["spark-worker"] == {"condition": "service_healthy"}


def test_no_volume_hides_the_code_of_an_image(project: Path, compose: dict) -> None:
    image = re.search(r"^WORKDIR (\S+)$", (project / "docker" / "Dockerfile").read_text(), re.MULTILINE)[1]
    for name, service in compose["services"].items():
        mounted = [volume.split(":")[1] for volume in service.get("volumes", ())]
        assert image not in mounted, name
    assert compose["services"]["project"]["command"][-1] == "/opt/project"
    for name in ("project", "airflow-scheduler", "spark-worker"):
        assert "project:/opt/project" in compose["services"][name]["volumes"], name
