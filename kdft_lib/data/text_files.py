"""A reader's own texts: a table that has them, and how a network takes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kdft_lib.data.own import Own, draw_parts, grouped, numbered, read_rows
from kdft_lib.data.splits import TextSplits
from kdft_lib.data.texts import TextData

if TYPE_CHECKING:
    import pandas

_UNKNOWN, _PADDING = "[UNK]", "[PAD]"


class TextReader:
    """Makes of texts the numbers of their tokens, with a tokenizer of the ``tokenizers`` library.

    Args:
        tokenizer: A ``tokenizers.Tokenizer``, which is copied.
        max_tokens: How many tokens are read of a text; what comes after is not seen.
        padding: The number that fills rows up.
        named: Whether inputs are ``{"input_ids", "attention_mask"}``, as transformers take them, or numbers alone.

    Example:
        >>> reader = TextReader.of_words(["a goal a song", "a goal"], least=1)
        >>> reader(["a goal", "a new song"])
        tensor([[2, 3, 0],
                [2, 1, 4]])
    """

    kind = "texts"

    def __init__(self, tokenizer: Any, max_tokens: int = 256, *, padding: int = 0, named: bool = True):
        self.tokenizer = type(tokenizer).from_str(tokenizer.to_str())
        self.max_tokens, self.padding, self.named = max_tokens, padding, named
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.enable_padding(pad_id=padding)

    @classmethod
    def of_words(cls, texts: Sequence[str], *, most: int = 20_000, least: int = 2, max_tokens: int = 512) -> TextReader:
        """One whose tokens are the words of these texts, in small letters; 0 is no word, 1 one it does not know.

        Args:
            texts: Those to learn from, with labels or without.
            most: How many words it knows, the most frequent.
            least: How often a word must come.
            max_tokens: How many words are read of a text.

        Raises:
            ImportError: If the tokenizers library is not installed.
            ValueError: If no word comes that often.
        """
        tokenizers = _tokenizers()
        from tokenizers import models, normalizers, pre_tokenizers, trainers

        words = tokenizers.Tokenizer(models.WordLevel(unk_token=_UNKNOWN))
        words.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        special = [_PADDING, _UNKNOWN]
        trainer = trainers.WordLevelTrainer(
            vocab_size=most + len(special), min_frequency=least, special_tokens=special, show_progress=False
        )
        words.train_from_iterator(texts, trainer)
        if words.get_vocab_size() == len(special):
            raise ValueError(f"no word comes {least} times in these {len(texts)} texts; give more of them")
        return cls(words, max_tokens, named=False)

    @classmethod
    def from_file(cls, path: str | Path, **settings: Any) -> TextReader:
        """One whose tokenizer a ``tokenizer.json`` holds; the settings are those of :class:`TextReader`.

        Raises:
            ImportError: If the tokenizers library is not installed.
            FileNotFoundError: If there is no such file.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"{path} does not exist; tokenizer.save_pretrained(folder) of a fast tokenizer writes it"
            )
        return cls(_tokenizers().Tokenizer.from_file(str(path)), **settings)

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return self.tokenizer.get_vocab_size()

    def __call__(self, texts: Sequence[str]) -> Any:
        """int64 ``(N, T)``, or a mapping of two such; T is the length of the longest, ``max_tokens`` at most."""
        if isinstance(texts, str):
            raise ValueError("texts is one text; give a list of them")
        if not len(texts):
            raise ValueError("texts is empty; give at least one")
        encodings = self.tokenizer.encode_batch(list(texts))
        ids, mask = (
            torch.tensor([getattr(each, name) for each in encodings], dtype=torch.int64).view(len(encodings), -1)
            for name in ("ids", "attention_mask")
        )
        return {"input_ids": ids, "attention_mask": mask} if self.named else _some(ids, self.padding)

    def settings(self) -> dict[str, Any]:
        """What it is made of beside its tokenizer, in plain values."""
        return {"max_tokens": self.max_tokens, "padding": self.padding, "named": self.named}


def text_file(
    path: str | Path,
    text_column: str,
    label_column: str,
    *,
    group_column: str | None = None,
    labeled: int | None = None,
    seed: int = 0,
) -> Own:
    """Texts of one's own, split for a study with few labels; see :func:`draw_parts`.

    Args:
        path: A CSV or JSON-lines file. A row without a label is one to transfer by.
        text_column: The column of texts.
        label_column: The column of classes.
        group_column: A column of what texts belong together, such as an author; by default each is by itself.
        labeled: How many texts keep their labels to learn from; by default all that are not to choose or test by.
        seed: The seed of the draw of labelled texts.

    Returns:
        :class:`Own`, whose splits are :class:`TextSplits` and whose names are the numbers of rows.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If a column is missing, a text is empty, there are fewer than two classes, a class has
            fewer than three texts, or a count is out of range.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "news.csv"
        >>> _ = path.write_text("text,topic\\n" + "a goal,sport\\na song,art\\n" * 10)
        >>> own = text_file(path, "text", "topic")
        >>> own.classes, own.counts["train"], own.splits.test
        (('art', 'sport'), 12, TextData(4 texts, targets (4,)))
    """
    rows = read_rows(path, [text_column, label_column, *([group_column] if group_column else [])])
    texts = texts_of(rows, text_column, path)
    targets, classes = numbered(list(rows[label_column]))
    groups = grouped(rows, group_column)
    parts = draw_parts(targets, labeled=labeled, groups=groups, seed=seed, classes=classes, unit="texts")
    whole = TextData(texts, targets)
    train, transfer, val, test = (whole[part] for part in parts)
    names = tuple([str(row) for row in part.tolist()] for part in parts)
    return Own(TextSplits(train, transfer.without_labels(), val, test), classes, names)


def texts_of(rows: pandas.DataFrame, column: str, path: str | Path) -> list[str]:
    """The texts of a file's rows; each has one."""
    texts = list(rows[column])
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"row {number + 1} of {path} has no text in {column!r}; leave the row out")
    return texts


def _some(ids: Tensor, padding: int) -> Tensor:
    """With one column at least, so that a row of no known token is one of padding."""
    return ids if ids.shape[1] else ids.new_full((len(ids), 1), padding)


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise ImportError(
            "texts need the tokenizers library, which is not installed; pip install 'kdft-lib[language]' brings it"
        ) from None
    return tokenizers
