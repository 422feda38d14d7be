"""Every command of the guides exists, with every option that a guide gives it."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from pipelines.cli import app
from pipelines.core.params import load_params
from tests.guides import commands, section

PAGES = sorted(path.name for path in (Path(__file__).parents[1] / "docs" / "guides").glob("*.md"))


def _check(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "get_command") and words:
        name, *words = words
        found = command.get_command(command.context_class(command), name)
        assert found is not None, f"no command {name}"
        command = found
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--json", "--help"}
    given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert given <= known


@pytest.mark.parametrize("page", PAGES)
def test_every_command_has_the_options_that_the_guide_gives_it(project: Path, page: str) -> None:
    for command in commands((project / "docs" / "guides" / page).read_text(encoding="utf-8")):
        words = shlex.split(command, comments=True)
        ends = [at for at, word in enumerate(words) if word in ("&&", "||", "|")] + [len(words)]
        for start, end in zip([-1, *ends], ends, strict=False):
            part = words[start + 1 : end]
            if "dynamicid" in part:
                _check(part[part.index("dynamicid") + 1 :])


@pytest.mark.parametrize("profile", ["sd15", "photographs"])
@pytest.mark.parametrize("heading", ["Fewer photos", "Only what can be fetched", "Your photos and their labels"])
def test_the_settings_of_the_guide_fit_the_profiles(project: Path, profile: str, heading: str) -> None:
    for command in commands(section(project / "docs/guides/own-photos.md", heading)):
        words = shlex.split(command, comments=True)
        changes = [value for word, value in itertools.pairwise(words) if word == "--set"]
        load_params(project / "profiles" / f"{profile}.yaml", changes)
