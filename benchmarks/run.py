"""What is fast, against what: ``make bench`` prints this table and writes it to ``benchmarks/results``.

Everything is measured in one run on two threads, ours and the peers in turns, so that the machine's moods hit
all alike; a row gives medians, and ours over the fastest peer.
"""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import kept_answers
import loops
import losses as loss_works
import torch
from torch import nn

from kdft_lib import losses, plots
from kdft_lib.data import TensorData
from kdft_lib.datasets import fashion_mnist
from kdft_lib.experiments.records import hardware
from kdft_lib.losses import divergences
from kdft_lib.teachers import cache
from kdft_lib.training import evaluate

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    torch.set_num_threads(2)
    rows = [*loss_rows(), *loop_rows(), *answer_rows()]
    growth, crossing = grow(), cross()
    for row in rows:
        print(shown(row))
    for name, (_, _, slope) in growth.items():
        print(f"{name}: time grows with the power {slope:.2f}")
    about = {
        "hardware": hardware(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "torchvision", "accelerate", "torchdistill")},
    }
    RESULTS.mkdir(exist_ok=True)
    content = {
        "about": about,
        "rows": rows,
        "growth": {name: slope for name, (_, _, slope) in growth.items()},
        "blocks over formula, by the number of logits": crossing,
    }
    (RESULTS / "table.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draw(growth)
    draw_crossing(crossing)


def in_turns(runs: dict[str, Callable[[], Any]], count: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of each, and what each returned last. In each turn their order is drawn: one pays for the memory
    that the one before it gave back."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    returned, order = {}, random.Random(0)
    for _ in range(count):
        for name in order.sample([*runs], len(runs)):
            started = time.perf_counter()
            returned[name] = runs[name]()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}, returned


def row(work: str, size: str, medians: dict[str, float], goal: float, **more: Any) -> dict[str, Any]:
    peer = min((name for name in medians if name not in ("ours", "by hand")), key=medians.__getitem__)
    return {
        "work": work, "size": size, "ours_ms": 1e3 * medians["ours"], "peer": peer, "peer_ms": 1e3 * medians[peer],
        "ratio": medians["ours"] / medians[peer], "goal": goal, **more,
    }  # fmt: skip


def loss_rows() -> list[dict[str, Any]]:
    rows = []
    for work in loss_works.works():
        student, teacher = loss_works.pair(work.shape)
        contestants = {"ours": work.ours, "by hand": work.by_hand, **work.peers}
        runs = {name: functools.partial(loss_works.once, loss, student, teacher) for name, loss in contestants.items()}
        in_turns(runs, 2)
        medians, _ = in_turns(runs, work.runs)
        more = {}
        if work.shape[1] >= 32000:
            more["memory"] = loss_works.beyond_the_gradient(work.ours, student, teacher)
        found = row(work.name, "×".join(map(str, work.shape)), medians, work.goal, **more)
        rows.append(found | {"by_hand": found["ratio"] * medians["by hand"] / medians["ours"]})
    return rows


def loop_rows() -> list[dict[str, Any]]:
    rows = []
    for work, make, goal, count in (
        ("an epoch of cached KD / supervised", loops.cached_epoch, 1.15, 7),
        ("an epoch of KD on kept views / supervised", loops.viewed_epoch, 1.15, 7),
        ("ten epochs of KD / usual loop", loops.ten_epochs, 0.30, 3),
        ("fit / bare loop", loops.bare_steps, 1.10, 9),
    ):
        runs = make()
        in_turns(runs, 1)
        medians, models = in_turns(runs, count)
        more: dict[str, Any] = {}
        if "bare loop" in models:
            more["weights_differ_by"] = loops.gap(*models.values())
        if "usual loop" in models:
            test = fashion_mnist(labeled=1000).test
            more["test_accuracy"] = {name: evaluate(model, test)["accuracy"] for name, model in models.items()}
        rows.append(row(work, "", medians, goal, **more))
    return rows


def answer_rows() -> list[dict[str, Any]]:
    """A million answers on disk: an epoch of reads beside one from memory, and what is held meanwhile."""
    with kept_answers.reads() as runs:
        in_turns(runs, 1)
        medians, _ = in_turns(runs, 5)
    return [
        row("an epoch of reads from disk / from memory", "1000000×1000", medians, 1.2, held_mib=kept_answers.peaks())
    ]


def grow() -> dict[str, tuple[list[int], list[float], float]]:
    """Sizes, seconds, and the power with which time grows over the last four sizes."""
    teacher = nn.Linear(64, 10)

    def soft(classes: int) -> None:
        loss_works.once(losses.soft_target_loss, *loss_works.pair((256, classes)))

    def relational(batch: int) -> None:
        def both(s: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return losses.rkd_distance_loss(s, t) + losses.rkd_angle_loss(s, t)

        loss_works.once(both, *loss_works.pair((batch, 512)))

    def cached(samples: int) -> None:
        cache(teacher, TensorData(torch.zeros(samples, 64)))

    found = {}
    for name, run, sizes in (
        ("soft targets, in classes", soft, [2**k for k in range(8, 16)]),
        ("RKD, in batch", relational, [16, 32, 64, 128, 256]),
        ("cache, in samples", cached, [2**k for k in range(13, 20)]),
    ):
        medians = []
        for size in sizes:
            run(size)
            medians.append(in_turns({"ours": functools.partial(run, size)}, 7)[0]["ours"])
        found[name] = (sizes, medians, slope(sizes[-4:], medians[-4:]))
    return found


def cross() -> dict[str, dict[int, float]]:
    """The time of a divergence in blocks over that of its formula, for 128 rows of more and more classes."""
    found = {}
    for name, divergence, *more in (
        ("forward KL", divergences.FORWARD_KL),
        ("reverse KL", divergences.REVERSE_KL),
        ("Jensen–Shannon", divergences.JENSEN_SHANNON, 0.5),
        ("decoupled KD", divergences.DECOUPLED, torch.zeros(128, dtype=torch.int64), 1.0, 8.0),
    ):
        found[name] = {}
        for classes in (2**k for k in range(3, 16)):
            runs = loss_works.both_ways(divergence, classes, *more)
            in_turns(runs, 3)
            medians, _ = in_turns(runs, 200 if classes < 500 else 60 if classes < 5000 else 10)
            found[name][128 * classes] = medians["blocks"] / medians["formula"]
    return found


def slope(sizes: list[int], seconds: list[float]) -> float:
    return statistics.linear_regression(list(map(math.log, sizes)), list(map(math.log, seconds))).slope


def draw(growth: dict[str, tuple[list[int], list[float], float]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plots.use_style()
    plt.rcParams["svg.hashsalt"] = "kdft"
    figure, ax = plt.subplots()
    for name, (sizes, seconds, power) in growth.items():
        ax.plot(sizes, [1e3 * second for second in seconds], marker="o", label=f"{name}: power {power:.2f}")
    ax.set(xscale="log", yscale="log", xlabel="size", ylabel="milliseconds")
    ax.legend()
    figure.savefig(RESULTS / "growth.svg", metadata={"Date": None})


def draw_crossing(crossing: dict[str, dict[int, float]]) -> None:
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    for name, ratios in crossing.items():
        ax.plot([*ratios], [*ratios.values()], marker="o", label=name)
    ax.axhline(1, color="grey", linewidth=1)
    ax.axvline(divergences.LARGE, color="grey", linestyle=":")
    ax.set(xscale="log", ylim=(0, None), xlabel="logits", ylabel="time in blocks over the formula's")
    ax.legend()
    figure.savefig(RESULTS / "crossover.svg", metadata={"Date": None})


def shown(row: dict[str, Any]) -> str:
    kept = "met" if row["ratio"] <= row["goal"] and row.get("memory", 0) <= 0.25 else "missed"
    extra = f", {row['memory']:.3f} of the logits beyond the gradient" if "memory" in row else ""
    if "by_hand" in row:
        most = 1.25 * row["goal"]
        extra = f"; by hand {row['by_hand']:.2f}, {most:.2f} {'met' if row['by_hand'] <= most else 'missed'}{extra}"
    if "held_mib" in row:
        extra = ", MiB held: " + ", ".join(f"{work} {size:.0f}" for work, size in row["held_mib"].items())
    if "test_accuracy" in row:
        extra = ", test accuracy " + " and ".join(f"{score:.4f}" for score in row["test_accuracy"].values())
    if "weights_differ_by" in row:
        extra = f", weights differ by {row['weights_differ_by']:.1e}"
    return (
        f"{row['work']} {row['size']}: {row['ours_ms']:.3f} ms, {row['peer']} {row['peer_ms']:.3f} ms, ratio"
        f" {row['ratio']:.2f}, goal {row['goal']:.2f} {kept}{extra}"
    )


def version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
