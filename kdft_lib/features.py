"""Read intermediate layers of any module, and compute what a frozen body gives once and for all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from kdft_lib import models
from kdft_lib.data import Batch, TensorData, batches
from kdft_lib.data.sources import Data, source
from kdft_lib.data.tensors import of_columns

__all__ = [
    "Outputs",
    "Remembered",
    "find",
    "outputs",
    "precompute",
]


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


def outputs(model: nn.Module, inputs: models.Inputs, layers: Iterable[str] = ()) -> Outputs:
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
        logits = models.logits(model, inputs)
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
    return Outputs(logits, kept, model)


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


def precompute(model: nn.Module, head: str, data: Data, *, batch_size: int = 512) -> tuple[nn.Module, TensorData]:
    """Run the frozen body once over the data, so that the head can be trained alone, in seconds: feature extraction,
    or linear probing on cached features.

    Training the head on these features is training it in the model with
    :class:`~kdft_lib.strategies.HeadOnly` and without augmentation, and the model has it afterwards: the
    head that is returned is the model's own.

    Args:
        model: The model, which computes where it is, in evaluation mode. Nothing in it changes.
        head: The head's name, as in ``model.named_modules()``: what makes logits of features, last.
        data: The data to compute features of, of any kind that :func:`kdft_lib.training.fit` takes.
        batch_size: The number of samples in each of the model's calls; a loader has its own.

    Returns:
        The head, and the data in memory, with its inputs replaced by what goes into the head and every other tensor.

    Raises:
        ValueError: If there is no such module, if it takes more than one tensor, or if the model does
            something with what it gives.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> head, features = precompute(model, "2", TensorData(torch.randn(5, 3)))
        >>> head is model[2], features.inputs.shape
        (True, torch.Size([5, 4]))
    """
    module = find(model, head, "head")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    found: list[Batch] = []
    with models.evaluation_mode(model), _inputs_of(module, head) as seen:
        for batch in source(data).in_order(batch_size):
            inputs = batches.apply({"inputs": batch["inputs"]}, lambda column: column.to(device))["inputs"]
            logits = models.logits(model, inputs)
            if len(seen) != 1:
                raise ValueError(f"head is {head!r}, which the model called {len(seen)} times; it must be called once")
            features = seen.pop()
            if not found and not _same(models.logits(module, features), logits):
                raise ValueError(
                    f"head is {head!r}, but the model's logits are not what it gives: something comes after it;"
                    " name a module that holds all that follows the body"
                )
            seen.clear()
            found.append(batch | {"inputs": features.to(batches.device(batch))})
    if not found:
        raise ValueError("data is empty; there is nothing to compute features of")
    return module, of_columns(batches.concatenated(found), getattr(data, "teacher", None))


class Remembered:
    """A frozen body as a function of data, such as :class:`~kdft_lib.experiments.OnFeatures` takes; each input is
    computed once, so that seeds and settings share what was computed.

    Args:
        model: The model, as :func:`precompute` takes it.
        head: The head's name.
        batch_size: The number of samples in each of the model's calls.

    Raises:
        ValueError: If there is no such module, when it is called; see :func:`precompute`.

    Example:
        >>> features = Remembered(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), "2")
        >>> features(TensorData(torch.randn(5, 3))).inputs.shape
        torch.Size([5, 4])
    """

    def __init__(self, model: nn.Module, head: str, *, batch_size: int = 64):
        self.model, self.head, self.batch_size = model, head, batch_size
        self._known: dict[bytes, Tensor] = {}

    def __call__(self, data: TensorData) -> TensorData:
        """The data with features ``(N, ...)`` as inputs, in the place of a tensor ``(N, ...)`` on the CPU."""
        keys = [row.numpy().tobytes() for row in data.inputs]
        new = [place for place, key in enumerate(keys) if key not in self._known]
        if new:
            _, found = precompute(self.model, self.head, data[new], batch_size=self.batch_size)
            self._known.update(zip((keys[place] for place in new), found.inputs, strict=True))
        return data.with_inputs(torch.stack([self._known[key] for key in keys]))

    def __getstate__(self) -> dict[str, Any]:
        """Without what it remembers."""
        return vars(self) | {"_known": {}}


@contextmanager
def _inputs_of(module: nn.Module, name: str) -> Iterator[list[Tensor]]:
    """What the module is called with, as long as this lasts."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        given = [*arguments, *keywords.values()]
        if len(given) != 1 or not isinstance(given[0], Tensor):
            raise ValueError(f"head is {name!r}, which takes {len(given)} arguments; it must take one tensor")
        seen.append(given[0].clone())

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def _same(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def _first_tensor(output: Any, name: str, module: nn.Module) -> Tensor:
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else [output]
    for part in parts:
        if isinstance(part, Tensor):
            return part
    raise ValueError(
        f"layer is {name!r}, a {type(module).__name__} that gives a {type(output).__name__} without a tensor;"
        " name one that gives a tensor"
    )
