"""Check figures, words, links and paths in pages, and words and names of pages in code; list faults and exit 1.

Figures have a leading zero; `WORDS` and `NAMES` do not occur; links have a target (mkdocs checks those of the site);
paths in pages exist, and so do the tests that pages name (`tests/…/test_x.py::test_y`) and the pages that code names.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Jargon in pages, upper or lower case; then old names, which are forbidden in code, too.
WORDS = "errand|workshop|jury|examiner|door|in company|company of|numbers that are none|survives looking"
NAMES = (
    "look|looked|look_at_slice|told|said|in_words|company|Desk|Workshop|Errand|Jury|Examiner|Eye|Door|Studio|"
    "Found|Finding|Drawn|Order|Outcome|Seen|Known"
)
CODE = re.compile(r"^( *)```.*?^\1```|^(?: {4}|\t).*?$|`[^`]*`", re.DOTALL | re.MULTILINE)
NAME = re.compile(rf"(?<![\w.-])({NAMES})(?![\w-])")
CHECKS = (
    (re.compile(r"(?<![\d\w.])\.\d"), "no leading zero"),
    (re.compile(rf"\b({WORDS})\b", re.IGNORECASE), "jargon"),
)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
TREE = re.compile(
    r"(?<![\w./~-])(?:docs|pipelines|model|dags|tests|benchmarks|docker|mlflow|profiles)/[\w./-]*+(?![<*{])"
)
TEST = re.compile(r"(tests/[\w/.-]+\.py)::(\w+)")
PAGE = re.compile(r"(?<![\w./-])docs/[\w/.-]+\.\w+")


def faults_of(file: Path, text: str) -> Iterator[tuple[int, str]]:
    """Yield the position and the kind of every fault in `text`, the content of `file`."""
    if not file.is_relative_to("docs/log") and file != Path("docs/scripts/prose.py"):
        yield from ((at.start(), f"jargon: {at[0]}") for at in NAME.finditer(text))
    if file.suffix != ".md":
        yield from ((at.start(), f"no file {at[0]}") for at in PAGE.finditer(text) if not (ROOT / at[0]).is_file())
        return
    # Blank out code, so that positions stay the same.
    prose = CODE.sub(lambda at: re.sub(r"[^\n]", " ", at[0]), text)
    for pattern, kind in CHECKS[: 1 if file.is_relative_to("docs/log") else 2]:
        yield from ((at.start(), f"{kind}: {at[0]}") for at in pattern.finditer(prose))
    for at in LINK.finditer(prose):
        if "://" not in at[1] and not (ROOT / file.parent / at[1]).exists():
            yield at.start(), f"no target of the link {at[1]}"
    for at in TEST.finditer(text):
        if (ROOT / at[1]).is_file() and f"def {at[2]}(" not in (ROOT / at[1]).read_text(encoding="utf-8"):
            yield at.start(), f"no test {at[0]}"
    named = {at.start(): at[0].rstrip(".-") for at in TREE.finditer(text)}
    yield from ((start, f"no path {path}") for start, path in named.items() if not (ROOT / path).exists())


def main() -> int:
    """Print every fault of the tracked files as `file:line: what`; return 1 where there is one."""
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
