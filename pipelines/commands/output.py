"""Print results for programs to stdout and messages for people to stderr."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import asdict, is_dataclass
from typing import Annotated, Any

import typer

from pipelines.core.screen import encodable, say

__all__ = ["say"]

_JSON: ContextVar[bool] = ContextVar("json", default=False)
_Json = Annotated[bool, typer.Option("--json", help="Print the result to stdout as JSON.")]


def accepting_json(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` with the option --json, which `emit` and `json_wanted` read."""

    @functools.wraps(command)
    def run(*, as_json: bool = False, **options: Any) -> None:
        before = _JSON.set(as_json)
        try:
            command(**options)
        finally:
            _JSON.reset(before)

    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_Json)
    run.__dict__["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), option])
    return run


def json_wanted() -> bool:
    """Return whether --json was given."""
    return _JSON.get()


def emit(value: Any, text: str | None = None) -> None:
    """Print a result (plain or a dataclass) to stdout: as `text` if that is given without --json, else as JSON."""
    if text is None or json_wanted():
        plain = asdict(value) if is_dataclass(value) else value  # type: ignore[arg-type]
        text = json.dumps(_encodable(plain), default=lambda other: encodable(str(other)))
    if text:
        typer.echo(text)


def _encodable(value: Any) -> Any:
    """Return a plain value whose texts other programs can encode, too: names of files may be no UTF-8."""
    if isinstance(value, dict):
        return {_encodable(name): _encodable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(one) for one in value]
    return encodable(value) if isinstance(value, str) else value


def emit_if_asked(value: Any) -> None:
    """Print a result to stdout as JSON if --json is given; without it only the messages on stderr tell the result."""
    if json_wanted():
        emit(value)


def say_done(text: str) -> None:
    """Print to stderr, in green, that something is done."""
    say(text, "green")


def warn(text: str) -> None:
    """Print a warning to stderr, in yellow."""
    say(text, "yellow")
