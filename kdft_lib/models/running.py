"""Call any model in the same way, and look at one without changing it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Inputs: TypeAlias = Tensor | Mapping[str, Tensor]


def logits(model: nn.Module, inputs: Inputs) -> Tensor:
    """Run a model and return its logits, whatever it wraps them in.

    Args:
        model: Any model that takes a tensor, or keywords, and returns a tensor, or something with ``logits`` (an
            attribute, as in a Hugging Face ``ModelOutput``, or a key).
        inputs: The model's inputs, a tensor ``(N, ...)``, or a mapping of them that is passed as keywords.

    Returns:
        The logits, ``(N, ..., C)`` or as the model lays them out.

    Raises:
        TypeError: If the model returns no logits.

    Example:
        >>> logits(torch.nn.Linear(3, 2), torch.zeros(4, 3)).shape
        torch.Size([4, 2])
    """
    output = _called(model, inputs)
    if isinstance(output, Tensor):
        return output
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if not isinstance(found, Tensor):
        raise TypeError(
            f"{type(model).__name__} returned a {type(output).__name__} without logits;"
            " it must return a tensor of logits, or an object with a tensor named logits"
        )
    return found


def _called(model: nn.Module, inputs: Inputs) -> Any:
    if not isinstance(inputs, Mapping):
        return model(inputs)
    try:
        return model(**inputs)
    except TypeError as error:
        if "keyword argument" not in str(error):
            raise
        raise TypeError(
            f"{type(model).__name__} was given {', '.join(inputs)} as keywords, and {str(error).split('() ')[-1]}; name"
            ' the columns of a batch as its forward does, take the others out, or give {"inputs": a tensor}'
        ) from error


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode and no gradient inside; each module's own mode again afterwards.

    Args:
        model: The model to look at, any module. A part that was frozen in evaluation mode is still so afterwards.

    Example:
        >>> model = torch.nn.Dropout().train()
        >>> with evaluation_mode(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield model
    finally:
        for module, training in modes:
            module.training = training
