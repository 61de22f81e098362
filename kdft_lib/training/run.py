"""One run of the loop: its plan, its batches, and its steps."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from kdft_lib import sharding
from kdft_lib.data import Batch, batches, order
from kdft_lib.data.sources import Counted, Data, source
from kdft_lib.data.values import Totals
from kdft_lib.objectives import Objective
from kdft_lib.strategies import Strategy
from kdft_lib.training import checks
from kdft_lib.training.averaging import MovingAverage
from kdft_lib.training.callbacks import criterion_of
from kdft_lib.training.checkpoints import Checkpoints
from kdft_lib.training.engine import Lent, accelerator
from kdft_lib.training.ledger import Ledger, known_before
from kdft_lib.training.record import Record
from kdft_lib.training.settings import Settings


class Run:
    """A context in which a model is prepared for training, and from which it comes back as it was
    lent, but for weights and buffers. The arguments are those of :func:`kdft_lib.training.fit`.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        strategy: Strategy,
        train_data: Data,
        transfer_data: Data | None,
        val_data: Data | None,
        settings: Settings,
    ):
        self.model, self.objective, self.strategy, self.settings = model, objective, strategy, settings
        self.accelerator = accelerator(settings.precision)
        self.lent = Lent(model, objective, strategy, self.accelerator)
        given = {"train_data": train_data, "transfer_data": transfer_data, "val_data": val_data}
        found = {
            name: source(data, name=name, num_workers=settings.num_workers, collate_fn=settings.collate_fn)
            for name, data in given.items()
            if data is not None
        }
        self._known = {name: data.labels() for name, data in found.items()}
        self._data = {name: data for name, data in found.items() if name != "val_data"}
        sources = [*self._data.values()]
        checks.check_teachers(model, objective, sources, settings.augment)
        length = sources[0].length(settings.batch_size)
        if length is None and settings.steps is None:
            raise ValueError(
                f"train_data is {checks.what(train_data)} of unknown length, so that epochs={settings.epochs} is no"
                " number of steps; give steps instead"
            )
        self.steps_per_epoch = length or settings.steps or 1
        self.total_steps = settings.steps or (settings.epochs or 0) * self.steps_per_epoch
        self.epochs = math.ceil(self.total_steps / self.steps_per_epoch)
        if isinstance(val_data, Iterator) and self.epochs > 1:
            raise ValueError(
                f"val_data is {checks.what(val_data)}, which can be read once, and there are {self.epochs} epochs; give"
                " a Dataset, a DataLoader or a list"
            )
        self.step, self.labeled = 0, 0
        self.average: MovingAverage | None = None
        self._several, self._weighs = self.accelerator.num_processes > 1, objective.weighs
        self._rewrites = type(objective).before_step is not Objective.before_step
        criterion = criterion_of(settings, objective.scored_by is None, validated=val_data is not None)
        self.record = Record(settings, criterion)
        self.checkpoints = Checkpoints(settings.checkpoint_dir)
        if settings.checkpoint_dir is not None:
            checks.check_resumption(sources)
            arguments: dict[str, Any] = {
                "model": type(model).__name__, "objective": objective, "strategy": strategy,
                "teachers": [teacher.fingerprint() for teacher in objective.teachers()],
                "processes": self.accelerator.num_processes, "sharded": self.lent.sharded,
            } | settings.decisive() | {"transfer_data": "none"}  # fmt: skip
            arguments |= found if settings.validates else self._data
            self.checkpoints.arguments = {
                name: re.sub(r" at 0x[0-9a-fA-F]+", "", str(value)) for name, value in arguments.items()
            }

    def __enter__(self) -> Run:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.lent)
            torch.manual_seed(self.settings.seed)
            self.lent.move()
            self.checkpoints.check()
            self._data = {name: data.to(self.accelerator.device) for name, data in self._data.items()}
            streams = self._streams(0)
            first = next(streams[0])
            self._prepare(batches.apply(first[0], self._to_device))
            self.checkpoints.resume(self)
            streams[0] = itertools.chain([first], streams[0])
            self._drawn = streams if self.step == 0 else self._streams(self.step)
            if self.accelerator.is_main_process:
                self.record.watch(self.step, self.total_steps)
            stack.enter_context(self.record)
            self._closing = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.__exit__(kind, error, trace)
        self.record.history.ledger = self._ledger()

    def _streams(self, first_step: int) -> list[Iterator[Counted]]:
        """This process's part of each batch, from a step on."""
        share = self.accelerator.process_index, self.accelerator.num_processes
        return [
            data.training(self.settings.batch_size, self.settings.seed + (index << 32), first_step, share)
            for index, data in enumerate(self._data.values())
        ]

    def _prepare(self, first_batch: Batch) -> None:
        """Make the optimiser, and let Accelerate wrap what it must."""
        self.strategy.prepare(self.model)
        self.lent.prepared = True
        self.objective.prepare(self.model, first_batch)
        if not self.strategy.param_groups(self.model):
            raise ValueError(
                f"strategy is {self.strategy!r}, which leaves nothing of {type(self.model).__name__} to train"
            )
        self.model = self.lent.share()
        self.optimizer: Any = self.settings.optimizer(self._groups())
        if self.accelerator.scaler is not None:
            # Elsewhere Accelerate's wrapper would only look for a package in each step.
            self.optimizer = self.accelerator.prepare_optimizer(self.optimizer)
        if self.settings.ema_decay is not None:
            self.average = MovingAverage(self.model, self.settings.ema_decay)
        self._wrap()

    def _groups(self) -> list[dict[str, Any]]:
        """The strategy's groups, and those of the objective's adapters, at its highest rate and decay."""
        groups = self.strategy.param_groups(self.model)
        rate, decay = (max(group[name] for group in groups) for name in ("lr", "weight_decay"))
        for decays in (True, False):
            adapters = [parameter for parameter in self.objective.parameters() if (parameter.dim() >= 2) == decays]
            if adapters:
                groups.append({"params": adapters, "lr": rate, "weight_decay": decay if decays else 0.0})
        return groups

    def _wrap(self) -> None:
        """Model and objective as one module, for autocast and, between processes, for mean gradients."""
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.wrapped = self.lent.wrapped(_Step(self.model, self.objective))

    # Epochs --------------------------------------------------------------------------------------

    def epochs_to_go(self) -> Iterator[int]:
        """The epochs that are left, the first of them perhaps in part."""
        while self.step < self.total_steps and not self.record.history.stopped:
            yield self.step // self.steps_per_epoch

    def begin_epoch(self, epoch: int) -> None:
        """Modes, rates and weights for an epoch, whether it is begun or resumed."""
        self.lent.close()
        self.model.train()
        self.strategy.before_epoch(self.model, epoch)
        self.objective.before_epoch(epoch, self.epochs)
        checks.check_weights(self.objective, epoch)
        groups = self._groups()
        self._peaks = [group["lr"] for group in groups]
        for held, group in zip(self.optimizer.param_groups, groups, strict=True):
            held["weight_decay"] = group["weight_decay"]
        self._last_step = min((epoch + 1) * self.steps_per_epoch, self.total_steps)
        begins, ends = self.strategy.phase(epoch, self.epochs)
        first, last = begins * self.steps_per_epoch, min(ends * self.steps_per_epoch, self.total_steps)
        course, steps = self.settings.course, range(self.step, self._last_step)
        self._factors = iter([course((step - first + 0.5) / (last - first)) for step in steps])
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if [*map(id, trained)] != [*map(id, self._trained)]:
            self._wrap()

    # Steps ---------------------------------------------------------------------------------------

    def batches_of(self, epoch: int) -> Iterator[list[Batch]]:
        """The batches of an epoch that are left, each cut into the parts of this process."""
        accumulate, augment = self.settings.accumulate, self.settings.augment
        while self.step < self._last_step and not self.record.history.stopped:
            drawn, counts = zip(*map(next, self._drawn), strict=True)
            totals: dict[str, Any] = counts[0] | {"rows": min(counts[0]["labeled"], counts[0]["samples"])}
            if len(counts) > 1 or self._several:
                totals = self._totals([totals, *counts[1:]])
            self.labeled += totals.pop("rows")
            if self.accelerator.device.type != "cpu":
                drawn = tuple(batches.apply(batch, self._to_device) for batch in drawn)
            parts = [*drawn] if len(drawn) == accumulate == 1 else batches.parts(drawn, accumulate)
            if augment is not None:
                with order.others_from(order.seed_of(self.settings.seed, self.step, self.accelerator.process_index)):
                    parts = [part | {"inputs": augment(part["inputs"])} for part in parts]
            if self._rewrites:
                parts = self._rewritten(parts, totals["samples"])
            if self._weighs:
                totals = totals | self._weighed(parts)
            yield [part | {"totals": totals} for part in parts]

    def _rewritten(self, parts: list[Batch], samples: int) -> list[Batch]:
        """What the objective makes of the parts, each of which says how many samples of the step come before it."""
        sizes = [batches.size(part) for part in parts]
        begin = samples * self.accelerator.process_index // self.accelerator.num_processes
        begins = itertools.accumulate(sizes, initial=begin)
        with self.accelerator.autocast():
            return [
                self.objective.before_step(self.model, part | {"begins": begin})
                for part, begin in zip(parts, begins, strict=False)
            ]

    def sum_of(self, losses: dict[str, float]) -> dict[str, float]:
        """The losses of all processes, each of which has its share of the mean."""
        return dict(zip(losses, self._over_processes([*losses.values()]), strict=True))

    def set_learning_rate(self) -> None:
        """Each group's rate for the coming step: its peak times the schedule's factor."""
        factor = next(self._factors)
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = float(peak * factor)  # One of NumPy's could not be read from a checkpoint.

    def record_step(self, epoch: int, losses: dict[str, float]) -> None:
        """Note a finished step."""
        self.step += 1
        if self.average is not None:
            self.average.update(self.model)
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        self.record.history.steps.append({"step": self.step, "epoch": epoch, "lr": rate, **losses})
        if self.record.bar is not None:
            self.record.bar.update()
        if self.record.writer is not None:
            self.record.log("train", {"lr": rate, **losses}, self.step)

    def is_checkpoint_due(self, every: int) -> bool:
        """Whether one is wanted in the middle of an epoch, at this step."""
        return self.step % every == 0 and self.step < self._last_step and not self.record.history.stopped

    def _totals(self, counts: Sequence[Totals]) -> Totals:
        """What a mean is over: counts for the whole step, all parts and processes together. Labels of transfer data
        do not count."""
        totals = counts[0] | {name: sum(count[name] for count in counts) for name in ("samples", "counted")}
        names = ("samples", "labeled", "counted", "given", "rows")
        return totals | dict(zip(names, self._over_processes([totals[name] for name in names]), strict=True))

    def _weighed(self, parts: list[Batch]) -> dict[str, Tensor]:
        """What an objective says that counts, left on the device so that nothing waits for it."""
        found = [self.objective.weighed(part) for part in parts]
        sums = {name: torch.stack([part[name] for part in found]).sum() for name in found[0]}
        return {name: self.accelerator.reduce(total, "sum") for name, total in sums.items()}

    def _over_processes(self, values: list[Any]) -> list[Any]:
        """The sum of each over all processes."""
        kind = torch.float64 if any(isinstance(value, float) for value in values) else torch.int64
        reduced = self.accelerator.reduce(torch.tensor(values, dtype=kind, device=self.accelerator.device), "sum")
        return reduced.tolist()

    def _to_device(self, column: Tensor) -> Tensor:
        return column.to(self.accelerator.device, non_blocking=True)

    def of_first(self, scores: dict[str, float]) -> dict[str, float]:
        """The first process's scores, so that all choose the same epoch."""
        if not (self._several and scores):
            return scores
        from accelerate.utils import broadcast

        held = torch.tensor([*scores.values()], dtype=torch.float64).to(self.accelerator.device)
        return dict(zip(scores, broadcast(held).tolist(), strict=True))

    # Which weights -------------------------------------------------------------------------------

    def averaged(self) -> AbstractContextManager[None]:
        """The model with its averaged weights inside, if they are averaged."""
        return contextlib.nullcontext() if self.average is None else self.average.applied(self.model)

    def choose_weights(self) -> None:
        """End with the weights of the best epoch, or with the average, if either is wanted."""
        if self.record.best is not None:
            self.model.load_state_dict(self.record.best)
        elif self.average is not None:
            self.model.load_state_dict(self.average.tensors)

    def synchronize_buffers(self) -> None:
        """Give every process the running statistics of the first."""
        if self._several:
            from accelerate.utils import broadcast

            averages = self.average.tensors.values() if self.average is not None else ()
            for buffer in [*self.model.buffers(), *(held for held in averages if not sharding.is_cut(held))]:
                buffer.copy_(broadcast(buffer))

    def _batch_size(self, name: str) -> int:
        """How many samples a step takes of some data: a loader's own number, where it has one."""
        return getattr(self._data[name].data, "batch_size", None) or self.settings.batch_size

    @property
    def at_once(self) -> int:
        """How many samples of the training data each process has in memory at a time."""
        share = self.settings.accumulate * self.accelerator.num_processes
        return max(1, self._batch_size("train_data") // share)

    def _ledger(self) -> Ledger:
        labels, without = self._known["train_data"] or (self.labeled, 0)
        unlabeled = sum(self._known.get("transfer_data", (0,)) or (self.step * self._batch_size("transfer_data"),))
        watched = "val_data" in self._known and (self.settings.keep_best or self.settings.callbacks)
        behind = [teacher.labels for teacher in self.objective.teachers()] + [None] * self.objective.taught_by_data
        return Ledger(
            labels=labels,
            choosing=(self._known["val_data"] or (0,))[0] if watched else 0,
            teacher_labels=None if None in behind else max((count for count in behind if count), default=0),
            unlabeled=without + unlabeled,
            pretraining=known_before([teacher.pretraining for teacher in self.objective.teachers()]),
            steps=self.step,
            seconds=self.record.history.seconds,
        )


class _Step(nn.Module):
    """What is run in each step: the objective on the model."""

    def __init__(self, model: nn.Module, objective: Objective):
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.objective(self.model, batch)
