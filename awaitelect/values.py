"""Immutable values with named fields, as a frozen dataclass has them.

A dataclass writes and compiles its methods anew at each start of the program. Here the same few methods serve all
classes: with some fifty of them, that is a fifth of the time until a command runs.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, TypeVar, dataclass_transform

V = TypeVar("V", bound="Value")


@dataclass_transform(frozen_default=True)
class Value:
    """The base: a subclass says its fields by annotations, in order, and their defaults."""

    FIELDS: ClassVar[tuple[str, ...]] = ()
    """The names of the fields."""
    DEFAULTS: ClassVar[dict[str, Any]] = {}
    """The values of the fields that need not be given; shared, so never to be changed."""
    TYPES: ClassVar[dict[str, str]] = {}
    """What the fields hold, as their annotations say it."""
    _unseen = frozenset[str]()
    """Fields that are left out of comparisons and of what is shown: secrets, and what others have put in."""

    def __init_subclass__(cls) -> None:
        own = tuple(name for name in cls.__annotations__ if not name.startswith("_"))
        cls.FIELDS = cls.FIELDS + own
        cls.TYPES = cls.TYPES | {name: cls.__annotations__[name] for name in own}
        cls.DEFAULTS = cls.DEFAULTS | {name: cls.__dict__[name] for name in own if name in cls.__dict__}
        cls.__match_args__ = cls.FIELDS  # type: ignore[attr-defined, misc]

    def __init__(self, *values: Any, **named: Any) -> None:
        """Raises TypeError where a field is missing, unknown or given twice."""
        names = self.FIELDS
        given = dict(zip(names, values, strict=False))
        if len(values) > len(names) or given.keys() & named.keys() or not named.keys() <= set(names):
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(names)}, each once")
        state = {**self.DEFAULTS, **given, **named}
        if len(state) < len(names):
            missing = ", ".join(name for name in names if name not in state)
            raise TypeError(f"{type(self).__name__} needs {missing}")
        self.__dict__.update(state)

    def __setattr__(self, name: str, *value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: make another by changed()")

    __delattr__ = __setattr__

    def _seen(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in self.FIELDS if name not in self._unseen}

    def __eq__(self, other: object) -> bool:
        return self._seen() == other._seen() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._seen().values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._seen().items())})"


def as_dict(value: Value) -> dict[str, Any]:
    """The fields and what they hold, in order: a value in it as a dict too, anything else as it is."""
    held = {name: getattr(value, name) for name in value.FIELDS}
    return {name: as_dict(one) if isinstance(one, Value) else one for name, one in held.items()}


def changed(value: V, **fields: Any) -> V:
    """The same but for these fields. Raises TypeError for a field that it does not have."""
    return type(value)(**{**value.__dict__, **fields})


def misfit(value: Value) -> str:
    """The name of a field that holds something else than its annotation says; empty where all of them fit.

    Understands what can come in JSON: numbers, texts, lists and mappings of them, other values, and `| None`. A number
    that is infinite, or none, fits nowhere. Fields of a value within are not looked at.
    """
    return next((name for name, kind in value.TYPES.items() if not _fits(getattr(value, name), kind)), "")


def _fits(held: Any, kind: str) -> bool:
    if kind.endswith(" | None"):
        return held is None or _fits(held, kind.removesuffix(" | None"))
    if kind.startswith("list["):
        return isinstance(held, list) and all(_fits(one, kind[5:-1]) for one in held)
    if kind.startswith("dict["):
        of_keys, _, of_values = kind[5:-1].partition(", ")
        return isinstance(held, dict) and all(_fits(k, of_keys) and _fits(v, of_values) for k, v in held.items())
    if kind == "float":
        return isinstance(held, (int, float)) and not isinstance(held, bool) and math.isfinite(held)
    return type(held).__name__ == kind
