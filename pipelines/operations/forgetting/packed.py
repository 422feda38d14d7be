"""Read what is in a file: its bytes, or those of the members of archives and of compressed files, at any depth."""

from __future__ import annotations

import io
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from pipelines.data.ingest.webdataset_tar import COMPRESSED

_ZIP = b"PK\x03\x04"
# Formats that the standard library does not unpack: 7z, RAR, Zstandard, LZ4.
_OTHERS = (b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
_IN_MEMORY = 2**24
_ERRORS = (
    *(OSError, EOFError, ValueError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error),
)


class Unreadable(Exception):
    """An archive that cannot be unpacked, or not to its end."""


def is_packed(start: bytes) -> bool:
    """Whether a file that begins with these bytes, 512 where it has them, is an archive or is compressed."""
    return start.startswith((*COMPRESSED, _ZIP, *_OTHERS)) or start[257:262] == b"ustar"


def contents(raw: Any, name: str) -> Iterator[tuple[str, io.BufferedReader]]:
    """Yield name and bytes of a file, or of everything that is packed in it; read each before asking for the next.

    Raises Unreadable after what could be read.
    """
    stream = io.BufferedReader(raw)
    start = stream.peek(512)
    if not is_packed(start):
        yield name, stream
        return
    try:
        for magic, opened in COMPRESSED.items():
            if start.startswith(magic):
                with opened(stream) as inner:
                    yield from contents(inner, name.rpartition(".")[0])
        if start.startswith(_OTHERS):
            raise Unreadable("its format is not read")
        if start.startswith(_ZIP):
            with tempfile.SpooledTemporaryFile(_IN_MEMORY) as copy:
                shutil.copyfileobj(stream, copy)
                with zipfile.ZipFile(copy) as archive:
                    for info in archive.infolist():
                        with archive.open(info) as member:
                            yield from contents(member, info.filename)
        elif start[257:262] == b"ustar":
            with tarfile.open(fileobj=stream, mode="r|") as members:
                for entry in members:
                    if (inner := members.extractfile(entry)) is not None:
                        yield from contents(inner, entry.name)
    except _ERRORS as error:
        raise Unreadable(str(error) or type(error).__name__) from None
