"""What a person reads after a mistake: every message in full, as ``errors.txt`` has it.

After a message was changed on purpose: ``python tests/test_errors.py`` writes the file anew; read the difference.
"""

from __future__ import annotations

import inspect
import math
import os
import re
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from kdft_lib import losses, metrics, objectives, strategies
from kdft_lib.data import (
    Columns,
    PictureReader,
    RandomShiftFlip,
    TensorData,
    TextReader,
    as_batch,
    chats,
    draw_parts,
    folder,
    packed,
    read_rows,
    table,
    text_file,
    token_bytes,
    tokenizations,
)
from kdft_lib.datasets import fashion_mnist, homer, solar_cells
from kdft_lib.experiments import Arm, output_folder, report
from kdft_lib.features import find, outputs, precompute
from kdft_lib.metrics import bits_per_byte, confidence_threshold
from kdft_lib.models import (
    CharacterGRU,
    ImageTransform,
    NGram,
    PictureClassifier,
    TextClassifier,
    gguf,
    imagenet_backbone,
    language,
    language_model,
    load,
    sample,
    save,
    speculative_sample,
)
from kdft_lib.objectives import (
    DIST,
    DKD,
    GKD,
    L2SP,
    RKD,
    AttentionTransfer,
    Contrastive,
    HardTargets,
    Hint,
    LogitMatching,
    LwF,
    SimilarityPreserving,
    SoftTargets,
    Supervised,
)
from kdft_lib.strategies import (
    BitFit,
    FullFineTuning,
    GradualUnfreezing,
    HeadOnly,
    LayerwiseLRDecay,
    LoRA,
    Phases,
    blocks,
)
from kdft_lib.teachers import Ensemble, Teacher, answers, cache, compress, named_answers
from kdft_lib.training import EarlyStopping, evaluate, find_lr, fit, interpolate, predict

FILE = Path(__file__).parent / "errors.txt"
DATA = TensorData(torch.zeros(8, 4), torch.arange(8) % 3)
FULL = FullFineTuning(lr=0.1)
THREE = torch.zeros(2, 3)
ONE = {"inputs": torch.zeros(1, 4), "targets": torch.tensor([0])}
TWO = {"inputs": torch.zeros(2, 4), "targets": torch.tensor([0, 1])}
FEW = TWO | {"teacher_logits": compress(THREE, 2)}
DECIDED = next(answers(DATA, decisions=torch.full((8,), 4), source="a person").batches(2))
MANY = {"inputs": torch.zeros(2, 4), "targets": torch.zeros(2, 3)}
TOKENS = torch.zeros(2, 4, dtype=torch.int64)
NORMALISED = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
ASKED = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
FOLDER = Path(tempfile.gettempdir())


def net(classes=3):
    return nn.Linear(4, classes)


def deep(classes=3):
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, classes))


def run(model=None, data=DATA, objective=None, strategy=FULL, **more):
    return fit(
        net() if model is None else model, data, objective=objective or Supervised(), strategy=strategy,
        **{"epochs": 1, "batch_size": 4} | more,
    )  # fmt: skip


class ListDataset(Dataset):
    """Samples in a list."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


class _Endless(Dataset):
    def __getitem__(self, index):
        return torch.zeros(4)


def hugging_face_splits():
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"inputs": [[0.0] * 4] * 8, "labels": [0, 1] * 4})
    return datasets.DatasetDict(train=rows, test=rows)


def mobilenet():
    return pytest.importorskip("torchvision").models.mobilenet_v3_small()


def words(**known):
    """A tokenizer of words, which begins from <s>."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "a": 1, "b": 2} | known, "<s>"))
    made.decoder = tokenizers.decoders.ByteLevel()
    return made


def chatting(template="{% for m in messages %}{{ m.content + ' ' }}{% endfor %}"):
    transformers = pytest.importorskip("transformers")
    known = words()
    known.pre_tokenizer = pytest.importorskip("tokenizers").pre_tokenizers.WhitespaceSplit()
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=known)
    made.chat_template = template
    return made


def without_the_wheel():
    with mock.patch.object(language, "package_folder", side_effect=ImportError):
        language.smollm2_file()


def another_wheel(folder):
    with mock.patch.object(language, "package_folder", return_value=folder):
        language.smollm2_file()


def no_such_model(name):
    pytest.importorskip("transformers")
    language_model(name)


def file(path, content):
    path.write_bytes(content)
    return path


SPELLED = {
    "logits": torch.zeros(2, 3, 3),
    "tokens": torch.tensor([[0, 1, 1], [0, 2, 1]]),
    "vocabulary": (b"", b"a", b"b"),
}


def bytes_of(**more):
    losses.next_bytes(**SPELLED | more)


def in_folder(action):
    """An action in an empty folder whose name is left out of the message."""
    with tempfile.TemporaryDirectory() as folder:
        action(Path(folder))


def other_arguments(folder):
    run(checkpoint_dir=folder)
    run(checkpoint_dir=folder, seed=5, batch_size=2)


def other_processes(folder):
    run(checkpoint_dir=folder)
    path = folder / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    torch.save(state | {"arguments": state["arguments"] | {"processes": "2"}}, path)
    run(checkpoint_dir=folder)


def other_sharding():
    with mock.patch.dict(os.environ, {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}):
        run()


def other_model(folder):
    run(checkpoint_dir=folder)
    run(nn.Linear(4, 3, bias=False), checkpoint_dir=folder)


def truncated(folder):
    run(checkpoint_dir=folder)
    path = folder / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:100])
    run(checkpoint_dir=folder)


def code_inside(folder):
    torch.save({"arguments": {}, "step": Path("code")}, folder / "checkpoint.pt")
    run(checkpoint_dir=folder)


def smaller_budget(folder):
    run(checkpoint_dir=folder, epochs=2)
    run(checkpoint_dir=folder, epochs=1)


def in_the_way(folder, **more):
    (folder / "file").write_text("")
    run(**dict.fromkeys(more, folder / "file" / "folder"))


def another_cache(folder, **more):
    teacher = net()
    cache(teacher, DATA, to=folder)
    cache(more.pop("teacher", teacher), more.pop("data", DATA), to=folder, **more)


def broken_cache(folder, name):
    teacher = net()
    cache(teacher, DATA, to=folder)
    (folder / name).write_bytes(b"nothing")
    cache(teacher, DATA, to=folder)


FIVE, SEVEN = torch.zeros(2, 5), torch.zeros(7, 5)


def linear(hidden=THREE, *, teacher=FIVE, weight=SEVEN, **more):
    """The fused loss, of layers that fit unless something else is said."""
    return losses.linear_soft_target_loss(hidden, torch.zeros(7, 3), teacher, weight, **more)


def other_views(folder):
    class Changing(RandomShiftFlip):
        def apply(self, images, drawn):
            return super().apply(images, drawn) + self.added

    teacher, pictures, augment = (
        nn.Sequential(nn.Flatten(), nn.Linear(4, 2)),
        TensorData(torch.rand(3, 1, 2, 2)),
        Changing(),
    )
    for augment.added in range(2):
        cache(teacher, pictures, to=folder, views=2, augment=augment)


def cached_of_another():
    run(data=cache(net(), DATA), objective=SoftTargets(net()))


def augmented_cache():
    teacher = net()
    run(data=cache(teacher, DATA), objective=SoftTargets(teacher), augment=lambda inputs: inputs)


def shared():
    model = net()
    run(model, objective=SoftTargets(model))


def one_dropout():
    dropout = nn.Dropout()
    run(nn.Sequential(net(), dropout), objective=SoftTargets(nn.Sequential(net(), dropout)))


def meta():
    Teacher(nn.Linear(4, 3, device="meta"))(torch.zeros(2, 4))


def randomly():
    class Random(TensorDataset):
        def __getitem__(self, place):
            return torch.randn(4)

    cache(net(), Random(torch.zeros(3, 4)))


def prepared(objective):
    objective.prepare(deep(), TWO)
    return objective(deep(), TWO)


def file_of(content, name, call):
    """A call with a file of that content."""

    def action(place):
        (place / name).write_bytes(content)
        call(place / name)

    return in_folder(action)


def photos(*changes, csv=None, **more):
    """Ten pictures of cats and ten of dogs, then what is changed: a file and its content, or nothing to remove it."""
    pillow = pytest.importorskip("PIL.Image")

    def action(place):
        for number in range(20):
            path = place / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pillow.new("L", (9, 9), 10 * number).save(path)
        for name, content in changes:
            path = place / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content:
                path.write_bytes(content)
        if csv is not None:
            (place / "rows.csv").write_text(csv)
            more["csv"] = place / "rows.csv"
        folder(place / "photos", size=8, **more)

    return in_folder(action)


def exported(call, *, inputs=None, reader=None, **more):
    """A file that is exported, and what is then done with its folder."""
    pytest.importorskip("onnxruntime")
    from kdft_lib import export

    def action(place):
        if reader is not None:
            export.write(net(2), place, reader=reader, examples=inputs, **more)
        call(export, place)

    return in_folder(action)


def said(*answers_of_two):
    return named_answers(DATA[:2], answers_of_two, ["cat", "dog"], source="an API")


def full_folder(place):
    (place / "file").write_text("")
    with output_folder(place):
        pass


COLUMNS = Columns({"age": {"gap": 0.0, "mean": 0.0, "std": 1.0, "had_gaps": False}}, {"port": ["Oslo"]})
PICTURES = "file,kind\n" + "".join(f"{kind}/{number}.png,{kind}\n" for number, kind in enumerate(["cat", "dog"] * 5))
PEOPLE = b"name,kind\n" + b"".join(f"person {n},{'ab'[n % 2]}\n".encode() for n in range(200))
NAMED = {"path_column": "file", "label_column": "kind"}


CASES = {
    # Classes, shapes, targets
    "other classes": lambda: run(objective=SoftTargets(net(4))),
    "integer logits": lambda: losses.soft_target_loss(THREE.long(), THREE),
    "no class": lambda: losses.hard_target_loss(torch.zeros(2, 0), torch.zeros(2, 0)),
    "reduction": lambda: losses.logit_mse_loss(THREE, THREE, reduction="batchmean"),
    "temperature 0": lambda: SoftTargets(net(), temperature=0),
    "temperature nan": lambda: losses.reverse_kl_loss(THREE, THREE, math.nan),
    "temperature of DIST": lambda: DIST(net(), temperature=-1),
    "temperature of decoupled KD": lambda: DKD(net(), temperature=-1),
    "temperature of LwF": lambda: LwF(net(), temperature=0),
    "beta of Jensen-Shannon": lambda: losses.jensen_shannon_loss(THREE, THREE, beta=1.0),
    "alpha of decoupled KD": lambda: losses.dkd_loss(THREE, THREE, torch.zeros(2).long(), alpha=-1.0),
    "alpha in the objective": lambda: DKD(net(), alpha=-0.5),
    "beta in the objective": lambda: DKD(net(), beta=-0.5),
    "warm-up": lambda: DKD(net(), warmup=20),
    "weights of DIST": lambda: losses.dist_loss(THREE, THREE, intra_weight=-1.0),
    "divergence of another name": lambda: linear(divergence="kl"),
    "beta of a fused loss": lambda: linear(beta=0.0),
    "hidden states that do not fit": lambda: linear(torch.zeros(2, 4)),
    "bias that does not fit": lambda: linear(student_bias=torch.zeros(2)),
    "hidden states at other places": lambda: linear(teacher=torch.zeros(3, 5)),
    "bias of logits": lambda: linear(teacher=THREE, weight=None, teacher_bias=torch.zeros(3)),
    "few classes and a weight": lambda: linear(teacher=compress(THREE, 2)),
    "few classes at other places": lambda: linear(teacher=compress(torch.zeros(3, 3), 2), weight=None),
    "mask of another shape": lambda: losses.soft_target_loss(THREE, THREE, mask=torch.ones(3, dtype=torch.bool)),
    "mask of numbers": lambda: losses.soft_target_loss(THREE, THREE, mask=torch.ones(2)),
    "mask that counts nothing": lambda: losses.soft_target_loss(THREE, THREE, mask=torch.zeros(2, dtype=torch.bool)),
    "mask of another shape in a batch": lambda: SoftTargets(net())(net(), TWO | {"mask": torch.ones(2, 1).bool()}),
    "targets out of range": lambda: run(data=TensorData(torch.zeros(8, 4), torch.arange(8))),
    "targets out of range in a loss": lambda: losses.dkd_loss(THREE, THREE, torch.tensor([0, 3])),
    "targets of another dtype": lambda: run(data=TensorData(torch.zeros(8, 4), torch.zeros(8))),
    "targets of another shape": lambda: Supervised()(net(), TWO | {"targets": torch.zeros(2, 2).long()}),
    "multi-label targets": lambda: SoftTargets(net())(net(), MANY),
    "multi-label targets without saying so": lambda: Supervised()(net(), MANY),
    "single labels for multi-label": lambda: Supervised(multi_label=True)(net(), TWO),
    "multi-label of another shape": lambda: Supervised(multi_label=True)(net(4), MANY),
    "multi-label out of range": lambda: Supervised(multi_label=True)(
        net(), MANY | {"targets": torch.full((2, 3), 2.0)}
    ),
    "multi-label evaluation": lambda: evaluate(net(4), TensorData(torch.zeros(8, 4), torch.zeros(8, 3))),
    "numbers for classes": lambda: Supervised()(net(), MANY | {"targets": torch.zeros(2)}),
    "loss that is a module": lambda: Supervised(loss=nn.MSELoss()),
    "loss beside smoothing": lambda: Supervised(loss=F.mse_loss, label_smoothing=0.1),
    "loss of other shapes": lambda: run(net(2), objective=Supervised(loss=F.mse_loss)),
    "loss that is a mean": lambda: Supervised(loss=lambda *pair, reduction: F.mse_loss(*pair))(net(), MANY),
    "weight of a class": lambda: Supervised(weight=[1.0, -1.0]),
    "weights of other classes": lambda: run(objective=Supervised(weight=[1.0, 2.0])),
    "weight of several labels": lambda: Supervised(weight=[1.0, 2.0], multi_label=True),
    "smoothed multi-label": lambda: Supervised(label_smoothing=0.1, multi_label=True),
    "label smoothing": lambda: Supervised(label_smoothing=1.0),
    "no targets": lambda: run(data=DATA.without_labels()),
    "no targets for a teacher": lambda: run(data=DATA.without_labels(), objective=SoftTargets(net())),
    # Weights and sums
    "kd_weight": lambda: SoftTargets(net(), kd_weight=-1),
    "ce_weight": lambda: HardTargets(net(), ce_weight=math.inf),
    "nothing learned": lambda: LogitMatching(net(), kd_weight=0, ce_weight=0),
    "nothing learned in an epoch": lambda: run(objective=SoftTargets(net(), kd_weight=lambda e, n: 0.0, ce_weight=0)),
    "negative factor": lambda: -1 * Supervised(),
    "no parts": lambda: _unfinished()(net(), TWO),
    "penalty of another model": lambda: (Supervised() + L2SP(net(5)))(net(), TWO),
    "penalty without a head": lambda: L2SP(deep(), head="haed"),
    "penalty of the head alone": lambda: L2SP(nn.Sequential(nn.Linear(4, 3)), head="0"),
    "decay of no head": lambda: L2SP(deep(), head_weight=0.1),
    "decay of a head that is gone": lambda: L2SP(deep(), head="2", head_weight=0.1)(deep()[:2], TWO),
    # Layers and features
    "layer of the student": lambda: prepared(Hint(deep(), "frist", "0")),
    "layer of the teacher": lambda: Hint(deep(), "0", "9"),
    "layer that does not run": lambda: outputs(_Unused(), torch.zeros(2, 4), ["idle"]),
    "layer without a tensor": lambda: outputs(_Unused(), torch.zeros(2, 4), ["text"]),
    "no name": lambda: find(deep(), ""),
    "hint of other positions": lambda: prepared(Hint(nn.Sequential(nn.Unflatten(1, (2, 2))), "0", "0")),
    "hint without preparation": lambda: Hint(deep(), "0", "0")(deep(), TWO),
    "features of other shapes": lambda: losses.hint_loss(torch.zeros(2, 3), torch.zeros(2, 4)),
    "features without samples": lambda: losses.cosine_loss(torch.zeros(0, 3), torch.zeros(0, 3)),
    "attention without positions": lambda: AttentionTransfer(deep(), "0", "0")(deep(), TWO),
    "attention of other tokens": lambda: losses.attention_transfer_loss(torch.zeros(2, 3, 4), torch.zeros(2, 5, 4)),
    "relations of other samples": lambda: losses.rkd_angle_loss(torch.zeros(2, 3), torch.zeros(3, 3)),
    "relations of one": lambda: SimilarityPreserving(deep(), "0", "0")(deep(), ONE),
    "contrast of other sizes": lambda: losses.contrastive_loss(torch.zeros(2, 3), torch.zeros(2, 4)),
    "contrast without preparation": lambda: Contrastive(deep(), "0", "0")(deep(), TWO),
    "distances of one": lambda: RKD(deep(), "0", "0")(deep(), ONE),
    "second derivative of angles": lambda: _second_derivative(losses.rkd_angle_loss),
    "DIST of one": lambda: DIST(net())(net(), ONE),
    "distributions over one class": lambda: SoftTargets(nn.Linear(4, 1))(nn.Linear(4, 1), ONE),
    "normalisation of one": lambda: run(NORMALISED, data=DATA, batch_size=1),
    "head of features": lambda: precompute(deep(), "haed", DATA),
    "head that is not last": lambda: precompute(deep(), "0", DATA),
    "features of no data": lambda: precompute(deep(), "2", DATA[:0]),
    # Teachers and caches
    "teacher that is no module": lambda: Teacher("teacher"),
    "teacher that shares tensors": shared,
    "teacher that shares dropout": one_dropout,
    "teacher on another device": meta,
    "ensemble of none": lambda: Ensemble([]),
    "average of an ensemble": lambda: Ensemble([net()], average="votes"),
    "cache of no data": lambda: cache(net(), DATA[:0]),
    "cache of a loader": lambda: cache(net(), DataLoader(DATA)),
    "cache of random data": randomly,
    "cached logits of another teacher": cached_of_another,
    "cached logits and augmentation": augmented_cache,
    "cache by another teacher": lambda: in_folder(lambda folder: another_cache(folder, teacher=net())),
    "cache for other data": lambda: in_folder(lambda folder: another_cache(folder, data=DATA[:3])),
    "cache in another way": lambda: in_folder(lambda folder: another_cache(folder, top_k=1)),
    "cache of other views": lambda: in_folder(other_views),
    "damaged cache": lambda: in_folder(lambda folder: broken_cache(folder, "shard-000000.safetensors")),
    "damaged index of a cache": lambda: in_folder(lambda folder: broken_cache(folder, "index.json")),
    "views of nothing": lambda: cache(net(), DATA, views=2),
    "all views of what does not list them": lambda: cache(net(), DATA, views="all", augment=torch.neg),
    "some views": lambda: cache(net(), DATA, views="some", augment=torch.neg),
    "no views": lambda: cache(net(), DATA, views=0, augment=torch.neg),
    "calls of no samples": lambda: cache(net(), DATA, batch_size=0),
    "rows put behind views": lambda: cache(net(), DATA, views=2, augment=torch.neg).with_rows(DATA),
    "row that no file has": lambda: in_folder(lambda folder: cache(net(), DATA, to=folder).teacher_logits[8]),
    "logits too large for float16": lambda: cache(_large(), DATA, dtype=torch.float16),
    "top_k": lambda: compress(THREE, 4),
    "rest of the classes": lambda: compress(THREE, 2, rest="none"),
    # Few of many classes, and answers from elsewhere
    "bucket at a temperature": lambda: losses.soft_target_loss(THREE, compress(THREE, 2, rest="bucket")),
    "draws at a temperature": lambda: losses.soft_target_loss(THREE, compress(THREE, 2, rest="sampled"), 2.0),
    "even share of the reverse divergence": lambda: losses.reverse_kl_loss(THREE, compress(THREE, 2)),
    "decision among what was drawn": lambda: losses.hard_target_loss(THREE, compress(THREE, 2, rest="sampled")),
    "few of other classes": lambda: losses.soft_target_loss(torch.zeros(2, 4), compress(THREE, 2)),
    "few of other places": lambda: losses.soft_target_loss(torch.zeros(3, 3), compress(THREE, 2)),
    "class that the student lacks": lambda: HardTargets()(net(), DECIDED),
    "few where all are compared": lambda: DKD(net())(net(), FEW),
    "few to be standardised": lambda: SoftTargets(net(), standardize=True)(net(), FEW),
    "few for a loss of all": lambda: losses.dkd_loss(THREE, compress(THREE, 2), torch.tensor([0, 1])),
    "neither teacher nor answers": lambda: SoftTargets()(net(), TWO),
    "own texts without a teacher": lambda: GKD(on_policy=0.5),
    "answers to a loader": lambda: answers(DataLoader(DATA), logits=torch.zeros(8, 3), source="an API"),
    "no answers": lambda: answers(DATA, source="an API"),
    "two kinds of answers": lambda: answers(DATA, logits=THREE, probabilities=THREE, source="an API"),
    "answers of nobody": lambda: answers(DATA, logits=THREE, source=""),
    "answers to other rows": lambda: answers(DATA, logits=THREE, source="an API"),
    "logits that are no numbers": lambda: answers(DATA, logits=torch.full((8, 3), math.nan), source="an API"),
    "negative probabilities": lambda: answers(DATA, probabilities=torch.full((8, 3), -0.5), source="an API"),
    "probabilities that do not add up": lambda: answers(DATA, probabilities=torch.ones(8, 3), source="an API"),
    "no decision": lambda: answers(DATA, decisions=torch.full((8,), -100), source="a person"),
    "answer that names no class": lambda: said("fish", "cat"),
    "named answers to other rows": lambda: said("cat"),
    "named probabilities above 1": lambda: said({"cat": 0.9, "dog": 0.9}, "cat"),
    "named probabilities that leave a rest to nobody": lambda: said({"cat": 0.5, "dog": 0.3}, "cat"),
    "probability in words": lambda: said("cat", {"dog": "much"}),
    "classes to keep": lambda: LwF(net(2), classes=[0])(net(), TWO),
    "one class to keep": lambda: LwF(net(1))(net(), TWO),
    "classes twice": lambda: LwF(net(2), classes=[1, 1]),
    "old class as a label": lambda: LwF(net(2), joint=False)(net(), TWO),
    # Data of one's own
    "folder of pictures that is not there": lambda: folder("nowhere"),
    "folder without folders": lambda: in_folder(folder),
    "folder of parts": lambda: in_folder(lambda place: [(place / "train").mkdir(), folder(place)]),
    "class without a picture": lambda: photos(("zebra/none", b"")),
    "class of one picture": lambda: photos(("zebra/0.png", b"\x89PNG")),
    "file that is no picture": lambda: photos(("cat/notes.txt", b"three cats")),
    "picture of floating-point numbers": lambda: PictureReader(8)([np.zeros((9, 9), dtype=np.float32)]),
    "column without a table": lambda: photos(label_column="kind"),
    "table without its columns": lambda: photos(csv=PICTURES),
    "column that a table lacks": lambda: photos(csv=PICTURES, path_column="name", label_column="kind"),
    "picture that a table names": lambda: photos(csv=PICTURES + "cat/77.png,cat\n", **NAMED),
    "picture that a table names twice": lambda: photos(csv=PICTURES + "cat/4.png,cat\n", **NAMED),
    "pictures without labels that are not there": lambda: photos(unlabeled="nowhere"),
    "more labels than pictures": lambda: photos(labeled=40),
    "small pictures": lambda: PictureReader(size=4),
    "one picture": lambda: PictureReader()("photo.jpg"),
    "picture that is not there": lambda: PictureReader()(["photo.jpg"]),
    "groups too few": lambda: draw_parts(torch.arange(20) % 2, groups=[0] * 10 + [1] * 10),
    "numbers of nothing": lambda: draw_parts(torch.full((9,), math.nan)),
    "table of another kind": lambda: read_rows("rows.xlsx"),
    "table that is not there": lambda: read_rows("rows.csv"),
    "table without rows": lambda: file_of(b"text,label\n", "rows.csv", read_rows),
    "table that is not in UTF-8": lambda: file_of(b"text,label\n\xff,\xfe\n", "rows.csv", read_rows),
    "line that is no JSON": lambda: file_of(b'{"text": 1}\n{text: 1}\n', "rows.jsonl", read_rows),
    "line that is no object": lambda: file_of(b'{"text": 1}\n["a"]\n', "rows.jsonl", read_rows),
    "one class": lambda: file_of(b"text,label\na,x\nb,x\n", "r.csv", lambda path: text_file(path, "text", "label")),
    "no text": lambda: file_of(b"text,label\na,x\n,y\n", "r.csv", lambda path: text_file(path, "text", "label")),
    "row without a group": lambda: file_of(
        b"text,label,by\na,x,me\nb,y,\n", "r.csv", lambda path: text_file(path, "text", "label", group_column="by")
    ),
    "texts without a word twice": lambda: TextReader.of_words(["one", "two"]),
    "one text": lambda: TextReader.of_words(["one one"])("one"),
    "tokenizer that is not there": lambda: TextReader.from_file("tokenizer.json"),
    "word for a number": lambda: file_of(
        b"age,size\n1,2\n1,tall\n", "rows.csv", lambda path: table(path, "size", regression=True)
    ),
    "column of other numbers than classes": lambda: file_of(
        b"age,size\n" + b"1,2\n1,3\n" * 9 + b"1,3.5\n", "rows.csv", lambda path: table(path, "size")
    ),
    "word among numbers": lambda: file_of(
        b"age,kind\n" + b"?,b\n" * 30 + b"".join(b"%d,a\n" % n for n in range(300)),
        "rows.csv",
        lambda path: table(path, "kind"),
    ),
    "column of names": lambda: file_of(PEOPLE, "rows.csv", lambda path: table(path, "kind")),
    "target alone": lambda: file_of(b"kind\n" + b"a\nb\n" * 9, "rows.csv", lambda path: table(path, "kind")),
    "row without a column": lambda: COLUMNS([{"age": 3}]),
    # Texts
    "divergence": lambda: GKD(net(), divergence="kl"),
    "share of own texts": lambda: GKD(net(), on_policy=1.5),
    "prompt": lambda: GKD(net(), prompt=0),
    "beta of GKD": lambda: GKD(net(), beta=1.0),
    "writing without tokens": lambda: GKD(net(), on_policy=1.0)(net(), TWO),
    "writing in a sum": lambda: (GKD(CharacterGRU(4)) + Supervised())(CharacterGRU(4), {"inputs": TOKENS}),
    "writing beside a type": lambda: GKD(net(), on_policy=1.0)(
        net(), {"inputs": {"input_ids": TOKENS, "token_type_ids": TOKENS}}
    ),
    "end that is a word": lambda: GKD(net(), end="</s>"),
    "no new tokens": lambda: GKD(net(), max_new_tokens=0),
    "logits of nobody in blocks": lambda: GKD(net(), on_policy=0, in_blocks=True)(net(), TWO),
    "blocks in a sum": lambda: (GKD(CharacterGRU(4), on_policy=0, in_blocks=True) + Supervised())(
        CharacterGRU(4), {"inputs": TOKENS}
    ),
    "no prompt": lambda: sample(CharacterGRU(4), TOKENS[:, :0], 3),
    "negative length": lambda: sample(CharacterGRU(4), TOKENS, -1),
    "negative temperature": lambda: sample(CharacterGRU(4), TOKENS, 1, temperature=-1.0),
    "lengths of other prompts": lambda: sample(CharacterGRU(4), TOKENS, 1, lengths=torch.tensor([2, 5])),
    "several prompts for a draft": lambda: speculative_sample(CharacterGRU(4), CharacterGRU(4), TOKENS, 1),
    "no drafted tokens": lambda: speculative_sample(CharacterGRU(4), CharacterGRU(4), TOKENS[:1], 1, draft_tokens=0),
    "draft without keys": lambda: speculative_sample(CharacterGRU(4), CharacterGRU(4), TOKENS[:1], 1),
    "discount": lambda: NGram(discount=1.0),
    "order": lambda: NGram(11),
    "text without targets": lambda: NGram().count(TensorData(TOKENS)),
    "size of solar cells": lambda: solar_cells(size=301),
    "fold of solar cells": lambda: solar_cells(fold=4),
    "split of solar cells": lambda: solar_cells(split="rows"),
    "labels of solar cells": lambda: solar_cells(1700, root=FOLDER),
    "solar cells elsewhere": lambda: in_folder(lambda folder: solar_cells(root=folder)),
    "a class that is nowhere": lambda: metrics.average_precision(THREE[:, :2], torch.zeros(2).long()),
    "class out of range": lambda: metrics.f1(TWO["inputs"], TWO["targets"], 4),
    "threshold": lambda: metrics.f1(TWO["inputs"], TWO["targets"], threshold=1.5),
    "windows": lambda: homer(labeled=0),
    # Language models of Transformers
    "language model that is nowhere": lambda: no_such_model("smolm2"),
    "folder without a model": lambda: in_folder(no_such_model),
    "file of a model that is not there": lambda: in_folder(lambda folder: no_such_model(folder / "model.gguf")),
    "file of another format": lambda: in_folder(lambda folder: gguf.GGUF(file(folder / "model.gguf", b"GGML" * 9))),
    "wheel that is not installed": without_the_wheel,
    "wheel with another file": lambda: in_folder(another_wheel),
    "one text for many": lambda: packed("a b", words()),
    "splits of texts": lambda: packed({"train": ["a b"]}, words()),
    "documents of a kind unknown": lambda: packed(3, words()),
    "document of a kind unknown": lambda: packed([3], words()),
    "documents without a token": lambda: packed([""], words()),
    "document without the column": lambda: packed([{"body": "a b"}], words()),
    "document that is no text": lambda: in_folder(lambda folder: packed(file(folder / "a.png", b"\x89PNG"), words())),
    "rows of no tokens": lambda: packed(["a b"], words(), length=0),
    "start that is no token": lambda: packed(["a b"], words(), start="<bos>"),
    "tokenizer of a kind unknown": lambda: packed(["a b"], str.split),
    "chat without a template": lambda: chats([ASKED], words()),
    "no conversation": lambda: chats([], chatting()),
    "conversation of texts": lambda: chats([["why"]], chatting()),
    "conversation that is a text": lambda: chats(["why"], chatting()),
    "conversation without the column": lambda: chats([{"text": "why"}], chatting()),
    "prompt without room for an answer": lambda: chats([ASKED[:1] * 3], chatting(), length=2),
    "template that looks ahead": lambda: chats([ASKED], chatting("{% if add_generation_prompt %}a{% endif %}b")),
    "bytes that nobody counted": lambda: bits_per_byte(CharacterGRU(4), TensorData(TOKENS, TOKENS)),
    "bytes of other tokens": lambda: bits_per_byte(
        CharacterGRU(4, num_classes=2), TensorData(TOKENS, TOKENS + 2, columns={"bytes": TOKENS + 1})
    ),
    "bytes of nothing": lambda: bits_per_byte(CharacterGRU(4), TensorData(TOKENS, TOKENS, columns={"bytes": TOKENS})),
    "tokens of other places": lambda: bytes_of(tokens=torch.zeros(3, dtype=torch.int64)),
    "mask of other tokens": lambda: bytes_of(mask=torch.ones(3, dtype=torch.bool)),
    "vocabulary of another model": lambda: bytes_of(vocabulary=(b"a",) * 4),
    "vocabulary without bytes": lambda: bytes_of(vocabulary=(b"", b"")),
    "token that is no class": lambda: bytes_of(tokens=torch.full((2, 3), 3)),
    "tokens of two texts": bytes_of,
    "row without a token": lambda: bytes_of(mask=torch.zeros(2, 3, dtype=torch.bool)),
    "bytes of no tokenizer": lambda: token_bytes(str.split),
    "bytes of words": lambda: token_bytes(_words_alone()),
    "spellings of another kind": lambda: tokenizations("a", words(), of="own"),
    "spellings from nowhere": lambda: tokenizations("a", words()),
    "too many spellings": lambda: tokenizations("ab", words(ab=3), of="all", start="<s>", most=1),
    # Strategies
    "learning rate": lambda: FullFineTuning(lr=0.0),
    "weight decay": lambda: FullFineTuning(lr=0.1, weight_decay=-1.0),
    "head of a strategy": lambda: run(deep(), strategy=HeadOnly(head="haed", lr=0.1)),
    "head without parameters": lambda: run(deep(), strategy=HeadOnly(head="1", lr=0.1)),
    "head for biases": lambda: run(deep(), strategy=BitFit(lr=0.1, head="haed")),
    "nothing trainable": lambda: run(nn.Linear(4, 3, bias=False), strategy=BitFit(lr=0.1)),
    "decay of layers": lambda: LayerwiseLRDecay(lr=0.1, decay=2.0),
    "decay of unfreezing": lambda: GradualUnfreezing(lr=0.1, decay=0.0),
    "epochs per block": lambda: GradualUnfreezing(lr=0.1, epochs_per_block=0),
    "blocks as a text": lambda: LayerwiseLRDecay(lr=0.1, blocks="0"),
    "blocks that do not exist": lambda: run(deep(), strategy=LayerwiseLRDecay(lr=0.1, blocks=["9"])),
    "no blocks": lambda: blocks(nn.LayerNorm(3)),
    "rank of LoRA": lambda: LoRA(lr=0.1, r=0),
    "alpha of LoRA": lambda: LoRA(lr=0.1, alpha=0.0),
    "dropout of LoRA": lambda: LoRA(lr=0.1, dropout=1.0),
    "targets as a text": lambda: LoRA(lr=0.1, target_modules="0"),
    "targets of LoRA": lambda: run(deep(), strategy=LoRA(lr=0.1, target_modules=["9"])),
    "nothing for LoRA": lambda: run(nn.Sequential(nn.Linear(4, 3)), strategy=LoRA(lr=0.1, head="0")),
    "argument of a strategy": lambda: FULL.but(momentum=0.9),
    "first epochs": lambda: Phases(FULL, FULL, first_epochs=0),
    "phases without a second": lambda: run(strategy=Phases(BitFit(lr=0.1), FULL, first_epochs=3)),
    # The loop
    "no budget": lambda: run(epochs=None),
    "two budgets": lambda: run(steps=3),
    "epochs": lambda: run(epochs=0),
    "steps": lambda: run(epochs=None, steps=1.5),
    "batch size": lambda: run(batch_size=0),
    "parts of a batch": lambda: run(accumulate=9),
    "clipping": lambda: run(clip_norm=0.0),
    "schedule": lambda: run(schedule="linear"),
    "what a range test sets": lambda: find_lr(net(), DATA, objective=Supervised(), strategy=FULL, epochs=1),
    "rates of a range test": lambda: find_lr(net(), DATA, objective=Supervised(), strategy=FULL, lowest=1, highest=1),
    "steps of a range test": lambda: find_lr(net(), DATA, objective=Supervised(), strategy=FULL, steps=5),
    "precision": lambda: run(precision="half"),
    "average": lambda: run(ema_decay=1.0),
    "best without validation": lambda: run(keep_best=True),
    "best by no score": lambda: run(val_data=DATA, keep_best="f1"),
    "best of a kind unknown": lambda: run(val_data=DATA, keep_best=("loss", "lowest")),
    "metrics without validation": lambda: run(metrics={"largest": max}),
    "one callback": lambda: run(callbacks=EarlyStopping()),
    "callback that is told nothing": lambda: run(callbacks=["stop"]),
    "monitor": lambda: run(val_data=DATA, callbacks=[EarlyStopping(monitor="f1")]),
    "patience": lambda: EarlyStopping(patience=0),
    "mode": lambda: EarlyStopping(mode="low"),
    "least improvement": lambda: EarlyStopping(min_delta=-1.0),
    "empty data": lambda: run(data=DATA[:0]),
    "empty loader": lambda: run(data=DataLoader(TensorDataset(torch.zeros(0, 4)), batch_size=4)),
    "empty transfer data": lambda: run(transfer_data=DATA[:0].without_labels()),
    "generator": lambda: run(data=(batch for batch in DATA.batches(2))),
    "loss that is not finite": lambda: run(
        data=TensorData(torch.full((8, 4), 3e38) * torch.tensor([1.0, -1.0, 1.0, -1.0]), DATA.targets)
    ),
    "inputs that are not finite": lambda: run(data=TensorData(torch.full((8, 4), math.nan), DATA.targets)),
    "a mask of numbers": lambda: run(data=TensorData(DATA.inputs, DATA.targets, mask=torch.ones(8))),
    "a column twice": lambda: TensorData(DATA.inputs, columns={"targets": DATA.targets}),
    "data of a kind unknown": lambda: run(data=7),
    "data by its name": lambda: run(data="imagenet"),
    "a list of tensors": lambda: run(data=[DATA.inputs, DATA.targets]),
    "three tensors": lambda: run(data=(DATA.inputs, DATA.targets, DATA.targets)),
    "a column of texts": lambda: run(data={"inputs": DATA.inputs, "targets": ["a"] * 8}),
    "batches of three": lambda: run(data=TensorDataset(DATA.inputs, DATA.targets, DATA.targets)),
    "a dataset without a length": lambda: run(data=_Endless()),
    "splits of Hugging Face": lambda: run(data=hugging_face_splits()),
    "samples that differ in shape": lambda: run(data=ListDataset([torch.zeros(3), torch.zeros(4)])),
    "samples that are pictures": lambda: run(data=ListDataset([(object(), 0)] * 4)),
    "a loader of other batches": lambda: run(data=DataLoader(DATA, batch_size=2)),
    "a generator to resume": lambda: in_folder(
        lambda folder: run(data=(batch for batch in DATA.batches(2)), epochs=None, steps=2, checkpoint_dir=folder)
    ),
    "a generator that ends": lambda: run(data=(batch for batch in DATA.batches(4)), epochs=None, steps=3),
    "a keyword that the model lacks": lambda: run(data={"pixels": DATA.inputs, "labels": DATA.targets}),
    "an objective of torch": lambda: run(objective=nn.CrossEntropyLoss()),
    "an objective for several labels": lambda: run(objective=nn.BCEWithLogitsLoss()),
    "an objective for numbers": lambda: run(objective=nn.MSELoss()),
    "a divergence of torch": lambda: run(objective=nn.KLDivLoss()),
    "an objective that is a function": lambda: run(objective=nn.functional.mse_loss),
    "an objective that is a class": lambda: run(objective=Supervised),
    "a strategy of torch": lambda: run(strategy=torch.optim.AdamW(net().parameters(), lr=0.01)),
    "a strategy that is a class": lambda: run(strategy=FullFineTuning),
    "a strategy that is a rate": lambda: run(strategy=0.01),
    "an optimizer made already": lambda: run(optimizer=torch.optim.SGD(net().parameters(), lr=0.1)),
    "an optimizer by its name": lambda: run(optimizer="adam"),
    "a scheduler of torch": lambda: run(schedule=torch.optim.lr_scheduler.StepLR),
    "a model by its name": lambda: fit("resnet18", DATA, objective=Supervised(), strategy=FULL, steps=1),
    "steps in words": lambda: run(steps="three", epochs=None),
    "augmentation by its name": lambda: run(augment="flip"),
    "a negative number of workers": lambda: run(num_workers=-1),
    "a head of another network": lambda: HeadOnly(head="fc", lr=0.01).prepare(mobilenet()),
    "batch of a kind unknown": lambda: as_batch("batch"),
    "columns of other lengths": lambda: TensorData(torch.zeros(3, 4), torch.zeros(2)),
    "model without logits": lambda: predict(_Words(), DATA),
    "no data to predict": lambda: predict(net(), DATA[:0]),
    "label that is no class": lambda: evaluate(net(2), DATA),
    "labels that are all missing": lambda: evaluate(net(), TensorData(torch.zeros(8, 4), torch.full((8,), -100))),
    "metric with a value for each class": lambda: evaluate(net(), DATA, metrics={"each": lambda *_: torch.ones(3)}),
    "metric of our own name": lambda: evaluate(net(), DATA, metrics={"loss": max}),
    "metric by its name": lambda: evaluate(net(), DATA, metrics={"f1": "f1"}),
    "metrics without names": lambda: evaluate(net(), DATA, metrics=[max]),
    "no labels to evaluate": lambda: evaluate(net(), DATA.without_labels()),
    # Files
    "other arguments than before": lambda: in_folder(other_arguments),
    "checkpoint of other processes": lambda: in_folder(other_processes),
    "sharding of another kind": other_sharding,
    "checkpoint of another model": lambda: in_folder(other_model),
    "truncated checkpoint": lambda: in_folder(truncated),
    "checkpoint with code": lambda: in_folder(code_inside),
    "budget already spent": lambda: in_folder(smaller_budget),
    "checkpoint folder": lambda: in_folder(lambda folder: in_the_way(folder, checkpoint_dir=1)),
    "log folder": lambda: in_folder(lambda folder: in_the_way(folder, log_dir=1)),
    "name of a model's file": lambda: save(net(), "model.pt"),
    "model's file that is not there": lambda: in_folder(lambda folder: load(folder / "model.safetensors", net())),
    "data that is not there": lambda: in_folder(lambda folder: fashion_mnist(root=folder / "nowhere", labeled=-1)),
    # Models and averages
    "alpha": lambda: interpolate(net(), net(), 1.5),
    "models of two kinds": lambda: interpolate(net(), net(4), 0.5),
    "backbone": lambda: imagenet_backbone("resnet81"),
    "classes of a backbone": lambda: imagenet_backbone(num_classes=0),
    "folder that is no classifier of texts": lambda: TextClassifier("nowhere", ["art", "sport"]),
    "model's file without a card": lambda: in_folder(
        lambda place: (
            save(net(), place / "net.safetensors"),
            (place / "net.json").unlink(),
            load(place / "net.safetensors"),
        )
    ),
    "model of another": lambda: in_folder(lambda place: load(save(net(), place / "net.safetensors"))),
    "teacher for other classes": lambda: in_folder(
        lambda place: PictureClassifier.named(
            str(save(PictureClassifier(size=8), place / "net.safetensors", {"classes": ["cat", "dog"]})),
            ["cat", "fox"],
            8,
        )
    ),
    # What ships
    "folder that is full": lambda: in_folder(full_folder),
    "no student": lambda: report(FOLDER, {"teacher": Arm(THREE)}, torch.tensor([0, 1]), classes=["a", "b", "c"]),
    "answers to other targets": lambda: report(FOLDER, {"student": Arm(THREE)}, torch.tensor([0]), classes=["a"]),
    "accuracy to reach": lambda: confidence_threshold(THREE, torch.tensor([0, 1]), accuracy=95),
    "card that is no JSON": lambda: exported(
        print, inputs=torch.zeros(2, 4), reader=COLUMNS, card={"data": DATA}, classes=["a", "b"]
    ),
    "card with a threshold": lambda: exported(
        print, inputs=torch.zeros(2, 4), reader=COLUMNS, card={"threshold": "0.4"}, classes=["a", "b"]
    ),
    "exported file that is not there": lambda: exported(lambda export, place: export.load(place / "student.onnx")),
    "folder without an exported file": lambda: exported(lambda export, place: export.load(place)),
    "exported file without a card": lambda: exported(
        lambda export, place: export.load(export.to_onnx(net(), place / "plain.onnx", torch.zeros(2, 4)))
    ),
    "images of another shape": lambda: ImageTransform(8, (0.5,) * 3, (0.5,) * 3)(torch.zeros(28, 28)),
}


def _words_alone():
    made = words()
    made.decoder = pytest.importorskip("tokenizers").decoders.Metaspace()
    return made


class _Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.idle, self.text = nn.Linear(4, 3), nn.Linear(4, 3), nn.Identity()
        self.text.forward = lambda inputs: "text"

    def forward(self, inputs):
        self.text(inputs)
        return self.used(inputs)


class _Words(nn.Module):
    def forward(self, inputs):
        return "logits"


def _unfinished():
    class Unfinished(objectives.Objective):
        name = "unfinished"

    return Unfinished({"part": 1.0})


def _large():
    large = net().requires_grad_(False)
    large.bias.fill_(1e6)
    return large


def _second_derivative(loss):
    student = torch.randn(3, 3, requires_grad=True)
    torch.autograd.grad(loss(student, torch.randn(3, 3)), student, create_graph=True)


def message(case):
    """The error's kind and text, without the names of folders and fingerprints that change."""
    torch.manual_seed(0)
    with pytest.raises(Exception) as caught:
        case()
    text = f"{caught.type.__name__}: {caught.value}"
    text = re.sub(rf"{re.escape(str(FOLDER))}/[\w.-]+", "FOLDER", text)
    text = re.sub(r"\b[0-9a-f]{12}(?:[0-9a-f]{28})?\b", "FINGERPRINT", text)
    # What torch and safetensors say differs from version to version.
    text = re.sub(r"(cannot be read.*?\().*(\); delete)", r"\1REASON\2", text, flags=re.S)
    text = re.sub(r"(holds another model: ).*(Use the)", r"\1REASON. \2", text, flags=re.S)
    return re.sub(r"\s+", " ", text)


def written():
    return "".join(f"{name}\n    {message(case)}\n" for name, case in CASES.items())


def recorded():
    lines = FILE.read_text(encoding="utf-8").splitlines()
    return dict(zip(lines[::2], (line.strip() for line in lines[1::2]), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_every_mistake_is_answered_by_one_clear_sentence(name):
    assert message(CASES[name]) == recorded()[name]


def test_the_file_has_no_other_messages():
    assert list(recorded()) == list(CASES)


def test_defaults_are_those_documented():
    """A default that is changed by accident changes every experiment."""
    defaults = {}
    for module in (losses, objectives, strategies):
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing) and not name.startswith("Weight"):
                signature = inspect.signature(thing)
                given = {key: p.default for key, p in signature.parameters.items() if p.default is not p.empty}
                if given:
                    defaults[name] = given
    assert defaults == {
        "attention_transfer_loss": {"reduction": "mean"},
        "contrastive_loss": {"temperature": 0.07},
        "cosine_loss": {"reduction": "mean"},
        "dkd_loss": {"alpha": 1.0, "beta": 8.0, "temperature": 4.0, "reduction": "mean"},
        "dist_loss": {"inter_weight": 1.0, "intra_weight": 1.0, "temperature": 1.0},
        "hard_target_loss": {"reduction": "mean"},
        "hint_loss": {"reduction": "mean"},
        "jensen_shannon_loss": {"beta": 0.5, "temperature": 1.0, "mask": None, "reduction": "mean"},
        "logit_mse_loss": {"reduction": "mean"},
        "linear_soft_target_loss": {
            "teacher_weight": None, "temperature": 1.0, "divergence": "forward_kl", "beta": 0.5, "mask": None,
            "student_bias": None, "teacher_bias": None, "targets": None, "reduction": "mean",
        },
        "next_bytes": {"mask": None},
        "reverse_kl_loss": {"temperature": 1.0, "mask": None, "reduction": "mean"},
        "soft_target_loss": {"temperature": 4.0, "mask": None, "reduction": "mean"},
        "total_variation_loss": {"temperature": 1.0, "mask": None, "reduction": "mean"},
        "Contrastive": {"temperature": 0.07},
        "DIST": {
            "temperature": 1.0, "inter_weight": 1.0, "intra_weight": 1.0, "kd_weight": 2.0, "ce_weight": 1.0,
            "class_dim": -1,
        },
        "DKD": {
            "alpha": 1.0, "beta": 8.0, "temperature": 4.0, "kd_weight": 1.0, "ce_weight": 1.0, "warmup": 20 / 240,
            "standardize": False, "class_dim": -1,
        },
        "GKD": {
            "teacher": None, "divergence": "forward_kl", "on_policy": 0.5, "prompt": 1, "end": "eos",
            "max_new_tokens": None, "beta": 0.5, "temperature": 1.0, "kd_weight": 1.0, "ce_weight": 0.0,
            "in_blocks": False,
        },
        "HardTargets": {"teacher": None, "kd_weight": 0.9, "ce_weight": 0.1, "class_dim": -1},
        "LwF": {
            "classes": None, "temperature": 2.0, "kd_weight": 1.0, "ce_weight": 1.0, "joint": True, "class_dim": -1,
        },
        "LogitObjective": {"kd_weight": 1.0, "ce_weight": 0.0, "class_dim": -1},
        "LogitMatching": {"kd_weight": 1.0, "ce_weight": 0.0, "multi_label": False, "class_dim": -1},
        "Objective": {"teacher": None, "class_dim": -1, "student_layers": (), "teacher_layers": ()},
        "RKD": {"distance_weight": 25.0, "angle_weight": 50.0},
        "SoftTargets": {
            "teacher": None, "temperature": 4.0, "kd_weight": 0.9, "ce_weight": 0.1, "standardize": False,
            "class_dim": -1,
        },
        "Sum": {"factors": None},
        "Supervised": {
            "label_smoothing": 0.0, "multi_label": False, "weight": None, "loss": None, "class_dim": -1,
        },
        "L2SP": {"head": None, "head_weight": 0.0},
        "BitFit": {"head": None, "weight_decay": 0.01, "decay_all": False},
        "FullFineTuning": {"weight_decay": 0.01, "decay_all": False},
        "GradualUnfreezing": {
            "epochs_per_block": 1, "decay": 1.0, "blocks": None, "weight_decay": 0.01, "decay_all": False,
        },
        "HeadOnly": {"weight_decay": 0.01, "decay_all": False},
        "LayerwiseLRDecay": {"decay": 0.75, "blocks": None, "weight_decay": 0.01, "decay_all": False},
        "LoRA": {
            "r": 8, "alpha": 16.0, "target_modules": None, "head": None, "dropout": 0.0, "merge": True,
            "weight_decay": 0.01, "decay_all": False,
        },
        "Strategy": {"weight_decay": 0.01, "decay_all": False},
    }  # fmt: skip


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
