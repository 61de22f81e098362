"""Where the system's Chromium is, which the tests open pages in and the print of the book comes from."""

from __future__ import annotations

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")
ABSENT = (
    "There is no Chromium, so pages cannot be tried or printed;"
    " install one (Debian: apt install chromium; elsewhere: playwright install chromium)"
)


def find() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)
