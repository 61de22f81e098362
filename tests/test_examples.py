"""The four scripts to copy run on small real data, leave what they promise, and refuse bad input with one sentence."""

from __future__ import annotations

import csv
import importlib.util
import json
import socket
import sys
from pathlib import Path

import forked
import pytest
import torch
from PIL import Image
from torch.distributed import run as torchrun

from kdft_lib import models
from kdft_lib.data import TextReader, text_file
from kdft_lib.datasets import BBC_TOPICS, bbc_news, fashion_mnist
from kdft_lib.files import package_folder

pytest.importorskip("onnxruntime")
from kdft_lib import export

ROOT = Path(__file__).parents[1]
SCRIPTS = ("images", "texts", "table", "answers")
LEFT = {"student.safetensors", "student.onnx", "student.md", "metrics.json", "confusion.png", "calibration.png"}
KINDS = {0: "shirt", 1: "trousers", 7: "trainer"}


def script(name):
    path = ROOT / f"examples/{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name, out, **options):
    """As from the command line, without another process; what it leaves."""
    module = script(name)
    given = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    sys.argv = [f"{name}.py", *(part for part in given if part != "True"), "--out", str(out)]
    module.main(module.arguments())
    assert [path for path in out.parent.iterdir() if path.name.startswith(f".{out.name}")] == []
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture(autouse=True)
def _argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """120 photographs of clothes in three folders, as PNG, and a table of most of them with groups of two."""
    place, train = tmp_path_factory.mktemp("photos"), fashion_mnist(labeled=600, seed=0).train
    lowest, highest = train.inputs.min(), train.inputs.max()
    rows = []
    for label, name in KINDS.items():
        (place / name).mkdir()
        for number, row in enumerate((train.targets == label).nonzero().flatten()[:40].tolist()):
            pixels = ((train.inputs[row, 0] - lowest) / (highest - lowest) * 255).to(torch.uint8)
            Image.fromarray(pixels.numpy()).save(place / name / f"{number}.png")
            if number < 12 or name == "trousers":  # Of the table's pictures, most are of trousers.
                rows.append((f"{name}/{number}.png", name, f"{name} {number // 2}"))
    with (place.parent / f"{place.name}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "kind", "shelf"), *rows])
    return place


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    """The first 30 words of 100 BBC stories: a CSV, the same in JSON lines with half of the labels."""
    place, train = tmp_path_factory.mktemp("stories"), bbc_news(100, seed=0).train
    rows = [(" ".join(t.split()[:30]), BBC_TOPICS[y]) for t, y in zip(train.texts, train.targets.tolist(), strict=True)]
    with (place / "news.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("story", "topic"), *rows])
    lines = [{"id": n, "text": text} | ({"label": topic} if n % 2 else {}) for n, (text, topic) in enumerate(rows)]
    (place / "news.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, says in (
        ("decided", lambda topic: {"answer": topic}),
        ("few", lambda topic: {"probabilities": {topic: 0.8, BBC_TOPICS[BBC_TOPICS.index(topic) - 1]: 0.1}}),
    ):
        said = [{"id": n} | says(topic) for n, (_, topic) in enumerate(rows) if name == "few" or n % 10]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in said))
    return place


@pytest.fixture(scope="module")
def penguins():
    """344 penguins of three species: words, numbers, and gaps in both."""
    return package_folder("palmerpenguins", "palmerpenguins", "test") / "data/penguins.csv"


@pytest.fixture(scope="module")
def taught(photos, tmp_path_factory):
    """A teacher in a file, as models.save writes it."""
    torch.manual_seed(1)
    card = {"classes": sorted(KINDS.values()), "weights begin as": "random weights"}
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    return models.save(models.PictureClassifier("convnet", 3, 28), path, card)


def test_photographs(photos, taught, tmp_path):
    options = {"data": photos, "labels": 30, "teacher": taught, "size": 28, "steps": 12}
    found = run("images", tmp_path / "out", **options)
    assert {path.name for path in (tmp_path / "out").iterdir()} == LEFT
    arms = ["student", "student on labels alone", "teacher", "SVM on pixels", "most frequent class"]
    assert [*found["test"]] == [*found["ledger"]] == arms
    assert found["counts"] == {"train": 30, "transfer": 42, "val": 24, "test": 24}
    assert found["ledger"]["student"]["unlabeled"] == 42
    assert found["test"]["SVM on pixels"]["accuracy"] > 0.8
    assert found["settings"]["steps"] == 12

    shipped = export.load(tmp_path / "out")
    assert shipped.classes == ("shirt", "trainer", "trousers")
    (answer,) = shipped.predict([photos / "shirt/0.png"], threshold=1.0)
    assert answer.label == export.NOT_SURE
    (sure,) = shipped.predict([Image.open(photos / "shirt/0.png")], threshold=0.0)
    assert sure.label == sure.best == answer.best
    student = models.load(tmp_path / "out/student.safetensors").eval()
    assert student.card == shipped.card
    with torch.no_grad():
        ours = student(shipped.reader([photos / "shirt/0.png"])).softmax(1).max().item()
    assert ours == pytest.approx(sure.probability, abs=1e-5)

    assert str(tmp_path) not in (tmp_path / "out/student.md").read_text()


def test_photographs_that_a_table_names_and_weights_of_unstated_licence(photos, tmp_path, monkeypatch):
    from test_recipes import lite0_once

    from kdft_lib.models import pretrained

    monkeypatch.setattr(pretrained, "_lite0", lite0_once)
    columns = {"path_column": "path", "label_column": "kind", "group_column": "shelf"}
    module = script("images")
    monkeypatch.setattr(module, "min", lambda *_: 3, raising=False)
    monkeypatch.setitem(globals(), "script", lambda _: module)
    found = run("images", tmp_path / "out", data=photos, csv=f"{photos}.csv", **columns, labels=12, size=28, steps=3)
    assert sum(found["counts"].values()) == 64
    assert found["test"]["most frequent class"]["accuracy"] > 0.5, "of the labels, four are of each class"
    assert "whose licence is not stated" in (tmp_path / "out/student.md").read_text()
    assert "whose licence is not stated" in found["ledger"]["student"]["pretraining"]


def test_texts(stories, tmp_path):
    columns = {"text_column": "story", "label_column": "topic"}
    found = run("texts", tmp_path / "out", data=stories / "news.csv", **columns, labels=25, steps=40)
    assert {path.name for path in (tmp_path / "out").iterdir()} == LEFT | {"tokenizer.json"}
    assert found["test"]["teacher"]["accuracy"] > 0.6
    assert found["ledger"]["student"]["teacher_labels"] == 25
    texts = ["Shares fell", "zebra"]
    assert [answer.best in BBC_TOPICS for answer in export.load(tmp_path / "out").predict(texts)] == [True, True]


def test_texts_with_folders_of_hugging_face(stories, tmp_path):
    transformers = pytest.importorskip("transformers")
    with (stories / "news.csv").open() as file:
        reader = TextReader.of_words([row["story"] for row in csv.DictReader(file)])
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=reader.size, max_position_embeddings=64, **sizes)
    config.id2label = dict(enumerate(sorted(BBC_TOPICS)))
    transformers.BertForSequenceClassification(config).bfloat16().save_pretrained(tmp_path / "bert")
    reader.tokenizer.save(str(tmp_path / "bert/tokenizer.json"))
    read = models.TextClassifier(tmp_path / "bert", sorted(BBC_TOPICS))
    assert {parameter.dtype for parameter in read.parameters()} == {torch.float32}, (
        "small steps would be lost in 16 bits"
    )
    places = {"teacher": tmp_path / "bert", "student": tmp_path / "bert"}
    columns = {"text_column": "story", "label_column": "topic"}
    found = run("texts", tmp_path / "out", data=stories / "news.csv", **columns, steps=3, **places)
    assert found["ledger"]["teacher"]["steps"] == 0, "it has these classes already"
    shipped = export.load(tmp_path / "out")
    assert shipped.card["checked"]["largest gap"] < 1e-4
    assert len(shipped.predict(["shares", "a goal in the last minute of the match"])) == 2


def test_a_table_with_words_and_gaps(penguins, tmp_path):
    given = {"data": penguins, "target": "body_mass_g", "leave_out": "year"}
    found = run("table", tmp_path / "out", **given, regression=True, steps=200)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"errors.png", "columns.json"}
    assert found["counts"]["transfer"] == 2, "two were not weighed"
    assert found["test"]["student"]["bytes"] < found["test"]["teacher"]["bytes"] / 4
    assert found["test"]["student"]["R²"] > 0.7
    shipped = export.load(tmp_path / "out")
    (answer,) = shipped.predict([of_nowhere(shipped)])
    assert 2500 < answer < 6500
    assert "year" not in shipped.reader.numbers


def of_nowhere(shipped):
    """A row of an island that was not there, with gaps in all columns but two."""
    return dict.fromkeys([*shipped.reader.numbers, *shipped.reader.words]) | {"island": "Atlantis", "year": 2008}


@pytest.mark.slow
def test_two_processes_leave_one_folder(forks, penguins, tmp_path, tmp_path_factory):
    """As ``torchrun`` would start them, from a process that has loaded what takes long."""
    assert forks.get_start_method() == "forkserver"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    logs, options = tmp_path_factory.mktemp("logs"), ["--target", "species", "--steps", 100, "--out", tmp_path / "out"]
    script = [*map(str, [ROOT / "examples/table.py", "--data", penguins, *options])]
    launcher = ["--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", port]
    launcher += ["--redirects", "3", "--log-dir", str(logs)]
    config, *_ = torchrun.config_from_args(torchrun.parse_args([*launcher, *script]))
    config.start_method = "forkserver"
    torchrun.elastic_launch(config, forked.run)(script[0], script[1:], {"TQDM_DISABLE": "1"})
    said = [path.read_text() for path in logs.rglob("stdout.log")]
    assert len(said) == 2
    assert "".join(said).count("student.onnx") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == LEFT | {"columns.json"}
    found = json.loads((tmp_path / "out/metrics.json").read_text())
    assert found["test"]["student"]["accuracy"] > 0.95
    shipped = export.load(tmp_path / "out")
    (answer,) = shipped.predict([of_nowhere(shipped)])
    assert answer.best in shipped.classes == ("Adelie", "Chinstrap", "Gentoo")


def test_answers_from_elsewhere(stories, tmp_path):
    made = {}
    for said, more in (("decided", 40), ("few", 50)):
        out = tmp_path / said
        found = run("answers", out, data=stories / "news.jsonl", answers=stories / f"{said}.jsonl", steps=30)
        assert found["test"].get("teacher", {"accuracy": 1})["accuracy"] == 1
        assert found["ledger"]["student"]["teacher_labels"] is None
        assert found["ledger"]["student"]["unlabeled"] == more
        alone = found["test"]["student on labels alone"]
        made[said] = {name: score for name, score in alone.items() if name != "milliseconds"}
    assert made["decided"] == made["few"], "what does not depend on the answers is the same each time"


def test_classes_may_be_numbers(tmp_path):
    texts = [{"id": n, "text": "a b c"} | ({"label": n % 3} if n % 4 else {}) for n in range(40)]
    for name, rows in (("texts", texts), ("said", [{"id": n, "answer": n % 3} for n in range(40)])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ids = [*map(str, range(40))]
    assert script("answers").answers_by_id(tmp_path / "said.jsonl", ids, ("0", "1", "2"))["4"] == "1"
    assert text_file(tmp_path / "texts.jsonl", "text", "label").classes == ("0", "1", "2")


def test_bad_input_is_one_sentence_and_nothing_is_written(photos, stories, penguins, tmp_path, monkeypatch):
    monkeypatch.setattr("kdft_lib.training.fit", None)  # Nothing is trained before it is told.

    def refused(name, message, **options):
        with pytest.raises((ValueError, OSError)) as caught:
            run(name, tmp_path / "out", **options)
        said = (
            str(caught.value)
            .replace(str(penguins), "penguins.csv")
            .replace(str(stories), "…")
            .replace(str(tmp_path), "…")
        )
        assert said == message
        assert [path.name for path in tmp_path.iterdir()] in ([], ["other.jsonl"], ["few.csv"])

    refused("images", "nowhere does not exist, or is no folder; name one with a folder for each class", data="nowhere")
    refused(
        "images", "name is 'frobnicate', which is no network here; choose efficientnet_lite0, or what"
        " torchvision.models.list_models() names", data=photos, size=28, teacher="frobnicate",
    )  # fmt: skip
    refused("texts", "…/news.csv has no column 'text'; its columns are 'story', 'topic'", data=stories / "news.csv")
    refused(
        "texts", "nowhere has no config.json; name a folder that save_pretrained wrote, with its tokenizer",
        data=stories / "news.csv", text_column="story", label_column="topic", student="nowhere",
    )  # fmt: skip
    refused(
        "table",
        "penguins.csv has no column 'kind'; its columns are 'species', 'island', 'bill_length_mm', 'bill_depth_mm',"
        " 'flipper_length_mm', 'body_mass_g', 'sex', 'year'", data=penguins, target="kind",
    )  # fmt: skip
    refused(
        "table", "column 'island' holds 'Torgersen' in row 1, which is no number; mend it, or leave it empty",
        data=penguins, target="island", regression=True,
    )  # fmt: skip
    refused(
        "texts", "nowhere has no config.json; name a folder that save_pretrained wrote, with its tokenizer",
        data=stories / "news.csv", text_column="story", label_column="topic", teacher="nowhere",
    )  # fmt: skip
    (tmp_path / "few.csv").write_text("age,came\n" + "1,yes\n2,no\n" * 30)
    refused(
        "table", "…/few.csv has 36 rows to learn from; 40 or more are needed, since a leaf of the forest's trees has"
        " 20: give more, or take LogisticRegression or Ridge alone", data=tmp_path / "few.csv", target="came",
    )  # fmt: skip
    (tmp_path / "few.csv").unlink()
    (tmp_path / "other.jsonl").write_text('{"id": 1, "answer": "sport"}\n{"id": 777, "answer": "sport"}\n')
    refused(
        "answers", "line 2 of …/other.jsonl has the id '777' and no text has it; each line answers one text",
        data=stories / "news.jsonl", answers=tmp_path / "other.jsonl",
    )  # fmt: skip
    (tmp_path / "other.jsonl").write_text('{"id": 1, "answer": "weather"}\n')
    refused(
        "answers", "line 1 of …/other.jsonl names 'weather', which is no class; there are business, entertainment,"
        " politics, sport, tech", data=stories / "news.jsonl", answers=tmp_path / "other.jsonl",
    )  # fmt: skip
    said = {"id": 1, "probabilities": {"sport": 0.8, "tech": 0.7}}
    (tmp_path / "other.jsonl").write_text(f'{{"id": 0, "answer": "tech"}}\n{json.dumps(said)}\n')
    refused(
        "answers", "line 2 of …/other.jsonl has probabilities whose sum is 1.5; it must be above 0, and 1 at most",
        data=stories / "news.jsonl", answers=tmp_path / "other.jsonl",
    )  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_a_page_and_says_what_it_takes(name, monkeypatch, capsys):
    path = ROOT / f"examples/{name}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 120
    monkeypatch.setattr(sys, "argv", [path.name, "--help"])
    with pytest.raises(SystemExit):
        script(name).arguments()
    said = capsys.readouterr().out
    assert "--out" in said
    assert f"python examples/{name}.py" in said
    assert {found.stem for found in (ROOT / "examples").glob("*.py")} == {*SCRIPTS}
