"""JSON and YAML of strangers: a value or one UserError in one line, whatever the bytes are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.core.documents import parse_yaml, read_object, read_yaml
from pipelines.core.errors import UserError
from pipelines.core.params import check_params, load_params

SIGNS = st.text(alphabet="[]{}:,-&*!|>#%@`\"'\n \t\\0?~<=a1.é\u2028")


@settings(derandomize=True, max_examples=400, deadline=None)
@given(SIGNS)
@example("[" * 3000)
@example("? " * 3000)
@example("- " * 3000)
@example("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]")
@example("a: &a [*a]")
@example("<<: {a: 1}\n")
@example('path: "a\\0b"')
@example("day: 2026-13-45")
@example("number: " + "9" * 5000)
@example("!!python/object/apply:os.system [id]")
@example("? [1, 2]\n: 3")
@example("=: =")
@example("!!int x")
def test_yaml_is_read_or_named(text: str) -> None:
    reason = "a.yaml: "
    try:
        tree = parse_yaml(text, "a.yaml")
        if isinstance(tree, dict):
            check_params(tree, "a.yaml")
    except UserError as error:
        reason = str(error)
    assert reason.startswith("a.yaml: ")
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a: " + b"[" * 3000, "nested too deeply"),
        (b"name: caf\xe9", "not a text file in UTF-8"),
        (b"\xff\xfea\x00:\x00", "not a text file in UTF-8"),
        (b"a: &a [x]\nb: *a", "an alias"),
        (b'a: "x\\0"', "the character NUL"),
        (b"# " + b"x" * 2**18, "larger than 256 KB"),
    ],
)
def test_a_damaged_parameter_file_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_bytes(content)
    for read in (load_params, read_yaml):
        with pytest.raises(UserError, match=reason) as error:
            read(file)
        assert str(error.value).startswith(f"{file}: ")


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    st.binary()
    | SIGNS.map(str.encode)
    | st.recursive(st.none() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
)
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'{"a": "\xe9"}')
@example(b'{"a": ' + b"9" * 5000 + b"}")
@example(b"")
@example(b"[1]")
def test_json_is_an_object_or_named(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "object.json"
    file.write_bytes(content)
    found: object = {}
    try:
        found = read_object(file, "do this")
    except UserError as error:
        found = str(error)
    assert isinstance(found, dict) or found == f"{file}: damaged, not a JSON object; do this"


def test_a_missing_object_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: no such file; do this"):
        read_object(tmp_path / "none.json", "do this")
