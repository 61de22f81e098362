"""Memory that does not grow with the data; ``benchmarks/flat.py`` measures it with as many samples as it names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells private memory")
@pytest.mark.parametrize(
    ("kind", "function", "samples", "most"),
    [
        ("pictures", "predict", 1000, 50),
        ("pictures", "evaluate", 1000, 50),
        # Two thirds of the logits of the three batches would be 390 MiB; those of one are 195.
        ("places", "evaluate", 4800, 200),
    ],
)
def test_no_more_than_a_batch_is_held(monkeypatch, kind, function, samples, most):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import flat

    mebibytes = flat.measured(kind, function, samples) / 2**20
    print(f"\n{function} on {samples} {kind}: {mebibytes:.1f} MiB beyond the model and one batch")
    assert mebibytes < most
