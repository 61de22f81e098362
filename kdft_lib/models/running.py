"""Call any model in the same way, read its layers, and look at one without changing it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from kdft_lib.models import attention

Inputs: TypeAlias = Tensor | Mapping[str, Tensor]


def logits(model: nn.Module, inputs: Inputs) -> Tensor:
    """Run a model and return its logits, whatever it wraps them in.

    Args:
        model: Any model that takes a tensor, or keywords, and returns a tensor, or something with ``logits`` (an
            attribute, as in a Hugging Face ``ModelOutput``, or a key).
        inputs: The model's inputs, a tensor ``(N, ...)``, or a mapping of them that is passed as keywords. Of a causal
            language model of Transformers, documents that lie behind one another in a row, as
            :func:`kdft_lib.data.packed` has them, do not see one another: where ``position_ids`` begin again and no
            ``attention_mask`` is given, one is made.

    Returns:
        The logits, ``(N, ..., C)`` or as the model lays them out.

    Raises:
        TypeError: If the model returns no logits.
        ValueError: If it changes its inputs in place, or documents cannot be held apart in it; the message says why.

    Example:
        >>> logits(torch.nn.Linear(3, 2), torch.zeros(4, 3)).shape
        torch.Size([4, 2])
    """
    given = inputs.values() if isinstance(inputs, Mapping) else (inputs,)
    watched = [tensor for tensor in given if isinstance(tensor, Tensor) and not tensor.is_inference()]
    versions = [tensor._version for tensor in watched]
    output = _with_keywords(model, inputs) if isinstance(inputs, Mapping) else model(inputs)
    if [tensor._version for tensor in watched] != versions:
        raise ValueError(
            f"{type(model).__name__} changes its inputs in place, and with them the data and what other models are"
            " given; let its first layers make new tensors: x = x - mean in place of x -= mean, ReLU() in place of"
            " ReLU(inplace=True)"
        )
    if isinstance(output, Tensor):
        return output
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if not isinstance(found, Tensor):
        raise TypeError(
            f"{type(model).__name__} returned a {type(output).__name__} without logits;"
            " it must return a tensor of logits, or an object with a tensor named logits"
        )
    return found


def _with_keywords(model: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    try:
        return model(**inputs, **attention.apart(model, inputs))
    except TypeError as error:
        if "keyword argument" not in str(error):
            raise
        raise TypeError(
            f"{type(model).__name__} was given {', '.join(inputs)} as keywords, and {str(error).split('() ')[-1]}; name"
            ' the columns of a batch as its forward does, take the others out, or give {"inputs": a tensor}'
        ) from error


@dataclass(frozen=True)
class Outputs:
    """What one call of a model gave.

    Attributes:
        logits: The logits, as the model lays them out; of a teacher whose answers came with the data, those answers.
        features: The outputs of the layers asked for, by name.
        model: The model itself.

    Example:
        >>> given = outputs(nn.Sequential(nn.Linear(3, 2)), torch.zeros(4, 3), ["0"])
        >>> given.logits.shape, list(given.features)
        (torch.Size([4, 2]), ['0'])
    """

    logits: Any
    features: dict[str, Tensor] = field(default_factory=dict)
    model: nn.Module | None = None


def outputs(model: nn.Module, inputs: Inputs, layers: Iterable[str] = ()) -> Outputs:
    """Run a model once, and keep what some of its layers gave: feature, or activation, extraction by forward hooks.

    What a layer gave is copied at once: a ReLU that works in place, or a residual added in place, would
    otherwise change it afterwards.

    Args:
        model: The model to run, any module that :func:`kdft_lib.models.logits` can call.
        inputs: The model's inputs, a tensor, or a mapping of them that is passed as keywords.
        layers: The names of the layers, as in ``model.named_modules()``. Of a layer that returns several tensors, the
            first is kept; of one that is called several times, the last call's.

    Returns:
        :class:`Outputs`, differentiable as the call was.

    Raises:
        ValueError: If a layer does not exist (the nearest names are listed), did not run, or gives no
            tensor; if batch normalisation in training meets one sample alone.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
        >>> outputs(model, torch.zeros(5, 3), ["0"]).features["0"].shape
        torch.Size([5, 4])
    """
    kept: dict[str, Tensor] = {}
    modules = {name: find(model, name) for name in layers}

    def keeper(name: str) -> Any:
        def keep(module: nn.Module, _: Any, output: Any) -> None:
            kept[name] = _first_tensor(output, name, module).clone()

        return keep

    handles = [module.register_forward_hook(keeper(name)) for name, module in modules.items()]
    try:
        given = logits(model, inputs)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "a batch of one sample reached batch normalisation in training, which needs two or more;"
            " raise batch_size, lower accumulate, or let the loader drop its last batch (drop_last=True)"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
    for name, module in modules.items():
        if name not in kept:
            raise ValueError(
                f"layer is {name!r}, a {type(module).__name__} that {type(model).__name__} did not call;"
                " name one that runs for these inputs"
            )
    return Outputs(given, kept, model)


def find(model: nn.Module, name: str, argument: str = "layer") -> nn.Module:
    """The module of that name.

    Raises:
        ValueError: If there is none; the message lists the nearest names.

    Example:
        >>> find(nn.Sequential(nn.Linear(3, 2)), "0")
        Linear(in_features=3, out_features=2, bias=True)
    """
    modules = dict(model.named_modules())
    if not name or name not in modules:
        named = [known for known in modules if known]
        children = [child for child, _ in model.named_children()]
        last = [known for known in named if any(True for _ in modules[known].parameters(recurse=False))][-1:]
        near = get_close_matches(name, named, n=5, cutoff=0.4)
        listed = list(dict.fromkeys([*children, *last, *near]))
        raise ValueError(
            f"{argument} is {name!r}, which {type(model).__name__} does not have; choose one of its modules,"
            f" such as {', '.join(map(repr, listed[:20])) or '(it has none)'}"
        )
    return modules[name]


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


def _first_tensor(output: Any, name: str, module: nn.Module) -> Tensor:
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else [output]
    for part in parts:
        if isinstance(part, Tensor):
            return part
    raise ValueError(
        f"layer is {name!r}, a {type(module).__name__} that gives a {type(output).__name__} without a tensor;"
        " name one that gives a tensor"
    )
