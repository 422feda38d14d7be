"""A headless Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# A busy machine renders a page slowly.
TIMEOUT_MS = 120_000


@contextmanager
def browser(**context: Any) -> Iterator[Any]:
    """Yield a page in a new browser; skip the test where Chromium is missing."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root.
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = running.new_context(viewport={"width": 1400, "height": 1000}, **context).new_page()
        page.set_default_timeout(TIMEOUT_MS)
        yield page
        running.close()
