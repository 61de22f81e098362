"""What is written down of a run, and shown while it goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from kdft_lib.progress import progress_bar
from kdft_lib.training.callbacks import Criterion
from kdft_lib.training.history import History
from kdft_lib.training.settings import Settings


class Record:
    """The history of a run and the weights of its best epoch; a bar for a person, and a log for TensorBoard.

    Args:
        settings: The run's.
        criterion: What the best epoch is chosen by.
    """

    def __init__(self, settings: Settings, criterion: Criterion):
        self._settings, self._criterion = settings, criterion
        self.history = History()
        self.best: dict[str, Tensor] | None = None
        self.bar: Any = None
        self.writer: Any = None

    def watch(self, step: int, total_steps: int) -> None:
        """Show from now on how far the run is, where that is wanted.

        Raises:
            OSError: If nothing can be written to the log.
        """
        folder = self._settings.log_dir
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            try:
                self.writer = SummaryWriter(str(folder), purge_step=step + 1)
            except OSError as error:
                raise OSError(f"log_dir is {folder}, and nothing can be written there ({error})") from error
        self.bar = progress_bar(total_steps, "step", self._settings.progress, initial=step)

    def __enter__(self) -> Record:
        self._started = time.perf_counter() - self.history.seconds
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for shown in (self.bar, self.writer):
            if shown is not None:
                shown.close()

    def tick(self) -> None:
        """Note how long it has taken so far."""
        self.history.seconds = time.perf_counter() - self._started

    def log(self, group: str, values: Mapping[str, float], step: int) -> None:
        """For TensorBoard."""
        for name, value in values.items():
            self.writer.add_scalar(f"{group}/{name}", value, step)

    def epoch(self, epoch: int, step: int, scores: Mapping[str, float], model: nn.Module) -> None:
        """Note a finished epoch, and keep the weights if they are wanted and the best so far."""
        steps = [row for row in self.history.steps if row["epoch"] == epoch]
        means = {
            name: sum(row[name] for row in steps) / len(steps)
            for name in steps[-1]
            if name not in ("step", "epoch", "lr")
        }
        row = {"epoch": epoch, "step": step, **means} | {f"val_{name}": score for name, score in scores.items()}
        if scores and self._criterion.leads(row, self.history.epochs):
            self.history.best_epoch = epoch
            if self._settings.keep_best:
                self.best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self.history.epochs.append(row)
        self.tick()
        if self.writer is not None:
            self.log("val", scores, step)
