"""Identities and prompts of photos from flat folders, folders per identity, lists and tar shards."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.data.ingest.layout import open_source
from pipelines.data.ingest.photo_files import FoundPhoto, Skipped

JPEG = b"\xff\xd8\xff\xe0" + bytes(20)
LIMIT = 2**20


def write(file: Path, body: bytes | str = JPEG) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(body.encode() if isinstance(body, str) else body)
    return file


def read(source: Path, layout: str = "auto", depth: int | None = None) -> tuple[dict[str, FoundPhoto], dict[str, str]]:
    items = list(open_source(source, layout, depth).read(LIMIT))
    found = [item for item in items if isinstance(item, FoundPhoto)]
    assert len({item.file_name for item in found}) == len(found)
    return {item.file_name: item for item in found}, {
        item.file_name: item.reason for item in items if isinstance(item, Skipped)
    }


def test_a_flat_folder_may_have_prompts(tmp_path: Path) -> None:
    write(tmp_path / "1.jpg")
    write(tmp_path / "1.txt", "a man in a park\nsad, facing the camera")
    write(tmp_path / "2.png")
    write(tmp_path / "2.txt", "\ufeffa woman \n\n")
    write(tmp_path / "IMG_3")
    write(tmp_path / "notes.txt", "of no photo")
    write(tmp_path / "4.jpg")
    write(tmp_path / "4.txt", b"caf\xe9")
    found, skipped = read(tmp_path)
    assert {name: (item.labels.prompt, item.labels.face_prompt) for name, item in found.items()} == {
        "1.jpg": ("a man in a park", "sad, facing the camera"),
        "2.png": ("a woman", None),
        "4.jpg": (None, None),
        "IMG_3": (None, None),
    }
    assert all(item.labels.identity is None for item in found.values())
    assert skipped["notes.txt"] == "text without a picture of its name"
    assert "not UTF-8" in skipped["4.txt"]


def test_a_folder_is_a_person_and_its_sub_folders_are_sessions(tmp_path: Path) -> None:
    for name in ("anna/1.jpg", "anna/2020/1.jpg", "bert/1.jpg", "loose.jpg"):
        write(tmp_path / name)
    found, _ = read(tmp_path)
    assert {name: item.labels.identity for name, item in found.items()} == {
        "anna/1.jpg": "anna",
        "anna/2020/1.jpg": "anna",
        "bert/1.jpg": "bert",
        "loose.jpg": None,
    }


def test_people_two_folders_deep_need_identity_depth(tmp_path: Path) -> None:
    write(tmp_path / "train" / "anna" / "1.jpg")
    with pytest.raises(UserError, match="--identity-depth"):
        read(tmp_path)
    found, _ = read(tmp_path, depth=2)
    assert found["train/anna/1.jpg"].labels.identity == "train/anna"


def test_links_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    secret = write(tmp_path / "outside" / "secret.jpg")
    write(tmp_path / "outside" / "password.txt", "hunter2")
    source = tmp_path / "photos"
    write(source / "anna" / "1.jpg")
    write(source / "anna" / "2.jpg")
    (source / "anna" / "out.jpg").symlink_to(secret)
    (source / "anna" / "1.txt").symlink_to(tmp_path / "outside" / "password.txt")
    (source / "anna" / "again.jpg").symlink_to("2.jpg")
    (source / "anna" / "broken.jpg").symlink_to("nothing.jpg")
    (source / "anna" / "circle.jpg").symlink_to("circle.jpg")
    (source / "elsewhere").symlink_to(tmp_path / "outside")
    (source / "anna" / "loop").symlink_to(source)
    found, skipped = read(source)
    assert set(found) == {"anna/1.jpg", "anna/2.jpg", "anna/again.jpg"}
    assert found["anna/1.jpg"].labels.prompt is None
    assert skipped == {
        "anna/out.jpg": "link that leads out of the folder",
        "anna/1.txt": "link that leads out of the folder",
        "elsewhere": "link that leads out of the folder",
        "anna/broken.jpg": "link to nothing",
        "anna/circle.jpg": "link to nothing",
        "anna/loop": "link to a folder; the folder itself is read under its own name",
    }


def test_hidden_and_special_files_are_not_opened(tmp_path: Path) -> None:
    write(tmp_path / "1.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    write(tmp_path / "._1.jpg")
    write(tmp_path / ".git" / "x.jpg")
    write(tmp_path / "weights.pt", b"PK")
    found, skipped = read(tmp_path)
    assert set(found) == {"1.jpg"}
    assert skipped == {
        "pipe.jpg": "not a regular file",
        "._1.jpg": "hidden",
        ".git": "hidden",
        "weights.pt": "not a picture",
    }


def test_names_that_are_not_utf8_stay_different(tmp_path: Path) -> None:
    for name in (b"a\xe9.jpg", b"a%E9.jpg", b"100%.jpg", "Zoë\n.jpg".encode()):
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))).write_bytes(JPEG)
    found, _ = read(tmp_path)
    assert set(found) == {"a%E9.jpg", "a%25E9.jpg", "100%.jpg", "Zoë\n.jpg"}


def test_consistentid_list(tmp_path: Path) -> None:
    write(tmp_path / "FGID_Origin" / "15" / "1.png")
    write(tmp_path / "FGID_resize" / "15" / "1_resize.png")
    write(tmp_path / "FGID_resize" / "15" / "2_resize.png")
    write(tmp_path / "FGID_parsing_mask" / "15" / "1_mask.png")
    write(tmp_path.parent / "outside.jpg")
    entries = [
        {
            "origin_IMG": "15/1.png",
            "resize_IMG": "15/1_resize.png",
            "parsing_mask_IMG": "15/1_mask.png",
            "vqa_llva": "The image features\n a woman.",
            "vqa_llva_face_caption": "She has a small nose.",
        },
        {"resize_IMG": "15/2_resize.png", "text": "a man", "identity": 7, "face_prompt": "happy"},
        {"resize_IMG": "15/2_resize.png"},
        {"resize_IMG": "15/3_resize.png"},
        {"file_name": "../outside.jpg"},
        {"file_name": str(tmp_path.parent / "outside.jpg")},
        {"file_name": "bad \ud83d name.jpg"},
        "no object",
    ]
    write(tmp_path / "JSON_all.json", json.dumps(entries))
    found, skipped = read(tmp_path)
    assert set(found) == {"FGID_Origin/15/1.png", "FGID_resize/15/2_resize.png"}
    first, second = found.values()
    assert first.labels.prompt == "The image features a woman."
    assert first.labels.face_prompt is None
    assert (second.labels.identity, second.labels.prompt, second.labels.face_prompt) == ("7", "a man", "happy")
    assert skipped["15/3_resize.png"] == "missing"
    assert skipped["../outside.jpg"] == "path that leads out of the folder"
    assert skipped["FGID_resize/15/2_resize.png"] == "named by the list more than once"
    assert skipped["FGID_parsing_mask/15/1_mask.png"] == "not named by the list"
    assert skipped["JSON_all.json[8]"] == "entry of the list that names no picture"


def test_a_source_may_be_a_list_with_one_object_a_line(tmp_path: Path) -> None:
    write(tmp_path / "images" / "1.jpg")
    file = write(tmp_path / "list.jsonl", json.dumps({"file_name": "1.jpg", "text": "a"}) + "\n\n" + '{"text": "b"}\n')
    found, skipped = read(file)
    assert found["images/1.jpg"].labels.prompt == "a"
    assert skipped == {"list.jsonl[2]": "entry of the list that names no picture"}
    write(tmp_path / "list.json", '[{"file_name": ')
    with pytest.raises(UserError, match="not valid JSON"):
        read(tmp_path / "list.json")


def test_other_json_beside_photos_is_not_a_list(tmp_path: Path) -> None:
    write(tmp_path / "1.jpg")
    write(tmp_path / "2.jpg")
    write(tmp_path / "camera.json", '{"file": "1.jpg"}')
    write(tmp_path / "log.json", '[{"path": "somewhere"}]')
    found, skipped = read(tmp_path)
    assert set(found) == {"1.jpg", "2.jpg"}
    assert skipped == {"log.json": "not a picture"}


def member(archive: tarfile.TarFile, name: str, body: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(body)
    archive.addfile(info, io.BytesIO(body))


def shard(file: Path, mode: str = "w") -> Path:
    with tarfile.open(file, mode) as archive:
        member(archive, "0001.jpg", JPEG)
        member(archive, "0001.txt", b"a man\nhappy")
        member(archive, "0001.json", b'{"identity": "anna", "prompt": "a woman"}')
        member(archive, "0002.png", JPEG + b"2")
        member(archive, "0002.json", b"[1]")
        member(archive, "0003.npy", b"array")
        link = tarfile.TarInfo("0004.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        member(archive, "0005.jpg", bytes(LIMIT + 1))
        member(archive, "0006.jpg", JPEG + b"6")
        member(archive, "0006.jpg", JPEG + b"again")
    return file


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz")])
def test_tar_shards(tmp_path: Path, name: str, mode: str) -> None:
    shard(tmp_path / name, mode)
    found, skipped = read(tmp_path)
    assert {
        key: (item.labels.identity, item.labels.prompt, item.labels.face_prompt) for key, item in found.items()
    } == {
        f"{name}/0001.jpg": ("anna", "a woman", "happy"),
        f"{name}/0002.png": (None, None, None),
        f"{name}/0006.jpg": (None, None, None),
    }
    assert skipped == {
        f"{name}/0002.json": "JSON of a photo that is no object in UTF-8 or UTF-16",
        f"{name}/0003.npy": "not a picture",
        f"{name}/0004.jpg": "not a regular file",
        f"{name}/0005.jpg": "larger than ingest.max_file_mb",
        f"{name}/0006.jpg": "member that an archive holds more than once under one name",
    }
    assert read(tmp_path / name) == (found, skipped)


@pytest.mark.parametrize("cut", [512 * 3 + 100, 512 * 2 + 10, 512 * 8])
def test_a_truncated_archive_is_reported_and_its_readable_photos_are_kept(tmp_path: Path, cut: int) -> None:
    whole = shard(tmp_path / "whole.tar").read_bytes()
    write(tmp_path / "cut" / "a.tar", whole[:cut])
    write(tmp_path / "cut" / "b.tar", "no archive")
    found, skipped = read(tmp_path / "cut")
    assert "a.tar/0001.jpg" in found
    assert "cannot be read to its end" in skipped["a.tar"]
    assert "cannot be read to its end" in skipped["b.tar"]


def test_webdataset_reads_the_same_samples(tmp_path: Path) -> None:
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "w.tar")) as sink:
        sink.write({"__key__": "people/0001", "jpg": JPEG, "txt": "a man", "json": {"identity": "bert"}})
    found, _ = read(tmp_path)
    assert found["w.tar/people/0001.jpg"].labels.identity == "bert"
    assert found["w.tar/people/0001.jpg"].labels.prompt == "a man"
    (content,) = open_source(tmp_path).contents(found.values(), LIMIT)
    assert content.data == JPEG
