"""What `make` calls, beside the checks of the book."""

from __future__ import annotations

import functools
import gzip
import json
import re
import subprocess
import sys
import threading
import tomllib
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import find_browser  # noqa: E402
import find_data  # noqa: E402
import run_colab  # noqa: E402
import run_lighthouse  # noqa: E402


def absent(**_):
    raise FileNotFoundError("Fashion-MNIST is nowhere; install Debian's package dataset-fashion-mnist")


def test_data_that_is_there_needs_nothing(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("nothing should have been run"))
    assert find_data.main() == 0


@pytest.mark.parametrize("root", [True, False])
def test_debians_package_is_installed_where_that_is_possible(monkeypatch, root):
    ran, calls = [], []

    def load(**_):
        calls.append(1)
        if len(calls) == 1:
            absent()

    monkeypatch.setattr(find_data, "fashion_mnist", load)
    monkeypatch.setattr(find_data.os, "geteuid", lambda: 0 if root else 1000, raising=False)
    monkeypatch.setattr(find_data.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(
        find_data.subprocess, "run", lambda command, **_: ran.append(command) or subprocess.CompletedProcess(command, 0)
    )
    assert find_data.main() == 0
    sudo = [] if root else ["sudo", "-n"]
    assert ran[-1] == [*sudo, "apt-get", "install", "-qy", "dataset-fashion-mnist"]


def test_otherwise_there_is_one_clear_sentence(monkeypatch, capsys):
    monkeypatch.setattr(find_data, "fashion_mnist", absent)
    monkeypatch.setattr(find_data.shutil, "which", lambda name: None)
    assert find_data.main() == 1
    assert capsys.readouterr().err.strip() == "Fashion-MNIST is nowhere; install Debian's package dataset-fashion-mnist"


@pytest.mark.parametrize("there", [True, False])
def test_a_browser_is_installed_where_none_is_and_its_absence_is_said(monkeypatch, capsys, there):
    installed = []
    monkeypatch.setattr(find_browser.shutil, "which", lambda name: "/usr/bin/chromium" if there else None)
    monkeypatch.setattr(find_browser, "install_with_apt", installed.append)  # and it fails: it returns None
    assert find_browser.main() == 0
    assert installed == ([] if there else ["chromium"])
    assert capsys.readouterr().err.strip() == ("" if there else find_browser.ABSENT)


def test_versions_are_read_from_a_list_by_pip_freeze():
    listed = [
        "# Colab",
        "numpy==2.0.2",
        "torch==2.11.0+cu128",
        "colab @ file:///a==1.tar.gz",
        "tqdm==4.67.3",
    ]
    assert run_colab.pins(listed) == {"numpy": "2.0.2", "torch": "2.11.0", "tqdm": "4.67.3"}
    assert run_colab.pins(listed, ["torch", "timm"]) == {"torch": "2.11.0"}


def test_the_excerpt_has_what_colab_may_not_lose():
    assert set(run_colab.KEPT) <= run_colab.pins(run_colab.EXCERPT.read_text(encoding="utf-8").splitlines()).keys()


def test_what_is_replaced_is_said_and_may_not_be_what_colab_has_loaded():
    before = {"numpy": "2.0.2", "torchao": "0.10.0", "tqdm": "4.67.3"}
    assert run_colab.compared(before, before | {"timm": "1.0.27"}) == (True, "")
    assert run_colab.compared(before, before | {"torchao": "0.13.0"}) == (True, "; replaced torchao 0.10.0 by 0.13.0")
    assert run_colab.compared(before, before | {"numpy": "2.4.0"}) == (False, "; replaced numpy 2.0.2 by 2.4.0")
    assert run_colab.compared({"numpy": "2.0.2"}, {}) == (False, "; replaced numpy 2.0.2 by nothing")


def test_each_extra_of_a_chapter_is_tried_as_on_colab():
    def extras(notebook):
        source = "".join("".join(cell["source"]) for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"])
        return set(re.search(r"kdft-lib\[([\w,]+)\] @ git", source)[1].split(","))

    chapters = {notebook.stem: extras(notebook) for notebook in (ROOT / "book").glob("*.ipynb")}
    assert set().union(*(chapters[name] for name in run_colab.CHAPTERS)) == set().union(*chapters.values())
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set().union(*chapters.values()) == declared.keys() - {"book", "course", "test"}


def test_lighthouse_sees_the_site_as_github_serves_it(tmp_path):
    (tmp_path / "index.html").write_text("<p>home</p>")
    (tmp_path / "404.html").write_text("<p>lost</p>")
    (tmp_path / "picture.png").write_bytes(b"png")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(run_lighthouse.Pages, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"http://127.0.0.1:{server.server_port}"
    with urlopen(f"{host}/") as page, urlopen(f"{host}/picture.png") as picture:
        assert page.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(page.read()) == b"<p>home</p>"
        assert picture.headers["Content-Encoding"] is None
        assert picture.read() == b"png"
    with pytest.raises(HTTPError) as lost:
        urlopen(f"{host}/nowhere.html")
    assert lost.value.code == 404
    assert gzip.decompress(lost.value.read()) == b"<p>lost</p>"
    server.shutdown()


def test_each_change_runs_some_notebooks_as_on_colab_and_each_week_all():
    assert "\nmake colab\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    weekly = (ROOT / ".github/workflows/weekly.yml").read_text(encoding="utf-8")
    assert "tools/run_colab.py --python python --freeze colab.txt book/*.ipynb\n" in weekly
