"""State the version of a format in the metadata of a Parquet file, and check that of a file."""

from __future__ import annotations

import pyarrow as pa

from pipelines.core.formats.table import Format, check_text

_STATED = b"dynamicid.format"


def stating(kind: Format, schema: pa.Schema) -> pa.Schema:
    """Return `schema` with the version that this program writes in its metadata."""
    return schema.with_metadata({**(schema.metadata or {}), _STATED: str(kind.version).encode()})


def check_schema(kind: Format, file: object, schema: pa.Schema) -> int:
    """Return the version of the file with this `schema`; raise UserError for a newer one."""
    return check_text(kind, file, (schema.metadata or {}).get(_STATED))
