"""The environment of this process and of every program that it starts, whatever a shell or another program left there.

`clean_environment` drops what belongs to other installations and keeps what is meant for this project; the command line
applies it to its own process first (`adopt`), so that libraries and child processes inherit it, too. What is dropped
and kept: docs/reference/files.md.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.paths import project_root
from pipelines.core.screen import guard

# Settings of other installations and of programs that called this one; a few of them are kept, below.
_DROPPED = re.compile(
    r"(SPARK|PYSPARK|HADOOP|YARN|GIT|DVC|GRADIO)_.*|PYTHON.*|LC_.*|BASH_FUNC_.*"
    r"|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|JAVA_OPTS|CLASSPATH"
    r"|LANG|LANGUAGE|BASH_ENV|ENV|CDPATH|SHELLOPTS|BASHOPTS|POSIXLY_CORRECT|GLOBIGNORE"
    r"|_MLFLOW_.*|MLFLOW_(RUN_ID|RUN_CONTEXT|EXPERIMENT_ID|EXPERIMENT_NAME|ACTIVE_MODEL_ID|REGISTRY_URI)|MPLBACKEND"
)
_KEPT = re.compile(
    r"SPARK_(LOCAL_IP|LOCAL_HOSTNAME|PUBLIC_DNS)"
    r"|PYTHON(UNBUFFERED|DONTWRITEBYTECODE|HASHSEED|PYCACHEPREFIX|FAULTHANDLER|NOUSERSITE)"
    r"|GRADIO_(ANALYTICS_ENABLED|ROOT_PATH|TEMP_DIR)"
    r"|DVC_(STAGE|NO_ANALYTICS|GLOBAL_CONFIG_DIR|SYSTEM_CONFIG_DIR|SITE_CACHE_DIR)"
    # Who commits, how a server is reached, and the files and settings of git that a person chose.
    r"|GIT_((AUTHOR|COMMITTER)_(NAME|EMAIL|DATE)|SSH.*|ASKPASS|TERMINAL_PROMPT|SSL_.*|HTTP_.*|PROXY_.*)"
    r"|GIT_(CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+)|CEILING_DIRECTORIES|DISCOVERY_ACROSS_FILESYSTEM)"
)
# Python itself reads these before any line of this project.
_READ_AT_START = ("PYTHONWARNINGS", "PYTHONOPTIMIZE", "PYTHONINSPECT", "PYTHONIOENCODING")
_UTF8_LOCALE = "C.UTF-8" if sys.platform.startswith("linux") else "en_US.UTF-8"
# Servers of this project and their clients talk over the loopback: no proxy can reach it.
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
# Lists of certificates: HTTP clients read them also where they only call the loopback.
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# Characters that no list of paths, Java option, address or shell line takes for anything but themselves.
_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)
# A socket's path has at most 107 bytes on Linux, 103 on macOS.
_SHORT = 60


def clean_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return `environ` (default: this process's) without settings of other installations, in UTF-8 and English.

    Of PYTHONPATH only folders of this checkout are kept. Loopback addresses are exempt from proxies.
    """
    given = os.environ if environ is None else environ
    clean = {name: value for name, value in given.items() if _KEPT.fullmatch(name) or not _DROPPED.fullmatch(name)}
    if own := os.pathsep.join(own_folders(given.get("PYTHONPATH", ""))):
        clean["PYTHONPATH"] = own
    clean |= {"LC_ALL": _UTF8_LOCALE, "LANG": _UTF8_LOCALE, "PYTHONUTF8": "1"}
    clean["GIT_OPTIONAL_LOCKS"] = "0"  # a git that only reads, killed, would leave the lock of the index
    clean["MATPLOTLIBRC"] = os.devnull  # a person's style of plots would change reports, or need LaTeX
    listed = ",".join(given.get(name, "") for name in ("no_proxy", "NO_PROXY")).split(",")
    exempt = ",".join(dict.fromkeys([*filter(None, map(str.strip, listed)), *_LOOPBACK]))
    clean |= {"no_proxy": exempt, "NO_PROXY": exempt}
    for name in (word for each in _PROXIES for word in (each, each.upper())):
        # Desktops write socks://, which no library reads.
        if clean.get(name, "").startswith("socks://"):
            clean[name] = f"socks5{clean[name].removeprefix('socks')}"
    return clean


def own_folders(python_path: str) -> list[str]:
    """Return the folders of a PYTHONPATH that are in this checkout, and where its archive was unpacked."""
    root = project_root()
    return [entry for entry in python_path.split(os.pathsep) if entry and Path(entry).resolve().is_relative_to(root)]


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Let this process have exactly the environment `values` during the block, for libraries that read it."""
    before = dict(os.environ)
    try:
        _replace(values)
        yield
    finally:
        _replace(before)


def _replace(values: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(values):
        del os.environ[name]
    os.environ.update(values)


def adopt(*, restart: bool) -> None:
    """Clean this process's environment, once, before libraries are imported.

    With `restart`, a process that Python has already started otherwise (names that are not UTF-8, modules of another
    installation, warnings as errors) is replaced by one with the same command line.
    """
    given = os.environ.get("PYTHONPATH", "")
    foreign = len(own_folders(given)) < len([entry for entry in given.split(os.pathsep) if entry])
    started_otherwise = (
        foreign
        or (sys.getfilesystemencoding() != "utf-8" and "utf8" not in sys._xoptions)
        or any(os.environ.get(name) for name in _READ_AT_START)
    )
    _replace(clean_environment())
    if restart and started_otherwise and not sys.flags.ignore_environment:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    guard()


def check_places() -> None:
    """Raise UserError where the current folder, the checkout, Python's environment or TMPDIR cannot be worked in.

    Variables that name certificates at a place that does not exist are dropped with a message.
    """
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise UserError("the current folder was removed; `cd` into a folder that exists") from None
    try:
        scratch = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UserError(f"{error.strerror}; set TMPDIR to a folder that you can write to") from None
    home, python = os.environ.get("HOME", ""), str(Path(sys.executable).parent)
    places = {"the current folder": str(here), "the checkout": str(project_root()), "TMPDIR": scratch, "HOME": home}
    for name, path in {**places, "the environment of Python": python}.items():
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
            raise UserError(f"{name}, {path!r}: a line break or control character in a path; rename the folder")
        if any("\ud800" <= letter <= "\udfff" for letter in path):
            raise UserError(f"{name}, {os.fsencode(path)!r}: a path that is not UTF-8; rename the folder")
    for name in _CERTIFICATES:
        if not all(map(os.path.exists, filter(None, os.environ.get(name, "").split(os.pathsep)))):
            print(f"{name}={os.environ.pop(name)}: no such file or folder; it is ignored", file=sys.stderr)
    if set(str(here)) & set("'\":\\"):
        # MLflow pastes the folder of its first experiment into SQL; as an address it has none of these characters.
        os.environ.setdefault("_MLFLOW_SERVER_ARTIFACT_ROOT", (here / "mlruns").as_uri())
    if (here / ".dvc").is_dir() and any(brace in str(here) for brace in "{}"):
        raise UserError(f"{here}: DVC cannot work in a folder with braces in its path; rename the folder")
    if os.pathsep in python:
        raise UserError(
            f"the environment of Python, {python}: {os.pathsep!r} separates the folders of PATH, so programs in this "
            "one cannot be run by name; make the environment in another folder"
        )


@contextmanager
def plain_path(path: Path) -> Iterator[Path]:
    """Yield `path`, or a short symbolic link to it while it has characters that mean something to other programs."""
    if _PLAIN.fullmatch(str(path)):
        yield path
        return
    with plain_folder() as folder:
        (folder / "to").symlink_to(path.resolve())
        yield folder / "to"


@contextmanager
def plain_folder() -> Iterator[Path]:
    """Yield a new, empty folder in `plain_temporary`; it is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="dynamicid-", dir=plain_temporary()) as folder:
        yield Path(folder)


def plain_temporary() -> str:
    """Return TMPDIR, or the system's folder while TMPDIR has a long path or special characters."""
    given = tempfile.gettempdir()
    candidates = [each for each in (given, "/tmp", "/var/tmp") if _PLAIN.fullmatch(each) and len(each) < _SHORT]
    return next((each for each in candidates if os.access(each, os.W_OK)), given)
