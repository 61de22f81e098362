"""Keep a model with what made it: weights in safetensors, and a card in JSON beside them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdft_lib.files import written_whole
from kdft_lib.models.characters import CharacterGRU
from kdft_lib.models.own import MLP, PictureClassifier, WordBag
from kdft_lib.models.small import DSCNN, ConvNet, ResNet

_OURS: dict[str, type[nn.Module]] = {
    each.__name__: each for each in (ConvNet, ResNet, DSCNN, PictureClassifier, WordBag, MLP, CharacterGRU)
}


def save(model: nn.Module, path: str | Path, card: Mapping[str, Any] | None = None, *, inside: bool = False) -> Path:
    """Write ``path`` (safetensors) and its card, ``path`` with the suffix ``.json``.

    Both are written in full under another name and then renamed, so that a full disk or an
    interruption leaves what was there before.

    Args:
        model: The model to keep, any module. One of ConvNet, ResNet, DSCNN, PictureClassifier, WordBag, MLP and
            CharacterGRU can be loaded again by its card alone.
        path: The file to write, whose name ends in ``.safetensors``.
        card: The notes that a person should find, a model card: data, recipe, accuracy, licence. Plain JSON
            values.
        inside: Whether the card is in the file's own header, in place of a file beside it.

    Returns:
        The path written.

    Raises:
        ValueError: If the name ends otherwise, or the card is not JSON.
        OSError: If it cannot be written.

    Example:
        >>> import tempfile
        >>> path = save(ConvNet(width=2), Path(tempfile.mkdtemp()) / "student.safetensors")
        >>> load(path).arguments["width"]
        2
    """
    from safetensors.torch import save_model

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path is {path}; the name must end in .safetensors")
    described = {"model": type(model).__name__, "arguments": getattr(model, "arguments", None)} | dict(card or {})
    try:
        text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise ValueError(f"card cannot be written as JSON ({error}); use plain numbers, texts and lists") from None
    with written_whole(path) as weights:
        if inside:
            save_model(model, str(weights), {"card": text})
            return path
        save_model(model, str(weights))
        with written_whole(path.with_suffix(".json")) as notes:
            notes.write_text(text, encoding="utf-8")
    return path


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Read what :func:`save` wrote.

    Args:
        path: The ``.safetensors`` file.
        model: The model that the weights go into. Without it, the card names one of :mod:`kdft_lib.models`, which
            is built from the arguments noted there.

    Returns:
        The model, in training mode as a new one is, with its card as the attribute ``card``.

    Raises:
        FileNotFoundError: If the weights or, without ``model``, the card are missing.
        ValueError: If the card names no model of ours, or the weights do not fit the model.

    Example:
        >>> load(resources.files("kdft_lib") / "assets/weights/fashion_teacher.safetensors").arguments["width"]
        20
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    path = Path(str(path))
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; save(model, path) writes it")
    notes = path.with_suffix(".json")
    card = _inside(path)
    if not card and notes.exists():
        card = json.loads(notes.read_text(encoding="utf-8"))
    if model is None:
        if not card:
            raise FileNotFoundError(
                f"{path} has no card in it, and {notes.name} is not beside it; pass the model to load into:"
                " load(path, model)"
            )
        if card.get("model") not in _OURS or not isinstance(card.get("arguments"), dict):
            raise ValueError(
                f"the card of {path} names the model {card.get('model')!r}, which is not one of"
                f" {', '.join(_OURS)}; pass the model to load into: load(path, model)"
            )
        model = _OURS[card["model"]](**card["arguments"])
    try:
        load_model(model, str(path))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path} does not hold the weights of this {type(model).__name__}: {error}") from None
    model.card = card  # type: ignore[assignment]
    return model


def _inside(path: Path) -> dict[str, Any]:
    """The card in a file's own header, if there is one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            found: dict[str, Any] = json.loads((file.metadata() or {}).get("card", "{}"))
            return found
    except (OSError, SafetensorError):
        return {}


def fashion_teacher() -> nn.Module:
    """The book's teacher for Fashion-MNIST, with the weights that ship in the package.

    A :class:`ResNet` of width 20, trained with labels on the 55,000 training images that are not
    the validation set of :func:`kdft_lib.datasets.fashion_mnist`. ``make teacher`` trains it again; the
    card ``assets/weights/fashion_teacher.json`` says how, and how well it does.

    Returns:
        The model, in evaluation mode, taking what :func:`kdft_lib.datasets.fashion_mnist` gives.

    Example:
        >>> fashion_teacher()(torch.zeros(1, 1, 28, 28)).shape
        torch.Size([1, 10])
    """
    return load(Path(str(resources.files("kdft_lib") / "assets/weights/fashion_teacher.safetensors"))).eval()


def digest(model: nn.Module) -> str:
    """SHA-256 of each module's class and settings as shown, and of every parameter and buffer; of what torch.compile
    made, or data parallelism, that of the model inside.
    """
    while (inner := _inside_of(model)) is not model:
        model = inner
    found = hashlib.sha256()
    for name, module in model.named_modules():
        shown = re.sub(r" at 0x[0-9a-fA-F]+", "", module.extra_repr())
        found.update(f"{name} {type(module).__qualname__} {shown}".encode())
    # Buffers that are not saved, such as those of rotary positions, count too.
    for name, held in (model.state_dict() | dict(model.named_buffers())).items():
        for part in held if isinstance(held, tuple) else (held,):  # Quantised layers hold weight and bias together.
            if isinstance(part, Tensor):
                tensor = part.detach().dequantize() if part.is_quantized else part.detach()
                found.update(f"{name} {part.dtype} {tuple(part.shape)}".encode())
                found.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
            else:
                found.update(f"{name} {part}".encode())
    return found.hexdigest()


def _inside_of(model: nn.Module) -> Any:
    parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
    return model.module if parallel else getattr(model, "_orig_mod", model)
