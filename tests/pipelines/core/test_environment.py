"""What other installations leave in the environment does not reach this project; what is meant for it does."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from pipelines.core.environment import clean_environment, environment, plain_folder, plain_path
from tests.processes import PROJECT, dynamicid

LOOPBACK = ["127.0.0.1", "localhost", "::1", "0.0.0.0"]


@pytest.mark.parametrize(
    "name",
    [
        *("SPARK_HOME", "SPARK_CONF_DIR", "SPARK_LOCAL_DIRS", "SPARK_SUBMIT_OPTS", "PYSPARK_SUBMIT_ARGS"),
        *("PYSPARK_GATEWAY_PORT", "HADOOP_CONF_DIR", "YARN_CONF_DIR", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS"),
        *("JDK_JAVA_OPTIONS", "CLASSPATH", "GIT_DIR", "GIT_INDEX_FILE", "GIT_LITERAL_PATHSPECS", "GIT_TRACE"),
        *("MLFLOW_REGISTRY_URI", "MPLBACKEND"),
        *("DVC_STUDIO_TOKEN", "DVC_EXP_AUTO_PUSH", "DVC_ROOT", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"),
        *("PYTHONHOME", "PYTHONSTARTUP", "PYTHONWARNINGS", "PYTHONIOENCODING", "LC_NUMERIC", "LANGUAGE"),
        *("BASH_ENV", "CDPATH", "BASH_FUNC_dirname%%", "GRADIO_ALLOWED_PATHS"),
    ],
)
def test_settings_of_other_installations_are_dropped(name: str) -> None:
    assert name not in clean_environment({name: "other", "PATH": "/bin"})


@pytest.mark.parametrize(
    "name",
    [
        *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "JAVA_HOME"),
        *("SPARK_LOCAL_IP", "DYNAMICID_HOME", "AIRFLOW_HOME", "DVC_STAGE", "DVC_SITE_CACHE_DIR", "GIT_SSH_COMMAND"),
        *("GIT_AUTHOR_NAME", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_KEY_0", "OMP_NUM_THREADS", "PYTHONUNBUFFERED"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "CUDA_VISIBLE_DEVICES", "HOME", "TMPDIR", "https_proxy", "SSL_CERT_FILE"),
    ],
)
def test_what_is_meant_for_this_project_is_kept(name: str) -> None:
    assert clean_environment({name: "mine"})[name] == "mine"


def test_only_folders_of_the_checkout_stay_on_the_path_of_modules() -> None:
    given = os.pathsep.join(["/opt/ros/lib/python3.10/site-packages", str(PROJECT), str(PROJECT / "dags"), ""])
    assert clean_environment({"PYTHONPATH": given})["PYTHONPATH"].split(os.pathsep) == [
        str(PROJECT),
        str(PROJECT / "dags"),
    ]
    assert "PYTHONPATH" not in clean_environment({"PYTHONPATH": "/opt/ros"})


def test_the_loopback_is_exempt_from_proxies_and_other_hosts_are_not() -> None:
    clean = clean_environment({"no_proxy": "a.example", "NO_PROXY": "10.0.0.0/8, a.example", "all_proxy": "x"})
    assert clean["no_proxy"] == clean["NO_PROXY"] == ",".join(["a.example", "10.0.0.0/8", *LOOPBACK])
    assert clean["all_proxy"] == "x"
    assert clean_environment({"ALL_PROXY": "socks://host:1080/"})["ALL_PROXY"] == "socks5://host:1080/"


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "socks://127.0.0.1:9/"])
def test_every_client_reaches_the_loopback_past_the_proxies(proxy: str) -> None:
    """Clients of a plain and of a cleaned environment: the plain ones ask the proxy, where nobody listens."""
    server = http.server.HTTPServer(("127.0.0.1", 0), _Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    names = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
    given = {"PATH": os.environ["PATH"], **dict.fromkeys(names, proxy)}
    command = [sys.executable, "-c", _CLIENTS, f"http://127.0.0.1:{server.server_port}/"]
    try:
        answers = [
            json.loads(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
            for env in (given, clean_environment(given))
        ]
    finally:
        server.shutdown()
    assert answers[0] != answers[1], "without the mend, clients fail"
    assert set(answers[1].values()) == {200}, answers[1]


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


_CLIENTS = """
import json, sys, urllib.request
import httpx, requests

def status(ask):
    try:
        return ask()
    except Exception as error:
        return type(error).__name__

url = sys.argv[1]
print(json.dumps({
    "requests": status(lambda: requests.get(url, timeout=20).status_code),
    "httpx": status(lambda: httpx.Client(timeout=20).get(url).status_code),
    "urllib": status(lambda: urllib.request.urlopen(url, timeout=20).status),
}))
"""


def test_an_environment_is_replaced_for_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEFORE", "1")
    with environment({"INSIDE": "2"}):
        assert dict(os.environ) == {"INSIDE": "2"}
    assert (os.environ["BEFORE"], "INSIDE" in os.environ) == ("1", False)


@pytest.mark.parametrize("name", ["C# faces", "a,b=c:d", 'it\'s "quoted"', "名前 n\u0303", "n" * 180])
def test_a_path_with_special_characters_has_a_plain_link(tmp_path: Path, name: str) -> None:
    odd = tmp_path / name
    odd.mkdir()
    (odd / "file").write_text("content")
    with plain_path(odd) as link:
        assert (link / "file").read_text() == "content"
        assert link.parent != odd or name == "n" * 180
        assert len(str(link)) < 100 or link == odd
    assert (odd / "file").is_file()
    assert link == odd or not link.exists()


def test_scratch_folders_are_plain_while_tmpdir_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "with space, and comma"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    with plain_folder() as folder:
        assert " " not in str(folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("where", "words"),
    [("a\nb", "a line break or control character in a path; rename"), ("\udcff", "a path that is not UTF-8; rename")],
)
def test_a_folder_that_cannot_be_worked_in_is_refused_by_name(tmp_path: Path, where: str, words: str) -> None:
    (tmp_path / where).mkdir()
    for cwd, env in ((tmp_path / where, {}), (tmp_path, {"TMPDIR": str(tmp_path / where)})):
        error = dynamicid("summary", cwd=cwd, env=env, code=2).stderr
        assert words in error
        assert "Traceback" not in error


def test_braces_that_dvc_cannot_work_with_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "{a,b}" / ".dvc").mkdir(parents=True)
    error = dynamicid("summary", cwd=tmp_path / "{a,b}", code=2).stderr
    assert "{a,b}: DVC cannot work in a folder with braces in its path; rename the folder" in error


def test_a_removed_folder_is_named(tmp_path: Path) -> None:
    script = f'mkdir gone && cd gone && rmdir ../gone && "{sys.executable}" -m pipelines.cli summary'
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, "the current folder was removed" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"},
    ],
)
def test_names_in_any_script_work_in_any_locale(tmp_path: Path, env: dict[str, str]) -> None:
    home = tmp_path / "名前 ñ…"
    home.mkdir()
    error = dynamicid("summary", "--metrics", "größe.json", cwd=home, env=env, code=2).stderr
    assert "Traceback" not in error
    assert "gr" in error


def test_certificates_that_are_gone_are_named_and_ignored(tmp_path: Path) -> None:
    """As after the removal of the conda environment that set the variable: `app` asks its own page by httpx."""
    script = (
        "from pipelines.core.environment import adopt, check_places; adopt(restart=False); check_places(); "
        "import httpx; httpx.Client()"
    )
    here = tmp_path / "present.pem"
    here.touch()
    for given, problem in ((tmp_path / "gone.pem", "gone.pem: no such file or folder; it is ignored"), (here, "")):
        env = {**os.environ, "REQUESTS_CA_BUNDLE": str(here), "SSL_CERT_FILE": str(given), "PYTHONPATH": str(PROJECT)}
        command = [sys.executable, "-c", script if problem else script.partition("import httpx")[0]]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert problem in done.stderr
        assert done.stderr.count("it is ignored") == bool(problem)


def test_a_persons_style_of_plots_changes_no_report(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: true\nfont.size: 40\n")
    script = "import matplotlib; print(matplotlib.rcParams['text.usetex'], matplotlib.rcParams['font.size'])"
    env = clean_environment({**os.environ, "MATPLOTLIBRC": str(tmp_path), "MPLBACKEND": "module://matplotlib_inline"})
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "10.0"]


def test_modules_of_another_installation_are_not_imported(tmp_path: Path) -> None:
    for module in ("yaml", "numpy", "pyarrow", "pydantic"):
        (tmp_path / f"{module}.py").write_text("raise ImportError('a module of another installation')\n")
    path = os.pathsep.join([str(tmp_path), str(PROJECT)])
    done = dynamicid("validate", tmp_path, "--out", tmp_path / "out", cwd=PROJECT, env={"PYTHONPATH": path}, code=2)
    assert "another installation" not in done.stderr
