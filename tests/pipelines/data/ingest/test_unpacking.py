"""Small files that unpack to gigabytes are refused by name, within a bounded memory; photos beside them are rows."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.data.ingest import parquet_files
from pipelines.data.ingest.label_files import TOO_LONG, parse_table
from pipelines.data.ingest.layout import open_source
from pipelines.data.ingest.parquet_files import FAULTS, Unpacks, batches
from pipelines.data.ingest.photo_files import FoundPhoto, Labels, Skipped
from tests.processes import PROJECT

from .test_labels import tar
from .test_layouts import JPEG

MB = 2**20
# Python with pyarrow takes about 200 MB; nothing may add more than 1 GB to it.
_MOST_MB = 1200
# The peak is VmHWM, as `ru_maxrss` of a new process begins with the memory of the process that started it.
_INGEST = """
import sys, time
from pathlib import Path
from pipelines.core.params import load_params
from pipelines.stages.ingest import Inputs, Outputs, run
params = load_params(Path("profiles/tiny.yaml"))
for source in map(Path, sys.argv[1:]):
    began = time.monotonic()
    done = run(params, Inputs(source, "auto", None, True), Outputs(source.with_suffix(".out")))
    reasons = "; ".join({**done.skipped, **done.unmatched})
    print(source.name, done.new_rows, f"{time.monotonic() - began:.1f}", reasons, sep="|")
status = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")))
"""


def jpeg(number: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (number % 255, number // 255, 3)).save(buffer, "JPEG")
    return buffer.getvalue()


def table(file: Path, columns: dict[str, pa.Array], **options: object) -> None:
    pq.write_table(pa.table(columns), file, compression="zstd", store_schema=False, **options)


def repeated(value: bytes | str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value]))


def archive(file: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(file, "w:gz" if file.suffix == ".gz" else "w") as opened:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))


def pages_of_zeros(folder: Path) -> str:
    pictures = pa.array([jpeg(number) + bytes(30 * MB) for number in range(3)], pa.large_binary())
    table(folder / "a.parquet", {"image": pictures}, use_dictionary=False)
    return "unpacks to"


def one_large_picture_many_times(folder: Path) -> str:
    table(folder / "a.parquet", {"image": repeated(jpeg() + bytes(10 * MB), 2000)}, dictionary_pagesize_limit=2**30)
    return "times its size"


def one_large_caption_many_times(folder: Path) -> str:
    (folder / "1.jpg").write_bytes(jpeg())
    names = pa.array([f"{number}.jpg" for number in range(200)])
    caption = repeated("x" * 10 * MB, 200)
    table(folder / "a.parquet", {"file_name": names, "caption": caption}, dictionary_pagesize_limit=2**30)
    return "times its size"


def rows_of_no_bytes(folder: Path) -> str:
    table(folder / "a.parquet", {"image": repeated(jpeg(), 300_000)})
    return "300,000 rows"


def lists_of_no_bytes(folder: Path) -> str:
    flat = pa.array([7], pa.int32()).take(pa.array([0] * 3_000_000, pa.int8()))
    lists = pa.ListArray.from_arrays(pa.array([0, 3_000_000], pa.int32()), flat)
    table(folder / "a.parquet", {"image": pa.array([jpeg()]), "boxes": lists})
    return "lists of 3,000,001 values"


def a_sparse_member(folder: Path) -> str:
    """A member that states 200 MB, of which the archive holds a kilobyte."""
    member = tarfile.TarInfo("1.jpg")
    data = jpeg().ljust(1024, b"\0")
    member.size = 1024
    member.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.name": "1.jpg",
        "GNU.sparse.size": str(200 * MB),
        "GNU.sparse.map": "0,1024",
    }
    with tarfile.open(folder / "a.tar", "w", format=tarfile.PAX_FORMAT) as opened:
        opened.addfile(member, io.BytesIO(data))
        good = tarfile.TarInfo("2.jpg")
        good.size = len(jpeg())
        opened.addfile(good, io.BytesIO(jpeg()))
    return "not a regular file"


def an_archive_of_zeros(folder: Path) -> str:
    archive(folder / "a.tar.gz", {"1.jpg": jpeg(), **{f"{number}.raw": bytes(200 * MB) for number in range(3)}})
    return "cannot be read to its end"


def tables_in_an_archive(folder: Path) -> str:
    long = b"file_name\n" + b"x\n" * (60 * MB)
    archive(folder / "a.tar", {"1.jpg": jpeg(), **{f"{number}.csv": long for number in range(3)}})
    return "label files of more than 256 MB"


def a_list_of_empty_lists(folder: Path) -> str:
    (folder / "1.jpg").write_bytes(jpeg())
    (folder / "a.json").write_bytes(b"[" + b"[]," * (6 * MB) + b"[]]")
    return "10,000,000 values"


def pictures_and_labels_of_one_key(folder: Path) -> str:
    members = {f"k.{number}.jpg": jpeg(number) for number in range(2000)}
    archive(folder / "a.tar", members | {f"k.b{number}.json": b'{"consent": "no"}' for number in range(2000)})
    return "names no photo"


def forty_consents(folder: Path) -> str:
    (folder / "1.jpg").write_bytes(jpeg())
    lines = [json.dumps({"file_name": "1.jpg", "consent": f"no, {number}"}) for number in range(40)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    return "with another consent"


CASES: list[Callable[[Path], str]] = [
    *(pages_of_zeros, one_large_picture_many_times, one_large_caption_many_times, rows_of_no_bytes, lists_of_no_bytes),
    *(a_sparse_member, an_archive_of_zeros, tables_in_an_archive, a_list_of_empty_lists),
    *(pictures_and_labels_of_one_key, forty_consents),
]


@pytest.mark.nightly
def test_every_bomb_is_named_and_bounded(tmp_path: Path) -> None:
    expected = {}
    for case in CASES:
        folder = tmp_path / case.__name__
        folder.mkdir()
        expected[case.__name__] = case(folder)
        # A good photo of another file must come through; a table's layout is chosen by the photos beside it.
        if any(folder.glob("*.parquet")) and not any(folder.glob("*.jpg")):
            table(folder / "z.parquet", {"image": pa.array([jpeg(7)])})
    command = [sys.executable, "-c", _INGEST, *(str(tmp_path / name) for name in expected)]
    limit = 8 * 2**30  # so that a fault here cannot take the machine
    done = subprocess.run(
        command,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *lines, peak = done.stdout.splitlines()
    print(done.stdout)
    for line in lines:
        name, rows, seconds, reasons = line.split("|")
        assert expected.pop(name) in reasons, line
        assert int(rows) >= 1, line
        assert float(seconds) < 60, line
    assert not expected
    assert int(peak) < _MOST_MB


def test_large_photos_in_one_page_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos do not shrink, so a page is as large as its file: no bomb. Batches become smaller."""
    import numpy as np

    photos = [jpeg(number) + np.random.default_rng(number).bytes(5 * MB) for number in range(20)]
    table(tmp_path / "a.parquet", {"image": pa.array(photos), "boxes": pa.array([[0.5] * 68] * 20)})
    monkeypatch.setattr(parquet_files, "_BATCH_BYTES", 64 * MB)
    read = [row for batch in batches(tmp_path / "a.parquet", None, 16) for row in batch.column("image").to_pylist()]
    assert read == photos


def test_damaged_headers_of_pages_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    table(file, {"image": pa.array([jpeg(number) for number in range(50)])}, use_dictionary=False)
    raw = file.read_bytes()
    found = []
    for place in range(4, 60):
        for value in (0x00, 0x7F, 0xFF):
            file.write_bytes(raw[:place] + bytes([value]) + raw[place + 1 :])
            items = list(open_source(file, "huggingface").read(MB))
            found.append([item for item in items if isinstance(item, Skipped)])
    assert any(found)
    with pytest.raises(Unpacks, match="more than"):
        raise Unpacks("more than")


def test_a_damaged_list_of_pages_ends_no_process(tmp_path: Path) -> None:
    """pyarrow aborts the process where it is asked for a column whose statistics have another length than stated."""
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"file_name": ["a.jpg", "b.jpg", None], "tags": [["x"], [], ["y", "z"]]}), file)
    raw = file.read_bytes()
    answers = set()
    for place in range(len(raw) - 8 - int.from_bytes(raw[-8:-4], "little"), len(raw)):
        file.write_bytes(raw[:place] + bytes([(raw[place] + 1) % 256]) + raw[place + 1 :])
        try:
            answers.add(len(list(batches(file, None, 10))))
        except FAULTS as error:
            answers.add(type(error).__name__)
    assert {1, "OSError", "ValueError"} <= answers
    deep = bytes([0x49]) + bytes([0x19]) * 10_000
    file.write_bytes(b"PAR1" + deep + len(deep).to_bytes(4, "little") + b"PAR1")
    with file.open("rb") as opened, pytest.raises(ValueError, match="damaged header"):
        list(parquet_files._column_chunks(opened))


def test_a_long_list_of_pages_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    notes = {str(number): "x" * 2**18 for number in range(20)}
    pq.write_table(pa.table({"image": [jpeg()]}).replace_schema_metadata(notes), file)
    with pytest.raises(Unpacks, match="a list of pages of 1"):
        list(batches(file, None, 10))


def test_a_table_with_too_many_values_is_named() -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match=TOO_LONG[:20]):
        list(parse_table("a.csv", b"," * 10_000_001))
    assert time.monotonic() - began < 5


def test_consents_of_one_photo_stay_one_flat_list() -> None:
    labels = Labels(consent="no 0")
    for number in range(1, 200):
        labels = Labels(consent=f"no {number}").updated(labels)
    assert labels.consent is not None
    assert len(labels.consent) < 500
    assert isinstance(json.loads(labels.consent), list)
    assert Labels(consent='["yes"]').updated(Labels(consent="yes")).consent == '["yes"]'


def test_a_label_of_one_key_still_finds_its_photo(tmp_path: Path) -> None:
    archive(tmp_path / "a.tar", {"1.jpg": jpeg(), "1.meta.json": b'{"identity": "anna"}'})
    (photo,) = [item for item in open_source(tmp_path).read(MB) if isinstance(item, FoundPhoto)]
    assert photo.labels.identity == "anna"


def test_a_key_may_have_hundreds_of_pictures_which_are_never_all_in_memory(tmp_path: Path) -> None:
    import tracemalloc

    size = 2**18
    files = [(f"1.v{number}.jpg", JPEG + bytes([number % 256]) * size) for number in range(300)]
    tar(tmp_path / "a.tar", files)
    tracemalloc.start()
    source = open_source(tmp_path / "a.tar")
    count = sum(len(item.data) > size for item in source.contents(source.read(2 * size), 2 * size))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 300
    assert peak < 100 * size
