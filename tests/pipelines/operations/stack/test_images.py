"""Images come from locked digests where there are any, and the lock file is renewed from registries or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.core.errors import StageFailed, UserError
from pipelines.operations.stack.images import LOCK, NOT_LOCKED, read_lock, references, renew

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


@dataclass
class Registry:
    """A registry that gives manifests to whoever has its token."""

    address: str = ""
    says: str = DIGEST
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def registry() -> Iterator[Registry]:
    state = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            if self.path.startswith("/token"):
                self.answer(200, b'{"token": "t"}')
            elif self.headers.get("Authorization") != "Bearer t":
                challenge = f'Bearer realm="http://{state.address}/token",service="s",scope="repository:x:pull"'
                self.answer(401, b"", {"WWW-Authenticate": challenge})
            elif "missing" in self.path:
                self.answer(404, b"")
            else:
                self.answer(200, MANIFEST, {"Docker-Content-Digest": state.says})

        def answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(code)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield state
    server.shutdown()


def lock(root: Path, **images: tuple[str, str]) -> Path:
    file = root / LOCK
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({name: {"tag": tag, "digest": digest} for name, (tag, digest) in images.items()}))
    return file


def test_the_projects_lock_has_the_tags_of_the_files_that_use_them(project: Path) -> None:
    texts = [path.read_text() for path in (project / "docker").iterdir() if path.is_file() and path.suffix != ".json"]
    used = {pair for text in texts for pair in re.findall(r"\$\{(\w+_IMAGE):-([^}]+)\}|ARG (\w+_IMAGE)=(\S+)", text)}
    named = {(first or third, second or fourth) for first, second, third, fourth in used}
    assert named == {(image.variable, image.tag) for image in read_lock(project)}
    froms = [line for text in texts for line in re.findall(r"^FROM (.+)$", text, re.MULTILINE)]
    assert froms == ["${PYTHON_IMAGE}"] * 3
    assert not re.search(r"image: (?!dynamicid-|\$\{)", (project / "docker" / "compose.yaml").read_text())


def test_locked_refuses_what_has_no_digest_and_tags_are_the_default(tmp_path: Path) -> None:
    lock(tmp_path, A=("a:1", DIGEST), B=("org/b:2", NOT_LOCKED))
    assert references(tmp_path, locked=False) == {"A": f"a:1@{DIGEST}", "B": "org/b:2"}
    with pytest.raises(UserError, match=r"not yet locked: org/b:2; `dynamicid stack images --renew`"):
        references(tmp_path, locked=True)
    lock(tmp_path, A=("a:1", DIGEST))
    assert references(tmp_path, locked=True) == {"A": f"a:1@{DIGEST}"}


def test_renewing_asks_the_registry_for_every_tag(tmp_path: Path, registry: Registry) -> None:
    file = lock(
        tmp_path, A=(f"{registry.address}/org/a:1", NOT_LOCKED), B=(f"{registry.address}/b:2", f"sha256:{'0' * 64}")
    )
    assert [image.digest for image in renew(tmp_path)] == [DIGEST, DIGEST]
    assert references(tmp_path, locked=True)["A"] == f"{registry.address}/org/a:1@{DIGEST}"
    assert json.loads(file.read_text())["B"]["digest"] == DIGEST
    assert "/v2/org/a/manifests/1" in registry.asked
    assert "/token?service=s&scope=repository%3Ax%3Apull" in registry.asked


@pytest.mark.parametrize("fault", ["lies", "missing", "away"])
def test_a_registry_that_cannot_be_asked_changes_nothing(tmp_path: Path, registry: Registry, fault: str) -> None:
    address = "127.0.0.1:9" if fault == "away" else registry.address
    registry.says = f"sha256:{'1' * 64}" if fault == "lies" else DIGEST
    file = lock(tmp_path, A=(f"{registry.address}/a:1", NOT_LOCKED), B=(f"{address}/{fault}:2", NOT_LOCKED))
    before = file.read_bytes()
    with pytest.raises(StageFailed, match=r"stays as it is"):
        renew(tmp_path)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", '{"A": "a:1"}', '{"A": {"tag": "a:1"}}', '{"A": {"tag": "a", "digest": "not yet locked"}}'),
        *('{"A": {"tag": "a:1", "digest": "sha256:12"}}', '{"A": {"tag": "a:1 --x", "digest": "not yet locked"}}'),
    ],
)
def test_a_damaged_lock_is_named(tmp_path: Path, text: str) -> None:
    lock(tmp_path).write_text(text)
    with pytest.raises(UserError, match=r"images\.lock\.json: ") as error:
        read_lock(tmp_path)
    assert "\n" not in str(error.value)


def command(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def test_build_passes_the_references_to_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tmp_path / "bin" / "docker"
    engine.parent.mkdir()
    engine.write_text(
        f"#!{sys.executable}\nimport os, sys\nopen({str(tmp_path / 'called')!r}, 'w').write("
        "' '.join(sys.argv[1:]) + ' ' + os.environ['A_IMAGE'])\n"
    )
    engine.chmod(engine.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(engine.parent), prepend=os.pathsep)
    monkeypatch.setattr("pipelines.commands.stack.project_root", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    lock(tmp_path, A_IMAGE=("a:1", NOT_LOCKED))
    assert command("stack", "build", "--locked", "--state", tmp_path / "state") == 2
    assert not (tmp_path / "called").exists()
    assert command("stack", "build", "--state", tmp_path / "state") == 0
    called = (tmp_path / "called").read_text()
    assert called.startswith("compose -f docker/compose.yaml --env-file")
    assert called.endswith("build a:1")
    assert (tmp_path / "state" / "images.env").read_text() == "A_IMAGE=a:1\n"


def test_bills_of_materials_are_valid_and_name_what_is_installed(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx", reason="cyclonedx-bom of the extra `dev` is missing: make env")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    from pipelines.operations.stack.sbom import write_sboms

    files = {file.name.split(".")[0]: file.read_text() for file in write_sboms(project, tmp_path)}
    assert set(files) == {"worker", "airflow", "mlflow", "postgres", "objects"}
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert {name: validator.validate_str(text) for name, text in files.items()} == dict.fromkeys(files)
    parts = {name: {one["name"]: one for one in json.loads(text).get("components", [])} for name, text in files.items()}
    assert parts["worker"]["torch"]["purl"].startswith("pkg:pypi/torch@2.")
    assert parts["worker"]["python"]["purl"] == "pkg:docker/python@3.11-slim-bookworm"
    assert "openjdk-17-jre-headless" in parts["worker"]
    assert "apache-airflow-core" in parts["airflow"], "also what is needed by what is installed"
    assert "torch" not in parts["airflow"]
    assert "celery" not in parts["airflow"], "only with another executor"
    assert "boto3" in parts["mlflow"]
    needs = {one["ref"]: one.get("dependsOn", []) for one in json.loads(files["mlflow"])["dependencies"]}
    assert "pypi/botocore" in needs["pypi/boto3"]
