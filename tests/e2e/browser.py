"""A person at a browser: Debian's Chromium without a screen, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# A busy machine draws a page slowly.
PATIENCE = 120_000


@contextmanager
def browser(**context: Any) -> Iterator[Any]:
    """Yield a page in a fresh browser; skips, saying why, where there is no Chromium."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root.
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = running.new_context(viewport={"width": 1400, "height": 1000}, **context).new_page()
        page.set_default_timeout(PATIENCE)
        yield page
        running.close()
