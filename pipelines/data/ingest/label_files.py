"""Parse label files: text beside a photo, JSON of one photo, and tables with an entry per photo.

Text is UTF-8, UTF-16 or UTF-32, with or without a byte order mark. A table is a JSON list, an object of objects by
photo name, one object per line, CSV with any of `,` `;` `|` and tabs, or Parquet.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.core.paths import refuse_pointers
from pipelines.data.ingest.label_values import KEYS, MISSING, is_shared, merged, names_consent, normal_entry
from pipelines.data.ingest.parquet_files import FAULTS, Unpacks, batches
from pipelines.data.ingest.photo_files import is_picture_name, one_line

CAPTIONS: tuple[str, ...] = (".txt", ".caption")
JSON_LINES: tuple[str, ...] = (".jsonl", ".ndjson")
TABLES: tuple[str, ...] = (".json", *JSON_LINES, ".csv", ".tsv", ".parquet")
# Formats that hold labels, and that are not read.
UNREAD: tuple[str, ...] = (
    *(".xmp", ".xml", ".yaml", ".yml", ".xlsx", ".xls", ".ods", ".cls", ".arrow", ".feather", ".orc", ".avro"),
    *(".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar", ".mat", ".pkl", ".pickle", ".db", ".sqlite", ".sqlite3"),
)
# Formats and files that hold none, whatever they mention: tensors, landmarks, checksums, films, programs, pages.
_NO_LABELS: tuple[str, ...] = (
    *(".pt", ".pth", ".bin", ".npy", ".npz", ".safetensors", ".onnx", ".pts", ".md5", ".sha1", ".sha256"),
    *(".mp4", ".mov", ".avi", ".webm", ".wav", ".thm", ".aae", ".py", ".sh", ".ipynb"),
    *(".html", ".htm", ".css", ".js"),
)
_NO_LABEL_FILES = frozenset(
    {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "thumbs.db", "desktop.ini"}
)
_README = re.compile(r"read ?me\b.*", re.IGNORECASE)

BAD_CAPTION = "text beside a photo that is not UTF-8 or UTF-16, or longer than 64 KB; the photo has no prompt"
LONG_CAPTION = "text of more than two lines; the first is the prompt, the second the face prompt"
BAD_JSON = "JSON of a photo that is no object in UTF-8 or UTF-16"
BAD_ENTRY = "line that is not valid JSON"
LONG_ROW = "row with more cells than the header"
# The keys that name an entry's photo. The first whose file exists wins; the original comes before the resized copy,
# which is distorted to a square.
PICTURE_KEYS = (
    *("img", "origin_img", "resize_img", "image", "image_path", "image_file", "file_name", "filename", "image_name"),
    *("file", "path"),
)
# Longer than any caption; keeps misnamed large files out of memory.
CAPTION_BYTES = 64 * 1024
# A longer description of one photo is not read.
DESCRIPTION_BYTES = 2**20
# A table is read as a whole, and each of its values is an object of some hundred bytes.
TABLE_BYTES, _MOST_VALUES = 256 * 2**20, 10_000_000
_SEPARATORS = (b",", b"[", b"{", b";", b"\t", b"|", b"\n", b"\r")
TOO_LONG = f"table of more than {TABLE_BYTES // 2**20} MB or {_MOST_VALUES:,} values; split it"
_ROWS_AT_ONCE = 4096
_WHOLE_NUMBER = re.compile(r"(-?\d+)\.0+")

Entry = dict[str, object]


def decode_text(raw: bytes) -> str:
    """Return the text of a file; raise UnicodeDecodeError where it is in another encoding than the three above."""
    return raw.decode(json.detect_encoding(raw)).removeprefix("\ufeff")


def parse_caption(raw: bytes) -> tuple[str | None, str | None, str | None]:
    """Return prompt (line 1), face prompt (line 2) and fault of a text file's bytes, each None where there is none."""
    try:
        lines = [one_line(line) for line in re.split(r"\r\n|\r|\n", decode_text(raw))]
    except UnicodeDecodeError:
        return None, None, BAD_CAPTION
    if len(raw) > CAPTION_BYTES:
        return None, None, BAD_CAPTION
    return lines[0], (lines[1] if len(lines) > 1 else None), LONG_CAPTION if any(lines[2:]) else None


def parse_json(text: str) -> Any:
    """Return parsed JSON in which different values of one key are Several; raise ValueError where it is not valid."""
    try:
        return json.loads(text, object_pairs_hook=merged)
    except RecursionError as error:
        raise ValueError("too deeply nested") from error


def parse_object(raw: bytes) -> Entry | None:
    """Return the JSON object of one photo, or None where the bytes are something else."""
    try:
        tree = parse_json(decode_text(raw))
    except ValueError:
        return None
    return normal_entry(tree) if isinstance(tree, dict) else None


def table_of(file: Path) -> Iterator[Entry | str]:
    """Yield the entries of a table, or the reason where one cannot be read; raise ValueError for other files.

    Raises UserError for the pointer of a git-lfs file.
    """
    refuse_pointers([file])
    if file.suffix.lower() == ".parquet":
        return _parquet(file)
    if file.stat().st_size > TABLE_BYTES:
        raise ValueError(TOO_LONG)
    return parse_table(file.name, file.read_bytes())


def parse_table(name: str, raw: bytes) -> Iterator[Entry | str]:
    """Yield the entries of the bytes of a table called `name`, as `table_of`."""
    if len(raw) > TABLE_BYTES or sum(map(raw.count, _SEPARATORS)) > _MOST_VALUES:
        raise ValueError(TOO_LONG)
    try:
        text = decode_text(raw)
    except UnicodeDecodeError as error:
        raise ValueError(f"cannot be read as UTF-8 or UTF-16 text ({error})") from None
    suffix = name.lower().rpartition(".")[2]
    return _csv(text) if suffix in ("csv", "tsv") else _json(text, f".{suffix}" in JSON_LINES)


def names_photo(entry: Entry) -> bool:
    """Whether an entry names a picture file."""
    return any(map(is_picture_name, paths_in(entry)))


def paths_in(entry: Entry) -> list[str]:
    """Return the paths that an entry gives for its photo; without any of PICTURE_KEYS, the only picture that it names.

    A row of CSV without a header has such a name as its key, and is none.
    """
    paths = [path for key in PICTURE_KEYS if isinstance(path := entry.get(key), str) and path.strip()]
    if paths or any(map(is_picture_name, entry)):
        return paths
    names = [name for name in entry.values() if isinstance(name, str) and is_picture_name(name) and "://" not in name]
    return names if len(names) == 1 else []


def describes_one_photo(raw: bytes) -> bool:
    """Whether the bytes are the JSON object of one photo, and no table."""
    if len(raw) > DESCRIPTION_BYTES:
        return False
    try:
        tree = parse_json(decode_text(raw))
        return isinstance(tree, dict) and _listed(tree) == [tree]
    except ValueError:
        return False


def is_readme(name: str) -> bool:
    """Whether a file of this name describes a folder, and no photo."""
    return _README.fullmatch(name) is not None


def holds_no_labels(name: str) -> bool:
    """Whether a file of this name is of a kind that never holds labels."""
    return is_readme(name) or name.lower() in _NO_LABEL_FILES or name.lower().endswith(_NO_LABELS)


def is_text(start: bytes) -> bool:
    """Whether a short file that begins (and ends) with these bytes is text."""
    try:
        return bool(start.strip()) and len(start) < CAPTION_BYTES and "\x00" not in decode_text(start)
    except UnicodeDecodeError:
        return False


def may_hold_labels(name: str, start: bytes | None) -> bool:
    """Whether a file that begins with `start` is of an unread format, or mentions a label's key or a picture's name."""
    if start is None or name.lower().endswith((*UNREAD, ".parquet")):
        return True
    text = start.replace(b"\x00", b"").decode("utf-8", "ignore")
    keys = "|".join(key for keys in KEYS.values() for key in keys)
    names = re.findall(r"[^\s\"',;:=<>|]+", text)
    return re.search(rf"(?i)\b({keys})\b", text) is not None or any(map(is_picture_name, names))


def _json(text: str, by_line: bool) -> Iterator[Entry | str]:
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    try:
        trees = _listed(parse_json(text)) if not by_line else [parse_json(line) for line in lines]
    except ValueError as error:
        by_line = by_line or text.lstrip().startswith("{")
        trees = [_parsed(line) for line in lines] if by_line else []
        if not any(isinstance(tree, dict) for tree in trees):
            try:  # a list with line breaks in a file for one object per line
                trees = _listed(parse_json(text))
            except ValueError:
                expected = "expected a list of objects that name photos, or one object per line"
                raise ValueError(f"not valid JSON ({error}); {expected}") from None
    for tree in trees:
        yield BAD_ENTRY if tree is None else normal_entry(tree if isinstance(tree, dict) else {})


def _parsed(line: str) -> Any:
    try:
        return parse_json(line)
    except ValueError:
        return None


def _listed(tree: Any) -> list[Any]:
    """Return the entries of a JSON list, of the only list of objects in an object, or of an object by photo name."""
    if isinstance(tree, dict) and not names_photo(normal_entry(tree)):
        lists = [value for value in tree.values() if isinstance(value, list)]
        if len(lists) == 1 and any(isinstance(item, dict) for item in lists[0]):
            shared = [pair for pair in normal_entry(tree).items() if is_shared(*pair)]
            return [_with_shared(item, shared) if isinstance(item, dict) else item for item in lists[0]]
        if any(is_picture_name(str(key)) for key in tree) and all(isinstance(value, dict) for value in tree.values()):
            return [{**value, "file_name": key} for key, value in tree.items()]
    if isinstance(tree, dict):
        return [tree]
    if not isinstance(tree, list):
        raise ValueError(f"expected a JSON list of objects that name photos, found {type(tree).__name__}")
    return tree


def _with_shared(item: Entry, shared: list[tuple[str, object]]) -> Entry:
    """Return an entry with what its list says of all; its own values have priority, but two consents are both kept."""
    entry = normal_entry(item)
    of_all = [(key, value) for key, value in shared if key not in entry or names_consent(key)]
    return merged([*of_all, *entry.items()])


def _csv(text: str) -> Iterator[Entry | str]:
    first, _, rest = text.partition("\n")
    stated = re.fullmatch(r"sep=(.)\s*", first, re.IGNORECASE)  # Excel's way to name the delimiter
    delimiter = stated[1] if stated else max(",;\t|", key=first.count)
    rows = csv.reader(io.StringIO(rest if stated else text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [cell.strip() for cell in next(rows, [])]
        for row in rows:
            if any(cell.strip() for cell in row[len(header) :]):
                yield LONG_ROW
            elif any(cell.strip() for cell in row):
                cells = (cell or None for cell in row)
                yield _typed(normal_entry(merged(zip(header, cells, strict=False))))
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: not valid CSV ({error})") from None


def _typed(row: Entry) -> Entry:
    """Return a row of CSV with what programs write for missing values as None, and 11.0 in a column of names as 11."""
    for label in ("identity", "prompt", "face_prompt"):
        for key in KEYS[label]:
            text = str(row.get(key) or "").strip()
            number = _WHOLE_NUMBER.fullmatch(text) if label == "identity" else None
            if text in MISSING or number:
                row[key] = number[1] if number else None
    return row


def _parquet(file: Path) -> Iterator[Entry | str]:
    try:
        for batch in batches(file, None, _ROWS_AT_ONCE):
            yield from map(normal_entry, batch.to_pylist())
    except Unpacks:
        raise
    except FAULTS as error:
        raise ValueError(f"cannot be read as Parquet ({error})") from None
