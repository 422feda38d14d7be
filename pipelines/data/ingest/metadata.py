"""Read labels from `metadata.jsonl` beside photos: a JSON object per line, which names its photo by `file_name`.

Hugging Face's image folders and exports of this project have this file. It overrides text files and folder names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pipelines.data.ingest.consistentid import entries_of, labels_of
from pipelines.data.ingest.photo_files import FoundPhoto, Labels, Skipped

NAME = "metadata.jsonl"


def read_metadata(root: Path) -> dict[str, Labels]:
    """Return `file_name` → labels of `root`/metadata.jsonl; {} where there is no such file or it is a link.

    Raises UserError where it is not a list of objects in UTF-8.
    """
    file = root / NAME
    if not file.is_file() or file.is_symlink():
        return {}
    named = ((entry.get("file_name"), entry) for entry in entries_of(file))
    return {name: labels_of(entry) for name, entry in named if isinstance(name, str)}


def with_metadata(items: Iterable[FoundPhoto | Skipped], known: Mapping[str, Labels]) -> Iterator[FoundPhoto | Skipped]:
    """Yield the items with their labels updated by `known`, without metadata.jsonl itself."""
    for item in items:
        if isinstance(item, FoundPhoto) and (labels := known.get(item.file_name)) is not None:
            yield replace(item, labels=item.labels.updated(labels))
        elif not (isinstance(item, Skipped) and item.file_name == NAME and known):
            yield item
