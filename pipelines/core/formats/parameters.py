"""Bring parameter files of older formats up to date."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

from pipelines.core.formats.table import KEY, PARAMETERS, check_format

Tree = MutableMapping[str, Any]


def bring_up_to_date(tree: Tree, file: object) -> int:
    """Change the parameter tree of `file` to the present format, and return the version that it stated.

    Raises UserError for a newer format.
    """
    version = check_format(PARAMETERS, file, tree.pop(KEY, None))
    for number in range(version, PARAMETERS.version):
        _STEPS[number](tree)
    return version


def _from_1(tree: Tree) -> None:
    """Add the keys that format 1 lacks, with values that do the same; name the words that count as consent.

    In format 1 an empty `rights.consent.allow` permitted whatever was not denied, in format 2 only yes and true.
    """
    # A profile that extends another holds only what differs.
    complete = "extends" not in tree
    rights = tree.get("rights")
    consent = rights.get("consent") if isinstance(rights, MutableMapping) else None
    if isinstance(consent, MutableMapping) and not consent.get("allow", not complete):
        consent["allow"] = ["granted", "given", "agreed", "consented"]
    for section, key, value in (
        (tree.get("preprocess"), "spark", {}),
        (consent, "unknown", "allow"),
        (tree.get("train_imr"), "gradient_checkpointing", False),
    ):
        if complete and isinstance(section, MutableMapping):
            section.setdefault(key, value)


# How a file of each older format becomes one of the next.
_STEPS: dict[int, Callable[[Tree], None]] = {1: _from_1}
