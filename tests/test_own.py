"""A reader's own data, and what is made to ship: split, read, answered in names, reported, exported and asked again."""

from __future__ import annotations

import importlib
import json
import sys
import warnings

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn

from kdft_lib import models
from kdft_lib.answers import compress
from kdft_lib.data import (
    Columns,
    PictureReader,
    TensorData,
    TextReader,
    draw_parts,
    folder,
    read_rows,
    table,
)
from kdft_lib.experiments import Arm, output_folder, report
from kdft_lib.metrics import confidence_threshold
from kdft_lib.models import PictureClassifier
from kdft_lib.objectives import SoftTargets
from kdft_lib.teachers import named_answers


def test_parts_share_no_row_and_have_each_class_in_its_share():
    targets = torch.tensor([0] * 70 + [1] * 25 + [2] * 5 + [-100] * 10)
    train, transfer, val, test = draw_parts(targets, labeled=12, seed=3)
    assert sorted(torch.cat([train, transfer, val, test]).tolist()) == list(range(110))
    assert targets[test].bincount().tolist() == targets[val].bincount().tolist() == [14, 5, 1]
    assert targets[train].bincount().tolist() == [5, 4, 3]
    assert (targets[transfer] == -100).sum() == 10
    other = draw_parts(targets, labeled=12, seed=4)
    assert other[2].equal(val)
    assert other[3].equal(test)
    assert not other[0].equal(train)


def test_groups_without_a_label_are_all_to_transfer_by():
    targets = torch.cat([torch.arange(100) % 3, torch.full((1000,), -100)])
    groups = torch.cat([torch.arange(100) // 10, 10 + torch.arange(1000) // 10])
    assert (targets[draw_parts(targets, groups=groups.numpy())[1]] == -100).sum() == 1000


@pytest.mark.parametrize("numbers", [False, True], ids=["classes", "numbers"])
def test_no_group_is_on_two_sides(numbers):
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 25, 400)
    targets = torch.from_numpy(draw.integers(0, 3, 400))
    targets[draw.random(400) < 0.2] = -100
    if numbers:
        targets = targets.double().masked_fill(targets == -100, torch.nan)
    parts = draw_parts(targets, groups=groups, labeled=60)
    learned, val, test = ({*groups[rows]} for rows in (torch.cat(parts[:2]), *parts[2:]))
    assert not learned & val
    assert not learned & test
    assert not val & test
    assert 40 < len(parts[2]) < 90
    assert 40 < len(parts[3]) < 90
    assert len(parts[0]) == 60


def test_columns_are_what_scikit_learn_makes_of_them():
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rows = pandas.DataFrame(
        {"age": [31.0, None, 52.0, 8.0, 27.5], "port": ["Rome", "Oslo", None, "Oslo", "Rome"], "size": [1, 2, 3, 4, 7]}
    )
    new = pandas.DataFrame({"size": [9], "port": ["Lima"], "age": [None]})
    words = make_pipeline(SimpleImputer(strategy="constant", fill_value=""), OneHotEncoder(handle_unknown="ignore"))
    theirs = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["age", "size"]),
            ("words", words, ["port"]),
        ],
        sparse_threshold=0,
    ).fit(rows)
    ours = Columns.of(rows)
    for given in (rows, new):
        found = ours(given)
        gaps = found[:, ours.inputs.index("age is missing")]
        assert gaps.tolist() == given["age"].isna().tolist()
        others = [place for place, name in enumerate(ours.inputs) if name != "age is missing"]
        torch.testing.assert_close(found[:, others], torch.from_numpy(theirs.transform(given)).float())
    again = Columns(**json.loads(json.dumps(ours.settings())))
    assert again([{"size": 9, "port": "Lima", "age": None}]).equal(ours(new))


def test_pictures_are_read_as_a_person_sees_them(tmp_path):
    upright = np.zeros((40, 20, 3), dtype=np.uint8)
    upright[:20] = 200
    Image.fromarray(upright).save(tmp_path / "plain.png")
    turned = Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(np.full((9, 9), 51400, dtype=np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(upright).convert("P").save(tmp_path / "palette.png")
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    plain, rotated, deep, palette, clear = PictureReader(16)(
        [tmp_path / f"{n}.png" for n in ("plain", "turned", "deep", "palette", "clear")]
    )
    assert (clear == 255).all(), "behind what is transparent there is paper"
    assert (plain[:, :7] == 200).all()
    assert (plain[:, 9:] == 0).all()
    assert (rotated.int() - plain.int()).abs().max() <= 1
    assert (deep == 200).all()
    assert (palette.int() - plain.int()).abs().max() < 15, "a palette has the nearest of its colours"
    with Image.open(tmp_path / "turned.png") as opened:
        assert PictureReader(16)([opened])[0].equal(rotated)
    for given in (np.zeros((4, 4, 3)), torch.zeros(3, 4, 4), None):
        with pytest.raises(ValueError, match=r"a picture is a .*; give a path, a PIL image, or a NumPy array of uint8"):
            PictureReader(16)([given])


def test_tables_are_read_whatever_wrote_them(tmp_path):
    (tmp_path / "bom.csv").write_bytes('﻿text,label\n"a, b",NA\n'.encode())
    assert read_rows(tmp_path / "bom.csv", ["text", "label"]).to_dict("records") == [{"text": "a, b", "label": "NA"}]
    lines = [{"text": "a\u2028b", "label": 3}, {"text": "c"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    rows = read_rows(tmp_path / "rows.jsonl", ["label"])
    assert rows["text"].tolist() == ["a\u2028b", "c"]
    assert str(rows["label"][0]) == "3", "not 3.0 because another row has none"
    (tmp_path / "codes.csv").write_text("a,code\n" + "1,7\n2,\n3,8\n" * 9)
    own = table(tmp_path / "codes.csv", "code")
    assert own.classes == ("7", "8")
    assert own.counts["transfer"] == 9
    assert len(read_rows((tmp_path / "codes.csv").rename(tmp_path / "CODES.CSV"))) == 27


def test_a_code_is_the_same_word_read_as_a_number_or_not(tmp_path):
    many = tmp_path / "many.csv"
    few = "\n".join(["0," * 63 + "0", "1," * 63 + "1", "," * 63]) + "\n"
    many.write_text(",".join(f"c{i}" for i in range(64)) + "\n" + few * 7000 + "B," * 63 + "B\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_rows(many, gaps=True)
    assert {*read["c0"].dropna()} == {"0", "1", "B"}
    columns = Columns.of(pandas.DataFrame({"code": ["0", "1", "A", "1"]}))
    assert columns(pandas.DataFrame({"code": [1.0, None]})).equal(columns(pandas.DataFrame({"code": ["1", None]})))


def test_a_column_is_left_out_by_name(tmp_path):
    (tmp_path / "people.csv").write_text(
        "id,name,age,came\n" + "".join(f"{n},N. {n},{n % 7},{'yes' if n % 2 else 'no'}\n" for n in range(400))
    )
    with pytest.raises(ValueError, match="column 'name' has 240 different values in 240 rows"):
        table(tmp_path / "people.csv", "came", leave_out=["id"])
    own = table(tmp_path / "people.csv", "came", leave_out=["id", "name"])
    assert own.reader.inputs == ["age"]
    assert own.splits.train.inputs.shape == (240, 1)
    assert len(own.reader(read_rows(tmp_path / "people.csv", gaps=True))) == 400, "later rows may have them"
    with pytest.raises(ValueError, match=r"people\.csv has no column 'ids'; its columns are 'id', 'name'"):
        table(tmp_path / "people.csv", "came", leave_out=["ids"])


def test_a_text_of_no_known_word_has_an_answer():
    reader = TextReader.of_words(["a goal", "a goal"])
    assert reader([""]).tolist() == [[0]]
    assert reader(["zebra"]).tolist() == [[1]]
    assert models.WordBag(reader.size, 2)(reader(["", "zebra"])).isfinite().all()


def test_answers_in_names_are_what_compress_keeps():
    probabilities = torch.tensor([[0.6, 0.3, 0.08, 0.02], [0.1, 0.2, 0.3, 0.4]])
    names = ("a", "b", "c", "d")
    said = [{names[place]: np.float32(row[place]) for place in row.topk(2).indices} for row in probabilities]
    data = TensorData(torch.randn(2, 5))
    ours = named_answers(data, said, names, source="an API").teacher_logits
    theirs = compress(probabilities.log(), 2, rest="bucket")
    for key in ("values", "indices", "classes", "bucket"):
        torch.testing.assert_close(ours[key], theirs[key])
    net = nn.Linear(5, 4)
    batch = {"inputs": data.inputs, "teacher_logits": ours}
    assert SoftTargets(temperature=1.0, ce_weight=0.0)(net, batch)["loss"].isfinite()


def test_the_threshold_is_the_lowest_that_is_enough():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(500, 4, generator=generator)
    targets = torch.where(torch.rand(500, generator=generator) < 0.7, logits.argmax(1), torch.tensor(0))
    found = confidence_threshold(logits, targets, accuracy=0.8)
    confidence, decided = logits.double().softmax(1).max(1)
    right = decided == targets
    assert right[confidence > found].double().mean() >= 0.8
    lower = confidence[confidence <= found].sort(descending=True).values
    assert all(right[confidence >= each].double().mean() < 0.8 for each in lower[1:])
    assert confidence_threshold(logits, logits.argmax(1)) == 0
    assert confidence_threshold(logits, logits.argmin(1)) == 1
    same = torch.tensor([[1.0, 0.0]] * 4)
    assert confidence_threshold(same, torch.tensor([0, 0, 0, 1]), accuracy=0.9) == 1


def test_nothing_is_left_of_what_broke_off(tmp_path):
    def broken():
        with output_folder(tmp_path / "out") as place:
            (place / "half").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert not [*tmp_path.iterdir()]
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    with (
        pytest.raises(ValueError, match="has something in it already; name a new folder"),
        output_folder(tmp_path / "full"),
    ):
        pass


def test_scores_are_those_of_scikit_learn(tmp_path):
    from sklearn.metrics import f1_score, r2_score

    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(200, 3, generator=generator), torch.randint(0, 3, (200,), generator=generator)
    found = report(tmp_path, {"student": Arm(logits), "teacher": Arm(logits)}, targets, classes=["a", "b", "c"])
    assert found["test"]["student"]["macro F1"] == pytest.approx(
        f1_score(targets, logits.argmax(1), average="macro"), abs=1e-4
    )
    assert found["agreement with the teacher"] == 1
    assert json.loads((tmp_path / "metrics.json").read_text()) == found
    numbers, near = torch.randn(200, 1, generator=generator), torch.randn(200, 1, generator=generator)
    found = report(tmp_path, {"student": Arm(near)}, numbers)
    assert found["test"]["student"]["R²"] == pytest.approx(r2_score(numbers, near), abs=1e-4)
    assert (tmp_path / "errors.png").exists()


class _ByRows(nn.Module):
    """Answers by how many rows there are when it is exported."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(192, 2)

    def forward(self, pictures):
        rows = pictures.float().flatten(1)
        return self.layer(rows - (rows.mean(0) if not torch.compiler.is_compiling() else 0))


def test_a_file_that_answers_otherwise_is_refused(tmp_path):
    export = _export()
    pictures = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"student\.onnx answers otherwise than PyTorch: a logit differs by"):
        export.write(_ByRows(), tmp_path, reader=PictureReader(8), examples=pictures, classes=["a", "b"])
    assert not [*tmp_path.iterdir()]


def test_a_file_tells_what_it_is_and_what_it_needs(tmp_path):
    export = _export()
    with pytest.raises(FileNotFoundError, match="does not exist; export"):
        export.load(tmp_path / "none.onnx")
    with pytest.raises(ValueError, match="has 0 files that end in"):
        export.load(tmp_path)
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match="is no ONNX file that onnxruntime can read"):
        export.load(tmp_path / "broken.onnx")
    export.to_onnx(nn.Linear(3, 2), tmp_path / "plain.onnx", torch.zeros(2, 3))
    with pytest.raises(ValueError, match="has no card that says how its inputs are read"):
        export.load(tmp_path / "plain.onnx")
    columns = Columns({"age": {"gap": 1.0, "mean": 0.0, "std": 2.0, "had_gaps": True}}, {"port": ["", "Oslo"]})
    rows = columns([{"age": 3, "port": "Oslo"}, {"age": None, "port": ""}])
    net = models.MLP(4, 1, width=4, mean=10.0, std=3.0)
    shipped = export.write(net, tmp_path / "out", reader=columns, examples=rows)
    with torch.no_grad():
        assert shipped.predict(pandas.DataFrame({"age": [3], "port": ["Oslo"]})) == pytest.approx(
            [net(rows)[0].item()], rel=1e-5
        )
    (tmp_path / "out/columns.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"it was written beside student\.onnx, which needs it"):
        export.load(tmp_path / "out")


def test_a_file_of_texts_is_asked_about_its_texts(tmp_path, monkeypatch, capsys):
    export = _export()
    reader = TextReader.of_words(["a goal", "a goal"])
    net = models.WordBag(reader.size, 2)
    export.write(net, tmp_path / "out", reader=reader, examples=reader(["a goal"] * 2), classes=["art", "sport"])
    (tmp_path / "news.csv").write_text('id,text,story\n7,"a goal,\nlate",a\n8,NA,\n')
    (tmp_path / "news.jsonl").write_text('{"story": "a"}\n')
    (tmp_path / "news.txt").write_text("a goal\n\na song\n")
    (tmp_path / "photo.jpg").write_bytes(b"")
    monkeypatch.chdir(tmp_path)

    def asked(*given):
        monkeypatch.setattr(sys, "argv", ["kdft_lib.export", "out", *given])
        importlib.import_module("kdft_lib.export.__main__").main()
        return [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]

    assert asked("news.csv") == ["a goal, late", "NA"]
    assert asked("news.txt", "a goal", "no goal " * 99) == ["a goal", "a song", "a goal", ("no goal " * 99)[:60]]
    assert asked("--text-column", "story", "news.jsonl") == ["a"]
    with pytest.raises(ValueError, match=r"row 2 of news\.csv has no text in 'story'; leave the row out"):
        asked("--text-column", "story", "news.csv")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv does not exist"):
        asked("nowhere.csv")
    with pytest.raises(ValueError, match=r"photo\.jpg is a file, and the network reads texts; give a table of them \("):
        asked("photo.jpg")


def test_weights_of_timm_are_named_or_random():
    net = PictureClassifier("timm:mobilenetv2_035", 3, 32)
    assert net(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 3)
    assert net.origin == "random weights"
    with pytest.raises(
        ValueError, match=r"name is 'timm:mobilenetv2_O35', which is no network of timm; choose among mob"
    ):
        PictureClassifier("timm:mobilenetv2_O35")


def test_a_network_is_made_again_from_its_file_alone(tmp_path):
    for net in (PictureClassifier("convnet", 3, 32, width=4), models.WordBag(9, 3), models.MLP(4, 1, mean=2.0)):
        path = models.save(net, tmp_path / "net.safetensors", {"classes": ["a", "b", "c"]}, inside=True)
        again = models.load(path)
        assert again.card["classes"] == ["a", "b", "c"]
        assert all(
            one.equal(two) for one, two in zip(net.state_dict().values(), again.state_dict().values(), strict=True)
        )
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]


def _export():
    pytest.importorskip("onnxruntime")
    from kdft_lib import export

    return export


def test_what_file_managers_leave_is_no_picture(tmp_path):
    for number in range(20):
        path = tmp_path / "ab"[number % 2] / "deeper" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9), 10 * number).save(path)
    for name in ("a/.DS_Store", "b/deeper/Thumbs.db"):
        (tmp_path / name).write_bytes(b"litter")
    assert folder(tmp_path, size=8).counts == {"train": 12, "transfer": 0, "val": 4, "test": 4}


def test_pictures_that_have_a_label_are_not_also_those_without(tmp_path):
    for number in range(20):
        Image.new("L", (9, 9), 10 * number).save(tmp_path / f"{number}.png")
    rows = "".join(f"{number}.png,{'ab'[number % 2]}\n" for number in range(10))
    (tmp_path / ".rows.csv").write_text(f"path,kind\n{rows}")
    columns = {"csv": tmp_path / ".rows.csv", "path_column": "path", "label_column": "kind"}
    own = folder(tmp_path, **columns, unlabeled=tmp_path, size=8)
    assert own.counts == {"train": 6, "transfer": 10, "val": 2, "test": 2}


@pytest.mark.parametrize("kind", ["pictures", "words", "tokens", "rows", "numbers"])
def test_a_card_says_how_its_file_is_asked_without_pytorch(kind, tmp_path, monkeypatch, capsys):
    export, classes = _export(), ["no", "yes"]
    draw = np.random.default_rng(0)
    if kind == "pictures":
        made, reader, raw = PictureClassifier("convnet", 2, 8, width=4), PictureReader(8), [tmp_path / "photo.jpg"] * 2
        Image.fromarray(draw.integers(0, 256, (50, 40, 3), dtype=np.uint8)).save(raw[0])
    elif kind in ("words", "tokens"):
        reader, raw = TextReader.of_words(["a text", "a text"]), ["a text"] * 2
        made = models.WordBag(reader.size, 2)
        if kind == "tokens":
            reader, made = TextReader(reader.tokenizer), _Masked(made)
    else:
        rows = pandas.DataFrame({"age": [1.0, None, 6.0], "port": ["Rome", "Oslo", None]})
        reader, raw = Columns.of(rows), [{"age": 2.0, "port": "Oslo"}, {}]
        made, classes = models.MLP(5, 2 if kind == "rows" else 1), classes if kind == "rows" else []
    shipped = export.write(made, tmp_path, reader=reader, examples=reader(raw), classes=classes)
    (told,) = shipped.predict(raw[:1], threshold=0.0)
    alone = (tmp_path / "student.md").read_text().split("Without PyTorch")[1].split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(alone.replace("row, inputs = {}", f"row, inputs = {raw[0]}"), {})
    said = capsys.readouterr().out.split()
    if classes:
        assert said[0] == told.label
    assert float(said[-1]) == pytest.approx(told.probability if classes else told, abs=1e-5)


class _Masked(nn.Module):
    """A network as those of Hugging Face are called."""

    def __init__(self, words):
        super().__init__()
        self.words = words

    def forward(self, input_ids, attention_mask):
        return self.words(input_ids * attention_mask)


def test_a_column_of_equal_numbers_is_left_as_it_is():
    rows = pandas.DataFrame({"a": [0.1] * 3, "b": [1.0, 2.0, 4.0]})
    reader = Columns.of(rows)
    new = reader(pandas.DataFrame({"a": [0.3], "b": [2.0]}))
    assert new.abs().max() < 2


def test_a_folder_without_labels_among_the_classes_is_none(tmp_path):
    for place, count in (("cat", 6), ("dog", 6), ("unlabeled", 4)):
        (tmp_path / place).mkdir()
        for number in range(count):
            shade = 10 * number + {"cat": 0, "dog": 80, "unlabeled": 160}[place]
            Image.new("L", (8, 8), shade).save(tmp_path / place / f"{number}.png")
    own = folder(tmp_path, unlabeled=tmp_path / "unlabeled", size=8)
    assert own.classes == ("cat", "dog")
    assert len(own.splits.transfer) == 4


def test_fields_too_many_are_named(tmp_path):
    (tmp_path / "said.csv").write_text("text,label\nHello, world,pos\nBye, now,neg\n")
    with pytest.raises(ValueError, match="rows have more fields than the header"):
        read_rows(tmp_path / "said.csv", ["text", "label"])


def test_an_estimators_classes_are_where_their_numbers_say():
    inputs, targets = np.array([[0.0], [1.0]] * 10), np.array([0, 2] * 10)
    arm = Arm.of(LogisticRegression(C=100.0).fit(inputs, targets), inputs)
    assert arm.answers.shape == (20, 3)
    assert arm.answers.argmax(-1).tolist() == targets.tolist()


def test_decisions_have_no_confidence(tmp_path):
    made = report(tmp_path, {"student": Arm(torch.tensor([0, 1, 1]))}, torch.tensor([0, 1, 0]), classes=["a", "b"])
    assert "threshold" not in made
    assert sorted(path.name for path in tmp_path.iterdir()) == ["confusion.png", "metrics.json"]


def test_folders_in_an_output_folder_can_be_opened(tmp_path):
    with output_folder(tmp_path / "out") as place:
        (place / "student").mkdir()
        (place / "student" / "config.json").write_text("{}")
    assert (tmp_path / "out" / "student").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out" / "student" / "config.json").stat().st_mode & 0o777 == 0o644


def test_answers_of_another_number_are_refused_and_columns_are_numbers(tmp_path):
    numbers = torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = report(tmp_path, {"student": Arm(numbers.view(4, 1))}, numbers)
    assert found["test"]["student"]["root mean square error"] == 0
    with pytest.raises(ValueError, match="has 8 answers to 4 targets"):
        report(tmp_path, {"student": Arm(torch.zeros(4, 2))}, numbers)


def test_two_files_in_a_folder_share_no_reader(tmp_path):
    export = _export()
    words = [TextReader.of_words([text, text]) for text in ("a goal", "some songs")]
    for number, reader in enumerate(words):
        net = models.WordBag(reader.size, 2)
        how = {"reader": reader, "examples": reader(["a goal some"] * 2), "classes": ["art", "sport"]}
        if number:
            with pytest.raises(ValueError, match=r"tokenizer\.json belongs to a\.onnx; write b to a folder of its own"):
                export.write(net, tmp_path, name="b", **how)
        else:
            export.write(net, tmp_path, name="a", **how)
    assert len(export.load(tmp_path).predict(pandas.Series(["a goal", "goal a"]))) == 2
    with pytest.raises(ValueError, match="give two or more"):
        export.to_onnx(nn.Linear(3, 2), tmp_path / "one.onnx", torch.zeros(1, 3))


def test_a_classifier_of_pictures_may_be_in_16_bits():
    assert (
        PictureClassifier(size=8, width=4).bfloat16()(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)).dtype
        == torch.bfloat16
    )
