"""Whether a person watches, and a progress bar where one does, and none elsewhere."""

from __future__ import annotations

import os
import sys
from typing import Any


def progress_bar(
    total: int, unit: str, wanted: bool | None = None, initial: int = 0, described: str | None = None
) -> Any:
    """tqdm's bar: as wanted, or by default in a terminal and in a notebook's kernel, where the
    environment variable ``TQDM_DISABLE=1`` hides it for runs that nobody watches. Before it stands what is done.
    """
    from tqdm.auto import tqdm

    disable = not (watched() if wanted is None else wanted)
    return tqdm(total=total, initial=initial, unit=unit, desc=described, leave=False, disable=disable)


def watched() -> bool:
    """Whether a person may be watching: in a terminal, or in a notebook's kernel, unless the environment variable
    ``TQDM_DISABLE=1`` says that nobody does. What must not be kept in a notebook, such as photographs that are not ours
    to publish, is shown only then.

    Example:
        >>> from unittest import mock
        >>> with mock.patch("sys.stderr", isatty=lambda: False):
        ...     watched()
        False
    """
    return os.environ.get("TQDM_DISABLE") != "1" and (_in_notebook() or sys.stderr.isatty())


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and "IPKernelApp" in shell.config
