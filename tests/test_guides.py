"""Every command of the guides exists, with every option that a guide gives it."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import pytest

from pipelines.core.params import load_params
from tests.guides import check_command, commands, section

PAGES = sorted(path.name for path in (Path(__file__).parents[1] / "docs" / "guides").glob("*.md"))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_has_the_options_that_the_guide_gives_it(project: Path, page: str) -> None:
    for command in commands((project / "docs" / "guides" / page).read_text(encoding="utf-8")):
        words = shlex.split(command, comments=True)
        ends = [at for at, word in enumerate(words) if word in ("&&", "||", "|")] + [len(words)]
        for start, end in zip([-1, *ends], ends, strict=False):
            part = words[start + 1 : end]
            if "dynamicid" in part:
                check_command(part[part.index("dynamicid") + 1 :])


@pytest.mark.parametrize("profile", ["sd15", "photographs"])
@pytest.mark.parametrize("heading", ["Fewer photos", "Only what can be fetched", "Your photos and their labels"])
def test_the_settings_of_the_guide_fit_the_profiles(project: Path, profile: str, heading: str) -> None:
    for command in commands(section(project / "docs/guides/own-photos.md", heading)):
        words = shlex.split(command, comments=True)
        changes = [value for word, value in itertools.pairwise(words) if word == "--set"]
        load_params(project / "profiles" / f"{profile}.yaml", changes)
