"""What the recipe of a language model of one's own size keeps from one command to the next: tensors that say what they
were made of, and runs that several records have in common. Two commands may run at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from kdft_lib.data import Splits
from kdft_lib.experiments import Trained, Wrapped
from kdft_lib.files import written_whole

FOLDER: Path | None = Path("_build/own-size")
"""Where what took hours stays: start again, and it goes on; delete it, and all is made anew. None keeps nothing."""
LEARNED_BY = ("files", "parts", "students", "lessons")
"""The programs that decide what a run becomes: one that changes makes runs that were kept others' runs."""


@contextlib.contextmanager
def alone(name: str) -> Iterator[None]:
    """Of several processes one at a time; another waits here, and finds what the first has made."""
    if FOLDER is None:
        yield
        return
    import fcntl  # Windows has none.

    path = FOLDER / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # Until the file is closed, by whatever ends the process too.
        yield


def kept(name: str, make: Callable[[], dict[str, Tensor]], **made_of: object) -> dict[str, Tensor]:
    """Tensors from the file of that name, or made now and written to it.

    Raises:
        ValueError: If the file was made of something else.
    """
    if FOLDER is None:
        return make()
    path, wanted = FOLDER / f"{name}.safetensors", {key: str(value) for key, value in made_of.items()}
    with alone(name):
        if not path.exists():
            made = make()
            with written_whole(path) as temporary:
                save_file(made, temporary, metadata=wanted)
    with safe_open(path, "pt") as file:
        known = file.metadata() or {}
    if known != wanted:
        changed = [key for key in sorted({*known, *wanted}) if known.get(key) != wanted.get(key)]
        told = ", ".join(f"{key} was {known.get(key)} and is now {wanted.get(key)}" for key in changed)
        raise ValueError(f"{path} is of something else: {told}; delete {FOLDER} to make all anew")
    return load_file(path)


def kept_numbers(name: str, make: Callable[[], dict[str, float]], **made_of: object) -> dict[str, float]:
    """The same of numbers, that what was measured need not be measured again."""

    def tensors() -> dict[str, Tensor]:
        return {key: torch.tensor(value, dtype=torch.float64) for key, value in make().items()}

    return {key: value.item() for key, value in kept(name, tensors, **made_of).items()}


@dataclass(frozen=True)
class Shared(Wrapped):
    """A method whose runs stay in a file each: another record, or this one begun again, need not train them anew."""

    method: Any

    def train(self, splits: Splits, seed: int) -> Trained:
        if FOLDER is None:
            return self.method.train(splits, seed)
        plain = re.sub(r" at 0x[0-9a-f]+", "", repr(self.method))
        made_of = f"{plain}, seed {seed}, on {splits.train.fingerprint()}, by {programs(*LEARNED_BY)}"
        path = FOLDER / "shared" / f"{hashlib.sha256(made_of.encode()).hexdigest()[:20]}.pt"
        with alone(path.stem):
            if not path.exists():
                trained = self.method.train(splits, seed)
                with written_whole(path) as temporary:
                    torch.save({"made_of": made_of, "trained": trained}, temporary)
        found: Trained = torch.load(path, weights_only=False)["trained"]
        return found


@dataclass(frozen=True)
class OneRun(Wrapped):
    """A method that takes too long twice: the run of seed 0 stands for every seed."""

    method: Any

    def train(self, splits: Splits, seed: int) -> Trained:
        return Shared(self.method).train(splits, 0)


def programs(*names: str) -> str:
    """A digest of some programs of the recipe, or of all."""
    here = Path(__file__).parent
    paths = [here / f"own_size_{name}.py" for name in names] or sorted(here.glob("own_size*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:12]
