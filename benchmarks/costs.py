"""What each objective and each strategy costs in time and memory: ``python benchmarks/costs.py``.

Writes ``book/costs.txt``, the three tables of the page "Which objective, which strategy?". Objectives: a step of
a ConvNet of width 8 on 128 pictures of Fashion-MNIST, the shipped teacher in the loop. For language models: a step
of a CharacterGRU of width 64 on 32 windows of 64 characters, with a teacher of width 256. Strategies: a step of
EfficientNet-Lite0 on 32 pictures at 64 × 64. Medians of steps taken in turns on two threads.
"""

from __future__ import annotations

import functools
import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from memory import peak
from torch import Tensor, nn

from kdft_lib import objectives, strategies
from kdft_lib.data import Batch
from kdft_lib.datasets import FASHION_NORMALIZATION, fashion_mnist, homer
from kdft_lib.experiments import hardware
from kdft_lib.models import CharacterGRU, ConvNet, fashion_teacher, imagenet_backbone
from kdft_lib.objectives import L2SP, Objective, Supervised

PATH = Path(__file__).parents[1] / "book/costs.txt"
TURNS = 60
Maker = Callable[[nn.Module], Objective]
"""From a model at its start to what it learns from."""


def always(objective: Objective) -> Maker:
    return lambda model: objective


def main() -> None:
    torch.set_num_threads(2)
    about = f"Measured on {hardware()}, with torch {torch.__version__.split('+')[0]}, by `benchmarks/costs.py`."
    tables = [of_objectives(), of_language(), of_strategies(), about]
    PATH.write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    print(PATH.read_text(encoding="utf-8"))


def of_objectives() -> str:
    rows, teacher = fashion_mnist(labeled=1000).train.rows(torch.arange(128)), fashion_teacher()
    wanted: dict[str, Maker] = {_class(Supervised): always(Supervised())}
    for alone in (
        objectives.HardTargets, objectives.SoftTargets, objectives.LogitMatching, objectives.DKD, objectives.DIST,
    ):  # fmt: skip
        wanted[_class(alone)] = always(alone(teacher))
    for weight, beside in (
        (100, objectives.Hint), (1000, objectives.AttentionTransfer), (3000, objectives.SimilarityPreserving),
        (1, objectives.RKD), (1, objectives.Contrastive),
    ):  # fmt: skip
        wanted[_class(beside)] = always(Supervised() + weight * beside(teacher, "body.2", "block2"))
    wanted[_class(objectives.LwF)] = always(objectives.LwF(teacher, classes=range(5)))
    wanted[_class(L2SP)] = lambda model: Supervised() + 0.01 * L2SP(model)
    return priced(wanted, functools.partial(ConvNet, width=8), rows, teacher)


def of_language() -> str:
    rows, teacher = homer(labeled=1000).train.rows(torch.arange(32)), CharacterGRU(256, 64)
    gkd = _class(objectives.GKD)
    wanted: dict[str, Maker] = {
        _class(Supervised): always(Supervised()),
        f"{gkd}, on given text": always(objectives.GKD(teacher, on_policy=0.0)),
        f"{gkd}, on its own text": always(objectives.GKD(teacher, on_policy=1.0)),
    }
    title = "A language model of 25,121 parameters, on 32 texts of 64 characters, its teacher ten times as large:"
    return f"{title}\n\n{priced(wanted, functools.partial(CharacterGRU, 64, 32), rows, teacher)}"


def _class(kind: type) -> str:
    """A link to it."""
    return f"{{class}}`~{'.'.join(kind.__module__.split('.')[:2])}.{kind.__name__}`"


def priced(wanted: Mapping[str, Maker], student: Callable[[], nn.Module], rows: Batch, teacher: nn.Module) -> str:
    """A table of a step with each, as multiples of a step with the first."""
    with torch.no_grad():
        answers = teacher(rows["inputs"])
    steps, cached = {}, {}
    for name, make in wanted.items():
        model = student()
        objective = make(model)
        objective.prepare(model, rows)
        objective.before_epoch(19, 20)
        steps[name] = step(model, objective, rows)
        if all(term.reads_logits for _, term in objective.terms()) and objective.teachers():
            cached[name] = step(model, objective, rows | {"teacher_logits": answers})
    found = measured(steps | {f"{name} cached": once for name, once in cached.items()})
    base = found[next(iter(wanted))][0]
    table = ["| objective | time of a step | from cached logits | peak memory |", "|---|---|---|---|"]
    for name in wanted:
        seconds, memory = found[name]
        again = f"{found[f'{name} cached'][0] / base:.2f}" if name in cached else "–"
        table.append(f"| {name} | {seconds / base:.2f} | {again} | {memory / 2**20:.1f} MiB |")
    return "\n".join([*table, "", f"Times are multiples of a supervised step's, {1e3 * base:.1f} ms."])


def of_strategies() -> str:
    rows = fashion_mnist(labeled=1000).train.rows(torch.arange(32))
    steps, trained = {}, {}
    for strategy in (
        strategies.HeadOnly(lr=1e-2, head="classifier"), strategies.BitFit(lr=1e-2, head="classifier"),
        strategies.LoRA(lr=1e-2, head="classifier"), strategies.GradualUnfreezing(lr=1e-3),
        strategies.LayerwiseLRDecay(lr=1e-3), strategies.FullFineTuning(lr=1e-3),
    ):  # fmt: skip
        model: Any = imagenet_backbone(num_classes=10, image_size=64, given=FASHION_NORMALIZATION)
        batch = rows | {"inputs": model.transform(rows["inputs"])}
        strategy.prepare(model)
        model.train()
        strategy.before_epoch(model, 0)
        name = _class(type(strategy))
        trained[name] = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        steps[name] = step(model, Supervised(), batch)
    found = measured(steps)
    base = found[_class(strategies.FullFineTuning)][0]
    table = ["| strategy | trained | time of a step | peak memory |", "|---|---|---|---|"]
    for name, (seconds, memory) in found.items():
        table.append(f"| {name} | {trained[name]:,} | {seconds / base:.2f} | {memory / 2**20:.0f} MiB |")
    note = (
        f"Times are multiples of a step of full fine-tuning, {1e3 * base:.0f} ms; gradual unfreezing is shown in its"
        " first epoch, where it costs least. AdamW adds eight bytes for each number that is trained."
    )
    return "\n".join([*table, "", note])


def step(model: nn.Module, objective: Objective, batch: Batch) -> Callable[[], Tensor]:
    def once() -> Tensor:
        loss = objective(model, batch)["loss"]
        loss.backward()
        model.zero_grad()
        objective.zero_grad()
        return loss

    return once


def measured(steps: dict[str, Callable[[], Any]]) -> dict[str, tuple[float, int]]:
    """Median seconds and peak bytes of each."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = random.Random(0)
    for turn in range(TURNS):
        for name in order.sample([*steps], len(steps)):  # One pays for the memory that the one before it gave back.
            once = steps[name]
            started = time.perf_counter()
            once()
            if turn:
                times[name].append(time.perf_counter() - started)
    return {name: (statistics.median(times[name]), peak(once)) for name, once in steps.items()}


if __name__ == "__main__":
    main()
