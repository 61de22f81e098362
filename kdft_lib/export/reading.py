"""A file that was exported, asked again: raw inputs in, the names of classes out, or "not sure"."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdft_lib.data import Columns, PictureReader, TextReader

NOT_SURE = "not sure"
"""What is answered where the confidence is not above the threshold."""

_BATCH = 64


class Answer(NamedTuple):
    """What a file said of one input.

    Example:
        >>> Answer("cat", 0.9, "cat").label
        'cat'
    """

    label: str
    """The class, or :data:`NOT_SURE`."""
    probability: float
    """Of the most probable class, from 0 to 1: the confidence."""
    best: str
    """The most probable class, whether that is sure or not."""


class Exported:
    """A file of :func:`write`, run by onnxruntime, on as many threads as torch has.

    Attributes:
        path: The ONNX file.
        card: What it says of itself.
        classes: The names of its classes; none for a regression.
        threshold: The confidence up to which it is not sure.
        reader: What makes its inputs.

    Example:
        >>> import tempfile
        >>> from kdft_lib import export, models
        >>> net, columns = models.MLP(1, 2), Columns({"age": {"gap": 0, "mean": 0, "std": 1, "had_gaps": False}}, {})
        >>> rows = columns([{"age": 2.0}, {"age": 3.0}])
        >>> shipped = export.write(net, tempfile.mkdtemp(), reader=columns, examples=rows, classes=["no", "yes"])
        >>> [answer.label for answer in shipped.predict([{"age": 2.0}], threshold=1.0)]
        ['not sure']
    """

    def __init__(self, path: Path, session: Any, card: dict[str, Any], reader: Any):
        self.path, self.card, self.reader, self._session = path, card, reader, session
        self.classes: tuple[str, ...] = tuple(card.get("classes") or ())
        self.threshold = float(card.get("threshold") or 0.0)

    def __repr__(self) -> str:
        return f"Exported({self.path.name}, {len(self.classes)} classes, {self.path.stat().st_size:,} bytes)"

    def logits(self, inputs: Any) -> Tensor:
        """What the network gives, ``(N, C)``, of inputs as the reader makes them."""
        names = [each.name for each in self._session.get_inputs()]
        given = inputs if isinstance(inputs, Mapping) else {names[0]: inputs}
        return torch.from_numpy(self._session.run(None, {name: given[name].numpy() for name in names})[0]).float()

    def predict(self, raw: Any, *, threshold: float | None = None) -> list[Any]:
        """Ask about raw inputs.

        Args:
            raw: A list of paths or pictures, of texts, or of mappings from columns to values; of a table also a
                ``DataFrame``.
            threshold: The confidence up to which the answer is "not sure", from 0, never, to 1, always; by
                default that of the card.

        Returns:
            An :class:`Answer` for each; for a regression a number.

        Raises:
            ValueError: If a picture cannot be read, a column is missing, or the threshold is no probability.
        """
        least = self.threshold if threshold is None else threshold
        if not 0 <= least <= 1:
            raise ValueError(f"threshold is {least}; it is a confidence, from 0 to 1")
        rows = raw.to_dict("records") if hasattr(raw, "columns") else raw.to_list() if hasattr(raw, "to_list") else raw
        if isinstance(rows, str | Path | Mapping):
            raise ValueError(f"raw is one input, {str(rows)[:60]!r}; give a list of them")
        given: list[Any] = []
        for start in range(0, len(rows), _BATCH):
            logits = self.logits(self.reader(rows[start : start + _BATCH]))
            given += logits.squeeze(-1).tolist() if not self.classes else self._named(logits, least)
        return given

    def _named(self, logits: Tensor, least: float) -> list[Answer]:
        confidence, places = logits.double().softmax(-1).max(-1)
        found = zip(confidence.tolist(), [self.classes[place] for place in places.tolist()], strict=True)
        return [Answer(best if sure > least else NOT_SURE, sure, best) for sure, best in found]


def load(path: str | Path) -> Exported:
    """Read what :func:`write` wrote. Nothing in it runs but the network.

    Args:
        path: The ONNX file, or the folder that it is in.

    Returns:
        :class:`Exported`, to be asked with ``predict``.

    Raises:
        ImportError: If onnxruntime is not installed.
        FileNotFoundError: If there is no such file, or what reads its inputs is not beside it.
        ValueError: If a folder has none or several, or the file was not written by :func:`write`.

    Example:
        >>> load("nowhere.onnx")
        Traceback (most recent call last):
        FileNotFoundError: nowhere.onnx does not exist; export.write(model, folder, ...) writes such a file
    """
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(
            "an ONNX file needs onnxruntime, which is not installed; pip install 'kdft-lib[export]' brings it"
        ) from None
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.onnx"))
        if len(files) != 1:
            raise ValueError(
                f"{path} has {len(files)} files that end in .onnx; name"
                f" {'one of ' + ', '.join(file.name for file in files) if files else 'another folder'}"
            )
        path = files[0]
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; export.write(model, folder, ...) writes such a file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises what has no common kind
        raise ValueError(f"{path} is no ONNX file that onnxruntime can read ({error})") from None
    card = json.loads(session.get_modelmeta().custom_metadata_map.get("card", "{}"))
    return Exported(path, session, card, _reader(path, card))


def _reader(path: Path, card: Mapping[str, Any]) -> Any:
    settings: dict[str, Any] = dict(card.get("reader") or {})
    match settings.pop("kind", None):
        case "pictures":
            return PictureReader(**settings)
        case "texts":
            return TextReader.from_file(path.parent / "tokenizer.json", **settings)
        case "columns":
            beside = path.parent / "columns.json"
            if not beside.is_file():
                raise FileNotFoundError(f"{beside} does not exist; it was written beside {path.name}, which needs it")
            return Columns(**json.loads(beside.read_text(encoding="utf-8")))
    raise ValueError(f"{path} has no card that says how its inputs are read; export.write(...) gives it one")
