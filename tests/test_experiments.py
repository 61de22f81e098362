from __future__ import annotations

import json

import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from torch import nn

from kdft_lib import experiments
from kdft_lib.experiments import (
    Classical,
    Comparison,
    OnFeatures,
    PerSeed,
    Recipe,
    compare,
    groups,
    holm,
    paired_interval,
    records,
)
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning

BASE = Recipe(lambda: nn.Linear(4, 3), Supervised(), FullFineTuning(lr=0.05), steps=6, batch_size=20)


@pytest.fixture(scope="module")
def teacher():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    model.card = {"labels": 77}
    return model


@pytest.fixture
def comparison(blob_splits, teacher):
    methods = {
        "labels": BASE,
        "teacher": [
            BASE.but(objective=SoftTargets(teacher, temperature=T), transfer_data=lambda s: s.transfer)
            for T in (1.0, 4.0)
        ],
        "logistic regression": Classical(LogisticRegression()),
    }
    return compare(methods, blob_splits, seeds=range(3))


def test_a_comparison_scores_every_method_on_every_seed(comparison):
    assert {name: len(scores) for name, scores in comparison.test.items()} == dict.fromkeys(comparison.test, 3)
    assert [len(settings) for settings in comparison.val.values()] == [1, 2, 1]
    assert comparison.table().loc["labels", "difference [95 % interval]"] == "reference"
    html = comparison._repr_html_()
    assert all(word in html for word in ("group", "Ledger", "logistic regression", "settings tried"))


def test_scores_are_those_of_the_models(comparison, blob_splits):
    test = blob_splits(0).test
    for name, trained in comparison.trained.items():
        for score, one in zip(comparison.test[name], trained, strict=True):
            assert score == pytest.approx((one.decide(test) == test.targets).double().mean().item())


def test_the_setting_is_chosen_on_validation(comparison):
    for name, settings in comparison.val.items():
        means = [sum(scores) for scores in settings]
        assert comparison.chosen[name] == means.index(max(means))


def test_the_test_set_has_no_say_in_the_choice(blob_splits):
    """A setting that is perfect on test and poor on validation is not chosen."""

    class Cheating:
        def __init__(self, good_on):
            self.good_on = good_on

        def train(self, splits, seed):
            truth = {len(splits.val): splits.val.targets, len(splits.test): splits.test.targets}
            good = splits.val if self.good_on == "val" else splits.test
            blank = {
                "labels": 0,
                "unlabeled": 0,
                "steps": 0,
                "seconds": 0.0,
                "teacher_labels": 0,
                "pretraining": "none",
            }
            return experiments.Trained(
                lambda data: truth[len(data)] if data is good else torch.full((len(data),), -1), blank, None
            )

    def splits(seed):
        parts = blob_splits(seed)
        return parts._replace(test=parts.test[:29])

    result = compare({"a": [Cheating("test"), Cheating("val")], "b": Cheating("val")}, splits, seeds=range(2))
    assert result.chosen["a"] == 1
    assert result.test["a"] == [0.0, 0.0]


def test_the_test_set_is_never_shown_to_a_setting_that_was_not_chosen(blob_splits):
    class Watched:
        def __init__(self, guess):
            self.guess, self.shown = guess, []

        def train(self, splits, seed):
            def decide(data):
                self.shown.append(len(data))
                return torch.full((len(data),), self.guess)

            blank = dict.fromkeys(("labels", "unlabeled", "steps", "seconds", "teacher_labels"), 0)
            return experiments.Trained(decide, blank | {"pretraining": "none"}, None)

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
    assert (trained.ledger["pretraining"], trained.ledger["labels"]) == ("none of it", len(splits.train))


def test_seeds_are_shared_and_repeatable(blob_splits, comparison, teacher):
    again = compare({"labels": BASE, "the same": BASE}, blob_splits, seeds=range(3))
    assert again.test["labels"] == again.test["the same"] == comparison.test["labels"]
    starts = [again.trained[name][1].history.steps[0]["loss"] for name in ("labels", "the same")]
    assert starts[0] == starts[1]
    assert again.trained["labels"][0].history.steps[0]["loss"] != starts[0]


def test_the_ledger_is_what_was_run(comparison):
    ledger = comparison.ledger()
    assert list(ledger.loc["labels"][["labels", "to choose", "teacher's labels", "unlabeled", "steps"]]) == [
        "60",
        "0",
        "0",
        "0",
        "6",
    ]
    assert list(ledger.loc["teacher"][["labels", "to choose", "teacher's labels", "unlabeled"]]) == [
        "60",
        "30",
        "77",
        "30",
    ]
    assert ledger.loc["teacher", "settings tried"] == 2
    assert ledger.loc["logistic regression", "steps"] == "0"


def test_a_recipe_is_changed_for_each_seed(blob_splits):
    """A teacher of each seed's own: it teaches that seed's student, and nothing else of the recipe changes."""
    taught = []

    def changes(splits, seed):
        own = BASE.train(splits, seed).model
        taught.append(own)
        return {"objective": SoftTargets(own, temperature=1.0)}

    result = compare({"labels": BASE, "own": PerSeed(BASE, changes)}, blob_splits, seeds=range(3))
    assert [run.objective.teachers()[0].model for run in result.trained["own"]] == taught
    assert [run.ledger["steps"] for run in result.trained["own"]] == [BASE.steps] * 3
    with pytest.raises(ValueError, match="the budgets differ"):
        compare({"labels": BASE, "own": PerSeed(BASE.but(steps=7), changes)}, blob_splits)


def test_further_measures_are_of_the_chosen_setting_and_the_seeds_splits(blob_splits, teacher):
    methods = {"labels": [BASE.but(strategy=FullFineTuning(lr=lr)) for lr in (1e-6, 0.05)], "teacher": BASE}
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


def test_a_teacher_without_a_card_is_unknown_in_the_ledger(blob_splits):
    result = compare({"a": BASE, "b": BASE.but(objective=SoftTargets(nn.Linear(4, 3)))}, blob_splits, seeds=range(2))
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
    assert {"command", "date", "hardware", "versions", "python"} < again.about.keys()
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
        for comparison in result.values():
            assert isinstance(comparison, Comparison)
            assert all(len(scores) == len(comparison.seeds) >= 5 for scores in comparison.test.values())
