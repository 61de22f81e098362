# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Who is speaking? Distil, mend, compare
#
# Nine men said the same two vowels, 640 times in all (Japanese Vowels; Kudo, Toyama and Shimbo, 1999). You write the
# loss of distillation, mend a loop that runs and misleads, and find out what a teacher is worth at 27 labels, and
# whether you may say so.
#
# It takes some 20 seconds to run on one CPU core. The data come with the package, which the first cell installs where
# it is missing. Read chapter 04 first; part 2 is of the kind that chapter 11 collects.
#
# - Write your answers where it says `YOUR CODE HERE`, and remove the line that raises `NotImplementedError`.
# - Leave the other cells as they are. The checks that you see are a part of those that count: what the text asks
#   for is checked, whether you see the check or not.
# - Restart the kernel and run everything before you hand it in. There are 15 points.

# %% given="set-up"
try:
    import kdft_lib
except ModuleNotFoundError:
    # %pip install -q "kdft-lib[notebooks] @ git+https://github.com/kdft-book/kdft"
    import kdft_lib

import copy
import functools
import sys

import torch
from sklearn.svm import SVC
from torch import nn

from kdft_lib.datasets import japanese_vowels
from kdft_lib.experiments import Classical, Recipe, compare, grid, paired_interval
from kdft_lib.losses import soft_target_loss
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Teacher
from kdft_lib.training import evaluate, fit, predict

torch.set_num_threads(1)
print("kdft_lib", kdft_lib.__version__)

# %% [markdown]
# ## 1. The loss (5 points)
#
# Write the loss of Hinton, Vinyals and Dean,
#
# $$T^2 \cdot \mathrm{KL}\big(\sigma(z_t / T) \,\|\, \sigma(z_s / T)\big),$$
#
# where $z_s$ and $z_t$ are the logits of student and teacher and $\sigma$ is the softmax over the last dimension.
# It takes logits of any shape `(..., C)` and returns the mean over samples, never over classes. It stays finite, in
# value and gradient, for logits of ±10,000. No gradient reaches the teacher's logits. Do not call `kdft_lib` in this
# part: it is what you are compared with. In parts 2 and 3 you may.


# %% given="comparison"
def unaided(function, *arguments):
    """What a function returns that must not call `kdft_lib`."""
    called = set()
    sys.setprofile(lambda frame, *_: called.add(frame.f_globals.get("__name__", "").split(".")[0]))
    try:
        returned = function(*arguments)
    finally:
        sys.setprofile(None)
    assert "kdft_lib" not in called, "it calls kdft_lib; write it with torch alone"
    return returned


def check_loss(case, student_logits, teacher_logits, temperature):
    returned = unaided(soft_targets, student_logits, teacher_logits, temperature)
    wanted = soft_target_loss(student_logits, teacher_logits, temperature)
    torch.testing.assert_close(returned, wanted, rtol=1e-3, atol=1e-5, msg=lambda found: f"{case}: {found}")


# %% answer="loss"
def soft_targets(student_logits, teacher_logits, temperature):
    ### BEGIN SOLUTION
    log_q = (student_logits / temperature).log_softmax(dim=-1)
    log_p = (teacher_logits.detach() / temperature).log_softmax(dim=-1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()
    ### END SOLUTION


# %% check="loss-value" points=1
z_s, z_t = 3 * torch.randn(2, 64, 9, generator=torch.Generator().manual_seed(0))
check_loss("64 samples of 9 classes", z_s, z_t, 1.0)
### BEGIN HIDDEN TESTS
for seed in (1, 2):
    a, b = torch.randn(2, 32, 5, generator=torch.Generator().manual_seed(seed))
    check_loss("32 samples of 5 classes", a, b, 1.0)
### END HIDDEN TESTS

# %% check="loss-temperature" points=2
# At other temperatures.
assert unaided(soft_targets, z_s, z_t, 4.0) > 0, "it is not positive where student and teacher differ"
### BEGIN HIDDEN TESTS
for temperature in (0.5, 2.0, 4.0, 20.0):
    check_loss(f"temperature {temperature}", z_s, z_t, temperature)
### END HIDDEN TESTS

# %% check="loss-shape" points=1
# Sequences of samples.
assert unaided(soft_targets, z_s.view(4, 16, 9), z_t.view(4, 16, 9), 1.0).shape == (), "it is not one number"
### BEGIN HIDDEN TESTS
for shape in ((9,), (4, 16, 9), (2, 2, 16, 9)):
    a, b = (z.flatten()[: torch.Size(shape).numel()].view(shape) for z in (z_s, z_t))
    check_loss(f"logits of shape {shape}", a, b, 1.0)
### END HIDDEN TESTS

# %% check="loss-gradient" points=1
# The gradient: where the logits are large, and for the teacher.
### BEGIN HIDDEN TESTS
a = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
b = torch.tensor([[-1e4, 1e4, 0.0]], requires_grad=True)
loss = unaided(soft_targets, a, b, 4.0)
loss.backward()
assert loss.isfinite(), "logits of ±10,000: the loss is not finite"
assert a.grad.isfinite().all(), "logits of ±10,000: the student's gradient is not finite"
assert b.grad is None, "the teacher's logits get a gradient"
### END HIDDEN TESTS

# %% [markdown]
# ## 2. A loop that runs and misleads (3 points)
#
# A network with three convolutions over time; the larger one, with 25,289 parameters, learns from all 216 labels of
# the training set.


# %% given="teacher"
def network(width):
    layers = [nn.Conv1d(12, width, 5), nn.BatchNorm1d(width), nn.ReLU()]
    layers += [nn.Conv1d(width, width, 5, stride=2), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, 9))


def utterances(seed, labeled=27):
    """Coefficients as channels, frames as time."""
    return japanese_vowels(labeled, seed=seed).with_inputs(lambda frames: frames.transpose(1, 2).contiguous())


torch.manual_seed(0)
everything = utterances(0, labeled=None)
teacher = network(64)
fit(teacher, everything.train, objective=Supervised(), strategy=FullFineTuning(lr=0.01), steps=300, batch_size=32)
print(f"the teacher is right on {evaluate(teacher, everything.val)['accuracy']:.1%} of the validation utterances")


# %% [markdown]
# Somebody distils it with a loop of their own, on utterances without labels. The loop runs, and yet the teacher answers
# differently afterwards, although no optimiser ever saw it.


# %% given="bug"
def distil_with_a_bug(student, teacher, inputs, steps, lr=0.01):
    both = nn.ModuleDict({"student": student, "teacher": teacher})
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr)
    for _ in range(steps):
        both.train()
        batch = inputs[torch.randint(len(inputs), (16,))]
        with torch.no_grad():
            teacher_logits = teacher(batch)
        loss = soft_target_loss(student(batch), teacher_logits, 2.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    both.eval()


mistaken, careless = network(8), copy.deepcopy(teacher)
before = predict(careless, everything.val)
distil_with_a_bug(mistaken, careless, utterances(0).transfer.inputs, steps=50)
print(f"the teacher's logits changed by up to {(predict(careless, everything.val) - before).abs().max():.2f}")

# %% [markdown]
# Find the cause, and write `distil`, which does the same and has no such fault: the teacher answers in evaluation mode,
# and its parameters and buffers are, bit for bit, what they were; the student learns in training mode. As above, both
# end in evaluation mode. Whatever modes they come in, it works. Name the cause in a comment on the line that mends it;
# the checks do not read that.


# %% answer="loop"
def distil(student, teacher, inputs, steps, lr=0.01):
    ### BEGIN SOLUTION
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr)
    teacher.eval()
    student.train()
    for _ in range(steps):
        batch = inputs[torch.randint(len(inputs), (16,))]
        with torch.no_grad():
            teacher_logits = teacher(batch)
        loss = soft_target_loss(student(batch), teacher_logits, 2.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    student.eval()
    ### END SOLUTION


# %% check="loop-teacher" points=1
asked = copy.deepcopy(teacher)
distil(network(8), asked, utterances(0).transfer.inputs, steps=3)
for name, tensor in teacher.state_dict().items():
    assert torch.equal(tensor, asked.state_dict()[name]), f"the teacher's {name} has changed"

# %% check="loop-modes" points=1
# The modes in which both are asked.
### BEGIN HIDDEN TESTS
large, small, modes = copy.deepcopy(teacher).train(), network(8).eval(), {"student": set(), "teacher": set()}
for name, model in (("student", small), ("teacher", large)):
    for layer in model:
        layer.register_forward_hook(lambda layer, *_, name=name: modes[name].add(layer.training))
distil(small, large, everything.train.inputs, steps=2)
assert modes["teacher"] == {False}, "the teacher answers in training mode"
assert modes["student"] == {True}, "the student learns in evaluation mode"
assert all(parameter.grad is None for parameter in large.parameters()), "the teacher gets a gradient"
assert not small.training, "the student ends in training mode"
assert not large.training, "the teacher ends in training mode"
### END HIDDEN TESTS

# %% check="loop-learns" points=1
# The student learns.
torch.manual_seed(0)
pupil = network(8)
distil(pupil, copy.deepcopy(teacher), utterances(0).transfer.inputs, steps=150)
print(f"{evaluate(pupil, everything.val)['accuracy']:.1%} of the validation utterances")
assert evaluate(pupil, everything.val)["accuracy"] > 0.75, "the student is right on 75 % or less"

# %% [markdown]
# ## 3. What may you say? (7 points)
#
# First two functions. `chosen` gets the accuracies of one method, a row for each setting and a column for each seed,
# on validation and on test, and returns the row of test accuracies to report: that of the setting with the highest
# mean accuracy on validation. In the experiment below, `compare` chooses in this way, and never computes the test
# accuracies of the others.


# %% answer="choose"
def chosen(val, test):
    ### BEGIN SOLUTION
    means = [sum(row) / len(row) for row in val]
    return test[means.index(max(means))]
    ### END SOLUTION


# %% check="choose-check" points=1
assert list(chosen(val=[[0.7, 0.8], [0.8, 0.9]], test=[[0.6, 0.7], [0.7, 0.8]])) == [0.7, 0.8], "the second is better"
### BEGIN HIDDEN TESTS
kept = chosen(val=[[0.9, 0.8], [0.8, 0.8], [0.7, 0.9]], test=[[0.6, 0.6], [0.7, 0.8], [0.9, 0.9]])
assert list(kept) == [0.6, 0.6], "the first is better on validation, the last on test"
kept = chosen(val=[[0.9, 0.1], [0.6, 0.7]], test=[[0.9, 0.9], [0.5, 0.6]])
assert list(kept) == [0.5, 0.6], "the first has the best seed on validation, the second the better mean"
### END HIDDEN TESTS

# %% [markdown]
# `verdict` gets the test accuracies of a method and of its reference, on the same seeds in the same order, and
# returns one of three words: `"better"` or `"worse"` where the 95 % interval of the mean **paired** difference
# excludes zero, otherwise `"open"`. You may use `paired_interval`.


# %% answer="verdict"
def verdict(scores, reference):
    ### BEGIN SOLUTION
    gap = paired_interval(scores, reference)
    if gap.low > 0:
        return "better"
    return "worse" if gap.high < 0 else "open"
    ### END SOLUTION


# %% check="verdict-check" points=2
gain = verdict([0.90, 0.91, 0.92, 0.91, 0.90], [0.80, 0.82, 0.81, 0.80, 0.82])
assert gain == "better", "about ten points on each seed"
even = verdict([0.80, 0.90, 0.85, 0.82, 0.88], [0.81, 0.88, 0.86, 0.80, 0.89])
assert even == "open", "about a point, now up, now down"
### BEGIN HIDDEN TESTS
hard, easy = [0.60, 0.70, 0.80, 0.90], [0.61, 0.72, 0.81, 0.92]
assert verdict(easy, hard) == "better", "a point or two on each seed, where seeds differ more than methods"
assert verdict(hard, easy) == "worse", "a point or two less on each seed, where seeds differ more than methods"
assert verdict([0.90, 0.70, 0.95], [0.80, 0.72, 0.81]) == "open", "three seeds that disagree"
### END HIDDEN TESTS

# %% [markdown]
# Now the experiment: a network of width 8, 27 labels, five seeds, three learning rates. `methods` has the simplest
# thing to try, an SVM, and the network on labels alone.

# %% given="methods"
RATES = (0.003, 0.01, 0.03)
teacher = Teacher(teacher, labels=len(everything.train))  # so that the ledger knows what it cost
base = Recipe(functools.partial(network, 8), Supervised(), FullFineTuning(lr=0.01), steps=100, batch_size=32)
methods = {"labels": grid(base, lr=RATES), "SVM": grid(Classical(SVC()), C=(1.0, 5.0, 20.0))}

# %% [markdown]
# Add two methods:
#
# - `"soft targets"`: the network learns from `SoftTargets(teacher)`, as it comes, on the same 27 utterances;
# - `"soft targets, more inputs"`: it sees the utterances without labels as well. A recipe takes them as
#   `transfer_data`; the splits hold them as `"transfer"`.
#
# Change nothing else, and tune both as much as the network on labels. Then put two verdicts from `result.test` into
# `conclusions`, each against the method that differs in one choice: of `"soft targets"` against `"labels"`, and of
# `"soft targets, more inputs"` against `"soft targets"`.

# %% answer="compare"
### BEGIN SOLUTION
taught = base.but(objective=SoftTargets(teacher))
methods["soft targets"] = grid(taught, lr=RATES)
methods["soft targets, more inputs"] = grid(taught.but(transfer_data="transfer"), lr=RATES)
### END SOLUTION
result = compare(methods, utterances, seeds=range(5), reference="labels", progress=False)
print(result)
### BEGIN SOLUTION
alone, taught, more = (result.test[name] for name in ("labels", "soft targets", "soft targets, more inputs"))
conclusions = {"soft targets": verdict(taught, alone), "soft targets, more inputs": verdict(more, taught)}
### END SOLUTION
print(conclusions)

# %% check="compare-fair" points=2
assert {"labels", "SVM", "soft targets", "soft targets, more inputs"} <= set(result.test), "a method is missing"
assert all(len(scores) >= 5 for scores in result.test.values()), "there are fewer than five seeds"
### BEGIN HIDDEN TESTS
given = Recipe(functools.partial(network, 8), Supervised(), FullFineTuning(lr=0.01), steps=100, batch_size=32)
distilled = given.but(objective=SoftTargets(teacher))
for name, plain in {"labels": given, "soft targets": distilled, "soft targets, more inputs": distilled}.items():
    assert len(methods[name]) == len(result.val[name]) == 3, f"{name}: not three settings"
    recipes = [getattr(tried, "method", tried) for tried in methods[name]]
    for recipe, rate in zip(sorted(recipes, key=lambda recipe: recipe.strategy.lr), (0.003, 0.01, 0.03)):
        wanted = plain.but(lr=rate)
        fields = ("objective", "strategy", "settings", "train_data")
        for field in fields:
            found = getattr(recipe, field)
            found = found(teacher) if isinstance(found, functools.partial) else found
            assert repr(found) == repr(getattr(wanted, field)), f"{name}: another {field}"
        assert repr(recipe.model()) == repr(wanted.model()), f"{name}: another network"
costs = [getattr(tried, "method", tried).estimator.get_params() for tried in methods["SVM"]]
assert costs == [SVC(C=c).get_params() for c in (1.0, 5.0, 20.0)], "SVM: other settings than the given ones"
### END HIDDEN TESTS

# %% check="compare-inputs" points=1
# What each of them consumed.
### BEGIN HIDDEN TESTS
for name, (unlabeled, teacher_labels) in {
    "labels": (0, 0),
    "soft targets": (0, 216),
    "soft targets, more inputs": (189, 216),
}.items():
    for entry in result.ledgers[name]:
        consumed = {"labels": 27, "unlabeled": unlabeled, "teacher_labels": teacher_labels}
        for key, wanted in consumed.items():
            found = getattr(entry, key)
            assert found == wanted, f"{name}: {key} is {found} in the ledger, not {wanted}"
### END HIDDEN TESTS

# %% check="compare-conclusions" points=1
assert set(conclusions) == {"soft targets", "soft targets, more inputs"}, "there are other names in conclusions"
assert set(conclusions.values()) <= {"better", "worse", "open"}, "there are other words in conclusions"
### BEGIN HIDDEN TESTS
for name, reference in (("soft targets", "labels"), ("soft targets, more inputs", "soft targets")):
    gap = paired_interval(result.test[name], result.test[reference])
    wanted = "better" if gap.low > 0 else "worse" if gap.high < 0 else "open"
    assert conclusions[name] == wanted, f"{name}: against {reference}, the numbers say {wanted}"
### END HIDDEN TESTS

# %% [markdown]
# To think about, without points: what may you say of soft targets against the SVM? The settings were chosen on 54
# labels, twice as many as were learned from; whom does that favour? The teacher saw 216 labels. And all this is one
# teacher: what would you vary next?
