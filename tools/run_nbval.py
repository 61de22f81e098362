"""Run every notebook with nbval, each in its own process and an empty folder, from the installed wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


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


def run(notebook: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """nbval on a copy of the notebook. Outputs are compared in cells tagged nbval-check-output."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(notebook, folder)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--nbval-lax"]
        environment = os.environ | {"PYTHONPATH": str(site), "TQDM_DISABLE": "1"}
        return subprocess.run(
            [*command, "--nbval-cell-timeout=600", notebook.name],
            cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


def main() -> int:
    notebooks = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "book").glob("*.ipynb"))
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        site = install_wheel(Path(folder))
        for notebook in notebooks:
            started = time.perf_counter()
            done = run(notebook.resolve(), site)
            if done.returncode:
                failed.append(notebook.name)
                print(done.stdout)
            outcome = "FAILED" if done.returncode else "passed"
            print(f"nbval {outcome}: {notebook.name}, {time.perf_counter() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
