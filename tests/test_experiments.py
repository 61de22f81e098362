from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch
from scipy import stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from torch import nn

from kdft_lib import experiments, training
from kdft_lib.data import Splits, TensorData
from kdft_lib.experiments import (
    Answering,
    Candidate,
    Classical,
    Comparison,
    Given,
    Interpolated,
    Interval,
    Members,
    NamedBy,
    Once,
    OnFeatures,
    Recipe,
    Then,
    Trained,
    compare,
    grid,
    groups,
    holm,
    kept,
    paired_interval,
    per_seed,
    records,
)
from kdft_lib.experiments import trained as trained_parts
from kdft_lib.experiments.grid import described
from kdft_lib.features import Remembered
from kdft_lib.objectives import L2SP, HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning, HeadOnly, Phases
from kdft_lib.teachers import Teacher, cache
from kdft_lib.training import Ledger


def linear():
    return nn.Linear(4, 3)


class Counting(nn.Module):
    """A teacher that notes how many rows it was asked about each time."""

    def __init__(self):
        super().__init__()
        self.inner, self.asked = nn.Linear(4, 3), []

    def forward(self, inputs):
        self.asked.append(len(inputs))
        return self.inner(inputs)


BASE = Recipe(linear, Supervised, FullFineTuning(lr=0.05), steps=6, batch_size=20)


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    return Teacher(nn.Linear(4, 3), labels=77)


@pytest.fixture
def comparison(blob_splits, teacher):
    methods = {
        "labels": BASE,
        "teacher": grid(BASE.taught_by(teacher, SoftTargets, on="all"), temperature=(1.0, 4.0)),
        "logistic regression": Classical(LogisticRegression()),
    }
    return compare(methods, blob_splits, seeds=range(3))


def test_a_comparison_scores_every_method_on_every_seed(comparison):
    assert {name: len(scores) for name, scores in comparison.test.items()} == dict.fromkeys(comparison.test, 3)
    assert [len(settings) for settings in comparison.val.values()] == [1, 2, 1]
    assert comparison.table().loc["labels", "difference [95 % interval]"] == "reference"
    html = comparison._repr_html_()
    assert all(
        word in html
        for word in ("group", "Ledger", "logistic regression", "settings tried", "mean validation accuracy")
    )


def test_scores_are_those_of_the_models(comparison, blob_splits):
    test = blob_splits(0).test
    for name, trained in comparison.trained.items():
        for score, one in zip(comparison.test[name], trained, strict=True):
            assert score == pytest.approx((one.decide(test) == test.targets).double().mean().item())


def test_the_setting_is_chosen_on_validation(comparison):
    for name, settings in comparison.val.items():
        means = [sum(scores) for scores in settings]
        assert comparison.chosen[name] == [means.index(max(means))] * 3


def test_the_test_set_has_no_say_in_the_choice(blob_splits):
    """A setting that is perfect on test and poor on validation is not chosen."""

    class Cheating:
        def __init__(self, good_on):
            self.good_on = good_on

        def train(self, splits, seed):
            truth = {len(splits.val): splits.val.targets, len(splits.test): splits.test.targets}
            good = splits.val if self.good_on == "val" else splits.test
            return Trained(
                None, Ledger(), decides=lambda data: truth[len(data)] if data is good else torch.full((len(data),), -1)
            )

    def splits(seed):
        parts = blob_splits(seed)
        return parts._replace(test=parts.test[:29])

    result = compare({"a": [Cheating("test"), Cheating("val")], "b": Cheating("val")}, splits, seeds=range(2))
    assert result.chosen["a"] == [1, 1]
    assert result.test["a"] == [0.0, 0.0]


def test_the_test_set_is_never_shown_to_a_setting_that_was_not_chosen(blob_splits):
    class Watched:
        def __init__(self, guess):
            self.guess, self.shown = guess, []

        def train(self, splits, seed):
            def decide(data):
                self.shown.append(len(data))
                return torch.full((len(data),), self.guess)

            return Trained(None, Ledger(), decides=decide)

    def splits(seed):
        parts = blob_splits(seed)
        return parts._replace(test=parts.test[:29])

    never_right, other = Watched(-1), Watched(0)
    compare({"a": [never_right, other]}, splits, seeds=range(2))
    assert (len(splits(0).val), never_right.shown, other.shown) == (30, [30, 30], [30, 30, 29, 29])


def test_a_method_on_features_learns_and_decides_on_them(blob_splits):
    seen = []

    def doubled(data):
        seen.append(len(data))
        return data.with_inputs(2 * data.inputs)

    splits = blob_splits(0)
    plain = Classical(LogisticRegression())
    on_features = OnFeatures(plain, doubled, pretraining="none of it")
    trained = on_features.train(splits, seed=0)
    twice = plain.train(splits._replace(train=doubled(splits.train)), seed=0)
    assert torch.equal(trained.decide(splits.test), twice.decide(doubled(splits.test)))
    assert not torch.equal(trained.decide(splits.test), trained.decide(splits.test.with_inputs(-splits.test.inputs)))
    assert seen[0] == len(splits.train)
    assert (trained.ledger.pretraining, trained.ledger.labels) == ("none of it", len(splits.train))


def test_seeds_are_shared_and_repeatable(blob_splits, comparison, teacher):
    again = compare({"labels": BASE, "the same": BASE}, blob_splits, seeds=range(3))
    assert again.test["labels"] == again.test["the same"] == comparison.test["labels"]
    starts = [again.trained[name][1].history.steps[0]["loss"] for name in ("labels", "the same")]
    assert starts[0] == starts[1]
    assert again.trained["labels"][0].history.steps[0]["loss"] != starts[0]


def test_the_ledger_is_what_was_run(comparison):
    ledger = comparison.ledger()
    assert list(ledger.loc["labels"][["labels", "to choose", "teacher's labels", "unlabelled", "steps"]]) == [
        "60",
        "0",
        "0",
        "0",
        "6",
    ]
    assert list(ledger.loc["teacher"][["labels", "to choose", "teacher's labels", "unlabelled"]]) == [
        "60",
        "30",
        "77",
        "30",
    ]
    assert ledger.loc["teacher", "settings tried"] == 2
    assert ledger.loc["logistic regression", "steps"] == "0"


def test_further_measures_are_of_the_chosen_setting_and_the_seeds_splits(blob_splits, teacher):
    methods = {"labels": grid(BASE, lr=(1e-6, 0.05)), "teacher": BASE}
    result = compare(
        methods,
        blob_splits,
        seeds=range(3),
        measures={
            "share right": lambda run, splits: (run.decide(splits.test) == splits.test.targets).double().mean(),
            "first input": lambda run, splits: splits.train.inputs[0, 0],
        },
    )
    assert result.measured["share right"] == {
        name: [pytest.approx(score) for score in scores] for name, scores in result.test.items()
    }
    firsts = [blob_splits(seed).train.inputs[0, 0].item() for seed in range(3)]
    assert result.measured["first input"] == {"labels": firsts, "teacher": firsts}
    assert compare(methods, blob_splits, seeds=range(2)).measured == {}


def test_a_measure_that_is_not_a_number_is_named(blob_splits):
    measures = {"spread": lambda *_: float("nan")}
    with pytest.warns(UserWarning, match="spread of labels, seed 1, is not a number"):
        compare({"labels": BASE}, blob_splits, seeds=(0, 1), measures=measures)


def test_a_teacher_of_whom_nothing_is_known_is_unknown_in_the_ledger(blob_splits):
    taught = BASE.taught_by(nn.Linear(4, 3), SoftTargets)
    result = compare({"a": BASE, "b": taught}, blob_splits, seeds=range(2))
    assert result.ledger().loc["b", "teacher's labels"] == "unknown"


@pytest.mark.parametrize(
    ("methods", "keywords", "message"),
    [
        ({}, {}, "methods is empty"),
        ({"a": []}, {}, "one of them has no setting"),
        ({"a": BASE}, {"seeds": [1]}, r"seeds is \[1\]; an interval needs two or more"),
        ({"a": BASE}, {"seeds": [1, 1]}, "all different"),
        ({"a": BASE}, {"reference": "b"}, "reference is 'b'; choose one of a"),
        ({"a": BASE, "b": BASE.but(steps=7)}, {}, "the budgets differ .a 6 steps of 20, b 7 steps of 20"),
        ({"a": [BASE, BASE.but(batch_size=7)]}, {}, "the budgets differ"),
        ({"a": BASE, "b": Once(BASE.but(steps=7))}, {}, "the budgets differ"),
        ({"a": BASE}, {"contrasts": [("a", "b")]}, "contrasts names 'b'; choose among a"),
        ({"a": BASE}, {"choose": "best"}, "choose is 'best'; it must be"),
    ],
)
def test_unfair_comparisons_are_refused(blob_splits, methods, keywords, message):
    with pytest.raises(ValueError, match=message):
        compare(methods, blob_splits, **keywords)


def test_budgets_may_differ_if_one_says_so(blob_splits):
    result = compare({"a": BASE, "b": BASE.but(steps=7)}, blob_splits, seeds=range(2), equal_budgets=False)
    assert list(result.ledger()["steps"]) == ["6", "7"]


def test_intervals_are_scipys():
    a, b = [0.81, 0.80, 0.84, 0.79, 0.83], [0.78, 0.79, 0.80, 0.77, 0.80]
    gap = paired_interval(a, b)
    gaps = [x - y for x, y in zip(a, b, strict=True)]
    low, high = stats.t.interval(0.95, 4, loc=sum(gaps) / 5, scale=stats.sem(gaps))
    assert gap == pytest.approx((sum(gaps) / 5, low, high, stats.ttest_1samp(gaps, 0).pvalue))
    assert paired_interval(a, a) == (0.0, 0.0, 0.0, 1.0)
    assert paired_interval([0.5, 0.6], [0.25, 0.35]).p < 1e-6
    with pytest.raises(ValueError, match="scores has 1 entries and reference 2"):
        paired_interval([0.1], [0.1, 0.2])


def test_holm_is_as_published():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_groups_are_letters_that_methods_share():
    chance = torch.Generator().manual_seed(0)
    noise = lambda: torch.randn(5, generator=chance) * 0.004  # noqa: E731
    scores = {
        name: (base + noise()).tolist() for name, base in {"low": 0.5, "high": 0.9, "high too": 0.9, "mid": 0.7}.items()
    }
    letters = groups(scores)
    assert list(letters) == list(scores)
    assert letters["high"] == letters["high too"] == "A"
    assert letters["mid"] == "B"
    assert letters["low"] == "C"


def test_overlapping_groups_share_both_letters():
    scores = {"a": [3.0, 3.1, 2.9, 3.05, 2.95], "b": [2.0, 2.9, 3.4, 1.9, 2.8], "c": [1.9, 2.05, 2.0, 1.95, 2.1]}
    assert groups(scores) == {"a": "A", "b": "AB", "c": "B"}


def test_what_is_recorded_is_read_back(comparison, tmp_path, monkeypatch):
    monkeypatch.setattr(records.resources, "files", lambda _: tmp_path)
    (tmp_path / "assets/results").mkdir(parents=True)
    path = experiments.record("example", {"blobs": comparison}, command="make results", seconds=90)
    again = experiments.recorded("example")
    assert again["blobs"] == comparison
    assert str(again["blobs"]) == str(comparison)
    assert again.about["minutes"] == 1.5
    assert {"command", "commit", "date", "hardware", "versions", "python"} < again.about.keys()
    assert again["blobs"].setting("teacher") == comparison.setting("teacher")
    assert str(tmp_path) not in path.read_text()
    with pytest.raises(FileNotFoundError, match="no result 'other' is recorded; there are example"):
        experiments.recorded("other")


def test_recorded_results_that_ship_hold_every_seed():
    folder = records.resources.files("kdft_lib") / "assets/results"
    names = [file.name.removesuffix(".json") for file in folder.iterdir()]
    assert names
    for name in names:
        result = experiments.recorded(name)
        assert json.dumps(result.about["versions"])
        for title, comparison in result.items():
            assert isinstance(comparison, Comparison)
            two = title.endswith(", tried")  # Settings may be tried on seeds of their own.
            for scores in comparison.test.values():
                assert len(scores) == len(comparison.seeds) >= (2 if two or len({*scores}) == 1 else 5), (name, title)
            assert set(comparison.settings) == set(comparison.val) == set(comparison.test)
            for method, tried in comparison.settings.items():
                assert len(tried) == len(comparison.val[method])
                assert len({json.dumps(setting) for setting in tried}) == len(tried), (name, method)
                for seed in [None] if comparison.choose == "mean" else comparison.seeds:
                    assert comparison.setting(method, seed) in tried


# Settings with names


def test_a_grid_names_every_combination():
    made = grid(BASE, weight_decay=0.5, lr=(0.1, 0.3), label_smoothing=(0.0, 0.2))
    assert [dict(each.setting) for each in made] == [
        {"weight_decay": 0.5, "lr": lr, "label_smoothing": smoothing} for lr in (0.1, 0.3) for smoothing in (0.0, 0.2)
    ]
    assert [each.method.strategy.lr for each in made] == [0.1, 0.1, 0.3, 0.3]
    assert {each.method.strategy.weight_decay for each in made} == {0.5}
    assert BASE.strategy.lr == 0.05
    with pytest.raises(ValueError, match="lr has no value"):
        grid(BASE, lr=())


def test_what_is_no_plain_value_has_a_name():
    made = grid(BASE, schedule={"falling": lambda progress: 1 - progress, "even": "constant"})
    assert [each.setting["schedule"] for each in made] == ["falling", "even"]
    assert made[0].method.settings.course(0.25) == 0.75


def test_settings_reach_strategy_objective_model_and_loop(blob_splits, teacher):
    taught = BASE.taught_by(teacher, SoftTargets).but(temperature=2.0, kd_weight=1.0, ce_weight=0.0, ema_decay=0.9)
    run = taught.train(blob_splits(0), 0)
    assert (run.objective.temperature, run.objective.weights) == (2.0, {"kd": 1.0, "ce": 0.0})
    assert taught.settings.ema_decay == 0.9
    wider = Recipe(
        lambda width=4: nn.Sequential(nn.Linear(4, width), nn.Linear(width, 3)),
        Supervised,
        FullFineTuning(lr=0.1),
        steps=1,
    )
    assert wider.but(width=7).train(blob_splits(0), 0).model[0].out_features == 7
    probed = wider.but(
        strategy=lambda lr: Phases(HeadOnly(lr=0.1, head="1"), FullFineTuning(lr=lr), first_epochs=1), epochs=3
    )
    assert probed.but(lr=0.02).train(blob_splits(0), 0).history.steps[-1]["epoch"] == 2
    with pytest.raises(
        ValueError, match="nothing in this recipe has the setting 'temprature'; there are lr, weight_decay"
    ):
        taught.but(temprature=2.0)
    with pytest.raises(ValueError, match="nothing in this recipe has the setting 'label_smoothing'"):
        BASE.but(objective=Supervised()).but(label_smoothing=0.1)


def test_a_recipe_takes_whatever_fit_takes():
    for option in training.settings.OPTIONS:
        assert option in {*vars(BASE.settings)}
    assert BASE.but(epochs=2).settings.steps is None
    with pytest.raises(
        TypeError, match="Recipe has no option 'lr'; learning rate and weight decay belong to the strategy"
    ):
        Recipe(linear, Supervised, FullFineTuning(lr=0.1), steps=1, lr=0.2)
    with pytest.raises(TypeError, match="Recipe has no option 'step'; its options are epochs, steps"):
        Recipe(linear, Supervised, FullFineTuning(lr=0.1), step=1)


def test_a_comparison_says_what_was_chosen(comparison):
    assert comparison.settings == {
        "labels": [{}],
        "teacher": [{"temperature": 1.0}, {"temperature": 4.0}],
        "logistic regression": [{}],
    }
    chosen = comparison.setting("teacher")["temperature"]
    assert comparison.choice("teacher") == f"T = {chosen:g}"
    assert comparison.table().loc["teacher", "chosen"] == f"T = {chosen:g}"
    assert comparison.validation("teacher") == comparison.validation("teacher", temperature=chosen)
    assert comparison.validation("teacher", temperature=1.0) == comparison.val["teacher"][0]
    with pytest.raises(KeyError, match="'nobody' was not compared; there are labels, teacher"):
        comparison.setting("nobody")
    with pytest.raises(ValueError, match="0 settings of 'teacher' have T = 3; those tried are T = 1; T = 4"):
        comparison.validation("teacher", temperature=3.0)
    assert (
        described({"weight_decay": 0.1, "temperature": 4.0, "gamma": "scale"}) == "weight decay 0.1, T = 4, gamma scale"
    )


class Guess:
    """Right in validation for one seed, and in test for another."""

    def __init__(self, good_at):
        self.good_at = good_at

    def __repr__(self):
        return f"Guess({self.good_at})"

    def train(self, splits, seed):
        right = self.good_at == seed
        return Trained(None, Ledger(), decides=lambda data: data.targets if right else data.targets + 1)


def test_each_seed_may_choose_for_itself(blob_splits):
    tried = [Candidate(Guess(seed), {"good_at": seed}) for seed in range(3)]
    alone = compare({"guess": tried}, blob_splits, seeds=range(3), choose="each seed")
    assert alone.chosen["guess"] == [0, 1, 2]
    assert alone.test["guess"] == [1.0, 1.0, 1.0]
    assert [alone.setting("guess", seed=seed)["good_at"] for seed in range(3)] == [0, 1, 2]
    assert alone.choice("guess") == "good at 0 / good at 1 / good at 2"
    assert "Each seed's settings were chosen on its own" in alone._repr_html_()
    assert "chosen" not in compare({"one": tried[:1]}, blob_splits, seeds=range(3))._repr_html_(), "nothing was"
    with pytest.raises(ValueError, match="the seeds have different settings of 'guess'; name one"):
        alone.setting("guess")
    assert compare({"guess": tried}, blob_splits, seeds=range(3)).test["guess"] == [1.0, 0.0, 0.0]


class Always:
    """Decides one class, whatever it sees."""

    def __init__(self, label):
        self.label = label

    def train(self, splits, seed):
        return Trained(None, Ledger(), decides=lambda data: torch.full((len(data),), self.label))


def test_settings_may_be_chosen_on_other_rows_whose_labels_the_ledger_counts(blob_splits):
    tried = [Candidate(Always(label), {"label": label}) for label in range(2)]

    def of_one_class(seed):
        val = blob_splits(seed).val
        return val[val.targets == seed]

    made = compare({"always": tried}, blob_splits, seeds=range(2), choose="each seed", choose_on=of_one_class)
    assert made.chosen["always"] == [0, 1]
    assert made.val["always"] == [[1.0, 0.0], [0.0, 1.0]]
    assert [entry.choosing for entry in made.ledgers["always"]] == [len(of_one_class(seed)) for seed in range(2)]


def test_settings_are_chosen_and_methods_compared_by_another_score(blob_splits):
    """What is always said is found; what is never said is not, however often that is right."""

    def share_of_first_class(run, data):
        return (run.decide(data) == 0).double().mean()

    tried = [Candidate(Always(label), {"label": label}) for label in range(2)]
    made = compare({"always": tried, "second": Always(1)}, blob_splits, seeds=range(2), score=share_of_first_class)
    assert (made.val["always"], made.setting("always")) == ([[1.0, 1.0], [0.0, 0.0]], {"label": 0})
    assert made.test == {"always": [1.0, 1.0], "second": [0.0, 0.0]}
    assert "test share of first class, %" in made.table().columns
    assert "by the mean validation share of first class over the seeds" in made._repr_html_()
    assert Comparison.from_dict(made.to_dict()) == made
    usual = compare({"accuracy": Always(1)}, blob_splits, seeds=range(2))
    assert "test accuracy, %" in usual.table().columns
    with pytest.raises(ValueError, match="they cannot be joined"):
        made | usual


def test_contrasts_are_the_family_that_is_corrected(blob_splits, teacher):
    methods = {
        "labels": BASE,
        "teacher": BASE.taught_by(teacher, SoftTargets),
        "linear": Classical(LogisticRegression()),
    }
    planned = [("linear", "labels"), ("teacher", "labels")]
    result = compare(methods, blob_splits, seeds=range(4), contrasts=planned)
    table = result.planned()
    gaps = [result.difference(*pair) for pair in planned]
    assert list(table.index) == ["linear − labels", "teacher − labels"]
    assert list(table["p, Holm"]) == [round(p, 4) for p in holm([gap.p for gap in gaps])]
    assert list(table["difference [95 % interval]"]) == [str(gap) for gap in gaps]
    assert "What it was made for" in result._repr_html_()
    assert len(result.planned([("teacher", "linear")])) == 1
    assert Comparison.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_letters_are_shown_below_thirty_pairs():
    def made(count):
        names = [f"m{number}" for number in range(count)]
        noise = torch.randn(count, 5, generator=torch.Generator().manual_seed(0)) / 100
        return Comparison(
            test=dict(zip(names, noise.tolist(), strict=True)), val={n: [[0.0] * 5] for n in names},
            settings={n: [{}] for n in names}, chosen={n: [0] * 5 for n in names}, choose="mean",
            ledgers={n: [Ledger()] * 5 for n in names}, seeds=[*range(5)], reference="m0",
        )  # fmt: skip

    assert "group" in made(8).table()
    assert "group" not in made(9).table()
    assert "group" not in made(2).table()
    assert set("".join(groups(made(30).test).values())) >= {"A"}


def test_a_comparison_is_cut_and_joined(comparison):
    cut = comparison.part(["teacher", "labels"])
    assert (list(cut.test), cut.reference) == (["teacher", "labels"], "labels")
    assert comparison.part(["teacher", "logistic regression"]).reference == "teacher"
    assert cut.setting("teacher") == comparison.setting("teacher")
    again = comparison.part(["labels", "teacher"]) | comparison.part(["logistic regression"])
    assert again == comparison
    with pytest.raises(ValueError, match="both comparisons have 'labels'; take parts of them first"):
        _ = comparison | cut.part(["labels"])


def test_an_interval_prints_itself():
    gap = Interval(0.024, 0.017, 0.031, 0.01)
    assert (str(gap), f"{gap}", f"{-0.5:.1f}") == ("+2.4 [1.7, 3.1]", "+2.4 [1.7, 3.1]", "-0.5")
    assert f"{Interval(-0.25, -0.5, 0.0, 0.1):.2f}" == "−0.25 [−0.50, 0.00]"


# Ledgers


def test_ledgers_add():
    first = Ledger(labels=100, steps=5, seconds=1.0, pretraining="ImageNet")
    second = Ledger(
        labels=80, unlabeled=9, choosing=20, steps=6, seconds=2.0, teacher_labels=50, pretraining="ImageNet"
    )
    both = first + second
    assert both == Ledger(100, 20, 50, 9, "ImageNet", 11, 3.0)
    assert (first + dataclasses.replace(second, teacher_labels=None)).teacher_labels is None
    assert (first + Ledger(pretraining="rotations")).pretraining == "ImageNet; rotations"
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.labels = 3


def test_a_teacher_knows_what_it_cost(blob_splits):
    net = nn.Linear(4, 3)
    assert Teacher(net).labels is None
    assert Teacher(Teacher(net, labels=5, pretraining="ImageNet")).labels == 5
    net.card = {"labels": 7}
    assert (Teacher(net).labels, Teacher(net, labels=0).labels) == (7, 0)
    taught = BASE.taught_by(Teacher(net, pretraining="ImageNet"), SoftTargets).train(blob_splits(0), 0)
    assert (taught.ledger.teacher_labels, taught.ledger.pretraining) == (7, "ImageNet")
    with pytest.raises(ValueError, match="labels is -1; it must be 0 or more"):
        Teacher(net, labels=-1)


def test_behind_a_students_student_stand_the_first_teachers_labels(blob_splits, teacher):
    first = BASE.taught_by(teacher, SoftTargets)
    second = BASE.taught_by(first, SoftTargets).train(blob_splits(0), 0)
    assert (second.ledger.labels, second.ledger.teacher_labels) == (60, 77)


# Words


def test_taught_by_a_method_each_seed_has_its_own_teacher(blob_splits):
    once = Once(BASE)
    result = compare({"labels": once, "taught": BASE.taught_by(once, SoftTargets)}, blob_splits, seeds=range(3))
    for run, teacher_run in zip(result.trained["taught"], result.trained["labels"], strict=True):
        assert run.objective.teachers()[0].model is teacher_run.model
        assert run.ledger.teacher_labels == 60
    again = compare({"taught": BASE.taught_by(result.source("labels"), SoftTargets)}, blob_splits, seeds=range(3))
    assert again.test["taught"] == result.test["taught"]


def test_a_teacher_is_asked_once_for_all_settings(blob_splits, teacher):
    counting = Counting()
    asked = counting.asked
    splits = blob_splits(0)
    tried = grid(BASE.taught_by(counting, SoftTargets, on="all"), temperature=(1.0, 2.0, 4.0), lr=(0.1, 0.2))
    compare({"taught": tried}, lambda seed: splits, seeds=range(2))
    assert sum(asked) == len(splits.train) + len(splits.transfer)
    asked.clear()
    BASE.taught_by(counting, SoftTargets, temperature=2.0).but(augment=lambda x: x + 1).train(splits, 0)
    assert len(asked) == BASE.settings.steps


def test_answers_computed_once_are_those_of_the_loop(blob_splits, teacher):
    splits = blob_splits(0)
    taught = BASE.taught_by(teacher, SoftTargets, temperature=2.0)
    by_hand = BASE.but(objective=SoftTargets(teacher, temperature=2.0)).train(splits, 0)
    carried = BASE.but(objective=SoftTargets(teacher, temperature=2.0), train_data=lambda s: cache(teacher, s.train))
    for run in (taught.train(splits, 0), carried.train(splits, 0)):
        torch.testing.assert_close(run.model.weight, by_hand.model.weight, rtol=0, atol=1e-6)


def test_another_start_adds_what_it_cost(blob_splits):
    first = Once(BASE)
    tuned = BASE.but(start=first, steps=3)
    run = tuned.train(blob_splits(0), 0)
    assert run.ledger.steps == 9
    assert run.history.steps[0]["loss"] < first.train(blob_splits(0), 0).history.steps[0]["loss"]
    named = tuned.but(pretraining="blobs").train(blob_splits(0), 0)
    assert (named.ledger.steps, named.ledger.pretraining) == (3, "blobs")
    new_head = BASE.but(start=first, change=lambda model: nn.Sequential(model, nn.Linear(3, 3)))
    assert len(new_head.train(blob_splits(0), 0).model) == 2
    assert first.train(blob_splits(0), 0).model.weight.shape == (3, 4)


def test_a_start_can_be_pulled_back_to(blob_splits):
    start = per_seed(lambda seed: nn.Linear(4, 3))

    def near(start, weight=1.0):
        return Supervised() + weight * L2SP(start.model)

    recipe = BASE.but(start=start).taught_by(start, near)
    far, close = (recipe.but(weight=weight).train(blob_splits(0), 0).model for weight in (0.0001, 100.0))
    began = start(None, 0)
    assert (close.weight - began.weight).norm() < (far.weight - began.weight).norm()


def test_rows_of_a_classical_method_weigh_as_much_as_said(blob_splits):
    def first_alone(data):
        return (torch.arange(len(data)) < 30).numpy().astype(float)

    splits = blob_splits(0)
    fewer = splits._replace(train=splits.train[:30])
    for estimator in (LogisticRegression(), make_pipeline(LogisticRegression())):
        weighed, alone = (
            method.train(given, 0).logits(splits.test)
            for method, given in ((Classical(estimator, weights=first_alone), splits), (Classical(estimator), fewer))
        )
        assert torch.allclose(weighed, alone, atol=1e-3)


def test_names_are_no_labels(blob_splits):
    splits = blob_splits(0)
    itself = Classical(LogisticRegression())
    run = NamedBy(itself, itself).train(splits, 0)
    assert (run.ledger.labels, run.ledger.unlabeled, run.ledger.teacher_labels) == (60, 30, 60)
    first = itself.train(splits, 0)
    by_hand = splits.train.with_rows(splits.transfer.without_labels())
    assert len(by_hand) == 90
    sure = NamedBy(BASE.but(batch_size=200, steps=1), itself, sure=0.999999).train(splits, 0)
    assert sure.history.ledger.labels < 90
    assert first.accuracy(splits.val) > 0.5
    assert NamedBy(BASE, itself).but(sure=0.5, lr=0.2).method.strategy.lr == 0.2


def test_rows_that_are_named_keep_their_columns(blob_splits):
    train, transfer, *rest = blob_splits(0)
    numbered = (
        TensorData(part.inputs, part.targets, columns={"number": torch.arange(len(part))}) for part in (train, transfer)
    )
    learned = []

    class Seen:
        def train(self, splits, seed):
            learned.append(splits.train)
            return itself.train(Splits(train, transfer, *rest), seed)

    itself = Classical(LogisticRegression())
    NamedBy(Seen(), itself).train(Splits(*numbered, *rest), 0)
    assert learned[0].rows(slice(58, 62))["number"].tolist() == [58, 59, 0, 1]


def test_members_are_an_ensemble_of_seeds_that_nothing_else_has(blob_splits):
    run = Members(BASE, 3).train(blob_splits(0), 1)
    assert run.ledger.steps == 3 * BASE.settings.steps
    assert run.ledger.labels == 60
    seeds = [BASE.train(blob_splits(0), 1003 + member).model.weight for member in range(3)]
    assert all(torch.equal(one.weight, other) for one, other in zip(run.model.members, seeds, strict=True))


def test_a_part_of_the_way_back(blob_splits):
    start = per_seed(lambda seed: nn.Linear(4, 3))
    whole = BASE.but(start=start)
    half = Interpolated(whole).but(alpha=0.5).train(blob_splits(0), 0).model.weight
    torch.testing.assert_close(half, (start(None, 0).weight + whole.train(blob_splits(0), 0).model.weight) / 2)


def test_a_classical_method_teaches_by_what_it_knows(blob_splits):
    splits = blob_splits(0)
    sure, probable = (Classical(estimator).train(splits, 0) for estimator in (SVC(), LogisticRegression()))
    assert set(sure.logits(splits.val).unique().tolist()) == {0.0, 10.0}
    assert torch.equal(sure.logits(splits.val).argmax(-1), sure.decide(splits.val))
    torch.testing.assert_close(probable.logits(splits.val).exp().sum(-1), torch.ones(len(splits.val)))
    assert Teacher(Answering(sure)).fingerprint() == Teacher(Answering(sure)).fingerprint()
    other = Classical(SVC(C=0.01)).train(splits, 0)
    assert Teacher(Answering(sure)).fingerprint() != Teacher(Answering(other)).fingerprint()
    unnamed = sure.but(decides=lambda data: data.targets)
    assert Teacher(Answering(unnamed)).fingerprint() != Teacher(Answering(unnamed)).fingerprint()
    taught = BASE.taught_by(Classical(SVC()), HardTargets, on="all").train(splits, 0)
    assert (taught.ledger.teacher_labels, taught.ledger.unlabeled) == (60, 30)
    on_double = OnFeatures(Classical(LogisticRegression()), lambda data: data.with_inputs(2 * data.inputs))
    assert BASE.taught_by(on_double, SoftTargets).train(splits, 0).ledger.teacher_labels == 60


def test_other_data_may_be_given(blob_splits):
    fewer = Given(BASE, lambda splits, seed: splits._replace(train=splits.train[: 30 + seed]))
    assert [fewer.train(blob_splits(0), seed).ledger.labels for seed in (0, 1)] == [30, 31]
    assert grid(fewer, lr=0.3)[0].method.method.strategy.lr == 0.3


# Kept runs


class Mortal:
    """Dies in its so-many-th run."""

    def __init__(self, lives):
        self.lives = lives

    def __repr__(self):
        return "Mortal()"

    def train(self, splits, seed):
        self.lives -= 1
        if self.lives < 0:
            raise KeyboardInterrupt
        return BASE.train(splits, seed)


def test_an_interrupted_comparison_goes_on_where_it_was(blob_splits, tmp_path):
    whole = compare({"a": Mortal(9), "b": BASE}, blob_splits, seeds=range(3))
    with pytest.raises(KeyboardInterrupt):
        compare({"a": Mortal(2), "b": BASE}, blob_splits, seeds=range(3), keep=tmp_path)
    assert len(list(tmp_path.glob("*.pt"))) == 4
    second = Mortal(1)
    again = compare({"a": second, "b": BASE}, blob_splits, seeds=range(3), keep=tmp_path)
    assert (again.test, again.val) == (whole.test, whole.val)
    assert second.lives == 0
    assert not list(tmp_path.glob("*.part"))


def test_a_run_of_another_method_or_of_other_data_is_refused(blob_splits, tmp_path):
    compare({"a": BASE}, blob_splits, seeds=range(2), keep=tmp_path)
    with pytest.raises(ValueError, match="is another run of a"):
        compare({"a": BASE.but(lr=0.5)}, blob_splits, seeds=range(2), keep=tmp_path)
    taught = [BASE.taught_by(BASE.but(lr=lr), SoftTargets) for lr in (0.1, 0.2)]
    compare({"taught": taught[0]}, blob_splits, seeds=range(2), keep=tmp_path)
    with pytest.raises(ValueError, match="is another run of taught"):
        compare({"taught": taught[1]}, blob_splits, seeds=range(2), keep=tmp_path)
    other = blob_splits(0)._replace(train=blob_splits(0).train[:50])
    with pytest.raises(ValueError, match="the method, the data or the program has changed since"):
        compare({"a": BASE}, lambda seed: other, seeds=range(2), keep=tmp_path)


def test_a_program_is_what_it_loads_from_beside_itself_too(tmp_path, monkeypatch):
    def digest(*names):
        for name in names:
            module = types.ModuleType(name)
            module.__file__ = str(tmp_path / f"{name}.py")
            monkeypatch.setitem(sys.modules, name, module)
        return kept._code.__wrapped__()

    for name in ("__main__", "parts", "unused"):
        (tmp_path / f"{name}.py").write_text(f"# {name}", encoding="utf-8")
    alone = digest("__main__")
    first = digest("parts")
    assert first != alone
    (tmp_path / "unused.py").write_text("# another", encoding="utf-8")
    assert digest() == first
    (tmp_path / "parts.py").write_text("# another", encoding="utf-8")
    assert digest() not in (first, alone)


def test_what_cannot_be_kept_is_said(blob_splits, tmp_path):
    local = BASE.but(
        objective=lambda: Supervised(label_smoothing=0.1), model=lambda: type("Own", (nn.Linear,), {})(4, 3)
    )
    with pytest.warns(UserWarning, match="cannot be kept, and would be trained again"):
        kept = compare({"a": local}, blob_splits, seeds=range(2), keep=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kept.test == compare({"a": local}, blob_splits, seeds=range(2)).test


def test_an_interrupted_program_goes_on_and_forgets_its_runs_when_they_are_recorded(
    blob_splits, tmp_path, monkeypatch, capsys
):
    results = tmp_path / "kdft_lib/assets/results"
    results.mkdir(parents=True)
    monkeypatch.setattr(records.resources, "files", lambda package: tmp_path / package)
    monkeypatch.setattr("sys.argv", ["recipes/blobs.py", "first", "second"])

    def program(first, again, never):
        def experiment(mortal, **options):
            asked = {"a": mortal}
            found = {"blobs": compare(asked, blob_splits, seeds=range(2), **options)}
            # The same methods on the same splits share their runs, whatever they are chosen by.
            compare(asked, blob_splits, seeds=range(2), choose_on=lambda seed: blob_splits(seed).train, **options)
            return found

        return {
            "first": lambda: experiment(first),
            "second": lambda: experiment(Mortal(2)) | {"again": experiment(again)["blobs"]},
            "never": lambda: experiment(never, keep=False),
        }

    with pytest.raises(KeyboardInterrupt):
        experiments.record_all(program(Mortal(2), Mortal(1), Mortal(0)), folder=tmp_path / "runs")
    assert "run/s" in capsys.readouterr().err, "nobody watches, and there is a bar"
    assert [path.name for path in results.iterdir()] == ["first.json"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["second"]
    assert len(list((tmp_path / "runs/second").rglob("*.pt"))) == 3
    for number, path in enumerate(sorted((tmp_path / "runs/second").rglob("*.pt")), 1):
        torch.save(torch.load(path, weights_only=False) | {"seconds": 6000.0 * number}, path)
    again = Mortal(1)
    experiments.record_all(program(Mortal(0), again, Mortal(0)), ["second"], folder=tmp_path / "runs")
    assert (again.lives, list((tmp_path / "runs").iterdir())) == (0, [])
    about = json.loads((results / "second.json").read_text(encoding="utf-8"))["about"]
    assert about["command"] == "python recipes/blobs.py second"
    assert 600 <= about["minutes"] < 601, "what its runs took before is counted, and once"
    with pytest.raises(KeyboardInterrupt):
        experiments.record_all(program(Mortal(0), again, Mortal(1)), ["never"], folder=tmp_path / "runs")
    assert not list((tmp_path / "runs").rglob("*.pt")), "it was told to keep nothing"
    capsys.readouterr()
    compare({"a": BASE}, blob_splits, seeds=range(2))
    assert not list((tmp_path / "runs").rglob("*.pt")), "nothing is recorded any more"
    assert not capsys.readouterr().err


def test_an_experiment_that_is_not_there_is_named_before_anything_runs():
    with pytest.raises(ValueError, match=r"names has 'b'; choose among a"):
        experiments.record_all({"a": lambda: pytest.fail("it ran")}, ["a", "b"])


def test_a_record_names_the_commit_of_the_code(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_PACKAGE", tmp_path / "kdft_lib")
    assert records.commit() is None
    (tmp_path / "kdft_lib/assets/results").mkdir(parents=True)
    (tmp_path / "kdft_lib/__init__.py").write_text("")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert records.commit() is None, "the package is not in the repository"
    (tmp_path / "kdft_lib/assets/results/x.json").write_text("1")
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    assert len(records.commit()) == 40
    (tmp_path / "kdft_lib/assets/results/x.json").write_text("2")
    assert len(records.commit()) == 40, "a new result is no change of the code"
    (tmp_path / "kdft_lib/__init__.py").write_text("changed")
    assert records.commit().endswith("+")
    for path in (Path(experiments.__file__).parents[1] / "assets/results").iterdir():
        assert "commit" in json.loads(path.read_text(encoding="utf-8"))["about"]


def test_a_pickled_run_needs_nothing_but_the_package(blob_splits, tmp_path):
    run = OnFeatures(Classical(LogisticRegression()), twice).train(blob_splits(0), 0)
    torch.save(run, tmp_path / "run.pt")
    again = torch.load(tmp_path / "run.pt", weights_only=False)
    assert torch.equal(again.decide(blob_splits(0).val), run.decide(blob_splits(0).val))


def twice(data):
    return data.with_inputs(2 * data.inputs)


# What would go wrong in silence


def test_candidates_that_look_alike_are_kept_apart(blob_splits, tmp_path):
    class Same:
        def __init__(self, right):
            self.right = right

        def __repr__(self):
            return "Same()"

        def train(self, splits, seed):
            torch.manual_seed(int(self.right))
            return Trained(nn.Linear(4, 3), Ledger(steps=int(self.right)))

    for _ in range(2):
        made = compare({"a": [Same(False), Same(True)]}, blob_splits, seeds=range(2), keep=tmp_path)
    assert len(list(tmp_path.glob("*.pt"))) == 4
    runs = [torch.load(path, weights_only=False)["trained"].ledger.steps for path in tmp_path.glob("*.pt")]
    assert sorted(runs) == [0, 0, 1, 1]
    assert made.val["a"][0] != made.val["a"][1]


def test_another_start_is_another_run(blob_splits, tmp_path):
    first, second = nn.Linear(4, 3), nn.Linear(4, 3)
    compare({"a": BASE.but(start=first)}, blob_splits, seeds=range(2), keep=tmp_path)
    with pytest.raises(ValueError, match="is another run of a"):
        compare({"a": BASE.but(start=second)}, blob_splits, seeds=range(2), keep=tmp_path)


def told(trained, splits, seed):
    return trained.but(decides=Shifted(trained))


class Shifted:
    def __init__(self, trained):
        self.trained = trained

    def __call__(self, data):
        return (self.trained.decide(data) + 1) % 3


def test_something_is_made_of_any_source(blob_splits):
    model = nn.Linear(4, 3)
    for source in (model, lambda splits, seed: model, Once(Given(BASE.but(start=model), lambda splits, seed: splits))):
        made = Then(source, lambda trained, splits, seed: trained.but(model=nn.Linear(4, seed), unlabeled=seed))
        trained = made.train(blob_splits(0), 5)
        assert (trained.model.out_features, trained.ledger.unlabeled) == (5, 5)


def test_features_reach_whoever_decides_and_whoever_needs_no_label(blob_splits):
    splits = blob_splits(0)
    plain = OnFeatures(Then(Classical(LogisticRegression()), told), twice).train(splits, 0)
    by_hand = Classical(LogisticRegression()).train(splits._replace(train=twice(splits.train)), 0)
    assert torch.equal(plain.decide(splits.test), (by_hand.decide(twice(splits.test)) + 1) % 3)
    seen = []

    def watched(data):
        seen.append(len(data))
        return twice(data)

    OnFeatures(BASE.taught_by(nn.Linear(4, 3), SoftTargets, on="all"), watched).train(splits, 0)
    assert seen == [len(splits.train), len(splits.transfer)]
    members = Members(OnFeatures(BASE, twice), 2).train(splits, 0).model
    alone = [OnFeatures(BASE, twice).train(splits, 1000 + member).logits(splits.test) for member in range(2)]
    wanted = torch.stack([one.softmax(-1) for one in alone]).mean(0)
    torch.testing.assert_close(members(splits.test.inputs).softmax(-1), wanted)


def test_a_classical_teacher_that_missed_a_class_names_the_others_rightly(blob_splits):
    splits = blob_splits(0)
    known = splits.train[splits.train.targets != 1]
    for estimator in (LogisticRegression(), SVC()):
        run = Classical(estimator).train(splits._replace(train=known), 0)
        logits = run.logits(splits.test)
        assert logits.shape == (len(splits.test), 3)
        assert torch.equal(logits.argmax(-1), run.decide(splits.test))


def test_what_has_no_label_is_neither_learned_nor_scored(blob_splits):
    splits = blob_splits(0)
    some = splits.train.with_rows(splits.transfer)
    run = Classical(LogisticRegression()).train(splits._replace(train=some), 0)
    assert run.ledger.labels == 60
    assert run.accuracy(splits.val.with_rows(splits.transfer)) == run.accuracy(splits.val)


def test_what_was_known_before_adds_up(blob_splits):
    taught = BASE.but(pretraining="rotations").taught_by(Teacher(nn.Linear(4, 3), pretraining="ImageNet"), SoftTargets)
    assert taught.train(blob_splits(0), 0).ledger.pretraining == "ImageNet; rotations"
    unknown = NamedBy(Classical(LogisticRegression()), nn.Linear(4, 3)).train(blob_splits(0), 0)
    assert unknown.ledger.teacher_labels is None


def test_a_part_made_by_a_function_is_asked_about_once(blob_splits):
    counting = Counting()
    asked = counting.asked
    bare = BASE.but(train_data=lambda parts: parts.train.without_labels())
    taught = bare.taught_by(counting, SoftTargets, kd_weight=1.0, ce_weight=0.0)
    splits = blob_splits(0)
    compare({"a": grid(taught, lr=(0.1, 0.2, 0.3))}, lambda seed: splits, seeds=range(2))
    assert asked == [60]


def test_a_recipe_may_keep_its_best_epoch(blob_splits):
    run = BASE.but(epochs=3, keep_best=True).train(blob_splits(0), 0)
    assert run.history.best_epoch is not None
    assert run.ledger.choosing == len(blob_splits(0).val)
    for option in ("seed", "checkpoint_dir"):
        with pytest.raises(ValueError, match=f"{option} differs from run to run, so a Recipe has none"):
            BASE.but(**{option: 3})


def test_a_record_teaches_nobody(comparison):
    read = Comparison.from_dict(json.loads(json.dumps(comparison.to_dict())))
    with pytest.raises(ValueError, match="a record holds no models, so 'teacher' has none"):
        read.source("teacher")
    with pytest.raises(ValueError, match="seed is 9; choose one of 0, 1, 2"):
        read.setting("teacher", seed=9)


def test_what_is_not_a_number_is_never_chosen_and_is_named(blob_splits):
    class Diverged:
        def train(self, splits, seed):
            return Classical(LogisticRegression()).train(splits, seed).but(decides=lambda data: None)

    def score(trained, data):
        return float("nan") if trained.decides is not None else 0.5

    sound = Classical(LogisticRegression())
    found = compare({"both": [Diverged(), sound], "sound": [sound, sound]}, blob_splits, seeds=range(2), score=score)
    assert found.test["both"] == [0.5, 0.5]
    with pytest.warns(UserWarning, match="the score of diverged, seed 1, is not a number"):
        compare({"diverged": Diverged(), "sound": sound}, blob_splits, seeds=range(2), score=score)


def test_what_is_not_a_number_does_not_disturb_the_correction_of_others():
    assert experiments.statistics.holm([0.03, float("nan"), 0.01]) == pytest.approx([0.06, 1.0, 0.03])


def test_a_run_of_a_model_that_cannot_be_pickled_is_named_and_goes_on(blob_splits, tmp_path):
    class Parametrised:
        def train(self, splits, seed):
            model = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
            return Classical(LogisticRegression()).train(splits, seed).but(model=model)

    with pytest.warns(UserWarning, match="cannot be kept, and would be trained again"):
        found = compare({"a": Parametrised(), "b": Parametrised()}, blob_splits, seeds=range(2), keep=tmp_path)
    assert len(found.test["a"]) == 2


def test_bodies_that_differ_are_told_apart():
    bodies = [nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)) for _ in range(2)]
    first, same, other = (repr(Remembered(body, "1")) for body in (bodies[0], bodies[0], bodies[1]))
    assert first == same != other


def test_a_seed_reaches_the_parts_of_a_pipeline(blob_splits):
    method = Classical(make_pipeline(RandomForestClassifier(3, max_features=1)))
    first, second = (method.train(blob_splits(0), 5).model.predict_proba(blob_splits(0).test.inputs) for _ in range(2))
    assert (first == second).all()


def test_kept_runs_are_told_by_what_was_answered(blob_splits, tmp_path):
    splits = blob_splits(0)

    def answered(sign):
        said = splits.train.with_teacher_logits(sign * torch.eye(3)[splits.train.targets], "an API")
        return lambda seed: splits._replace(train=said)

    method = BASE.but(objective=SoftTargets(ce_weight=0.0))
    compare({"taught": method}, answered(1.0), seeds=range(2), keep=tmp_path)
    compare({"taught": method}, answered(1.0), seeds=range(2), keep=tmp_path)
    with pytest.raises(ValueError, match="is another run of taught"):
        compare({"taught": method}, answered(-1.0), seeds=range(2), keep=tmp_path)


def test_features_are_what_a_method_validates_by_too(blob_splits):
    wide = OnFeatures(
        BASE.but(model=lambda: nn.Linear(8, 3), keep_best=True), lambda data: data.with_inputs(data.inputs.repeat(1, 2))
    )
    assert wide.train(blob_splits(0), 0).accuracy(blob_splits(0).test) > 0.3
    alone = blob_splits(0)._replace(transfer=blob_splits(0).transfer[:0])
    assert wide.but(transfer_data="transfer").train(alone, 0).ledger.unlabeled == 0
    itself = Classical(LogisticRegression())
    assert NamedBy(itself, itself).train(alone, 0).ledger.labels == 60


def test_what_was_trained_alike_on_features_has_one_number(blob_splits):
    made = [OnFeatures(Classical(LogisticRegression()), module_doubled).train(blob_splits(0), 0) for _ in range(2)]
    assert trained_parts._told(made[0]) == trained_parts._told(made[1])


def module_doubled(data):
    return data.with_inputs(2 * data.inputs)


def test_a_recipe_on_labels_leaves_the_other_inputs_out():
    both = BASE.taught_by(BASE, SoftTargets, on="all")
    assert both.transfer_data == "transfer"
    assert both.taught_by(BASE, SoftTargets).transfer_data is None
    with pytest.raises(ValueError, match="on is 'every'"):
        BASE.taught_by(BASE, SoftTargets, on="every")


def test_an_estimator_teaches_a_student_that_takes_keywords():
    class Named(nn.Linear):
        def forward(self, features):
            return super().forward(features)

    data = TensorData({"features": torch.eye(2).repeat(5, 1)}, torch.tensor([0, 1]).repeat(5))
    trained = Trained(LogisticRegression(), Ledger(), shown=lambda data: data.inputs["features"].numpy())
    trained.model.fit(data.inputs["features"].numpy(), data.targets.numpy())
    objective = SoftTargets(Answering(trained), ce_weight=0.0)
    training.fit(Named(2, 2), data, objective=objective, strategy=FullFineTuning(lr=0.1), steps=2)
