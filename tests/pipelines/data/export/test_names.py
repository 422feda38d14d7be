"""Names of exported files stay inside the folder, and a row's name is restored."""

from __future__ import annotations

import os

import pytest

from pipelines.data.export.names import file_path, folder_name, suffix_of, with_mark
from pipelines.data.ingest.photo_files import row_name


@pytest.mark.parametrize("raw", [b"anna/1.jpg", b"caf\xe9.jpg", b"a%E9.jpg", b"100%.jpg", "Zoë\n.jpg".encode(), b"%41"])
def test_a_name_from_ingest_is_restored(raw: bytes) -> None:
    assert os.fsencode(file_path(row_name(os.fsdecode(raw)))) == raw


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("../../etc/passwd", "_./_./etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("a/../b.jpg", "a/_./b.jpg"),
        ("%2E%2E/x.jpg", "_./x.jpg"),
        ("a%2Fb.jpg", "a/b.jpg"),
        ("a/.hidden.jpg", "a/_hidden.jpg"),
        ("a%00.jpg", "a_.jpg"),
        ("", "_"),
        ("./", "_"),
    ],
)
def test_a_name_never_leads_elsewhere_or_hides_the_file(name: str, path: str) -> None:
    assert file_path(name) == path


def test_long_names_are_cut_and_stay_distinct() -> None:
    one, other = file_path("a/" + "x" * 300 + ".jpg"), file_path("a/" + "x" * 301 + ".jpg")
    assert one != other
    assert one.endswith(".jpg")
    assert max(len(part) for part in one.split("/")) <= 200


def test_people_and_suffixes() -> None:
    assert folder_name("../anna") == "_./anna"
    assert folder_name("100%41") == "100%41"
    assert suffix_of("JPEG", "a.PNG") == ".PNG"
    assert suffix_of("WEBP", "IMG_3") == ".webp"
    assert suffix_of(None, "IMG_3") == ".bin"
    assert with_mark("a/1.jpg", "0123456789abcdef") == "a/1-0123456789ab.jpg"
