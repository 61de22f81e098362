"""Make what the page ``book/play.md`` shows: ``make play``, or ``python figures/play.py``; also the still image of the
figure on ``book/what-it-costs.md``, whose numbers are ``benchmarks/what_it_costs.py``'s.

Writes to ``book/_extra/play``: ``data.js``, logits of teacher and student on ten test pictures and numbers from the
recorded results; and the images that stand in where scripts do not run, as the page's own scripts draw them.
``python figures/play.py costs`` first measures again what each model of the last figure stores and how long it takes.
"""

from __future__ import annotations

import base64
import datetime
import io
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy
import torch
from browser import PICTURES, shown
from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from torch import Tensor, nn

from kdft_lib.data import TensorData
from kdft_lib.datasets import FASHION_CLASSES, fashion_mnist
from kdft_lib.experiments import (
    Answering,
    Classical,
    groups,
    hardware,
    mean_interval,
    paired_interval,
    recorded,
)
from kdft_lib.metrics import latency, parameters
from kdft_lib.models import ConvNet, fashion_teacher, load
from kdft_lib.training import predict

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
FOLDER = BOOK / "_extra/play"
STILLS = {"play": ("temperature", "gradients", "patience", "choices", "sizes"), "what-it-costs": ("fits",)}
"""By the page that they stand on."""
SVM, LOGISTIC = "SVM on pixels", "logistic regression on pixels"

sys.path += [str(ROOT / "tools"), str(ROOT / "recipes")]

import bare_page  # noqa: E402
import check_pages  # noqa: E402
import find_browser  # noqa: E402
from both_together import shop  # noqa: E402
from shared import lite0, pixels  # noqa: E402
from vision import TEACHER, WIDTHS  # noqa: E402

# ---- pictures and logits


def pictures(test: TensorData) -> TensorData:
    """Every tenth of the hundred on the page in-your-browser, from the one of which the teacher is least sure."""
    hundred = shown(test)
    confidence = predict(fashion_teacher(), hundred).softmax(dim=1).amax(dim=1)
    return hundred[confidence.argsort()[5::10]]


def png(grey: Tensor) -> str:
    """An image as an address that holds its content."""
    buffer = io.BytesIO()
    Image.fromarray(grey.numpy()).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def answers() -> dict[str, Any]:
    """What the shipped teacher says to the pictures, and the student of the page in-your-browser before and after."""
    chosen = pictures(fashion_mnist(labeled=1000).test)
    assert chosen.targets is not None
    torch.manual_seed(0)
    networks = {
        "before": ConvNet(width=8),
        "teacher": fashion_teacher(),
        "after": load(BOOK / "_extra/browser/student.safetensors"),
    }
    logits = {name: predict(network, chosen).double().numpy().round(4).tolist() for name, network in networks.items()}
    return {
        "classes": FASHION_CLASSES,
        "pictures": [
            {"image": png(grey[0]), "label": int(label), **{name: rows[index] for name, rows in logits.items()}}
            for index, (grey, label) in enumerate(zip(pixels(chosen.inputs), chosen.targets, strict=True))
        ],
    }


# ---- recorded results


def points(scores: Sequence[float]) -> list[float]:
    """Mean over seeds, lower and upper end of its 95 % interval, in percent."""
    return [round(float(end), 4) for end in mean_interval(100 * numpy.asarray(scores))]


def sensitivity() -> dict[str, Any]:
    """Chapter 04: validation accuracy over temperature and weight, and that of labels alone."""
    result = recorded("soft-targets-sensitivity")["temperature and weight"]
    soft = [
        {"temperature": int(at["temperature"]), "weight": at["kd_weight"],
         "accuracy": points(result.validation("soft targets", **at))}
        for at in result.settings["soft targets"]
    ]  # fmt: skip
    return {"labels": points(result.validation("labels")), "soft": soft}


BUDGETS = (400, 1600, 6400)
AUGMENTED = "labels + augmentation"
WAITED = {
    ("labels", "fixed"): "labels",
    ("labels", "views"): AUGMENTED,
    ("own", "views"): "the same view, own teacher",
    ("decisions", "fixed"): "hard targets",
    ("decisions", "views"): "hard targets, the same view",
    ("probabilities", "fixed"): "soft targets, fixed views",
    ("probabilities", "views"): "soft targets, the same view",
}
"""Who answers, and to which pictures: the method of chapter 04."""


def patience() -> dict[str, Any]:
    """Chapter 04: test accuracy over steps, and the difference from labels + augmentation after as many."""
    parts = [[recorded(f"{name}-{n}")[f"{n:,} steps"].test for name in ("patience", "consistency")] for n in BUDGETS]
    after = [spine | beside for spine, beside in parts]

    def gaps(name: str) -> list[list[float]]:
        return [[round(100 * end, 4) for end in paired_interval(test[name], test[AUGMENTED])[:3]] for test in after]

    methods = [
        {
            "teacher": teacher,
            "pictures": pictures,
            "accuracy": [points(test[name]) for test in after],
            "difference": None if name == AUGMENTED else gaps(name),
        }
        for (teacher, pictures), name in WAITED.items()
    ]
    return {"patience": {"budgets": BUDGETS, "methods": methods, "svm": points(after[0]["SVM"])}}


ANSWERS = {
    "rotations": ("start", 1),
    "augmented": ("inputs", 1),
    "54,000 more pictures": ("inputs", 2),
    "soft targets": ("objective", 1),
    "head and biases": ("strategy", 1),
    "head alone": ("strategy", 2),
}
"""Which answer to which choice a method of chapter 02 gives, where it is not the base's."""


def choices() -> dict[str, Any]:
    """Chapter 02: what was measured, by the answers given; and the chapters, by the choices that they work at."""
    record = recorded("concepts-choices")
    runs: list[dict[str, Any]] = []
    for comparison in record.values():
        for name, scores in comparison.test.items():
            parts = name.split(": ")[-1].split(" + ") if name != "base" else []
            if set(parts) <= set(ANSWERS) and not (name == "base" and runs):
                gap = comparison.difference(name)
                difference = None if name == "base" else [round(100 * end, 4) for end in gap[:3]]
                given = dict(ANSWERS[part] for part in parts)
                runs.append({"answers": given, "accuracy": points(scores), "difference": difference})
    baselines = {name: points(record["one at a time"].test[name]) for name in ("SVM", "logistic regression")}
    return {"runs": runs, "baselines": baselines, "chapters": list(chapters())}


def chapters() -> Iterator[dict[str, Any]]:
    """Those that the table of chapter 02 names and the book has, with the choices marked there."""
    cells = nbformat.read(BOOK / "02-concepts.ipynb", as_version=4).cells
    (table,) = [cell.source for cell in cells if "| chapter | start | inputs | objective | strategy |" in cell.source]
    pages = {page[:2]: page for page in check_pages.pages()}
    for line in table.splitlines():
        first, *marks = [cell.strip() for cell in line.strip("|").split("|")]
        if "●" not in marks:
            continue
        works = [name for name, mark in zip(("start", "inputs", "objective", "strategy"), marks, strict=True) if mark]
        for entry in re.sub(r"\{doc\}`(.*?) <.*?>`", r"\1", first).split("·"):
            title = entry.strip()
            if title[:2] in pages:
                yield {"page": f"{pages[title[:2]]}.html", "title": title, "choices": works}


# ---- sizes and times


def measure() -> None:
    """Numbers stored, and the median milliseconds for one picture on one thread, of each model of chapter 13."""
    torch.set_num_threads(1)
    record, splits = recorded("vision")["500 labels"], shop(0)
    models: dict[str, nn.Module] = {f"width {width}": ConvNet(width) for width in WIDTHS} | {TEACHER: lite0()}
    stored = {name: parameters(network) for name, network in models.items()}
    for name, estimator, kept in (
        (SVM, SVC(), ("support_vectors_", "dual_coef_", "intercept_")),
        (LOGISTIC, LogisticRegression(max_iter=1000), ("coef_", "intercept_")),
    ):
        trained = Classical(estimator).but(**record.setting(name)).train(splits, seed=0)
        stored[name] = sum(getattr(trained.model, part).size for part in kept)
        models[name] = Answering(trained)
    took = {
        name: round(latency(model, splits.test.inputs[:1], repeats=200).median, 3) for name, model in models.items()
    }
    today, version = datetime.date.today().isoformat(), torch.__version__.split("+")[0]
    about = {"command": "python figures/play.py costs", "date": today, "hardware": hardware(), "torch": version}
    content = {"about": about, "numbers": stored, "milliseconds": took}
    (FOLDER / "costs.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(content, indent=1))


def sizes() -> dict[str, Any]:
    """Chapter 13: accuracy of each model, what it stores, how long it takes, and the letters of its group."""
    comparison = recorded("vision")["500 labels"]
    costs = json.loads((FOLDER / "costs.json").read_text(encoding="utf-8"))
    letters = groups(comparison.test)
    models = []
    for name, scores in comparison.test.items():
        model, _, kind = name.partition(", ") if name.startswith("width") else (name, "", "other")
        models.append({
            "name": name,
            "kind": kind,
            "kilobytes": 4 * costs["numbers"][model] / 1000,
            "milliseconds": costs["milliseconds"][model],
            "accuracy": points(scores),
            "group": letters[name],
        })  # fmt: skip
    return {"models": models, "hardware": costs["about"]["hardware"], "date": costs["about"]["date"]}


# ---- files


def data() -> dict[str, Any]:
    return {**answers(), "sensitivity": sensitivity(), **patience(), **choices(), **sizes()}


def write_data() -> None:
    """A script, since a page that is opened as a file may load nothing else."""
    fields = "".join(f"  {name}: {json.dumps(value, ensure_ascii=False)},\n" for name, value in data().items())
    head = f"// Written by figures/play.py. {PICTURES}\n"
    (FOLDER / "data.js").write_text(f"{head}const kdftPlayed = {{\n{fields}}};\n", encoding="utf-8")


STACK = Path(__file__).with_name("stack.js").read_text(encoding="utf-8")


def stills(browser: Browser) -> dict[str, str]:
    """Each figure as it is drawn first, 440 pixels wide."""
    drawn: dict[str, str] = {}
    for name, figures in STILLS.items():
        with tempfile.TemporaryDirectory() as folder, browser.new_page(viewport={"width": 456, "height": 800}) as page:
            page.goto(bare_page.write(name, "play", Path(folder)).as_uri())
            drawn |= {figure: f"{page.evaluate(STACK, figure)}\n" for figure in figures}
    return drawn


def main() -> None:
    if "costs" in sys.argv[1:]:
        measure()
    write_data()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser.find())
        for name, drawn in stills(browser).items():
            (FOLDER / f"{name}.svg").write_text(drawn, encoding="utf-8")
        browser.close()


if __name__ == "__main__":
    main()
