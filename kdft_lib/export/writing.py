"""A trained network as files: its weights, an ONNX file that answers as PyTorch does, what reads inputs, and a card."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
import platform
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import kdft_lib
from kdft_lib import models
from kdft_lib.export.cards import as_markdown
from kdft_lib.export.reading import Exported, load
from kdft_lib.files import written_whole
from kdft_lib.models import evaluation_mode

_GAP = 1e-3
"""How far a logit of the file may be from PyTorch's: rounding is some 1e-6 of what is added up."""
_EXAMPLES = 64
_NAMES = {"pictures": "pictures", "columns": "rows", "texts": "words"}
_OWN = ("model", "arguments", "classes", "threshold", "reader")
"""What a card says by itself, and is read by."""


def to_onnx(
    model: nn.Module,
    path: str | Path,
    inputs: models.Inputs,
    *,
    card: Mapping[str, Any] | None = None,
    max_tokens: int | None = None,
) -> Path:
    """Write a network as ONNX, for any number of rows, and of tokens where it takes texts.

    It is in evaluation mode for that. The file names no source file of yours, holds no example, and has the card in
    its metadata.

    Args:
        model: The network, which is left as it was.
        path: The file, whose name ends in ``.onnx``.
        inputs: Two rows or more that it can take: a tensor, or a mapping that is passed as keywords. int64 ``(N, T)``
            is taken for tokens, whose number may vary.
        card: The notes to put inside, plain JSON values.
        max_tokens: How many tokens it can take at most; by default any number.

    Returns:
        The path written.

    Raises:
        ImportError: If onnx or onnxscript is not installed.
        ValueError: If the card is not JSON.
        OSError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> path = to_onnx(nn.Linear(3, 2), Path(tempfile.mkdtemp()) / "small.onnx", torch.zeros(2, 3))
        >>> path.stat().st_size < 5000
        True
    """
    named = dict(inputs) if isinstance(inputs, Mapping) else {"inputs": inputs}
    return _exported(_Called(model, [*named], isinstance(inputs, Mapping)), Path(path), named, card, max_tokens)


def _exported(
    called: _Called, path: Path, inputs: Mapping[str, Tensor], card: Mapping[str, Any] | None, max_tokens: int | None
) -> Path:
    examples = {name: tensor[:2] for name, tensor in inputs.items()}
    for each in examples.values():
        if len(each) < 2 or (_is_tokens(each) and each.shape[1] < 2):
            raise ValueError(
                f"the examples have shape {tuple(each.shape)}; give two or more, and texts of two tokens or more, so"
                " that the file is made for any number"
            )
    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens", max=max_tokens)
    shapes = [{0: rows, 1: tokens} if _is_tokens(each) else {0: rows} for each in examples.values()]
    with evaluation_mode(called), _quiet():
        graph = torch.export.export(called, tuple(examples.values()), dynamic_shapes=(tuple(shapes),))
        try:
            program = torch.onnx.export(
                graph, (), dynamo=True, verbose=False, input_names=[*examples], output_names=["logits"]
            )
        except ImportError as error:
            raise ImportError(
                f"an ONNX file needs {error.name}, which is not installed; pip install 'kdft-lib[export]' brings it"
            ) from None
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()
    if card is not None:
        program.model.metadata_props["card"] = _as_json(card)
    with written_whole(path) as temporary:
        program.save(temporary, external_data=False)
    return path


def write(
    model: nn.Module,
    folder: str | Path,
    *,
    reader: Any,
    examples: Sequence[Any] | models.Inputs,
    classes: Sequence[str] = (),
    threshold: float = 0.0,
    card: Mapping[str, Any] | None = None,
    name: str = "student",
) -> Exported:
    """Write ``NAME.safetensors``, ``NAME.onnx`` and ``NAME.md``, and see that the ONNX file answers as PyTorch does.

    Where it does not, nothing is left. The card is in JSON inside of both files and as Markdown beside them. What reads
    inputs is in the card, and what is too long for it beside the file: ``tokenizer.json`` of texts, ``columns.json`` of
    a table.

    Args:
        model: The trained network, which is left as it was.
        folder: Where to write.
        reader: What makes its inputs: :class:`~kdft_lib.data.PictureReader`, :class:`~kdft_lib.data.Columns` or
            :class:`~kdft_lib.data.TextReader`.
        examples: Some inputs of the network to compare answers on, as the reader makes them, two or more. None of
            them is written.
        classes: The names of the classes; none for a regression.
        threshold: The confidence up to which :meth:`Exported.predict` says "not sure".
        card: Further notes: data, recipe, scores, licence. Plain JSON values.
        name: How the files are called.

    Returns:
        The file, read back as :class:`Exported`.

    Raises:
        ImportError: If onnx, onnxscript or onnxruntime is not installed.
        ValueError: If the card is not JSON or names what it says by itself, such as ``threshold``, or the file answers
            otherwise than PyTorch, for 1, 2 or more rows.
        OSError: If a file cannot be written.

    Example:
        >>> import tempfile
        >>> from kdft_lib.data import PictureReader
        >>> folder, net = Path(tempfile.mkdtemp()), models.PictureClassifier(num_classes=2, size=32)
        >>> pictures = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
        >>> shipped = write(net, folder, reader=PictureReader(32), examples=pictures, classes=["cat", "dog"])
        >>> sorted(path.name for path in folder.iterdir())
        ['student.md', 'student.onnx', 'student.safetensors']
        >>> shipped.card["checked"]["rows"]
        8
    """
    for key in card or {}:
        if key in _OWN:
            raise ValueError(f"card holds {key!r}, which a file says by itself; give your note another name")
    given: Any = examples if isinstance(examples, Tensor | Mapping) else reader(examples)
    mapped = isinstance(given, Mapping)
    inputs = {
        key: tensor[:_EXAMPLES].cpu() for key, tensor in (given if mapped else {_NAMES[reader.kind]: given}).items()
    }
    settings = {} if reader.kind == "columns" else reader.settings()
    notes: dict[str, Any] = {
        "model": type(model).__name__, "arguments": getattr(model, "arguments", None), "classes": list(classes),
        "threshold": threshold, "reader": {"kind": reader.kind} | settings,
        "weights begin as": getattr(model, "origin", "not stated"), **(card or {}), "made with": _versions(),
    }  # fmt: skip
    _as_json(notes)  # Before anything is written.
    called = _Called(copy.deepcopy(model).cpu(), [*inputs], mapped)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}.") as unchecked:
        place = Path(unchecked)
        path = _exported(called, place / f"{name}.onnx", inputs, notes, getattr(reader, "max_tokens", None))
        if reader.kind == "texts":
            _write(place / "tokenizer.json", reader.tokenizer.to_str(pretty=False))
        elif reader.kind == "columns":
            _write(place / "columns.json", json.dumps(reader.settings(), indent=1, ensure_ascii=False) + "\n")
        notes["checked"] = _checked(called, load(path), inputs)
        _into(path, notes)
        models.save(called.model, place / f"{name}.safetensors", notes, inside=True)
        _write(place / f"{name}.md", as_markdown(notes, f"{name}.onnx"))
        others = [file.name for file in folder.glob("*.onnx") if file.stem != name]
        for beside in ("tokenizer.json", "columns.json"):
            new, old = place / beside, folder / beside
            if others and new.exists() and old.exists() and new.read_bytes() != old.read_bytes():
                raise ValueError(f"{old} belongs to {others[0]}; write {name} to a folder of its own")
        for file in place.iterdir():
            os.replace(file, folder / file.name)
    return load(folder / path.name)


def _checked(called: _Called, shipped: Exported, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """How far the file's answers are from PyTorch's, for 1, 2 and all rows."""
    count, gaps, alike = len(next(iter(inputs.values()))), [], 0
    for size in sorted({1, min(2, count), count}):
        some = {key: tensor[:size] for key, tensor in inputs.items()}
        with evaluation_mode(called):
            ours = called(*some.values()).float()
        theirs = shipped.logits(some)
        gaps.append((ours - theirs).abs().max())
        alike = int((ours.argmax(-1) == theirs.argmax(-1)).sum())
    worst = torch.stack(gaps).max().item()  # Not a number, if any is none.
    scale = max(1.0, ours.abs().max().item())
    if not worst <= _GAP * scale:
        raise ValueError(
            f"{shipped.path.name} answers otherwise than PyTorch: a logit differs by {worst:.2g}, of {scale:.3g} at"
            " most; it was not kept, so look for what depends on training mode, or on the number of rows"
        )
    return {"rows": count, "largest gap": float(f"{worst:.1e}"), "decided alike": alike}


def _into(path: Path, notes: Mapping[str, Any]) -> None:
    """The card inside of an ONNX file, anew."""
    import onnx

    file = onnx.load(path)
    onnx.helper.set_model_props(file, {"card": _as_json(notes)})
    with written_whole(path) as temporary:
        onnx.save(file, temporary)


def _as_json(card: Mapping[str, Any]) -> str:
    try:
        return json.dumps(card, ensure_ascii=False)
    except TypeError as error:
        raise ValueError(f"card cannot be written as JSON ({error}); use plain numbers, texts and lists") from None


def _write(path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _versions() -> dict[str, str]:
    return {"kdft-lib": kdft_lib.__version__, "python": platform.python_version()} | {
        package: metadata.version(package) for package in ("torch", "onnx")
    }


def _is_tokens(tensor: Tensor) -> bool:
    return tensor.dtype == torch.int64 and tensor.dim() == 2


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say of themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class _Called(nn.Module):
    """A network that takes its inputs one after another and gives a tensor."""

    def __init__(self, model: nn.Module, names: Sequence[str], mapped: bool):
        super().__init__()
        self.model, self.names, self.mapped = model, list(names), mapped

    def forward(self, *inputs: Tensor) -> Tensor:
        return models.logits(self.model, dict(zip(self.names, inputs, strict=True)) if self.mapped else inputs[0])
