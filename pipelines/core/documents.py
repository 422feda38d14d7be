"""Read JSON and YAML that somebody else may have written: whatever is in it, the answer is a value or one UserError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

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


def read_yaml(file: Path) -> Any:
    """Return the YAML in `file`; raise UserError where it is not UTF-8, or as `parse_yaml`."""
    if file.stat().st_size > _MOST_YAML:
        raise UserError(f"{file}: larger than {_MOST_YAML // 2**10} KB; expected a YAML file of some kilobytes")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{file}: not a text file in UTF-8; save it in UTF-8, or name another one") from None
    return parse_yaml(text, str(file))


def parse_yaml(text: str, origin: str) -> Any:
    """Return the values of YAML; raise UserError, beginning with `origin`, where it is damaged.

    Aliases are refused, since a few lines of them stand for any number of values; so is NUL, which no path can hold.
    """
    try:
        return yaml.load(text, _PlainLoader)
    except RecursionError:
        raise UserError(f"{origin}: nested too deeply; expected sections of keys and values") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:  # such as a date that does not exist
        raise UserError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from None


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "an alias (*) is not read; write the value out", mark)
        return super().compose_node(parent, index)

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and "\0" in value:
            raise yaml.constructor.ConstructorError(None, None, "a text with the character NUL", node.start_mark)
        return value
