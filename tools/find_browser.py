"""Make sure that a Chromium is here, for the tests of the page that runs in a browser: one that is there,
Debian's package, or one sentence."""

from __future__ import annotations

import shutil
import sys

from find_data import install_with_apt

NAMES = ("chromium", "chromium-browser", "google-chrome")
ABSENT = (
    "There is no Chromium, so the page that runs in a browser cannot be tried;"
    " install one (Debian: apt install chromium; elsewhere: playwright install chromium)"
)


def find() -> str | None:
    """Where the system's Chromium is."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def main() -> int:
    """Its absence stops nobody here: the tests say what they skip, and fail where ``CI`` is set."""
    if find() is None and not install_with_apt("chromium"):
        print(ABSENT, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
