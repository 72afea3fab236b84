"""The kinds of values that say with which attributes a process runs: user, groups, limits, priority."""

from __future__ import annotations

import re
from typing import Any

from awaitelect.attributes import LIMITS, UNLIMITED, exceeds, limit_text
from awaitelect.config.kinds import Kind, Reason, Refused, number_of_text, shown, suggestion, whole_kind
from awaitelect.values import Value

LAST_ID = 2**32 - 2
"""The highest number of a user or group; the next one means "no change" to the kernel."""
HIGHEST = 2**63 - 1
"""The highest limit that is one."""

_NAME = re.compile(r"[^\x00-\x20\x7f:,/]{1,256}")
_DIGITS = re.compile(r"[0-9]{1,10}")
_ID_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "pattern": r"^[^\x00-\x20\x7f:,/]+$"},
        {"type": "integer", "minimum": 0, "maximum": LAST_ID},
    ]
}


class Limit(Value):
    """A resource limit, in the unit of setrlimit(2); UNLIMITED: none, None: as it is."""

    soft: int | None = None
    hard: int | None = None

    def __str__(self) -> str:
        """As it is written in a file, but for the key."""
        if self.soft == self.hard and self.soft is not None:
            return limit_text(self.soft)
        sides = (("soft", self.soft), ("hard", self.hard))
        return ", ".join(f"{side} {limit_text(one)}" for side, one in sides if one is not None)


def _id(value: Any, what: str) -> str | int:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LAST_ID:
        return value
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise Refused(Reason(f"the name of a {what}, or its number from 0 to {LAST_ID}"))


def _user(value: Any) -> str | int:
    return _id(value, "user")


def _group(value: Any) -> str | int:
    return _id(value, "group")


def _groups(value: Any) -> tuple[str | int, ...]:
    if not isinstance(value, (list, tuple)):
        raise Refused(Reason("a list of groups such as [audio, 1000], or [] for none"))
    found, reasons = [], []
    for at, one in enumerate(value):
        try:
            found.append(_id(one, "group"))
        except Refused as refused:
            reasons.append(Reason(refused.reasons[0].expected, (at,), shown(one)))
    if reasons:
        raise Refused(*reasons)
    return tuple(found)


USER = Kind("name or number", _user, _ID_SCHEMA, number_of_text)
GROUP = Kind("name or number", _group, _ID_SCHEMA, number_of_text)
GROUPS = Kind("list of names or numbers", _groups, {"type": "array", "items": _ID_SCHEMA}, None)


_LIMIT_EXPECTED = "a whole number that is not negative, or unlimited"


def _side(value: Any) -> int:
    if value == "unlimited":
        return UNLIMITED
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= HIGHEST:
        return value
    raise Refused(Reason(_LIMIT_EXPECTED))


def _limit(value: Any) -> Limit:
    if not isinstance(value, dict):
        try:
            both = _side(value)
        except Refused:
            raise Refused(Reason(f"{_LIMIT_EXPECTED}, or a mapping such as {{soft: 1024, hard: unlimited}}")) from None
        return Limit(both, both)
    sides, reasons = {}, []
    for name, one in value.items():
        if name not in ("soft", "hard"):
            reasons.append(
                Reason(f"soft or hard{suggestion(name, ('soft', 'hard'))}", (name,), f"the key {shown(name)}")
            )
            continue
        try:
            sides[name] = _side(one)
        except Refused as refused:
            reasons.append(Reason(refused.reasons[0].expected, (name,), shown(one)))
    if not value:
        reasons.append(Reason("soft, hard, or both", (), "an empty mapping"))
    if len(sides) == 2 and exceeds(sides["soft"], sides["hard"]):
        found = f"soft {limit_text(sides['soft'])} and hard {limit_text(sides['hard'])}"
        reasons.append(Reason("soft to be at most hard", (), found))
    if reasons:
        raise Refused(*reasons)
    return Limit(**sides)


def _ulimits(value: Any) -> dict[str, Limit]:
    if not isinstance(value, dict):
        raise Refused(Reason("a mapping of limits such as {nofile: 65536, core: 0}"))
    limits, reasons = {}, []
    for name, one in value.items():
        if not isinstance(name, str) or name not in LIMITS:
            known = suggestion(name, LIMITS) or f": {', '.join(LIMITS)}"
            reasons.append(Reason(f"the name of a limit{known}", (name,), f"the key {shown(name)}"))
            continue
        try:
            limits[name] = _limit(one)
        except Refused as refused:
            reasons += [Reason(each.expected, (name, *each.at), each.found or shown(one)) for each in refused.reasons]
    if reasons:
        raise Refused(*reasons)
    return limits


def _ulimits_schema() -> dict[str, Any]:
    sides: list[dict[str, Any]] = [{"type": "integer", "minimum": 0, "maximum": HIGHEST}, {"enum": ["unlimited"]}]
    pair = {
        "type": "object",
        "properties": {"soft": {"anyOf": sides}, "hard": {"anyOf": sides}},
        "additionalProperties": False,
        "minProperties": 1,
    }
    one = {"anyOf": [*sides, pair]}
    return {"type": "object", "properties": dict.fromkeys(LIMITS, one), "additionalProperties": False}


ULIMITS = Kind("mapping of limits", _ulimits, _ulimits_schema(), None)
NICE = whole_kind(-20, 19)
OOM_SCORE_ADJ = whole_kind(-1000, 1000)
