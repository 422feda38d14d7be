"""Every label that came with a photo reaches its row, or is named: label files, tables and entries of any program."""

from __future__ import annotations

import json
import tarfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import UserError
from pipelines.core.sections.data import Rights
from pipelines.data.ingest.layout import open_source
from pipelines.data.ingest.photo_files import FoundPhoto, Skipped, Unmatched
from pipelines.data.rights import refusal

from .test_layouts import JPEG, LIMIT, member, write


def read(source: Path, layout: str = "auto", depth: int | None = None) -> tuple[dict[str, FoundPhoto], list[Unmatched]]:
    """Return the photos of a source by name, and the labels that are not joined."""
    opened = open_source(source, layout, depth)
    items = list(opened.read(LIMIT))
    found = {item.file_name: item for item in items if isinstance(item, FoundPhoto)}
    assert len(found) == sum(isinstance(item, FoundPhoto) for item in items)
    return found, [item for item in items if isinstance(item, Unmatched)]


def identities(source: Path, layout: str = "auto", depth: int | None = None) -> dict[str, str | None]:
    """Return the identity of every photo by its name in its folder; every label must be joined."""
    found, left = read(source, layout, depth)
    assert left == []
    return {name.rpartition("/")[2]: item.labels.identity for name, item in found.items()}


def tar(file: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w:gz" if file.suffix == ".gz" else "w") as archive:
        for name, body in members:
            member(archive, name, body)
    return file


SAMPLES = {
    f"{number}": {
        "identity": f"p{number % 2}",
        "prompt": f"text {number}",
        "consent": ["refused", "granted"][number % 2],
    }
    for number in range(5)
}


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize("labels_first", [False, True])
def test_the_members_of_a_key_need_not_be_neighbours(tmp_path: Path, name: str, labels_first: bool) -> None:
    pictures = [(f"./{key}.jpg", JPEG + key.encode()) for key in SAMPLES]
    labels = [(f"./{key}.json", json.dumps(entry).encode()) for key, entry in SAMPLES.items()]
    tar(tmp_path / name, labels[::-1] + pictures if labels_first else pictures + labels[::-1])
    found, left = read(tmp_path)
    assert left == []
    assert {key: vars(found[f"{name}/./{key}.jpg"].labels) | entry for key, entry in SAMPLES.items()} == {
        key: vars(found[f"{name}/./{key}.jpg"].labels) for key in SAMPLES
    }
    refused = [item for item in found.values() if refusal(Rights(), vars(item.labels))]
    assert len(refused) == 3


DOTTED = {f"2023.05.0{day}-{person}": f"p{person}" for day in (1, 2) for person in range(3)}


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_a_name_with_dots_is_one_photo(tmp_path: Path, kind: str) -> None:
    files = [(f"{stem}.{suffix}", JPEG if suffix == "jpg" else json.dumps({"identity": person}).encode())
             for suffix in ("jpg", "json") for stem, person in DOTTED.items()]  # fmt: skip
    if kind == "tar":
        tar(tmp_path / "a.tar", files)
    else:
        for name, body in files:
            write(tmp_path / name, body)
    assert identities(tmp_path) == {f"{stem}.jpg": person for stem, person in DOTTED.items()}


def test_the_label_of_a_missing_photo_is_not_given_to_another_of_its_key(tmp_path: Path) -> None:
    files = [("2023.05.01-0.jpg", JPEG), ("2023.05.01-1.json", b'{"consent": "granted"}'), ("2023.jpg", JPEG + b"2")]
    found, left = read(tar(tmp_path / "a.tar", files))
    assert {item.labels.consent for item in found.values()} == {None}
    assert [(item.label, item.reason) for item in left] == [
        ("a.tar/2023.05.01-1.json", "names no photo that is read"),
    ]


def test_the_label_of_a_missing_sample_is_not_given_to_a_photo_whose_name_it_mentions(tmp_path: Path) -> None:
    files = [("1.jpg", JPEG), ("7.json", b'{"path": "original/1.jpg", "url": "http://a/1.jpg", "consent": "granted"}')]
    found, (left,) = read(tar(tmp_path / "a.tar", files))
    assert (found["a.tar/1.jpg"].labels.consent, left.label) == (None, "a.tar/7.json")
    write(tmp_path / "folder" / "1.jpg")
    write(tmp_path / "folder" / "7.json", files[1][1])
    found, (left,) = read(tmp_path / "folder")
    assert (found["1.jpg"].labels.consent, left.label) == (None, "7.json[1]")


@pytest.mark.parametrize(
    "key", ["Name", "subject", "person name", "who", "captions", "permission", "opt-out", "copyright"]
)
def test_a_key_that_resembles_a_label_is_named(tmp_path: Path, key: str) -> None:
    write(tmp_path / "1.jpg")
    write(tmp_path / "labels.jsonl", json.dumps({"photo_id": "1.jpg", key: "x"}))
    _, (left,) = read(tmp_path)
    assert left.label == "labels.jsonl[1]"
    assert " is not read; expected " in left.reason


def test_csv_without_a_header_is_named(tmp_path: Path) -> None:
    write(tmp_path / "1.jpg")
    write(tmp_path / "2.jpg")
    write(tmp_path / "labels.csv", "1.jpg,anna\n2.jpg,bert\n")
    _, (left,) = read(tmp_path)
    assert (left.label, left.reason) == ("labels.csv", "names no photo that is read")


def test_a_label_file_that_cannot_be_opened_or_parsed_is_named(tmp_path: Path) -> None:
    write(tmp_path / "1.jpg")
    (tmp_path / "1.txt").symlink_to("/etc/hostname")
    (tmp_path / "2.json").symlink_to("nothing.json")
    write(tmp_path / "deep.json", "[" * 100_000)
    _, left = read(tmp_path)
    assert [(item.label, item.reason.split(" (")[0]) for item in left] == [
        ("1.txt", "link that leads out of the folder"),
        ("2.json", "link to nothing"),
        ("deep.json", "not valid JSON"),
    ]


def test_compound_suffixes_of_webdataset(tmp_path: Path) -> None:
    files = [
        ("a/1.left.jpg", JPEG),
        ("a/1.json", b'{"identity": "anna"}'),
        ("b/2.jpg", JPEG),
        ("b/2.meta.json", b'{"identity": "bert"}'),
    ]
    assert identities(tar(tmp_path / "a.tar", files)) == {"1.left.jpg": "anna", "2.jpg": "bert"}


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_a_label_that_fits_several_photos_is_named_and_permits_none(tmp_path: Path, kind: str) -> None:
    files = [("1.jpg", JPEG), ("1.png", JPEG + b"2"), ("1.json", b'{"consent": "granted"}'), ("1.txt", b"a man")]
    if kind == "tar":
        tar(tmp_path / "a.tar", files)
    for name, body in files if kind == "folder" else ():
        write(tmp_path / name, body)
    found, left = read(tmp_path)
    assert sorted(item.label.removeprefix("a.tar/") for item in left) == ["1.json", "1.txt"]
    assert {item.reason for item in left} == {"fits several photos"}
    assert len(found) == 2
    assert {refusal(Rights(), vars(item.labels)) for item in found.values()} == {"consent not allowed"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (11, "11"),
        (11.0, "11"),
        ("11", "11"),
        (["anna"], "anna"),
        ("Jose\u0301", "Jos\u00e9"),
        (11.5, "11.5"),
        (None, None),
    ],
)
def test_an_identity_of_any_type(tmp_path: Path, value: object, expected: str | None) -> None:
    write(tmp_path / "1.jpg")
    write(tmp_path / "1.json", json.dumps({"identity": value}))
    assert identities(tmp_path) == {"1.jpg": expected}


@pytest.mark.parametrize("value", [True, ["anna", "bert"], {"name": "anna"}, 1e17, float("inf"), "nan", "\ud83d"])
def test_an_identity_that_is_no_name_is_named(tmp_path: Path, value: object) -> None:
    write(tmp_path / "1.jpg")
    write(tmp_path / "1.json", json.dumps({"identity": value}))
    found, (left,) = read(tmp_path)
    assert found["1.jpg"].labels.identity is None
    assert left.label == "1.json"
    assert left.reason.startswith("identity: ")


def table(file: Path, columns: dict[str, list]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)


PICTURES = [{"bytes": JPEG + bytes([number]), "path": f"{number}.jpg"} for number in range(4)]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([11, 11, None, 12], pa.int64()),
        pa.array([11, 11, None, 12], pa.float64()),
        pa.array([11, 11, None, 12], pa.float32()),
        pa.array([11, 11, float("nan"), 12], pa.float64()),
        pa.array(["11", "11", None, "12"]).dictionary_encode(),
        pa.array([b"11", b"11", None, b"12"], pa.binary()),
        pa.array([11, 11, None, 12], pa.decimal128(10, 1)),
        pa.array(["11", "11", "", "12"], pa.large_string()),
    ],
    ids=lambda column: str(column.type),
)
def test_columns_of_parquet_of_any_type(tmp_path: Path, column: pa.Array) -> None:
    table(tmp_path / "a.parquet", {"image": PICTURES, "identity": column})
    assert list(identities(tmp_path).values()) == ["11", "11", None, "12"]


@pytest.mark.parametrize("text", ['{"file_name": "1.jpg", "prompt": ["a man", "a face"], "consent": "refused"}'])
@pytest.mark.parametrize("name", ["metadata.jsonl", "labels.ndjson", "labels.json"])
def test_a_table_of_one_line_with_a_list_in_it(tmp_path: Path, text: str, name: str) -> None:
    write(tmp_path / "1.jpg")
    write(tmp_path / name, text)
    found, left = read(tmp_path)
    assert (found["1.jpg"].labels.prompt, found["1.jpg"].labels.consent, left) == ("a man", "refused", [])
    listed = [item for item in open_source(tmp_path).read(LIMIT) if not isinstance(item, FoundPhoto)]
    assert listed == [Skipped(f"{name}[1]", "prompt: 2 texts; the first is used")]


@pytest.mark.parametrize("value", ["pending", 0, False, {"Research": True}, ["yes"], float("nan"), " Yes ", "a\u2028b"])
@pytest.mark.parametrize("kind", ["tar", "list", "sidecar"])
def test_a_consent_is_kept_as_it_came(tmp_path: Path, value: object, kind: str) -> None:
    entry = {"consent": value, "file_name": "1.jpg"}
    if kind == "tar":
        tar(tmp_path / "a.tar", [("1.jpg", JPEG), ("1.json", json.dumps(entry).encode())])
    else:
        write(tmp_path / "1.jpg")
        write(tmp_path / ("1.json" if kind == "sidecar" else "m.jsonl"), json.dumps(entry, ensure_ascii=False))
    found, left = read(tmp_path)
    (photo,) = found.values()
    assert left == []
    assert photo.labels.consent == (value if isinstance(value, str) else json.dumps(value))


@pytest.mark.parametrize(
    "text",
    [
        '{"file_name": "1.jpg", "consent": "refused", "consent": "granted"}',
        '{"file_name": "1.jpg", "consent": "granted"}\n{"file_name": "1.jpg", "Consent": "refused"}',
    ],
)
def test_two_consents_for_one_photo_are_no_clear_yes(tmp_path: Path, text: str) -> None:
    write(tmp_path / "1.jpg")
    write(tmp_path / "labels.jsonl", text)
    found, _ = read(tmp_path)
    assert sorted(json.loads(found["1.jpg"].labels.consent or "")) == ["granted", "refused"]
    assert refusal(Rights(), vars(found["1.jpg"].labels)) == "consent not allowed"


def test_two_tables_of_one_photo_complete_each_other_and_a_conflict_is_named(tmp_path: Path) -> None:
    write(tmp_path / "1.jpg")
    write(tmp_path / "a.csv", "file_name,identity\n1.jpg,anna\n")
    write(tmp_path / "b.jsonl", '{"file_name": "1.jpg", "text": "a woman", "identity": "anna"}\n')
    found, left = read(tmp_path)
    assert (found["1.jpg"].labels.identity, found["1.jpg"].labels.prompt, left) == ("anna", "a woman", [])
    write(tmp_path / "c.csv", "file_name,identity\n1.jpg,bert\n")
    found, (conflict,) = read(tmp_path)
    assert found["1.jpg"].labels.identity == "anna"
    assert (conflict.label, conflict.reason) == (
        "c.csv[1]",
        "named more than once, with another identity; the first is used",
    )


NAMES = ["anna/1.jpg", "ren\u00e9e/2 a.jpg", "bert/3.jpg"]


@pytest.mark.parametrize(
    "written",
    [
        lambda name: name,
        lambda name: f"./{name}",
        lambda name: name.replace("/", "\\"),
        lambda name: "C:\\Users\\me\\set\\" + name.replace("/", "\\"),
        lambda name: f"/home/somebody/set/{name}",
        lambda name: f"file:///home/somebody/set/{name.replace(' ', '%20')}",
        lambda name: f"set/{name}",
        lambda name: name.upper(),
        lambda name: name.replace(" ", "%20"),
        lambda name: unicodedata.normalize("NFD", name),
    ],
    ids=["same", "dot", "backslash", "windows", "absolute", "url", "parent", "upper", "percent", "decomposed"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_names_and_encodings_of_any_system(tmp_path: Path, written: object, encoding: str) -> None:
    for number, name in enumerate(NAMES):
        write(tmp_path / name, JPEG + bytes([number]))
    lines = [
        json.dumps({"file_name": written(name), "identity": f"p{number}"}, ensure_ascii=False)
        for number, name in enumerate(NAMES)
    ]
    write(tmp_path / "labels.jsonl", "\r\n".join(lines).encode(encoding))
    assert identities(tmp_path) == {"1.jpg": "p0", "2 a.jpg": "p1", "3.jpg": "p2"}


@pytest.mark.parametrize(
    "text",
    [
        "file_name,identity,consent\n1.jpg,11.0,no\n2.JPG,,yes\n",
        "\ufeffFile Name;Identity;Consent\r\n1.jpg;11.0;no\r\n2.jpg;;yes\r\n",
        "sep=;\r\nfile_name;identity;consent\r\n1.jpg;11.0;no\r\n2.jpg;;yes\r\n",
        'identity\tfile-name\tCONSENT\textra\n"11"\t"1.jpg"\t"no"\t\n\t"2.jpg"\t"yes"\t\n',
        "file_name,identity,consent\n1.jpg,11,no,,\n\n2.jpg,nan,yes,\n",
    ],
)
def test_csv_of_any_program(tmp_path: Path, text: str) -> None:
    write(tmp_path / "1.jpg")
    write(tmp_path / "2.jpg")
    write(tmp_path / "labels.csv", text)
    found, left = read(tmp_path)
    assert left == []
    assert [(item.labels.identity, item.labels.consent) for item in found.values()] == [("11", "no"), (None, "yes")]


def test_tables_in_other_forms(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path / f"{number}.jpg", JPEG + bytes([number]))
    write(tmp_path / "a.json", '{"0.jpg": {"person_id": 1.0, "license": "CC0"}, "1.jpg": {"person_id": 2}}')
    write(tmp_path / "b.json", '{"version": 2, "photos": [{"path": "2.jpg", "Person ID": 3}]}')
    table(tmp_path / "c.parquet", {"file_name": ["3.jpg", "4.jpg"], "identity": [4.0, None]})
    write(tmp_path / "5.jpg.supplemental-metadata.json", '{"identity": "anna"}')
    found, left = read(tmp_path, "flat")
    assert left == []
    assert [item.labels.identity for item in found.values()] == ["1", "2", "3", "4", None, "anna"]
    assert found["0.jpg"].labels.licence == "CC0"


def test_what_is_not_joined_is_named_with_file_entry_and_reason(tmp_path: Path) -> None:
    write(tmp_path / "1.jpg")
    write(tmp_path / "1.txt", "a man\nhappy\nand a third line")
    write(tmp_path / "2.txt", "a text of no photo")
    write(tmp_path / "LICENSE.txt", "CC BY")
    write(tmp_path / "README.txt", "about these photos")
    write(tmp_path / "1.xmp", "<x:xmpmeta/>")
    write(tmp_path / "classes.json", '{"consent": {"1": "no"}}')
    write(tmp_path / "cut.jsonl", '{"file_name": "1.jpg", "consent_status": "no"}\n{"file_name": "1.j')
    write(tmp_path / "latin.csv", "file_name;identity\n1.jpg;Ren\u00e9e\n".encode("latin-1"))
    write(tmp_path / "wide.csv", "file_name,identity\n1.jpg,Smith, John\n")
    found, left = read(tmp_path, "flat")
    reasons = {item.label: item.reason for item in left}
    assert reasons.pop("latin.csv").startswith("cannot be read as UTF-8 or UTF-16 text")
    assert reasons == {
        "1.txt": "text of more than two lines; the first is the prompt, the second the face prompt",
        "2.txt": "text without a picture of its name",
        "LICENSE.txt": "text without a picture of its name",
        "1.xmp": "labels in a format that is not read",
        "classes.json": "names no photo that is read",
        "cut.jsonl[1]": "consent_status is not read; expected consent",
        "cut.jsonl[2]": "line that is not valid JSON",
        "wide.csv[1]": "row with more cells than the header",
    }
    assert found["1.jpg"].labels.prompt == "a man"
    assert refusal(Rights(), vars(found["1.jpg"].labels)) == "consent not allowed"


@pytest.mark.parametrize(
    ("files", "layouts"),
    [
        (
            {"1.jpg": JPEG, "2.jpg": JPEG, "m.jsonl": b'{"file_name": "1.jpg", "identity": "a"}'},
            ("consistentid", "flat"),
        ),
        ({"a/1.jpg": JPEG, "m.jsonl": b'{"file_name": "a/1.jpg", "text": "x"}'}, ("consistentid", "identity-folders")),
        ({"train/1.jpg": JPEG, "train/metadata.jsonl": b'{"file_name": "1.jpg"}'}, ("flat", "identity-folders")),
        ({"1.jpg": JPEG, "a.tar": b""}, ("webdataset", "flat")),
    ],
)
def test_where_two_layouts_fit_both_are_named(
    tmp_path: Path, files: dict[str, bytes], layouts: tuple[str, str]
) -> None:
    for name, body in files.items():
        write(tmp_path / name, body)
    with pytest.raises(UserError, match=rf"2 layouts fit: {layouts[0]} .* and {layouts[1]} .*--layout"):
        read(tmp_path)
    for layout in layouts:
        assert open_source(tmp_path, layout).layout == layout


def test_resource_forks_of_macos_are_no_photos(tmp_path: Path) -> None:
    files = [("./._1.jpg", JPEG), ("./1.jpg", JPEG), ("./._1.json", b"\0\5"), ("./1.json", b'{"identity": "a"}')]
    assert identities(tar(tmp_path / "a.tar", [*files, ("__MACOSX/1.jpg", JPEG), (".DS_Store", b"")])) == {"1.jpg": "a"}


def test_a_table_in_a_shard_names_its_members(tmp_path: Path) -> None:
    files = [
        ("x/1.jpg", JPEG),
        ("x/2.jpg", JPEG + b"2"),
        ("x/labels.csv", b"file_name,identity\n1.jpg,anna\n2.jpg,bert\n"),
    ]
    assert identities(tar(tmp_path / "a.tar", files)) == {"1.jpg": "anna", "2.jpg": "bert"}
