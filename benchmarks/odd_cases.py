"""The places and environments of `odd_places.py`: names that mean something to other programs, and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Addresses of a port on which nobody listens.
_DEAD = "127.0.0.1:9"
_OTHER = "/opt/of another/installation"


@dataclass(frozen=True)
class Case:
    """Odd names, environment variables and settings of git; `{place}` in them is the folder of the case.

    `checkout` names the checkout, `other` HOME, TMPDIR, photos, inbox, DVC remote and backup. With `linked`, commands
    run in a symbolic link to the checkout. `owner` is the user id that the checkout belongs to. A case that is not
    `whole` takes the trainings and the evaluation from the cache of a plain checkout, if that has run before: it gets
    them only with the same bytes of data. `without`: why another program cannot do a step there, by the step's name.
    """

    checkout: str
    other: str
    env: Mapping[str, str] = field(default_factory=dict)
    git: Mapping[str, str] = field(default_factory=dict)
    linked: bool = False
    owner: int | None = None
    whole: bool = False
    without: Mapping[str, str] = field(default_factory=dict)


UNWANTED_GIT = {
    "commit.gpgsign": "true",
    "tag.gpgsign": "true",
    "gpg.program": "/bin/false",
    "user.useConfigOnly": "true",
    "core.autocrlf": "true",
    "core.quotePath": "true",
    "core.hooksPath": "{place}/hooks",
    "core.excludesFile": "{place}/ignored",
    "init.defaultBranch": "trunk",
    "clone.defaultRemoteName": "upstream",
    "fetch.prune": "true",
    "fetch.pruneTags": "true",
    "protocol.file.allow": "never",
    "color.ui": "always",
    "init.templateDir": "{place}/template",
    "push.followTags": "true",
}
"""Settings of a person's git that no command of the project may follow."""
_PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), f"http://{_DEAD}")
CASES: dict[str, Case] = {
    "plain": Case("checkout", "other", whole=True),
    "URL: # and space, proxies": Case("C# faces", "with space", _PROXIES),
    "URL: % and ?, SOCKS proxy": Case(
        "50%20off?x=1",
        "a%2Fb&c=d?e#f",
        {"ALL_PROXY": f"socks5://{_DEAD}"},
        without={"serve": "MLflow decodes the path"},
    ),
    "shell: quotes, other Spark": Case(
        "a b'c\"d",
        'it\'s "quoted" `id`',
        {
            "SPARK_HOME": _OTHER,
            "SPARK_CONF_DIR": _OTHER,
            "PYSPARK_SUBMIT_ARGS": "--master yarn --jars /none.jar pyspark-shell",
            "PYSPARK_PYTHON": f"{_OTHER}/python",
            "SPARK_LOCAL_DIRS": f"{_OTHER}/scratch",
            "HADOOP_CONF_DIR": _OTHER,
        },
    ),
    "shell: $HOME and ;, other Java": Case(
        "$HOME $(id)",
        "; & | > <",
        {"JAVA_TOOL_OPTIONS": "-Duser.language=tr -Duser.country=TR", "_JAVA_OPTIONS": "-Xmx8m", "CLASSPATH": _OTHER},
    ),
    "globs: *[x]?, other Python": Case(
        "*[x]?",
        "[!a]*~@u",
        {"PYTHONPATH": "{place}/foreign", "PYTHONSTARTUP": "/none.py", "PYTHONWARNINGS": "error", "MLFLOW_RUN_ID": "0"},
        without={"serve": "MLflow itself is shadowed"},
    ),
    "lists: , = and :, hook of git": Case(
        "a,b=c;d",
        "x,y=z:w::v",
        {"GIT_DIR": "{place}/none.git", "GIT_WORK_TREE": "/", "GIT_INDEX_FILE": "/none", "GIT_LITERAL_PATHSPECS": "1"},
    ),
    "composed 名前 ñ, no UTF-8": Case("名前 \u00f1", "\u00fc\u00f1", {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}),
    "options: --rf, Turkish": Case("--rf", "-v", {"LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8"}),
    "180 characters, linked, decomposed ñ": Case("n" * 180, "n\u0303 名前", {"LANG": "C"}, linked=True),
    "git: signatures, hooks, no identity": Case(
        "g i t",
        "home of git",
        git=UNWANTED_GIT,
    ),
    "somebody else's checkout, allowed": Case("theirs", "mine", git={"safe.directory": "*"}, owner=65534),
}
