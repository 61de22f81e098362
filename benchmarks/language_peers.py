"""Distillation over a whole vocabulary beside its peers: ``make peers``, which installs them.

Writes ``benchmarks/results/language.json``. First the loss alone, from what goes into the last layers, forward and
backward: 1,024 places × 49,152 tokens; then steps of SmolLM2 with six of its layers, whose teacher it is: TRL's, of its
``GKDTrainer``, and ``GKD``'s on the same batch. One thread; all in turns, so that the machine's moods hit all alike.

Peaks are of what torch holds during a call beyond what lay there before. Of the loss alone the gradients are taken off,
which all of them leave; those of a step lie there already, as in a second step of several before the optimiser's.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
import itertools
import json
import math
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from memory import peak
from torch import Tensor, nn

from kdft_lib import models
from kdft_lib.data import Batch
from kdft_lib.datasets import novels
from kdft_lib.experiments import hardware
from kdft_lib.losses import linear_soft_target_loss
from kdft_lib.objectives import GKD

PATH = Path(__file__).parent / "results" / "language.json"
PEERS = {"trl": "1.16.0", "liger_kernel": "0.8.5"}
INSTALL = (
    "The peers are not installed, or in other versions: run `python -m pip install --no-deps --target .venv/bench"
    " trl==1.16.0 liger-kernel==0.8.5`, and this with PYTHONPATH=.venv/bench."
)
TURNS = 5
PLACES, CLASSES, WIDTH = 1024, 49_152, 576
CHUNKS = (64, 1024)
"""Rows that Liger takes at once; the larger is its default."""
LAYERS = 6
ROWS = {"all places count": (8, 128, 1), "two of three count": (8, 192, 65)}
"""Of a step: texts, places of each, and the tokens of its prompt."""
BETAS = {"forward KL": 0.0, "Jensen–Shannon": 0.5}


def main() -> None:
    if any(not importlib.util.find_spec(name) or metadata.version(name) != needed for name, needed in PEERS.items()):
        raise SystemExit(INSTALL)
    torch.set_num_threads(1)
    rows = []
    for row in itertools.chain(of_losses(), of_steps()):
        print(shown(row), flush=True)
        rows.append(row)
    versions = {name: metadata.version(name) for name in ("torch", "transformers", *PEERS)}
    about = {"hardware": hardware(), "python": platform.python_version(), "versions": versions}
    PATH.write_text(json.dumps({"about": about, "rows": rows}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def measured(runs: dict[str, Callable[[], Any]], turns: int) -> dict[str, dict[str, float]]:
    """Of each the median seconds and the peak in MiB. In each turn their order is drawn: one pays for the memory that
    the one before it gave back."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    order = random.Random(0)
    for _ in range(turns):
        for name in order.sample([*runs], len(runs)):
            started = time.perf_counter()
            runs[name]()
            times[name].append(time.perf_counter() - started)
    return {name: {"seconds": statistics.median(times[name]), "mib": peak(run) / 2**20} for name, run in runs.items()}


def shown(row: dict[str, Any]) -> str:
    found = [f"  {name}: {one['seconds']:.3f} s, {one['mib']:.1f} MiB" for name, one in row["measured"].items()]
    goals = [
        f"  {what} {value:.3g}, goal {most:g} {'met' if value <= most else 'missed'}"
        for what, (value, most) in row["goals"].items()
    ]
    shares = [f"{name} {share:.2f}" for name, share in row.get("of which the loss", {}).items()]
    told = [f"  of which the loss: {', '.join(shares)}"] if shares else []
    return "\n".join([f"{row['work']}; losses differ by up to {row['differ']:.1e}", *found, *told, *goals])


def apart(values: Iterable[Tensor]) -> float:
    """The largest difference, relative."""
    numbers = [float(value) for value in values]
    return (max(numbers) - min(numbers)) / max(map(abs, numbers))


# ---- the loss alone


class Ends(NamedTuple):
    """What goes into the last layers, and those."""

    hidden: Tensor
    weight: Tensor
    wide: Tensor
    other: Tensor


def ends() -> Ends:
    generator = torch.Generator().manual_seed(0)

    def drawn(rows: int, scale: float) -> Tensor:
        return scale * torch.randn(rows, WIDTH, generator=generator)

    made = Ends(drawn(PLACES, 1.0), drawn(CLASSES, 0.1), drawn(PLACES, 1.0), drawn(CLASSES, 0.1))
    for moved in (made.hidden, made.weight):
        moved.requires_grad_()
    return made


def plain(beta: float, given: Ends) -> Tensor:
    """As a careful user writes it."""
    log_q = F.log_softmax(given.hidden @ given.weight.T, -1)
    log_p = F.log_softmax(given.wide @ given.other.T, -1)
    if not beta:
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    log_m = torch.logaddexp(log_q + math.log(1 - beta), log_p + math.log(beta))
    theirs, ours = (F.kl_div(log_m, side, reduction="batchmean", log_target=True) for side in (log_p, log_q))
    return beta * theirs + (1 - beta) * ours


def ours(beta: float, given: Ends) -> Tensor:
    if not beta:
        return linear_soft_target_loss(*given)
    return linear_soft_target_loss(*given, divergence="jensen_shannon", beta=beta)


def liger(beta: float, given: Ends, chunk: int, compiled: bool = False) -> Tensor:
    """Its chunked loss, which is PyTorch; what it calls compiled is its default."""
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=beta, compiled=compiled, chunk_size=chunk
    )
    return loss(*given, torch.zeros(len(given.hidden), dtype=torch.int64))


def tiles(beta: float, given: Ends) -> Tensor:
    """Of TRL's ``DistillationTrainer``."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    student, teacher = given[:2], given[2:]
    scales = 1.0, 1.0, None, 1.0, None  # Temperature; of either side its logits' scale, and no cap.
    return ChunkedDivergenceFunction.apply(*student, None, *teacher, None, beta, *scales)[0].mean()


def of_losses() -> Iterable[dict[str, Any]]:
    given = ends()
    gradients = (given.hidden.nbytes + given.weight.nbytes) / 2**20

    def once(loss: Callable[[float, Ends], Tensor], beta: float) -> Tensor:
        found = loss(beta, given)
        found.backward()
        given.hidden.grad = given.weight.grad = None  # Else the next call would free them, and seem to take less.
        return found.detach()

    for name, beta in BETAS.items():
        contestants = {"plain": plain, "ours": ours, "TRL, in tiles": tiles}
        contestants |= {f"Liger, {chunk} rows": functools.partial(liger, chunk=chunk) for chunk in CHUNKS}
        contestants["Liger, compiled"] = functools.partial(liger, chunk=CHUNKS[-1], compiled=True)
        runs = {name: functools.partial(once, loss, beta) for name, loss in contestants.items()}
        differ = apart(run() for run in runs.values())
        found = measured(runs, TURNS)
        for one in found.values():
            one["mib"] -= gradients
        seconds = {name: one["seconds"] for name, one in found.items()}
        fastest = min(value for name, value in seconds.items() if name.startswith("Liger"))
        goals = {
            "time over plain": (seconds["ours"] / seconds["plain"], 1.1),
            "time over Liger's fastest": (seconds["ours"] / fastest, 0.8),
            "MiB beyond the gradients": (found["ours"]["mib"], 32.0),
        }
        work = f"{name}, {PLACES:,} × {CLASSES:,}"
        yield {"work": work, "differ": differ, "measured": found, "goals": goals}


# ---- a step


def student(teacher: Any) -> Any:
    """The teacher with fewer layers, at even distances."""
    made = copy.deepcopy(teacher)
    places = torch.linspace(0, len(made.model.layers) - 1, LAYERS).round().long().tolist()
    made.model.layers = nn.ModuleList([made.model.layers[place] for place in places])
    made.config.num_hidden_layers = LAYERS
    return made.train()


def batches(tokenizer: Any, rows: int, places: int, prompt: int) -> tuple[Batch, dict[str, Tensor]]:
    """The same texts as ours and as TRL's, whose rows have the last target too, and which shifts them itself."""
    read = tokenizer("\n".join(novels().test.texts)[: 8 * rows * (places + 1)], add_special_tokens=False)["input_ids"]
    tokens = torch.tensor(read[: rows * (places + 1)]).view(rows, places + 1)
    mask = torch.arange(1, places + 1).expand(rows, -1) >= prompt
    inputs = {"input_ids": tokens[:, :-1], "attention_mask": torch.ones_like(tokens[:, :-1])}
    ours = {"inputs": inputs, "targets": tokens[:, 1:].masked_fill(~mask, -100), "mask": mask}
    labels = tokens.masked_fill(torch.arange(places + 1) < prompt, -100)
    return ours, {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}


def trainer(model: Any, teacher: Any, tokenizer: Any, beta: float, folder: str) -> Any:
    """TRL's, in float32 on the CPU, on given texts."""
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    said = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]
    settings = GKDConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        lmbda=0.0,
        beta=beta,
    )
    return GKDTrainer(
        model, teacher, settings, train_dataset=Dataset.from_list([{"messages": said}]), processing_class=tokenizer
    )


def of_steps() -> Iterable[dict[str, Any]]:
    teacher, tokenizer = models.language_model()
    model = student(teacher)

    def back(loss: Tensor) -> Tensor:
        loss.backward()
        return loss.detach()

    def bodies(batch: Batch) -> Tensor:
        """The step without what makes logits, compares them and finds their gradients."""
        with torch.no_grad():
            models.before_head(teacher, batch["inputs"])
        return back(models.before_head(model, batch["inputs"])[0].square().mean())

    for what, (rows, places, prompt) in ROWS.items():
        for name, beta in BETAS.items():
            batch, theirs = batches(tokenizer, rows, places, prompt)
            kind = "jensen_shannon" if beta else "forward_kl"
            with tempfile.TemporaryDirectory() as folder:
                peer = trainer(model, teacher, tokenizer, beta, folder)
            objectives = {
                "ours": GKD(teacher, divergence=kind, beta=beta or 0.5, on_policy=0.0, in_blocks=True),
                "ours, not in blocks": GKD(teacher, divergence=kind, beta=beta or 0.5, on_policy=0.0),
            }
            runs = {
                own: lambda objective=objective, batch=batch: back(objective(model, batch)["loss"])
                for own, objective in objectives.items()
            }
            runs["TRL's GKDTrainer"] = lambda peer=peer, theirs=theirs: back(peer.compute_loss(model, theirs))
            differ = apart(run() for run in runs.values())
            bare = functools.partial(bodies, batch)
            bare()
            found = measured(runs | {"without the loss": bare}, TURNS)
            own, other, rest = (found[name] for name in ("ours", "TRL's GKDTrainer", "without the loss"))
            goals = {
                "loss apart": (differ, 1e-4),
                "time over TRL's": (own["seconds"] / other["seconds"], 0.8),
                "peak over TRL's": (own["mib"] / other["mib"], 0.6),
            }
            yield {
                "work": f"a step, {name}, {what}: {int(batch['mask'].sum()):,} of {rows} × {places}",
                "differ": differ,
                "measured": found,
                "of which the loss": {
                    name: 1 - rest["seconds"] / one["seconds"] for name, one in found.items() if one is not rest
                },
                "goals": goals,
            }


if __name__ == "__main__":
    main()
