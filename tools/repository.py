"""Give the project another home: every badge, link and set-up cell then names it. Called by `make repository`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def site(owner: str, name: str) -> str:
    """Where GitHub publishes a repository's pages."""
    host = f"{owner.lower()}.github.io"
    return host if name.lower() == host else f"{host}/{name}"


def parts(url: str) -> tuple[str, str]:
    """Owner and name."""
    found = re.fullmatch(r"https://github\.com/([A-Za-z0-9-]+)/([\w.-]+?)(?:\.git)?/?", url, re.ASCII)
    if not found:
        raise ValueError(
            f"The address must look like https://github.com/owner/name, since Colab opens GitHub alone, and is {url!r}"
        )
    return found[1], found[2]


def move(root: Path, url: str) -> list[Path]:
    """Replace the repository's address, and its site's, in all of git's files; returns those that changed."""
    old = parts(yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"])
    new = parts(url)
    renamed = {site(*old): site(*new), "/".join(old): "/".join(new)}
    pattern = re.compile("|".join(rf"(?<![\w.-]){re.escape(name)}(?![\w-])" for name in renamed))
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    changed = []
    for path in (root / name for name in listed.split("\0") if name):
        try:
            text = path.read_bytes().decode("utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        if (moved := pattern.sub(lambda match: renamed[match[0]], text)) != text:
            path.write_bytes(moved.encode("utf-8"))
            changed.append(path)
    return changed


def main() -> int:
    try:
        changed = move(ROOT, "".join(sys.argv[1:]))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    for path in changed:
        print(path.relative_to(ROOT))
    print(f"{len(changed)} files name the new address; look at `git diff`, then commit them.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
