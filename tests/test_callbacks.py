"""What watches a run may end it, and what it ends with is chosen by any score."""

from __future__ import annotations

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics.classification import MulticlassF1Score

from kdft_lib.data import TensorData
from kdft_lib.experiments import Recipe
from kdft_lib.objectives import LogitMatching, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import EarlyStopping, History, RunState, evaluate, fit, predict

FULL = FullFineTuning(lr=1e-2)


class Watch:
    """Remembers what it is told, and says False at one step or epoch."""

    def __init__(self, *, step=None, epoch=None):
        self.step, self.epoch, self.told = step, epoch, []

    def on_step_end(self, state):
        self.told.append(("step", state.step, state.epoch, dict(state.scores), len(state.history.steps)))
        return state.step != self.step

    def on_epoch_end(self, state):
        self.told.append(("epoch", state.step, state.epoch, dict(state.scores), len(state.history.epochs)))
        return None if state.epoch != self.epoch else False


class Counter:
    """Stops after so many steps, which it counts itself."""

    def __init__(self, after):
        self.after, self.seen = after, torch.tensor(0)

    def on_step_end(self, state):
        self.seen += 1
        return self.seen < self.after  # A tensor, as a comparison of torch's gives.

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def run(net, data, **more):
    torch.manual_seed(3)
    model = net()
    arguments = {
        "objective": Supervised(), "strategy": FULL, "epochs": 4, "batch_size": 40, "val_data": data,
        "schedule": "constant",
    } | more  # fmt: skip
    return model, fit(model, data, **arguments)


def test_callbacks_are_told_where_the_run_is(net, blobs):
    watch = Watch()
    _, history = run(net, blobs, callbacks=[watch], metrics={"f1": MulticlassF1Score(3)}, epochs=2)
    steps = [told[1:3] for told in watch.told if told[0] == "step"]
    assert steps == [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1)]
    assert [told[0] for told in watch.told] == 2 * ["step", "step", "step", "epoch"]
    assert [told[4] for told in watch.told] == [1, 2, 3, 1, 4, 5, 6, 2], "the record has what just happened"
    for kind, _, epoch, seen, _ in watch.told:
        expected = {name: history.epochs[epoch][f"val_{name}"] for name in ("accuracy", "loss", "f1")}
        assert seen == (expected if kind == "epoch" else {})
    assert not history.stopped
    run(net, blobs, callbacks=[watch], epochs=1, val_data=None)
    assert watch.told[-1][3] == {}


@pytest.mark.parametrize("more", [{}, {"keep_best": True}, {"ema_decay": 0.9}, {"keep_best": "loss", "ema_decay": 0.9}])
@pytest.mark.parametrize("at", [{"step": 7}, {"step": 6}, {"epoch": 1}])
def test_a_stopped_run_ends_like_one_whose_budget_was_that(net, blobs, state_bytes, assert_same_bits, at, more):
    stopped, history = run(net, blobs, callbacks=[Watch(), Watch(**at), Watch()], **more)
    whole, expected = run(net, blobs, epochs=None, steps=at.get("step", 6), **more)
    assert_same_bits(state_bytes(whole), state_bytes(stopped))
    assert history.steps == expected.steps
    assert history.epochs == expected.epochs
    assert history.best_epoch == expected.best_epoch
    assert history.ledger.steps == expected.ledger.steps
    assert (history.stopped, expected.stopped) == (True, False)
    assert stopped.training


def test_all_callbacks_are_told_though_one_stops(net, blobs):
    first, last = Watch(step=2), Watch()
    run(net, blobs, callbacks=[first, last])
    assert first.told == last.told
    assert [told[:2] for told in last.told] == [("step", 1), ("step", 2), ("epoch", 2)]


def test_at_the_end_of_an_epoch_the_model_is_the_one_that_was_scored(net, blobs):
    class Check:
        def on_epoch_end(self, state):
            found.append(evaluate(state.model, blobs) == pytest.approx(state.scores))

    found = []
    run(net, blobs, callbacks=[Check()], ema_decay=0.9)
    assert found == 4 * [True]


def test_labels_that_callbacks_look_at_were_chosen_by(net, blobs):
    assert run(net, blobs)[1].ledger.choosing == 0
    assert run(net, blobs, callbacks=[EarlyStopping()])[1].ledger.choosing == 120


# Checkpoints --------------------------------------------------------------------------------------


def test_a_stopped_run_ends_at_once_when_it_is_called_again(net, blobs, tmp_path, state_bytes, assert_same_bits):
    first, history = run(net, blobs, callbacks=[Counter(5)], keep_best=True, checkpoint_dir=tmp_path)
    for budget in (4, 9):
        again, same = run(net, blobs, callbacks=[Counter(5)], keep_best=True, checkpoint_dir=tmp_path, epochs=budget)
        assert_same_bits(state_bytes(first), state_bytes(again))
        assert (same.steps, same.epochs, same.best_epoch) == (history.steps, history.epochs, history.best_epoch)
        assert same.stopped
    assert len(history.steps) == 5


@pytest.mark.parametrize("at", [2, 5, 7])
def test_what_a_callback_remembers_is_in_the_checkpoint(net, blobs, tmp_path, at):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = net(), 0

        def forward(self, inputs):
            self.calls += self.training
            if self.calls == at:
                raise KeyboardInterrupt
            return self.net(inputs)

    class Whole(Broken):
        def forward(self, inputs):
            return self.net(inputs)

    Whole.__name__ = "Broken"
    kept = {"checkpoint_dir": tmp_path, "checkpoint_every": 1}
    with pytest.raises(KeyboardInterrupt):
        run(Broken, blobs, callbacks=[Counter(8)], **kept)
    counter = Counter(8)
    _, history = run(Whole, blobs, callbacks=[counter], **kept)
    assert len(history.steps) == counter.seen == 8
    assert history.stopped


def test_killed_before_its_last_validation_a_run_ends_alike(net, blobs, tmp_path, state_bytes, assert_same_bits):
    """A checkpoint that says "stopped" before the last validation would leave that one out."""

    class Broken(Watch):
        def on_epoch_end(self, state):
            raise KeyboardInterrupt

    Broken.__name__ = "Watch"
    kept = {"checkpoint_dir": tmp_path, "checkpoint_every": 1, "keep_best": True}
    with pytest.raises(KeyboardInterrupt):
        run(net, blobs, callbacks=[Broken(step=2)], **kept)
    resumed, history = run(net, blobs, callbacks=[Watch(step=2)], **kept)
    whole, expected = run(net, blobs, callbacks=[Watch(step=2)], keep_best=True)
    assert_same_bits(state_bytes(whole), state_bytes(resumed))
    assert (history.epochs, history.best_epoch) == (expected.epochs, 0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"callbacks": []}, r"callbacks was \['Watch'\], now \[\]"),
        ({"metrics": None}, r"metrics was \['f1'\], now \[\]"),
        ({"keep_best": "loss"}, "keep_best was False, now loss"),
    ],
)
def test_other_callbacks_metrics_or_choice_are_another_run(net, blobs, tmp_path, changed, message):
    given = {"callbacks": [Watch()], "metrics": {"f1": MulticlassF1Score(3)}, "checkpoint_dir": tmp_path, "epochs": 1}
    run(net, blobs, **given)
    run(net, blobs, **given | {"callbacks": [Watch()], "metrics": {"f1": MulticlassF1Score(3)}})
    with pytest.raises(ValueError, match=f"belongs to another run: {message}"):
        run(net, blobs, **given | changed)


# Early stopping -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "scores", "epochs"),
    [
        ({"monitor": "loss", "patience": 2}, [0.9, 0.5, 0.6, 0.5, 0.1], 4),
        ({"monitor": "loss", "patience": 2}, [0.9, 0.8, 0.9, 0.7, 0.6], None),
        ({"monitor": "accuracy", "patience": 1}, [0.1, 0.2, 0.2, 0.3], 3),
        ({"monitor": "accuracy", "patience": 1, "min_delta": 0.1}, [0.1, 0.25, 0.3, 0.5], 3),
        ({"monitor": "error", "patience": 1, "mode": "min"}, [3.0, 2.0, 4.0], 3),
        ({"monitor": "error", "patience": 1}, [3.0, 2.0, 4.0], 2),
        ({"monitor": "loss", "patience": 2}, [math.nan, 0.5, math.nan, math.inf, 0.1], 4),
        ({"monitor": "loss", "patience": 2}, [math.nan, math.nan, 0.5], 2),
    ],
)
def test_patience_counts_epochs_without_an_improvement(settings, scores, epochs):
    stopping, history = EarlyStopping(**settings), History()
    for epoch, score in enumerate(scores):
        history.epochs.append({"epoch": epoch, f"val_{settings['monitor']}": score})
        if not stopping.on_epoch_end(RunState(nn.Identity(), history, step=epoch, epoch=epoch)):
            break
    assert len(history.epochs) == (epochs or len(scores))


def test_early_stopping_ends_with_the_best_weights_and_may_be_used_again(blobs, tmp_path):
    torch.manual_seed(0)
    val, stopping = TensorData(blobs.inputs, blobs.targets[torch.randperm(120)]), EarlyStopping(patience=2)
    for folder in (tmp_path / "one", tmp_path / "one", tmp_path / "two"):
        model, history = run(
            functools.partial(nn.Linear, 4, 3), blobs, val_data=val, epochs=40, strategy=FullFineTuning(lr=0.3),
            callbacks=[stopping], keep_best=True, checkpoint_dir=folder,
        )  # fmt: skip
        scores = [row["val_accuracy"] for row in history.epochs]
        assert history.stopped
        assert len(scores) == history.best_epoch + 3 < 40
        assert evaluate(model, val)["accuracy"] == max(scores)


def test_a_recipe_may_stop_early(blob_splits):
    recipe = Recipe(
        functools.partial(nn.Linear, 4, 3), Supervised, FullFineTuning(lr=1e-9), epochs=9,
        callbacks=[EarlyStopping(monitor="loss", patience=1, min_delta=0.1)],
    )  # fmt: skip
    for seed in (0, 1):
        history = recipe.train(blob_splits(seed), seed).history
        assert len(history.epochs) == 2
        assert history.ledger.choosing == 30


# What is chosen by --------------------------------------------------------------------------------


def _share_of_ones(outputs, targets):
    return (outputs.argmax(1) == 1).double().mean()


@pytest.mark.parametrize(
    ("keep_best", "column", "best"),
    [
        (True, "val_accuracy", max),
        ("accuracy", "val_accuracy", max),
        ("loss", "val_loss", min),
        (("loss", "max"), "val_loss", max),
        ("ones", "val_ones", max),
        (("ones", "min"), "val_ones", min),
    ],
)
def test_the_best_epoch_is_chosen_by_any_score(blobs, keep_best, column, best):
    torch.manual_seed(0)
    val = TensorData(blobs.inputs, blobs.targets[torch.randperm(120)])
    model, history = run(
        functools.partial(nn.Linear, 4, 3), blobs, val_data=val, epochs=8, strategy=FullFineTuning(lr=0.3),
        keep_best=keep_best, metrics={"ones": _share_of_ones},
    )  # fmt: skip
    scores = [row[column] for row in history.epochs]
    assert history.best_epoch == scores.index(best(scores))
    scored = evaluate(model, val, metrics={"ones": _share_of_ones})
    assert scored[column.removeprefix("val_")] == scores[history.best_epoch]


def test_where_there_is_no_accuracy_the_lowest_loss_is_best(blobs):
    data = TensorData(blobs.inputs, blobs.inputs[:, :1] * 2)
    objective = LogitMatching(nn.Linear(4, 1)) * 0.1 + Supervised(loss=F.l1_loss)
    for keep_best in (True, False):
        model, history = run(
            functools.partial(nn.Linear, 4, 1), data, objective=objective, strategy=FullFineTuning(lr=0.5),
            keep_best=keep_best, epochs=9,
        )  # fmt: skip
        scores = [row["val_loss"] for row in history.epochs]
        assert "val_accuracy" not in history.epochs[0]
        assert history.best_epoch == scores.index(min(scores))
        kept = F.l1_loss(predict(model, data), data.targets).item()
        assert kept == pytest.approx(min(scores) if keep_best else scores[-1])


def test_an_epoch_without_a_number_is_never_best(blobs):
    scores = iter([math.nan, 0.1, math.nan, 0.3, math.inf])
    _, history = run(
        functools.partial(nn.Linear, 4, 3), blobs, epochs=5, keep_best="odd", metrics={"odd": lambda *_: next(scores)}
    )
    assert history.best_epoch == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"keep_best": "f1"}, "keep_best goes by 'f1', but the scores are accuracy, loss; name one of them, or add it"),
        ({"keep_best": ("f1", "max"), "metrics": {"ones": _share_of_ones}}, "but the scores are accuracy, loss, ones"),
        ({"callbacks": [EarlyStopping(monitor="f1")]}, "EarlyStopping goes by 'f1'"),
        ({"objective": Supervised(loss=F.mse_loss), "keep_best": "accuracy"}, "but the scores are loss;"),
        ({"val_data": None, "callbacks": [EarlyStopping()]}, "EarlyStopping needs val_data to score by 'accuracy'"),
        ({"val_data": None, "metrics": {"ones": _share_of_ones}}, "metrics needs val_data to score by 'ones'"),
        ({"val_data": None, "keep_best": "loss"}, "keep_best needs val_data to score by 'loss'"),
        ({"keep_best": ("loss", "lowest")}, r"keep_best is \('loss', 'lowest'\); it must be True, the name of a score"),
        ({"keep_best": 3}, "keep_best is 3; it must be True, the name"),
        ({"callbacks": EarlyStopping()}, "give a sequence of them"),
        ({"callbacks": [EarlyStopping]}, "give objects with a method on_step_end"),
        ({"callbacks": [print]}, "callbacks holds <built-in function print>; give objects with a method"),
        ({"metrics": {"loss": max}}, "metrics names one 'loss'"),
    ],
)
def test_mistakes_are_named_before_the_first_step(net, blobs, more, message, state_bytes, assert_same_bits):
    torch.manual_seed(3)
    model = net()
    before = state_bytes(model)
    arguments = {"objective": SoftTargets(net()), "strategy": FULL, "epochs": 1, "val_data": blobs} | more
    with pytest.raises((ValueError, TypeError), match=message):
        fit(model, blobs, **arguments)
    assert_same_bits(before, state_bytes(model))


@pytest.mark.parametrize("wrong", [{"patience": 0}, {"patience": 1.5}, {"mode": "low"}, {"min_delta": -1.0}])
def test_wrong_settings_of_early_stopping_are_named(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
        EarlyStopping(**wrong)


def test_two_callbacks_of_a_class_are_both_looked_at(net, blobs):
    watching = [EarlyStopping(monitor=name) for name in ("typo", "loss")]
    with pytest.raises(ValueError, match="EarlyStopping goes by 'typo'"):
        fit(net(), blobs, objective=Supervised(), strategy=FULL, epochs=2, val_data=blobs, callbacks=watching)
