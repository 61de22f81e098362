"""The loop: four choices in, a trained model and its history out."""

from __future__ import annotations

import contextlib
import math
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from kdft_lib.data import Batch
from kdft_lib.data.sources import Data
from kdft_lib.objectives import Objective
from kdft_lib.strategies import Strategy
from kdft_lib.training import checks
from kdft_lib.training.callbacks import tell
from kdft_lib.training.history import History
from kdft_lib.training.inference import evaluate
from kdft_lib.training.run import Run
from kdft_lib.training.settings import settings_of, takes_settings


@takes_settings
def fit(
    model: nn.Module,
    train_data: Data,
    *,
    objective: Objective,
    strategy: Strategy,
    transfer_data: Data | None = None,
    val_data: Data | None = None,
    **options: Any,
) -> History:
    """Train a model in place.

    The model is where it starts; ``train_data`` and ``transfer_data`` are on which inputs;
    ``objective`` is what it learns from; ``strategy`` is what may move. Only weights and buffers
    change: training modes, ``requires_grad`` and torch's random state are afterwards as before.
    An exception, Ctrl-C included, leaves the weights as they were at that step.

    It runs on one CPU, one GPU, or in several processes, with the same call: under ``torchrun`` each holds all
    weights (DDP), under ``accelerate launch --use_fsdp --fsdp_version 2`` a share of them, of the gradients and of the
    optimiser's state (FSDP2). A sharded run that breaks off leaves the model as it was given.

    Args:
        model: The student. On a GPU where there is one, it ends there, and so does the teacher.
        train_data: A :class:`~kdft_lib.data.TensorData`, a ``Dataset``, a pair ``(inputs, targets)`` of tensors or
            NumPy arrays or a Hugging Face data set, which is shuffled into batches of ``batch_size``; or a
            ``DataLoader`` or another iterable of batches, which come as they are. What has no length needs ``steps``.
        objective: What it learns from; see :mod:`kdft_lib.objectives`.
        strategy: What may move, and how fast: it holds the learning rate; see :mod:`kdft_lib.strategies`.
        epochs: Passes over ``train_data``; what does not fill a batch is left out of a pass, and
            every pass is shuffled anew. Either this or ``steps``.
        steps: Optimiser steps. Either this or ``epochs``.
        batch_size: The number of samples in a step, over all processes and accumulated parts;
            all samples where there are fewer. ``transfer_data`` adds as many again. A loader has its own.
        num_workers: The number of processes that read a dataset; 0 reads it in this one. It changes no result.
        collate_fn: What makes a batch of a dataset's samples; torch's ``default_collate`` by default.
        transfer_data: Inputs without labels. Each step draws a batch from both: cross-entropy sees the
            labelled rows, distillation all of them.
        val_data: Data that is scored after each epoch; for choosing, never the test set. Where the objective learns
            numbers, by its loss.
        augment: A function of a batch of inputs, drawn anew at each step; student and teacher see
            the same view.
        optimizer: What makes an optimiser from parameter groups: a class such as ``torch.optim.AdamW`` or
            ``timm.optim.Lamb``, or a ``functools.partial`` of one.
        schedule: The learning rate's course: a name of ``kdft_lib.training.SCHEDULES``, or a
            function of the progress, from 0 to 1, to a factor of the strategy's rates.
        clip_norm: The largest norm that the whole gradient may have; a longer one is shortened to it.
        accumulate: The number of parts that a step's batch is cut into, to save memory.
        seed: What decides the order, the views and dropout. The initialisation is the caller's.
        precision: The precision of the forward pass; ``"float16"`` needs a GPU.
        metrics: Further validation scores by name; see :func:`~kdft_lib.training.evaluate`.
        keep_best: Whether to end with the weights of the best epoch: of highest validation accuracy, or of lowest loss
            where there is no accuracy. Or the name of a score to choose by, the lowest ``"loss"`` or the highest of
            another; or a pair of both, such as ``("error", "min")``.
        callbacks: Objects with a method ``on_step_end(state)`` or ``on_epoch_end(state)``, which are told a
            :class:`~kdft_lib.training.RunState`, such as :class:`~kdft_lib.training.EarlyStopping`. One that returns
            ``False`` ends the run, after a validation, as if its budget were spent. Of several processes, each asks
            its own, and the first decides. With ``state_dict`` and ``load_state_dict`` their state, of tensors and
            plain values, is in the checkpoints; a run that was stopped stays so when it is called again. The ledger
            counts the labels of ``val_data`` as chosen by, since callbacks see its scores.
        ema_decay: The decay of an exponential moving average (EMA) of weights and running statistics: validate it, and
            end with it: 0.999, or 0.9999 for long runs. At step t the decay is (1 + t) / (10 + t) where that
            is less, so that the start is soon forgotten.
        log_dir: A folder for TensorBoard.
        checkpoint_dir: A folder for what an interrupted run needs to resume and end bit for bit as if it
            had not been interrupted: call again with the same arguments. Others than before are an
            error, a larger budget excepted.
        checkpoint_every: The number of steps between checkpoints; there is one at the end of each epoch too.
        progress: Whether to show a progress bar; by default where a person watches.

    Returns:
        :class:`~kdft_lib.training.History`.

    Raises:
        TypeError: If there is no such option, the message lists those that exist; if an argument is of another type,
            it says what to write.
        ValueError: If an argument is out of range or two do not fit together.
        FloatingPointError: If the loss is not finite; that step changes no weight.
        OSError: If ``checkpoint_dir`` cannot be written.

    Example:
        >>> from kdft_lib.objectives import Supervised
        >>> from kdft_lib.strategies import FullFineTuning
        >>> data = torch.eye(2).repeat(8, 1), torch.tensor([0, 1]).repeat(8)
        >>> history = fit(nn.Linear(2, 2), data, objective=Supervised(), strategy=FullFineTuning(lr=0.1), steps=3)
        >>> [step["step"] for step in history.steps]
        [1, 2, 3]
    """
    checks.check_choices(model, objective, strategy)
    settings = settings_of(options, "fit")
    checks.check_batch_size(options.get("batch_size"), train_data, transfer_data)
    run = Run(model, objective, strategy, train_data, transfer_data, val_data, settings)
    with run:
        for epoch in run.epochs_to_go():
            run.begin_epoch(epoch)
            for parts in run.batches_of(epoch):
                run.set_learning_rate()
                run.record_step(epoch, _train_step(run, parts, settings.clip_norm))
                if settings.callbacks:
                    tell(run, "on_step_end", epoch)
                if settings.checkpoint_every is not None and run.is_checkpoint_due(settings.checkpoint_every):
                    run.checkpoints.write(run)
            run.synchronize_buffers()
            with run.averaged():
                scores = {}
                if val_data is not None:
                    scores = run.of_first(_validated(run, val_data))
                run.record.epoch(epoch, run.step, scores, run.model)
                tell(run, "on_epoch_end", epoch, scores)
            run.checkpoints.write(run)
        run.choose_weights()
    return run.record.history


def _validated(run: Run, val_data: Data) -> dict[str, float]:
    """The scores on validation data, twice as many at a time as in training, since no gradient is kept."""
    settings, objective = run.settings, run.objective
    with run.accelerator.autocast():
        return evaluate(
            run.model, val_data, loss=objective.scored_by, metrics=settings.metrics, class_dim=objective.class_dim,
            batch_size=min(512, 2 * run.at_once), num_workers=settings.num_workers,
            collate_fn=settings.collate_fn,
        )  # fmt: skip


def _train_step(run: Run, parts: list[Batch], clip_norm: float | None) -> dict[str, float]:
    """One step of the optimiser, from the parts of one batch; the losses, each a mean over the batch."""
    found: list[dict[str, Tensor]] = []
    for batch in parts:
        last = len(found) == len(parts) - 1
        with contextlib.nullcontext() if last else run.lent.held_back(run.wrapped):
            losses = run.wrapped(batch)
            run.accelerator.backward(losses["loss"] * run.accelerator.num_processes)
        found.append({name: value.detach() for name, value in losses.items()})
    rows = torch.stack([torch.stack([*losses.values()]) for losses in found]).tolist()
    values = {name: sum(column) for name, column in zip(found[0], zip(*rows, strict=True), strict=True)}
    if run.accelerator.num_processes > 1:
        values = run.sum_of(values)
    if not all(map(math.isfinite, values.values())):
        _refuse(values, run.step + 1)
    if clip_norm is not None:
        run.accelerator.clip_grad_norm_(run.wrapped.parameters(), clip_norm)
    run.optimizer.step()
    run.optimizer.zero_grad()
    return values


def _refuse(values: dict[str, float], step: int) -> NoReturn:
    """Say which losses are not finite."""
    broken = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    raise FloatingPointError(
        f"at step {step} the loss is not finite: {', '.join(broken[1:] or broken)}."
        " This step has changed no weight (running statistics have seen the batch); try a lower learning rate,"
        " clip_norm, or look at the batch"
    )
