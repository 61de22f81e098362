"""The page of figures to play with, in a Chromium: what it shows, and what a reader does with it."""

from __future__ import annotations

import ast
import base64
import io
import itertools
import json
import math
import re
import sys
from pathlib import Path

import numpy
import pytest
import torch
from browsers import Reader, given_fields, resize, served, visits
from PIL import Image
from playwright.sync_api import expect
from torch import nn

import kdft_lib
from kdft_lib.datasets import FASHION_CLASSES, FASHION_NORMALIZATION
from kdft_lib.experiments import groups, recorded
from kdft_lib.metrics import parameters
from kdft_lib.models import ConvNet, fashion_teacher, load
from kdft_lib.objectives import SoftTargets

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "book/play.md"
FOLDER = ROOT / "book/_extra/play"
BUILT = ROOT / "_build/html/play.html"
FIGURES = ("temperature", "gradients", "patience", "choices", "sizes")
CHOICES = ("start", "inputs", "objective", "strategy")
WIDTHS = (1280, 768, 360, 320)
ON_PHONE = {"has_touch": True, "is_mobile": True, "viewport": {"width": 360, "height": 740}}
TOLERANCE = 1e-3
"""Of shares and gradients: logits are stored to four digits, places on the screen to a hundredth of a pixel."""
sys.path[:0] = [str(ROOT / folder) for folder in ("tools", "recipes", "figures")]

import bare_page  # noqa: E402
import check_pages  # noqa: E402
import play  # noqa: E402


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the figures on a page of their own, and the pages of the book, empty."""
    folder = tmp_path_factory.mktemp("site")
    bare_page.write("play", "play", folder)
    for name in check_pages.pages():
        page = folder / f"{name}.html"
        page.parent.mkdir(exist_ok=True)
        page.write_text(f'<link rel="icon" href="data:,"><title>{name}</title>', encoding="utf-8")
    return folder


class Player(Reader):
    """Someone who moves what can be moved."""

    def figure(self, name):
        return self.page.locator(f"#kdft-{name}")

    def panel(self, figure, name):
        return self.figure(figure).locator(f"svg.{name}")

    def said(self, figure):
        """The sentence under a figure."""
        return self.figure(figure).get_by_role("status")

    def numbers(self, panel, key, attribute):
        """An attribute of the marks key-0 to key-9."""
        read = "(marks, name) => marks.map((mark) => +mark.getAttribute(name))"
        marks = panel.locator(f"[data-key^={key}-]")
        assert marks.count() == 10
        return torch.tensor(marks.evaluate_all(read, attribute), dtype=torch.float64)

    def texts(self, panel, key):
        texts = panel.locator(f"[data-key^={key}-]").all_text_contents()
        return torch.tensor([float(text.replace("−", "-").removesuffix("\u00a0%")) for text in texts]).double()

    def tap(self, slider, share):
        """With a finger, at a share of the slider's length."""
        box = slider.bounding_box()
        slider.tap(position={"x": 8 + share * (box["width"] - 16), "y": box["height"] / 2})


@pytest.fixture
def visit(chromium, site):
    with visits(chromium, site / "page.html", Player) as visit:
        yield visit


@pytest.fixture(scope="module")
def stored():
    """What the page's scripts are given."""
    return given_fields(FOLDER / "data.js")


@pytest.fixture(scope="module")
def ten(fashion):
    """The ten pictures, chosen again, and the teacher's logits."""
    places = torch.cat([torch.nonzero(fashion.test.targets == label).flatten()[:10] for label in range(10)])
    hundred = fashion.test[places]
    logits = answers(fashion_teacher(), hundred)
    order = logits.softmax(1).amax(1).argsort()[5::10]
    return hundred[order], logits[order]


def answers(model, data):
    with torch.no_grad():
        return model.eval()(data.inputs)


def points(scores):
    return 100 * float(numpy.mean(scores))


# ---- what it is given


def test_the_pictures_and_logits_are_those_of_the_shipped_networks(stored, ten):
    data, teacher = ten
    mean, deviation = FASHION_NORMALIZATION
    torch.manual_seed(0)
    wanted = {"before": answers(ConvNet(8), data), "teacher": teacher}
    wanted["after"] = answers(load(ROOT / "book/_extra/browser/student.safetensors"), data)
    assert stored["classes"] == list(FASHION_CLASSES)
    assert [picture["label"] for picture in stored["pictures"]] == data.targets.tolist()
    for name, logits in wanted.items():
        given = torch.tensor([picture[name] for picture in stored["pictures"]])
        torch.testing.assert_close(given, logits, atol=2e-4, rtol=0)
    for picture, inputs in zip(stored["pictures"], data.inputs[:, 0], strict=True):
        content = base64.b64decode(picture["image"].removeprefix("data:image/png;base64,"))
        grey = torch.from_numpy(numpy.array(Image.open(io.BytesIO(content))))
        torch.testing.assert_close((grey / 255 - mean) / deviation, inputs)


def test_the_students_accuracies_are_chapter_04s(stored):
    val = recorded("soft-targets-sensitivity")["temperature and weight"].val
    settings = itertools.product((1, 2, 4, 8, 16), (0.1, 0.5, 0.9, 1.0))
    for given, wanted, scores in zip(stored["sensitivity"]["soft"], settings, val["soft targets"], strict=True):
        assert (given["temperature"], given["weight"]) == wanted
        assert given["accuracy"][0] == pytest.approx(points(scores), abs=1e-4)
    assert stored["sensitivity"]["labels"][0] == pytest.approx(points(val["labels"][0]), abs=1e-4)


def test_what_patience_buys_is_chapter_04s(stored):
    waited = stored["patience"]
    records = {}
    for steps in waited["budgets"]:
        spine, beside = (recorded(f"{name}-{steps}")[f"{steps:,} steps"].test for name in ("patience", "consistency"))
        records[steps] = spine | beside
    assert list(records) == [400, 1600, 6400]
    by = {(method["teacher"], method["pictures"]): method for method in waited["methods"]}
    names = {
        ("labels", "fixed"): "labels",
        ("labels", "views"): "labels + augmentation",
        ("own", "views"): "the same view, own teacher",
        ("decisions", "fixed"): "hard targets",
        ("decisions", "views"): "hard targets, the same view",
        ("probabilities", "fixed"): "soft targets, fixed views",
        ("probabilities", "views"): "soft targets, the same view",
    }
    assert by.keys() == names.keys()
    for answered, name in names.items():
        for place, test in enumerate(records.values()):
            assert by[answered]["accuracy"][place][0] == pytest.approx(points(test[name]), abs=1e-3)
            if by[answered]["difference"]:
                gap = points(numpy.subtract(test[name], test["labels + augmentation"]))
                assert by[answered]["difference"][place][0] == pytest.approx(gap, abs=1e-3)
    assert [answered for answered, method in by.items() if method["difference"] is None] == [("labels", "views")]
    rising = {answered: method["accuracy"][2][0] - method["accuracy"][0][0] for answered, method in by.items()}
    assert rising.pop(("probabilities", "views")) > 2 * max(rising.values())


def test_the_choices_are_chapter_02s(stored):
    record = recorded("concepts-choices")
    singles, pairs = record["one at a time"], record["two at a time"]
    words = {
        "rotations": {"start": 1}, "augmented": {"inputs": 1}, "54,000 more pictures": {"inputs": 2},
        "soft targets": {"objective": 1}, "head and biases": {"strategy": 1}, "head alone": {"strategy": 2},
    }  # fmt: skip
    found = {json.dumps(run["answers"], sort_keys=True): run for run in stored["runs"]}
    assert len(found) == len(stored["runs"]) == 11
    for comparison in (singles, pairs):
        for name, scores in comparison.test.items():
            if name in stored["baselines"]:
                assert stored["baselines"][name][0] == pytest.approx(points(scores), abs=1e-4)
                continue
            given = [words[part] for part in name.split(": ")[-1].split(" + ") if part != "base"]
            run = found[json.dumps({key: value for part in given for key, value in part.items()}, sort_keys=True)]
            assert run["accuracy"][0] == pytest.approx(points(scores), abs=1e-4)
            if name != "base":
                gap = comparison.difference(name)
                assert run["difference"] == pytest.approx([100 * end for end in gap[:3]], abs=1e-4)


def test_the_models_are_chapter_12s(stored):
    comparison = recorded("vision")["500 labels"]
    costs = json.loads((FOLDER / "costs.json").read_text(encoding="utf-8"))
    letters = groups(comparison.test)
    assert [model["name"] for model in stored["models"]] == list(comparison.test)
    for model in stored["models"]:
        name, kind = model["name"].split(", ") if model["name"].startswith("width") else (model["name"], "other")
        assert (model["kind"], model["group"]) == (kind, letters[model["name"]])
        assert model["accuracy"][0] == pytest.approx(points(comparison.test[model["name"]]), abs=1e-4)
        assert model["kilobytes"] == 4 * costs["numbers"][name] / 1000
        assert model["milliseconds"] == costs["milliseconds"][name]
        if name.startswith("width"):
            assert costs["numbers"][name] == parameters(ConvNet(int(name.removeprefix("width "))))
    times = costs["milliseconds"]
    assert max(times, key=times.get) == "Lite0, fine-tuned"
    assert costs["about"]["command"] == "python figures/play.py costs"
    assert "1 thread" in costs["about"]["hardware"]


def test_the_map_has_the_chapters_that_work_at_a_choice(stored):
    """A chapter that was added to the book, or to the table of chapter 02, asks for `make play`."""
    assert stored["chapters"] == list(play.chapters())
    pages = [chapter["page"].removesuffix(".html") for chapter in stored["chapters"]]
    assert pages == [page for page in check_pages.pages() if page in pages]
    assert {"03-hard-targets", "10-both-together", "13-vision"} < set(pages)
    works = {chapter["page"]: chapter["choices"] for chapter in stored["chapters"]}
    assert works["04-soft-targets.html"] == ["objective"]
    assert works["07-frozen-backbone.html"] == ["start", "strategy"]


def test_the_stills_are_what_the_page_draws(chromium):
    for name, drawn in play.stills(chromium).items():
        assert (FOLDER / f"{name}.svg").read_text(encoding="utf-8") == drawn, f"{name}: make play"


def test_the_page_says_what_was_measured(stored, ten):
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    data, teacher = ten
    assert teacher.softmax(1).amax(1)[5:].min() >= 0.998 - 5e-4
    assert "of the last five pictures the teacher is at least 99.8 % sure" in text
    assert [FASHION_CLASSES[index] for index in (data.targets[1], teacher[1].argmax())] == ["coat", "pullover"]
    pulls = {}
    for state, temperature in itertools.product(("before", "after"), (1, 2, 4, 8, 16)):
        student = torch.tensor([picture[state] for picture in stored["pictures"]])
        label = (student.softmax(1) - nn.functional.one_hot(data.targets, 10)).norm(dim=1)
        of_teacher = temperature * ((student / temperature).softmax(1) - (teacher / temperature).softmax(1))
        pulls[state, temperature] = label, of_teacher.norm(dim=1)
    ratios = torch.stack([pulls["before", t][1] / pulls["before", t][0] for t in (1, 2, 4, 8, 16)])
    assert ratios.min() > 1 / 4
    assert ratios.max() < 4
    assert "T² keeps the teacher's pull within a factor of four of the label's" in text
    label, of_teacher = pulls["after", 4]
    assert (label[5:] < 0.02).all()
    assert (of_teacher[5:] > 0.1).all()
    runs = {tuple(run["answers"].items()): run["accuracy"][0] for run in stored["runs"]}
    gain = runs[("start", 1), ("strategy", 2)] - runs[(("strategy", 2),)]
    assert f"{gain:.1f} points where only the head may move" in text
    assert abs(runs[(("start", 1),)] - runs[()]) < 0.5
    assert f"Eleven of the {2 * 3 * 2 * 3} combinations were measured" in text


def test_the_alternatives_to_the_stills_say_what_they_show(stored):
    """Numbers in the alternative text are those of the figure's first state."""
    html = PAGE.read_text(encoding="utf-8")
    said = {name: re.search(rf'<img src="play/{name}.svg"[^>]* alt="([^"]+)"', html)[1] for name in FIGURES}
    for name in FIGURES:
        size = re.search(r'width="(\d+)" height="(\d+)"', (FOLDER / f"{name}.svg").read_text(encoding="utf-8"))
        assert f'<img src="play/{name}.svg" {size[0]} ' in html
    shirt = torch.tensor(stored["pictures"][3]["teacher"]).div(4).softmax(0).sort(descending=True)
    for share, place in zip(shirt.values[:3], shirt.indices[:3], strict=True):
        assert f"{FASHION_CLASSES[place]} {100 * share:.1f} %" in said["temperature"]
    assert shirt.values[3] < 0.04
    soft = {(row["temperature"], row["weight"]): row["accuracy"][0] for row in stored["sensitivity"]["soft"]}
    labels = stored["sensitivity"]["labels"][0]
    assert f"at temperature 1 it is {soft[1, 0.9]:.1f} %, at 4 it is {soft[4, 0.9]:.1f} %" in said["temperature"]
    assert f"with labels alone {labels:.1f} %" in said["temperature"]
    assert f"from {labels:.1f} % on labels alone to {soft[4, 0.5]:.1f} % at a weight of 0.5" in said["gradients"]
    pull = -gradient(stored["pictures"][1], "after", 4, 0.5)
    assert FASHION_CLASSES[pull.argmax()] == "coat"
    assert f"together they pull coat up, by {pull.max():.3f}" in said["gradients"]
    full = [gradient(stored["pictures"][1], "after", 4, weight) for weight in (0, 1)]
    assert f"{angle(*full):.0f} degrees apart" in said["gradients"]
    waited = {(m["teacher"], m["pictures"]): m for m in stored["patience"]["methods"]}
    means = [f"{mean:.1f}" for mean, *_ in waited["probabilities", "views"]["accuracy"]]
    assert "rises from {} over {} to {} %".format(*means) in said["patience"]
    ends = [f"{waited[x]['accuracy'][2][0]:.1f} %" for x in (("labels", "views"), ("own", "views"))]
    assert f"labels with changing pictures {ends[0]}, a teacher of the same labels {ends[1]}" in said["patience"]
    runs = {tuple(run["answers"].items()): run["accuracy"][0] for run in stored["runs"]}
    assert f"measured {runs[(('objective', 1),)]:.1f} %" in said["choices"]
    assert f"the base, {runs[()]:.1f} %, and of an SVM, {stored['baselines']['SVM'][0]:.1f} %" in said["choices"]
    for kind in ("distilled", "labels"):
        scores = [model["accuracy"][0] for model in stored["models"] if model["kind"] == kind]
        assert f"between {min(scores):.1f} and {max(scores):.1f} %" in said["sizes"]
    models = {model["name"].split(",")[0].removesuffix(" on pixels"): model for model in stored["models"]}
    for name, words in (("logistic regression", " has"), ("SVM", ""), ("Lite0", "")):
        model = models[name]
        assert f"{name}{words} {model['accuracy'][0]:.1f} % at {model['kilobytes']:,.0f} kB" in said["sizes"]


# ---- temperature


def expect_shares(reader, logits, temperature):
    panel = reader.panel("temperature", "distribution")
    wanted = (logits / temperature).softmax(0).double()
    room = panel.bounding_box()["width"] - 92 - 58
    torch.testing.assert_close(reader.numbers(panel, "share", "width") / room, wanted, atol=TOLERANCE, rtol=0)
    frames = reader.numbers(panel, "before", "width") / room
    torch.testing.assert_close(frames, logits.softmax(0).double(), atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(reader.texts(panel, "number") / 100, wanted, atol=TOLERANCE, rtol=0)


def test_the_temperature_by_keyboard(visit, ten):
    reader = visit()
    data, teacher = ten
    expect_shares(reader, teacher[3], 4.0)
    reader.page.keyboard.press("Tab")
    expect(reader.page.get_by_role("radio", name="T-shirt, picture 4").first).to_be_focused()
    reader.page.keyboard.press("ArrowRight")
    name = FASHION_CLASSES[data.targets[4]]
    expect(reader.page.get_by_role("radio", name=f"{name}, picture 5").first).to_be_checked()
    reader.page.keyboard.press("Tab")
    slider = reader.page.get_by_role("slider", name="Temperature").first
    expect(slider).to_be_focused()
    now = reader.panel("temperature", "students").locator("[data-key=now]")
    places = {}
    for key, temperature in (("Home", 0.5), ("ArrowRight", 2**-0.75), ("End", 32.0)):
        reader.page.keyboard.press(key)
        expect(slider).to_have_attribute("aria-valuetext", f"{temperature:.3g}")
        expect_shares(reader, teacher[4], temperature)
        share = (teacher[4] / temperature).softmax(0).max()
        said = f"At T = {temperature:.3g} the teacher says {name} {100 * share:.1f} %"
        expect(reader.said("temperature")).to_contain_text(said)
        places[temperature] = float(now.get_attribute("x1"))
    assert places[0.5] < places[2**-0.75] < places[32.0]


def test_the_temperature_by_touch(visit, ten):
    reader = visit(**ON_PHONE)
    _, teacher = ten
    reader.page.get_by_role("radio", name="sandal, picture 9").first.tap()
    slider = reader.page.get_by_role("slider", name="Temperature").first
    for share, temperature in ((0, 0.5), (1, 32.0), (0.5, 4.0)):
        reader.tap(slider, share)
        expect(slider).to_have_attribute("aria-valuetext", f"{temperature:.3g}")
        expect_shares(reader, teacher[8], temperature)


# ---- gradients


class Free(nn.Module):
    """Logits that may move as they like."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([logits]))

    def forward(self, inputs):
        return self.logits


class Says(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor([logits])

    def forward(self, inputs):
        return self.logits


def gradient(picture, state, temperature, weight):
    """Of the objective of the package, in the student's logits."""
    student = Free(picture[state])
    objective = SoftTargets(Says(picture["teacher"]), temperature=temperature, kd_weight=weight, ce_weight=1 - weight)
    batch = {"inputs": torch.zeros(1, 1), "targets": torch.tensor([picture["label"]])}
    objective(student, batch)["loss"].backward()
    return student.logits.grad[0].double()


def angle(a, b):
    return math.degrees(torch.cosine_similarity(a, b, dim=0).clamp(-1, 1).acos())


def expect_pulls(reader, picture, state, temperature, weight):
    panel, plane = reader.panel("gradients", "pulls"), reader.panel("gradients", "plane")
    label, teacher = -gradient(picture, state, temperature, 0), -gradient(picture, state, temperature, 1)
    parts = {"label": (1 - weight) * label, "teacher": weight * teacher}
    wanted = -gradient(picture, state, temperature, weight)
    torch.testing.assert_close(wanted, parts["label"] + parts["teacher"], atol=1e-5, rtol=0)
    torch.testing.assert_close(reader.texts(panel, "number"), wanted, atol=TOLERANCE, rtol=0)
    most = max(gradient(picture, state, t, w).abs().max() for t, w in ((1, 0), *((t, 1) for t in (1, 2, 4, 8, 16))))
    unit = (panel.bounding_box()["width"] - 56 - 92) / 2 / most
    zero = float(panel.locator("[data-key=zero]").get_attribute("x1"))
    torch.testing.assert_close((reader.numbers(panel, "sum", "x1") - zero) / unit, wanted, atol=TOLERANCE, rtol=0)
    for name, part in parts.items():
        lengths = reader.numbers(panel, name, "width") / unit
        torch.testing.assert_close(lengths, part.abs(), atol=TOLERANCE, rtol=0)
        starts = (reader.numbers(panel, name, "x") - zero) / unit
        torch.testing.assert_close(starts, part.clamp(max=0), atol=TOLERANCE, rtol=0)
    arrows = {}
    for key in ("label", "teacher", "sum", "full-label", "full-teacher"):
        ends = [float(plane.locator(f"[data-key={key}]").get_attribute(end)) for end in ("x1", "y1", "x2", "y2")]
        arrows[key] = math.dist(ends[:2], ends[2:])
    scale = max(arrows["full-label"] / label.norm(), arrows["full-teacher"] / teacher.norm())
    for key, vector in (("sum", wanted), *parts.items(), ("full-label", label), ("full-teacher", teacher)):
        assert arrows[key] / scale == pytest.approx(float(vector.norm()), rel=0.01, abs=2 * TOLERANCE), key
    name = FASHION_CLASSES[wanted.argmax()]
    expect(reader.said("gradients")).to_contain_text(f"and T = {temperature:g}, {name} is pulled up most")


def test_the_two_gradients_by_keyboard(visit, stored):
    reader = visit()
    picture = stored["pictures"][1]
    expect_pulls(reader, picture, "after", 4, 0.5)
    weight = reader.page.get_by_role("slider", name="kd_weight")
    weight.focus()
    for key, value in (("Home", 0), ("ArrowRight", 0.05), ("End", 1)):
        reader.page.keyboard.press(key)
        expect(weight).to_have_attribute("aria-valuetext", f"{value:.2f}")
        expect_pulls(reader, picture, "after", 4, value)
    reader.page.keyboard.press("ArrowLeft")
    reader.page.keyboard.press("Tab")
    expect(reader.page.get_by_role("slider", name="Temperature").nth(1)).to_be_focused()
    for key, temperature in (("Home", 1), ("ArrowRight", 2), ("End", 16)):
        reader.page.keyboard.press(key)
        expect_pulls(reader, picture, "after", temperature, 0.95)
    reader.page.get_by_label("after 400 steps").focus()
    reader.page.keyboard.press("ArrowLeft")
    expect(reader.page.get_by_label("before training")).to_be_checked()
    expect_pulls(reader, picture, "before", 16, 0.95)


def test_the_two_gradients_by_touch(visit, stored):
    reader = visit(**ON_PHONE)
    reader.page.get_by_role("radio", name="T-shirt, picture 4").nth(1).tap()
    reader.page.get_by_label("before training").tap()
    reader.tap(reader.page.get_by_role("slider", name="kd_weight"), 0)
    expect_pulls(reader, stored["pictures"][3], "before", 4, 0)
    reader.tap(reader.page.get_by_role("slider", name="Temperature").nth(1), 1)
    reader.tap(reader.page.get_by_role("slider", name="kd_weight"), 1)
    expect_pulls(reader, stored["pictures"][3], "before", 16, 1)


def test_the_students_are_those_of_the_temperature(visit, stored):
    reader = visit()
    reader.page.get_by_role("slider", name="Temperature").nth(1).focus()
    panel = reader.panel("gradients", "students")
    heights = {}
    for key, temperature in (("Home", 1), ("End", 16)):
        reader.page.keyboard.press(key)
        rows = [row for row in stored["sensitivity"]["soft"] if row["temperature"] == temperature]
        wanted = ", ".join(f"{row['accuracy'][0]:.1f} % at {row['weight']:g}" for row in rows)
        expect(panel).to_have_attribute("aria-label", re.compile(re.escape(wanted)))
        heights[temperature] = [float(panel.locator(f"[data-key='at-{w}-mean']").get_attribute("cy")) for w in (0, 0.9)]
    assert heights[1][0] == heights[16][0]
    assert heights[1][1] > heights[16][1]


# ---- choices


@pytest.mark.slow
def test_every_answer_has_what_was_measured(visit, stored):
    reader = visit()
    runs = {tuple(run["answers"].get(choice, 0) for choice in CHOICES): run for run in stored["runs"]}
    known = set(dir(kdft_lib.objectives)) | set(dir(kdft_lib.strategies)) | set(dir(kdft_lib.data))
    for answers in itertools.product(range(2), range(3), range(2), range(3)):
        for choice, answer in zip(CHOICES, answers, strict=True):
            reader.page.locator(f"[name=kdft-{choice}][value='{answer}']").check()
        code = reader.figure("choices").locator("code").text_content()
        calls = {node.func.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)}
        assert calls - {"fit"} <= known, code
        mark = reader.panel("choices", "measured").locator("[data-key=now-text]")
        changed = [choice for choice, answer in zip(CHOICES, answers, strict=True) if answer]
        what = f"Changed: {', '.join(changed)}." if changed else "The base: nothing is changed."
        if answers not in runs:
            expect(mark).to_have_count(0)
            expect(reader.said("choices")).to_have_text(f"{what} Chapter 02 did not measure these answers together.")
            continue
        mean, low, high = runs[answers]["accuracy"]
        expect(mark).to_have_text(f"{mean:.1f} %")
        said = f"{what} Chapter 02 measured {mean:.1f}\u00a0% [{low:.1f}, {high:.1f}]"
        if changed:
            gap = [f"{end:+.1f}".replace("-", "−") for end in runs[answers]["difference"]]
            said += f": {gap[0]} points [{gap[1]}, {gap[2]}] from the base"
        expect(reader.said("choices")).to_have_text(f"{said}.")


@pytest.mark.parametrize("by", ["keyboard", "touch"])
def test_the_map_follows_the_choices_and_leads_to_chapters(visit, stored, site, by):
    reader = visit(**(ON_PHONE if by == "touch" else {}))
    if by == "keyboard":
        reader.page.get_by_label("1,000 labelled").focus()
        reader.page.keyboard.press("ArrowRight")
    else:
        reader.page.get_by_label("augmented").tap()
    panel = reader.panel("choices", "map")
    links = panel.get_by_role("link")
    assert links.count() == len(stored["chapters"])
    for link, chapter in zip(links.all(), stored["chapters"], strict=True):
        assert link.get_attribute("href") == chapter["page"]
        assert (site / chapter["page"]).exists()
        bold = link.locator("text").get_attribute("font-weight") == "700"
        assert bold == ({"inputs", "objective"} <= set(chapter["choices"])), chapter
        for choice in chapter["choices"]:
            curve = panel.locator(f"[data-key='{choice}-{chapter['page']}']")
            colored = curve.get_attribute("stroke") == f"var(--{choice})"
            assert colored == (choice in ("inputs", "objective"))
    first = links.first
    if by == "keyboard":
        reader.page.get_by_label("everything").focus()
        reader.page.keyboard.press("Tab")
        expect(first).to_be_focused()
        expect(first.locator("rect")).to_have_css("stroke-width", "3px")
        reader.page.keyboard.press("Enter")
    else:
        first.tap()
    expect(reader.page).to_have_title(stored["chapters"][0]["page"].removesuffix(".html"))


# ---- patience


TAUGHT = {"labels": "labels", "decisions": "a teacher’s decisions", "probabilities": "a teacher’s probabilities"}
TAUGHT["own"] = "those of a teacher of the same labels"
SEEN = {"fixed": "as they are", "views": "shifted and mirrored"}


def expect_waited(reader, waited, teacher, pictures, step):
    found = [m for m in waited["methods"] if (m["teacher"], m["pictures"]) == (teacher, pictures)]
    said = f"{TAUGHT[teacher]}, pictures {SEEN[pictures]}"
    marks = reader.panel("patience", "waited").locator("[data-key^=after-]")
    if not found:
        expect(marks).to_have_count(0)
        expect(reader.said("patience")).to_have_text(f"{said}: not measured at all three budgets.")
        return
    expect(marks).to_have_count(2 * len(waited["budgets"]))
    mean, low, high = found[0]["accuracy"][step]
    said += f", after {waited['budgets'][step]:,} steps: {mean:.1f}\u00a0% [{low:.1f}, {high:.1f}]."
    if found[0]["difference"]:
        gap = [f"{end:+.1f}".replace("-", "−") for end in found[0]["difference"][step]]
        said += f" From labels with changing pictures: {gap[0]} points [{gap[1]}, {gap[2]}]."
    else:
        said += " It is what the others are compared with."
    expect(reader.said("patience")).to_have_text(said)


def test_patience_by_keyboard(visit, stored):
    reader = visit()
    expect_waited(reader, stored["patience"], "probabilities", "views", 1)
    slider = reader.figure("patience").get_by_role("slider", name="Steps")
    slider.focus()
    reader.page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "6,400")
    for teacher, pictures in itertools.product(TAUGHT, SEEN):
        for words in (TAUGHT[teacher], SEEN[pictures]):
            reader.figure("patience").get_by_label(words, exact=True).check()
        expect_waited(reader, stored["patience"], teacher, pictures, 2)


def test_patience_by_touch(visit, stored):
    reader = visit(**ON_PHONE)
    reader.tap(reader.figure("patience").get_by_role("slider", name="Steps"), 0)
    reader.figure("patience").get_by_label("as they are").tap()
    expect_waited(reader, stored["patience"], "probabilities", "fixed", 0)


# ---- sizes


def expect_budget(reader, models, kilobytes, milliseconds):
    panel = reader.panel("sizes", "models")
    fitting = [m for m in models if m["kilobytes"] <= kilobytes and m["milliseconds"] <= milliseconds]
    for model in models:
        mark = panel.locator(f"[data-key='{model['name']}-mean']")
        assert (mark.get_attribute("opacity") == "1") == (model in fitting), model
    ring = panel.locator("[data-key=best]")
    within = f"Within {kilobytes:g}\u00a0kB and {milliseconds:g}\u00a0ms there"
    if not fitting:
        assert ring.get_attribute("opacity") == "0"
        expect(reader.said("sizes")).to_have_text(f"{within} is no model.")
        return None
    best = max(fitting, key=lambda model: model["accuracy"][0])
    mark = panel.locator(f"[data-key='{best['name']}-mean']")
    assert [ring.get_attribute(name) for name in ("cx", "cy")] == [mark.get_attribute(name) for name in ("cx", "cy")]
    mean, low, high = best["accuracy"]
    said = f"{within} are {len(fitting)} of {len(models)} models. The highest mean: {best['name']}, {mean:.1f}\u00a0%"
    alike = sum(bool(set(model["group"]) & set(best["group"])) for model in fitting) - 1
    told = f" Five seeds cannot tell {alike} of the others from it." if alike else ""
    expect(reader.said("sizes")).to_have_text(f"{said} [{low:.1f}, {high:.1f}].{told}")
    return best


def test_the_budget_by_keyboard(visit, stored):
    reader = visit()
    size, time = reader.page.get_by_label("Size up to"), reader.page.get_by_label("Time up to")
    assert expect_budget(reader, stored["models"], 100, 6.3)["name"] == "width 16, distilled"
    size.focus()
    reader.page.keyboard.press("End")
    expect(size).to_have_attribute("aria-valuetext", "20000\u00a0kB")
    assert expect_budget(reader, stored["models"], 20000, 6.3)["name"] == "width 24, distilled"
    reader.page.keyboard.press("Tab")
    expect(time).to_be_focused()
    reader.page.keyboard.press("Home")
    assert expect_budget(reader, stored["models"], 20000, 0.079) is None
    for _ in range(4):
        reader.page.keyboard.press("ArrowRight")
    assert expect_budget(reader, stored["models"], 20000, 0.13)["kind"] == "distilled"
    limit = reader.panel("sizes", "models").locator("[data-key=limit]")
    assert float(limit.get_attribute("x1")) == reader.panel("sizes", "models").bounding_box()["width"] - 12
    reader.page.keyboard.press("Tab")
    reader.page.keyboard.press("ArrowRight")
    expect(reader.figure("sizes").get_by_label("time", exact=True)).to_be_checked()
    expect(reader.panel("sizes", "models")).to_have_attribute("aria-label", re.compile("over milliseconds a picture"))
    inside = float(limit.get_attribute("x1"))
    for model in stored["models"]:
        at = float(reader.panel("sizes", "models").locator(f"[data-key='{model['name']}-mean']").get_attribute("cx"))
        assert (at <= inside) == (model["milliseconds"] <= 0.13), model


def test_the_budget_by_touch(visit, stored):
    reader = visit(**ON_PHONE)
    size, time = reader.page.get_by_label("Size up to"), reader.page.get_by_label("Time up to")
    reader.tap(size, 1)
    assert expect_budget(reader, stored["models"], 20000, 6.3)["name"] == "width 24, distilled"
    reader.tap(size, 0)
    assert expect_budget(reader, stored["models"], 20, 6.3) is None
    reader.tap(size, 1)
    reader.tap(time, 0)
    assert expect_budget(reader, stored["models"], 20000, 0.079) is None


def test_whatever_the_budget_the_best_is_distilled(stored):
    for model in stored["models"]:
        fits = [m for m in stored["models"] if all(m[n] <= model[n] for n in ("kilobytes", "milliseconds"))]
        assert max(fits, key=lambda m: m["accuracy"][0])["kind"] == "distilled"
    least = min(stored["models"], key=lambda model: model["kilobytes"])["kilobytes"]
    quickest = min(stored["models"], key=lambda model: model["milliseconds"])
    assert quickest["kilobytes"] == least


# ---- where it stands


def test_without_scripts_there_are_stills(visit):
    reader = visit(java_script_enabled=False)
    for name in FIGURES:
        still = reader.figure(name).get_by_role("img")
        still.scroll_into_view_if_needed()
        expect(still).to_be_visible()
        assert len(still.get_attribute("alt")) > 100
        assert still.bounding_box()["height"] > 200
        expect(reader.figure(name).get_by_text("A still image: scripts are off")).to_be_visible()
        expect(reader.figure(name).locator(".app")).to_be_hidden()


def test_a_still_stays_where_its_data_does_not_arrive(visit):
    reader = visit(silent=False)
    reader.page.route("**/data.js", lambda route: route.abort())
    reader.page.reload()
    for name in FIGURES:
        expect(reader.figure(name).locator(".still")).to_be_visible()
        expect(reader.figure(name).locator(".app")).to_be_hidden()


def expect_all_from(host, reader):
    for name in FIGURES:
        expect(reader.said(name)).not_to_be_empty()
        expect(reader.figure(name).locator(".still")).to_be_hidden()
    scripts = ("data", "draw", *FIGURES)
    assert {f"{host}/play/{name}.js" for name in scripts} < set(reader.requests)
    assert [url for url in reader.requests if not url.startswith((f"{host}/", "data:"))] == []


def test_nothing_comes_from_another_host(visit, site):
    with served(site) as host:
        expect_all_from(host, visit(f"{host}/page.html"))


def expect_room(reader, width):
    """What is drawn fits, and a finger hits what can be moved."""
    assert reader.page.evaluate("document.documentElement.scrollWidth") <= width
    for control in reader.page.locator(".kdft-play :is(fieldset label, [type=range], a)").all():
        box = control.bounding_box()
        assert min(box["width"], box["height"]) >= 44, (width, control)
    edges = reader.page.locator(".kdft-play svg text").evaluate_all(
        "(texts) => texts.map((text) => text.getBoundingClientRect()).flatMap(({ left, right }) => [left, right])"
    )
    assert min(edges) >= 0, width
    assert max(edges) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_can_be_hit(visit, width):
    reader = visit(viewport={"width": width, "height": 740})
    expect(reader.said("sizes")).not_to_be_empty()
    expect_room(reader, width)


LUMINANCE = """(root) => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const seen = (color) => {
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        const [red, green, blue] = Array.from(canvas.getImageData(0, 0, 1, 1).data.slice(0, 3), (value) =>
            value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const style = getComputedStyle(root), page = style.getPropertyValue("--ground");
    const said = (name) => seen(style.getPropertyValue(name));
    const names = ["text", "muted", "link", "blue", "vermilion", "start", "inputs", "objective", "strategy"];
    return Object.fromEntries([["ground", seen(page)], ...names.map((name) => [name, said(`--${name}`)])]);
}"""


def test_a_page_that_is_too_narrow_for_a_moment_is_no_error(visit):
    """As a window may be while it changes its size."""
    reader = visit(viewport={"width": 120, "height": 740})
    expect(reader.said("temperature")).not_to_be_empty()
    resize(reader.page, {"width": 320, "height": 740})
    expect_room(reader, 320)


@pytest.mark.site
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_as_built_it_is_all_there_and_fits_and_is_legible(visit, scheme):
    with served(BUILT.parent) as host:
        reader = visit(f"{host}/{BUILT.name}", color_scheme=scheme)
        expect_all_from(host, reader)
    for width in WIDTHS:
        resize(reader.page, {"width": width, "height": 740})
        expect_room(reader, width)
    expect(reader.page.locator("html")).to_have_attribute("data-theme", scheme)
    luminance = reader.figure("choices").evaluate(LUMINANCE)
    ground = luminance.pop("ground")
    assert (ground < 0.1) == (scheme == "dark")
    for name, value in luminance.items():
        contrast = (max(ground, value) + 0.05) / (min(ground, value) + 0.05)
        assert contrast >= (4.5 if name in ("text", "muted", "link") else 3), name
    name = reader.panel("temperature", "distribution").locator("[data-key=name-0]")
    assert name.evaluate("(text) => getComputedStyle(text).fill") == reader.page.evaluate(
        "getComputedStyle(document.querySelector('.bd-article')).color"
    )


def test_it_follows_the_readers_wish_for_rest(visit):
    for wish, duration in (("reduce", "0s"), ("no-preference", "0.15s")):
        bar = visit(reduced_motion=wish).panel("temperature", "distribution").locator("[data-key=share-0]")
        assert set(bar.evaluate("(bar) => getComputedStyle(bar).transitionDuration").split(", ")) == {duration}
