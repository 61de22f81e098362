"""Containers: tensors and texts in memory, batches, splits and random views."""

from __future__ import annotations

import pytest
import torch

from kdft_lib.data import (
    UNLABELED,
    RandomShiftFlip,
    RandomShiftMask,
    TensorData,
    TextData,
    TextSplits,
    as_batch,
    batches,
)


def test_batches_hold_every_row_once(blobs):
    seen = torch.cat([batch["inputs"] for batch in blobs.batches(7, shuffle=True)])
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, blobs.inputs.tolist()))
    assert not torch.equal(seen, blobs.inputs)
    first, again = (
        torch.cat([b["targets"] for b in blobs.batches(7, shuffle=True, generator=torch.Generator().manual_seed(3))])
        for _ in range(2)
    )
    assert torch.equal(first, again)
    with pytest.raises(ValueError, match="batch_size is 0"):
        next(blobs.batches(0))


def test_tensor_data_rejects_columns_of_different_lengths():
    with pytest.raises(ValueError, match="inputs has 3, targets has 2 rows"):
        TensorData(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="teacher_logits and teacher go together"):
        TensorData(torch.zeros(3, 2), teacher_logits=torch.zeros(3, 2))


def test_tensor_data_takes_a_dict_of_inputs():
    data = TensorData(
        {"input_ids": torch.arange(6).view(3, 2), "attention_mask": torch.ones(3, 2)}, torch.tensor([0, 1, 2])
    )
    assert len(data[1:]) == 2
    assert data[1]["inputs"]["input_ids"].tolist() == [2, 3]
    assert next(data.batches(2, shuffle=True))["inputs"]["input_ids"].shape == (2, 2)
    assert data.fingerprint() != data[torch.tensor([1, 0, 2])].fingerprint()


def test_text_data_quotes_no_text_and_keeps_rows_together():
    data = TextData(["secret one", "secret two", "secret three"], torch.tensor([0, 1, 2]))
    splits = TextSplits(data, data.without_labels(), data[:1], data[[2]])
    assert "secret" not in f"{data} {data!r} {splits} {splits!r}"
    assert data[torch.tensor([2, 0])].texts == ("secret three", "secret one")
    assert data[1:].targets.tolist() == [1, 2]
    assert data[data.targets != 1].texts == ("secret one", "secret three")
    assert data[[]].texts == ()
    with pytest.raises(TypeError, match=r"rows is 1; take a slice"):
        data[1]
    with pytest.raises(ValueError, match="texts has 1, targets has 2 rows"):
        TextData(["a"], torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="texts is one text"):
        TextData("a text")


def test_texts_become_tensors_in_one_call():
    data = TextData(["a", "bb", "ccc"], torch.tensor([0, 1, 2]))
    splits = TextSplits(data[:2], data[[]].without_labels(), data[2:], data[[1]])
    calls = []

    def lengths(texts):
        calls.append(1)
        return {"lengths": torch.tensor([len(text) for text in texts])}

    encoded = splits.with_inputs(lengths)
    assert calls == [1]
    assert [part.inputs["lengths"].tolist() for part in encoded] == [[1, 2], [], [3], [2]]
    assert encoded.train.targets.tolist() == [0, 1]
    assert encoded.transfer.targets is None
    assert splits.with_inputs(lambda texts: lengths(texts)["lengths"].float()).val.inputs.tolist() == [3.0]
    with pytest.raises(ValueError, match="encode gave 1 rows of lengths for 4 texts"):
        splits.with_inputs(lambda texts: {"lengths": torch.zeros(1)})
    with pytest.raises(ValueError, match="encode gave 5 rows for 4 texts"):
        splits.with_inputs(lambda texts: torch.zeros(5))


def test_batches_are_recognized_at_the_door():
    inputs, targets = torch.zeros(2, 3), torch.tensor([0, 1])
    assert as_batch((inputs, targets)).keys() == {"inputs", "targets"}
    assert as_batch([inputs, targets]).keys() == {"inputs", "targets"}
    assert as_batch(inputs).keys() == {"inputs"}
    hugging_face = as_batch({"input_ids": inputs, "attention_mask": inputs, "labels": targets})
    assert hugging_face["inputs"].keys() == {"input_ids", "attention_mask"}
    assert hugging_face["targets"] is targets
    with pytest.raises(TypeError, match="a batch came as a str"):
        as_batch("images")


def test_joined_batches_keep_labels_apart():
    labeled = {"inputs": torch.zeros(2, 3), "targets": torch.tensor([1, 2])}
    joined = batches.join(labeled, {"inputs": torch.ones(3, 3)})
    assert joined["targets"].tolist() == [1, 2, *[UNLABELED] * 3]
    assert joined["inputs"].shape == (5, 3)
    with pytest.raises(ValueError, match="transfer_data has no teacher_logits"):
        batches.join(labeled | {"teacher_logits": torch.zeros(2, 4)}, {"inputs": torch.ones(3, 3)})


def test_more_rows_bring_their_labels_if_they_have_any():
    first, second = TensorData(torch.zeros(2, 3), torch.tensor([1, 2])), TensorData(torch.ones(1, 3), torch.tensor([0]))
    assert first.with_rows(second).targets.tolist() == [1, 2, 0]
    assert first.without_labels().with_rows(second).targets.tolist() == [UNLABELED, UNLABELED, 0]
    assert first.without_labels().with_rows(second.without_labels()).targets is None
    assert first.with_rows(second).inputs[:, 0].tolist() == [0, 0, 1]
    numbers = TensorData(torch.zeros(2, 3), torch.ones(2))
    with pytest.raises(ValueError, match="give those without as transfer_data"):
        numbers.with_rows(numbers.without_labels())
    several = TensorData(torch.zeros(1, 3), torch.ones(1, 2))
    assert several.with_rows(several.without_labels()).targets.tolist() == [[1, 1], [UNLABELED, UNLABELED]]


def test_views_are_shifted_and_mirrored_copies():
    image = torch.arange(1.0, 17.0).view(1, 1, 4, 4)
    views = RandomShiftFlip(padding=1, fill=0.0)(image.expand(2000, 1, 4, 4))
    possible = {
        tuple(torch.nn.functional.pad(source, [1] * 4)[..., y : y + 4, x : x + 4].flatten().tolist())
        for source in (image, image.flip(-1))
        for y in range(3)
        for x in range(3)
    }
    assert set(map(tuple, views.flatten(1).tolist())) == possible
    every = RandomShiftFlip(padding=1).every()
    listed = RandomShiftFlip(padding=1).apply(image.expand(18, 1, 4, 4), every)
    assert sorted(map(tuple, listed.flatten(1).tolist())) == sorted(possible)
    assert {name: column.dtype for name, column in every.items()} == {
        name: column.dtype for name, column in RandomShiftFlip(padding=1).draw(3).items()
    }
    with pytest.raises(ValueError, match=r"flip is 0\.3, so views are not equally likely"):
        RandomShiftFlip(flip=0.3).every()
    assert torch.equal(RandomShiftFlip(padding=0, flip=0)(image), image)
    with pytest.raises(ValueError, match="flip is 2"):
        RandomShiftFlip(flip=2)


def test_shifts_and_masks_are_what_they_say():
    spectra = torch.arange(1.0, 21.0).expand(2000, 1, 6, 20)
    shifted = RandomShiftMask(shift=3, frames=0, bands=0)(spectra)
    starts = [(torch.arange(1, 21) - shift).clamp(1, 20) for shift in range(-3, 4)]
    possible = {tuple(row.tolist()) for row in starts}
    assert {tuple(map(int, clip[0, 0])) for clip in shifted} == possible
    assert torch.equal(shifted[:, :, :1].expand_as(shifted), shifted)
    masked = RandomShiftMask(shift=0, frames=5, bands=2, fill=-1.0)(spectra)
    hidden = masked == -1
    assert torch.equal(masked[~hidden], spectra[~hidden])
    frames, bands = hidden.all(2).sum(-1).flatten(), hidden.all(3).sum(-1).flatten()
    assert frames.unique().tolist() == list(range(6))
    assert bands.unique().tolist() == [0, 1, 2]
    edges = hidden.all(2)[frames == 5].diff(dim=-1).sum(-1)
    assert edges.max() <= 2  # one stretch
    assert hidden.all(2)[..., 0].any()
    assert hidden.all(2)[..., -1].any()
    assert torch.equal(RandomShiftMask(0, 0, 0)(spectra), spectra)
    assert spectra[0, 0, 0].tolist() == list(range(1, 21))


def test_augmentation_follows_torchs_seed_and_refuses_what_does_not_fit():
    spectra = torch.randn(8, 1, 40, 101)
    views = []
    for _ in range(2):
        torch.manual_seed(3)
        views.append(RandomShiftMask()(spectra))
    assert torch.equal(*views)
    assert not torch.equal(views[0], spectra)
    with pytest.raises(ValueError, match="frames is -1; it must be 0 or more"):
        RandomShiftMask(frames=-1)
    with pytest.raises(ValueError, match="spectra has 40 bands and 10 frames; masks of up to 8 bands and 20 frames"):
        RandomShiftMask()(spectra[..., :10])
