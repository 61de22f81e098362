"""From what an API said to a small network that ships: the teacher is asked elsewhere, and its answers are in a file.

    python examples/answers.py --data texts.jsonl --answers said.jsonl --out student

A line of the texts is {"id": 7, "text": "…", "label": "sport"}, the label only where a person gave one; a line of the
answers is {"id": 7, "answer": "sport"}, or {"id": 7, "probabilities": {"sport": 0.8, "art": 0.1}}, of a few classes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from kdft_lib import export, models
from kdft_lib.data import TensorData, TextReader, read_rows, text_file
from kdft_lib.experiments import Arm, as_text, is_first, output_folder, report
from kdft_lib.metrics import confidence_threshold
from kdft_lib.objectives import HardTargets, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import named_answers
from kdft_lib.training import Ledger, fit, predict


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="the texts, .jsonl: id, text, and label where known")
    parser.add_argument("--answers", required=True, type=Path, help="what was said of them, .jsonl: id, and what")
    parser.add_argument("--source", default="an API", help="who answered, for the card (default: %(default)s)")
    parser.add_argument("--labels", type=int, help="how many labels to learn from (default: all)")
    parser.add_argument("--steps", type=int, default=400, help="the student's steps (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, help="a folder that does not exist yet")
    parser.add_argument("--seed", type=int, default=0, help="decides labels, weights and order (default: %(default)s)")
    return parser.parse_args()


def answers_by_id(path: Path, ids: list[str], classes: tuple[str, ...]) -> dict[str, Any]:
    """What was said of each text: a name, or probabilities by name."""
    found: dict[str, Any] = {}
    known, one = {*ids}, TensorData(torch.zeros(1, 1))
    for number, row in enumerate(read_rows(path, ["id"]).to_dict("records"), 1):
        name, said, answer = str(row["id"]), row.get("probabilities"), row.get("answer")
        if not isinstance(said, dict) or not said:
            said = "" if answer is None or answer != answer else str(answer).strip()
        if name not in known or name in found:
            wrong = "twice" if name in found else "and no text has it"
            raise ValueError(f"line {number} of {path} has the id {name!r} {wrong}; each line answers one text")
        if not said:
            raise ValueError(f"line {number} of {path} has neither an answer nor probabilities; leave the line out")
        try:  # Here, where its line is known.
            named_answers(one, [said], classes, source=path.name)
        except ValueError as error:
            raise ValueError(str(error).replace("answer 0", f"line {number} of {path}")) from None
        found[name] = said
    return found


def main(args: argparse.Namespace) -> None:
    with output_folder(args.out) as out:
        ids = [str(name) for name in read_rows(args.data, ["id", "text", "label"])["id"]]
        if len({*ids}) < len(ids):
            raise ValueError(f"{args.data} has {len(ids)} texts and {len({*ids})} ids; each text has its own")
        own = text_file(args.data, "text", "label", labeled=args.labels, seed=args.seed)
        said = answers_by_id(args.answers, ids, own.classes)
        texts, targets = own.splits.train.texts, own.splits.train.targets
        reader = TextReader.of_words([*texts, *own.splits.transfer.texts])
        train, transfer, val, test = own.splits.with_inputs(reader)

        # A text to learn from that was not answered has a person's label for an answer, or is left out.
        of = [[said.get(ids[int(row)]) for row in part] for part in own.names]
        learned = [answer or own.classes[label] for answer, label in zip(of[0], targets.tolist(), strict=True)]
        kept = [place for place, answer in enumerate(of[1]) if answer]
        rows = train.with_rows(transfer[kept]) if kept else train
        answered = learned + [of[1][place] for place in kept]
        taught = named_answers(rows, answered, own.classes, source=args.source)
        by_teacher = SoftTargets(temperature=1.0) if any(isinstance(said, dict) for said in answered) else HardTargets()

        made, fitted = [], []
        for data, objective in ((taught, by_teacher), (train, Supervised())):
            torch.manual_seed(args.seed)
            made.append(models.WordBag(reader.size, len(own.classes)))
            course = {"strategy": FullFineTuning(lr=0.03), "steps": args.steps, "batch_size": 64, "seed": args.seed}
            fitted.append(fit(made[-1], data, objective=objective, **course))
        student, alone = made
        svm = make_pipeline(TfidfVectorizer(sublinear_tf=True), LinearSVC()).fit(texts, targets)

        if not is_first():
            return  # One process scores and writes.
        threshold = confidence_threshold(predict(student, val), val.targets, accuracy=0.95)
        known = Ledger(labels=len(train))
        arms = {
            "student": Arm.of(student, test, fitted[0].ledger + Ledger(choosing=len(val), pretraining=args.source)),
            "student on labels alone": Arm.of(alone, test, fitted[1].ledger),
            "SVM on TF-IDF": Arm.of(svm, own.splits.test.texts, known),
        }
        if all(of[3]):  # The teacher is scored where it answered all texts to test by.
            best = [max(each, key=lambda name: each[name]) if isinstance(each, dict) else each for each in of[3]]
            arms["teacher"] = Arm(torch.tensor([own.classes.index(name) for name in best]))
        found = report(
            out, arms, test.targets, classes=own.classes, threshold=threshold, counts=own.counts, settings=vars(args)
        )
        notes = {"taught by": args.source, "test": found["test"], "ledger": found["ledger"], "rows": own.counts}
        shipped = export.write(
            student, out, reader=reader, examples=test.inputs, classes=own.classes, threshold=threshold, card=notes
        )
        print(f"{as_text(found)}\n{args.out}: {shipped}, checked: {shipped.card['checked']}")


if __name__ == "__main__":
    try:
        main(arguments())
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"answers.py: {error}")
