"""One run of the loop: its device, its batches, its record, and its checkpoints."""

from __future__ import annotations

import itertools
import math
import operator
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kdft_lib.data import UNLABELLED, Batch, TensorData, batches
from kdft_lib.objectives import Objective
from kdft_lib.strategies import Strategy
from kdft_lib.training import checkpoints
from kdft_lib.training.history import History
from kdft_lib.training.progress import progress_bar
from kdft_lib.training.schedules import Schedule
from kdft_lib.training.streams import stream

if TYPE_CHECKING:
    from accelerate import Accelerator

_PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


class Run:
    """A context in which a model is prepared for training, and from which it comes back as it was
    lent, but for weights and buffers. The arguments are those of :func:`kdft_lib.training.fit`.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        strategy: Strategy,
        train_data: TensorData | Iterable[Any],
        transfer_data: TensorData | Iterable[Any] | None,
        *,
        epochs: int | None,
        steps: int | None,
        batch_size: int,
        augment: Callable[[Any], Any] | None,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        schedule: Schedule,
        clip_norm: float | None,
        accumulate: int,
        seed: int,
        precision: str,
        keep_best: bool,
        log_dir: str | Path | None,
        checkpoint_dir: str | Path | None,
        progress: bool | None,
    ):
        _check_teacher(model, objective, [train_data, transfer_data], augment)
        self.model, self.objective, self.strategy = model, objective, strategy
        self.accelerator = _accelerator(precision)
        self._augment, self._make_optimizer, self._schedule = augment, optimizer, schedule
        self._accumulate, self._seed = accumulate, seed
        self._log_dir, self._progress = log_dir, progress
        self._folder = Path(checkpoint_dir) if checkpoint_dir is not None else None
        given = {"train_data": train_data, "transfer_data": transfer_data}
        self._data = {name: data for name, data in given.items() if data is not None}
        self._streams = [
            stream(self._placed(data), batch_size, seed + (index << 32), name)
            for index, (name, data) in enumerate(self._data.items())
        ]
        self.steps_per_epoch = self._streams[0].length
        self.total_steps = steps or (epochs or 0) * self.steps_per_epoch
        self.epochs = math.ceil(self.total_steps / self.steps_per_epoch)
        self.step = 0
        self.history = History()
        self._keep_best = keep_best
        self._best: dict[str, Tensor] | None = None
        self._arguments: dict[str, str] = {}
        if self._folder is not None:
            arguments = {
                "model": type(model).__name__, "objective": objective, "strategy": strategy, "batch_size": batch_size,
                "augment": augment, "optimizer": optimizer, "schedule": schedule, "clip_norm": clip_norm,
                "accumulate": accumulate, "seed": seed, "precision": precision, "keep_best": keep_best,
                "processes": self.accelerator.num_processes,
            } | {name: _described(data) for name, data in given.items()}  # fmt: skip
            self._arguments = {name: re.sub(r" at 0x[0-9a-f]+", "", str(value)) for name, value in arguments.items()}

    # Lending the model ---------------------------------------------------------------------------

    def __enter__(self) -> Run:
        model, device = self.model, self.accelerator.device
        self._required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        self._modes = [(module, module.training) for module in model.modules()]
        self._attributes = set(vars(model))
        self._random = torch.random.fork_rng([device] if device.type == "cuda" else [])
        self._random.__enter__()
        self._bar: Any = None
        self._writer: Any = None
        try:
            torch.manual_seed(self._seed)
            model.to(device)
            self.objective.to(device)
            if self.objective.teacher is not None:
                self.objective.teacher.to(device)
            self._prepare()
            self._resume()
            self._sources = [source.batches(self.step) for source in self._streams]
            self._started = time.perf_counter() - self.history.seconds
            self._watch()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()
        for name in set(vars(self.model)) - self._attributes:
            delattr(self.model, name)
        for parameter, required in self._required:
            parameter.requires_grad_(required)
            parameter.grad = None
        for module, training in self._modes:
            module.training = training
        self._random.__exit__(kind, error, trace)
        self.history.ledger = self._ledger()

    def _prepare(self) -> None:
        """Make the optimiser, and let Accelerate wrap what it must."""
        self.strategy.prepare(self.model)
        self.objective.prepare(self.model, batches.apply(next(self._streams[0].batches(0)), self._to_device))
        groups = self.strategy.param_groups(self.model)
        if not groups:
            raise ValueError(
                f"strategy is {self.strategy!r}, which leaves nothing of {type(self.model).__name__} to train"
            )
        self._peaks = [group["lr"] for group in groups]
        self.wrapped, self.optimizer = self.accelerator.prepare(self.model, self._make_optimizer(groups))

    def _watch(self) -> None:
        """A bar for a person and a log for TensorBoard, each on the main process alone."""
        if not self.accelerator.is_main_process:
            return
        if self._log_dir is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._log_dir), purge_step=self.step + 1)
        self._bar = progress_bar(self.total_steps, "step", self._progress, initial=self.step)

    # Batches -------------------------------------------------------------------------------------

    def epochs_to_go(self) -> range:
        """The epochs that are left, the first of them perhaps in part."""
        return range(self.step // self.steps_per_epoch, self.epochs if self.step < self.total_steps else 0)

    def last_step(self, epoch: int) -> int:
        """The number of steps after which an epoch is over."""
        return min((epoch + 1) * self.steps_per_epoch, self.total_steps)

    def batches_of(self, epoch: int) -> Iterator[list[Batch]]:
        """The batches of an epoch that are left, each cut into the parts of this process."""
        while self.step < self.last_step(epoch):
            shares = [self._share(next(source)) for source in self._sources]
            pieces = [_cut(share, self._accumulate) for share in shares]
            joined = [batches.join(*both) if len(both) == 2 else both[0] for both in zip(*pieces, strict=True)]
            parts = [batches.apply(part, self._to_device) for part in joined]
            if self._augment is not None:
                parts = [part | {"inputs": self._augment(part["inputs"])} for part in parts]
            totals = self._totals(parts)
            yield [part | {"totals": totals} for part in parts]

    def _share(self, batch: Batch) -> Batch:
        """The rows of a batch that are this process's."""
        processes = self.accelerator.num_processes
        return batch if processes == 1 else _cut(batch, processes)[self.accelerator.process_index]

    def _totals(self, parts: list[Batch]) -> dict[str, int]:
        """What a mean is over: counts for the whole step, all parts and processes together."""
        counts = {"samples": sum(batches.size(part) for part in parts), "labelled": 0, "counted": 0}
        for part in parts:
            labelled = part["targets"] != UNLABELLED if "targets" in part else None
            if "mask" in part:
                counts["counted"] += int(part["mask"].sum())
                labelled = labelled & part["mask"] if labelled is not None else None
            if labelled is not None:
                counts["labelled"] += int(labelled.sum())
        return dict(zip(counts, self._over_processes([*counts.values()]), strict=True))

    def _over_processes(self, values: list[Any]) -> list[Any]:
        if self.accelerator.num_processes == 1:
            return values
        kind = torch.float64 if any(isinstance(value, float) for value in values) else torch.int64
        reduced = self.accelerator.reduce(torch.tensor(values, dtype=kind, device=self.accelerator.device), "sum")
        return reduced.tolist()

    def _to_device(self, column: Tensor) -> Tensor:
        return column.to(self.accelerator.device, non_blocking=True)

    def _placed(self, data: TensorData | Iterable[Any]) -> TensorData | Iterable[Any]:
        """Data in memory on the device, if it takes less than half of what is free there."""
        device = self.accelerator.device
        if not isinstance(data, TensorData) or device.type != "cuda":
            return data
        free, _ = torch.cuda.mem_get_info(device)
        return data.to(device) if data.nbytes < free / 2 else data

    # Steps and epochs ----------------------------------------------------------------------------

    def set_learning_rate(self) -> None:
        """Each group's rate for the coming step: its peak times the schedule's factor."""
        factor = self._schedule((self.step + 0.5) / self.total_steps)
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor

    def record_step(self, epoch: int, losses: dict[str, float]) -> None:
        """Note a finished step."""
        self.step += 1
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
        best = max((row["val_accuracy"] for row in self.history.epochs if "val_accuracy" in row), default=-1.0)
        if scores and scores["accuracy"] > best:
            self.history.best_epoch = epoch
            if self._keep_best:
                self._best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.history.epochs.append(row)
        self.history.seconds = time.perf_counter() - self._started
        if self._writer is not None:
            for name, score in scores.items():
                self._writer.add_scalar(f"val/{name}", score, self.step)

    def restore_best(self) -> None:
        """Put the weights of the best epoch back."""
        if self._best is not None:
            self.model.load_state_dict(self._best)

    def synchronise_buffers(self) -> None:
        """Give every process the running statistics of the first."""
        if self.accelerator.num_processes > 1:
            from accelerate.utils import broadcast

            for buffer in self.model.buffers():
                buffer.copy_(broadcast(buffer))

    def _ledger(self) -> dict[str, Any]:
        train, transfer = self._data["train_data"], self._data.get("transfer_data")
        labels, without = _count_labels(train)
        return {
            "labels": labels,
            "unlabelled": without + (sum(_count_labels(transfer)) if transfer is not None else 0),
            "steps": self.step,
            "seconds": self.history.seconds,
        }

    # Checkpoints ---------------------------------------------------------------------------------

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
        if self.accelerator.is_main_process:
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
            }
            checkpoints.write(self._folder, state)

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        state = checkpoints.read(self._folder, self._arguments) if self._folder is not None else None
        if state is None:
            if self.accelerator.process_index:
                torch.manual_seed(self._seed + self.accelerator.process_index)
            return
        if state["step"] > self.total_steps:
            raise ValueError(
                f"{self._folder} is at step {state['step']}, past the budget of {self.total_steps};"
                " give a budget that is as large or larger, or another checkpoint_dir"
            )
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise ValueError(f"{self._folder} holds another model: {error}") from None
        self.optimizer.load_state_dict(state["optimizer"])
        self.objective.load_state_dict(state["objective"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self._best, self.history = state["step"], state["best"], History(**state["history"])
        random = state["random"][self.accelerator.process_index]
        torch.set_rng_state(random[0])
        if len(random) > 1 and self.accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(random[1])


def _accelerator(precision: str) -> Accelerator:
    if precision not in _PRECISIONS:
        raise ValueError(f"precision is {precision!r}; choose {', '.join(_PRECISIONS)}")
    if precision == "float16" and not torch.cuda.is_available():
        raise ValueError('precision is "float16", which needs a GPU; choose "float32" or "bfloat16" here')
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # Accelerate keeps one precision for the whole process; runs in one notebook may differ in it.
    shared = AcceleratorState._shared_state
    if shared and AcceleratorState().mixed_precision != _PRECISIONS[precision]:
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=_PRECISIONS[precision])


def _check_teacher(model: nn.Module, objective: Objective, sources: list[Any], augment: Any) -> None:
    """Refuse a teacher that would be trained, and cached logits that would not be its own."""
    if objective.teacher is not None:
        own = {id(tensor) for tensor in [*model.parameters(), *model.buffers()]}
        if any(id(tensor) in own for tensor in objective.teacher.tensors()):
            raise ValueError(
                "the teacher shares tensors with the model, so training would change it;"
                " give the objective a copy: copy.deepcopy(model)"
            )
    cached = [data for data in sources if isinstance(data, TensorData) and data.teacher_logits is not None]
    if not cached or objective.teacher is None:
        return
    if augment is not None:
        raise ValueError(
            "augment changes the inputs, and the data carries teacher logits of the unchanged ones;"
            " give the data without cached logits, so that the teacher sees the same view"
        )
    wanted = objective.teacher.fingerprint()
    for data in cached:
        if data.teacher != wanted:
            raise ValueError(
                f"the data's cached logits are of another teacher (fingerprint {str(data.teacher)[:12]}) than the"
                f" objective's ({wanted[:12]}); cache them anew with kdft_lib.teachers.cache"
            )


def _cut(batch: Batch, parts: int) -> list[Batch]:
    """Consecutive pieces of a batch, as equal as can be."""
    if parts == 1:
        return [batch]
    rows = batches.size(batch)
    if rows < parts:
        raise ValueError(f"a batch of {rows} samples cannot be cut into {parts} parts; raise batch_size")
    edges = [rows * part // parts for part in range(parts + 1)]
    return [batches.apply(batch, operator.itemgetter(slice(start, end))) for start, end in itertools.pairwise(edges)]


def _count_labels(data: Any) -> tuple[int, int]:
    """Samples with and without a label; of a loader, all are taken to have one."""
    if not isinstance(data, TensorData):
        dataset = getattr(data, "dataset", data)
        return len(dataset), 0
    if data.targets is None:
        return 0, len(data)
    labelled = int((data.targets != UNLABELLED).flatten(1).any(1).sum()) if data.targets.dim() > 1 else int(
        (data.targets != UNLABELLED).sum()
    )  # fmt: skip
    return labelled, len(data) - labelled


def _described(data: Any) -> str:
    """A text that differs where the data differs, as far as that can be seen."""
    if data is None:
        return "none"
    if isinstance(data, TensorData):
        return f"TensorData {data.fingerprint()[:16]}"
    return f"{type(data).__name__} of {len(data)} batches"
