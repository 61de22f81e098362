"""Knowledge distillation and fine-tuning in PyTorch: four choices, one call.

A training run is where it starts (the model), on which inputs (the data), what it learns from
(an objective) and what may move (a strategy); :func:`kdft_lib.training.fit` takes the four.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "audio",
    "data",
    "datasets",
    "experiments",
    "export",
    "features",
    "losses",
    "metrics",
    "models",
    "objectives",
    "plots",
    "strategies",
    "teachers",
    "training",
]

if TYPE_CHECKING:
    from kdft_lib import (
        audio,
        data,
        datasets,
        experiments,
        export,
        features,
        losses,
        metrics,
        models,
        objectives,
        plots,
        strategies,
        teachers,
        training,
    )


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"kdft_lib.{name}")
    raise AttributeError(f"module 'kdft_lib' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
