"""The kinds of values that a setting can have: what is accepted, and how it is said.

A Kind is put beside the type in a model (`Annotated[float, DURATION]`). It accepts values as YAML gives them, without
converting a wrong type in silence, and knows how the text of an environment variable becomes such a value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import durationpy

from awaitelect.values import Value

LONGEST = 2**31 - 1
"""Seconds of a duration at most: what leaseDurationSeconds can hold."""

_GO_DURATION = re.compile(r"(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class Reason(Value):
    """One thing that is wrong with a value."""

    expected: str
    at: tuple[str | int, ...] = ()
    """Where inside the value; empty: the value itself."""
    found: str = ""
    """What was found there; empty: the value itself is shown."""


class Refused(ValueError):
    """The value is not accepted, for these reasons."""

    def __init__(self, *reasons: Reason) -> None:
        super().__init__("; ".join(reason.expected for reason in reasons))
        self.reasons = reasons


def _as_it_is(text: str) -> Any:
    return text


class Kind(Value):
    """One kind of value."""

    _unseen = frozenset({"schema"})  # it cannot be hashed

    name: str
    """For the table of settings."""
    parse: Callable[[Any], Any]
    """The value for the model, from what YAML gave. Raises Refused."""
    schema: dict[str, Any]
    """JSON schema of what is accepted."""
    decode: Callable[[str], Any] | None = _as_it_is
    """What `parse` wants, from the text of a variable; None: the text is YAML in flow style, or JSON."""
    secret: bool = False
    """The value must not be shown."""


def shown(value: Any) -> str:
    """A value as an error names it: with its type where that is not plain, and short."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a huge number" if 1e18 < abs(value) < math.inf else f"the number {value!r}"
        case str():
            return repr(value if len(value) <= 60 else value[:57] + "...")
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
    return type(value).__name__


def kind_of(value: Any) -> str:
    """The type of a value in words, for what must not be shown itself."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
    return type(value).__name__


def did_you_mean(word: Any, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known word that is nearest to this one, or nothing if none is near."""
    if not isinstance(word, str) or not word or len(word) > 200:
        return ""
    import difflib  # Only a mistake needs it.

    lower = {one.lower(): one for one in known}
    return lower.get(next(iter(difflib.get_close_matches(word.lower(), lower, n=1, cutoff=cutoff)), ""), "")


def suggestion(word: Any, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of an error line: a question with the nearest known word, or nothing."""
    near = did_you_mean(word, known, cutoff)
    return f"; did you mean {near!r}?" if near else ""


def is_text(value: Any) -> bool:
    """A text that a process or a store can be given: UTF-8, no NUL."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def text_kind(expected: str, pattern: str = r"(?s).+", longest: int = 4096) -> Kind:
    """A text that a regular expression matches as a whole."""
    fits = re.compile(pattern)

    def parse(value: Any) -> str:
        if isinstance(value, (bool, int, float)):
            raise Refused(Reason(f"{expected}; put it in quotes if it is meant as text"))
        if not is_text(value) or len(value) > longest or not fits.fullmatch(value):
            raise Refused(Reason(expected))
        return str(value)

    return Kind("text", parse, {"type": "string", "minLength": 1})


def choice_kind(*choices: str) -> Kind:
    """One of these words."""

    def parse(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise Refused(Reason(f"one of {', '.join(choices)}{suggestion(value, choices)}"))
        return value

    return Kind(" \\| ".join(f"`{word}`" for word in choices), parse, {"enum": list(choices)})


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        word = value.lower() if isinstance(value, str) else ""
        meant = f"; did you mean {'true' if _FLAGS[word] else 'false'}?" if word in _FLAGS else ""
        raise Refused(Reason(f"true or false{meant}"))
    return value


def _flag_of_text(text: str) -> Any:
    return _FLAGS.get(text.lower(), text)


FLAG = Kind("boolean", _flag, {"type": "boolean"}, _flag_of_text)


def number_of_text(text: str) -> Any:
    """The number that a text is, or the text where it is none."""
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def whole_kind(least: int, most: int) -> Kind:
    """A whole number between two, both included."""

    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise Refused(Reason(f"a whole number from {least} to {most}"))
        return value

    return Kind("integer", parse, {"type": "integer", "minimum": least, "maximum": most}, number_of_text)


def number_kind(least: float, most: float) -> Kind:
    """A number between two, both included."""

    def parse(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise Refused(Reason(f"a number from {least:g} to {most:g}"))
        return float(value)

    return Kind("number", parse, {"type": "number", "minimum": least, "maximum": most}, number_of_text)


DURATION_EXPECTED = "a duration such as 15s, 1m30s or 500ms, or a number of seconds, not negative"


def duration(value: Any) -> float:
    """Seconds of a duration in Go's way of writing, or of a number of seconds."""
    seconds = math.nan
    if isinstance(value, str):
        if _GO_DURATION.fullmatch(value):
            try:
                seconds = durationpy.from_str(value).total_seconds()
            except (durationpy.DurationError, OverflowError, ValueError):
                seconds = math.inf
        elif _NUMBER.fullmatch(value):
            raise Refused(Reason(f"{DURATION_EXPECTED}; without quotes, or with a unit as in {value.lstrip('+-')}s"))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        # A whole number can be too large for a float.
        seconds = value if not value > LONGEST else math.inf
    if not 0 <= seconds <= LONGEST:
        longest = f", at most {LONGEST} s" if seconds > LONGEST else ""
        raise Refused(Reason(DURATION_EXPECTED + longest))
    return float(seconds)


DURATION = Kind(
    "duration",
    duration,
    {
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": LONGEST},
            {"type": "string", "pattern": r"^(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$"},
        ]
    },
    number_of_text,
)
