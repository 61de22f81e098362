"""Results that take too long for a notebook, kept with what they were made by."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch

import kdft_lib
from kdft_lib.experiments.result import Comparison
from kdft_lib.files import written_whole

_PACKAGE = Path(kdft_lib.__file__).parent
_DEPTH = 4
"""Of mappings: the file, comparisons, a comparison, what it holds, and methods, or measures and their methods."""


class Recorded(dict[str, Comparison]):
    """Comparisons by name, read from a file, and ``about``: command, commit, date, versions and hardware.

    Example:
        >>> sorted(recorded("soft-targets-thousand").about)
        ['command', 'commit', 'date', 'hardware', 'minutes', 'python', 'versions']
    """

    def __init__(self, comparisons: Mapping[str, Comparison], about: dict[str, Any]):
        super().__init__(comparisons)
        self.about = about


def record(
    name: str, comparisons: Mapping[str, Comparison], *, command: str, seconds: float, code: str | None = None
) -> Path:
    """Write comparisons that take too long for a notebook to ``assets/results/NAME.json``.

    Args:
        name: The result's name.
        comparisons: The comparisons by name.
        command: What runs it again.
        seconds: How long it took.
        code: The commit of the code that ran, as :func:`commit` said before it ran; by default as it says now.

    Returns:
        The path written.

    Raises:
        ValueError: If a setting or a measure is no plain value.

    Example:
        >>> path = record("an-example", {}, command="python recipe.py", seconds=60)
        >>> recorded("an-example").about["minutes"]
        1.0
        >>> path.unlink()
    """
    path = Path(str(resources.files("kdft_lib") / "assets/results")) / f"{name}.json"
    about = {
        "command": command,
        "commit": code or commit(),
        "date": datetime.date.today().isoformat(),
        "minutes": round(seconds / 60, 1),
        "hardware": hardware(),
        "python": platform.python_version(),
        "versions": {"kdft-lib": kdft_lib.__version__}
        | {package: metadata.version(package) for package in ("torch", "accelerate", "numpy")},
    }
    content = {"about": about, "comparisons": {key: value.to_dict() for key, value in comparisons.items()}}
    try:
        text = _laid_out(content) + "\n"
    except TypeError as error:
        raise ValueError(f"{name} cannot be recorded ({error}); settings are plain numbers and texts") from None
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def recorded(name: str) -> Recorded:
    """Comparisons that :func:`record` wrote and the package ships.

    Args:
        name: The result's name.

    Raises:
        FileNotFoundError: If there is none of that name; the message lists those that exist.

    Example:
        >>> list(recorded("soft-targets-thousand"))
        ['1,000 labels']
    """
    folder = resources.files("kdft_lib") / "assets/results"
    file = folder / f"{name}.json"
    if not file.is_file():
        known = sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))
        raise FileNotFoundError(f"no result {name!r} is recorded; there are {', '.join(known) or 'none'}")
    content = json.loads(file.read_text(encoding="utf-8"))
    comparisons = {key: Comparison.from_dict(value) for key, value in content["comparisons"].items()}
    return Recorded(comparisons, content["about"])


def commit() -> str | None:
    """The commit of the code that runs, with ``+`` where its files differ from it; ``None`` where it is in no
    repository, as an installed package is.

    Example:
        >>> said = commit()
        >>> said is None or len(said.rstrip("+"))
        40
    """

    def said(*arguments: str) -> str:
        command = ["git", "-C", str(_PACKAGE.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    code = [":/", f":(exclude){_PACKAGE / 'assets/results'}"]
    try:
        said("ls-files", "--error-unmatch", str(_PACKAGE / "__init__.py"))
        changed = said("status", "--porcelain", "--untracked-files=no", "--", *code)
        return said("rev-parse", "HEAD") + "+" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return None


def _laid_out(value: Any, depth: int = 0) -> str:
    """JSON with a line for each method of each comparison, whose numbers stand in that line."""
    if not isinstance(value, dict) or not value or depth > _DEPTH:
        return json.dumps(value, ensure_ascii=False)
    inner = " " * (depth + 1)
    lines = [
        f"{inner}{json.dumps(key, ensure_ascii=False)}: {_laid_out(each, depth + 1)}" for key, each in value.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"


def hardware() -> str:
    """The GPU, or the processor and how many of its threads torch uses, in words.

    Example:
        >>> isinstance(hardware(), str)
        True
    """
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = named[0].split(":", 1)[1].strip() if named else processor
    threads = torch.get_num_threads()
    return f"{processor}, {threads} thread{'s' if threads > 1 else ''}"
