"""The long experiments of chapter 19, recorded."""

from __future__ import annotations

import copy
import functools
import logging
import operator
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from both_together import as_chosen, shop
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from safetensors.torch import save_model
from shared import SVM, pixels, student, thousand_labels, views
from soft_targets import with_views_as_chosen
from torch import Tensor, nn
from torch.nn.utils import prune
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import FASHION_NORMALIZATION
from kdft_lib.experiments import Comparison, Measure, Method, Recipe, Then, Trained, compare, grid, record_all
from kdft_lib.metrics import agreement, latency, parameters
from kdft_lib.models import ConvNet
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import predict

SHOWN = 2000
REFERENCE, ONE_SCALE, CHANNELS = "PyTorch", "static int8, one scale", "static int8, a scale a channel"


class FromPixels(nn.Module):
    """A network with its normalisation: what goes into the file."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.mean, self.deviation = FASHION_NORMALIZATION

    def forward(self, images: Tensor) -> Tensor:
        return self.model((images.float() / 255 - self.mean) / self.deviation)


class Shipped(nn.Module):
    """What was read from a file. No part of it is trained, or knows a mode: what torch.export loads has none."""

    files: Files

    def __init__(self, call: Callable[[Tensor], Tensor], path: Path):
        super().__init__()
        self.call, self.path, self.size = functools.partial(call), path, path.stat().st_size

    def forward(self, images: Tensor) -> Tensor:
        return self.call(images)

    def decided(self, data: TensorData) -> Tensor:
        return answers(self, data).argmax(dim=-1)


@functools.lru_cache(maxsize=4)
def answers(model: Shipped, data: TensorData) -> Tensor:
    """Logits of the pictures of a split."""
    return predict(model, data.with_inputs(pixels(data.inputs)), batch_size=64)


def in_onnxruntime(path: Path) -> Shipped:
    """An ONNX file, on as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Shipped(lambda images: torch.from_numpy(session.run(None, {"pixels": images.numpy()})[0]), path)


class Calibration(CalibrationDataReader):
    """Pictures without labels, in batches of 50."""

    def __init__(self, data: TensorData):
        self.batches = iter([{"pixels": pixels(batch["inputs"]).numpy()} for batch in data.batches(50)])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.batches, None)


class Files:
    """A network of a seed, pictures without labels, and the files made of it so far."""

    def __init__(self, method: Method, folder: Path, splits: Splits, seed: int):
        self.trained, self.unlabeled, self.folder = method.train(splits, seed), splits.transfer, folder / str(seed)
        self.model = FromPixels(self.trained.model).eval()
        self.folder.mkdir()

    @functools.cached_property
    def original(self) -> Shipped:
        save_model(self.trained.model, str(self.folder / "weights.safetensors"))
        return Shipped(self.model, self.folder / "weights.safetensors")

    @functools.cached_property
    def exported(self) -> torch.export.ExportedProgram:
        example = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
        return torch.export.export(self.model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))

    def torch_export(self) -> Shipped:
        torch.export.save(self.exported, self.folder / "exported.pt2")
        return Shipped(torch.export.load(self.folder / "exported.pt2").module(), self.folder / "exported.pt2")

    @functools.cached_property
    def onnx(self) -> Shipped:
        """Without the notes on each node, which name source files."""
        program = torch.onnx.export(
            self.exported, (), dynamo=True, input_names=["pixels"], output_names=["logits"],
            dynamic_shapes=({0: "batch"},), verbose=False,
        )  # fmt: skip
        assert program is not None
        for node in program.model.graph:
            node.metadata_props.clear()
        program.save(self.folder / "float.onnx")
        return in_onnxruntime(self.folder / "float.onnx")

    @functools.cached_property
    def prepared(self) -> Path:
        quant_pre_process(self.onnx.path, self.folder / "prepared.onnx", skip_symbolic_shape=True)
        return self.folder / "prepared.onnx"

    def torchao(self) -> Shipped:
        """Its linear layers alone: other kinds are left as they are."""
        model, path = copy.deepcopy(self.model), self.folder / "torchao.pt"
        quantize_(model, Int8WeightOnlyConfig())
        torch.save(model.state_dict(), path)
        return Shipped(model, path)

    def dynamic(self) -> Shipped:
        quantize_dynamic(self.prepared, self.folder / "dynamic.onnx")
        return in_onnxruntime(self.folder / "dynamic.onnx")

    def static(self, per_channel: bool, pictures: int = 100, spare_first: bool = False) -> Shipped:
        path = self.folder / f"static-{pictures}-{per_channel}-{spare_first}.onnx"
        spared = [node.name for node in onnx.load(self.prepared).graph.node if node.op_type == "Conv"][:spare_first]
        seen = Calibration(self.unlabeled[:pictures])
        quantize_static(self.prepared, path, seen, per_channel=per_channel, nodes_to_exclude=spared)
        return in_onnxruntime(path)


VERSIONS: dict[str, Callable[[Files], Shipped]] = {
    REFERENCE: operator.attrgetter("original"),
    "torch.export": Files.torch_export,
    "ONNX": operator.attrgetter("onnx"),
    "torchao, int8 weights": Files.torchao,
    "dynamic int8": Files.dynamic,
    ONE_SCALE: functools.partial(Files.static, per_channel=False),
    "one scale, first layer float": functools.partial(Files.static, per_channel=False, spare_first=True),
    CHANNELS: functools.partial(Files.static, per_channel=True),
    "a scale a channel, first layer float": functools.partial(Files.static, per_channel=True, spare_first=True),
    "a scale a channel, 10 pictures": functools.partial(Files.static, per_channel=True, pictures=10),
    "a scale a channel, 1 picture": functools.partial(Files.static, per_channel=True, pictures=1),
}


@dataclass(frozen=True)
class Ship:
    """One kind of file of a network that is trained once for each seed; its seconds are those of the file."""

    files: Callable[[Splits, int], Files]
    version: Callable[[Files], Shipped]

    def train(self, splits: Splits, seed: int) -> Trained:
        files = self.files(splits, seed)
        started = time.perf_counter()
        shipped = self.version(files)
        shipped.files, seconds = files, time.perf_counter() - started
        return files.trained.but(model=shipped, decides=shipped.decided, seconds=seconds)


def against(measure: Callable[[Tensor, Tensor], float], trained: Trained, splits: Splits) -> float:
    """Of a file's logits and those of the network in PyTorch."""
    return measure(answers(trained.model, splits.test), answers(trained.model.files.original, splits.test))


def timed(batch: int, repeats: int, wanted: str, trained: Trained, splits: Splits) -> float:
    """Milliseconds of a call, of so many calls."""
    return getattr(latency(trained.model, pixels(splits.test.inputs[:batch]), repeats=repeats), wanted)


MEASURES: dict[str, Measure] = {
    "agreement": functools.partial(against, agreement),
    "largest difference": functools.partial(against, lambda ours, theirs: (ours - theirs).abs().max().item()),
    "bytes": lambda trained, splits: trained.model.size,
    "ms, batch 1": functools.partial(timed, 1, 200, "median"),
    "ms, batch 1, 95th percentile": functools.partial(timed, 1, 200, "percentile95"),
    "ms, batch 64": functools.partial(timed, 64, 50, "median"),
}


def shipped(method: Method, splits: Callable[[int], Splits]) -> Comparison:
    """Every kind of file of one network, against the network in PyTorch."""
    with tempfile.TemporaryDirectory() as folder:
        files = functools.lru_cache(maxsize=1)(functools.partial(Files, method, Path(folder)))
        methods = {name: Ship(files, version) for name, version in VERSIONS.items()}
        contrasts = [(CHANNELS, REFERENCE), (CHANNELS, ONE_SCALE), ("one scale, first layer float", ONE_SCALE)]
        return compare(methods, splits, reference=REFERENCE, contrasts=contrasts, measures=MEASURES, keep=False)


def five_hundred(seed: int) -> Splits:
    """Chapter 10's labels; 2,000 test pictures, since Lite0 takes its time."""
    return shop(seed)._replace(test=shop(seed).test[:SHOWN])


def ship() -> dict[str, Comparison]:
    """What files of chapter 10's Lite0 and of chapter 04's student, as chosen there, weigh, take and answer."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger().setLevel(logging.ERROR)
    return {"Lite0": shipped(as_chosen(), five_hundred), "student": shipped(with_views_as_chosen(), thousand_labels)}


LARGE = Recipe(functools.partial(ConvNet, 16), Supervised, FullFineTuning(lr=0.1), steps=800, augment=views(1))
SMALL = LARGE.but(model=student, steps=400)
BY_NORM = "channels pruned by norm"
tried = functools.partial(grid, lr=(0.01, 0.03, 0.1, 0.3), weight_decay=0.1)


def better_half(by: str, trained: Trained, splits: Splits, seed: int) -> Trained:
    """Of each convolution's channels, and all that reads or scales them: by the sum of a filter's absolute weights
    (Li et al., 2017), by the factor in its batch normalisation (Liu et al., 2017), or by chance.
    """
    small, generator, before = student(), torch.Generator().manual_seed(seed), torch.arange(1)
    given, wanted = trained.model.state_dict(), small.state_dict()
    for layer in ("body.0", "body.2", "body.4"):
        filters, scales = given[f"{layer}.0.weight"], given[f"{layer}.1.weight"]
        by_chance = torch.rand(len(scales), generator=generator)
        scores = {"norm": filters.abs().sum(dim=(1, 2, 3)), "scale": scales.abs(), "chance": by_chance}[by]
        kept = scores.topk(len(scores) // 2).indices.sort().values
        wanted[f"{layer}.0.weight"] = filters[kept][:, before]
        for name in ("weight", "bias", "running_mean", "running_var"):
            wanted[f"{layer}.1.{name}"] = given[f"{layer}.1.{name}"][kept]
        before = kept
    wanted |= {"head.weight": given["head.weight"][:, before], "head.bias": given["head.bias"]}
    small.load_state_dict(wanted)
    return trained.but(model=small)


def single_weights(trained: Trained, *_: Any) -> Trained:
    """As many weights other than zero as a ConvNet of width 8 has."""
    cut = copy.deepcopy(trained.model)
    layers = [(module, "weight") for module in cut.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with torch.no_grad():  # Masked with a gradient, weights could not be copied.
        prune.global_unstructured(layers, prune.L1Unstructured, amount=parameters(cut) - parameters(student()))
    return trained.but(model=cut)


def pruning() -> dict[str, Comparison]:
    """6,274 weights, 1,000 labels, views, four rates for each arm: cut out of a network of 24,058 that had 800
    steps and trained 400 more, taught by it for 400, or trained alone for 400 or for all 1,200.
    """
    large = compare({"width 16": tried(LARGE)}, thousand_labels)
    whole = large.source("width 16")
    halves = {f"channels pruned by {by}": functools.partial(better_half, by) for by in ("norm", "scale", "chance")}
    starts = {name: Then(whole, half) for name, half in halves.items()}
    starts["single weights pruned"] = Then(whole, single_weights)
    methods = {
        "width 8, 400 steps": tried(SMALL),
        "width 8, 1,200 steps": tried(SMALL.but(steps=1200)),
        **{name: tried(SMALL.but(start=start)) for name, start in starts.items()},
        "width 8, distilled": tried(SMALL.taught_by(whole, SoftTargets)),
        "pruned by norm, distilled": tried(SMALL.but(start=starts[BY_NORM]).taught_by(whole, SoftTargets)),
        "SVM on pixels": grid(SVM, C=(1.0, 5.0, 20.0, 50.0)),
    }
    patient, briefly = "width 8, 1,200 steps", "width 8, 400 steps"
    rivals = [*(name for name in methods if "pruned" in name), "SVM on pixels"]
    contrasts = [*((name, patient) for name in rivals), (BY_NORM, briefly), (BY_NORM, "channels pruned by chance")]
    contrasts += [("width 8, distilled", briefly), ("pruned by norm, distilled", BY_NORM)]
    same_size = compare(methods, thousand_labels, reference=patient, contrasts=contrasts, equal_budgets=False)
    same_size.measured["before fine-tuning"] = compare(starts, thousand_labels).test
    return {"same size": same_size, "large": large}


EXPERIMENTS = {"ship-it": ship, "ship-it-pruning": pruning}

if __name__ == "__main__":
    record_all(EXPERIMENTS)
