"""Build Data Docs of a validation that need no internet and give the verdict of the command line.

Great Expectations' pages load styles and scripts from public servers. Here the same files lie beside the pages
(`assets/`, with their licences), and what is not there is left out.
"""

from __future__ import annotations

import errno
import hashlib
import html
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.errors import StageFailed, UserError
from pipelines.core.files import atomic_folder
from pipelines.data.validation.check import FAIL
from pipelines.data.validation.verdict import VERDICT

if TYPE_CHECKING:
    from pipelines.data.validation.check import Check
    from pipelines.data.validation.verdict import Verdict

ASSETS = Path(__file__).with_name("assets")
# Where `dynamicid dataset browse` writes pages of rows; `forget` deletes them there.
PAGES = Path("reports") / "browse"
# Stands for the way from a page to the folder of all pages, which is known when the page is written.
_TOP = "dynamicid-top:"
_TABLE: dict[str, Any] = {
    "validations": {
        "renderer": {
            "column_section_renderer": {
                "class_name": "ValidationResultsColumnSectionRenderer",
                "table_renderer": {
                    "module_name": "pipelines.data.validation.results_table",
                    "class_name": "ResultsTable",
                },
            }
        }
    }
}
_TAG = re.compile(r"<(?P<kind>link|script)\b[^>]*?(?:href|src)=\"https?://(?P<path>[^\"]+)\"[^>]*>(?:</script>)?")
_WEB_PICTURE = re.compile(r"https?://great-expectations-web-assets[^\"')\s]*")
_ICON = re.compile(r"href=\"[./]*static/images/favicon.ico\"")
_NEWSLETTER = re.compile(r"<footer>.*?</footer>", re.DOTALL)
_BODY = re.compile(r"<div class=\"container-fluid[^>]*>")


def shown_of(check: Check) -> list[str]:
    """Return the cells of a check in the table of results (`results_table.TITLES`), as HTML; no rows have failed."""
    where = check.origin or check.parameter
    return [
        "the run stops" if check.severity == FAIL else "a warning",
        f"<code>{_breakable(html.escape(where))}</code>" if where else "",
        re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(check.protects)),
        "",
    ]


def _breakable(name: str) -> str:
    """Return the name of a parameter or file so that a narrow column breaks it between its words."""
    return re.sub(r"([./_])", r"\1<wbr>", name)


@contextmanager
def docs_folder(docs: Path | None) -> Iterator[Path]:
    """Yield a folder that replaces `docs` after the block; raise UserError where it cannot be written."""
    if docs is None:
        yield Path()
        return
    try:
        if docs.exists() and not os.access(docs, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with atomic_folder(docs) as part:
            yield part
    except OSError as error:
        raise UserError(
            f"{docs}: Data Docs cannot be written there ({error.strerror or error}); what is there is of an earlier "
            f"run. `chmod -R u+w {docs.parent}` if the folder is yours; where another user made it, such as root in a "
            "container, `sudo chown -R $USER` or `sudo rm -r` it"
        ) from None


def write_docs(context: Any, verdict: Verdict, part: Path, docs: Path) -> None:
    """Write the pages of the only validation result of `context` to the folder `part`, which will become `docs`."""
    (key,) = context.validation_results_store.list_keys()
    result = context.validation_results_store.get(key)
    # To Great Expectations a warning is a failure.
    result.success = verdict.success
    # Where its pages still search the name, though it is elsewhere since release 1.0.
    result.meta["batch_kwargs"] = {"data_asset_name": "photos"}
    pages = os.path.relpath(PAGES.absolute(), docs.absolute())
    for item in result.results:
        if not item.success and "element_count" in item.result:
            meta = item.expectation_config.meta
            meta["shown"][-1] = _rows_link(f"{verdict.stage}.{meta['name']}", pages)
    context.validation_results_store.set(key, result)
    # Great Expectations puts variables of the environment where a path has `$NAME`.
    folder = str(part.absolute()).replace("$", r"\$")
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": folder}
    site = {"class_name": "SiteBuilder", "show_how_to_buttons": False, "store_backend": store}
    context.add_data_docs_site(verdict.stage, {**site, "site_section_builders": _TABLE})
    context.build_data_docs()
    if not any((part / "validations").rglob("*.html")):
        raise StageFailed(f"{docs}: Great Expectations made no page of the results; what it printed above says why")
    shutil.copytree(ASSETS, part / "static" / "assets")
    for page in sorted(part.rglob("*.html")):
        up = "../" * (len(page.relative_to(part).parts) - 1)
        page.write_text(_settled(page.read_text(encoding="utf-8"), up, verdict), encoding="utf-8")


def _mark(verdict: bytes) -> str:
    return f'<meta name="verdict" content="{hashlib.sha256(verdict).hexdigest()}">'


def docs_of(report: Path) -> Path:
    """Return the folder of Data Docs that belongs to the folder of a stage's `verdict.json`."""
    return report.parent / "data_docs" / report.name


def remove_stale(report: Path) -> Path | None:
    """Remove the Data Docs of another verdict than the one in `report`; return their folder, None where they fit.

    DVC brings an earlier verdict back from its cache, but not the pages, which are none of its outputs.
    """
    docs, verdict = docs_of(report), report / VERDICT
    index = docs / "index.html"
    if not index.is_file() or not verdict.is_file() or _mark(verdict.read_bytes()) in index.read_text("utf-8"):
        return None
    shutil.rmtree(docs)
    return docs


def _rows_link(name: str, pages: str) -> str:
    command = f"dynamicid dataset browse --failing {name}"
    return f'<code>{_breakable(command)}</code><br>writes <a href="{_TOP}{pages}/{name}.html">the page</a> of them'


def _settled(text: str, up: str, verdict: Verdict) -> str:
    """Return a page with files beside it instead of addresses, and with the verdict; `up` leads to the folder."""

    def local(tag: re.Match[str]) -> str:
        name = tag["path"].rsplit("/", 1)[-1]
        if not (ASSETS / name).is_file():
            return ""
        beside = f"{up}static/assets/{name}"
        script = tag["kind"] == "script"
        return f'<script src="{beside}"></script>' if script else f'<link rel="stylesheet" href="{beside}">'

    text = _WEB_PICTURE.sub(f"{up}static/images/logo-long.png", _TAG.sub(local, text))
    text = _ICON.sub(f'href="{up}static/images/favicon.ico"', _NEWSLETTER.sub("", text)).replace(_TOP, up)
    own = f'{_mark(verdict.text().encode())}\n<link rel="stylesheet" href="{up}static/assets/data_docs.css">\n</head>'
    shown = "".join(
        f'<div class="alert alert-{colour}">{html.escape(line)}</div>'
        for colour, line in (("success" if verdict.success else "danger", verdict.summary()), *verdict.warning_lines())
    )
    return _BODY.sub(lambda tag: f"{tag[0]}{shown}", text.replace("</head>", own, 1), count=1)
