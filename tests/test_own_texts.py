"""Language models of Transformers that learn from what they write: prompts, ends, padding, and logits in blocks."""

from __future__ import annotations

import functools

import closed_forms
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdft_lib import models
from kdft_lib.data import UNLABELED, TensorData, chats, packed, padded
from kdft_lib.models import CharacterGRU, sample
from kdft_lib.objectives import GKD, SoftTargets, Supervised, own_texts
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Teacher, cache
from kdft_lib.training import fit

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
five = pytest.mark.skipif(int(transformers.__version__.split(".")[0]) < 5, reason="Transformers 5 holds them apart")

WORDS = 31
KINDS = ["forward_kl", "reverse_kl", "jensen_shannon", "total_variation"]
PROMPTS = torch.randint(1, WORDS, (4, 5), generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([5, 2, 3, 1])


def llama(seed=0, **more):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, initializer_range=0.5,
        bos_token_id=None, eos_token_id=None, **more,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def gpt2(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.5, resid_pdrop=dropout,
        embd_pdrop=dropout, attn_pdrop=dropout, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


NETWORKS = {"llama": llama, "gpt2": gpt2}
network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


class Whole(nn.Module):
    """The same network, which can only be asked for all of a text: no ``generate``, no cache."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask=None):
        return self.model(input_ids, attention_mask=attention_mask).logits


def rows(prompts=(3, 1, 2), answers=(2, 4, 1), *, left=False, seed=1):
    """Prompts and answers of several lengths, padded behind or in front, as a batch."""
    generator = torch.Generator().manual_seed(seed)
    width = max(prompt + answer for prompt, answer in zip(prompts, answers, strict=True)) - 1
    columns = []
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens = torch.randint(1, WORDS, (prompt + answer,), generator=generator)
        there = torch.ones(prompt + answer - 1, dtype=torch.int64)
        targets = tokens[1:].clone()
        targets[: prompt - 1] = UNLABELED
        free = width - len(there)
        fill = (free, 0) if left else (0, free)
        columns.append([F.pad(tokens[:-1], fill), F.pad(there, fill), F.pad(targets, fill, value=UNLABELED)])
    tokens, there, targets = map(torch.stack, zip(*columns, strict=True))
    inputs = {"input_ids": tokens, "attention_mask": there}
    return {"inputs": inputs, "targets": targets, "mask": targets != UNLABELED}


def row(batch, number):
    """One row without its padding."""
    there = batch["inputs"]["attention_mask"][number].bool()
    only = {name: column[number][there][None] for name, column in batch["inputs"].items()}
    return {"inputs": only} | {name: batch[name][number][there][None] for name in ("targets", "mask")}


def loss_and_gradient(objective, model, batch):
    model.zero_grad()
    torch.manual_seed(3)
    found = objective(model, batch)
    found["loss"].backward()
    return {name: value.detach() for name, value in found.items()}, [
        parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None
    ]


@pytest.fixture
def greedily(monkeypatch):
    """The student writes the most probable tokens, whatever the generator says."""
    monkeypatch.setattr(own_texts.writing, "continued", functools.partial(own_texts.writing.continued, temperature=0))


# Drawing


@network
def test_with_a_cache_and_without_the_same_text_is_written(make):
    """Prompts of several lengths too, which ``generate`` gets filled up in front."""
    model = make()
    cached, whole = (sample(who, PROMPTS, 9, lengths=LENGTHS, temperature=0) for who in (model, Whole(model)))
    assert torch.equal(cached, whole)
    for number, length in enumerate(LENGTHS.tolist()):
        alone = sample(model, PROMPTS[number : number + 1, :length], 9, temperature=0)[0]
        assert torch.equal(cached[number, : length + 9], alone)
        assert torch.equal(alone[:length], PROMPTS[number, :length])
        assert (cached[number, length + 9 :] == 0).all()


@network
def test_nothing_is_written_behind_an_end(make):
    """An end in a prompt is none of its text; neither is one that would have come behind an end."""
    model = make()
    free = sample(model, PROMPTS, 9, lengths=LENGTHS, temperature=0)
    end = int(free[1, 5])
    for who in (model, Whole(model)):
        found = sample(who, PROMPTS, 9, lengths=LENGTHS, temperature=0, end=[end, WORDS - 1])
        for number, length in enumerate(LENGTHS.tolist()):
            over = [place for place in range(length, length + 9) if free[number, place] in (end, WORDS - 1)][:1]
            last = over[0] if over else length + 8
            assert torch.equal(found[number, : last + 1], free[number, : last + 1])
            assert (found[number, last + 1 :] == 0).all()
    asked = torch.full((1, 3), end)
    assert sample(model, asked, 4, temperature=0, end=end)[0, 3] == sample(model, asked, 4, temperature=0)[0, 3]


def test_the_students_settings_for_readers_do_not_change_what_is_drawn():
    """TRL #6337: top p of a ``generation_config``; Qwen's has a penalty too."""
    model = llama()
    drawn = sample(model, PROMPTS, 6, generator=torch.Generator().manual_seed(0))
    model.generation_config.update(top_k=1, top_p=0.1, temperature=0.1, repetition_penalty=9.0, min_new_tokens=3)
    settings = model.generation_config
    assert torch.equal(sample(model, PROMPTS, 6, generator=torch.Generator().manual_seed(0)), drawn)
    assert model.generation_config is settings
    prompts = PROMPTS[:1].expand(20_000, -1)
    shares = sample(model, prompts, 1, generator=torch.Generator().manual_seed(0))[:, 5].bincount(minlength=WORDS) / 2e4
    torch.testing.assert_close(shares, model(PROMPTS[:1]).logits[0, -1].softmax(-1), atol=0.015, rtol=0)


def test_a_generator_goes_on_and_torchs_own_stays():
    model, generator = gpt2(), torch.Generator().manual_seed(0)
    torch.manual_seed(5)
    first, second = (sample(model, PROMPTS, 6, generator=generator) for _ in range(2))
    assert not torch.equal(first, second)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)


def test_a_network_that_reads_on_writes_from_prompts_of_several_lengths():
    torch.manual_seed(0)
    model = CharacterGRU(8, 4, WORDS)
    found = sample(model, PROMPTS, 6, lengths=LENGTHS, temperature=0)
    for number, length in enumerate(LENGTHS.tolist()):
        alone = sample(model, PROMPTS[number : number + 1, :length], 6, temperature=0)[0]
        assert torch.equal(found[number, : length + 6], alone)


# What counts


@network
@pytest.mark.parametrize("left", [False, True])
def test_each_row_is_written_from_its_own_prompt_and_counts_from_there(make, left):
    """The wrong prompt mask (ms-swift PR #8436), padding, and what the data's answer was: none of them is learned."""
    student, teacher = make(0), llama(1)
    batch = rows(left=left)
    objective = GKD(teacher, on_policy=1.0, max_new_tokens=4)
    torch.manual_seed(3)
    seen = objective.before_step(student, batch)
    torch.manual_seed(3)
    prompts = torch.zeros(3, 3, dtype=torch.int64)
    sizes = torch.tensor([3, 1, 2])
    for number, size in enumerate(sizes.tolist()):
        whole = row(batch, number)
        prompts[number, :size] = whole["inputs"]["input_ids"][0, :size]
    own = sample(student, prompts, 3, lengths=sizes)
    assert torch.equal(seen["inputs"]["input_ids"], own)
    assert torch.equal(seen["mask"].sum(1), torch.tensor([4, 4, 4]))
    assert torch.equal(seen["mask"].int().argmax(1), sizes - 1)
    assert (seen["targets"] == UNLABELED).all()
    values = []
    for number, size in enumerate(sizes.tolist()):
        text = own[number : number + 1, : size + 3]
        ours, theirs = student(text).logits, teacher(text).logits
        values.append(closed_forms.soft(ours, theirs, 1.0)[0, size - 1 :])
    torch.testing.assert_close(objective(student, seen)["loss"], torch.cat(values).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_blocks", [False, True])
@pytest.mark.parametrize("left", [False, True])
@network
def test_rows_of_several_lengths_have_the_loss_of_each_alone(make, left, in_blocks):
    """Padding in front moves GPT-2's positions in data of one's own, so there the student writes."""
    student, teacher = make(0), make(1)
    batch = rows(left=left)
    objective = GKD(teacher, on_policy=1.0 if left else 0.0, max_new_tokens=5, in_blocks=in_blocks)
    student.generation_config.eos_token_id = 7
    if left:
        torch.manual_seed(3)
        batch = objective.before_step(student, batch)
    together = objective(student, batch if left else batch | {"written": 0})["loss"]
    alone = [objective(student, row(batch, number) | {"written": int(left)})["loss"] for number in range(3)]
    counts = batch["mask"].sum(1)
    wanted = sum(loss * count for loss, count in zip(alone, counts, strict=True)) / counts.sum()
    torch.testing.assert_close(together, wanted, rtol=1e-4, atol=1e-5)


def test_the_end_counts_and_what_follows_does_not(greedily):
    """Also where padding has the end's number (TRL #6357): 0 is both here, and a word of the prompt."""
    student = llama()
    inputs = {"input_ids": torch.tensor([[0, 4, 5, 6], [8, 9, 0, 0]]), "attention_mask": torch.tensor([[1] * 4] * 2)}
    batch = {"inputs": inputs, "mask": torch.tensor([[False, True, True, True], [False, False, False, True]])}
    free = sample(student, inputs["input_ids"], 5, lengths=torch.tensor([2, 4]), temperature=0)
    end = int(free[0, 4])
    objective = GKD(llama(1), on_policy=1.0, max_new_tokens=6, end=end)
    seen = objective.before_step(student, batch)
    size = free[0, 2:].tolist().index(end) + 3
    assert seen["inputs"]["attention_mask"][0].tolist() == [1] * size + [0] * (9 - size)
    assert seen["mask"][0].tolist() == [False] + [True] * (size - 2) + [False] * (10 - size)
    assert seen["inputs"]["input_ids"][0].tolist() == free[0, :size].tolist() + [0] * (9 - size)


def test_the_student_says_how_its_texts_end():
    student = llama()
    student.generation_config.eos_token_id = [3, 5]
    assert GKD(llama(1))._ends(student) == (3, 5)
    assert GKD(llama(1), end=4)._ends(student) == (4,)
    assert GKD(llama(1), end=None)._ends(student) == GKD(llama(1))._ends(CharacterGRU(4)) == ()


def test_padding_does_not_count_where_inputs_alone_say_which_it_is():
    student, teacher = llama(), llama(1)
    batch = {"inputs": rows()["inputs"]}
    there = batch["inputs"]["attention_mask"].bool()
    filled = batch["inputs"] | {"input_ids": batch["inputs"]["input_ids"].masked_fill(~there, 9)}
    for share in (0.0, 1.0):
        losses = []
        for inputs in (batch["inputs"], filled):
            torch.manual_seed(3)
            losses.append(GKD(teacher, on_policy=share)(student, {"inputs": inputs})["loss"])
        assert torch.equal(*losses)
    wanted = closed_forms.soft(student(**filled).logits, teacher(**filled).logits, 1.0)[there].mean()
    found = GKD(teacher, on_policy=0)(student, {"inputs": filled})["loss"]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_blocks", [False, True])
def test_where_nothing_counts_the_loss_is_zero_with_a_gradient(in_blocks):
    student, batch = llama(), rows()
    batch = batch | {"mask": torch.zeros_like(batch["mask"])}
    loss = GKD(llama(1), on_policy=0, ce_weight=1.0, in_blocks=in_blocks)(student, batch)["loss"]
    loss.backward()
    assert loss == 0
    assert all(parameter.grad is None or (parameter.grad == 0).all() for parameter in student.parameters())


def test_a_teacher_in_training_mode_is_put_out_of_it_and_a_student_put_back():
    teacher, student, batch = gpt2(1, dropout=0.5), gpt2(0, dropout=0.5), rows()
    wanted = loss_and_gradient(GKD(teacher, on_policy=1.0), student, batch)[0]["loss"]
    for in_blocks in (False, True):
        objective = GKD(teacher, on_policy=1.0, in_blocks=in_blocks)
        teacher.train()
        found = loss_and_gradient(objective, student, batch)[0]["loss"]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    student.train()
    objective = GKD(teacher, on_policy=1.0)
    torch.manual_seed(3)
    written = objective.before_step(student, batch)
    assert all(module.training for module in student.modules())
    student.eval()
    torch.manual_seed(3)
    assert torch.equal(objective.before_step(student, batch)["inputs"]["input_ids"], written["inputs"]["input_ids"])


# Rows of data


def bytewise():
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"</s>": 0, **{f"w{i}": i for i in range(1, WORDS)}}, "w1"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="</s>", eos_token="</s>")


TEXTS = ["w1 w2 w3 w4 w5", "w6 w7", "w8 w9 w10 w11", "w12 w13 w14"]
TEMPLATE = (
    "{% for m in messages %}{{ ('w2 ' if m.role == 'user' else 'w3 ') + m.content + ' </s> w4 ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'w3 ' }}{% endif %}"
)


@five
@pytest.mark.parametrize("make", [packed, padded])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_run_learns_from_packed_and_padded_rows(make, share):
    data, teacher = make(TEXTS, bytewise(), length=8), llama(1)
    for objective in (GKD(teacher, on_policy=share, ce_weight=0.1), GKD(teacher, on_policy=share, in_blocks=True)):
        student = llama()
        history = fit(
            student, data, objective=objective, strategy=FullFineTuning(lr=1e-2), steps=4, batch_size=2, progress=False
        )
        assert all(step["loss"] > 0 for step in history.steps)
    if make is packed and share:
        seen = GKD(teacher, on_policy=share).before_step(student, next(data.batches(2)))
        assert seen["inputs"]["position_ids"][0].tolist() == [*range(8)], "one text, as it was written"


def test_parts_of_a_step_add_up_to_the_whole(greedily):
    """What the student writes is counted over all parts before a mean is taken (TRL #4719)."""
    columns, teacher, weights = rows((3, 1, 2, 2), (2, 5, 1, 3)), llama(1), []
    data = TensorData(columns["inputs"], columns["targets"], mask=columns["mask"])
    objective = GKD(teacher, on_policy=1.0, max_new_tokens=6, end=[*range(8)])
    wanted = objective(llama(), columns)["loss"].item()
    assert objective.before_step(llama(), columns)["mask"].sum() not in (columns["mask"].sum(), 24)
    for parts in (1, 2):
        student = llama()
        history = fit(
            student, data, objective=objective, strategy=FullFineTuning(lr=1e-2), steps=1, batch_size=4,
            accumulate=parts, optimizer=torch.optim.SGD, progress=False,
        )  # fmt: skip
        assert history.steps[0]["loss"] == pytest.approx(wanted, rel=1e-5)
        weights.append(student.state_dict())
    for name, whole in weights[0].items():
        torch.testing.assert_close(weights[1][name], whole, atol=1e-6, rtol=1e-5)


def test_a_chat_is_a_prompt_and_the_answer_that_counts():
    tokenizer = bytewise()
    tokenizer.chat_template = TEMPLATE
    talk = [
        {"role": "user", "content": "w5 w6"}, {"role": "assistant", "content": "w7"},
        {"role": "user", "content": "w8"}, {"role": "assistant", "content": "w9 w10"},
    ]  # fmt: skip
    data = chats([talk, {"messages": talk[:2]}, talk[:1]], tokenizer)
    first = [2, 5, 6, 0, 4, 3, 7, 0, 4, 2, 8, 0, 4, 3, 9, 10]
    assert data.inputs["input_ids"][0].tolist() == first
    assert data.targets[0].tolist() == [UNLABELED] * 13 + [9, 10, 0], "the last answer and its end, not what follows"
    assert data.targets[1].tolist() == [UNLABELED] * 5 + [7, 0] + [UNLABELED] * 9
    assert data.inputs["attention_mask"].sum(1).tolist() == [16, 7, 6]
    assert not data.mask[2].any()
    assert data.inputs["input_ids"][2, :6].tolist() == [2, 5, 6, 0, 4, 3]
    kept = chats([talk[:2]], tokenizer, end=None)
    assert kept.targets[0, -3:].tolist() == [7, 0, 4]
    short = chats([talk], tokenizer, length=14)
    assert short.targets[0].tolist() == [UNLABELED] * 13 + [9]
    student, objective = llama(), GKD(llama(1), on_policy=1.0, max_new_tokens=2)
    seen = objective.before_step(student, next(data.batches(3)))
    assert torch.equal(seen["inputs"]["input_ids"][0, :14], data.inputs["input_ids"][0, :14])
    assert seen["mask"].int().argmax(1).tolist() == [13, 5, 5], "a prompt without an answer is one too"
    assert (seen["mask"].sum(1) == 2).all()


def test_an_answer_begins_as_it_does_behind_its_prompt():
    """Llama's first tokenizers put a space before each text, which does not stand before an answer."""
    tokenizer = bytewise()
    tokenizer.backend_tokenizer.normalizer = tokenizers.normalizers.Prepend("w9 ")
    tokenizer.chat_template = TEMPLATE
    data = chats([[{"role": "user", "content": "w5"}, {"role": "assistant", "content": "w7"}]], tokenizer)
    assert data.inputs["input_ids"][0].tolist() == [9, 2, 5, 0, 9, 4, 3, 7]
    assert data.targets[0][data.mask[0]].tolist() == [7, 0]


@pytest.mark.parametrize("in_blocks", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_kept_answers_teach_the_texts_that_stay(share, in_blocks, tmp_path):
    """A few drawn classes on disk, also where rows become longer; the teacher is asked of the student's texts alone."""
    student, teacher = llama(), llama(1)
    columns = rows((3, 1, 2, 2), (2, 5, 1, 3))
    data = TensorData(columns["inputs"], columns["targets"], mask=columns["mask"])
    answered = cache(teacher, data, to=tmp_path, top_k=6, rest="sampled")
    batch = next(answered.batches(4))
    asked = []
    teacher.register_forward_pre_hook(lambda _, given, named: asked.append(len(named["input_ids"])), with_kwargs=True)
    own = GKD(teacher, on_policy=share, max_new_tokens=9, in_blocks=in_blocks)
    found = loss_and_gradient(own, student, batch)[0]["loss"]
    assert asked == ([2] if share else [])
    torch.manual_seed(3)
    seen = GKD(teacher, on_policy=share, max_new_tokens=9).before_step(student, batch)
    ours = student(**seen["inputs"]).logits
    written = round(share * 4)
    drawn = batch["teacher_logits"]["indices"][written:].long()
    width = drawn.shape[1]
    given = (
        batch["teacher_logits"]["values"][written:] - ours[written:, :width].log_softmax(-1).gather(-1, drawn)
    ).mean(-1)
    values = [given[seen["mask"][written:, :width]]]
    if written:
        live = closed_forms.soft(ours, teacher(**seen["inputs"]).logits, 1.0)
        values.append(live[:written][seen["mask"][:written]])
    torch.testing.assert_close(found, torch.cat(values).mean(), rtol=1e-4, atol=1e-5)


# In blocks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@network
def test_in_blocks_loss_and_gradient_are_those_of_all_logits(make, share, kind):
    student, teacher = make(0), llama(1)
    settings = {"divergence": kind, "on_policy": share, "ce_weight": 0.3, "temperature": 2.0, "beta": 0.3}
    (dense, slopes), (blocks, others) = (
        loss_and_gradient(GKD(teacher, in_blocks=in_blocks, **settings), student, rows()) for in_blocks in (False, True)
    )
    torch.testing.assert_close(blocks, dense, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(others, slopes, atol=1e-5, rtol=1e-5)
    assert sorted(blocks) == ["gkd/ce", "gkd/kd", "loss"]
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_in_blocks_nobody_makes_the_logits_of_all_places():
    student, teacher, seen = llama(), gpt2(1), []
    for model in (student, teacher):
        model.get_output_embeddings().register_forward_hook(lambda module, given, output: seen.append(output.shape[1]))
    GKD(teacher, on_policy=0, in_blocks=True)(student, rows())
    assert seen == [1, 1]


def test_logits_that_are_more_than_a_layers_are_not_taken_apart():
    """TRL PR #6629: a cap on logits, which a fused loss left out."""
    config = transformers.Gemma2Config(
        vocab_size=WORDS, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=4, final_logit_softcapping=1.0, initializer_range=0.5,
    )  # fmt: skip
    capped = transformers.Gemma2ForCausalLM(config).eval()
    for student, teacher in ((capped, llama(1)), (llama(), capped)):
        with pytest.raises(ValueError, match="a Gemma2ForCausalLM's logits are not what its last layer gives"):
            GKD(teacher, on_policy=0, in_blocks=True)(student, rows())
    assert GKD(capped, on_policy=0)(llama(), rows())["loss"] > 0
    with pytest.raises(ValueError, match="a CharacterGRU is no causal model of Transformers"):
        Teacher(CharacterGRU(4)).before_head(rows()["inputs"])
    with pytest.raises(ValueError, match=r"in_blocks=True\), which a sum or a factor cannot"):
        (GKD(llama(1), on_policy=0, in_blocks=True) + Supervised())(llama(), rows())


def test_what_goes_into_the_last_layer_is_all_that_its_logits_need():
    model, inputs = gpt2(), rows()["inputs"]
    hidden, head = models.before_head(model, inputs)
    torch.testing.assert_close(F.linear(hidden, head.weight, head.bias), model(**inputs).logits)
    assert len(head._forward_pre_hooks) == 0


def test_on_given_rows_it_is_soft_targets():
    student, teacher, batch = llama(), gpt2(1), rows()
    torch.testing.assert_close(
        GKD(teacher, on_policy=0, in_blocks=True)(student, batch)["loss"],
        SoftTargets(teacher, temperature=1.0, kd_weight=1.0, ce_weight=0.0)(student, batch)["loss"],
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize(("share", "parts"), [(0.5, 8), (0.25, 8), (0.6, 4), (0.5, 1)])
def test_in_parts_the_student_writes_as_many_texts_as_in_one(share, parts):
    class Counting(GKD):
        def before_step(self, model, batch):
            batch = super().before_step(model, batch)
            written.append(batch["written"])
            return batch

    written, student = [], CharacterGRU(4, num_classes=WORDS)
    data = TensorData(torch.randint(1, WORDS, (8, 5)))
    objective = Counting(CharacterGRU(4, num_classes=WORDS), on_policy=share)
    how = {"strategy": FullFineTuning(lr=0.01), "steps": 1, "batch_size": 8, "accumulate": parts}
    fit(student, data, objective=objective, **how)
    assert len(written) == parts
    assert sum(written) == round(8 * share)


def test_in_a_sum_padding_must_be_masked():
    model = llama()
    inputs = {"input_ids": torch.ones(2, 4, dtype=torch.int64), "attention_mask": torch.tensor([[1, 1, 1, 0], [1] * 4])}
    objective = 1.0 * GKD(llama(), on_policy=0.0)
    with pytest.raises(ValueError, match="inputs are padded, and GKD would count that; give a mask"):
        objective(model, {"inputs": inputs})
    whole = {"input_ids": inputs["input_ids"], "attention_mask": torch.ones(2, 4, dtype=torch.int64)}
    assert objective(model, {"inputs": whole})["loss"] >= 0


@five
def test_a_model_that_is_wrapped_by_peft_keeps_its_ends():
    from peft import LoraConfig, get_peft_model

    model = llama()
    model.generation_config.eos_token_id = 3
    wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    sample(wrapped, torch.tensor([[1, 2]]), 2, temperature=1)
    assert wrapped.merge_and_unload().generation_config.eos_token_id == 3
