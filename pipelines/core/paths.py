"""The project's root folder, and how relative paths of `params.yaml` are resolved."""

from __future__ import annotations

from pathlib import Path


def project_root() -> Path:
    """Return the folder that holds `model/` and `pipelines/`: the checkout whose code is running."""
    return Path(__file__).resolve().parents[2]


def resolve(path: str | Path) -> Path:
    """Return `path` if it exists, else `path` below the project root if that exists.

    If neither exists, `path` is returned, so that an error on opening it names what the user wrote.
    """
    given = Path(path).expanduser()
    in_project = project_root() / given
    return in_project if not given.exists() and in_project.exists() else given
