"""One run of the loop: its device, its batches, its record, and its checkpoints."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from kdft_lib import sharding
from kdft_lib.data import Batch, batches
from kdft_lib.data.sources import Counted, Data, source
from kdft_lib.data.values import Totals
from kdft_lib.objectives import Objective
from kdft_lib.progress import progress_bar
from kdft_lib.strategies import Strategy
from kdft_lib.training import callbacks, checkpoints, checks
from kdft_lib.training.averaging import MovingAverage
from kdft_lib.training.callbacks import criterion_of
from kdft_lib.training.engine import Lent, accelerator
from kdft_lib.training.history import History
from kdft_lib.training.ledger import Ledger, known_before
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
        self.lent = Lent(model, objective, self.accelerator)
        self._folder = Path(settings.checkpoint_dir) if settings.checkpoint_dir is not None else None
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
        self.step, self._labeled = 0, 0
        self.history = History()
        self._criterion = criterion_of(settings, objective.scored_by is None, validated=val_data is not None)
        self._best: dict[str, Tensor] | None = None
        self._arguments: dict[str, str] = {}
        if self._folder is not None:
            checks.check_resumption(sources)
            arguments = {
                "model": type(model).__name__, "objective": objective, "strategy": strategy,
                "teachers": [teacher.fingerprint() for teacher in objective.teachers()],
                "processes": self.accelerator.num_processes, "sharded": self.lent.sharded,
            } | settings.decisive() | {"transfer_data": "none"} | self._data  # fmt: skip
            self._arguments = {name: re.sub(r" at 0x[0-9a-f]+", "", str(value)) for name, value in arguments.items()}

    # Lending the model ---------------------------------------------------------------------------

    def __enter__(self) -> Run:
        model, device = self.model, self.accelerator.device
        self._required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        self._modes = [(module, module.training) for module in model.modules()]
        self._random = torch.random.fork_rng([device] if device.type == "cuda" else [])
        self._random.__enter__()
        self._bar: Any = None
        self._writer: Any = None
        try:
            torch.manual_seed(self.settings.seed)
            model.to(device)
            self.objective.to(device)
            for teacher in self.objective.teachers():
                teacher.to(device)
            if self._folder is not None:
                checkpoints.check(self._folder)
            self._data = {name: data.to(device) for name, data in self._data.items()}
            streams = self._streams(0)
            first = next(streams[0])
            self._prepare(batches.apply(first[0], self._to_device))
            self._resume()
            streams[0] = itertools.chain([first], streams[0])
            self._drawn = streams if self.step == 0 else self._streams(self.step)
            self._started = time.perf_counter() - self.history.seconds
            self._watch()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()
        self.strategy.finish(self.lent.hand_back(trained=error is None))
        for parameter, required in self._required:
            parameter.requires_grad_(required)
            parameter.grad = None
        for module, training in self._modes:
            module.training = training
        self._random.__exit__(kind, error, trace)
        self.history.ledger = self._ledger()

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
        self._average = (
            MovingAverage(self.model, self.settings.ema_decay) if self.settings.ema_decay is not None else None
        )
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
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.wrapped = self.lent.wrapped()

    def _watch(self) -> None:
        """A bar for a person and a log for TensorBoard, each on the main process alone."""
        if not self.accelerator.is_main_process:
            return
        if self.settings.log_dir is not None:
            from torch.utils.tensorboard import SummaryWriter

            try:
                self._writer = SummaryWriter(str(self.settings.log_dir), purge_step=self.step + 1)
            except OSError as error:
                raise OSError(
                    f"log_dir is {self.settings.log_dir}, and nothing can be written there ({error})"
                ) from error
        self._bar = progress_bar(self.total_steps, "step", self.settings.progress, initial=self.step)

    # Batches -------------------------------------------------------------------------------------

    def epochs_to_go(self) -> Iterator[int]:
        """The epochs that are left, the first of them perhaps in part."""
        while self.step < self.total_steps and not self.history.stopped:
            yield self.step // self.steps_per_epoch

    def last_step(self, epoch: int) -> int:
        """The number of steps after which an epoch is over."""
        return min((epoch + 1) * self.steps_per_epoch, self.total_steps)

    def batches_of(self, epoch: int) -> Iterator[list[Batch]]:
        """The batches of an epoch that are left, each cut into the parts of this process."""
        while self.step < self.last_step(epoch) and not self.history.stopped:
            drawn, counts = zip(*map(next, self._drawn), strict=True)
            totals: dict[str, Any] = self._totals(counts)
            pieces = [batches.cut(batch, self.settings.accumulate) for batch in drawn]
            joined = [batches.join(*both) if len(both) == 2 else both[0] for both in zip(*pieces, strict=True)]
            parts = [batches.apply(part, self._to_device) for part in joined]
            totals |= self._weighed(parts)
            parts = [part | {"totals": totals} for part in parts]
            if self.settings.augment is not None:
                parts = [part | {"inputs": self.settings.augment(part["inputs"])} for part in parts]
            yield parts

    def _totals(self, counts: Sequence[Totals]) -> Totals:
        """What a mean is over: counts for the whole step, all parts and processes together. Labels of transfer data
        do not count."""
        self._labeled += counts[0]["labeled"]
        totals = counts[0] | {name: sum(count[name] for count in counts) for name in ("samples", "counted")}
        names = ("samples", "labeled", "counted", "given")
        return totals | dict(zip(names, self._over_processes([totals[name] for name in names]), strict=True))

    def _weighed(self, parts: list[Batch]) -> dict[str, Tensor]:
        """What labels of unequal weight weigh together, left on the device so that nothing waits for it."""
        found = [self.objective.weighed(part) for part in parts]
        sums = {name: torch.stack([part[name] for part in found]).sum() for name in found[0]}
        return {name: self.accelerator.reduce(total, "sum") for name, total in sums.items()}

    def _over_processes(self, values: list[Any]) -> list[Any]:
        if self.accelerator.num_processes == 1:
            return values
        kind = torch.float64 if any(isinstance(value, float) for value in values) else torch.int64
        reduced = self.accelerator.reduce(torch.tensor(values, dtype=kind, device=self.accelerator.device), "sum")
        return reduced.tolist()

    def _to_device(self, column: Tensor) -> Tensor:
        return column.to(self.accelerator.device, non_blocking=True)

    # Steps and epochs ----------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        """Modes, rates and weights for an epoch, whether it is begun or resumed."""
        self.lent.close()
        self.model.train()
        self.strategy.before_epoch(self.model, epoch)
        self.objective.before_epoch(epoch, self.epochs)
        groups = self._groups()
        self._peaks = [group["lr"] for group in groups]
        for held, group in zip(self.optimizer.param_groups, groups, strict=True):
            held["weight_decay"] = group["weight_decay"]
        first, last = self.strategy.phase(epoch, self.epochs)
        self._course = first * self.steps_per_epoch, min(last * self.steps_per_epoch, self.total_steps)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if [*map(id, trained)] != [*map(id, self._trained)]:
            self._wrap()

    def set_learning_rate(self) -> None:
        """Each group's rate for the coming step: its peak times the schedule's factor."""
        first, last = self._course
        factor = self.settings.course((self.step - first + 0.5) / (last - first))
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor

    def record_step(self, epoch: int, losses: dict[str, float]) -> None:
        """Note a finished step."""
        self.step += 1
        if self._average is not None:
            self._average.update(self.model)
        losses = dict(zip(losses, self._over_processes([*losses.values()]), strict=True))
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        self.history.steps.append({"step": self.step, "epoch": epoch, "lr": rate, **losses})
        if self._bar is not None:
            self._bar.update()
        if self._writer is not None:
            for name, value in {"lr": rate, **losses}.items():
                self._writer.add_scalar(f"train/{name}", value, self.step)

    def record_epoch(self, epoch: int, scores: Mapping[str, float]) -> None:
        """Note a finished epoch, and keep its weights if they are the best so far."""
        steps = [step for step in self.history.steps if step["epoch"] == epoch]
        means = {
            name: sum(step[name] for step in steps) / len(steps)
            for name in steps[-1]
            if name not in ("step", "epoch", "lr")
        }
        row = {"epoch": epoch, "step": self.step, **means} | {f"val_{name}": score for name, score in scores.items()}
        if scores and self._criterion.leads(row, self.history.epochs):
            self.history.best_epoch = epoch
            if self.settings.keep_best:
                self._best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.history.epochs.append(row)
        self.history.seconds = time.perf_counter() - self._started
        if self._writer is not None:
            for name, score in scores.items():
                self._writer.add_scalar(f"val/{name}", score, self.step)

    def averaged(self) -> AbstractContextManager[None]:
        """The model with its averaged weights inside, if they are averaged."""
        return contextlib.nullcontext() if self._average is None else self._average.applied(self.model)

    def choose_weights(self) -> None:
        """End with the weights of the best epoch, or with the average, if either is wanted."""
        if self._best is not None:
            self.model.load_state_dict(self._best)
        elif self._average is not None:
            self.model.load_state_dict(self._average.tensors)

    def synchronize_buffers(self) -> None:
        """Give every process the running statistics of the first."""
        if self.accelerator.num_processes > 1:
            from accelerate.utils import broadcast

            averages = self._average.tensors.values() if self._average is not None else ()
            for buffer in [*self.model.buffers(), *(held for held in averages if not sharding.is_cut(held))]:
                buffer.copy_(broadcast(buffer))

    def _ledger(self) -> Ledger:
        labels, without = self._known["train_data"] or (self._labeled, 0)
        unlabeled = sum(self._known.get("transfer_data", (0,)) or (self.step * self.settings.batch_size,))
        watched = "val_data" in self._known and (self.settings.keep_best or self.settings.callbacks)
        behind = [teacher.labels for teacher in self.objective.teachers()] + [None] * self.objective.taught_by_data
        return Ledger(
            labels=labels,
            choosing=(self._known["val_data"] or (0,))[0] if watched else 0,
            teacher_labels=None if None in behind else max((count for count in behind if count), default=0),
            unlabeled=without + unlabeled,
            pretraining=known_before([teacher.pretraining for teacher in self.objective.teachers()]),
            steps=self.step,
            seconds=self.history.seconds,
        )

    # Checkpoints ---------------------------------------------------------------------------------

    def is_checkpoint_due(self, epoch: int) -> bool:
        """Whether one is wanted in the middle of an epoch, at this step."""
        every, over = self.settings.checkpoint_every, self.history.stopped or self.step == self.last_step(epoch)
        return every is not None and self.step % every == 0 and not over

    def write_checkpoint(self) -> None:
        """Keep all that the rest of the run depends on."""
        if self._folder is None:
            return
        random = [torch.get_rng_state()]
        if self.accelerator.device.type == "cuda":
            random.append(torch.cuda.get_rng_state())
        if self.accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            everywhere = gather_object([random])
        else:
            everywhere = [random]
        scaler = self.accelerator.scaler
        state = {
            "arguments": self._arguments,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "random": everywhere,
            "history": {key: value for key, value in vars(self.history).items() if key != "ledger"},
            "best": self._best,
            "labeled": self._labeled,
            "callbacks": callbacks.states_of(self.settings.callbacks),
            "average": self._average.state_dict() if self._average is not None else {},
        }
        state = sharding.gathered(state, keep=self.accelerator.is_main_process)
        if self.accelerator.is_main_process:
            checkpoints.write(self._folder, state)

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        state = checkpoints.read(self._folder, self._arguments) if self._folder is not None else None
        if state is None:
            if self.accelerator.process_index:
                torch.manual_seed(self.settings.seed + self.accelerator.process_index)
            return
        if state["step"] > self.total_steps:
            raise ValueError(
                f"{self._folder} is at step {state['step']}, past the budget of {self.total_steps};"
                " give a budget that is as large or larger, or another checkpoint_dir"
            )
        state = self.lent.shares(state, self.optimizer)
        for name in ("model", "optimizer", "objective"):
            try:
                getattr(self, name).load_state_dict(state[name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise ValueError(
                    f"{self._folder} holds another {name}: {error}. Use the arguments of that run, or another"
                    " checkpoint_dir"
                ) from None
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self._labeled = state["step"], state["labeled"]
        self._best, self.history = state["best"], History(**state["history"])
        callbacks.restore(self.settings.callbacks, state["callbacks"])
        random = state["random"][self.accelerator.process_index]
        torch.set_rng_state(random[0])
        if len(random) > 1 and self.accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(random[1])
