"""The long experiments of chapter 16, recorded: ``make results``.

``python recipes/ship_it.py`` runs both of them; names after it run those alone.
"""

from __future__ import annotations

import copy
import functools
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from recording import lite0, main, student, views
from safetensors.torch import save_model
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn.utils import prune
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import FASHION_NORMALIZATION, fashion_mnist
from kdft_lib.experiments import Classical, Comparison, Method, Recipe, Trained, compare
from kdft_lib.metrics import agreement, latency, parameters
from kdft_lib.models import ConvNet, fashion_teacher
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import evaluate, predict

SEEDS = range(5)
SHOWN = 2000
REFERENCE = "PyTorch"
STATIC = "static int8, a scale a channel"
IMAGENET = "ImageNet, 1.3 million labels"
FOLDER = Path(tempfile.mkdtemp(prefix="kdft-ship-"))


def pixels(data: TensorData) -> TensorData:
    """The pictures as they were before normalisation, from 0 to 255."""
    mean, deviation = FASHION_NORMALIZATION
    return data.with_inputs(((data.inputs * deviation + mean) * 255).round().to(torch.uint8))


class FromPixels(nn.Module):
    """A network with its normalisation: what goes into the file."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.mean, self.deviation = FASHION_NORMALIZATION

    def forward(self, images: Tensor) -> Tensor:
        """Logits of pixels from 0 to 255."""
        return self.model((images.float() / 255 - self.mean) / self.deviation)


class Shipped(nn.Module):
    """What was read from a file, with the file's size; asked once about the same pictures."""

    def __init__(self, call: Callable[[Tensor], Tensor], size: int):
        super().__init__()
        self.call, self.size = call, size
        self.known: tuple[Any, Tensor] | None = None

    def forward(self, images: Tensor) -> Tensor:
        return self.call(images)

    def answers(self, data: TensorData) -> Tensor:
        """Logits of the pictures of a split."""
        if self.known is None or self.known[0] is not data:
            self.known = data, predict(self, pixels(data), batch_size=64)
        return self.known[1]


def session(path: Path) -> Shipped:
    """An ONNX file in onnxruntime, on as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Shipped(
        lambda images: torch.from_numpy(opened.run(None, {"pixels": images.numpy()})[0]), path.stat().st_size
    )


def in_pytorch(model: nn.Module, size: int) -> Shipped:
    """A module, called without gradient."""
    return Shipped(lambda images: model(images), size)


class Calibration(CalibrationDataReader):
    """So many pictures without labels, in batches of 50."""

    def __init__(self, data: TensorData):
        self.batches = iter([{"pixels": batch["inputs"].numpy()} for batch in pixels(data).batches(50)])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.batches, None)


@dataclass
class Files:
    """A network of a seed, the splits it was trained on, and the files made of it so far."""

    trained: Trained
    splits: Splits
    name: str

    def __post_init__(self) -> None:
        self.model = FromPixels(self.trained.model).eval()
        self.original = in_pytorch(self.model, 0)

    def path(self, ending: str) -> Path:
        return FOLDER / f"{self.name}{ending}"

    def eager(self) -> Shipped:
        path = self.path(".safetensors")
        save_model(self.trained.model, str(path))
        return in_pytorch(self.model, path.stat().st_size)

    @functools.cached_property
    def exported(self) -> torch.export.ExportedProgram:
        example = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
        return torch.export.export(self.model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))

    def torch_export(self) -> Shipped:
        path = self.path(".pt2")
        torch.export.save(self.exported, path)
        return in_pytorch(torch.export.load(path).module(), path.stat().st_size)

    @functools.cached_property
    def onnx_path(self) -> Path:
        """Without the notes on each node, which name source files."""
        program = torch.onnx.export(
            self.exported, (), dynamo=True, input_names=["pixels"], output_names=["logits"],
            dynamic_shapes=({0: "batch"},), verbose=False,
        )  # fmt: skip
        assert program is not None
        for node in program.model.graph:
            node.metadata_props.clear()
        program.save(self.path(".onnx"))
        return self.path(".onnx")

    def in_onnx(self) -> Shipped:
        return session(self.onnx_path)

    @functools.cached_property
    def prepared(self) -> Path:
        quant_pre_process(self.onnx_path, self.path("-prepared.onnx"), skip_symbolic_shape=True)
        return self.path("-prepared.onnx")

    def dynamic(self) -> Shipped:
        quantize_dynamic(self.prepared, self.path("-dynamic.onnx"))
        return session(self.path("-dynamic.onnx"))

    def static(self, pictures: int, per_channel: bool, spare_first: bool = False) -> Shipped:
        path = self.path(f"-static-{pictures}-{per_channel}-{spare_first}.onnx")
        convolutions = [node.name for node in onnx.load(self.prepared).graph.node if node.op_type == "Conv"]
        quantize_static(
            self.prepared, path, Calibration(self.splits.transfer[:pictures]), per_channel=per_channel,
            nodes_to_exclude=convolutions[:spare_first],
        )  # fmt: skip
        return session(path)

    def torchao(self) -> Shipped:
        """Its linear layers alone: other kinds are left as they are."""
        model, path = copy.deepcopy(self.model), self.path("-torchao.pt")
        quantize_(model, Int8WeightOnlyConfig())
        torch.save(model.state_dict(), path)
        return in_pytorch(model, path.stat().st_size)


VERSIONS: dict[str, Callable[[Files], Shipped]] = {
    REFERENCE: Files.eager,
    "torch.export": Files.torch_export,
    "ONNX": Files.in_onnx,
    "torchao, int8 weights": Files.torchao,
    "dynamic int8": Files.dynamic,
    "static int8, one scale": lambda files: files.static(100, per_channel=False),
    "one scale, first layer float": lambda files: files.static(100, per_channel=False, spare_first=True),
    STATIC: lambda files: files.static(100, per_channel=True),
    "a scale a channel, first layer float": lambda files: files.static(100, per_channel=True, spare_first=True),
    "a scale a channel, 10 pictures": lambda files: files.static(10, per_channel=True),
    "a scale a channel, 1 picture": lambda files: files.static(1, per_channel=True),
}


@dataclass
class Ship:
    """Train once for each seed, then make one kind of file."""

    files: Callable[[int], Files]
    version: Callable[[Files], Shipped]

    def train(self, splits: Splits, seed: int) -> Trained:
        files = self.files(seed)
        started = time.perf_counter()
        shipped = self.version(files)
        shipped.original = files.original
        ledger = files.trained.ledger | {"seconds": time.perf_counter() - started}
        return Trained(lambda data: shipped.answers(data).argmax(dim=-1), ledger, shipped)


def timed(batch: int, wanted: str) -> Callable[[Trained, Splits], float]:
    """Milliseconds of a call; 200 calls, or fewer where those take more than two seconds."""

    def measure(trained: Trained, splits: Splits) -> float:
        images = pixels(splits.test[:batch]).inputs
        first = latency(trained.model, images, repeats=2).median
        repeats = int(min(200, max(20, 2000 / first)))
        return getattr(latency(trained.model, images, repeats=repeats), wanted)

    return measure


def shipped(files: Callable[[int], Files], splits: Callable[[int], Splits]) -> Comparison:
    """Every kind of file of one network, against the network in PyTorch."""

    def against(measure: Callable[[Tensor, Tensor], float]) -> Callable[[Trained, Splits], float]:
        return lambda trained, parts: measure(
            trained.model.answers(parts.test), trained.model.original.answers(parts.test)
        )

    return compare(
        {name: Ship(files, version) for name, version in VERSIONS.items()},
        splits,
        seeds=SEEDS,
        reference=REFERENCE,
        measures={
            "agreement": against(agreement),
            "largest difference": against(lambda ours, theirs: (ours - theirs).abs().max().item()),
            "bytes": lambda trained, _: trained.model.size,
            "ms, batch 1": timed(1, "median"),
            "ms, batch 1, 95th percentile": timed(1, "percentile95"),
            "ms, batch 64": timed(64, "median"),
        },
        progress=True,
    )


FINE_TUNED = Recipe(
    lite0, Supervised(), FullFineTuning(3e-3), steps=120, batch_size=32, pretraining=IMAGENET
)  # fmt: skip
DISTILLED = Recipe(
    student, SoftTargets(fashion_teacher()), FullFineTuning(0.3, weight_decay=0.01), steps=400, augment=views(1)
)


@functools.cache
def five_hundred(seed: int) -> Splits:
    """As in chapter 10: 400 labels to train, 100 to choose; 2,000 test pictures, since Lite0 takes its time."""
    splits = fashion_mnist(500, validation="within", seed=seed)
    return splits._replace(test=splits.test[:SHOWN])


@functools.cache
def thousand(seed: int) -> Splits:
    """As in chapter 04."""
    return fashion_mnist(1000, seed=seed)


@functools.cache
def large_files(seed: int) -> Files:
    """Chapter 10's Lite0, at the rate chosen there."""
    splits = five_hundred(seed)
    return Files(FINE_TUNED.train(splits, seed), splits, f"lite0-{seed}")


@functools.cache
def small_files(seed: int) -> Files:
    """Chapter 04's student, taught with views, at the setting chosen there."""
    splits = thousand(seed)
    return Files(DISTILLED.train(splits, seed), splits, f"student-{seed}")


def ship() -> dict[str, Comparison]:
    """Files of a large network and of a small one: what they weigh, how fast they are, how they answer."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger().setLevel(logging.ERROR)
    return {"Lite0": shipped(large_files, five_hundred), "student": shipped(small_files, thousand)}


RATES = (0.01, 0.03, 0.1, 0.3)
STEPS_LARGE, STEPS_AFTER = 800, 400
CONVOLUTIONS = (0, 2, 4)
LARGE = Recipe(
    functools.partial(ConvNet, 16), Supervised(), FullFineTuning(0.1), steps=STEPS_LARGE, augment=views(1)
)  # fmt: skip
SMALL = LARGE.but(model=student, steps=STEPS_AFTER)


def rated(recipe: Recipe) -> list[Recipe]:
    """A recipe for each rate."""
    return [recipe.but(strategy=FullFineTuning(rate, weight_decay=0.1)) for rate in RATES]


@functools.cache
def large_ones() -> Comparison:
    """The networks that are pruned or teach."""
    return compare({"width 16": rated(LARGE)}, thousand, seeds=SEEDS, progress=True)


def large(seed: int) -> nn.Module:
    """Of the rate that was chosen."""
    model: nn.Module = large_ones().trained["width 16"][seed].model
    model.card = {"labels": 1000}  # type: ignore[assignment]
    return model


def narrowed(model: nn.Module, kept: list[Tensor]) -> ConvNet:
    """A ConvNet with some channels of each convolution alone, and of all that reads or scales them."""
    small = ConvNet(width=len(kept[0]))
    given, wanted = model.state_dict(), small.state_dict()
    before = torch.arange(1)
    for place, rows in zip(CONVOLUTIONS, kept, strict=True):
        for name in ("weight", "bias", "running_mean", "running_var"):
            wanted[f"body.{place}.1.{name}"] = given[f"body.{place}.1.{name}"][rows]
        wanted[f"body.{place}.0.weight"] = given[f"body.{place}.0.weight"][rows][:, before]
        before = rows
    wanted |= {"head.weight": given["head.weight"][:, before], "head.bias": given["head.bias"]}
    small.load_state_dict(wanted)
    return small


def channels(by: str, seed: int) -> nn.Module:
    """The large network with the better half of each convolution's channels: by the sum of a filter's absolute
    weights (Li et al., 2017), by the factor in its batch normalisation (Liu et al., 2017), or by chance.
    """
    model, generator = large(seed), torch.Generator().manual_seed(seed)
    weights, kept = model.state_dict(), []
    for place in CONVOLUTIONS:
        scales = weights[f"body.{place}.1.weight"]
        scores = {
            "norm": weights[f"body.{place}.0.weight"].abs().sum(dim=(1, 2, 3)),
            "scale": scales.abs(),
            "chance": torch.rand(len(scales), generator=generator),
        }[by]
        kept.append(scores.topk(len(scores) // 2).indices.sort().values)
    return narrowed(model, kept)


def single_weights(seed: int) -> nn.Module:
    """The large network with as many weights other than zero as a ConvNet of width 8 has."""
    model = copy.deepcopy(large(seed))
    layers = [(module, "weight") for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=parameters(model) - parameters(student()))
    return model


class AfterLarge:
    """Training that starts from the large network or learns from it; its ledger holds the large one's too."""

    def __init__(self, recipe: Recipe, start: Callable[[int], nn.Module] | None, taught: bool):
        self.recipe, self.start, self.taught = recipe, start, taught

    def train(self, splits: Splits, seed: int) -> Trained:
        changes: dict[str, Any] = {"objective": SoftTargets(large(seed))} if self.taught else {}
        if self.start is not None:
            changes["model"] = functools.partial(self.start, seed)
        trained = self.recipe.but(**changes).train(splits, seed)
        before = large_ones().trained["width 16"][seed].ledger
        trained.ledger |= {cost: trained.ledger[cost] + before[cost] for cost in ("steps", "seconds")}
        return trained


def after_large(start: Callable[[int], nn.Module] | None, taught: bool = False) -> list[Method]:
    """A run for each rate."""
    return [AfterLarge(recipe, start, taught) for recipe in rated(SMALL)]


STARTS: Mapping[str, Callable[[int], nn.Module]] = {
    "channels pruned by norm": functools.partial(channels, "norm"),
    "channels pruned by scale": functools.partial(channels, "scale"),
    "channels pruned by chance": functools.partial(channels, "chance"),
    "single weights pruned": single_weights,
}


def pruning() -> dict[str, Comparison]:
    """6,274 weights, 1,000 labels, views, four rates for each arm: cut out of a network of 24,058 that had 800
    steps and trained 400 more, taught by it for 400, or trained alone for 400 or for all 1,200.
    """
    same_size = compare(
        {
            "width 8, 400 steps": rated(SMALL),
            "width 8, 1,200 steps": rated(SMALL.but(steps=STEPS_LARGE + STEPS_AFTER)),
            **{name: after_large(start) for name, start in STARTS.items()},
            "width 8, distilled": after_large(None, taught=True),
            "pruned by norm, distilled": after_large(STARTS["channels pruned by norm"], taught=True),
            "SVM on pixels": [Classical(SVC(C=c)) for c in (1.0, 5.0, 20.0, 50.0)],
        },
        thousand,
        seeds=SEEDS,
        reference="width 8, 1,200 steps",
        equal_budgets=False,
        progress=True,
    )
    same_size.measured["before fine-tuning"] = {
        name: [evaluate(start(seed), thousand(seed).test)["accuracy"] for seed in SEEDS]
        for name, start in STARTS.items()
    }
    return {"same size": same_size, "large": large_ones()}


if __name__ == "__main__":
    main({"ship-it": ship, "ship-it-pruning": pruning})
