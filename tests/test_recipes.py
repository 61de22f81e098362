"""Every recipe runs: two seeds, 25 rows to learn from, two steps for each budget, teachers' included, the first
setting of each method. Nothing is recorded; and what a recipe would try is what its record says was tried.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import importlib
import itertools
import json
import re
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from kdft_lib import answers, experiments, losses, metrics, models
from kdft_lib.data import RandomShiftFlip, TensorData, TextData, TextSplits
from kdft_lib.datasets import bbc, solar, spelling_alphabet, splitting, spoken_digits
from kdft_lib.experiments import Candidate
from kdft_lib.models import pretrained, sentence_encoder
from kdft_lib.strategies import Phases
from kdft_lib.training import Ledger, Settings

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
PROGRAMS = [ROOT / name for name in ("recipes", "figures", "tools", "benchmarks")]
SEEDS, STEPS = 2, 2
ROWS, MANY = (25, 25, 20, 50), (200, 200, 50, 50)
"""To learn from with labels and without, to choose by and to test by."""
LARGE = dict.fromkeys((
    "language", "language_rivals", "retrieval", "full_fine_tuning", "ship_it", "few_bits_texts", "sequences",
    "own_size", "where_to_start", "does_it_carry", "language_labels", "between_tokens",
), (25, 25, 10, 10))  # fmt: skip
LARGE |= dict.fromkeys(("staying_close", "speech", "speech_whisper"), MANY) | {"solar_cells": (50, 50, 25, 25)}
"""Recipes whose networks take long to read a row have fewer; two tasks, voices set apart and two kinds of cell want
some of each.
"""
LETTERS, SIDE = 100, 32
"""Of a story, and of what Lite0 sees of a picture."""
RECORDED = (
    "background", "concepts", "hard_targets", "soft_targets", "patience", "beyond_logits", "good_teachers",
    "frozen_backbone", "full_fine_tuning", "staying_close", "both_together", "vision", "language", "language_rivals",
    "retrieval", "speech", "speech_whisper", "sequences", "ship_it", "few_bits", "few_bits_texts", "outlook",
    "solar_cells", "own_size", "where_to_start", "does_it_carry", "language_labels", "between_tokens",
)  # fmt: skip

SHORT = {"width": 8, "layers": 2, "heads": 2, "keys": 1, "hidden": 12}
FEWER = {
    "sequences": {"TEXTS": 2, "LENGTH": 104, "WRITTEN": 1},
    "speech": {"elsewhere": lambda who: digits()},
    "speech_whisper": {"ears": lambda: Listener(), "asterisk_alphabet": lambda: voices_in_the_place_of_people()},
    "language_rivals": {"PIECES": 300},
    "retrieval": {"TURNS": 2},
    "between_tokens": {
        "WORDS": 280, "LIKELIEST": 4, "LONGEST": 6, "BEFORE": 20, "STEPS": 2, "MORE": 3, "novels": lambda: few_texts(),
    },
    "language_labels": {
        "FOLDER": None, "names": lambda: torch.arange(66, 71),
        "topics": lambda: torch.arange(3000) % 5,
    },
    "own_size": {
        "WORDS": 280, "LENGTH": 12, "ROWS": dict.fromkeys(("train", "val", "test", "prose"), 8), "FOLDER": None,
        "CALIBRATION": 4, "SIZES": SHORT, "TWICE": SHORT, "TEXTS": 6, "PROMPT": 4, "TOGETHER": 4,
        "DRAFTED": (2,), "EACH": 1, "BEGUN": 4, "CONTINUED": 6, "HELD": 2, "FEW": 4,
        "novels": lambda: few_texts(), "own_prose": lambda: few_texts().val,
    },
}  # fmt: skip
"""Texts that are drawn to measure a model take longer than its training, and so does a whole vocabulary; other voices
need programs, and a language model of one's own size a larger one. Of each constant that a recipe has, or a part of it,
what it is here."""


whole_lite0, whole_transform, whole_teacher = pretrained._lite0, pretrained.ImageTransform, models.fashion_teacher


@functools.cache
def lite0_once():
    """With two of its sixteen blocks, the first of two stages, and as many features as it has."""
    model, *rest = whole_lite0()
    del model.blocks[2:], model.blocks[1][1:]
    model.conv_head = nn.Conv2d(24, 1280, 1, bias=False)
    return model, *rest


@functools.cache
def teacher_once():
    """In the shipped teacher's place, with its card, a narrow network."""
    teacher = models.ResNet(width=4).eval()
    teacher.card = whole_teacher().card
    return teacher


class Skipped(nn.Module):
    """In the place of a layer of MiniLM: it returns a tensor or, in older Transformers, a tuple with one."""

    def __init__(self, layer):
        super().__init__()
        self.plain = isinstance(layer(torch.zeros(1, 1, 384)), torch.Tensor)

    def forward(self, hidden_states, *_, **__):
        return hidden_states if self.plain else (hidden_states,)


@functools.cache
def minilm_once():
    """With the first and the last of its six layers."""
    encoder = sentence_encoder()
    for place in range(1, 5):
        encoder.body.encoder.layer[place] = Skipped(encoder.body.encoder.layer[place])
    return encoder


def minilm(max_tokens):
    encoder = copy.deepcopy(minilm_once())
    encoder.max_tokens = max_tokens
    encoder._tokenizer.enable_truncation(max_tokens)
    return encoder


@functools.cache
def short_stories(folder):
    """Their beginnings, repeats among them."""
    texts, topics = bbc._stories(folder)
    return tuple(text[:LETTERS] for text in texts), torch.tensor(topics)


def grey_cells(*_):
    """In the place of the photographs, which a package brings that is not needed here: noise, half of it defective."""
    return torch.randint(256, (sum(solar.SOLAR_MODULES), 1, SIDE, SIDE), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )


def labels_of_cells(_):
    cells = torch.arange(sum(solar.SOLAR_MODULES))
    return torch.tensor([0.0, 1 / 3, 2 / 3, 1.0])[cells % 4], cells // 4 % 2


def few_texts():
    """In the place of novels."""
    said = [f"The {whose} hat was on the {thing} of the {whose} house.\n" * 3 for whose in ("old", "tall", "new")
            for thing in ("table", "roof", "wall")]  # fmt: skip
    return TextSplits(*(TextData(part) for part in (said[:6], [], said[6:8], said[8:])))


@functools.cache
def language_model_once():
    """In the place of SmolLM2: a Llama of random weights with heads of its kind, and a byte-level tokenizer."""
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<begin>", "<end>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(few_texts().train.texts, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<begin>", eos_token="<end>")
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=3, head_dim=4, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval(), tokenizer


@pytest.fixture
def small(monkeypatch, request):
    """Small data and short runs, whoever asks for them; the list of what was compared, as it is planned."""
    for folder in PROGRAMS:
        monkeypatch.syspath_prepend(str(folder))
    # None that another test has loaded; those loaded now are forgotten afterwards.
    for path in (path for folder in PROGRAMS for path in folder.glob("*.py")):
        monkeypatch.setitem(sys.modules, path.stem, None)
        del sys.modules[path.stem]
    whole, check, compare = splitting.Rows, Settings.__post_init__, experiments.compare
    timed, view = metrics.latency, RandomShiftFlip.__init__
    callspec = getattr(request.node, "callspec", None)
    rows = LARGE.get(callspec.params["recipe"], ROWS) if callspec else MANY
    planned: list[dict[str, list[dict]]] = []

    def two_steps(settings):
        check(settings)
        object.__setattr__(settings, "epochs", None)
        object.__setattr__(settings, "steps", STEPS)
        object.__setattr__(settings, "batch_size", min(settings.batch_size, 8))

    def first_settings(methods, splits, **options):
        listed = {name: entry if isinstance(entry, list | tuple) else [entry] for name, entry in methods.items()}
        settings = {
            name: [dict(entry.setting) if isinstance(entry, Candidate) else {} for entry in entries]
            for name, entries in listed.items()
        }
        planned.append(settings)
        given = options | {"seeds": range(SEEDS), "progress": False, "equal_budgets": False}
        return compare({name: entries[0] for name, entries in listed.items()}, splits, **given)

    monkeypatch.setattr(
        splitting,
        "Rows",
        lambda *parts: whole(*(part[:count] for part, count in zip(parts, rows, strict=True))),
    )
    monkeypatch.setattr(Settings, "__post_init__", two_steps)
    monkeypatch.setattr(Phases, "phase", lambda strategy, epoch, epochs: (0, epochs))  # Two steps are too few for both.
    # Of a picture there are then two views, itself and its mirror image, in place of 18 or 50.
    monkeypatch.setattr(RandomShiftFlip, "__init__", lambda made, padding, **more: view(made, padding=0, **more))
    monkeypatch.setattr(bbc, "_distinct_stories", short_stories)
    monkeypatch.setattr(solar, "_folder", lambda _: Path())
    monkeypatch.setattr(solar, "_kept", functools.cache(grey_cells))
    monkeypatch.setattr(solar, "_labels", labels_of_cells)
    monkeypatch.setattr(models, "fashion_teacher", lambda: copy.deepcopy(teacher_once()))
    monkeypatch.setattr(models, "sentence_encoder", minilm)
    monkeypatch.setattr(models, "language_model", language_model_once)
    monkeypatch.setattr(pretrained, "_lite0", lambda: copy.deepcopy(lite0_once()))
    monkeypatch.setattr(pretrained, "ImageTransform", lambda size, *rest: whole_transform(min(size, SIDE), *rest))
    monkeypatch.setattr(metrics, "latency", lambda model, inputs, **_: timed(model, inputs, repeats=2))
    monkeypatch.setattr(experiments, "compare", first_settings)  # Recipes are loaded after this.
    return planned


def digits():
    """In the place of Flite's and of a person's: one voice three times for each digit, or more."""
    clips = spoken_digits(10).test
    speech = importlib.import_module("speech")
    return clips.with_inputs(speech.mel(clips.inputs))[:30]


class Listener:
    """In the place of Whisper: three numbers of a clip, and a word by its length."""

    def hear(self, waveforms, seconds):
        features = torch.stack([waveforms.abs().mean(1), waveforms.std(1), waveforms.amax(1)], 1)
        return models.speech.Heard(features, ["alpha" if mean > 0.05 else "Zulu, zulu." for mean in features[:, 0]])


def voices_in_the_place_of_people():
    """Clips of one voice."""
    clips = spelling_alphabet(260).test
    return {name: clips[row : row + 12] for row, name in enumerate(("English", "French", "Italian", "Russian"))}


@pytest.mark.parametrize("recipe", RECORDED)
def test_a_recipe_runs_and_tries_what_its_records_say(recipe, small, monkeypatch):
    if recipe == "ship_it":
        pytest.importorskip("onnx", reason="the extra that exports is left out, as beside the oldest torch")
    if recipe in ("own_size", "language_labels", "between_tokens"):
        transformers = pytest.importorskip("transformers", minversion="5")
        assert transformers
    module = importlib.import_module(recipe)
    parts = [sys.modules[path.stem] for path in RECIPES.glob(f"{recipe}*.py") if path.stem in sys.modules]
    for constant, value in FEWER.get(recipe, {}).items():
        for part in parts:
            if hasattr(part, constant):
                monkeypatch.setattr(part, constant, value)
    for name, experiment in module.EXPERIMENTS.items():
        small.clear()
        made = experiment()
        for title, comparison in made.items():
            assert all(len(scores) == SEEDS for scores in comparison.test.values()), title
            assert all(entry.steps <= 100 for entries in comparison.ledgers.values() for entry in entries), title
        try:
            record = experiments.recorded(name)
        except FileNotFoundError:
            continue
        assert list(made) == list(record)
        for title, was in record.items():
            now = made[title]
            assert (list(now.test), now.reference) == (list(was.test), was.reference), title
            assert was.contrasts in ([], now.contrasts), title  # Older records have none.
            assert set(now.measured) == set(was.measured) or recipe == "speech", title  # It has one measure a voice.
            for method, settings in was.settings.items():
                plans = [plan[method] for plan in small if method in plan]
                if len(settings) > 1:
                    assert settings in plans, (name, title, method)
                else:  # A single setting may be one that was chosen elsewhere.
                    assert any(len(plan) == 1 and set(settings[0]) <= set(plan[0]) for plan in plans), (name, method)


@pytest.fixture
def own_size(small, monkeypatch):
    """The students of the recipe of that name, on few texts."""
    pytest.importorskip("transformers", minversion="5")
    made = importlib.import_module("own_size_students")
    for part in (part for name, part in sys.modules.items() if name.startswith("own_size")):
        for constant, value in FEWER["own_size"].items():
            if hasattr(part, constant):
                monkeypatch.setattr(part, constant, value)
    return made


def test_a_student_cut_from_nothing_says_what_the_teacher_says(own_size, monkeypatch):
    teacher = copy.deepcopy(own_size.cut().model)
    with torch.no_grad():
        for layer in teacher.model.layers:
            layer.input_layernorm.weight.uniform_(0.5, 2)
            layer.post_attention_layernorm.weight.uniform_(0.5, 2)
        teacher.model.norm.weight.fill_(1.5)  # Of another gain, a tied last layer would keep an approximation.
    monkeypatch.setattr(own_size, "teacher", lambda: teacher)
    student = own_size.cut_from_teacher(width=24, layers=3, heads=6, keys=3, hidden=32).eval()
    tokens = own_size.rows("test").inputs["input_ids"][:3]
    with torch.no_grad():
        torch.testing.assert_close(student(tokens).logits, teacher(tokens).logits, rtol=1e-3, atol=1e-4)
        narrow = own_size.cut_from_teacher(width=8, layers=2, heads=2, keys=1, hidden=12)
    assert narrow(tokens).logits.isfinite().all()


def test_the_n_gram_of_many_tokens_is_that_of_few(own_size):
    counts = importlib.import_module("own_size_counts")
    tokens = torch.randint(5, (20, 31))
    data = TensorData({"input_ids": tokens[:, :-1]}, tokens[:, 1:], mask=torch.ones(20, 30, dtype=torch.bool))
    sparse = counts.TokenNGram(order=3, discount=0.75, num_classes=5).count(data)
    dense = models.NGram(order=3, discount=0.75, num_classes=5).count(TensorData(tokens[:, :-1], tokens[:, 1:]))
    new = torch.randint(5, (4, 30))
    torch.testing.assert_close(sparse(new), dense(new))


def test_an_n_gram_that_drafts_sees_the_tokens_before(own_size):
    from transformers import DynamicCache

    counts, cut = importlib.import_module("own_size_counts"), own_size.cut()
    ngram = counts.TokenNGram(3, 0.75, len(cut.tokenizer)).count(own_size.rows("train"))
    text, cache, draft = own_size.rows("test").inputs["input_ids"][:1], DynamicCache(), counts.AsWriter(ngram)
    found = [draft(piece, past_key_values=cache).logits for piece in text.split([5, 1, 6], dim=1)]
    assert torch.equal(torch.cat(found, 1), ngram(text))
    cache.crop(-8)
    assert torch.equal(draft(text[:, 4:], past_key_values=cache).logits, ngram(text)[:, 4:])
    found = models.speculative_sample(cut.model, draft, text[:, :4], 12, temperature=0)
    assert torch.equal(found.text, models.sample(cut.model, text[:, :4], 12, temperature=0))


def test_what_took_hours_is_made_once_and_says_of_what(own_size, monkeypatch, tmp_path):
    files, parts = (importlib.import_module(f"own_size_{name}") for name in ("files", "parts"))
    for part in (files, parts):
        monkeypatch.setattr(part, "FOLDER", tmp_path)

    def said():
        return parts.said(4, "bucket").teacher_logits["values"].index_select(0, torch.arange(3))

    answers = said()
    for remembered in (parts.teacher, parts.heard, parts.said):
        remembered.cache_clear()
    with monkeypatch.context() as changed:
        changed.setattr(parts, "fit", None)
        assert torch.equal(said(), answers)
    monkeypatch.setattr(parts, "TUNED", 50)
    parts.teacher.cache_clear()
    with pytest.raises(ValueError, match="steps was 100 and is now 50"):
        parts.teacher()


class Counting:
    """A method that counts how often it is trained."""

    trained = 0

    def __repr__(self):
        return "Counting"

    def train(self, splits, seed):
        type(self).trained += 1
        return experiments.Trained(nn.Linear(1, seed + 1), Ledger())


def test_a_run_that_two_records_have_is_trained_once(own_size, monkeypatch, tmp_path):
    files = importlib.import_module("own_size_files")
    monkeypatch.setattr(files, "FOLDER", tmp_path)
    splits = few_texts()._replace(train=TensorData(torch.ones(2, 1)))
    sizes = [files.Shared(Counting()).train(splits, seed).model.out_features for seed in (0, 1, 0)]
    assert (sizes, Counting.trained) == ([1, 2, 1], 2)
    assert files.OneRun(Counting()).train(splits, 5).model.out_features == 1
    files.Shared(Counting()).train(splits._replace(train=TensorData(torch.zeros(2, 1))), 0)
    assert Counting.trained == 3


def test_what_is_merged_overlaps_as_a_lesson_with_a_rest_counts_it(own_size, monkeypatch):
    draft = importlib.import_module("own_size_draft")
    monkeypatch.setattr(draft, "KEPT", 3)
    ours, theirs = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0)).double()
    lesson = losses.total_variation_loss(ours, answers.compress(theirs, 3, rest="bucket"), reduction="none")
    merged = draft.merged(ours, theirs)
    torch.testing.assert_close(merged, 1 - lesson, check_dtype=False, rtol=0, atol=2e-3)  # Kept in half precision.
    assert (merged > 1 - losses.total_variation_loss(ours, theirs, reduction="none")).all()


def test_a_bare_loop_writes_what_generate_does(own_size):
    writing, model = importlib.import_module("own_size_written"), own_size.cut().model
    prompts, chance = own_size.rows("test").inputs["input_ids"][:3, :4], torch.Generator()
    texts, surprise = writing.goes_on(model, prompts, 5, temperature=0.0, generator=chance)
    assert torch.equal(texts, models.sample(model, prompts, 5, temperature=0))
    with torch.no_grad():
        said = model(texts[:, :-1]).logits[:, 3:].log_softmax(-1)
    torch.testing.assert_close(surprise, said.gather(-1, texts[:, 4:, None]).squeeze(-1))


def test_with_any_draft_a_writer_writes_the_same_and_each_seed_has_its_texts(own_size):
    pace = importlib.import_module("own_size_pace")
    drafts = {name: [own_size.llama(**SHORT).eval() for _ in range(2)] for name in ("first", "second")}
    for who in ("tuned", "as it came"):
        found = pace.paces(who, 0.0, drafts)
        assert [*found["the same text"].values()] == [[1.0, 1.0]] * 2
        assert all(1 <= calls <= 2 for by in found["tokens a call"].values() for calls in by)
        first, second = pace.beginnings("test", who, 2)
        assert not torch.equal(first[0], second[0])


def test_of_texts_that_repeat_alike_a_seed_draws(own_size, monkeypatch):
    writing = importlib.import_module("own_size_written")
    texts = torch.arange(40).repeat(8, 1)
    texts[5:] = 0
    monkeypatch.setattr(writing, "written", lambda: (texts, torch.zeros(8, 30)))
    halves = {tuple(writing.half("those that repeat least", seed).tolist()) for seed in range(20)}
    assert len(halves) > 1
    assert {row for half in halves for row in half} == {*range(5)}


def test_a_run_is_kept_without_its_teacher(own_size):
    whose, lessons = (importlib.import_module(f"own_size_{name}") for name in ("whose", "lessons"))
    trained = experiments.Trained(nn.Linear(1, 1), Ledger(), objective=whose.on_own_text("k1"))
    assert lessons.taught(trained, few_texts(), 0).objective is None


def test_one_token_says_on_average_what_all_say(own_size):
    whose = importlib.import_module("own_size_whose")
    ours, theirs = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0)).double()
    (q, p), found = (logits.softmax(-1) for logits in (ours, theirs)), whose.noise(ours, theirs)
    logits = ours.clone().requires_grad_()
    (full,) = torch.autograd.grad(losses.reverse_kl_loss(logits, theirs, reduction="none").sum(), logits)
    torch.testing.assert_close(found["kl"], (q * (q / p).log()).sum(-1))
    torch.testing.assert_close(found["reward, mean"], full.square().sum(-1))
    torch.testing.assert_close(found["k3, mean"], (q - p).square().sum(-1))  # The slope of forward KL.
    apart, tokens = (q / p).log(), torch.eye(7).double()
    for name, factor in (("reward", apart), ("k3", 1 - p / q)):
        each = factor.unsqueeze(-1) * (tokens - q.unsqueeze(1))
        mean = (q.unsqueeze(-1) * each).sum(1)
        spread = (q * (each - mean.unsqueeze(1)).square().sum(-1)).sum(-1)
        torch.testing.assert_close(found[f"{name}, noise"], spread)
    torch.testing.assert_close(found["product"], (full * (q - p)).sum(-1))
    values = p / q - 1 + apart
    torch.testing.assert_close(found["k3, variance"], (q * values.square()).sum(-1) - found["kl"].square())


def test_a_title_is_named_alike_alone_and_among_others(small, monkeypatch):
    pytest.importorskip("transformers", minversion="5")
    parts = importlib.import_module("language_labels_parts")
    monkeypatch.setattr(parts, "names", FEWER["language_labels"]["names"])
    labeled = TensorData(torch.arange(40), torch.arange(5).repeat(8))
    few, more = (parts.drawn(labeled, each, seed=3).inputs.tolist() for each in (1, 3))
    assert len(more) == 15
    assert [row for row in more if row in few] == few
    titles = ["Hat found", "Old hat lost", "New hat sold", "The table of the tall house"]
    monkeypatch.setattr(parts, "TOGETHER", 3)
    for name, each in (("a list", 1), ("a sentence", 0)):  # With a beginning that is read once, and without one.
        prompt = parts.written(parts.PROMPTS[name], parts.TITLE, parts.drawn(labeled, each, seed=3))
        among = parts.likelihoods(prompt, titles)
        for row, title in enumerate(titles):
            with torch.no_grad():
                said = parts.whole()[0](input_ids=torch.tensor([parts.tokens(prompt, title)])).logits[0, -1]
            torch.testing.assert_close(among[row], said.log_softmax(-1)[parts.names()], rtol=1e-4, atol=1e-4)


def test_a_teacher_says_no_more_than_it_is_asked(small):
    parts = importlib.import_module("does_it_carry_parts")
    torch.manual_seed(0)
    teacher, data = torch.nn.Linear(3, 5), TensorData(10 * torch.randn(40, 3))
    whole = (teacher(data.inputs) / 2).softmax(-1).detach()

    def told(**what):
        return (parts.Told(teacher, data, 2.0, **what)(data.inputs) / 2).softmax(-1).detach()

    torch.testing.assert_close(told(sure=True, rest=True), whole)
    for sure, rest in itertools.product((True, False), repeat=2):
        said = told(sure=sure, rest=rest)
        assert said.argmax(-1).equal(whole.argmax(-1))
        torch.testing.assert_close(said.sum(-1), torch.ones(40))
        surest = whole.amax(-1) if sure else whole.amax(-1).mean().expand(40)
        torch.testing.assert_close(said.amax(-1), surest)
        others, theirs = (each.sort(-1).values[:, :-1] for each in (said, whole))
        wanted = theirs if rest else torch.ones_like(theirs)
        torch.testing.assert_close(others / others.sum(-1, keepdim=True), wanted / wanted.sum(-1, keepdim=True))


def test_make_results_runs_every_recipe():
    (made,) = re.findall(r"^results: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert sorted(re.findall(r"recipes/(\w+)\.py", made)) == sorted(RECORDED)


def test_no_recipe_is_left_out(small):
    found = {path.stem for path in RECIPES.glob("*.py") if "\nEXPERIMENTS" in path.read_text(encoding="utf-8")}
    assert found == set(RECORDED)


def test_the_shipped_teacher_is_made(small, tmp_path, monkeypatch):
    recipe = importlib.import_module("fashion_teacher")
    monkeypatch.setattr(recipe, "WEIGHTS", tmp_path / "teacher.safetensors")
    recipe.train()
    assert models.load(tmp_path / "teacher.safetensors").card["steps"] == STEPS


def test_the_browsers_student_is_made(small, tmp_path, monkeypatch):
    recipe = importlib.import_module("browser")
    monkeypatch.setattr(recipe, "FOLDER", tmp_path)
    recipe.main()
    assert {path.name for path in tmp_path.iterdir()} >= {"student.safetensors", "data.js", "teacher.js", "still.svg"}


def test_the_intros_figures_are_drawn(small, tmp_path, monkeypatch):
    recipe = importlib.import_module("intro")
    monkeypatch.setattr(recipe, "IMAGES", tmp_path)
    monkeypatch.setattr(recipe, "SHIRT", 0)
    recipe.intro()
    recipe.cover()
    assert all(
        (tmp_path / name).read_text(encoding="utf-8").rstrip().endswith("</svg>") for name in ("intro.svg", "cover.svg")
    )


def test_costs_are_measured(small, tmp_path, monkeypatch):
    recipe = importlib.import_module("costs")
    monkeypatch.setattr(recipe, "PATH", tmp_path / "costs.txt")
    monkeypatch.setattr(recipe, "TURNS", 2)
    monkeypatch.setattr(recipe.torch, "set_num_threads", lambda count: None)
    recipe.main()
    written, kept = ((path / "costs.txt").read_text(encoding="utf-8") for path in (tmp_path, ROOT / "book"))
    assert re.findall(r"`~kdft_lib[.\w]+`", written) == re.findall(r"`~kdft_lib[.\w]+`", kept)


def test_what_the_formulas_of_costs_miss_is_measured(small, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=500, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    monkeypatch.setattr(models, "language_model", lambda: (transformers.LlamaForCausalLM(config), None))
    recipe = importlib.import_module("what_it_costs")
    for name, value in {"TABLE": tmp_path / "table.txt", "DATA": tmp_path / "data.js", "STEPS": 1, "SIDE": 64}.items():
        monkeypatch.setattr(recipe, name, value)
    monkeypatch.setattr(recipe.torch, "set_num_threads", lambda count: None)
    recipe.main()
    written = [(tmp_path / "table.txt").read_text(encoding="utf-8"), (tmp_path / "data.js").read_text(encoding="utf-8")]
    kept = [
        (ROOT / "book" / name).read_text(encoding="utf-8") for name in ("what-it-costs.txt", "_extra/play/fits-data.js")
    ]
    for made, was, names in zip(written, kept, (r"^\| [^|]+\| \d+ \|", r'"[a-zA-Z]\w+":'), strict=True):
        assert re.findall(names, made, flags=re.M) == re.findall(names, was, flags=re.M) != []


def test_language_is_measured_beside_its_peers(small, tmp_path, monkeypatch):
    for peer in ("trl", "liger_kernel"):
        pytest.importorskip(peer, reason="peers are installed for the benchmark alone")
    recipe = importlib.import_module("language_peers")
    for name, value in {
        "PATH": tmp_path / "language.json", "TURNS": 1, "PLACES": 32, "CLASSES": 97, "WIDTH": 16, "CHUNKS": (8, 32),
        "LAYERS": 2, "ROWS": {"few": (2, 12, 5)}, "novels": few_texts,
    }.items():  # fmt: skip
        monkeypatch.setattr(recipe, name, value)
    monkeypatch.setattr(recipe.torch, "set_num_threads", lambda count: None)
    recipe.main()
    rows = json.loads((tmp_path / "language.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 4
    assert all(row["differ"] < 1e-3 for row in rows)  # Small networks hardly differ, and their loss is rounded.


def test_peers_that_are_not_there_are_named(small, monkeypatch):
    recipe = importlib.import_module("language_peers")
    monkeypatch.setattr(recipe.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"pip install .* trl==1\.16\.0 liger-kernel==0\.8\.5"):
        recipe.main()


def test_what_the_figures_to_play_with_store_is_measured(small, tmp_path, monkeypatch):
    recipe = importlib.import_module("play")
    monkeypatch.setattr(recipe, "FOLDER", tmp_path)
    recipe.measure()
    made, kept = (json.loads((path / "costs.json").read_text()) for path in (tmp_path, ROOT / "book/_extra/play"))
    assert made["numbers"].keys() == kept["numbers"].keys()


def test_the_nine_mens_file_is_written(small, tmp_path, monkeypatch):
    recipe = importlib.import_module("japanese_vowels")
    said = b"@problemName x\n@data\n" + b":".join([b"0.5,-0.25,0.125"] * 12 + [b"3"]) + b"\n"
    with zipfile.ZipFile(tmp_path / "aeon.whl", "w") as wheel:
        for part in recipe.PARTS:
            wheel.writestr(f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts", said)
    monkeypatch.setattr(recipe, "FOLDER", tmp_path)
    with pytest.raises(SystemExit, match="has the SHA-256"):
        recipe.main(str(tmp_path / "aeon.whl"))
    parts = {part: (len(said), hashlib.sha256(said).hexdigest()) for part in recipe.PARTS}
    monkeypatch.setattr(recipe, "PARTS", parts)
    recipe.main(str(tmp_path / "aeon.whl"))
    tensors = load_file(tmp_path / "japanese_vowels.safetensors")
    assert tensors["train.frames"][:, 0].tolist() == [5000, -2500, 1250]
    assert tensors["test.speakers"].tolist() == [2]


def test_this_books_own_prose_is_written(small, tmp_path, monkeypatch):
    tool = importlib.import_module("own_prose")
    said = " ".join(["Here is *emphasis* and a [link](page.md) to a page."] * 4)
    page = f"# A heading\n\n{said}\n\n- {said}\n\n{said} And `code`.\n\n```python\n{said}\n```\n\nShort.\n"
    assert [*tool.paragraphs(page)] == [said.replace("*", "").replace("[link](page.md)", "link")]
    kept_at = tool.PATH
    monkeypatch.setattr(tool, "PATH", tmp_path / "own_prose.json")
    tool.main()
    made, kept = (json.loads(path.read_text(encoding="utf-8")) for path in (tool.PATH, kept_at))
    assert made.keys() == kept.keys()
