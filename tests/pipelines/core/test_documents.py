"""JSON and YAML of strangers: a value or one UserError in one line, whatever the bytes are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.core.documents import parse_yaml, read_object, read_yaml, write_yaml
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


def test_yaml_is_that_of_version_1_2_as_dvc_writes_it() -> None:
    text = "precision: no\nrate: 1e-4\nquoted: 'no'\ntruth: true\ncount: 010\nclock: 1:30"
    values = {"precision": "no", "rate": 1e-4, "quoted": "no", "truth": True, "count": 10, "clock": "1:30"}
    assert parse_yaml(text, "a.yaml") == values


def test_a_key_that_occurs_twice_is_refused() -> None:
    with pytest.raises(UserError, match=r'a\.yaml: line 3: found duplicate key "steps".*; keep one of them'):
        parse_yaml("train:\n  steps: 1\n  steps: 2\n", "a.yaml")


FILE = """\
# Ours.
train:
  steps: 10  # enough
  rate: 1e-4
  precision: no

# What counts.
gates:
- {metric: a, minimum: 0.50}
sizes: [1, 2]
"""


def test_only_lines_whose_values_differ_are_written_anew() -> None:
    tree = parse_yaml(FILE, "a.yaml")
    assert write_yaml(tree, FILE) == FILE
    tree["train"]["steps"], tree["sizes"], tree["gates"][0]["minimum"] = 20, [3], 0.6
    changed = FILE.replace("steps: 10", "steps: 20").replace("[1, 2]", "[3]").replace("0.50", "0.6")
    assert write_yaml(tree, FILE) == changed


def test_new_keys_are_placed_as_in_the_tree_and_others_leave() -> None:
    tree = {"format": 2, "train": {"seed": 0, "steps": 10, "precision": "no"}, "sizes": []}
    expected = "# Ours.\nformat: 2\ntrain:\n  seed: 0\n  steps: 10  # enough\n  precision: no\n\n"
    written = write_yaml(tree, FILE)
    assert written.startswith(expected)
    assert parse_yaml(written, "a.yaml") == tree


def test_dvc_changes_no_line_but_its_own(tmp_path: Path) -> None:
    from dvc.utils.serialize import modify_yaml

    tree = {"precision": "no", "rate": 1e-4, "list": [1, [2]], "none": None, "empty": [], "gates": [{"a": 1, "b": {}}]}
    (tmp_path / "a.yaml").write_text(write_yaml(tree))
    with modify_yaml(str(tmp_path / "a.yaml")) as changed:
        changed["rate"] = 1
    assert (tmp_path / "a.yaml").read_text() == write_yaml(tree).replace("0.0001", "1")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc", min_size=1), inner),
)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.dictionaries(st.text("abcd", min_size=1), VALUES), st.dictionaries(st.text("abcd", min_size=1), VALUES))
def test_what_is_written_is_read_the_same_or_refused(before: dict[str, object], after: dict[str, object]) -> None:
    try:
        text = write_yaml(after, write_yaml(before))
    except (ValueError, UserError):
        return
    assert parse_yaml(text, "a.yaml") == after
