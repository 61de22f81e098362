"""What a draft proposes and a teacher checks is the teacher's text: its distribution by χ², greedily each token."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import nn

from kdft_lib.models import CharacterGRU, sample, speculative, speculative_sample

transformers = pytest.importorskip("transformers", minversion="5")

PROMPT = torch.tensor([[1, 0]])
TEXTS = 300
"""Enough that each broken rule below is refused, and that the right one would be once in 10,000 choices of the seed."""
REFUSED = 1e-4


def llama(seed, words, layers=1):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=words, hidden_size=8, intermediate_size=8, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=False, initializer_range=0.5,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def gpt2(seed, words, layers=1, dropout=0.0):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=words, n_embd=8, n_layer=layers, n_head=2, n_positions=64, initializer_range=0.25,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


NETWORKS = {"llama": llama, "gpt2": gpt2}
network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


def distribution(model, length, end=None, temperature=1.0):
    """How probable each text of at most that many tokens behind the prompt is, from the model's definition."""
    words = model.get_input_embeddings().num_embeddings
    texts = [*itertools.product(range(words), repeat=length)]
    with torch.no_grad():
        logits = model(torch.cat([PROMPT.expand(len(texts), -1), torch.tensor(texts)], 1)).logits
    found = {}
    for text, rows in zip(texts, (logits[:, PROMPT.shape[1] - 1 : -1].double() / temperature).softmax(-1), strict=True):
        until = text[: text.index(end) + 1] if end in text else text
        found[until] = math.prod(float(row[token]) for row, token in zip(rows, until, strict=False))
    return found


def p_value(teacher, draft, length, end=None, temperature=1.0, **how):
    """Of χ² over drawn texts; those that are expected less than five times are one."""
    generator = torch.Generator().manual_seed(0)
    expected = {text: TEXTS * p for text, p in distribution(teacher, length, end, temperature).items()}
    counts = dict.fromkeys(expected, 0)
    for _ in range(TEXTS):
        found = speculative_sample(
            teacher, draft, PROMPT, length, end=end, temperature=temperature, generator=generator, **how
        )
        counts[tuple(found.text[0, PROMPT.shape[1] :].tolist())] += 1
    rare = [text for text, count in expected.items() if count < 5]
    groups = [[text] for text in expected if text not in rare] + ([rare] if rare else [])
    wanted, seen = ([sum(of[text] for text in group) for group in groups] for of in (expected, counts))
    assert sum(wanted) == pytest.approx(TEXTS)
    return stats.chisquare(seen, wanted).pvalue


PAIRS = {"llama": (llama(1, 3), gpt2(16, 3)), "gpt2": (gpt2(1, 3), llama(20, 3))}
"""They overlap by some .6, and no token is rare."""


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_what_is_drawn_is_the_teachers(pair):
    assert p_value(*pair, length=3, draft_tokens=2) > REFUSED


def test_what_is_drawn_at_another_temperature_up_to_an_end_is_the_teachers():
    assert p_value(*PAIRS["llama"], length=3, temperature=1.6, end=2, draft_tokens=3) > REFUSED


def test_a_draft_of_other_tokens_changes_nothing():
    """It draws three of five tokens, reads one of the others as two of its own, and does not see the last."""
    assert p_value(llama(4, 5), gpt2(1, 3), length=2, spelled=[[1], [0], [2, 2], [2], []]) > REFUSED


BROKEN = {
    "the residual is the teacher's own": ("_residual", lambda p, q, known: p),
    "all is accepted": ("_accepts", lambda p, q, generator: True),
    "what the teacher finds likelier is accepted, and nothing else": ("_accepts", lambda p, q, generator: p >= q),
    "the draft was another one (transformers #47932)": (
        "_accepts",
        lambda p, q, generator: bool(torch.rand((), generator=generator) * q.sqrt() < p),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_refused(name, monkeypatch):
    monkeypatch.setattr(speculative, *BROKEN[name])
    assert p_value(*PAIRS["gpt2"], length=3, draft_tokens=2) < REFUSED


@network
@pytest.mark.parametrize("draft_tokens", [1, 3, 5])
def test_greedily_each_token_is_the_teachers(make, draft_tokens):
    teacher, draft = make(0, 30, layers=2), llama(5, 30)
    for prompt in torch.randint(30, (3, 4), generator=torch.Generator().manual_seed(0)).split(1):
        found = speculative_sample(teacher, draft, prompt, 15, temperature=0, draft_tokens=draft_tokens)
        assert torch.equal(found.text, sample(teacher, prompt, 15, temperature=0))
        assert found.accepted + found.calls == 15
        assert found.accepted <= found.checked <= found.drafted


def test_with_keys_of_refused_tokens_it_would_be_another_text(monkeypatch):
    teacher = llama(0, 30, layers=2)
    monkeypatch.setattr(transformers.DynamicCache, "crop", lambda *_: None)
    found = speculative_sample(teacher, llama(5, 30), PROMPT, 15, temperature=0)
    assert not torch.equal(found.text, sample(teacher, PROMPT, 15, temperature=0))


def test_one_minus_total_variation_is_accepted():
    """Of one place, since each has its own: within four standard deviations."""
    teacher, draft = PAIRS["llama"]
    with torch.no_grad():
        pair = [model(PROMPT).logits[0, -1:] for model in (draft, teacher)]
        wanted = 1 - float((pair[0].softmax(-1) - pair[1].softmax(-1)).abs().sum() / 2)
    generator = torch.Generator().manual_seed(0)
    found = [speculative_sample(teacher, draft, PROMPT, 2, draft_tokens=1, generator=generator) for _ in range(TEXTS)]
    assert all(each.drafted == each.checked == 1 for each in found)
    share = sum(each.accepted for each in found) / TEXTS
    assert 0.2 < wanted < 0.8
    assert abs(share - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / TEXTS)


def read(model, lengths):
    """How many tokens each call of a model reads."""
    return model.register_forward_pre_hook(
        lambda _, args, given: lengths.append(given["input_ids"].shape[1]), with_kwargs=True
    )


def test_a_draft_that_is_the_teacher_is_accepted_and_each_token_read_once():
    teacher, draft, lengths, drafts = llama(0, 30), llama(0, 30), [], []
    handles = read(teacher, lengths), read(draft, drafts)
    found = speculative_sample(teacher, draft, PROMPT, 15, draft_tokens=4)
    for handle in handles:
        handle.remove()
    assert (found.drafted, found.accepted, found.calls, found.text.shape[1]) == (12, 12, 3, 17)
    # In each round one new token and four drafted ones; of the draft's, the last is read in the next.
    assert lengths == [2 + 4, 5, 5]
    assert drafts == [2, 1, 1, 1] + 2 * [2, 1, 1, 1]


def test_a_draft_reads_what_tokens_are_spelled_by():
    teacher, draft, seen = llama(0, 5), llama(1, 3), []
    draft.register_forward_pre_hook(lambda _, args, given: seen.append(given["input_ids"].tolist()), with_kwargs=True)
    spelled = [[1], [2, 0], [], [0]]  # Of the fifth, nothing is said.
    speculative_sample(teacher, draft, torch.tensor([[1, 2, 4, 0]]), 2, spelled=spelled)
    assert seen == [[[2, 0, 1]]]


@network
def test_nothing_is_written_behind_an_end(make):
    """An end in the prompt is none of the text; one that was drafted in vain is none either."""
    teacher = make(0, 30, layers=2)
    free = sample(teacher, PROMPT, 12, temperature=0)[0].tolist()
    for end in dict.fromkeys(free[2:]):
        for draft in (teacher, llama(5, 30)):
            found = speculative_sample(teacher, draft, PROMPT, 12, end=[end, 29], temperature=0)
            last = next(place for place in range(2, 14) if free[place] in (end, 29))
            assert found.text[0].tolist() == free[: last + 1]
    prompt = torch.tensor([[end, end]])
    assert speculative_sample(teacher, teacher, prompt, 1, end=end).text.shape[1] == 3
    assert torch.equal(speculative_sample(teacher, teacher, prompt, 0, end=end).text, prompt)


def test_chance_is_the_generators_and_modes_stay():
    teacher, draft = gpt2(0, 30, dropout=0.5).train(), llama(5, 30)
    torch.manual_seed(5)
    drawn = [
        speculative_sample(teacher, draft, PROMPT, 9, generator=torch.Generator().manual_seed(seed)).text
        for seed in (0, 0, 1)
    ]
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert teacher.training
    assert not draft.training


def test_equal_distributions_leave_nothing_but_rounding():
    p = torch.tensor([0.25, 0.75])
    assert torch.equal(speculative._residual(p, p, torch.arange(2)), p)
    assert torch.equal(speculative._residual(p, torch.tensor([1.0]), torch.tensor([1])), torch.tensor([0.25, 0.0]))


TINY = llama(0, 3)


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        ((TINY, TINY, PROMPT.repeat(2, 1), 3), {}, r"prompt has .*\(2, 2\); it must be int64, \(1, P\).*one text at a"),
        ((TINY, TINY, PROMPT.float(), 3), {}, "prompt has dtype torch.float32"),
        ((TINY, TINY, PROMPT[:, :0], 3), {}, "P of 1 or more"),
        ((TINY, TINY, PROMPT, -1), {}, "length is -1; it must be 0 or more"),
        ((TINY, TINY, PROMPT, 3), {"draft_tokens": 0}, "draft_tokens is 0; it must be 1 or more, or use sample"),
        ((TINY, TINY, PROMPT, 3), {"temperature": -1.0}, "temperature is -1.0; it must be positive, or 0"),
        ((TINY, CharacterGRU(4), PROMPT, 3), {}, "draft is a CharacterGRU, which is no causal model of Transformers"),
        ((nn.Linear(2, 3), TINY, PROMPT, 3), {}, "teacher is a Linear, which is no causal model"),
        ((TINY, TINY, PROMPT, 3), {"spelled": [[0]] * 4}, "spelled has 4 tokens.*the teacher has 3 tokens, which"),
        ((TINY, TINY, PROMPT, 3), {"spelled": [[3]]}, "names the draft's token 3; the teacher has 3 tokens"),
        ((TINY, TINY, PROMPT, 3), {"spelled": [[], [], [1]]}, "leaves the draft nothing to draw, or nothing to read"),
        ((TINY, TINY, PROMPT, 3), {"spelled": [[0, 1]]}, "spelled leaves the draft nothing to draw"),
    ],
)  # fmt: skip
def test_mistakes_are_named(arguments, more, message):
    with pytest.raises(ValueError, match=message):
        speculative_sample(*arguments, **more)


def test_models_without_keys_of_each_token_are_refused():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 3, "state_size": 4}
    recurrent = transformers.MambaForCausalLM(transformers.MambaConfig(**sizes))
    with pytest.raises(ValueError, match="teacher is a MambaForCausalLM, which is no causal model of"):
        speculative_sample(recurrent, TINY, PROMPT, 3)
