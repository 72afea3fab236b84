"""Files with variables, in the syntax of systemd's EnvironmentFile (systemd.exec(5)).

Their values are secrets: no message shows one.
"""

from __future__ import annotations

import re

from awaitelect.config.process_kinds import EnvFile, is_variable
from awaitelect.config.text_file import Unreadable, read_text

_BLANK, _NEWLINE = " \t", "\n\r"
_LINE = re.compile(r"[^\n\r]*")


def read_env_file(file: EnvFile) -> tuple[dict[str, str], list[str]]:
    """The variables of a file, and warnings about lines that systemd ignores too. Raises Unreadable."""
    try:
        text = read_text(file.path, "the env_file")
    except Unreadable as error:
        if not file.required and isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
            return {}, []
        raise
    return parse_env_file(text, file.path)


def parse_env_file(text: str, where: str) -> tuple[dict[str, str], list[str]]:
    """The variables of a text, and warnings. Raises Unreadable for a quote that is never closed."""
    variables: dict[str, str] = {}
    warnings: list[str] = []
    at, number, counted = 0, 1, 0
    while at < len(text):
        found = _LINE.match(text, at)
        assert found is not None
        end, line = found.end(), found[0].strip(_BLANK)
        if not line or line[0] in "#;":
            at = end + 1
            continue
        number, counted = number + text.count("\n", counted, at), at
        equals = text.find("=", text.index(line[0], at) + 1, end)
        if equals < 0:
            warnings.append(f"{where}:{number}: a line without '=' is ignored; expected NAME=VALUE")
            at = end + 1
            continue
        name = text[at:equals].strip(_BLANK)
        value, at = _value(text, equals + 1, f"{where}:{number}")
        if not is_variable(name) or "\0" in value:
            export = "; without 'export'" if name.startswith("export ") else ""
            warnings.append(
                f"{where}:{number}: a line whose name is no variable's is ignored; expected NAME=VALUE{export}"
            )
        else:
            variables[name] = value
    return variables, warnings


def _value(text: str, at: int, where: str) -> tuple[str, int]:
    """The value that begins here and where the next line begins: quoted parts joined, or the rest of the line."""
    value = ""
    while at < len(text):
        char = text[at]
        if char in _NEWLINE:
            return value, at + 1
        if char in _BLANK:
            at += 1
        elif char in "'\"":
            part, at = _quoted(text, at, where)
            value += part
        else:
            rest, at = _unquoted(text, at)
            return value + rest, at
    return value, at


def _quoted(text: str, at: int, where: str) -> tuple[str, int]:
    quote, parts = text[at], list[str]()
    at += 1
    while at < len(text):
        char = text[at]
        if char == quote:
            return "".join(parts), at + 1
        if char == "\\" and quote == '"' and at + 1 < len(text):
            follows = text[at + 1]
            # In double quotes a backslash is itself before all but these; before the line's end it joins lines.
            parts.append("" if follows == "\n" else follows if follows in '"\\`$' else char + follows)
            at += 2
            continue
        parts.append(char)
        at += 1
    raise Unreadable(f"{where}: a quote is opened and never closed; expected another {quote}")


def _unquoted(text: str, at: int) -> tuple[str, int]:
    parts, kept = list[str](), 0
    while at < len(text) and text[at] not in _NEWLINE:
        char = text[at]
        if char == "\\":
            # At the end of a line it joins the next one, at the end of the file there is nothing to join.
            parts.append(text[at + 1 : at + 2].strip(_NEWLINE))
            at, kept = at + 2, len(parts)
            continue
        parts.append(char)
        kept = kept if char in _BLANK else len(parts)
        at += 1
    return "".join(parts[:kept]), at + 1
