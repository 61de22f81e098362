"""Checkpoints that are whole or absent: plain tensors and numbers in one file, written atomically."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kdft_lib import sharding
from kdft_lib.files import written_whole
from kdft_lib.training import callbacks
from kdft_lib.training.history import History

if TYPE_CHECKING:
    from kdft_lib.training.run import Run

_NAME = "checkpoint.pt"


class Checkpoints:
    """What an interrupted run goes on from, in a folder; without a folder, nothing is kept.

    Args:
        folder: Where the checkpoint lies.
    """

    def __init__(self, folder: str | Path | None):
        self.folder = Path(folder) if folder is not None else None
        self.arguments: dict[str, str] = {}
        """What decides the run's outcome, in words: another run's checkpoint is told by them."""

    def check(self) -> None:
        """Find out before the training, not after its first epoch, that nothing can be written.

        Raises:
            OSError: If so; the message says where and why.
        """
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            for left in self.folder.glob(f".{_NAME}.*"):  # by a process that was killed as it wrote
                shutil.rmtree(left, ignore_errors=True)
        except OSError as error:
            raise OSError(f"{self._named}, and nothing can be written there ({error})") from error

    def write(self, run: Run) -> None:
        """Replace the checkpoint by all that the rest of the run depends on, or leave the old one as it was.

        Raises:
            OSError: If it cannot be written; the message says where and why.
        """
        if self.folder is None:
            return
        run.record.tick()
        random = [torch.get_rng_state()]
        if run.accelerator.device.type == "cuda":
            random.append(torch.cuda.get_rng_state())
        if run.accelerator.num_processes > 1:
            from accelerate.utils import gather_object

            everywhere = gather_object([random])
        else:
            everywhere = [random]
        scaler = run.accelerator.scaler
        state = {
            "arguments": self.arguments,
            "step": run.step,
            "model": run.model.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "objective": run.objective.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "random": everywhere,
            "history": {key: value for key, value in vars(run.record.history).items() if key != "ledger"},
            "best": run.record.best,
            "labeled": run.labeled,
            "callbacks": callbacks.states_of(run.settings.callbacks),
            "average": run.average.state_dict() if run.average is not None else {},
        }
        state = sharding.gathered(state, keep=run.accelerator.is_main_process)
        if run.accelerator.is_main_process:
            with written_whole(self.folder / _NAME, self._named) as temporary:
                torch.save(state, temporary)

    def resume(self, run: Run) -> None:
        """Let a run go on from the checkpoint, if there is one.

        Raises:
            ValueError: If it belongs to another run, or is damaged.
        """
        state = self._read()
        if state is None:
            if run.accelerator.process_index:
                torch.manual_seed(run.settings.seed + run.accelerator.process_index)
            return
        if state["step"] > run.total_steps:
            raise ValueError(
                f"{self.folder} is at step {state['step']}, past the budget of {run.total_steps};"
                " give a budget that is as large or larger, or another checkpoint_dir"
            )
        state = run.lent.shares(state, run.optimizer)
        own, kept = run.model.state_dict(), state["model"]
        shapes = [{name: getattr(value, "shape", None) for name, value in each.items()} for each in (own, kept)]
        if shapes[0] != shapes[1]:
            other = next(name for name in own | kept if shapes[0].get(name, 0) != shapes[1].get(name, 0))
            raise ValueError(
                f"{self.folder} holds another model, which differs in {other}. Use the arguments of that run, or"
                " another checkpoint_dir"
            )
        for name in ("optimizer", "objective", "model"):
            try:
                getattr(run, name).load_state_dict(state[name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise ValueError(
                    f"{self.folder} holds another {name}: {error}. Use the arguments of that run, or another"
                    " checkpoint_dir"
                ) from None
        if run.average is not None:
            run.average.load_state_dict(state["average"])
        if run.accelerator.scaler is not None:
            run.accelerator.scaler.load_state_dict(state["scaler"])
        run.step, run.labeled = state["step"], state["labeled"]
        run.record.best, run.record.history = state["best"], History(**state["history"])
        callbacks.restore(run.settings.callbacks, state["callbacks"])
        random = state["random"][run.accelerator.process_index]
        torch.set_rng_state(random[0])
        if len(random) > 1 and run.accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(random[1])

    @property
    def _named(self) -> str:
        return f"checkpoint_dir is {self.folder}"

    def _read(self) -> dict[str, Any] | None:
        path = self.folder / _NAME if self.folder is not None else None
        if path is None or not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            before = state["arguments"]
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, TypeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
            if isinstance(error, pickle.UnpicklingError):
                reason = "it is damaged, or holds more than tensors and plain values"
            raise ValueError(
                f"{path} cannot be read as a checkpoint ({reason}); delete it to start anew, or use another"
                " checkpoint_dir"
            ) from None
        changed = [
            f"{name} was {before.get(name, 'not given')}, now {self.arguments.get(name, 'not given')}"
            for name in sorted(before.keys() | self.arguments.keys())
            if before.get(name) != self.arguments.get(name)
        ]
        if changed:
            raise ValueError(
                f"{path} belongs to another run: {'; '.join(changed)}."
                " Use the arguments of that run, on as many processes (only the budget may grow), or another"
                " checkpoint_dir"
            )
        return state
