"""Will it fit, and how long? Formulas, and what they miss: ``python benchmarks/what_it_costs.py``.

Writes ``book/what-it-costs.txt``, the table of the page "What will it cost?", and ``book/_extra/play/fits-data.js``,
which the page's figure reckons with. Each network is looked at once, with one sample; then steps of several samples
are measured: the most bytes that torch held, and the processor's seconds on one thread, which others on the machine
disturb less than the clock's.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from memory import peak
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kdft_lib import models
from kdft_lib.datasets import FASHION_NORMALIZATION
from kdft_lib.experiments import hardware
from kdft_lib.losses import soft_target_loss
from kdft_lib.strategies import FullFineTuning, HeadOnly, LoRA, Strategy

BOOK = Path(__file__).parents[1] / "book"
TABLE, DATA = BOOK / "what-it-costs.txt", BOOK / "_extra/play/fits-data.js"
STEPS, SIDE = 5, 1024
SIZES = {"pixels": {"student": 28, "lite0": 64}, "tokens": {"minilm": 64, "smollm2": 64}}
PASSES = {"all": 3, "LoRA": 2, "head": 1, "nothing": 1}
"""What a step takes, in forward passes of the network: backward, the gradients of weights take one, and those of
activations another."""

# ---- the formulas


class Seen(NamedTuple):
    """What was found out about a network with one sample."""

    numbers: int
    """That it consists of: parameters and buffers."""
    moving: int
    """Of these, what is trained."""
    kept: int
    """Bytes that backward needs of a sample."""
    widest: int
    """Bytes of the largest layer's input and output."""
    operations: int
    """Of one forward pass: multiplications and additions."""
    outputs: int
    """Logits of a sample: classes, or places × vocabulary."""


def memory(seen: Seen, moves: str, batch: int, state: int = 2, teacher: Seen | None = None) -> dict[str, int]:
    """Bytes of each part in float32; ``state`` is how many numbers the optimiser keeps for one that moves."""
    answers = 1 if moves == "nothing" else 3  # Logits, their log-softmax, and its gradient.
    parts = {
        "weights": 4 * seen.numbers,
        "gradients": 4 * seen.moving,
        "optimiser": 4 * state * seen.moving,
        "activations": batch * max(seen.kept, seen.widest),
        "logits": 4 * answers * batch * seen.outputs,
    }
    if teacher:
        parts["teacher"] = 4 * teacher.numbers + batch * (teacher.widest + 4 * teacher.outputs)
    return parts


def operations(seen: Seen, moves: str, batch: int, teacher: Seen | None = None) -> int:
    """Of a step."""
    return batch * (PASSES[moves] * seen.operations + (teacher.operations if teacher else 0))


# ---- the networks


class Network(NamedTuple):
    make: Callable[[], Any]
    sample: Callable[[Any, int], dict[str, Any]]
    """Inputs of so many samples, as keywords."""
    head: str | None


def sentences() -> Any:
    encoder = models.sentence_encoder(max_tokens=SIZES["tokens"]["minilm"])
    encoder.head = nn.Linear(encoder.width, 5)
    return encoder


def lite0() -> nn.Module:
    return models.imagenet_backbone(num_classes=10, image_size=SIZES["pixels"]["lite0"], given=FASHION_NORMALIZATION)


def masked(model: Any, count: int) -> dict[str, Tensor]:
    ids = torch.randint(1000, model.body.config.vocab_size, (count, SIZES["tokens"]["minilm"]))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def written(model: Any, count: int) -> dict[str, Any]:
    ids = torch.randint(model.config.vocab_size, (count, SIZES["tokens"]["smollm2"]))
    return {"input_ids": ids, "use_cache": False}


NETWORKS = {
    "student": Network(lambda: models.ConvNet(width=8), lambda _, count: {"x": torch.randn(count, 1, 28, 28)}, None),
    "lite0": Network(lite0, lambda _, count: {"x": torch.randn(count, 3, 64, 64)}, "classifier"),
    "minilm": Network(sentences, masked, "head"),
    "smollm2": Network(lambda: models.language_model()[0].train(), written, None),
}
NAMES = {
    "student": "the student", "lite0": "EfficientNet-Lite0", "minilm": "MiniLM", "smollm2": "SmolLM2-135M",
}  # fmt: skip
ROWS = {
    ("student", "all"): ("the student, all of it", 128),
    ("student", "all", "teacher"): ("the student, the shipped teacher beside it", 128),
    ("lite0", "all"): ("EfficientNet-Lite0, all of it", 32),
    ("lite0", "head"): ("EfficientNet-Lite0, its head", 32),
    ("minilm", "all"): ("MiniLM, all of it", 8),
    ("minilm", "LoRA"): ("MiniLM, LoRA and its head", 8),
    ("minilm", "head"): ("MiniLM, its head", 8),
    ("smollm2", "nothing"): ("SmolLM2-135M, forward alone", 2),
    ("smollm2", "all"): ("SmolLM2-135M, all of it", 2),
    ("smollm2", "LoRA"): ("SmolLM2-135M, LoRA", 2),
}
"""What is measured, and with how many samples a step."""


def strategy(moves: str, head: str | None) -> Strategy:
    if moves == "head":
        return HeadOnly(lr=1e-3, head=str(head))
    return LoRA(lr=1e-3, head=head) if moves == "LoRA" else FullFineTuning(lr=1e-3)


def logits(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    given = model(*inputs.values()) if "x" in inputs else model(**inputs)
    return getattr(given, "logits", given)


# ---- one look, with one sample


def look(model: nn.Module, inputs: Mapping[str, Any], frozen: bool = False) -> Seen:
    """With one sample; all that moves requires gradients already."""
    own = [*model.parameters(), *model.buffers()]
    moving = 0 if frozen else sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    places = {tensor.untyped_storage().data_ptr() for tensor in own}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in places:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.set_grad_enabled(not frozen), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = logits(model, inputs)
    with torch.no_grad(), widths(model) as found, FlopCounterMode(display=False) as counter:
        logits(model, inputs)
    inner = [both for both, made in found if made != outputs.numel()]  # The last one makes the logits.
    return Seen(
        sum(tensor.numel() for tensor in own),
        moving,
        sum(storage.nbytes() for storage in kept.values()),
        4 * max(inner, default=0),
        counter.get_total_flops(),
        outputs.numel(),
    )


@contextmanager
def widths(model: nn.Module) -> Iterator[list[tuple[int, int]]]:
    """The numbers that go into and come out of each layer, together and what comes out alone."""
    found: list[tuple[int, int]] = []

    def note(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        if isinstance(made, Tensor):
            found.append((sum(one.numel() for one in given if isinstance(one, Tensor)) + made.numel(), made.numel()))

    hooks = [layer.register_forward_hook(note) for layer in model.modules() if not list(layer.children())]
    yield found
    for hook in hooks:
        hook.remove()


# ---- many steps, measured


def measured(
    model: nn.Module, inputs: Mapping[str, Any], moves: str, teacher: nn.Module | None = None
) -> tuple[int, float]:
    """The most bytes during a step, what lay there before included, and the processor's seconds."""
    optimizer = torch.optim.AdamW(parameter for parameter in model.parameters() if parameter.requires_grad)

    @torch.no_grad()
    def forward() -> None:
        logits(model, inputs)

    def step() -> None:
        optimizer.zero_grad()
        made = logits(model, inputs).flatten(0, -2)
        if teacher:
            with torch.no_grad():
                answers = teacher(*inputs.values())
            loss = soft_target_loss(made, answers, temperature=4.0)
        else:
            loss = F.cross_entropy(made, torch.arange(len(made)) % made.shape[1])
        loss.backward()
        optimizer.step()

    once = forward if moves == "nothing" else step
    once()
    gc.collect()
    times = []
    for _ in range(STEPS):
        started = time.process_time()
        once()
        times.append(time.process_time() - started)
    optimizer.zero_grad()  # What was there before is not seen to go.
    lying = [*model.parameters(), *model.buffers(), *(teacher.parameters() if teacher else ())]
    lying += [number for state in optimizer.state.values() for number in state.values()]
    return sum(tensor.nbytes for tensor in lying) + peak(once), statistics.median(times)


def rate() -> float:
    """Operations a second in what the processor is best at, a product of two matrices."""
    left, right, times = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE), []
    for _ in range(2 * STEPS):
        started = time.process_time()
        left @ right
        times.append(time.process_time() - started)
    return 2 * SIDE**3 / min(times)


def rows() -> Iterator[dict[str, Any]]:
    """What is found out about each of ``ROWS``, and what is measured of it."""
    for (name, moves, *beside), (said, batch) in ROWS.items():
        network = NETWORKS[name]
        torch.manual_seed(0)
        model = network.make()
        if moves != "nothing":
            plan = strategy(moves, network.head)
            plan.prepare(model)
            model.train()
            plan.before_epoch(model, 0)
        seen = look(model, network.sample(model, 1), frozen=moves == "nothing")
        teacher = models.fashion_teacher() if beside else None
        asked = look(teacher, network.sample(teacher, 1), frozen=True) if teacher else None
        held, seconds = measured(model, network.sample(model, batch), moves, teacher)
        yield {
            "name": name, "moves": moves, "said": said, "batch": batch, "seen": seen, "teacher": asked, "bytes": held,
            "seconds": seconds,
        }  # fmt: skip


# ---- what is written


def main() -> None:
    torch.set_num_threads(1)
    peak_rate, found = rate(), list(rows())
    about = f"{hardware()}, with torch {torch.__version__.split('+')[0]}"
    TABLE.write_text(table(found, peak_rate, about), encoding="utf-8")
    fields = "".join(f"  {name}: {json.dumps(value)},\n" for name, value in data(found, peak_rate, about).items())
    DATA.write_text(
        f"// Written by benchmarks/what_it_costs.py.\nconst kdftCosts = {{\n{fields}}};\n", encoding="utf-8"
    )
    print(TABLE.read_text(encoding="utf-8"))


def table(found: list[dict[str, Any]], peak_rate: float, about: str) -> str:
    lines = ["| what is trained | a step | memory: formula | measured | time at full rate | measured | rate reached |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in found:
        given = row["seen"], row["moves"], row["batch"]
        expected = sum(memory(*given, teacher=row["teacher"]).values()) / 2**20
        least, took = operations(*given, row["teacher"]) / peak_rate, row["seconds"]
        sizes = [f"{digits(value)} MiB" for value in (expected, row["bytes"] / 2**20)]
        times = [f"{digits(1000 * value)} ms" for value in (least, took)]
        lines.append(f"| {' | '.join([row['said'], str(row['batch']), *sizes, *times])} | {100 * least / took:.0f} % |")
    by = "The processor's time, not the clock's; `benchmarks/what_it_costs.py` measures it."
    full = f"a product of two matrices of {SIDE:,} rows, {peak_rate / 1e9:.0f} billion operations a second"
    return "\n".join([*lines, "", f"Full rate is that of {full}, on {about}. {by}", ""])


def digits(value: float) -> str:
    """Three of them."""
    return f"{float(f'{value:.3g}'):,g}"


def data(found: list[dict[str, Any]], peak_rate: float, about: str) -> dict[str, Any]:
    networks: dict[str, Any] = {}
    for row in found:
        seen, name = row["seen"], row["name"]
        (unit,) = [unit for unit, sizes in SIZES.items() if name in sizes]
        least = operations(seen, row["moves"], row["batch"], row["teacher"]) / peak_rate
        size = SIZES[unit][name]
        entry = networks.setdefault(
            name, {"name": NAMES[name], "unit": unit, "size": size, "batch": row["batch"], "moves": {}}
        )
        if not row["teacher"]:
            entry["moves"][row["moves"]] = {**seen._asdict(), "reached": round(least / row["seconds"], 3)}
        else:
            entry["teacher"] = row["teacher"]._asdict()
    return {"networks": networks, "passes": PASSES, "rate": round(peak_rate / 1e9) * 10**9, "hardware": about}


if __name__ == "__main__":
    main()
