"""Write a generated page, or with `--check` compare it with the committed one."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def finish(text: str, file: Path) -> int:
    """Write `text` to `file` (relative to the project); with `--check` only return 1 where the file differs."""
    target = ROOT / file
    if "--check" not in sys.argv[1:]:
        target.write_text(text, encoding="utf-8")
        print(f"written: {file}")
        return 0
    if target.is_file() and target.read_text(encoding="utf-8") == text:
        return 0
    print(f"{file} is out of date: run `make reference`", file=sys.stderr)
    return 1


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table; `|` in cells is escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
