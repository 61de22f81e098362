"""The page on a reader's own data runs: its files are made, its commands leave what it says, its snippets train."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("onnxruntime")
transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "figures"))

import your_data  # noqa: E402

SECTIONS = ("A `Dataset`, or a `DataLoader`", "Lightning", "timm", "Hugging Face: `datasets` and Trainer")


def fewer(heading, blocks=your_data.blocks):
    """A section's code, with a quarter of the stories: what is tested is that it runs."""
    return [re.sub(r"\b600\b", "150", code) for code in blocks(heading)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the files of the page, in which we are."""
    folder = tmp_path_factory.mktemp("reader")
    with contextlib.chdir(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(your_data, "blocks", fewer)
            your_data.make_data()
        yield folder


@pytest.fixture(autouse=True)
def _argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["images", "texts", "table", "answers"])
def test_the_commands_print_what_the_page_shows(place, name):
    """Its rows and columns; the numbers are those of full length."""
    more = ["--steps", "3", *(["--teacher", "convnet"] if name == "images" else [])]
    found = your_data.printed(name, more).splitlines()
    shown = (your_data.PRINTED / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    assert found[0].split() == shown[0].split()
    assert [re.split(r"  ", line)[0] for line in found[1:-1]] == [re.split(r"  ", line)[0] for line in shown[1:-1]]
    assert found[-1].split(" of ")[0].startswith("Above a confidence")
    left = {path.name for path in Path(your_data.commands()[name][-1]).iterdir()}
    named = set(re.findall(r"`([\w.]+\.\w+)`", your_data.PAGE.read_text(encoding="utf-8").split("lies there")[1]))
    assert left <= named


def smaller(code):
    """The same with two steps, since what is tested is that it runs."""
    return re.sub(r"(steps=)\d+", r"\g<1>2", code)


@pytest.fixture
def names(place, monkeypatch):
    """What stands at the start of the section; small models in place of what would be downloaded."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **more: create(name, **more))
    names = {}
    (begin,) = your_data.blocks("The same in your own tools")
    exec(compile(begin, "begin", "exec"), names)
    return names


def of_hugging_face():
    """A teacher and a student with one tokenizer, as ``save_pretrained`` leaves them."""
    from kdft_lib.data import TextReader

    words = TextReader.of_words(Path("news.csv").read_text(encoding="utf-8").splitlines()).tokenizer
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", model_max_length=64)
    for name, layers in (("teacher", 2), ("student", 1)):
        sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": layers}
        config = transformers.BertConfig(vocab_size=len(tokenizer), num_labels=5, **sizes)
        transformers.BertForSequenceClassification(config).save_pretrained(name)
        tokenizer.save_pretrained(name)


def run(sections, names):
    for section in sections:
        for number, code in enumerate(your_data.blocks(section)):
            exec(compile(smaller(code), f"{section}, {number}", "exec"), names)


@pytest.mark.slow
def test_a_dataset_then_lightning(names):
    pytest.importorskip("torchvision")
    run(SECTIONS[:1], names)
    assert not any(module.training for module in names["teacher"].modules())
    pytest.importorskip("lightning")
    before = [each.clone() for each in names["teacher"].state_dict().values()]
    run(SECTIONS[1:2], names)
    assert all(map(torch.equal, before, names["teacher"].state_dict().values())), "the teacher stays as it is"
    assert not any("teacher" in name for name in names["pair"].state_dict())
    assert names["trainer"].global_step == 2


@pytest.mark.slow
def test_timm(names):
    from torchvision.datasets import ImageFolder

    names["ImageFolder"] = ImageFolder
    run(SECTIONS[2:3], names)
    means = {tuple(names[who].pretrained_cfg["mean"]) for who in ("teacher", "student")}
    assert len(means) == 1, "the page says that both want the same"


@pytest.mark.slow
def test_hugging_face(names, monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    of_hugging_face()
    before = [each.clone() for each in transformers.AutoModel.from_pretrained("teacher").state_dict().values()]
    start = transformers.AutoModel.from_pretrained("student").state_dict()
    run(SECTIONS[3:], names)
    after = names["teacher"].bert.state_dict().values()
    assert all(map(torch.equal, before, after)), "the teacher stays as it is"
    assert names["trainer"].state.global_step == 2
    moved = names["student"].bert.state_dict()
    assert any(not torch.equal(start[key].cpu(), moved[key].cpu()) for key in start)


def test_what_runs_is_all_that_the_page_shows():
    shown = re.findall(r"```python\n(.*?)```", your_data.PAGE.read_text(encoding="utf-8"), flags=re.S)
    headings = ("Something to try it on", "Answers from elsewhere", "The same in your own tools", *SECTIONS)
    assert sorted(shown) == sorted(code for heading in headings for code in your_data.blocks(heading))
    assert [*your_data.commands()] == ["images", "texts", "table", "answers"]
    for name in your_data.commands():
        assert f"your-data/{name}.txt" in your_data.PAGE.read_text(encoding="utf-8")
