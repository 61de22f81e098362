"""Which module a solar cell is of, which no file says: how it was inferred, measured.

The cells lie in order, and their table names 44 modules nowhere but in the text beside it. The kind changes nine times;
between these places most modules are complete, six rows of ten cells, and the runs' lengths leave four that are not: of
72, 54, 50 and 48 cells. Where the 54 and the 50 lie, the pictures say:

- Two neighbouring modules are best told apart at their border. This program looks for that place without knowing how
  long a module is: how brightness, edges, corners and texture are spread is fitted before it and behind it, and the
  likeliest place is taken. The 54 lie between two such places.
- From cell 1674 to 1964, a module's first row of ten is darker at its upper edge than at its lower, and its last row
  is the other way round. The row from 1784 is a first one, and no last one is before it: there 50 cells end, whose last
  row is missing.

``python tools/solar_modules.py`` prints what it finds, and how many cells' nearest neighbour is of the same module.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from kdft_lib.datasets import SOLAR_MODULES, solar_cells

BORDERS = list(itertools.accumulate(SOLAR_MODULES))[:-1]
ENDS = [0, *BORDERS, sum(SOLAR_MODULES)]
NEAR = 2
"""Rows by which a border may be missed."""
SHORTEST = 15


def pictures() -> tuple[Tensor, Tensor]:
    """All cells in their order, float32 ``(N, 60, 60)``, and their kinds."""
    train, transfer, val, test = (part.rows(slice(None)) for part in solar_cells(size=60))
    joined = {
        name: torch.cat([part[name] for part in (train, transfer, val, test)]) for name in ("inputs", "kind", "cell")
    }
    order = joined["cell"].argsort()
    return joined["inputs"][order].squeeze(1).float(), joined["kind"][order]


def looks(images: Tensor) -> list[tuple[Tensor, int]]:
    """What is compared: how bright, how rough, the corners, the profile downwards and across; of each, how many
    directions count.
    """
    shares = images.new_tensor([0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98])
    bright = images.flatten(1).quantile(shares, dim=1).T
    inner = images[:, 1:-1, 1:-1]
    around = images[:, 2:, 1:-1] + images[:, :-2, 1:-1] + images[:, 1:-1, 2:] + images[:, 1:-1, :-2]
    rough = (4 * inner - around).abs().flatten(1).median(1, keepdim=True).values
    corners = torch.stack([images[:, down, right] for down in (0, -1) for right in (0, -1)], 1)
    down, across = images.median(2).values, images.median(1).values
    return [
        ((bright + 2).log(), 3),
        ((rough + 0.1).log(), 1),
        ((corners + 2).log(), 3),
        (down - down.mean(1, keepdim=True), 6),
        (across - across.mean(1, keepdim=True), 6),
    ]


def likeliest(seen: list[tuple[Tensor, int]], start: int, end: int) -> int:
    """The place between two rows where what comes before and what comes behind differ most."""
    parts = []
    for values, directions in seen:
        centred = values[start:end].double() - values[start:end].double().mean(0)
        left, _, _ = torch.linalg.svd(centred, full_matrices=False)
        parts.append(left[:, :directions] * len(centred) ** 0.5)
    rows = torch.cat(parts, 1)

    def spread(part: Tensor) -> float:
        return len(part) * (part.var(0, unbiased=False) + 0.02).log().sum().item()

    places = range(SHORTEST, len(rows) - SHORTEST + 1)
    return start + min(places, key=lambda place: spread(rows[:place]) + spread(rows[place:]))


def found(images: Tensor) -> dict[int, int]:
    """For each border the place that is likeliest between the borders beside it."""
    seen = looks(images)
    return {
        border: likeliest(seen, before, after)
        for before, border, after in zip(ENDS[:-2], BORDERS, ENDS[2:], strict=True)
    }


def neighbours(images: Tensor) -> dict[str, float]:
    """The share of cells whose nearest neighbour is of the same module; were the borders elsewhere; by chance."""
    values = torch.cat([part for part, _ in looks(images)], 1)
    values = (values - values.mean(0)) / values.std(0)
    apart = torch.cdist(values, values).fill_diagonal_(torch.inf)
    nearest, places = apart.argmin(1), torch.arange(len(images))

    def shared(borders: list[int]) -> float:
        modules = torch.bucketize(places, torch.tensor(borders), right=True)
        return (modules[nearest] == modules).double().mean().item()

    counts = torch.tensor(SOLAR_MODULES).double()
    return {
        "as inferred": shared(BORDERS),
        "runs of 60 from the first": shared(list(range(60, len(images), 60))),
        "30 cells earlier": shared([border - 30 for border in BORDERS]),
        "by chance": ((counts * (counts - 1)).sum() / len(images) / (len(images) - 1)).item(),
    }


def edges(images: Tensor, start: int = 1674, end: int = 1964) -> dict[int, float]:
    """By how much rows of ten are brighter at their upper edge than at their lower."""
    upper, lower = (images[:, edge].median(1).values for edge in (0, -1))
    return {
        row: (upper[row : row + 10].median() - lower[row : row + 10].median()).item() for row in range(start, end, 10)
    }


def main() -> None:
    images, kinds = pictures()
    places = found(images)
    near = [border for border, place in places.items() if abs(place - border) <= NEAR]
    changes = (kinds.diff() != 0).nonzero().flatten().add(1).tolist()
    print(f"changes of kind: {changes}")
    print(f"found within {NEAR} rows: {len(near)} of {len(BORDERS)} borders: {near}")
    print(f"elsewhere: { {border: place for border, place in places.items() if border not in near} }")
    print(f"upper edge less lower edge, of rows of ten: {edges(images)}")
    for name, share in neighbours(images).items():
        print(f"nearest neighbour of the same module, {name}: {100 * share:.1f} %")


if __name__ == "__main__":
    main()
