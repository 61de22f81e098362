"""Shared by the tests and the doctests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_start(doctest_namespace):
    """Each test starts from the same random state; each example knows torch."""
    doctest_namespace["torch"] = torch
    torch.manual_seed(0)
