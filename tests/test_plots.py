from __future__ import annotations

import base64
import io
import math
import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import matplotlib.pyplot as plt
import numpy
import pytest
import torch
from scipy import stats

from kdft_lib import plots
from kdft_lib.experiments import mean_interval

matplotlib.use("Agg")


SCORES = {"labels": [0.70, 0.72, 0.71], "soft targets": [0.80, 0.83, 0.81]}


def test_intervals_shows_every_seed_its_mean_and_its_interval():
    ax = plots.intervals(SCORES, colors={"soft targets": plots.VERMILION})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["labels", "soft targets"]
    assert [text.get_text() for text in ax.texts] == ["71.0", "81.3"]
    assert ax.get_xlabel() == "test accuracy, %"
    drawn = [line.get_xdata() for line in ax.get_lines()]
    for row, scores in enumerate(SCORES.values()):
        percent = 100 * numpy.array(scores)
        low, high = stats.t.interval(0.95, 2, loc=percent.mean(), scale=stats.sem(percent))
        assert drawn[3 * row] == pytest.approx([low, high])
        assert drawn[3 * row + 1] == pytest.approx(percent)
        assert drawn[3 * row] == pytest.approx(mean_interval(percent)[1:]), "figures and numbers in the text agree"
    plt.close("all")


def test_intervals_shows_a_measure_in_its_own_unit():
    bits = {"labels": [2.5, 2.7, 2.6], "soft targets": [2.41, 2.43, 2.42]}
    ax = plots.intervals(bits, percent=False, label="bits")
    assert [text.get_text() for text in ax.texts] == ["2.60", "2.42"]
    assert ax.get_lines()[1].get_xdata() == pytest.approx([2.5, 2.7, 2.6])
    assert ax.get_xlabel() == "bits"
    plt.close("all")


def test_seeds_that_agree_have_an_interval_of_no_width():
    ax = plots.intervals({"SVM": [0.7, 0.7]})
    assert ax.get_lines()[0].get_xdata() == pytest.approx([70, 70])
    plt.close("all")


def test_a_run_is_drawn_step_by_step():
    steps = [{"step": step, "epoch": 0, "lr": 0.1, "loss": 1 / step, "ce": 2 / step} for step in (1, 2)]
    ax = plots.history(steps)
    assert [line.get_label() for line in ax.get_lines()] == ["loss", "ce"]
    assert ax.get_lines()[1].get_ydata() == pytest.approx([2, 1])
    plt.close("all")


def test_curves_are_labeled_where_they_are():
    ax = plt.subplots()[1]
    plots.curve([1, 2], numpy.array([[1.0, 2.0], [3.0, 4.0]]), ax, label="here", color=plots.BLUE)
    assert [text.get_text() for text in ax.texts] == ["here"]
    assert ax.get_lines()[0].get_ydata() == pytest.approx([2.0, 3.0])
    plt.close("all")


def test_pictures_and_distributions_are_drawn():
    figure = plots.images(torch.zeros(3, 1, 8, 8), ["a", "b", "c"], columns=2)
    assert [ax.get_title() for ax in figure.axes] == ["a", "b", "c", ""]
    ax = plots.probabilities({"T = 1": torch.tensor([0.2, 0.8])}, ["x", "y"], log=True)
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([0.2, 0.8])
    assert ax.get_yscale() == "log"
    plt.close("all")


def test_reliability_is_the_share_right_at_each_confidence():
    logits = torch.tensor([[0.0, 2.0]] * 50 + [[3.0, 0.0]] * 40 + [[0.0, 0.1]] * 29)
    targets = torch.tensor([1] * 30 + [0] * 20 + [0] * 40 + [1] * 29)
    ax = plots.reliability({"model": (logits, targets)}, colors={"model": plots.BLUE})
    line = ax.get_lines()[1]
    assert line.get_ydata() == pytest.approx([0.6, 1.0])  # 29 inputs are too few to be drawn
    assert line.get_xdata() == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-3))])
    assert line.get_color() == plots.BLUE
    plt.close("all")


def test_diagrams_have_text_as_text_and_a_description():
    for path in (plots.still.resources.files("kdft_lib") / "assets/diagrams").iterdir():
        drawing = plots.diagram(path.name.removesuffix(".svg")).data
        root = ElementTree.fromstring(drawing)
        names = [element.tag.split("}")[1] for element in root.iter()]
        assert {"title", "desc", "text"} <= set(names)
        assert not re.search(r"(href|url)\s*[=(]\s*[\"']?https?:", drawing)
    with pytest.raises(FileNotFoundError, match=r"no diagram 'missing'; there are .*soft-targets"):
        plots.diagram("missing")


def test_the_palette_is_told_apart_in_grey():
    def lightness(color):
        red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert abs(lightness(plots.BLUE) - lightness(plots.ORANGE)) > 0.2
    assert len(set(plots.PALETTE)) == 7
    plots.use_style()
    assert matplotlib.rcParams["axes.prop_cycle"].by_key()["color"] == list(plots.PALETTE)


def test_curves_rise_in_one_place_of_a_notebook(monkeypatch):
    shown = []

    class Handle:
        def update(self, figure):
            shown.append(("again", len(figure.axes[0].lines)))

    def display(figure, display_id):
        shown.append(("first", len(figure.axes[0].lines)))
        return Handle()

    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", display)
    rising = plots.Rising("accuracy, %", steps=20, colors={"teacher": plots.BLUE})
    for name in ("labels", "teacher"):
        for step in (10, 20):
            rising.add(name, step, 50.0 + step)
    assert shown == [("first", 1), ("again", 1), ("again", 2), ("again", 2)]
    ax = rising.figure.axes[0]
    assert [text.get_text() for text in ax.texts] == ["labels", "teacher"]
    assert [line.get_ydata().tolist() for line in ax.lines] == [[60.0, 70.0], [60.0, 70.0]]
    assert ax.get_xlim()[1] > 20, "there is room for the names"
    assert [line.get_color() for line in ax.lines] == [plots.VERMILION, plots.BLUE]


def test_a_softened_distribution_reads_without_scripts():
    logits = torch.tensor([4.0, 2.0, 0.0])
    page = plots.softened(logits, ["shirt", "coat", "bag"], temperature=2.0).data
    shares = [float(share) for share in re.findall(r'class="share">([\d.]+) %', page)]
    assert shares == pytest.approx((100 * (logits / 2).softmax(dim=0)).tolist(), abs=0.05)
    assert re.search(r'<input type="range" min="0" max="5" step="0.05" value="1.00"> <output>2.0<', page)
    assert "$" not in page
    with pytest.raises(ValueError, match=r"logits has the shape \(3,\); it must be \(2,\), one for each class"):
        plots.softened(logits, ["shirt", "coat"])


def test_a_softened_distribution_shows_what_it_answers():
    image = torch.arange(6.0).view(1, 2, 3)
    page = plots.softened(torch.tensor([4.0, 2.0]), ["shirt", "coat"], image=image).data
    found = re.search(r'<img src="data:image/png;base64,([^"]+)" alt="The picture">', page)
    assert found is not None
    shown = plt.imread(io.BytesIO(base64.b64decode(found.group(1))))
    assert shown.shape[:2] == (2, 3)
    assert (shown[..., 0].ravel().argsort() == torch.arange(6).numpy()).all()
    with pytest.raises(ValueError, match=r"image has the shape \(2, 3\); it must be \(1, H, W\), one grey picture"):
        plots.softened(torch.tensor([4.0, 2.0]), ["shirt", "coat"], image=image[0])
