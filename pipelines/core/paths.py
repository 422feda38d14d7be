"""Where the project lies and how the relative paths of `params.yaml` are found."""

from __future__ import annotations

from pathlib import Path

import model


def project_root() -> Path:
    """Return the folder that holds `model/` and `pipelines/`: the checkout whose code is running."""
    return Path(model.__file__).resolve().parent.parent


def resolve(path: str | Path) -> Path:
    """Return an existing path: as given, relative to the working directory, or relative to the project root.

    Where neither exists the path is returned as given, and whoever opens it reports it missing.
    """
    given = Path(path).expanduser()
    if given.is_absolute() or given.exists():
        return given
    shipped = project_root() / given
    return shipped if shipped.exists() else given
