"""Make what the page ``book/in-your-browser.md`` runs: ``make student``, under a minute on one thread.

Trains the student with the setting that chapter 04 chose for soft targets with augmentation, and writes to
``book/_extra/browser``: the student as PyTorch has it, with its card; ``data.js``, its weights, the test pictures
and the teacher's logits on them; ``teacher.js``, the teacher's weights, which the page loads when they are needed;
and the image that stands in where scripts do not run. Nothing is chosen on the test set.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kdft_lib import metrics, models, plots
from kdft_lib.data import Splits, TensorData
from kdft_lib.datasets import FASHION_CLASSES, FASHION_NORMALIZATION
from kdft_lib.training import evaluate, predict

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "book/_extra/browser"
PICTURES = "The pictures are Fashion-MNIST's, copyright 2017 Zalando SE, MIT licence."
SEED, TEMPERATURE = 0, 4.0
sys.path.append(str(ROOT / "recipes"))

from shared import pixels, thousand_labels  # noqa: E402
from soft_targets import TEACHER, with_views_as_chosen  # noqa: E402


def train(splits: Splits) -> nn.Module:
    """The student, saved with its card."""
    trained = with_views_as_chosen().train(splits, SEED)
    card = {
        "data": f"{trained.ledger.labels} training images of Fashion-MNIST with labels, drawn with seed {SEED}",
        "data_licence": "MIT, copyright 2017 Zalando SE",
        "teacher": "kdft_lib.models.fashion_teacher",
        "recipe": "figures/browser.py",
        "labels": trained.ledger.labels,
        "steps": trained.ledger.steps,
        "torch": torch.__version__.split("+")[0],
        "parameters": metrics.parameters(trained.model),
        "val_accuracy": evaluate(trained.model, splits.val)["accuracy"],
        "test_accuracy": evaluate(trained.model, splits.test)["accuracy"],
        "licence": "BSD-3-Clause, as the package",
    }
    print(models.save(trained.model, FOLDER / "student.safetensors", card), card, f"{trained.ledger.seconds:.0f} s")
    return trained.model


def shown(test: TensorData) -> TensorData:
    """The first ten test pictures of each class, in the order of the file, class after class."""
    assert test.targets is not None
    return test[torch.cat([torch.nonzero(test.targets == label).flatten()[:10] for label in range(10)])]


def folded(model: nn.Module) -> Tensor:
    """All weights, layer after layer, each batch normalisation folded into the convolution before it."""
    layers: list[Any] = []
    for module in model.eval().modules():
        if isinstance(module, nn.Sequential) and isinstance(module[-1], nn.BatchNorm2d):
            layers.append(fuse_conv_bn_eval(*module))
        elif isinstance(module, nn.Linear):
            layers.append(module)
    return torch.cat([part.detach().flatten() for layer in layers for part in (layer.weight, layer.bias)])


def text(values: Tensor, kind: str) -> str:
    """Numbers as base64 of little-endian bytes, in JavaScript's quotes."""
    return json.dumps(base64.b64encode(values.contiguous().numpy().astype(numpy.dtype(kind)).tobytes()).decode())


def write_scripts(net: nn.Module, pictures: TensorData) -> None:
    """Scripts, since a page that is opened as a file may load nothing else."""
    assert pictures.targets is not None
    fields = {
        "classes": json.dumps(FASHION_CLASSES),
        **dict(zip(("mean", "deviation"), FASHION_NORMALIZATION, strict=True)),
        "labels": json.dumps(pictures.targets.tolist()),
        "teacherLogits": text(predict(TEACHER, pictures), "<f4"),
        "student": text(folded(net), "<f4"),
        "pictures": text(pixels(pictures.inputs), "u1"),
    }
    head = f"// Written by figures/browser.py. {PICTURES}\n"
    body = "".join(f"  {name}: {value},\n" for name, value in fields.items())
    (FOLDER / "data.js").write_text(f"{head}const kdftData = {{\n{body}}};\n", encoding="utf-8")
    head = "// Written by figures/browser.py: the weights of the teacher, in half precision.\n"
    (FOLDER / "teacher.js").write_text(f"{head}kdftData.teacher = {text(folded(TEACHER), '<f2')};\n", encoding="utf-8")


def draw_still(net: nn.Module, pictures: TensorData) -> None:
    """The first picture between the two answers."""
    plots.use_style()
    matplotlib.rcParams["svg.hashsalt"] = "kdft"
    first = pictures[:1]
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.4, 3.4), width_ratios=(1, 1.6), layout="constrained")
    left.imshow(pixels(first.inputs)[0, 0], cmap="gray")
    left.set_axis_off()
    for label, model, color, offset in (("teacher", TEACHER, plots.BLUE, -0.2), ("student", net, plots.VERMILION, 0.2)):
        answer = (predict(model, first)[0] / TEMPERATURE).softmax(dim=-1)
        right.barh(torch.arange(10) + offset, 100 * answer, 0.38, color=color, label=label)
    right.set_yticks(range(10), FASHION_CLASSES)
    right.grid(axis="y", visible=False)
    right.invert_yaxis()
    right.set_xlabel(f"probability at T = {TEMPERATURE:.0f}, %")
    right.legend()
    figure.savefig(FOLDER / "still.svg", metadata={"Date": None, "Creator": None})


def main() -> None:
    """Train and write everything."""
    splits = thousand_labels(SEED)
    net, pictures = train(splits), shown(splits.test)
    write_scripts(net, pictures)
    draw_still(net, pictures)


if __name__ == "__main__":
    main()
