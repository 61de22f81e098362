"""What `make` calls, beside the checks of the book."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import find_browser
import find_data


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
