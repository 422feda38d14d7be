"""Read JSON and YAML that somebody else may have written: whatever is in it, the answer is a value or one UserError.

YAML is that of version 1.2, as DVC reads and writes it: `no` is a word, `1e-4` a number.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError, SafeConstructor
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.representer import RoundTripRepresenter

from model.formats import read_object as _read_object
from pipelines.core.errors import UserError

# Parameters and prompts have a few kilobytes; the parser is slow.
_MOST_YAML = 256 * 2**10


def read_object(file: Path, advice: str) -> dict[str, Any]:
    """Return the JSON object in `file`; raise UserError, which ends with `advice`, where it is missing or none."""
    if not file.is_file():
        raise UserError(f"{file}: no such file; {advice}")
    try:
        return _read_object(file, advice)
    except ValueError as error:
        raise UserError(str(error)) from None


def read_text(file: Path) -> str:
    """Return the text of a file that people write; raise UserError where it is not UTF-8, or larger than those are."""
    if file.stat().st_size > _MOST_YAML:
        raise UserError(f"{file}: larger than {_MOST_YAML // 2**10} KB; expected a text file of some kilobytes")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{file}: not a text file in UTF-8; save it in UTF-8, or name another one") from None


def read_yaml(file: Path) -> Any:
    """Return the YAML in `file`; raise UserError as `read_text` and `parse_yaml` do."""
    return parse_yaml(read_text(file), str(file))


def parse_yaml(text: str, origin: str) -> Any:
    """Return the values of YAML; raise UserError, beginning with `origin`, where it is damaged.

    A key that occurs twice is refused, as one of its values would be lost; aliases, since a few lines of them stand for
    any number of values; and NUL, which no path can hold.
    """
    reader = YAML(typ="safe", pure=True)
    reader.Composer, reader.Constructor = _PlainComposer, _PlainConstructor
    try:
        return reader.load(text)
    except RecursionError:
        raise UserError(f"{origin}: nested too deeply; expected sections of keys and values") from None
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        raise UserError(f"{origin}: line {line}: {error.problem}; keep one of them") from None
    except (YAMLError, ValueError, TypeError, AttributeError) as error:  # such as a date that does not exist
        raise UserError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from None


def write_yaml(tree: Mapping[str, Any], text: str = "") -> str:
    """Return `tree` as YAML, in the form of `text` where that is YAML: only lines whose values differ are written anew.

    Comments and the order of keys stay; new keys are placed as in `tree`. New lines are as DVC writes them, so that
    `dvc exp run --set-param` changes no others. Raises ValueError where the result would not be read as `tree`.
    """
    editor = _editor(text)
    try:
        lines = editor.load(text)
    except YAMLError:
        lines = None
    if not isinstance(lines, CommentedMap):
        lines = CommentedMap()
    _update(lines, tree)
    written = io.StringIO()
    editor.dump(lines, written)
    if repr(parse_yaml(written.getvalue(), "the text written")) != repr(_in_order_of(lines, tree)):
        raise ValueError("it would not keep its values")
    return written.getvalue()


def _editor(text: str) -> YAML:
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 4096
    if re.search(r": null\b", text):
        editor.Representer = _NullRepresenter
    # A list is indented in its key, or not, as the file has it.
    indented = re.search(r"^( *)[\w-]+:[^\n]*\n\1 +- ", text, re.MULTILINE)
    editor.indent(mapping=2, sequence=4 if indented else 2, offset=2 if indented else 0)
    return editor


def _update(lines: MutableMapping[str, Any], tree: Mapping[str, Any]) -> None:
    for key in [key for key in lines if key not in tree]:
        del lines[key]
    for place, (key, value) in enumerate(tree.items()):
        if key in lines:
            lines[key] = _changed(lines[key], value)
        else:
            lines.insert(place, key, value)  # type: ignore[attr-defined]


def _changed(old: Any, new: Any) -> Any:
    """Return the value `new` in the form of `old`: the same object where only parts of it differ, or nothing."""
    if isinstance(old, CommentedMap) and isinstance(new, Mapping) and old and new:
        _update(old, new)
    elif isinstance(old, CommentedSeq) and isinstance(new, (list, tuple)) and len(old) == len(new):
        old[:] = [_changed(*each) for each in zip(old, new, strict=True)]
    elif repr(_plain(old)) != repr(_plain(new)):
        inline = isinstance(old, CommentedSeq) and old and old.fa.flow_style()
        new = CommentedSeq(new) if isinstance(new, (list, tuple)) else new
        if inline and isinstance(new, CommentedSeq):
            new.fa.set_flow_style()
        return new
    return old


def _plain(value: Any) -> Any:
    """Return a value of an edited file in Python's own types."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return next((kind(value) for kind in (str, bool, int, float) if isinstance(value, kind)), value)


def _in_order_of(lines: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _in_order_of(lines[key], tree[key])
        if isinstance(tree[key], Mapping) and isinstance(lines[key], Mapping)
        else _plain(tree[key])
        for key in lines
    }


class _NullRepresenter(RoundTripRepresenter):
    """Write out `null`, as PyYAML does, instead of nothing."""


_NullRepresenter.add_representer(type(None), lambda own, _: own.represent_scalar("tag:yaml.org,2002:null", "null"))


class _PlainComposer(Composer):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.parser.check_event(AliasEvent):
            mark = self.parser.peek_event().start_mark
            raise ComposerError(None, None, "an alias (*) is not read; write the value out", mark)
        return super().compose_node(parent, index)


class _PlainConstructor(SafeConstructor):
    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and "\0" in value:
            raise ConstructorError(None, None, "a text with the character NUL", node.start_mark)
        return value
