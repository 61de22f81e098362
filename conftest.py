"""Shared by the tests and the doctests."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch
from hypothesis import settings

# With the oldest releases there is no extra export: those of ONNX could not export what is exported here.
collect_ignore_glob = [] if importlib.util.find_spec("onnxruntime") else ["kdft_lib/export/*"]

# Where a failure must mean the change at hand, the examples are the same each time.
settings.register_profile("ci", derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(autouse=True)
def _same_start(doctest_namespace):
    """Each test starts from the same random state; each example knows torch."""
    doctest_namespace["torch"] = torch
    torch.manual_seed(0)
