"""What a process does that is made from one which has loaded all that takes long; see ``forks`` in conftest.py."""

from __future__ import annotations

import os
import runpy
import sys


def run(worker, arguments, variables):
    """As ``python worker arguments`` would, with these variables of the environment too."""
    os.environ.update(variables)
    sys.argv = [str(worker), *map(str, arguments)]
    runpy.run_path(str(worker), run_name="__main__")
