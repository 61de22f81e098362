"""Lighthouse on the built site, served as GitHub Pages does: compressed, on a phone as Lighthouse imagines one.

It wants Node 20 or newer, whose npx fetches Lighthouse, and a Chromium.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import find_browser
from check_pages import pages

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build/html"
LIGHTHOUSE = "lighthouse@12.8.2"
CATEGORIES = ("performance", "accessibility", "best-practices", "seo")
WANTED = 95
RUNS = 3


class Pages(SimpleHTTPRequestHandler):
    """Answers as GitHub Pages does: compressed where that helps, and kept for ten minutes."""

    protocol_version = "HTTP/1.1"
    compressed = ("text/", "application/json", "application/javascript", "image/svg+xml")

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        file = file / "index.html" if file.is_dir() else file
        status = 200 if file.is_file() else 404
        file = file if status == 200 else Path(self.directory) / "404.html"
        kind, body = self.guess_type(file), file.read_bytes()
        self.send_response(status)
        if kind.startswith(self.compressed):
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        self.wfile.write(body)


def longest() -> str:
    """The chapter with the most text and code."""
    notebooks = (ROOT / "book").glob("[0-9]*.ipynb")

    def length(notebook: Path) -> int:
        return sum(len("".join(cell["source"])) for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"])

    return max(notebooks, key=length).stem


def audit(url: str, folder: Path) -> dict[str, Any]:
    """One run of Lighthouse."""
    report = folder / "report.json"
    flags = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage"]
    subprocess.run(
        ["npx", "--yes", LIGHTHOUSE, url, "--quiet", "--output=json", f"--output-path={report}",
         f"--only-categories={','.join(CATEGORIES)}", f"--chrome-flags={' '.join(flags)}"],
        env=os.environ | {"CHROME_PATH": find_browser.find() or ""}, check=True,
    )  # fmt: skip
    return json.loads(report.read_text(encoding="utf-8"))


def main() -> int:
    names = sys.argv[1:] or ["intro", longest(), "api/losses"]
    if unknown := sorted(set(names) - set(pages())):
        print(f"The table of contents has no page {', '.join(unknown)}", file=sys.stderr)
        return 1
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Pages, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    low = False
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            url = f"http://localhost:{server.server_port}/{name}.html"
            reports = [audit(url, Path(folder)) for _ in range(RUNS)]
        scores = {c: statistics.median(round(100 * r["categories"][c]["score"]) for r in reports) for c in CATEGORIES}
        audits = sorted(reports, key=lambda r: r["categories"]["performance"]["score"])[RUNS // 2]["audits"]
        weight, interactive = audits["total-byte-weight"]["numericValue"], audits["interactive"]["numericValue"]
        print(f"{name}: {', '.join(f'{category} {score:.0f}' for category, score in scores.items())};", end=" ")
        print(f"{weight / 1000:.0f} kB, interactive after {interactive / 1000:.1f} s", flush=True)
        if min(scores.values()) < WANTED:
            low = True
            for identity, found in audits.items():
                if found["score"] is not None and found["score"] < 0.9:
                    print(f"    {identity}: {found.get('displayValue') or found['title']}", flush=True)
    server.shutdown()
    return int(low)


if __name__ == "__main__":
    sys.exit(main())
