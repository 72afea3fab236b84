"""YAML with the line of every value.

Built from libyaml's events rather than its documents: those are composed by recursion in C, which ends the process on
a deeply nested text. Plain words are read as YAML 1.2 does, as editors do too: `on`, `yes` and `10:30` are texts, not
true, true and 630.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from awaitelect.config.kinds import shown
from awaitelect.config.text_file import Unreadable
from awaitelect.values import Value

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_DEEPEST = 32
_MOST = 20_000
"""Values of a text at most, those that are merged or stand for an alias included: more is no configuration, and would
take its time.
"""

_INT = re.compile(r"[-+]?[0-9]{1,4000}|0x[0-9a-fA-F]{1,16}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class Node(Value):
    """A value and where it stands."""

    value: Any
    """A scalar, a list of nodes, or a dict of nodes by their keys."""
    line: int
    """Counted from 1."""
    column: int

    def plain(self) -> Any:
        """The value without its places. Raises Unreadable if aliases blow it up."""
        return _plain(self, [_MOST])


def _plain(node: Node, left: list[int]) -> Any:
    left[0] -= 1
    if left[0] < 0:
        raise Unreadable(f"more than {_MOST} values; expected fewer aliases")
    if isinstance(node.value, dict):
        return {key: _plain(one, left) for key, one in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(one, left) for one in node.value]
    return node.value


def parse(text: str, where: str) -> Node:
    """The one document in a YAML text. Raises Unreadable; `where` begins each of its lines."""
    return _Reading(text, where).document()


class _Reading:
    def __init__(self, text: str, where: str) -> None:
        self._where = where
        self._anchors: dict[str, Node] = {}
        self._repeated: list[str] = []
        self._text = text
        self._left = _MOST

    def document(self) -> Node:
        try:
            self._loader = _Loader(self._text)
            self._next()  # The stream's start.
            if self._loader.check_event(yaml.StreamEndEvent):
                return Node(None, 1, 1)
            self._next()
            root = self._node(self._next(), 0)
            self._next()
            if not self._loader.check_event(yaml.StreamEndEvent):
                self._fail(self._next(), "a second document begins here; expected one")
        except yaml.MarkedYAMLError as error:
            raise Unreadable(self._syntax(error)) from error
        except (yaml.YAMLError, UnicodeEncodeError) as error:
            raise Unreadable(f"{self._where}: found a character that YAML does not allow") from error
        if self._repeated:
            raise Unreadable(*self._repeated)
        return root

    def _syntax(self, error: yaml.MarkedYAMLError) -> str:
        mark = error.problem_mark or error.context_mark
        place = f"{self._where}:{self._place(mark)}" if mark else self._where
        problem = ", ".join(part for part in (error.problem, error.context) if part) or "it is broken"
        line = self._text.splitlines()[mark.line : mark.line + 1] if mark else []
        if any("\t" in one[: len(one) - len(one.lstrip())] for one in line) or "character that cannot start" in problem:
            tab = any("\t" in one for one in line)
            problem += "; the line has a tab, expected spaces" if tab else ""
        return f"{place}: this is not YAML: {problem}"

    def _place(self, mark: yaml.Mark) -> str:
        """LINE:COLUMN; the end of a text is in its last line, whereas libyaml adds one."""
        lines = self._text.removesuffix("\n").split("\n")
        if mark.line >= len(lines):
            return f"{len(lines)}:{len(lines[-1]) + 1}"
        return f"{mark.line + 1}:{mark.column + 1}"

    def _next(self) -> Any:
        return self._loader.get_event()

    def _fail(self, event: Any, reason: str) -> None:
        mark = event.start_mark
        raise Unreadable(f"{self._where}:{mark.line + 1}:{mark.column + 1}: {reason}")

    def _node(self, event: Any, depth: int) -> Node:
        if depth > _DEEPEST:
            self._fail(event, f"nested deeper than {_DEEPEST} levels")
        self._count(event, 1)
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, yaml.AliasEvent):
            if str(event.anchor) not in self._anchors:
                self._fail(event, f"no value is anchored as &{event.anchor} before this")
            return Node(self._anchors[str(event.anchor)].value, line, column)
        value: Any
        if isinstance(event, yaml.MappingStartEvent):
            self._tag(event, "map")
            value = self._mapping(depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._tag(event, "seq")
            value = self._sequence(depth)
        else:
            tag = self._tag(event, "str")
            value = event.value if event.style or tag else plain_word(event.value)
        node = Node(value, line, column)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _count(self, event: Any, values: int) -> None:
        self._left -= values
        if self._left < 0:
            self._fail(event, f"here are more than {_MOST} values; expected fewer")

    def _sequence(self, depth: int) -> list[Node]:
        found = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            found.append(self._node(event, depth + 1))
        return found

    def _tag(self, event: Any, plain: str) -> str:
        """The tag before a value, empty for none; one that would make it something else than it looks is refused."""
        tag = (event.tag or "").removeprefix("tag:yaml.org,2002:")
        if tag not in ("", "!", plain):
            self._fail(event, f"the tag {tag!r} is not understood; expected the value without it")
        return tag

    def _mapping(self, depth: int) -> dict[Any, Node]:
        own: dict[Any, Node] = {}
        merged: dict[Any, Node] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            merging = key.value == "<<" and not getattr(event, "style", None)
            value = self._node(self._next(), depth + 1)
            if isinstance(key.value, (dict, list)):
                self._fail(event, f"{shown(key.value)} stands as a key; expected a word")
            if merging:
                self._merge(event, value, merged)
            elif key.value in own and key.value is not None:
                self._repeated.append(
                    f"{self._where}:{key.line}:{key.column}: the key {key.value!r} stands here again, first in line "
                    f"{own[key.value].line}; expected it once"
                )
            else:
                # The line of an entry is its key's: a value in block style begins below it.
                own[key.value] = Node(value.value, key.line, key.column)
        return merged | own

    def _merge(self, event: Any, value: Node, merged: dict[Any, Node]) -> None:
        for one in value.value if isinstance(value.value, list) else [value]:
            if not isinstance(one.value, dict):
                self._fail(event, "'<<' merges mappings; expected an alias of one")
            self._count(event, len(one.value))
            merged |= {key: node for key, node in one.value.items() if key not in merged}


def plain_word(text: str) -> Any:
    """What a word without quotes is in YAML 1.2: null, a boolean, a number, or a text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text, 16) if text.startswith("0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if text.lower() in (".inf", "+.inf", "-.inf", ".nan"):
        return float(text.replace(".", ""))
    return text
