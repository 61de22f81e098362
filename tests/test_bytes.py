"""Next bytes of models of tokens, against every way in which tokens can spell a text."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from kdft_lib import models
from kdft_lib.data import token_bytes, tokenizations
from kdft_lib.losses import next_bytes, reverse_kl_loss, soft_target_loss
from kdft_lib.losses.bytewise import _spread

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

VOCABULARY = (b"", b"a", b"b", b"ab", b"ba", b"aab", b"c", b"bc", b"")
TEXT = b"aabab"
TEXTS = ["It was the best of times, it was the best.", "Un café, 5 £ — ça va? 你好 🙂", "no"]


def llama(words=9):
    config = transformers.LlamaConfig(
        vocab_size=words, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False, initializer_range=0.5,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def gpt2(words=9):
    config = transformers.GPT2Config(
        vocab_size=words, n_embd=16, n_layer=2, n_head=2, n_positions=128, initializer_range=0.5
    )
    return transformers.GPT2LMHeadModel(config).eval()


NETWORKS = {"llama": llama, "gpt2": gpt2}


def symbols(token, vocabulary=VOCABULARY):
    return tuple(vocabulary[token]) or (256,)


def spellings(text, vocabulary=VOCABULARY):
    """Every run of tokens that has a text's bytes."""
    if not text:
        return [()]
    fitting = [token for token, spelled in enumerate(vocabulary) if spelled and text.startswith(spelled)]
    return [(token, *rest) for token in fitting for rest in spellings(text[len(vocabulary[token]) :], vocabulary)]


def inputs(rows):
    """Rows that begin from token 0, filled up behind with a token that is one."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[0, *row, *[1] * (longest - len(row))] for row in rows])
    return tokens, torch.arange(longest + 1) <= torch.tensor([[len(row)] for row in rows])


def said(model, rows, vocabulary=VOCABULARY):
    tokens, mask = inputs(rows)
    logits = models.logits(model, {"input_ids": tokens, "attention_mask": mask.long()})
    return next_bytes(logits, tokens, vocabulary, mask=mask)


def chance(model, text, read=()):
    """How likely texts are that begin so: a sum over all tokens that may come, and all after them."""
    if not text:
        return 1.0
    chances = model(torch.tensor([[0, *read]])).logits[0, -1].softmax(-1)
    total = 0.0
    for token, each in enumerate(chances):
        spelled = symbols(token)
        if spelled[: len(text)] == text:
            total = total + each
        elif text[: len(spelled)] == spelled:
            total = total + each * chance(model, text[len(spelled) :], (*read, token))
    return total


@pytest.fixture(params=NETWORKS)
def model(request):
    torch.manual_seed(1)
    return NETWORKS[request.param]().double()


def close(model, found, expected):
    """A Llama normalises in float32, whatever its weights are in, and so rounds other rows otherwise."""
    atol = 1e-6 if isinstance(model, transformers.LlamaForCausalLM) else 1e-11
    torch.testing.assert_close(found, expected, atol=atol, rtol=100 * atol)


def test_with_all_spellings_the_next_bytes_are_exact(model):
    found = said(model, spellings(TEXT))
    assert found.kept.tolist() == [1] * (len(TEXT) + 1)
    assert found.text.tolist() == [*TEXT]
    with torch.no_grad():
        for place in range(len(TEXT) + 1):
            begun = tuple(TEXT[:place])
            whole = chance(model, begun)
            expected = torch.tensor(
                [float(chance(model, (*begun, x)) / whole) for x in (97, 98, 99, 256)], dtype=torch.float64
            )
            close(model, found.logits[place].exp()[[97, 98, 99, 256]], expected)
            assert float(found.logits[place].exp().sum()) == pytest.approx(1, abs=1e-12)


def test_its_gradient_is_that_of_the_sum_over_all_spellings(model):
    found = said(model, spellings(TEXT))
    told = found.logits[:-1].gather(1, found.text.unsqueeze(1)).sum()
    expected = chance(model, tuple(TEXT)).log()
    close(model, told, expected)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    for ours, theirs in zip(*(torch.autograd.grad(value, weights) for value in (told, expected)), strict=True):
        close(model, ours, theirs)


def test_the_gradient_of_logits_is_that_of_differences():
    tokens, mask = inputs([(1, 3), (5,), (1, 1)])
    logits = torch.randn(*tokens.shape, len(VOCABULARY), dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 257, dtype=torch.float64)

    def weighed(logits):
        answer = next_bytes(logits, tokens, VOCABULARY, mask=mask).logits
        return (answer.exp() * weights).sum()

    assert torch.autograd.gradcheck(weighed, logits)
    assert torch.autograd.gradgradcheck(weighed, logits)


@pytest.mark.parametrize("rows", [[(5, 3)], [(1,), (1, 3), (5,), (5, 1), (5, 3)], [(1, 1, 2, 3)]])
def test_behind_tokens_that_were_not_asked_all_bytes_are_alike(model, rows):
    found, whole = said(model, rows), 1.0
    nodes = {row[:size] for row in rows for size in range(len(row) + 1)}
    with torch.no_grad():
        chances = {node: model(torch.tensor([[0, *node]])).logits[0, -1].softmax(-1) for node in nodes}
    reached = {node: math.prod(float(chances[node[:at]][token]) for at, token in enumerate(node)) for node in nodes}
    for place in range(len(TEXT) + 1):
        answer, rest = torch.zeros(257).double(), 0.0
        for node in nodes:
            end = sum(len(VOCABULARY[token]) for token in node)
            left = tuple(TEXT[end:place])
            for token, each in enumerate(chances[node]):
                spelled = symbols(token)
                if end <= place and spelled[: len(left)] == left and len(spelled) > len(left):
                    answer[spelled[len(left)]] += reached[node] * float(each)
                if spelled == left[: len(spelled)] and (*node, token) not in nodes:
                    rest += reached[node] * float(each) / 257 ** (len(left) - len(spelled))
        assert float(answer.sum()) + rest == pytest.approx(whole, rel=1e-6)  # They are one distribution over texts.
        close(model, found.logits[place].exp(), (answer + rest / 257) / whole)
        assert float(found.kept[place]) == pytest.approx(1 - rest / whole, abs=1e-6)
        whole *= float(found.logits[place, [*TEXT, 0][place]].exp().detach())
    assert found.kept.min() < 1


def test_where_tokens_are_bytes_nothing_changes():
    vocabulary = (b"", b"a", b"b", b"c")
    logits = torch.randn(5, 4)
    found = next_bytes(logits, torch.tensor([0, 1, 2, 2, 3]), vocabulary)
    assert bytes(found.text.tolist()) == b"abbc"
    assert found.logits.dtype == found.kept.dtype == torch.float32
    torch.testing.assert_close(found.logits[:, [256, 97, 98, 99]], logits.log_softmax(-1))
    assert found.kept.tolist() == [1] * 5


def test_two_vocabularies_that_say_the_same_of_bytes_are_alike():
    """Bytes are drawn one by one, and cut into tokens of one or two at random: nothing of that shows in the bytes."""
    chances = {b"a": 0.2, b"b": 0.5, b"c": 0.3}
    pairs = {first + second: chances[first] * chances[second] for first, second in itertools.product(chances, repeat=2)}
    answers = []
    for cut in (0.3, 0.9):
        both = {spelled: cut * chance for spelled, chance in chances.items()}
        both |= {spelled: (1 - cut) * chance for spelled, chance in pairs.items()}
        vocabulary = (b"", *both)
        tokens, mask = inputs(spellings(b"abcab", vocabulary))
        logits = torch.tensor([-math.inf, *map(math.log, both.values())]).expand(*tokens.shape, -1)
        answers.append(next_bytes(logits, tokens, vocabulary, mask=mask))
    expected = torch.tensor([*chances.values()]).expand(6, -1)
    for answer in answers:
        torch.testing.assert_close(answer.logits.exp()[:, 97:100], expected, atol=1e-6, rtol=0)
    assert float(soft_target_loss(answers[0].logits, answers[1].logits, 1.0)) == pytest.approx(0, abs=1e-6)
    assert float(reverse_kl_loss(answers[0].logits, answers[1].logits)) == pytest.approx(0, abs=1e-6)


def test_rows_may_be_repeated_reordered_and_filled_up_anywhere():
    rows = [(5, 3), (1, 3), (1,), (5, 1)]
    model = llama().double()
    wanted = said(model, rows)
    for others in (rows[::-1], rows + rows[:2], [*rows, ()]):
        torch.testing.assert_close(said(model, others), wanted)
    tokens, mask = inputs(rows)
    logits = models.logits(model, {"input_ids": tokens, "attention_mask": mask.long()})
    filled = [torch.cat([column[:, :1], column], 1) for column in (logits, tokens.masked_fill(~mask, -100), mask)]
    filled[2][:, 0] = False
    torch.testing.assert_close(next_bytes(filled[0], filled[1], VOCABULARY, mask=filled[2]), wanted)


@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_saturated_logits_stay_finite(scale):
    tokens, mask = inputs(spellings(TEXT))
    logits = (torch.randn(*tokens.shape, len(VOCABULARY)) * scale).requires_grad_()
    found = next_bytes(logits, tokens, VOCABULARY, mask=mask)
    found.logits.sum().backward()
    assert found.logits.isfinite().all()
    assert found.kept.isfinite().all()
    assert logits.grad.isfinite().all()


def test_special_tokens_in_a_text_are_a_class_of_their_own():
    found = next_bytes(torch.zeros(4, 9), torch.tensor([0, 1, 8, 2]), VOCABULARY)
    assert found.text.tolist() == [97, 256, 98]
    assert float(found.logits[1, 256].exp()) == pytest.approx(2 / 81 / (3 / 9))
    assert found.kept[2] == 0.5  # Of the two tokens that stand for no byte, one was read.
    wide = next_bytes(torch.zeros(1, 12), torch.tensor([0]), VOCABULARY)
    assert float(wide.logits[0, 256].exp()) == pytest.approx(5 / 12)


def test_what_does_not_fit_is_named():
    logits, tokens = torch.zeros(2, 3, 9), torch.tensor([[0, 1, 1], [0, 2, 1]])
    cases = [
        (r"logits has shape \(2, 9\) and tokens \(3,\); wanted", logits[:, 0], tokens[0], {}),
        (r"mask has shape \(3,\) and tokens \(2, 3\)", logits, tokens, {"mask": torch.ones(3).bool()}),
        ("vocabulary has 9 tokens and logits 4 classes", logits[..., :4], tokens, {}),
        ("vocabulary has no token that stands for a byte", logits, tokens, {"vocabulary": (b"", b"")}),
        (r"tokens are from 0 to 9, and logits have 9 classes", logits, tokens.masked_fill(tokens == 2, 9), {}),
        ("row 1 of tokens is of another text than those before it", logits, tokens, {}),
        ("row 1 of tokens .* begins from another token", logits, torch.tensor([[0, 1, 1], [8, 1, 1]]), {}),
        ("row 0 of tokens has none that counts", logits, tokens, {"mask": torch.zeros(2, 3).bool()}),
    ]
    for message, given, read, more in cases:
        with pytest.raises(ValueError, match=message):
            next_bytes(given, read, **{"vocabulary": VOCABULARY} | more)


# Tokenizers


def bytewise(merges=0):
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=257 + merges, special_tokens=["<end>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(TEXTS * 3, trainer)
    return made


@pytest.mark.parametrize(
    "kind", [lambda own: own, lambda own: transformers.PreTrainedTokenizerFast(tokenizer_object=own)]
)
def test_the_bytes_of_tokens_are_those_of_the_texts(kind):
    tokenizer = bytewise(40)
    tokenizer.add_tokens(["<więcej>"])
    vocabulary = token_bytes(kind(tokenizer))
    assert vocabulary[tokenizer.token_to_id("<end>")] == b""
    assert vocabulary[tokenizer.token_to_id("<więcej>")] == "<więcej>".encode()
    assert len({*vocabulary}) == len(vocabulary) == 298
    for text in TEXTS:
        assert b"".join(vocabulary[token] for token in tokenizer.encode(text).ids) == text.encode()


def test_the_ways_to_spell_a_text():
    tokenizer = bytewise(40)
    for text in TEXTS:
        rows = tokenizations(text, tokenizer, start="<end>")
        read = [tokens[there.bool()].tolist() for tokens, there in zip(*rows.values(), strict=True)]
        assert all(row[0] == 0 for row in read)
        for cut in range(len(text) + 1):
            own = [0, *tokenizer.encode(text[:cut]).ids]
            assert any(row[: len(own)] == own for row in read)
        alone = tokenizations(text, tokenizer, of="text", start=0)["input_ids"]
        assert alone.tolist() == [[0, *tokenizer.encode(text).ids]]
    every = tokenizations("best", tokenizer, of="all", start=0)
    rows = [tuple(tokens[there.bool()].tolist()[1:]) for tokens, there in zip(*every.values(), strict=True)]
    assert sorted(rows) == sorted(spellings(b"best", token_bytes(tokenizer)))
    assert len({*rows}) == len(rows) > 2
    assert tokenizations("", tokenizer, start=0)["input_ids"].tolist() == [[0]]
    assert tokenizations("", tokenizer, start=0, of="all")["input_ids"].tolist() == [[0]]


def test_a_run_of_tokens_that_nothing_can_follow_is_a_way_too():
    """Without a token for each byte some runs end early; what they might have become still counts."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "a": 1, "ab": 2, "bc": 3}, "<s>"))
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    assert sorted(tokenizations("abc", tokenizer, of="all", start="<s>")["input_ids"].tolist()) == [
        [0, 1, 3],
        [0, 2, 0],
    ]


def test_what_cannot_be_spelled_is_named():
    tokenizer, words = bytewise(40), tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, "a"))
    with pytest.raises(ValueError, match=r"^tokenizer decodes by None, and only the tokens of a byte-level tokenizer"):
        token_bytes(words)
    words.decoder = tokenizers.decoders.Metaspace()
    with pytest.raises(ValueError, match=r"^tokenizer decodes by Metaspace, and only"):
        token_bytes(words)
    with pytest.raises(TypeError, match=r"^tokenizer is a function, whose tokens are not told apart"):
        token_bytes(lambda text: text)
    for message, more in [
        ("of is 'own'; choose text, beginnings, all", {"of": "own"}),
        ("has no token of its own to begin from; name one, start=", {"start": "bos"}),
        ("more than 2 tokenizations of this kind", {"of": "all", "most": 2}),
        ("more than 0 tokenizations of this kind", {"of": "beginnings", "most": 0}),
    ]:
        with pytest.raises(ValueError, match=message):
            tokenizations("best", tokenizer, **{"start": "<end>"} | more)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_student_with_other_tokens_learns_what_its_teacher_says(network):
    torch.manual_seed(0)
    sides = [(llama, bytewise(40)), (NETWORKS[network], bytewise(4))]
    (teacher, theirs), (student, ours) = ((make(own.get_vocab_size()), own) for make, own in sides)

    def answer(model, tokenizer):
        rows = tokenizations(TEXTS[0], tokenizer, start="<end>")
        logits = models.logits(model, rows)
        return next_bytes(logits, rows["input_ids"], token_bytes(tokenizer), mask=rows["attention_mask"].bool())

    with torch.no_grad():
        wanted = answer(teacher, theirs)
    assert bytes(wanted.text.tolist()).decode() == TEXTS[0]
    optimizer, losses = torch.optim.Adam(student.parameters(), 1e-2), []
    for _ in range(12):
        given = answer(student, ours)
        assert torch.equal(given.text, wanted.text)
        loss = soft_target_loss(given.logits, wanted.logits, 1.0)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_what_is_lost_is_spread_over_more_places_than_a_block_has():
    lost, places = torch.randn(150, dtype=torch.float64), torch.arange(150)
    lost[:3] = -1e30
    ages = places.unsqueeze(1) - places
    expected = torch.where(ages < 0, -1e30, lost - 5.5 * ages).logsumexp(1)
    torch.testing.assert_close(_spread(lost, 5.5), expected)
