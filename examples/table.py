"""From a table to a small network that ships: a forest of gradient-boosted trees learns from the rows, and a network
learns from what the forest says of rows that it did not learn from. Size and latency are the point.

    python examples/table.py --data penguins.csv --target island --out student
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_predict
from torch.nn.functional import mse_loss

from kdft_lib import export, models
from kdft_lib.data import table
from kdft_lib.experiments import Arm, as_text, is_first, output_folder, report
from kdft_lib.metrics import confidence_threshold
from kdft_lib.objectives import Objective, SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import answers
from kdft_lib.training import Ledger, fit, predict


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", required=True, type=Path, help="a table, .csv or .jsonl; a row without target is used"
    )
    parser.add_argument("--target", required=True, help="its column to predict")
    parser.add_argument("--regression", action="store_true", help="the target is a number to come near to, no class")
    parser.add_argument("--group-column", help="its column of what belongs together, which no split parts")
    parser.add_argument("--leave-out", nargs="+", default=[], help="its columns not to learn from, such as an ID")
    parser.add_argument("--steps", type=int, default=1000, help="the network's steps (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, help="a folder that does not exist yet")
    parser.add_argument("--seed", type=int, default=0, help="decides weights and order (default: %(default)s)")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    with output_folder(args.out) as out:
        columns = {"group_column": args.group_column, "leave_out": args.leave_out}
        own = table(args.data, args.target, regression=args.regression, **columns, seed=args.seed)
        train, transfer, val, test = own.splits
        inputs, targets = train.inputs.numpy(), train.targets.flatten().numpy()
        known = Ledger(labels=len(train))
        if len(train) < 40:
            raise ValueError(
                f"{args.data} has {len(train)} rows to learn from; 40 or more are needed, since a leaf of the forest's"
                " trees has 20: give more, or take LogisticRegression or Ridge alone"
            )

        # The teacher, and what a practitioner would try first.
        if args.regression:
            forest, simple = HistGradientBoostingRegressor(random_state=args.seed), Ridge()
            mean, std = float(targets.mean()), float(targets.std()) or 1.0
        else:
            forest, simple = HistGradientBoostingClassifier(random_state=args.seed), LogisticRegression(max_iter=1000)
            mean, std = 0.0, 1.0
        forest.fit(inputs, targets)
        simple.fit(inputs, targets)

        # Of its own rows a forest is too sure: five others, each without a fifth of them, answer for those.
        method = "predict" if args.regression else "predict_proba"
        said = torch.from_numpy(cross_val_predict(forest, inputs, targets, method=method, cv=5)).float()
        if len(transfer):
            said = torch.cat([said, torch.from_numpy(getattr(forest, method)(transfer.inputs.numpy())).float()])
        if args.regression:
            # The squared distances to label and answer together are smallest halfway.
            halfway = torch.cat([(train.targets.flatten() + said[: len(train)]) / 2, said[len(train) :]])
            rows = train.without_labels().with_rows(transfer)
            taught = rows.with_targets(halfway.view(-1, 1))
            by_labels = Supervised(loss=mse_loss)
            by_teacher: Objective = by_labels
        else:
            said = (said + 1e-4) / (said + 1e-4).sum(1, keepdim=True)
            rows = train.with_rows(transfer)
            taught = answers(rows, probabilities=said, source="a forest of gradient-boosted trees")
            by_labels, by_teacher = Supervised(), SoftTargets(temperature=1.0, kd_weight=0.5, ce_weight=0.5)

        made, fitted = [], []
        for data, objective in ((taught, by_teacher), (train, by_labels)):
            torch.manual_seed(args.seed)
            made.append(models.MLP(inputs.shape[1], len(own.classes) or 1, mean=mean, std=std))
            strategy = FullFineTuning(lr=0.01, weight_decay=0.1)
            fitted.append(fit(made[-1], data, objective=objective, strategy=strategy, steps=args.steps, seed=args.seed))
        student, alone = made
        if not is_first():
            return  # One process scores and writes.
        threshold = 0.0
        if own.classes:
            threshold = confidence_threshold(predict(student, val), val.targets, accuracy=0.95)
        arms = {
            "student": Arm.of(student, test, replace(fitted[0].ledger, choosing=len(val), teacher_labels=len(train))),
            "student on labels alone": Arm.of(alone, test, fitted[1].ledger),
            "teacher": Arm.of(forest, test, known),
            type(simple).__name__: Arm.of(simple, test, known),
        }
        found = report(
            out, arms, test.targets, classes=own.classes, threshold=threshold, counts=own.counts, settings=vars(args)
        )
        notes = {"taught by": str(forest), "test": found["test"], "ledger": found["ledger"], "rows": own.counts}
        shipped = export.write(
            student, out, reader=own.reader, examples=test.inputs, classes=own.classes, threshold=threshold, card=notes
        )
        print(f"{as_text(found)}\n{args.out}: {shipped}, checked: {shipped.card['checked']}")


if __name__ == "__main__":
    try:
        main(arguments())
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"table.py: {error}")
