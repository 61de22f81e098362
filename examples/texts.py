"""From a table of texts to a small network that ships: a pretrained encoder learns from the few labels there are, and a
student learns from its answers to all texts, those without a label too.

    python examples/texts.py --data news.csv --text-column text --label-column topic --labels 100 --out student
"""

from __future__ import annotations

import argparse
import copy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from kdft_lib import export, models
from kdft_lib.data import Own, TextReader, text_file
from kdft_lib.experiments import Arm, as_text, is_first, output_folder, report
from kdft_lib.metrics import confidence_threshold, parameters
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import answers
from kdft_lib.training import Ledger, fit, predict


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="a table of texts, .csv or .jsonl")
    parser.add_argument("--text-column", default="text", help="its column of texts (default: %(default)s)")
    parser.add_argument("--label-column", default="label", help="its column of classes (default: %(default)s)")
    parser.add_argument("--group-column", help="its column of what belongs together, which no split parts")
    parser.add_argument("--labels", type=int, help="how many labels to learn from (default: all)")
    folders = "or a folder that save_pretrained wrote (default: %(default)s)"
    parser.add_argument("--teacher", default="minilm", help=f"minilm, {folders}")
    parser.add_argument("--student", default="bag", help=f"bag, the mean of its words, {folders}")
    parser.add_argument("--steps", type=int, default=400, help="the student's steps (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, help="a folder that does not exist yet")
    parser.add_argument("--seed", type=int, default=0, help="decides labels, weights and order (default: %(default)s)")
    return parser.parse_args()


def minilm(_: str, own: Own, __: int) -> tuple[list[torch.Tensor], Ledger, int]:
    """A linear head on the frozen encoder: what it says of texts to learn from and to test by, its costs, its size."""
    encoder, parts = models.sentence_encoder(), own.splits
    train, transfer, test = (encoder.embed(part.texts) for part in (parts.train, parts.transfer, parts.test))
    head = LogisticRegression(C=10, max_iter=1000).fit(train, parts.train.targets)
    said = [torch.from_numpy(head.predict_log_proba(each)).float() for each in (torch.cat([train, transfer]), test)]
    return said, Ledger(labels=len(train), pretraining="all-MiniLM-L6-v2, Apache 2.0, frozen"), 4 * parameters(encoder)


def from_folder(path: str, own: Own, seed: int) -> tuple[list[torch.Tensor], Ledger, int]:
    """The same of a classifier of a folder, which is fine-tuned whole unless it has these classes."""
    torch.manual_seed(seed)
    model = models.TextClassifier(path, own.classes)
    train, transfer, _, test = own.splits.with_inputs(model.reader)
    ledger = Ledger(pretraining=model.origin)
    if not model.is_trained:
        course = {"steps": min(1000, max(60, len(train) // 4)), "batch_size": 16, "seed": seed}
        ledger += fit(model, train, objective=Supervised(), strategy=FullFineTuning(lr=5e-5), **course).ledger
    said = [predict(model, part, batch_size=32) for part in (train.with_rows(transfer), test)]
    return said, ledger, 4 * parameters(model)


def main(args: argparse.Namespace) -> None:
    with output_folder(args.out) as out:
        columns = {"group_column": args.group_column, "labeled": args.labels, "seed": args.seed}
        own = text_file(args.data, args.text_column, args.label_column, **columns)
        torch.manual_seed(args.seed)
        if args.student == "bag":
            reader, lr = TextReader.of_words([*own.splits.train.texts, *own.splits.transfer.texts]), 0.03
            student: Any = models.WordBag(reader.size, len(own.classes))
        else:
            student, lr = models.TextClassifier(args.student, own.classes), 1e-4
            reader = student.reader
        alone = copy.deepcopy(student)
        train, transfer, val, test = own.splits.with_inputs(reader)

        # What the teacher says of all texts, what a practitioner would try first, and the student on the labels alone.
        said, taught, weighs = (minilm if args.teacher == "minilm" else from_folder)(args.teacher, own, args.seed)
        svm = make_pipeline(TfidfVectorizer(sublinear_tf=True), LinearSVC()).fit(own.splits.train.texts, train.targets)
        course = {"strategy": FullFineTuning(lr=lr), "steps": args.steps, "batch_size": 64, "seed": args.seed}
        by_labels = fit(alone, train, objective=Supervised(), **course)

        # The student learns from what the teacher said.
        answered = answers(train.with_rows(transfer), logits=said[0], source=args.teacher)
        by_teacher = fit(student, answered, objective=SoftTargets(temperature=2.0), **course).ledger
        known: dict[str, Any] = {"teacher_labels": taught.labels or None, "pretraining": taught.pretraining}
        by_teacher = replace(by_teacher, choosing=len(val), **known)

        if not is_first():
            return  # One process scores and writes.
        threshold = confidence_threshold(predict(student, val), val.targets, accuracy=0.95)
        arms = {
            "student": Arm.of(student, test, by_teacher),
            "student on labels alone": Arm.of(alone, test, by_labels.ledger),
            "teacher": Arm(said[1], taught, weighs),
            "SVM on TF-IDF": Arm.of(svm, own.splits.test.texts, Ledger(labels=len(train))),
            "most frequent class": Arm(val.targets.mode().values.expand(len(test)), Ledger(choosing=len(val))),
        }
        found = report(
            out, arms, test.targets, classes=own.classes, threshold=threshold, counts=own.counts, settings=vars(args)
        )
        notes = {"taught by": taught.pretraining, "test": found["test"], "ledger": found["ledger"], "rows": own.counts}
        shipped = export.write(
            student, out, reader=reader, examples=test.inputs, classes=own.classes, threshold=threshold, card=notes
        )
        print(f"{as_text(found)}\n{args.out}: {shipped}, checked: {shipped.card['checked']}")


if __name__ == "__main__":
    try:
        main(arguments())
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"texts.py: {error}")
