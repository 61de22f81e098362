"""Networks for a reader's own data: photographs as they are, words, columns, and any folder of Hugging Face."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdft_lib.data import TextReader
from kdft_lib.models.pretrained import ImageTransform, imagenet_backbone
from kdft_lib.models.running import logits
from kdft_lib.models.small import ConvNet

_HALF = (0.5, 0.5, 0.5)


class PictureClassifier(nn.Module):
    """A network that takes photographs as :class:`kdft_lib.data.PictureReader` reads them: bytes, colours first.

    What brings them to what the network was made for is a part of it, so that nothing has to be done before a file
    that was exported of it is asked, and nothing can be forgotten.

    Args:
        network: The network: ``"convnet"``, a :class:`ConvNet` with random weights; or what
            :func:`imagenet_backbone` takes, such as ``"efficientnet_lite0"`` or ``"timm:mobilenetv3_small_050"``.
        num_classes: The number of classes, and so of logits.
        size: The height and width of the pictures.
        width: The width of a ``"convnet"``: 16 is 24,000 parameters, some 97 kB; 32 is 94,000.
        pretrained: Whether a backbone begins with its ImageNet weights.

    Attributes:
        arguments: What :func:`load` makes it again with.
        head_name: The name of its head.
        origin: Where its weights begin, and under which licence, in words.

    Shape:
        uint8 ``(N, 3, size, size)`` → ``(N, num_classes)``.

    Example:
        >>> PictureClassifier(num_classes=2, size=32)(torch.zeros(4, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        network: str = "convnet",
        num_classes: int = 2,
        size: int = 64,
        *,
        width: int = 16,
        pretrained: bool = True,
    ):
        super().__init__()
        self.arguments = {
            "network": network, "num_classes": num_classes, "size": size, "width": width, "pretrained": False,
        }  # fmt: skip
        of_bytes = (0.0, 1 / 255)
        if network == "convnet":
            self.network: nn.Module = ConvNet(width, num_classes, channels=3)
            self.transform: nn.Module = ImageTransform(size, _HALF, _HALF, of_bytes)
            self.head_name, self.origin = "network.head", "random weights"
        else:
            found: Any = imagenet_backbone(network, num_classes, image_size=size, given=of_bytes, pretrained=pretrained)
            self.transform, self.origin = found.transform, found.origin
            del found.transform
            self.network, self.head_name = found, f"network.{found.head_name}"

    def forward(self, pictures: Tensor) -> Tensor:
        return self.network(self.transform(pictures).to(next(self.network.parameters()).dtype))

    @classmethod
    def named(cls, name: str, classes: Sequence[str], size: int = 64) -> PictureClassifier:
        """A network for these classes: of that name, or read from a file that knows these classes already.

        Args:
            name: What ``network`` may be; or a ``.safetensors`` file that :func:`save`, or
                :func:`kdft_lib.export.write`, wrote, with ``classes`` in its card.
            classes: The names of the classes.
            size: The height and width of the pictures.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file holds another kind of network, other classes or another size.

        Example:
            >>> PictureClassifier.named("convnet", ["cat", "dog"], 32).arguments["num_classes"]
            2
        """
        if not name.endswith(".safetensors"):
            return cls(name, len(classes), size)
        from kdft_lib.models.files import load

        found: Any = load(name)
        card, seen = found.card, getattr(found, "arguments", {}).get("size")
        known = card.get("classes")
        if not isinstance(found, cls) or known != list(classes) or seen != size:
            raise ValueError(
                f"{name} holds a {type(found).__name__} for the classes {known} at {seen} pixels; a teacher for these"
                f" pictures is a PictureClassifier for {list(classes)} at {size}"
            )
        found.origin = f"the file {Path(name).name}: {card.get('weights begin as', 'not stated')}"
        return found


class WordBag(nn.Module):
    """The mean of an embedding for each word, and a linear layer: what fits wherever a list of words does.

    Args:
        num_words: How many words there are; 0 is none, and weighs nothing.
        num_classes: The number of classes, and so of logits.
        width: How many numbers a word has.

    Shape:
        int64 ``(N, T)`` → ``(N, num_classes)``.

    Example:
        >>> WordBag(100, 3)(torch.tensor([[4, 7, 0], [9, 0, 0]])).shape
        torch.Size([2, 3])
    """

    def __init__(self, num_words: int, num_classes: int = 2, width: int = 32):
        super().__init__()
        self.arguments = {"num_words": num_words, "num_classes": num_classes, "width": width}
        self.embedding = nn.Embedding(num_words, width, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.1)
        with torch.no_grad():
            self.embedding.weight[0] = 0
        self.head = nn.Linear(width, num_classes)
        self.origin = "random weights"

    def forward(self, words: Tensor) -> Tensor:
        known = (words > 0).sum(1, keepdim=True).clamp(min=1)
        return self.head(self.embedding(words).sum(1) / known)


class MLP(nn.Module):
    """Two hidden layers for what :class:`kdft_lib.data.Columns` makes of a table's rows.

    Args:
        num_inputs: The number of inputs of a row.
        num_outputs: The number of classes, or 1 for a number.
        width: The width of the hidden layers.
        mean: What is added to the outputs, and
        std: what they are multiplied by before: of a regression, those of the targets, so that weights may stay small.

    Shape:
        ``(N, num_inputs)`` → ``(N, num_outputs)``.

    Example:
        >>> MLP(5, 3)(torch.zeros(2, 5)).shape
        torch.Size([2, 3])
    """

    def __init__(self, num_inputs: int, num_outputs: int = 2, width: int = 64, mean: float = 0.0, std: float = 1.0):
        super().__init__()
        self.arguments = {
            "num_inputs": num_inputs, "num_outputs": num_outputs, "width": width, "mean": mean, "std": std,
        }  # fmt: skip
        self.mean, self.std = mean, std
        self.body = nn.Sequential(nn.Linear(num_inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.head = nn.Linear(width, num_outputs)
        self.origin = "random weights"

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.body(rows)) * self.std + self.mean

    def extra_repr(self) -> str:
        return f"mean={self.mean}, std={self.std}"


class TextClassifier(nn.Module):
    """A classifier of texts from any folder that Hugging Face's ``save_pretrained`` wrote, and its tokenizer.

    Args:
        folder: A folder with ``config.json``, ``model.safetensors`` and ``tokenizer.json``. Code in it does not run.
        classes: The names of the classes. Where the folder's own are others, the head is new and random.
        max_tokens: How many tokens are read of a text.

    Attributes:
        reader: The :class:`~kdft_lib.data.TextReader` that makes its inputs.
        is_trained: Whether its head has these classes already.
        origin: Where its weights begin, and under which licence, in words.

    Shape:
        ``input_ids`` and ``attention_mask``, int64 ``(N, T)`` → ``(N, num_classes)``.

    Raises:
        ImportError: If transformers is not installed.
        FileNotFoundError: If the folder, or a file of it, is missing.
        ValueError: If transformers makes no classifier of it.

    Example:
        >>> TextClassifier("nowhere", ["art", "sport"])
        Traceback (most recent call last):
        FileNotFoundError: nowhere has no config.json; name a folder that save_pretrained wrote, with its tokenizer
    """

    def __init__(self, folder: str | Path, classes: Any, *, max_tokens: int = 256):
        super().__init__()
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{folder} has no config.json; name a folder that save_pretrained wrote, with its tokenizer"
            )
        try:
            from transformers import AutoModelForSequenceClassification
            from transformers.utils import logging
        except ImportError:
            raise ImportError(
                "a folder of Hugging Face needs transformers, which is not installed; pip install 'kdft-lib[language]'"
                " brings it"
            ) from None
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        own = config.get("id2label") or {}
        ordered = [str(own[key]) for key in sorted(own, key=int)]
        self.is_trained = ordered == list(classes)
        most = config.get("max_position_embeddings", max_tokens)
        if any(kind in config.get("model_type", "") for kind in ("roberta", "camembert")):
            most -= (config.get("pad_token_id") or 0) + 1  # Their positions begin behind that of padding.
        self.reader = TextReader.from_file(
            folder / "tokenizer.json", max_tokens=min(max_tokens, most), padding=config.get("pad_token_id") or 0
        )
        before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()  # It says at length that a new head is new.
        logging.disable_progress_bar()
        try:
            self.model = AutoModelForSequenceClassification.from_pretrained(
                folder, num_labels=len(classes), id2label=dict(enumerate(classes)),
                label2id={name: place for place, name in enumerate(classes)},
                ignore_mismatched_sizes=True, local_files_only=True, attn_implementation="eager",
            ).float()  # fmt: skip
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{folder} cannot be read as a classifier of texts ({error})") from None
        finally:
            logging.set_verbosity(before)
            if bars:
                logging.enable_progress_bar()
        if not self.is_trained:
            self._begin_head_anew()
        self.train()
        self.origin = f"{config.get('model_type', 'a network')} from the folder {folder.name}, licence not stated there"

    def _begin_head_anew(self) -> None:
        """A head of as many classes would have been read, whatever these are called."""
        std = getattr(self.model.config, "initializer_range", 0.02)
        for name, part in self.model.named_children():
            for module in part.modules() if name != self.model.base_model_prefix else ():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=std)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        inputs: Mapping[str, Tensor] = {"input_ids": input_ids, "attention_mask": attention_mask}
        return logits(self.model, inputs)
