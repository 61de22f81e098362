"""What the recipe of losses between tokenizers computes: against sums over all that a teacher may say, values by hand,
and TRL's own function where it is installed.
"""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from kdft_lib import models
from kdft_lib.data import token_bytes, tokenizations
from kdft_lib.losses import next_bytes

pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers", minversion="5")
RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture
def recipe(monkeypatch):
    """On few texts, with a small model."""
    small = importlib.import_module("test_recipes")
    monkeypatch.syspath_prepend(str(RECIPES))
    for name in ("between_tokens", "between_tokens_parts"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(models, "language_model", small.language_model_once)
    made, parts = (importlib.import_module(name) for name in ("between_tokens", "between_tokens_parts"))
    for constant, value in small.FEWER["between_tokens"].items():
        monkeypatch.setattr(parts if hasattr(parts, constant) else made, constant, value)
    yield made
    for name in ("between_tokens", "between_tokens_parts"):
        monkeypatch.delitem(sys.modules, name)


def test_all_beginnings_are_read_in_one_pass(recipe):
    parts = sys.modules["between_tokens_parts"]
    prompt, nodes = [0, 5, 7], [(), (4,), (4, 9), (6,), (4, 8), (4, 9, 3)]
    found, model = parts.answers(prompt, nodes), parts.whole()[0]
    with torch.no_grad():
        for node, answer in zip(nodes, found, strict=True):
            alone = model(torch.tensor([[*prompt, *node]])).logits[0, -1].log_softmax(-1)
            torch.testing.assert_close(answer, alone, rtol=1e-4, atol=1e-5)


def test_of_bytes_a_student_that_is_right_says_what_all_tokenizations_say(recipe):
    parts = sys.modules["between_tokens_parts"]
    at, by, (_, tokenizer) = parts.place("bytes", 1), parts.student("bytes"), parts.whole()
    text = max((text for text in at.texts if text.ends[0][-1] > 1), key=lambda text: text.ends[0][-1])
    vocabulary = token_bytes(tokenizer)
    rows = tokenizations(vocabulary[int(text.tokens)].decode(), tokenizer, of="all")
    read = [tuple(row[1 : int(there.sum())].tolist()) for row, there in zip(*rows.values(), strict=True)]
    nodes = [*dict.fromkeys(row[:size] for row in read for size in range(len(row) + 1))]
    known = dict(zip(nodes, parts.answers(next(parts.begins(1, parts.PLACES["bytes"]))[0], nodes), strict=True))
    known[()] = text.teacher[0]
    longest = rows["input_ids"].shape[1]
    logits = torch.stack([torch.stack([known[row[:size]] for size in range(longest)]) for row in read])
    found = next_bytes(logits, rows["input_ids"], vocabulary, mask=rows["attention_mask"].bool())
    own = [number for number, spelled in enumerate(by.vocabulary) if spelled]
    order = [by.vocabulary[number][0] for number in own]
    expected = found.logits.exp()[:, order].double()
    torch.testing.assert_close(text.right.exp()[:, own], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["bytes", "some of its tokens"])
def test_a_student_that_is_right_begins_as_the_teacher_does(recipe, kind):
    parts = sys.modules["between_tokens_parts"]
    at, by, vocabulary = parts.place(kind, 0), parts.student(kind), token_bytes(parts.whole()[1])

    def first(chances, spelled):
        numbers = torch.tensor([each[0] if each else 256 for each in spelled])
        return torch.zeros(257).double().index_add_(0, numbers, chances.double())

    spoken = F.pad(at.texts[0].teacher[0].exp(), (0, 0))
    torch.testing.assert_close(first(at.right[0].exp(), by.vocabulary), first(spoken, vocabulary), rtol=1e-4, atol=1e-6)
    for text, rows in zip(at.texts, at.rows, strict=True):
        assert b"".join(by.vocabulary[token] for token in text.spelled) == vocabulary[int(text.tokens)]
        torch.testing.assert_close(at.right[rows], text.right)
        loss = recipe.LOSSES["exactly"](text, by)
        assert float(loss(text.right)) == pytest.approx(0, abs=1e-9)
    made = recipe.Follow(kind, "exactly", 2).train(None, 0).model
    assert made["left by one who is right"] == pytest.approx(0, abs=1e-6)
    assert made["direction"] == pytest.approx(1)
    assert made["before"] > 0


def case(recipe, teacher_words=9, student_words=8):
    """Three tokens that are four of a student's, which ends another where the teacher's second one does: random answers
    of both, and a student's tokens of which the teacher has some."""
    parts = sys.modules["between_tokens_parts"]
    generator = torch.Generator().manual_seed(3)

    def drawn(rows, words):
        return (2 * torch.randn(rows, words, generator=generator, dtype=torch.float64)).log_softmax(-1)

    spelled = torch.tensor(
        [[number, -1, -1] for number in (4, 0, 2, 7, 1)] + [[1, 2, -1], [2, 2, -1], [0, 3, -1], [4, 4, -1]]
    )
    by = parts.Student((b"a",) * student_words, spelled, drawn(1, student_words)[0])
    text = parts.Text(
        torch.tensor([5, 1, 8]), torch.tensor([1, 2, 6, 4]), ([3, 5, 6], [1, 3, 4, 6]), drawn(4, teacher_words),
        drawn(5, student_words), {},
    )  # fmt: skip
    return text, by


def test_spans_end_where_tokens_of_both_end(recipe):
    assert recipe.groups([3, 5, 6], [1, 3, 4, 6]) == [(0, 0), (1, 2)]
    assert recipe.groups([1, 3, 4, 6], [3, 5, 6]) == [(0, 1), (2, 3)]


def test_merged_chances_are_the_published_products(recipe):
    chances = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
    tokens, spans = torch.tensor([1, 0, 2]), [(0, 1), (2, 2)]
    by_rule = recipe.merged(chances, tokens, spans, chain_rule=True)
    torch.testing.assert_close(by_rule, torch.stack([0.3 * chances[1], chances[2]]))
    observed = recipe.merged(chances, tokens, spans, chain_rule=False)
    torch.testing.assert_close(observed, torch.stack([0.1 * chances[0], chances[2]]))


SETTINGS = {
    "ULD": {"use_extended_uld": False, "uld_token_merge_strategy": "bayesian"},
    "GOLD": {},
    "GOLD, chain rule": {"uld_token_merge_strategy": "bayesian"},
    "GOLD, chain rule, matched": {"uld_token_merge_strategy": "bayesian", "uld_use_hybrid_loss": True},
}
TRL = {
    "uld_crossentropy_weight": 0.0, "uld_distillation_weight": 1.0, "uld_student_temperature": 1.0,
    "uld_teacher_temperature": 1.0, "uld_skip_student_eos": True, "uld_skip_teacher_eos": True,
    "use_extended_uld": True, "uld_token_merge_strategy": "observed", "uld_use_hybrid_loss": False,
    "uld_hybrid_matched_weight": None, "uld_hybrid_unmatched_weight": None, "beta": 0.5,
}  # fmt: skip


def named(numbers):
    """A tokenizer that tells its vocabulary alone."""
    return SimpleNamespace(get_vocab=lambda: {str(name): number for number, name in numbers.items()})


@pytest.mark.parametrize("name", SETTINGS)
def test_losses_are_those_of_trl(recipe, name):
    """ULDLoss of trl 1.16.0, whose GOLDTrainer gives it logits, labels, and of each token the bytes."""
    gold = pytest.importorskip("trl.experimental.gold.gold_trainer", reason="TRL is installed for this alone")
    text, by = case(recipe)
    student = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    ours = recipe.LOSSES[name](text, by)(student)
    kept = {int(by.spelled[number, 0]): number for number in range(5)}
    names = {number: f"own {number}" for number in range(8)} | {
        number: f"both {other}" for number, other in kept.items()
    }
    tokenizers = named(names), named({number: f"both {number}" for number in range(5)} | {7: "x", 8: "y"})
    theirs = gold.ULDLoss(SimpleNamespace(**TRL | SETTINGS[name]), *tokenizers)

    def side(answers, tokens, ends):
        """Behind a prompt of one token, and before an end, which is left out."""
        ids = torch.tensor([[0, *tokens.tolist(), 0]])
        labels = ids.clone()
        labels[0, 0] = -100
        offsets = torch.tensor([[[0, 0], *itertools.pairwise([0, *ends]), [ends[-1], ends[-1]]]])
        return F.pad(answers, (0, 0, 0, 1))[None], labels, ids, offsets

    given = zip(side(student, text.spelled, text.ends[1]), side(text.teacher, text.tokens, text.ends[0]), strict=True)
    wanted = theirs(*itertools.chain.from_iterable(given))
    torch.testing.assert_close(ours, wanted, check_dtype=False, rtol=1e-6, atol=1e-7)
    for found, other in zip(*(torch.autograd.grad(loss, student) for loss in (ours, wanted)), strict=True):
        torch.testing.assert_close(found, other, rtol=1e-5, atol=1e-7)
