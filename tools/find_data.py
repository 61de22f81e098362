"""Make sure that Fashion-MNIST is here: what is there already, a download, Debian's package, or one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from kdft_lib.datasets import fashion_mnist

PACKAGE = "dataset-fashion-mnist"


def install_with_apt(package: str) -> bool:
    """Whether a package of Debian's could be installed without asking anyone."""
    if shutil.which("apt-get") is None:
        return False
    become_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if become_root and shutil.which("sudo") is None:
        return False
    commands = (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", package])
    return all(
        subprocess.run([*become_root, *command], stdout=subprocess.DEVNULL).returncode == 0 for command in commands
    )


def main() -> int:
    try:
        fashion_mnist(labeled=10)
    except FileNotFoundError as error:
        if not install_with_apt(PACKAGE):
            print(error, file=sys.stderr)
            return 1
        fashion_mnist(labeled=10)
    return 0


if __name__ == "__main__":
    sys.exit(main())
