"""What the recipe of retrieval is made of: titles and their stories, what embeds them or weighs their words, and
objectives on pairs of vectors.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from language import cut, encoder, split_words, stories, vocabulary, within
from language_rivals import RARE, pieces_alone
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from torch import Tensor, nn

from kdft_lib.data import Batch, Splits, TensorData
from kdft_lib.experiments import Trained
from kdft_lib.features import Outputs
from kdft_lib.objectives import Contrastive, FeatureObjective, Hint, Objective
from kdft_lib.teachers import Teacher
from kdft_lib.training import Ledger

PIECES, NUMBERS = 32, 128
"""Of a title, and of a story without it, as many word pieces are read; of a piece, the small students keep so many
numbers."""
KEPT: dict[tuple[int, int, int], Tensor] = {}


@functools.cache
def outside() -> Tensor:
    """The stories outside the test."""
    splits = within(None, 0)
    return torch.cat([splits.train.inputs, splits.val.inputs])


@functools.lru_cache(maxsize=2)
def archive(data: TensorData) -> TensorData:
    """What is searched: the stories whose titles ask, first, and all others outside the test."""
    others = outside()[~torch.isin(outside(), data.inputs)]
    return TensorData(torch.cat([data.inputs, others]))


@functools.cache
def parted(number: int) -> tuple[str, str]:
    """A story's title, and the story without it."""
    title, *rest = [line for line in list(stories())[number].splitlines() if line.strip()]
    return title, "\n".join(rest) or title


def beginning(text: str) -> str:
    """What an encoder with so many word pieces reads of a text; two of them mark its ends."""
    return text[: max(end for _, end in encoder(PIECES)._tokenizer.encode(text).offsets)]


@functools.cache
def words(number: int, whole: bool) -> list[str]:
    """Of a story, or of its beginning."""
    text = parted(number)[1]
    return split_words(text if whole else beginning(text))


@functools.cache
def padded(number: int) -> Tensor:
    """The pieces of a title and of its story, ``(2, 32)``, and 0 behind them."""
    texts = [encoder(PIECES).tokens([text])["input_ids"][0] for text in parted(number)]
    return torch.stack([F.pad(ids, (0, PIECES - len(ids))) for ids in texts])


def pieces(numbers: Tensor) -> Tensor:
    return torch.stack([padded(number) for number in numbers.tolist()])


class Embeds(nn.Module):
    """Vectors of titles and of stories ``(N, 2, D)``, for stories' numbers; its layer ``vectors`` has them in rows,
    titles at the even places.
    """

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Identity()

    def embed(self, ids: Tensor) -> Tensor:
        raise NotImplementedError

    def part(self, numbers: Tensor, which: int) -> Tensor:
        """Of titles alone, 0, or of stories, 1."""
        return self.embed(pieces(numbers)[:, which])

    def forward(self, numbers: Tensor) -> Tensor:
        found = torch.stack([self.part(numbers, which) for which in (0, 1)], dim=1)
        return self.vectors(found.flatten(0, 1)).unflatten(0, (-1, 2))


class Layers(Embeds):
    """Two of MiniLM's six layers, on its embeddings of the students' vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        made: Any = cut()
        made.model.head = nn.Identity()
        self.model = made.model

    def embed(self, ids: Tensor) -> Tensor:
        return self.model(vocabulary()[ids], (ids > 0).long())


class Bag(Embeds):
    """The mean of some numbers for each piece."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.EmbeddingBag(1 + int(vocabulary().max()), NUMBERS, mode="mean", padding_idx=0)
        nn.init.normal_(self.embeddings.weight, std=0.1)

    def embed(self, ids: Tensor) -> Tensor:
        return self.embeddings(vocabulary()[ids])


@functools.cache
def table() -> Tensor:
    """For each piece of the students' vocabulary what MiniLM makes of it alone, on its main axes, with a weight that is
    small where a piece is frequent: Model2Vec's idea.
    """
    alone = pieces_alone((vocabulary() > 0).nonzero().flatten())
    alone -= alone.mean(dim=0)
    axes = torch.linalg.eigh(alone.T @ alone).eigenvectors[:, -NUMBERS:]
    counts = vocabulary()[pieces(outside())].flatten().bincount(minlength=1 + len(alone))[1:]
    return (RARE / (RARE + counts / counts.sum())).unsqueeze(1) * (alone @ axes)


class Static(Bag):
    """The bag, begun where MiniLM has each piece by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings.weight.data[1:] = table()


class MiniLM(Embeds):
    """MiniLM's vectors of titles and of so many pieces of the stories; each is read once."""

    tokens: Tensor

    def __init__(self, tokens: int = PIECES) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.tensor(tokens))

    def embed(self, ids: Tensor) -> Tensor:
        return encoder(PIECES).eval()(ids, (ids > 0).long())

    def part(self, numbers: Tensor, which: int) -> Tensor:
        tokens = int(self.tokens)
        new = [number for number in dict.fromkeys(numbers.tolist()) if (tokens, which, number) not in KEPT]
        read = encoder(tokens).embed([parted(number)[which] for number in new])
        KEPT.update({(tokens, which, number): row for number, row in zip(new, read, strict=True)})
        return torch.stack([KEPT[tokens, which, number] for number in numbers.tolist()])


class Straight(Hint):
    """MSE through a layer that is trained along, which begins by changing nothing where it has as many inputs as
    outputs.
    """

    def prepare(self, model: nn.Module, first_batch: Batch) -> None:
        super().prepare(model, first_batch)
        change_nothing(self.regressor)


class Cosine(Straight):
    """Turn each vector, through such a layer, to where the teacher's points."""

    name = "cosine"

    def compare(self, student: Tensor, teacher: Tensor, batch: Batch) -> dict[str, Tensor]:
        values = 1 - F.cosine_similarity(self.projected(student, teacher), teacher, dim=1)
        return {"feature": self.mean(values, batch)}


class CosineAtRandom(Hint):
    """The same through a layer that begins at random."""

    name, compare = Cosine.name, Cosine.compare


class Contrast(Contrastive):
    """In-batch contrast through such a layer."""

    def prepare(self, model: nn.Module, first_batch: Batch) -> None:
        super().prepare(model, first_batch)
        change_nothing(self.regressor)


def change_nothing(layer: Any) -> None:
    if layer.in_features == layer.out_features:
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)


def cosines(titles: Tensor, stories: Tensor) -> Tensor:
    """Of each title with each story."""
    return F.normalize(titles, dim=1) @ F.normalize(stories, dim=1).T


def in_batch(vectors: Tensor) -> Tensor:
    """The same of rows that are titles and stories by turns."""
    return cosines(*vectors.unflatten(0, (-1, 2)).unbind(1))


class Margins(FeatureObjective):
    """Match by how much a title's cosine with its own story exceeds that with each other story of the batch: Margin-MSE
    (Hofstätter et al., 2020), which has one other story for each title.
    """

    name = "margins"

    def __init__(self, teacher: nn.Module | Teacher, student_layer: str, teacher_layer: str):
        super().__init__(teacher, student_layer, teacher_layer, weights={"margin": 1.0})

    def compare(self, student: Tensor, teacher: Tensor, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = (each.diag().unsqueeze(1) - each for each in (in_batch(student), in_batch(teacher)))
        return {"margin": self.whole_batch(F.mse_loss(ours, theirs), batch)}


class TitlesAndStories(Objective):
    """No teacher: tell which of a batch's stories each title belongs to."""

    name = "pairs"

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__({"contrast": 1.0}, student_layers=["vectors"])
        self.temperature = temperature

    def parts(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        found = in_batch(student.features["vectors"])
        own = torch.arange(len(found))
        return {"contrast": self.whole_batch(F.cross_entropy(found / self.temperature, own), batch)}


@dataclasses.dataclass(frozen=True)
class Words:
    """No training: an index of the words of the stories that are searched, whole or their beginnings.

    BM25 (Robertson and Zaragoza, 2009) weighs a word of a story by how rare it is, and by its count, which saturates
    (``k1``) and is set against the story's length (``b``).
    """

    whole: bool = False
    k1: float = 1.2
    b: float = 0.75

    def but(self, **changes: Any) -> Words:
        return dataclasses.replace(self, **changes)

    def train(self, splits: Splits, seed: int) -> Trained:
        return Trained(self, Ledger())

    def read(self, data: TensorData) -> list[list[str]]:
        """The words of the stories."""
        return [words(number, self.whole) for number in data.inputs.tolist()]

    def index(self, texts: list[list[str]]) -> tuple[Any, csr_array]:
        """What counts the words of a query, and how much each word of each story weighs."""
        counter = CountVectorizer(analyzer=list)
        counts = csr_array(counter.fit_transform(texts)).tocoo()
        lengths, have = counts.sum(axis=1), np.bincount(counts.col)
        rare = np.log(1 + (len(texts) - have + 0.5) / (have + 0.5))
        damped = counts.data + self.k1 * (1 - self.b + self.b * lengths[counts.row] / lengths.mean())
        return counter, csr_array((rare[counts.col] * counts.data / damped, (counts.row, counts.col)), counts.shape)

    def scores(self, data: TensorData) -> Tensor:
        counter, weights = self.index(self.read(archive(data)))
        asked = [split_words(parted(number)[0]) for number in data.inputs.tolist()]
        return torch.from_numpy((counter.transform(asked) @ weights.T).toarray())


class Cosines(Words):
    """Cosines of TF-IDF, with logarithms of the counts."""

    def index(self, texts: list[list[str]]) -> tuple[Any, csr_array]:
        counter = TfidfVectorizer(analyzer=list, sublinear_tf=True)
        return counter, csr_array(counter.fit_transform(texts))
