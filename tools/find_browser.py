"""The Chromium that the tests open pages in, and that prints the book."""

from __future__ import annotations

import shutil
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
ABSENT = (
    "There is no Chromium, so pages cannot be tried or printed;"
    " install one (Debian: apt install chromium; elsewhere: playwright install chromium)"
)


def find() -> str | None:
    """Where the system's is."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def is_there() -> bool:
    """Whether there is one, the system's or that of ``playwright install``, which Playwright finds by itself."""
    if find() is not None:
        return True
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return Path(playwright.chromium.executable_path).exists()
