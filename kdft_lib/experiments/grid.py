"""Settings with names: what a method is tried with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kdft_lib.experiments.trained import Method

_SHOWN = {"temperature": "T", "lr": "learning rate"}


@dataclass(frozen=True)
class Candidate:
    """A method in one setting.

    Attributes:
        method: What is trained.
        setting: Its settings by name, plain values that go into a record.

    Example:
        >>> from sklearn.svm import SVC
        >>> from kdft_lib.experiments import Classical
        >>> Candidate(Classical(SVC(C=5.0)), {"C": 5.0}).setting["C"]
        5.0
    """

    method: Method
    setting: Mapping[str, Any] = field(default_factory=dict)


def grid(base: Method | Callable[..., Method], /, **axes: Any) -> list[Candidate]:
    """A method in every combination of some settings: scikit-learn's ``ParameterGrid`` for what :func:`compare`
    chooses from. The last axis varies fastest.

    Args:
        base: A method with ``but``, such as a :class:`Recipe` or a :class:`Classical`, or a function from settings,
            by keyword, to a method.
        axes: For each setting its values. One value alone is the same throughout, and is kept with the others. Of
            a mapping, the keys are the names of values that are no plain numbers or texts, such as functions.

    Returns:
        A :class:`Candidate` for each combination.

    Raises:
        ValueError: If an axis is empty, or the method has no such setting.

    Example:
        >>> from sklearn.svm import SVC
        >>> from kdft_lib.experiments import Classical
        >>> [dict(candidate.setting) for candidate in grid(Classical(SVC()), C=(1, 5), gamma="scale")]
        [{'C': 1, 'gamma': 'scale'}, {'C': 5, 'gamma': 'scale'}]
    """
    named: dict[str, list[tuple[Any, Any]]] = {}
    for name, values in axes.items():
        if isinstance(values, Mapping):
            named[name] = list(values.items())
        elif isinstance(values, Iterable) and not isinstance(values, str):
            named[name] = [(value, value) for value in values]
        else:
            named[name] = [(values, values)]
        if not named[name]:
            raise ValueError(f"{name} has no value; give at least one")
    method: Any = base
    make = method.but if hasattr(method, "but") else method
    return [
        Candidate(
            make(**{name: value for name, (_, value) in zip(named, choice, strict=True)}),
            {name: shown for name, (shown, _) in zip(named, choice, strict=True)},
        )
        for choice in itertools.product(*named.values())
    ]


def described(setting: Mapping[str, Any], names: Iterable[str] | None = None) -> str:
    """A setting in words, such as ``T = 4, weight decay 0.1``.

    Args:
        setting: The setting, by name.
        names: The names that are said; by default all.

    Example:
        >>> described({"temperature": 4.0, "weight_decay": 0.1})
        'T = 4, weight decay 0.1'
    """
    said = []
    for name in setting if names is None else names:
        label, value = _SHOWN.get(name, name.replace("_", " ")), setting.get(name)
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        said.append(f"{label} = {shown}" if len(label) == 1 else f"{label} {shown}")
    return ", ".join(said)


def varied(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of what is not the same in all settings."""
    settings = list(settings)
    names = dict.fromkeys(name for setting in settings for name in setting)
    return [name for name in names if any(setting.get(name) != settings[0].get(name) for setting in settings)]
