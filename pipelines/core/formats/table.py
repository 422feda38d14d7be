"""The table of formats: a file states the version of its format, and one that states none has version 1.

Version 1 is what release 0.1.0 wrote. To change a format: raise its version, read the older ones where the file is
opened (or migrate them in `dynamicid upgrade`), and write in its row how. A newer version is always refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.formats import ADAPTER, CHECKPOINT, KEY, RECORDS, Format
from pipelines.core.errors import UserError

__all__ = ["KEY"]

PARAMETERS = Format("parameters", 5)
DATASET = Format("a dataset", 3)
PROCESSED = Format("processed rows", 4)
SLICES = Format("results of preprocessing", 2)
CURATION = Format("results of curation", 2)
EXPORT = Format("an export", 2)
TRACKING = Format("a tracking database", 2)
BACKUP = Format("a backup", 2)
STACK = Format("a stack", 2)
FORGOTTEN = Format("the list of the forgotten", 2)
AUDIT = Format("the audit log", 1)
WEIGHTS = Format("a list of networks", 1)
CALIBRATIONS = Format("calibrations", 1)


@dataclass(frozen=True)
class Stored:
    """A format, where its files are and state their version, and how `dynamicid` reads older ones."""

    format: Format
    files: str
    stated: str
    older: str


_AGAIN = "photos are analysed again; old results stay until `clean` removes them"
TABLE = (
    Stored(
        PARAMETERS,
        "`params.yaml`, `profiles/*.yaml`, those of a registered version",
        "key `format`",
        "read, completed with defaults; `upgrade` rewrites `params.yaml` and profiles, with their comments",
    ),
    Stored(
        DATASET,
        "`data/faces/*.parquet`",
        "metadata `dynamicid.format` of each shard",
        "read; shards are never rewritten, and old and new ones may lie side by side",
    ),
    Stored(
        PROCESSED,
        "`data/processed/*.parquet`",
        "metadata `dynamicid.format` of each file",
        "read; a column that it lacks is empty. `dynamicid repro` writes it again",
    ),
    Stored(
        SLICES,
        "`.dynamicid/preprocess`",
        "`.format.json`",
        _AGAIN,
    ),
    Stored(CURATION, "`.dynamicid/curate`", "`.format.json`", _AGAIN),
    Stored(RECORDS, "`.dynamicid/cache/*/*`", "`store.json`", "read and extended"),
    Stored(CHECKPOINT, "`.dynamicid/resume/*/*/step-*`", "`progress.json`", "resumed from"),
    Stored(
        ADAPTER,
        "`models/adapter`, a registered version",
        "`config.json`",
        "read; format 1: by this project's own conventions, 2: by others, 3: of another method than DynamicID, "
        "4: for a transformer",
    ),
    Stored(
        TRACKING,
        "`mlflow.db` or a server's database",
        "tag `dynamicid.format` of the experiment",
        "read; `upgrade` migrates an older MLflow's tables in `mlflow.db`, and states the version",
    ),
    Stored(BACKUP, "folder of `dynamicid backup`", "`manifest.json`", "restored"),
    Stored(STACK, "`.dynamicid/stack`", "`ports.json`", "started; `upgrade` states the version"),
    Stored(EXPORT, "folder of `dynamicid export`", "`.dynamicid.json`", "ingested"),
    Stored(FORGOTTEN, "`data/forgotten.jsonl`", "each line", "asked, in every form of a name that it may hold"),
    Stored(AUDIT, "`.dynamicid/audit.jsonl`", "each line", "there is none"),
    Stored(WEIGHTS, "`weights.lock`, `weights.yaml`", "key `format`", "there is none"),
    Stored(CALIBRATIONS, "`calibrations.yaml`", "key `format`", "there is none"),
)


def check_format(kind: Format, file: object, stated: object) -> int:
    """Return the version that `file` states (None: 1); raise UserError for a newer one or what is not a version."""
    try:
        return kind.check(file, stated)
    except ValueError as error:
        raise UserError(str(error)) from None


def check_text(kind: Format, file: object, stated: str | bytes | None) -> int:
    """Check, as `check_format`, a version that `file` states as text."""
    return check_format(kind, file, int(stated) if stated is not None and stated.isdigit() else stated)
