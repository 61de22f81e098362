"""Readers of the book's pages, in a Chromium."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Error, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import find_browser

ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"

expect.set_options(timeout=20_000)


@contextmanager
def launched():
    """A Chromium that reaches no other host; without one the tests are skipped, but not where ``CI`` is set."""
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=find_browser.find(), args=[ALONE])
        except Error:
            if os.environ.get("CI"):
                raise
            pytest.skip(find_browser.ABSENT)
        yield browser
        browser.close()


class Reader:
    """A page, the addresses that it asked for, and what went wrong on it."""

    def __init__(self, page):
        self.page, self.requests, self.complaints = page, [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self.complain)

    def complain(self, line):
        if line.type == "error":
            self.complaints.append(f"{line.text} ({line.location['url']})")

    @property
    def status(self):
        return self.page.get_by_role("status")


@contextmanager
def visits(chromium, page, kind=Reader):
    """Open the page, in a new context each time, and hold it to making no error, unless ``silent`` is false."""
    contexts, readers = [], []

    def visit(address=None, *, silent=True, **settings):
        contexts.append(chromium.new_context(**settings))
        reader = kind(contexts[-1].new_page())
        readers.extend([reader] if silent else [])
        reader.page.goto(address or page.as_uri())
        return reader

    yield visit
    for context in contexts:
        context.close()
    assert [reader.complaints for reader in readers] == [[]] * len(readers)


def given_fields(path):
    """What a page's scripts are given: the fields of a data file, one a line."""
    fields = (re.fullmatch(r"  (\w+): (.*),", line) for line in path.read_text(encoding="utf-8").splitlines())
    return {field[1]: json.loads(field[2]) for field in fields if field}


def resize(page, viewport):
    """Give the page another size, and time to notice."""
    page.set_viewport_size(viewport)
    page.evaluate("() => new Promise((noticed) => requestAnimationFrame(() => requestAnimationFrame(noticed)))")


@contextmanager
def served(folder):
    """Over HTTP, from this machine."""
    assert folder.is_dir(), f"{folder} is not there: make book"
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
