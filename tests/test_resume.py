"""Interrupted runs end bit for bit like uninterrupted ones."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import resumable
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kdft_lib.data import TensorData
from kdft_lib.objectives import Hint, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning, GradualUnfreezing, HeadOnly
from kdft_lib.training import fit

WORKERS = Path(__file__).parent / "workers"
KILLS = int(os.environ.get("KDFT_KILLS", "3"))
"""For each case; the weekly workflow asks for fifty."""


class Interrupted(Exception):
    pass


def run(net, data, folder, *, stop_after=None, **keywords):
    """Train, or stop in the middle as an exception would."""
    torch.manual_seed(9)
    model, calls = net(), []
    if stop_after is not None:

        def stop(*_):
            calls.append(1)
            if len(calls) > stop_after:
                raise Interrupted

        model.register_forward_pre_hook(stop)
    arguments = {
        "objective": Supervised(), "strategy": FullFineTuning(lr=1e-2), "epochs": 5, "batch_size": 32, "val_data": data,
        "keep_best": True, "checkpoint_dir": folder, "checkpoint_every": 2, "seed": 4,
        "augment": lambda inputs: inputs + 0.1 * torch.randn_like(inputs),
    }  # fmt: skip
    try:
        history = fit(model, data, **arguments | keywords)
    except Interrupted:
        return model, None
    return model, history


@pytest.mark.parametrize("kind", ["memory", "loader", "loader with a generator", "transfer"])
@pytest.mark.parametrize("stop_after", [1, 4, 5, 9])
def test_resumed_runs_end_alike(net, blobs, tmp_path, state_bytes, assert_same_bits, kind, stop_after):
    dataset = TensorDataset(blobs.inputs, blobs.targets)

    def data():
        own = torch.Generator().manual_seed(7) if "generator" in kind else None
        return DataLoader(dataset, batch_size=32, shuffle=True, generator=own) if "loader" in kind else blobs

    more = {}
    if kind == "transfer":
        torch.manual_seed(1)
        more = {"transfer_data": blobs[40:].without_labels(), "objective": SoftTargets(net())}
    whole, history = run(net, data(), tmp_path / "whole", **more)
    _, nothing = run(net, data(), tmp_path / "cut", stop_after=stop_after, **more)
    assert nothing is None
    resumed, again = run(net, data(), tmp_path / "cut", **more)
    assert_same_bits(state_bytes(whole), state_bytes(resumed))
    assert history.steps == again.steps
    assert history.epochs == again.epochs
    assert history.best_epoch == again.best_epoch


def test_a_finished_run_is_read_back_and_may_go_on(net, blobs, tmp_path, state_bytes, assert_same_bits):
    first, history = run(net, blobs, tmp_path, keep_best=False)
    again, same = run(net, blobs, tmp_path, keep_best=False)
    assert_same_bits(state_bytes(first), state_bytes(again))
    assert same.steps == history.steps
    _, longer = run(net, blobs, tmp_path, keep_best=False, epochs=7)
    assert len(longer.epochs) == 7
    assert longer.steps[:15] == history.steps
    with pytest.raises(ValueError, match="is at step 21, past the budget of 15"):
        run(net, blobs, tmp_path, keep_best=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 16}, "batch_size was 32, now 16"),
        ({"seed": 5}, "seed was 4, now 5"),
        ({"strategy": FullFineTuning(lr=1e-3)}, "strategy was FullFineTuning.*now FullFineTuning"),
        ({"strategy": HeadOnly(head="head", lr=1e-2)}, "strategy was .*now HeadOnly"),
        ({"objective": Supervised(label_smoothing=0.1)}, "objective was"),
        ({"schedule": "cosine"}, "schedule was"),
        ({"optimizer": torch.optim.SGD}, "optimizer was"),
        ({"clip_norm": 1.0}, "clip_norm was None, now 1.0"),
        ({"precision": "bfloat16"}, "precision was float32, now bfloat16"),
        ({"augment": None}, "augment was"),
    ],
)
def test_other_arguments_than_at_the_start_are_an_error(net, blobs, tmp_path, changed, message):
    run(net, blobs, tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match=f"belongs to another run: {message}"):
        run(net, blobs, tmp_path, **changed)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_other_data_or_another_model_is_an_error(net, blobs, tmp_path):
    run(net, blobs, tmp_path)
    with pytest.raises(ValueError, match="train_data was TensorData"):
        run(net, TensorData(blobs.inputs + 1, blobs.targets), tmp_path)

    class NormalizedNet(nn.Linear):
        def __init__(self):
            super().__init__(4, 3)

    with pytest.raises(ValueError, match="holds another model"):
        run(NormalizedNet, blobs, tmp_path)


def test_a_damaged_checkpoint_is_named(net, blobs, tmp_path):
    run(net, blobs, tmp_path)
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
        path.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"checkpoint\.pt cannot be read as a checkpoint .*delete it to start anew"
        ):
            run(net, blobs, tmp_path)


def test_a_checkpoint_with_code_in_it_is_refused(net, blobs, tmp_path):
    class Code:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "harm"),))

    torch.save({"arguments": {}, "step": Code()}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        run(net, blobs, tmp_path)
    assert not (tmp_path / "harm").exists()


def test_a_failed_write_leaves_the_old_checkpoint(net, blobs, tmp_path, monkeypatch):
    run(net, blobs, tmp_path, epochs=1)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=rf"checkpoint_dir is {tmp_path}, and nothing can be written there.*No space left"
    ):
        run(net, blobs, tmp_path, epochs=2)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_what_a_killed_process_left_half_written_is_cleared_away(net, blobs, tmp_path):
    left = tmp_path / ".checkpoint.pt.abcd1234"
    left.mkdir()
    (left / "checkpoint.pt").write_bytes(b"half")
    run(net, blobs, tmp_path, epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_folder_that_cannot_be_made_is_named(net, blobs, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="nothing can be written there"):
        run(net, blobs, tmp_path / "file" / "folder")


def start(forks, folder, case):
    """A process that has begun to train, and where it says what it ended with."""
    says, told = forks.Pipe(duplex=False)
    process = forks.Process(target=resumable.report, args=(folder, case, told))
    process.start()
    told.close()
    assert says.recv() == "training"
    return process, says


@pytest.mark.slow
@pytest.mark.parametrize("case", ["soft", "hint", "dist", "decoupled", "rkd"])
def test_runs_killed_at_random_moments_end_bit_for_bit_alike(forks, tmp_path, case):
    """Each kill is a SIGKILL at a random moment; each life goes on where the last was killed."""
    _, says = start(forks, tmp_path / "whole", case)
    began = time.perf_counter()
    expected = says.recv()
    duration = time.perf_counter() - began
    chance, kills, ended = random.Random(case), 0, 0
    while kills < KILLS:
        process, says = start(forks, tmp_path / f"killed{ended}", case)
        time.sleep(chance.uniform(0.05, 0.5) * duration)
        process.kill()
        process.join()
        if process.exitcode == 0:  # It was done before the signal came.
            assert says.recv() == expected
            ended += 1
            assert ended < 3 * KILLS
            continue
        assert process.exitcode == -signal.SIGKILL
        kills += 1
    _, says = start(forks, tmp_path / f"killed{ended}", case)
    assert says.recv() == expected
    print(f"\n{case}: {kills} kills survived in {ended + 1} runs, bit for bit")


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_the_run_goes_on(forks, tmp_path):
    folder = tmp_path / "stopped"
    command = [sys.executable, str(WORKERS / "resumable.py"), str(folder), "hint"]
    stopped = subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert stopped.stdout.readline() == "training\n"
    while not (folder / "checkpoint.pt").exists():
        time.sleep(0.01)
    stopped.send_signal(signal.SIGINT)
    _, errors = stopped.communicate()
    assert errors.rstrip().endswith("KeyboardInterrupt")
    # Where the key was hit while the next checkpoint was cleared away, its hidden folder stays until the run goes on.
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == ["checkpoint.pt"]
    torch.load(folder / "checkpoint.pt", weights_only=True)
    ended = [start(forks, where, "hint")[1].recv() for where in (folder, tmp_path / "whole")]
    assert ended[0] == ended[1]
    assert [path.name for path in folder.iterdir()] == ["checkpoint.pt"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_full_disk_leaves_nothing_half_written(printed, tmp_path):
    """A process that may write no more than 20 kB to a file: the checkpoint fails, as on a full disk."""
    code = f"""
import resource, signal, torch
from torch import nn
from kdft_lib.data import TensorData
from kdft_lib.models import save
from kdft_lib.objectives import Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import cache
from kdft_lib.training import fit
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
data = TensorData(torch.randn(4000, 4), torch.zeros(4000, dtype=torch.int64))
model = nn.Sequential(nn.Linear(4, 4000), nn.Linear(4000, 2))
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
def run():
    fit(model, data, objective=Supervised(), strategy=FullFineTuning(lr=0.1), steps=1, checkpoint_dir={str(tmp_path)!r})
for attempt in (
    run,
    lambda: save(model, {str(tmp_path / "model.safetensors")!r}),
    lambda: cache(nn.Linear(4, 9), data, to={str(tmp_path / "logits")!r}, batch_size=4000),
):
    try:
        attempt()
        print("no error")
    except OSError as error:
        print(error)
"""
    lines = printed(code).splitlines()
    assert len(lines) == 3, lines
    assert lines[0].startswith(f"checkpoint_dir is {tmp_path}, and nothing can be written there")
    assert all("cannot be written" in line or "nothing can be written" in line for line in lines)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["logits", "logits/index.json"]


def test_a_log_folder_that_cannot_be_written_is_named(net, blobs, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"log_dir is .*folder, and nothing can be written there"):
        run(net, blobs, tmp_path / "checkpoints", log_dir=tmp_path / "file" / "folder")


def test_an_optimizer_state_that_does_not_fit_is_named(net, blobs, tmp_path):
    run(net, blobs, tmp_path, epochs=1)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    state["optimizer"]["param_groups"][0]["params"].pop()
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"holds another optimizer: .*Use the arguments of that run"):
        run(net, blobs, tmp_path, epochs=2)


def test_unfrozen_layers_stay_unfrozen_after_a_resumption(net, blobs, tmp_path, state_bytes, assert_same_bits):
    """Lightning freezes them again (#21901)."""
    more = {"strategy": GradualUnfreezing(lr=1e-2), "keep_best": False}
    whole, _ = run(net, blobs, tmp_path / "whole", **more)
    start_, _ = run(net, blobs, tmp_path / "cut", stop_after=7, **more)
    resumed, history = run(net, blobs, tmp_path / "cut", **more)
    assert_same_bits(state_bytes(whole), state_bytes(resumed))
    assert not torch.equal(resumed.body[0].weight, start_.body[0].weight)
    assert len(history.epochs) == 5


def test_numbers_of_numpy_can_be_read_again(net, blobs, tmp_path):
    how = {
        "strategy": FullFineTuning(lr=np.logspace(-3, -2, 2)[1], weight_decay=np.float64(0.01)),
        "schedule": lambda progress: np.interp(progress, [0.0, 0.1, 1.0], [0.1, 1.0, 0.0]),
    }
    _, nothing = run(net, blobs, tmp_path, stop_after=9, **how)
    assert nothing is None
    _, history = run(net, blobs, tmp_path, **how)
    assert {type(row["lr"]) for row in history.steps} == {float}


def test_the_same_objective_goes_on_where_it_was(net, blobs, tmp_path):
    objective = SoftTargets(net()) + 10 * Hint(net(), "body.0", "body.0")
    _, nothing = run(net, blobs, tmp_path, stop_after=9, objective=objective)
    assert nothing is None
    _, history = run(net, blobs, tmp_path, objective=objective)
    assert history.steps[-1]["step"] == 15


def test_a_checkpoint_that_is_refused_leaves_the_model_as_it_was(blobs, tmp_path, state_bytes, assert_same_bits):
    def made(width):
        return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, width), nn.Linear(width, 3))

    run(lambda: made(8), blobs, tmp_path)
    model = made(6)
    before = state_bytes(model)
    with pytest.raises(ValueError, match=r"holds another model, which differs in 1\.weight"):
        run(lambda: model, blobs, tmp_path)
    assert_same_bits(before, state_bytes(model))


def test_other_validation_data_is_an_error_where_it_decides(net, blobs, tmp_path):
    run(net, blobs, tmp_path / "decides", epochs=2)
    with pytest.raises(ValueError, match="val_data was"):
        run(net, blobs, tmp_path / "decides", val_data=blobs[:40])
    run(net, blobs, tmp_path / "shows", epochs=2, keep_best=False)
    run(net, blobs, tmp_path / "shows", keep_best=False, val_data=blobs[:40])


def test_seconds_before_an_interruption_count(net, blobs, tmp_path):
    def slow(inputs):
        time.sleep(0.1)
        return inputs

    run(net, blobs, tmp_path, stop_after=5, augment=slow, steps=7, epochs=None, checkpoint_every=1)
    _, history = run(net, blobs, tmp_path, augment=slow, steps=7, epochs=None, checkpoint_every=1)
    assert history.seconds > 0.6


def test_augmentations_draw_by_the_seed_whoever_they_draw_from(net, blobs, tmp_path, state_bytes, assert_same_bits):
    def mixed(inputs):
        return inputs * (random.random() + np.random.rand())  # noqa: NPY002

    whole, _ = run(net, blobs, tmp_path / "whole", augment=mixed)
    run(net, blobs, tmp_path / "cut", augment=mixed, stop_after=5)
    again, _ = run(net, blobs, tmp_path / "cut", augment=mixed)
    assert_same_bits(state_bytes(whole), state_bytes(again))
