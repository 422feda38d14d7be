"""The one way to the screen: every line that this process prints passes `guard`, which escapes what moves a terminal.

Names of files come from strangers: an escape sequence in one could hide, move or forge other lines.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

# Control characters but for line break and tab, separators of lines, and marks that reorder text.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# A progress bar returns to the start of its own line, or goes up to the lines of the bars above it.
_OF_A_BAR = re.compile(r"\n*(\x1b\[A)+|\r(?=[^\r\x1b]*\Z)")
# A line break that begins no indented line.
_BREAK = re.compile(r"\n(?!  )")
# How Python holds bytes of a file's name that are not UTF-8.
_NOT_UTF_8 = re.compile("[\udc80-\udcff]+")
_STYLED: ContextVar[bool] = ContextVar("styled", default=False)


def printable(text: str) -> str:
    """Return `text` with control characters, and marks that reorder text, as escapes such as \\x1b."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def encodable(text: str) -> str:
    """Return `text` with the bytes of names that are not UTF-8 as escapes such as \\xff, which any program can read."""
    return _NOT_UTF_8.sub(lambda match: repr(os.fsencode(match[0]))[2:-1], text)


def one_message(text: str) -> str:
    """Return `text` as `printable`, and as one line; only indented lines may follow it."""
    return _BREAK.sub(r"\\n", printable(text.rstrip("\n")))


def guard() -> None:
    """Escape, from now on, whatever is written to stdout and stderr, whichever library writes it."""
    for stream in (sys.stdout, sys.stderr):
        # A name that is not UTF-8, or a terminal without its characters, must not end a command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            if not hasattr(stream.write, "guarded"):
                stream.write = _guarded(stream.write)  # type: ignore[method-assign]


def _guarded(write: Callable[[str], int]) -> Callable[[str], int]:
    def guarded(text: str) -> int:
        if _STYLED.get():
            return write(text)
        bar = _OF_A_BAR.match(text)
        own = bar[0] if bar else ""
        return write(own + printable(text[len(own) :]))

    guarded.guarded = True  # type: ignore[attr-defined]
    return guarded


@contextmanager
def _styled() -> Iterator[None]:
    token = _STYLED.set(True)
    try:
        yield
    finally:
        _STYLED.reset(token)


def say(text: str, colour: str | None = None) -> None:
    """Print a message to stderr as one line; a terminal shows it in `colour`, one of click's names."""
    import typer

    with _styled():
        typer.secho(one_message(text), fg=colour, err=True)


# More columns than anything printed has.
_ANY_WIDTH = 1000


def show(renderable: RenderableType, *, whole: bool = False, **options: Any) -> None:
    """Print what rich renders, such as a table, to stderr; its texts are escaped, its styles stay.

    With `whole` its lines are longer than a narrow screen; else rich wraps texts and cuts numbers off. `options` are
    those of rich's `print`.
    """
    from rich.console import Console
    from rich.measure import Measurement
    from rich.segment import Segment, Segments

    console = Console(stderr=True, highlight=False)
    if whole:
        unlimited = console.options.update(width=_ANY_WIDTH)
        console.width = max(console.width, Measurement.get(console, unlimited, renderable).maximum)
    rendered = console.render(renderable, console.options)
    cleaned = [Segment(printable(part.text), part.style) for part in rendered if not part.control]
    with _styled():
        console.print(Segments(cleaned), end="", **options)
