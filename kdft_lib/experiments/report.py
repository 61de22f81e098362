"""What a program leaves of a distillation: a folder with scores, ledgers and pictures, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import statistics
import tempfile
import timeit
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdft_lib import metrics
from kdft_lib.data import TensorData
from kdft_lib.experiments.records import hardware
from kdft_lib.files import written_whole
from kdft_lib.training import Ledger, predict


@dataclass(frozen=True)
class Arm:
    """One of those that a report compares: what it answered on the test rows, and what it costs.

    Attributes:
        answers: Logits ``(N, C)``, decisions ``(N,)`` of int64, or of a regression numbers ``(N, 1)``.
        ledger: What it consumed; ``None`` where nobody counted.
        bytes: What it weighs; of a network 4 for each parameter.
        milliseconds: The median time of one answer; ``None`` where it was not taken.

    Example:
        >>> Arm(torch.tensor([0, 1])).bytes is None
        True
    """

    answers: Tensor
    ledger: Ledger | None = None
    bytes: int | None = None
    milliseconds: float | None = None

    @classmethod
    def of(cls, model: Any, test: Any, ledger: Ledger | None = None) -> Arm:
        """A model, asked about the test rows, weighed, and timed on one of them.

        Args:
            model: A network; or a fitted estimator of scikit-learn, which weighs what it takes pickled, and whose
                probabilities are kept where it has them.
            test: A :class:`~kdft_lib.data.TensorData`; for an estimator also an array or a list of what it takes.
            ledger: What it consumed.

        Example:
            >>> Arm.of(nn.Linear(3, 2), TensorData(torch.zeros(4, 3))).bytes
            32
        """
        if not isinstance(model, nn.Module):
            return cls._of_estimator(model, test.inputs.numpy() if isinstance(test, TensorData) else test, ledger)
        one = next(test.batches(1))["inputs"]
        device = next((each.device for each in model.parameters()), torch.device("cpu"))
        one = {key: each.to(device) for key, each in one.items()} if isinstance(one, dict) else one.to(device)
        taken = round(metrics.latency(model, one, repeats=20).median, 4)
        return cls(predict(model, test, batch_size=128), ledger, 4 * metrics.parameters(model), taken)

    @classmethod
    def _of_estimator(cls, model: Any, rows: Any, ledger: Ledger | None) -> Arm:
        if hasattr(model, "predict_proba"):
            answers = _by_class(torch.from_numpy(model.predict_proba(rows)), model.classes_).clamp_min(1e-12).log()
        else:
            answers = torch.from_numpy(model.predict(rows))
            answers = answers.view(-1, 1) if answers.is_floating_point() else answers
        times = timeit.repeat(lambda: model.predict(rows[:1]), number=1, repeat=20)
        return cls(answers, ledger, len(pickle.dumps(model)), round(1000 * statistics.median(times), 4))


@contextlib.contextmanager
def output_folder(path: str | Path) -> Iterator[Path]:
    """A folder to write to, which gets its name when all is written; after an error there is none.

    Under ``torchrun`` each process writes into its own, and the first process's is kept.

    Args:
        path: The folder that is wanted. It does not exist yet, or is empty.

    Yields:
        A new folder beside it.

    Raises:
        ValueError: If it has something in it.
        OSError: If nothing can be written there.

    Example:
        >>> path = Path(tempfile.mkdtemp()) / "out"
        >>> with output_folder(path) as folder:
        ...     _ = (folder / "note.txt").write_text("done")
        >>> [file.name for file in path.iterdir()]
        ['note.txt']
    """
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise ValueError(f"{path} has something in it already; name a new folder, or remove that one")
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f".{path.name}."))
    except OSError as error:
        raise OSError(f"nothing can be written to {path} ({error}); name another folder") from None
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    try:
        folder.chmod(0o755)
        yield folder
        if is_first():
            for file in folder.rglob("*"):
                file.chmod(0o755 if file.is_dir() else 0o644)  # Some libraries write what nobody else may read.
            if path.is_dir():
                path.rmdir()
            os.replace(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not several and torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def is_first() -> bool:
    """Whether this process is the one that speaks and writes: the only one, or the first of several.

    Example:
        >>> is_first()
        True
    """
    return int(os.environ.get("RANK", "0")) == 0


def report(
    folder: str | Path,
    arms: Mapping[str, Arm],
    targets: Tensor,
    *,
    classes: Sequence[str] = (),
    threshold: float = 0.0,
    counts: Mapping[str, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    student: str = "student",
    teacher: str = "teacher",
) -> dict[str, Any]:
    """Score a student beside others on test rows, and write ``metrics.json`` and two pictures.

    Of classes, ``confusion.png`` counts what the student takes for what, and ``calibration.png`` shows how often it is
    right at which confidence; of numbers, ``errors.png`` shows predicted over true.

    Args:
        folder: Where to write.
        arms: Who answered, by name: the student, the student on labels alone, its teacher, a simple baseline.
        targets: The test targets, ``(N,)`` of int64, or ``(N, 1)`` of a regression.
        classes: The names of the classes; none for a regression.
        threshold: The confidence above which the student answers; see
            :func:`~kdft_lib.metrics.confidence_threshold`.
        counts: How many rows each part of the data had.
        settings: What the program was called with, in plain values.
        student: The name of the arm that ships.
        teacher: The name of the arm that taught it, if it is among them.

    Returns:
        What ``metrics.json`` holds, which is ``test``, the scores of each arm; ``ledger``, what each consumed;
        ``threshold``, how many of the test rows the student answers at it, and how many of these are right;
        ``counts``, ``settings``, ``hardware``.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If there is no such student, or answers do not fit the targets.

    Example:
        >>> folder, logits = Path(tempfile.mkdtemp()), torch.tensor([[2.0, 0.0], [0.0, 2.0]])
        >>> arms = {"student": Arm(logits), "majority": Arm(torch.tensor([0, 0]))}
        >>> found = report(folder, arms, torch.tensor([0, 1]), classes=["cat", "dog"])
        >>> found["test"]["student"]["accuracy"], found["test"]["majority"]["macro F1"]
        (1.0, 0.3333)
        >>> sorted(path.name for path in folder.iterdir())
        ['calibration.png', 'confusion.png', 'metrics.json']
    """
    if student not in arms:
        raise ValueError(f"student is {student!r}; arms has {', '.join(map(repr, arms))}")
    for name, arm in arms.items():
        count = len(arm.answers) if classes else arm.answers.numel()
        if count != (len(targets) if classes else targets.numel()):
            raise ValueError(f"arm {name!r} has {count} answers to {len(targets)} targets; give one for each")
    test = {name: _scores(arm, targets, len(classes)) | _costs(arm) for name, arm in arms.items()}
    made: dict[str, Any] = {"test": test}
    said = arms[student].answers
    if classes:
        if teacher in arms:
            made["agreement with the teacher"] = _rounded((_decided(said) == _decided(arms[teacher].answers)).double())
        if said.dim() == 2:
            made["threshold"] = _above(said, targets, threshold)
    made["ledger"] = {name: None if arm.ledger is None else asdict(arm.ledger) for name, arm in arms.items()}
    made |= {"counts": dict(counts or {}), "classes": list(classes), "settings": _plain(settings or {})}
    made["hardware"] = hardware()
    folder = Path(folder)
    with written_whole(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _draw(folder, said, targets, classes, test)
    return made


def as_text(found: Mapping[str, Any]) -> str:
    """The scores of a :func:`report` as a table, a row for each arm, and how often the student is sure.

    Example:
        >>> sure = {"confidence": 0.7, "answered": 0.5, "right of those answered": 0.96}
        >>> print(as_text({"test": {"student": {"accuracy": 0.875, "bytes": 97000}}, "threshold": sure}))
                 accuracy   bytes
        student    0.8750  97,000
        Above a confidence of 0.700 it answers 50 % of the test rows, and 96 % of these are right.
    """
    columns = list(dict.fromkeys(name for row in found["test"].values() for name in row))
    cells = [["", *columns]]
    for name, row in found["test"].items():
        cells.append([name, *(_cell(row.get(column)) for column in columns)])
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns) + 1)]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in cells
    ]
    if "threshold" in found:
        least, answered, right = found["threshold"].values()
        of_these = "" if right is None else f", and {right:.0%} of these are right".replace("%", " %")
        lines.append(f"Above a confidence of {least:.3f} it answers {100 * answered:.0f} % of the test rows{of_these}.")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _scores(arm: Arm, targets: Tensor, classes: int) -> dict[str, Any]:
    answers = arm.answers
    if not classes:
        off = answers.double().flatten() - targets.double().flatten()
        spread = targets.double().var(correction=0)
        return {
            "root mean square error": float(f"{off.square().mean().sqrt():.5g}"),
            "mean absolute error": float(f"{off.abs().mean():.5g}"),
            "R²": _rounded(1 - off.square().mean() / spread) if spread > 0 else None,
        }
    decided = _decided(answers)
    scores = {"accuracy": _rounded((decided == targets).double()), "macro F1": _rounded(_f1(decided, targets, classes))}
    if answers.dim() == 2:
        scores["cross-entropy"] = _rounded(torch.tensor(metrics.cross_entropy(answers, targets)))
        scores["calibration error"] = _rounded(torch.tensor(metrics.calibration_error(answers, targets)))
    return scores


def _costs(arm: Arm) -> dict[str, Any]:
    known = {"bytes": arm.bytes, "milliseconds": arm.milliseconds}
    return {name: value for name, value in known.items() if value is not None}


def _by_class(chances: Tensor, classes: Any) -> Tensor:
    """Probabilities in the columns of their classes, 0 for those that an estimator never saw."""
    chances = chances.double()
    numbers = (
        torch.as_tensor(classes) if getattr(classes, "dtype", None) is not None and classes.dtype.kind in "iu" else None
    )
    if numbers is None or numbers.tolist() == [*range(len(numbers))]:
        return chances
    return chances.new_zeros(len(chances), int(numbers.max()) + 1).index_copy(1, numbers.long(), chances)


def _decided(answers: Tensor) -> Tensor:
    return answers.argmax(-1) if answers.dim() == 2 else answers


def _f1(decided: Tensor, targets: Tensor, classes: int) -> Tensor:
    """The mean over the classes that occur of 2 · right / (decided + targets)."""
    right = targets[decided == targets].bincount(minlength=classes).double()
    both = decided.bincount(minlength=classes) + targets.bincount(minlength=classes)
    return (2 * right / both.clamp(min=1))[targets.bincount(minlength=classes) > 0]


def _above(logits: Tensor, targets: Tensor, threshold: float) -> dict[str, Any]:
    confidence, decided = logits.double().softmax(-1).max(-1)
    sure = confidence > threshold
    right = (decided == targets)[sure].double()
    return {
        "confidence": round(threshold, 4), "answered": _rounded(sure.double()),
        "right of those answered": _rounded(right) if len(right) else None,
    }  # fmt: skip


def _rounded(values: Tensor) -> float:
    return round(values.mean().item(), 4)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, int | float | bool | None) else str(value) for name, value in settings.items()
    }


def _draw(folder: Path, said: Tensor, targets: Tensor, classes: Sequence[str], test: Mapping[str, Any]) -> None:
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        from kdft_lib import plots
    except ImportError as error:
        raise ImportError(
            f"pictures need {error.name}, which is not installed; pip install 'kdft-lib[notebooks]' brings it"
        ) from None

    def written(name: str, size: tuple[float, float], draw: Any) -> None:
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.add_subplot())
        with written_whole(folder / name) as temporary:
            figure.savefig(temporary, metadata={"Software": None})

    with matplotlib.rc_context():
        plots.use_style()
        if not classes:
            written("errors.png", (4.4, 4.4), lambda ax: plots.predicted(said.flatten(), targets.flatten(), ax))
            return
        side = min(12.0, 2.6 + 0.45 * len(classes))
        written("confusion.png", (side, side), lambda ax: plots.confusion(_decided(said), targets, classes, ax))
        if said.dim() == 2:
            written(
                "calibration.png", (6.4, 3.6),
                lambda ax: plots.reliability(
                    {"student": (said, targets)}, ax, colors={"student": plots.BLUE}, least=10
                ),
            )  # fmt: skip
