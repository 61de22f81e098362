"""Run notebooks as Colab does: what it has installed, an empty folder, the notebook alone, cell by cell as it is.

The set-up cell asks GitHub for the repository; git is told that it lies here, so what is committed is what runs. What
Colab has installed stays in ``_build/colab``, until its versions are others.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EXCERPT = ROOT / "tools/colab.txt"
ENVIRONMENT = ROOT / "_build/colab"
#: What a set-up cell may never replace: Colab has imported it, or has built it for its accelerators.
KEPT = ("torch", "torchvision", "numpy", "matplotlib")


def extras(notebook: Path) -> list[str]:
    """What the set-up cell asks for."""
    (asked,) = re.findall(r"kdft-lib\[([\w,]+)\] @ git", notebook.read_text(encoding="utf-8"))
    return asked.split(",")


def largest_setup() -> Path:
    """The chapter whose set-up cell asks for the most extras: there, most may go wrong."""
    return max(sorted((ROOT / "book").glob("*.ipynb")), key=lambda notebook: len(extras(notebook)))


def pins(freeze: Iterable[str], names: Iterable[str] | None = None) -> dict[str, str]:
    """The versions in a list by ``pip freeze``, of all packages or of some, without the build that a version is of."""
    listed = (line.split("#")[0].strip() for line in freeze)
    found = dict(line.split("+")[0].split("==") for line in listed if "==" in line and "@" not in line)
    return found if names is None else {name: found[name] for name in names if name in found}


def python() -> str:
    """The interpreter nearest to the excerpt's that can make environments."""
    for path in filter(None, map(shutil.which, ("python3.12", "python3.11"))):
        if subprocess.run([path, "-c", "import ensurepip, venv"], stderr=subprocess.DEVNULL).returncode == 0:
            return path
    return sys.executable


def installed(environment: Path) -> dict[str, str]:
    """The versions in an environment."""
    command = [str(environment / "bin/python"), "-m", "pip", "--disable-pip-version-check", "list", "--format=json"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {package["name"]: package["version"] for package in json.loads(listed)}


def colab(folder: Path, python: str, versions: dict[str, str]) -> Path:
    """An environment with these packages, as Colab starts with them; one that was made in the folder serves again."""
    version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    made, wanted = folder / "made.json", {"python": version, **versions}
    if made.exists() and json.loads(made.read_text(encoding="utf-8")) == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    index = ["--extra-index-url", os.environ["TORCH_INDEX"]] if os.environ.get("TORCH_INDEX") else []
    subprocess.run([*pip, *index, *(f"{name}=={version}" for name, version in versions.items())], check=True)
    made.write_text(json.dumps(wanted), encoding="utf-8")
    print(f"Colab's packages: installed in {time.perf_counter() - started:.0f} s", flush=True)
    return folder


def surroundings(home: Path) -> dict[str, str]:
    """A user without caches, whose git finds the repository of the set-up cells in this working copy."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pip_cache = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True).stdout
    there = int(os.environ.get("GIT_CONFIG_COUNT", 0))
    left = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return left | {
        "XDG_CACHE_HOME": str(home / "cache"),
        "PIP_CACHE_DIR": pip_cache.strip(),
        "GIT_CONFIG_COUNT": str(there + 1),
        f"GIT_CONFIG_KEY_{there}": f"url.{ROOT.as_uri()}.insteadOf",
        f"GIT_CONFIG_VALUE_{there}": project["urls"]["Repository"],
    }


def compared(before: dict[str, str], after: dict[str, str]) -> tuple[bool, str]:
    """Whether what must stay has stayed, and what has not, as the end of a report."""
    moved = {name: after.get(name, "nothing") for name, version in before.items() if after.get(name) != version}
    changes = ", ".join(f"{name} {before[name]} by {version}" for name, version in moved.items())
    return not moved.keys() & set(KEPT), f"; replaced {changes}" if changes else ""


def seconds(cell: dict[str, Any]) -> float:
    """How long a cell ran."""
    times = cell["metadata"]["execution"]
    began, ended = (datetime.fromisoformat(times[f"iopub.{name}"]) for name in ("execute_input", "status.idle"))
    return (ended - began).total_seconds()


def run(notebook: Path, environment: Path) -> tuple[bool, str]:
    """Whether a notebook ran in a copy of the environment and kept what it must, and a report."""
    with tempfile.TemporaryDirectory(dir=environment.parent) as room:
        copied, folder = Path(room) / "environment", Path(room) / "content"
        shutil.copytree(environment, copied, symlinks=True, copy_function=os.link)
        folder.mkdir()
        shutil.copy(notebook, folder)
        before = installed(copied)
        done = subprocess.run(
            [copied / "bin/python", "-m", "nbconvert", "--to=notebook", "--execute", "--inplace", notebook.name],
            cwd=folder, env=surroundings(Path(room)), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode:
            return False, done.stdout
        cells = json.loads((folder / notebook.name).read_text(encoding="utf-8"))["cells"]
        setup, *others = [seconds(cell) for cell in cells if cell["cell_type"] == "code"]
        kept, changes = compared(before, installed(copied))
    return kept, f"set-up {setup:.0f} s, the rest {sum(others):.0f} s{changes}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Run notebooks as Colab does.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="by default the one whose set-up cell asks for most")
    parser.add_argument("--prepare", action="store_true", help="install what Colab has, and run nothing")
    parser.add_argument("--freeze", type=Path, default=EXCERPT, help="what Colab has installed, as pip freeze lists it")
    parser.add_argument("--python", default=python(), help="the interpreter")
    given = parser.parse_args()
    notebooks = given.notebooks or [largest_setup()]
    names = pins(EXCERPT.read_text(encoding="utf-8").splitlines())
    versions = pins(given.freeze.read_text(encoding="utf-8").splitlines(), names)
    environment = colab(ENVIRONMENT, given.python, versions)
    if given.prepare:
        return 0
    has = installed(environment)
    print("Colab has", ", ".join(f"{name} {has[name]}" for name in KEPT), flush=True)
    failed = False
    for notebook in notebooks:
        ran, report = run(notebook.resolve(), environment)
        failed |= not ran
        print(f"as on Colab {'passed' if ran else 'FAILED'}: {notebook.name}, {report}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
