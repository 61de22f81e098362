"""What a run is given, looked at before its first step: each argument's type, and teachers that fit the data."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from kdft_lib.data.sources import Source
from kdft_lib.objectives import Objective
from kdft_lib.objectives.checks import named
from kdft_lib.strategies import Strategy


def check_choices(model: Any, objective: Any, strategy: Any) -> None:
    """Refuse what is no model, objective or strategy, and say what to write.

    Raises:
        TypeError: If so.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {what(model)}; it must be a torch.nn.Module, made already")
    if not isinstance(objective, Objective):
        raise TypeError(f"objective is {what(objective)}; {_objective_for(objective)}")
    if not isinstance(strategy, Strategy):
        raise TypeError(f"strategy is {what(strategy)}; {_strategy_for(strategy)}")


def check_optimizer(optimizer: Any) -> None:
    """Refuse an optimiser that is made already, and what makes none.

    Raises:
        TypeError: If so.
    """
    if isinstance(optimizer, torch.optim.Optimizer):
        kind, rate = type(optimizer).__name__, optimizer.param_groups[0]["lr"]
        raise TypeError(
            f"optimizer is {what(optimizer)}, made already; give what makes one, optimizer=torch.optim.{kind}, and"
            f" the rate to the strategy: FullFineTuning(lr={rate:g}); a functools.partial of it holds the rest"
        )
    if not callable(optimizer):
        raise TypeError(
            f"optimizer is {what(optimizer)}; give a class such as torch.optim.AdamW, or a functools.partial of one"
        )


def check_schedule(schedule: Any) -> None:
    """Refuse torch's schedulers, and what is no function.

    Raises:
        TypeError: If so.
    """
    is_torchs = isinstance(schedule, LRScheduler) or (inspect.isclass(schedule) and issubclass(schedule, LRScheduler))
    if is_torchs or not callable(schedule):
        raise TypeError(
            f"schedule is {what(schedule)}; give a name of kdft_lib.training.SCHEDULES, or a function of the progress,"
            " from 0 to 1, to a factor of the strategy's rates, such as lambda progress: 0.1 ** int(3 * progress)"
        )


def check_batch_size(batch_size: int | None, *given: Any) -> None:
    """Refuse a size that a loader would not heed.

    Raises:
        ValueError: If so.
    """
    sizes = [data.batch_size if isinstance(data, DataLoader) else None for data in given if data is not None]
    if batch_size is not None and None not in sizes and batch_size not in sizes:
        raise ValueError(
            f"batch_size is {batch_size}, and train_data is a DataLoader with batches of {sizes[0]}, which come as they"
            " are; leave batch_size out, or give the loader's dataset"
        )


def check_teachers(model: nn.Module, objective: Objective, sources: list[Source], augment: Any) -> None:
    """Refuse a teacher that would be trained, and cached logits that would not be its own.

    Raises:
        ValueError: If so.
    """
    own = {place for tensor in [*model.parameters(), *model.buffers()] for place in _places(tensor)}
    if any(not own.isdisjoint(_places(tensor)) for teacher in objective.teachers() for tensor in teacher.tensors()):
        raise ValueError(
            "the teacher shares tensors with the model, so training would change it;"
            " give the objective a copy: copy.deepcopy(model)"
        )
    modules = set(model.modules())
    for module in (module for teacher in objective.teachers() for module in teacher.model.modules()):
        if module in modules and _has_modes(module):
            raise ValueError(
                f"the teacher shares a {type(module).__name__} with the model, which the teacher's evaluation mode"
                " would switch off in training; give each its own, or the objective a copy: copy.deepcopy(teacher)"
            )
    cached = [source.teacher for source in sources if source.teacher is not None]
    readers = [term.teacher for _, term in objective.terms() if term.teacher is not None and term.reads_logits]
    if not cached or not (readers or objective.taught_by_data):
        return
    if augment is not None:
        raise ValueError(
            "augment changes the inputs, and the data carries teacher logits of the unchanged ones;"
            " give the data without cached logits, so that the teacher sees the same view"
        )
    for wanted in {teacher.fingerprint() for teacher in readers}:
        for found in cached:
            if found != wanted:
                raise ValueError(
                    f"the data's cached logits are of another teacher (fingerprint {found[:12]}) than the"
                    f" objective's ({wanted[:12]}); cache them anew with kdft_lib.teachers.cache"
                )


def _places(tensor: Tensor) -> set[tuple[str, int]]:
    """What two tensors have in common where one changes with the other: the object, or the memory, which
    ``load_state_dict(assign=True)`` shares between parameters that are two objects."""
    try:
        memory = tensor.data_ptr()
    except RuntimeError:  # Quantised ones, and shares, have none of their own.
        memory = 0
    return {("object", id(tensor))} | ({("memory", memory)} if memory else set())


def _has_modes(module: nn.Module) -> bool:
    """Whether it computes something else in training: dropout of any kind, from any library, asks ``self.training``."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and "training" in code.co_names


def check_weights(objective: Objective, epoch: int) -> None:
    """Refuse an epoch in which nothing counts.

    Raises:
        ValueError: If so.
    """
    if not any(factor and any(term.weights.values()) for factor, term in objective.terms()):
        names = " and ".join(named(term.weights) for _, term in objective.terms())
        raise ValueError(f"{names} are 0 at epoch {epoch}; nothing would be learned")


def check_resumption(sources: list[Source]) -> None:
    """Refuse to keep checkpoints of a run that could not go on from them, and warn of one that might not end alike.

    Raises:
        ValueError: If the data can be read only once.
    """
    for source in sources:
        doubt = source.inexact()
        if doubt is not None and isinstance(source.data, Iterator):
            raise ValueError(
                f"checkpoint_dir is given, and {source.name} is {what(source.data)}: {doubt}, so that an interrupted"
                " run could not go on; give a Dataset, a DataLoader or a list, or no checkpoint_dir"
            )
        if doubt is not None:
            warnings.warn(
                f"checkpoint_dir is given, but of {source.name} {doubt}: a run that was interrupted may end otherwise"
                " than one that was not",
                stacklevel=4,
            )


def what(value: Any) -> str:
    """An argument in words: what it is, with the class before its instance."""
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    if inspect.isroutine(value):
        return f"the function {value.__name__}"
    return repr(value) if isinstance(value, str | int | float | None) else f"{_article(type(value).__name__)}"


def _article(name: str) -> str:
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _objective_for(given: Any) -> str:
    """What to write in place of something that is no objective."""
    if inspect.isclass(given) and issubclass(given, Objective):
        return f"write an instance: {given.__name__}(…)"
    if isinstance(given, nn.CrossEntropyLoss):
        return "write objective=Supervised(), which is the cross-entropy with the labels"
    if isinstance(given, nn.BCEWithLogitsLoss):
        return "write objective=Supervised(multi_label=True), which is the binary cross-entropy with the labels"
    if isinstance(given, nn.KLDivLoss):
        return "write objective=SoftTargets(teacher), which is the divergence from a teacher"
    if isinstance(given, nn.MSELoss | nn.HuberLoss | nn.L1Loss | nn.SmoothL1Loss) or inspect.isfunction(given):
        return "a loss of outputs and targets goes into one: objective=Supervised(loss=torch.nn.functional.mse_loss)"
    return "it must be one of kdft_lib.objectives, such as Supervised() or SoftTargets(teacher)"


def _strategy_for(given: Any) -> str:
    """What to write in place of something that is no strategy."""
    if inspect.isclass(given) and issubclass(given, Strategy):
        return f"write an instance: {given.__name__}(lr=…)"
    if isinstance(given, torch.optim.Optimizer):
        kind, rate = type(given).__name__, given.param_groups[0]["lr"]
        return (
            "a strategy says which parameters move and how fast, and fit makes the optimiser: write"
            f" strategy=FullFineTuning(lr={rate:g}), optimizer=torch.optim.{kind}"
        )
    return "it must be one of kdft_lib.strategies, such as FullFineTuning(lr=0.001) or HeadOnly(lr=0.01)"
