"""Run the whole chain in folders with odd names, under odd environments, and print a table of name × step.

    python benchmarks/odd_places.py --out table.md

Each case puts the checkout with its virtual environment, HOME, TMPDIR, the photos, the inbox, the DVC remote and the
backup into folders whose names mean something to URLs, shells, SQL, Java options, globs or file systems, and adds
environment variables and settings of git that other programs leave behind.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configobj import ConfigObj

from benchmarks.odd_cases import CASES, Case
from benchmarks.serving_load import free_port, served
from pipelines.core.files import atomic_folder

PROJECT = Path(__file__).resolve().parents[1]
# The smallest chain: six people, two steps of each training, few pictures. The gate is one that every model passes.
SMALL = (
    "preprocess.test_share=0.4",
    "preprocess.val_share=0.2",
    "preprocess.buckets=1",
    "preprocess.master=local[1]",
    "train_anchoring.steps=2",
    "train_imr.steps=2",
    "evaluate.people=2",
    "evaluate.prompts=1",
    "evaluate.several_people.two=1",
    "evaluate.steps=2",
    "evaluate.bootstrap=20",
    "register.gates=[{metric: face_rate, minimum: 0.0, max_regression: 1.0}]",
    "inbox.quiet_seconds=0",
)


class Chain:
    """One case in the folder `place`: the steps are its methods, in the order of `STEPS`."""

    def __init__(self, case: Case, prepared: Path, place: Path) -> None:
        self.place, self.batch = place, case.checkout
        others = place / "other" / case.other
        names = ("home", "tmp", "photos", "inbox", "remote", "backup")
        self.home, self.tmp, self.photos, self.inbox, self.remote, self.backup_folder = (
            others / each for each in names
        )
        real = place / "there" / case.checkout
        shutil.copytree(prepared / "checkout", real, symlinks=True)
        for folder in (self.home, self.tmp, self.inbox):
            folder.mkdir(parents=True)
        shutil.copytree(prepared / "photos", self.photos)
        self.root = place / "there" / "link" if case.linked else real
        if case.linked:
            self.root.symlink_to(real)
        if not case.whole and (prepared / "cache").is_dir():
            shutil.copytree(prepared / "cache", real / ".dvc" / "cache")
        self.python = self._virtual_environment(real)
        self._odd_files()
        if case.git:
            lines = (
                f"[{key.rpartition('.')[0]}]\n\t{key.rpartition('.')[2]} = {value}" for key, value in case.git.items()
            )
            (self.home / ".gitconfig").write_text("\n".join(lines).replace("{place}", str(place)), encoding="utf-8")
        if case.owner is not None:
            subprocess.run(["chown", "-R", str(case.owner), str(real)], check=True)
        kept = ("PATH", "OMP_NUM_THREADS", "JAVA_HOME")
        self.env = {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "PATH": os.pathsep.join([str(self.python.parent), os.environ["PATH"]]),
            **{name: value.replace("{place}", str(place)) for name, value in case.env.items()},
        }

    def _virtual_environment(self, root: Path) -> Path:
        """Make an environment in the checkout, as `make env` does, with the packages of this one; return its Python."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / ".venv"], check=True)
        packages = next((root / ".venv" / "lib").glob("python*")) / "site-packages"
        own = [path for path in sys.path if path.endswith("site-packages")]
        # As pip does it: a module may hold any path, while a .pth file is read in the encoding of the locale.
        (packages / "shared.pth").write_text("import shared_folders\n", encoding="utf-8")
        folders = [str(path) for path in (root, *own)]
        (packages / "shared_folders.py").write_text(f"import sys\nsys.path += {folders}\n", encoding="utf-8")
        server = root / ".venv" / "bin" / "uvicorn"
        server.write_text('#!/bin/sh\nexec "$(dirname "$0")/python" -m uvicorn "$@"\n')
        server.chmod(0o755)
        return root / ".venv" / "bin" / "python"

    def _odd_files(self) -> None:
        """Write what the cases refer to: failing hooks, a list that ignores everything, modules that must not load."""
        hooks = self.place / "hooks"
        hooks.mkdir()
        for name in ("pre-commit", "commit-msg", "post-checkout", "pre-push", "reference-transaction", "pre-receive"):
            (hooks / name).write_text("#!/bin/sh\necho this hook must not run >&2\nexit 1\n")
            (hooks / name).chmod(0o755)
        (self.place / "ignored").write_text("*.dvc\ndata\n*.lock\n*.yaml\n")
        foreign = self.place / "foreign"
        foreign.mkdir()
        for module in ("numpy", "yaml", "pyarrow", "dvc", "pyspark", "mlflow"):
            (foreign / f"{module}.py").write_text("raise ImportError('a module of another installation')\n")

    def command(self, *arguments: str | Path, code: int = 0) -> str:
        """Run `dynamicid …` in the checkout; return what it prints to stdout, raise RuntimeError with its error."""
        done = subprocess.run(
            [self.python, "-m", "pipelines.cli", *map(str, arguments)],
            cwd=self.root,
            env={**self.env, "PWD": str(self.root)},
            capture_output=True,
            check=False,
        )
        error = done.stderr.decode(errors="replace")
        if done.returncode != code or "Traceback" in error:
            raise RuntimeError(f"{' '.join(map(str, arguments))}: exit {done.returncode}: {error[-3000:]}")
        return done.stdout.decode()

    def run(self, *command: str | Path) -> str:
        """Run another program in the checkout, with a plain environment; return what it prints."""
        plain = {**{name: self.env[name] for name in ("PATH", "HOME")}, "LC_ALL": "C.UTF-8"}
        config = {"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
        config |= {"GIT_CONFIG_KEY_1": "core.hooksPath", "GIT_CONFIG_VALUE_1": os.devnull}
        done = subprocess.run(
            command, cwd=self.root, env={**plain, **config}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{command}: exit {done.returncode}: {done.stderr[-3000:]}")
        return done.stdout

    def ingest(self) -> None:
        """Ingest the photos of all people but two; their version goes to the DVC remote."""
        # `dvc remote add` would write ASCII only.
        config = ConfigObj(str(self.root / ".dvc" / "config.local"), encoding="utf-8")
        config.update({"core": {"remote": "store"}, 'remote "store"': {"url": str(self.remote)}})
        config.write()
        people = sorted(self.photos.iterdir())
        batch = self.inbox / self.batch
        batch.mkdir()
        for person in people[-2:]:
            person.rename(batch / person.name)
        version = json.loads(self.command("ingest", self.photos, "--out", "data/faces"))["version"]
        assert version["tag"] == "faces-v1", version

    def inbox_batch(self) -> None:
        """Add the photos of the other two people from the inbox."""
        run = ("--run-id", "odd/run: 1", "--inbox", str(self.inbox))
        ready = json.loads(self.command("inbox", "ready", "--inbox", self.inbox))
        assert ready["ready"] == [self.batch], ready
        self.command("inbox", "take", *run)
        added = json.loads(self.command("inbox", "add", *run))
        assert sum(added.values()) == 20, added
        published = json.loads(self.command("inbox", "publish"))
        assert published["tag"] == "faces-v2", published
        self.command("inbox", "done", *run)

    def repro(self) -> None:
        """Run and record every stage; validation and preprocessing always run here."""
        self.command("repro", "validate", "preprocess", "validate_processed", "--force")
        self.command("repro")

    def register(self) -> None:
        """Register the model, which becomes champion."""
        done = json.loads(self.command("register").splitlines()[-1])
        assert done["decision"] == "promoted", done

    def serve(self) -> None:
        """Serve the champion with MLflow and ask for one picture."""
        photo = next(iter(sorted((self.photos).rglob("*.jpg"))))
        row = {"references": [base64.b64encode(photo.read_bytes()).decode()], "prompt": "a photo of a person"}
        address = json.loads(self.run(self.python, "-c", _ADDRESS, str(self.root)))
        with served("models:/dynamicid@champion", python=self.python, cwd=self.root, env=self.env | address) as url:
            answer = _ask(f"{url}/invocations", {"dataframe_records": [row]})
        assert answer["predictions"][0]["image"]

    def app(self) -> None:
        """Serve the page and load it."""
        command = [str(self.python), "-m", "pipelines.cli", "app", "--port", str(free_port())]
        with (self.place / "app.log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=self.root, env=self.env, stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise RuntimeError((self.place / "app.log").read_text()[-3000:])
            assert b"gradio" in _ask(json.loads(line)["url"])
        finally:
            process.terminate()
            process.wait(60)

    def workspace(self) -> None:
        """Make the workspace of a run and reproduce the registered version; nothing is left to run there."""
        self.command("workspace", "create", "--run-id", "manual: 1")
        target = self.place / "there" / "reproduced ?#"
        self.command("reproduce", "models:/dynamicid@champion", "--out", target)
        assert (target / "models" / "adapter" / "config.json").is_file()

    def backup(self) -> None:
        """Back everything up."""
        self.before = self._state()
        assert any(name.startswith("mlartifacts") for name in self.before), "there are artefacts"
        self.command("backup", "--out", self.backup_folder)

    def restore(self) -> None:
        """Lose the database, the artefacts and the tags, and restore them."""
        (self.root / "mlflow.db").unlink()
        shutil.rmtree(self.root / "mlartifacts")
        for tag in self.run("git", "tag").split():
            self.run("git", "tag", "-d", tag)
        self.command("restore", self.backup_folder)

    def compare(self) -> None:
        """Every row, artefact and tag is as before; the DVC remote has the data."""
        assert self._state() == self.before
        shutil.rmtree(self.root / "data" / "faces")
        shutil.rmtree(self.root / ".dvc" / "cache")
        self.run(self.python, "-m", "dvc", "pull", "data/faces.dvc")
        assert list((self.root / "data" / "faces").glob("*.parquet"))

    def _state(self) -> dict[str, Any]:
        """Return every row of MLflow's database, the hash of every artefact, and every tag with its object."""
        state: dict[str, Any] = {}
        with closing(sqlite3.connect(self.root / "mlflow.db")) as database:
            tables = database.execute("select name from sqlite_master where type = 'table'").fetchall()
            for (table,) in tables:
                for number, row in enumerate(sorted(map(repr, database.execute(f'select * from "{table}"')))):
                    state[f"{table} {number}"] = row
        for file in sorted((self.root / "mlartifacts").rglob("*")):
            if file.is_file():
                state[str(file.relative_to(self.root))] = hashlib.sha256(file.read_bytes()).hexdigest()
        state["tags"] = self.run("git", "show-ref", "--tags")
        return state


STEPS: dict[str, Callable[[Chain], None]] = {
    "ingest": Chain.ingest,
    "inbox": Chain.inbox_batch,
    "repro": Chain.repro,
    "register": Chain.register,
    "serve": Chain.serve,
    "app": Chain.app,
    "workspace": Chain.workspace,
    "backup": Chain.backup,
    "restore": Chain.restore,
    "compare": Chain.compare,
}
_ADDRESS = """
import json, sys
from pathlib import Path
from pipelines.registry.settings import own_uri
print(json.dumps({"MLFLOW_TRACKING_URI": own_uri(Path(sys.argv[1]))}))
"""


def _ask(url: str, payload: Any = None) -> Any:
    body = None if payload is None else json.dumps(payload).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=600) as answer:
        content = answer.read()
    return content if payload is None else json.loads(content)


def prepare(folder: Path) -> Path:
    """Fill `folder` with what the cases copy: a fresh checkout with small parameters, and photos; return it."""
    checkout = folder / "checkout"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=PROJECT, capture_output=True, check=True
    )
    for name in map(os.fsdecode, listed.stdout.split(b"\0")):
        if name and not name.startswith("data/") and name != "dvc.lock" and (PROJECT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, checkout / name)
    changes = [word for change in SMALL for word in ("--set", change)]
    drawn = ("synthesize", "--identities", "6", "--photos", "10", "--out", str(folder / "photos"))
    for command in (("configure", "--profile", "tiny", *changes), drawn):
        subprocess.run([sys.executable, "-m", "pipelines.cli", *command], cwd=checkout, check=True, capture_output=True)
    author = ("-c", "user.name=odd", "-c", "user.email=odd@localhost")
    for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), (*author, "commit", "-qm", "A fresh checkout")):
        subprocess.run(["git", *arguments], cwd=checkout, check=True)
    return folder


def run_case(case: Case, prepared: Path, place: Path, steps: tuple[str, ...] = tuple(STEPS)) -> dict[str, float]:
    """Run the steps of a case in the new folder `place`; return their seconds. Raises where one fails.

    The trainings and the evaluation of the first whole case stay in `prepared`.
    """
    chain = Chain(case, prepared, place)
    seconds = {}
    for name in (name for name in steps if name not in case.without):
        started = time.monotonic()
        STEPS[name](chain)
        seconds[name] = round(time.monotonic() - started, 1)
        print(f"{name} {seconds[name]}", file=sys.stderr, flush=True)
        if name == "repro" and not (prepared / "cache").exists():
            with atomic_folder(prepared / "cache") as part:
                shutil.copytree(chain.root / ".dvc" / "cache", part, dirs_exist_ok=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="a new folder for everything")
    parser.add_argument("--steps", nargs="*", choices=list(STEPS), default=list(STEPS), help="default: all")
    parser.add_argument("--only", action="append", help="a case; default: all")
    parser.add_argument("--out", type=Path, help="also write the table, in Markdown, to this file")
    options = parser.parse_args()
    prepared = options.folder / "prepared"
    if not prepared.is_dir():
        prepare(prepared)
    rows = []
    for number, name in enumerate(options.only or CASES):
        place = options.folder / f"{number}-{time.time_ns()}"
        place.mkdir()
        print(name, file=sys.stderr)
        try:
            seconds = run_case(CASES[name], prepared, place, tuple(options.steps))
            cells = [
                f"{seconds[step]:.0f} s" if step in seconds else CASES[name].without[step] for step in options.steps
            ]
            shutil.rmtree(place)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            cells = ["**failed**"]
        rows.append(f"| {name} | {' | '.join(cells)} |")
        table = "\n".join([f"| case | {' | '.join(STEPS)} |", "|---" * (len(STEPS) + 1) + "|", *rows]) + "\n"
        if options.out:
            options.out.write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
