"""Bring parameter files of older formats up to date."""

from __future__ import annotations

import copy
from collections.abc import MutableMapping
from typing import Any

from pipelines.core.formats.table import KEY, PARAMETERS, check_format

# Keys that a version added, with the values by which a program of that version does what earlier ones did.
_ADDED: dict[int, dict[tuple[str, ...], Any]] = {
    2: {
        ("preprocess", "spark"): {},
        ("train_imr", "gradient_checkpointing"): False,
    },
}


def bring_up_to_date(tree: MutableMapping[str, Any], file: object) -> int:
    """Change the parameter tree of `file` to the present format, and return the version that it stated.

    Added keys are filled in, but not in a profile that extends another, which holds only what differs. Raises UserError
    for a newer format.
    """
    version = check_format(PARAMETERS, file, tree.pop(KEY, None))
    if "extends" not in tree:
        for number in range(version + 1, PARAMETERS.version + 1):
            for (*sections, key), value in _ADDED[number].items():
                place: Any = tree
                for section in sections:
                    place = place.get(section) if isinstance(place, MutableMapping) else None
                if isinstance(place, MutableMapping):
                    place.setdefault(key, copy.deepcopy(value))
    return version
