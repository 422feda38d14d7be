"""Labels in files of other formats, inside other values and of all photos of a list reach their rows or are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.core.sections.data import Rights
from pipelines.data.ingest.photo_files import FoundPhoto
from pipelines.data.rights import refusal

from .test_labels import read, tar
from .test_layouts import JPEG, write


def one_photo(tmp_path: Path, kind: str, files: dict[str, bytes]) -> tuple[FoundPhoto, list[str]]:
    """Return the only photo of a folder or shard with `files` beside it, and the label files that are not joined."""
    files = {"1.jpg": JPEG, **files}
    if kind == "tar":
        tar(tmp_path / "a.tar.gz", files.items())
    else:
        for name, body in files.items():
            write(tmp_path / name, body)
    found, left = read(tmp_path)
    (photo,) = found.values()
    return photo, [item.label.removeprefix("a.tar.gz/") for item in left]


@pytest.mark.parametrize("kind", ["tar", "folder"])
@pytest.mark.parametrize(
    "name",
    [
        "1.consent",
        "1.identity",
        "1.tags",
        "list.csv.gz",
        "1.json.gz",
        "labels.lst",
        "people.toml",
        "faces.zip",
        "x.mat",
    ],
)
def test_a_label_file_of_any_other_format_is_named(tmp_path: Path, kind: str, name: str) -> None:
    body = b"refused" if name.startswith("1.") else b'photo = "1.jpg"\nconsent = "refused"\n'
    assert one_photo(tmp_path, kind, {name: body})[1] == [name]


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_files_that_hold_no_labels_are_no_fault(tmp_path: Path, kind: str) -> None:
    files = {"1.npy": b"\x93NUMPY identity", "1.pts": b"0 1", "README.md": b"license: mit", "seed": b"42", "1.raw": b""}
    assert one_photo(tmp_path, kind, files)[1] == []


@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_a_text_whose_name_says_which_label_it_holds(tmp_path: Path, kind: str) -> None:
    files = {"1.consent.txt": b"refused\n", "1.identity.txt": b"anna", "1.txt": b"a face"}
    photo, left = one_photo(tmp_path, kind, files)
    assert left == []
    assert (photo.labels.consent, photo.labels.identity, photo.labels.prompt) == ("refused", "anna", "a face")


@pytest.mark.parametrize("kind", ["tar", "folder"])
@pytest.mark.parametrize("inner", [{"consent": "refused"}, [{"x": {"consent": "refused"}}], '{"consent": "refused"}'])
def test_a_label_inside_another_value_is_named_and_permits_nothing(tmp_path: Path, kind: str, inner: object) -> None:
    photo, left = one_photo(tmp_path, kind, {"1.json": json.dumps({"meta": inner}).encode()})
    assert left == ["1.json"]
    assert refusal(Rights(), vars(photo.labels)) == "consent not allowed"


@pytest.mark.parametrize("kind", ["tar", "folder"])
@pytest.mark.parametrize(
    ("beside", "place"),
    [
        ({"meta": {"consent": "refused"}}, "meta.consent"),
        ({"history": [{"a": 1}, {"consent_status": "withdrawn"}]}, "history.consent_status"),
        ({"opt_out": True}, "opt_out"),
        ({"consents": {"training": "no"}}, "consents"),
    ],
)
def test_a_second_consent_that_differs_is_named_and_permits_nothing(
    tmp_path: Path, kind: str, beside: dict[str, object], place: str
) -> None:
    entry = {"consent": "granted", "meta": {"consent": " Granted "}, "consent_date": "2024-05-01", **beside}
    photo, left = one_photo(tmp_path / "photos", kind, {"1.json": json.dumps(entry).encode()})
    assert left == ["1.json"]
    assert refusal(Rights(), vars(photo.labels)) == "consent not allowed"
    assert place in (photo.labels.consent or "")


def test_a_second_consent_that_agrees_and_what_is_said_about_it_are_no_fault(tmp_path: Path) -> None:
    entry = {"consent": "granted", "meta": {"consent": " Granted "}, "consent_date": "2024-05-01", "consent_by": "anna"}
    photo, left = one_photo(tmp_path, "folder", {"1.json": json.dumps(entry).encode()})
    assert (photo.labels.consent, left) == ("granted", [])


def test_a_second_name_or_licence_inside_another_value_is_named(tmp_path: Path) -> None:
    entry = {"identity": "anna", "licence": "CC0", "text": "a", "meta": {"person": "bert", "license": "", "text": "b"}}
    write(tmp_path / "1.jpg", JPEG)
    write(tmp_path / "1.json", json.dumps(entry).encode())
    found, left = read(tmp_path)
    assert [item.reason for item in left] == ["meta.person is not read; identity is, and differs"]
    assert found["1.jpg"].labels.identity == "anna"


def test_what_a_list_says_of_all_its_photos_reaches_each(tmp_path: Path) -> None:
    write(tmp_path / "1.jpg", JPEG)
    write(tmp_path / "2.jpg", JPEG + b"2")
    entries = [{"file_name": "1.jpg"}, {"file_name": "2.jpg", "License": "CC0", "consent": "granted"}]
    listed = {"license": "CC-BY-NC", "consent": "refused", "version": 3, "images": entries}
    write(tmp_path / "list.json", json.dumps(listed).encode())
    found, left = read(tmp_path)
    assert left == []
    assert [found[name].labels.licence for name in ("1.jpg", "2.jpg")] == ["CC-BY-NC", "CC0"]
    assert all(refusal(Rights(), vars(item.labels)) for item in found.values())


@pytest.mark.parametrize("name", ["1.txt", "1.json", "labels.csv", "labels.jsonl", "a.tar", "a.parquet"])
def test_labels_that_git_lfs_did_not_fetch_are_named(tmp_path: Path, name: str) -> None:
    if name not in ("a.tar", "a.parquet"):
        write(tmp_path / "1.jpg")
    write(tmp_path / name, f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5\n")
    with pytest.raises(UserError, match=rf"{name}: only the pointer of a git-lfs file"):
        read(tmp_path)
