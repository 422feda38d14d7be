"""Check the prose of the project: figures, words, links, and paths that pages and code name; exit 1 with every fault.

Figures have a leading zero; jargon of earlier pages does not come back; links of README and the like lead somewhere
(mkdocs checks those of the site); a path of this tree that a page names exists, and so does a page that code names.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORDS = "errand|workshop|jury|examiner|door|in company|company of|numbers that are none|survives looking"
CODE = re.compile(r"^( *)```.*?^\1```|^(?: {4}|\t).*?$|`[^`]*`", re.DOTALL | re.MULTILINE)
CHECKS = (
    (re.compile(r"(?<![\d\w.])\.\d"), "no leading zero"),
    (re.compile(rf"\b({WORDS})\b", re.IGNORECASE), "jargon"),
)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
TREE = re.compile(
    r"(?<![\w./~-])(?:docs|pipelines|model|dags|tests|benchmarks|docker|mlflow|profiles)/[\w./-]*+(?![<*{])"
)
PAGE = re.compile(r"(?<![\w./-])docs/[\w/.-]+\.\w+")


def faults_of(file: Path, text: str) -> Iterator[tuple[int, str]]:
    """Yield position and kind of every fault in a file of the project."""
    if file.suffix != ".md":
        yield from ((at.start(), f"no file {at[0]}") for at in PAGE.finditer(text) if not (ROOT / at[0]).is_file())
        return
    # Blanked, so that positions stay.
    prose = CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    for pattern, kind in CHECKS[: 1 if file.is_relative_to("docs/log") else 2]:
        yield from ((at.start(), f"{kind}: {at[0]}") for at in pattern.finditer(prose))
    for at in LINK.finditer(prose):
        if "://" not in at[1] and not (ROOT / file.parent / at[1]).exists():
            yield at.start(), f"link to nothing: {at[1]}"
    named = {at.start(): at[0].rstrip(".-") for at in TREE.finditer(text)}
    yield from ((start, f"no path {path}") for start, path in named.items() if not (ROOT / path).exists())


def main() -> int:
    """Print every fault of the tracked files as `file:line: what`; 1 where there is one."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    suffixes = (".md", ".py", ".toml", ".yaml", ".yml", ".j2", ".env", "Makefile", "Dockerfile")
    count = 0
    for name in (name for name in listed.split("\0") if name.endswith(suffixes) and (ROOT / name).is_file()):
        text = (ROOT / name).read_text(encoding="utf-8")
        for position, what in faults_of(Path(name), text):
            count += 1
            print(f"{name}:{text.count(chr(10), 0, position) + 1}: {what}", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
