"""The table of differences from the published method agrees with the full-size profile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from pipelines.core.params import load_params

# Parameters of the method itself: the full-size profile keeps the published values.
METHOD = ("tokens", "lora_rank", "gate_threshold", "drop_text", "drop_identity", "drop_both", "helpers", "sampler")


def table(project: Path) -> dict[str, dict[str, Any]]:
    """Return {parameter: {column: value}} of the table in docs/reference/published.md."""
    text = (project / "docs" / "reference" / "published.md").read_text("utf-8")
    rows = re.findall(r"^\| `((?:train|evaluate)[a-z_.]+)` \| (.+) \| (.+) \|$", text, re.MULTILINE)
    return {name: dict(zip(("published", "sd15"), map(yaml.safe_load, values), strict=True)) for name, *values in rows}


def value_of(tree: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        tree = tree[part]
    return tree


def test_the_table_agrees_with_the_profile(project: Path) -> None:
    tree = load_params(project / "profiles" / "sd15.yaml").model_dump(by_alias=True)
    rows = table(project)
    assert len(rows) >= 25
    assert {name: row["sd15"] for name, row in rows.items()} == {name: value_of(tree, name) for name in rows}


def test_the_full_size_profile_keeps_the_method(project: Path) -> None:
    rows = {name.rsplit(".", 1)[1]: row for name, row in table(project).items()}
    for name in METHOD:
        assert rows[name]["sd15"] == rows[name]["published"], name


def test_every_published_value_is_accepted(project: Path) -> None:
    overrides = [f"{name}={yaml.safe_dump(row['published']).splitlines()[0]}" for name, row in table(project).items()]
    params = load_params(project / "profiles" / "sd15.yaml", overrides).model_dump(by_alias=True)
    for name, row in table(project).items():
        assert value_of(params, name) == row["published"], name
