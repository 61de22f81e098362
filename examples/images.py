"""From a folder of photographs to a small network that ships: a teacher is fine-tuned on the few labels there are, and
a student learns from its answers to all pictures, those without a label too.

    python examples/images.py --data photos --labels 500 --out student
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch.nn.functional import adaptive_avg_pool2d

from kdft_lib import export, models
from kdft_lib.data import RandomShiftFlip, folder
from kdft_lib.experiments import Arm, as_text, is_first, output_folder, report
from kdft_lib.metrics import confidence_threshold
from kdft_lib.objectives import SoftTargets, Supervised
from kdft_lib.strategies import FullFineTuning
from kdft_lib.teachers import Teacher, cache
from kdft_lib.training import Ledger, fit, predict


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="a folder with a folder for each class; or with --csv")
    parser.add_argument("--csv", type=Path, help="a table that names the pictures in --data and their classes")
    parser.add_argument("--path-column", help="its column of paths")
    parser.add_argument("--label-column", help="its column of classes")
    parser.add_argument("--group-column", help="its column of what belongs together, which no split parts")
    parser.add_argument("--unlabeled", type=Path, help="a folder of more pictures, without labels")
    parser.add_argument("--labels", type=int, help="how many labels to learn from (default: all)")
    teachers = "efficientnet_lite0, resnet18, timm:NAME, or a file that models.save wrote (default: %(default)s)"
    parser.add_argument("--teacher", default="efficientnet_lite0", help=teachers)
    parser.add_argument("--student", default="convnet", help="convnet or timm:NAME (default: %(default)s)")
    parser.add_argument(
        "--size", type=int, default=64, help="pictures become so many pixels wide (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=2000, help="the student's steps (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, help="a folder that does not exist yet")
    parser.add_argument("--seed", type=int, default=0, help="decides labels, weights and order (default: %(default)s)")
    return parser.parse_args()


def network(name: str, classes: tuple[str, ...], args: argparse.Namespace) -> models.PictureClassifier:
    torch.manual_seed(args.seed)
    return models.PictureClassifier.named(name, classes, args.size)


def pixels(pictures: torch.Tensor) -> torch.Tensor:
    """Grey, 32 by 32, for the baseline."""
    return adaptive_avg_pool2d(pictures.float().mean(1, keepdim=True), 32).flatten(1) / 255


def main(args: argparse.Namespace) -> None:
    with output_folder(args.out) as out:
        own = folder(
            args.data, csv=args.csv, path_column=args.path_column, label_column=args.label_column,
            group_column=args.group_column, unlabeled=args.unlabeled, labeled=args.labels, size=args.size,
            seed=args.seed, progress=None if is_first() else False,
        )  # fmt: skip
        train, transfer, val, test = own.splits
        views = RandomShiftFlip(padding=args.size // 16)
        names = (args.teacher, args.student, args.student)  # All before the first is trained: one may be mistyped.
        large, student, alone = (network(name, own.classes, args) for name in names)

        # What a practitioner would try first, and the student on the labels alone.
        svm = make_pipeline(StandardScaler(), SVC(C=5)).fit(pixels(train.inputs), train.targets)
        lr = 0.03 if args.student == "convnet" else 1e-3
        course = {"strategy": FullFineTuning(lr=lr, weight_decay=0.05), "steps": args.steps, "seed": args.seed}
        by_labels = fit(alone, train, objective=Supervised(), augment=views, **course)

        # The teacher: fine-tuned on the same labels, unless it knows these classes already.
        taught = Ledger(pretraining=large.origin)
        if not args.teacher.endswith(".safetensors"):
            steps = min(1000, max(120, len(train) // 4))
            taught += fit(
                large, train, objective=Supervised(), strategy=FullFineTuning(lr=1e-3), augment=views, steps=steps,
                batch_size=32, seed=args.seed,
            ).ledger  # fmt: skip
        teacher = Teacher(large, labels=taught.labels or None, pretraining=large.origin)

        # The student: the teacher's answers to eight views of every picture, for as many steps.
        answered = cache(teacher, train.with_rows(transfer), views=8, augment=views, seed=args.seed)
        by_teacher = fit(student, answered, objective=SoftTargets(teacher), **course)

        if not is_first():
            return  # One process scores and writes.
        threshold = confidence_threshold(predict(student, val), val.targets, accuracy=0.95)
        arms = {
            "student": Arm.of(student, test, by_teacher.ledger + Ledger(choosing=len(val))),
            "student on labels alone": Arm.of(alone, test, by_labels.ledger),
            "teacher": Arm.of(large, test, taught),
            "SVM on pixels": Arm.of(svm, pixels(test.inputs).numpy(), Ledger(labels=len(train))),
            "most frequent class": Arm(val.targets.mode().values.expand(len(test)), Ledger(choosing=len(val))),
        }
        found = report(
            out, arms, test.targets, classes=own.classes, threshold=threshold, counts=own.counts, settings=vars(args)
        )
        notes = {"taught by": large.origin, "test": found["test"], "ledger": found["ledger"], "rows": own.counts}
        shipped = export.write(
            student, out, reader=own.reader, examples=test.inputs, classes=own.classes, threshold=threshold, card=notes
        )
        print(f"{as_text(found)}\n{args.out}: {shipped}, checked: {shipped.card['checked']}")


if __name__ == "__main__":
    try:
        main(arguments())
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"images.py: {error}")
