"""The kinds of values that say how a process is run: its command, its environment, signals and umask."""

from __future__ import annotations

import re
import shlex
import signal
from typing import Any

from awaitelect.config.kinds import Kind, Reason, Refused, is_text, kind_of, number_of_text, shown, suggestion
from awaitelect.values import Value

SIGNALS: dict[str, int] = {one.name[3:]: int(one) for one in signal.Signals if not one.name.startswith("SIGRT")}
"""Signal names without SIG, and their numbers; the real-time ones are written RTMIN+n."""

_UNCATCHABLE = {int(signal.SIGKILL), int(signal.SIGSTOP)}
_KEPT = {int(signal.SIGCHLD)}
_REAL_TIME = re.compile(r"RT(MIN|MAX)(?:([+-])([0-9]{1,2}))?")
_UMASK = re.compile(r"0?[0-7]{3}|0o[0-7]{1,3}|0")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIGNAL_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": "^([Ss][Ii][Gg])?[A-Za-z][A-Za-z0-9+-]*$"},
        {"type": "integer", "minimum": 1, "maximum": 64},
    ]
}


class EnvFile(Value):
    """A file with variables for the command."""

    path: str
    required: bool = True
    """False: it may be missing."""


def _real_time(name: str) -> int | None:
    found = _REAL_TIME.fullmatch(name)
    if not found:
        return None
    end, sign, steps = found.groups()
    base = int(signal.SIGRTMIN if end == "MIN" else signal.SIGRTMAX)
    number = base + (int(steps) if sign == "+" else -int(steps)) if sign else base
    return number if signal.SIGRTMIN <= number <= signal.SIGRTMAX else None


def signal_number(value: Any) -> int:
    """The number of a signal, from its name with or without SIG in any case, or from its number."""
    if isinstance(value, int) and not isinstance(value, bool) and value in signal.valid_signals():
        return int(value)
    if isinstance(value, str):
        name = value.upper().removeprefix("SIG")
        number = SIGNALS.get(name) or _real_time(name)
        if number:
            return number
    near = value.upper().removeprefix("SIG").lower() if isinstance(value, str) else ""
    meant = suggestion(near, [name.lower() for name in SIGNALS])
    meant = re.sub(r"'(.+)'", lambda found: f"'SIG{found[1].upper()}'", meant)
    raise Refused(Reason(f"a signal such as SIGTERM, TERM or 15{meant}"))


def signal_name(number: int) -> str:
    """The name of a signal by its number, SIG included."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


SIGNAL = Kind("signal", signal_number, _SIGNAL_SCHEMA, number_of_text)


def _sent_instead(value: Any) -> int:
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return 0
    return signal_number(value)


def _rewrite(value: Any) -> dict[int, int]:
    if not isinstance(value, dict):
        raise Refused(Reason("a mapping of signals such as {SIGHUP: SIGUSR1, SIGUSR2: none}"))
    rewritten: dict[int, int] = {}
    reasons: list[Reason] = []
    for name, instead in value.items():
        try:
            received = signal_number(name)
        except Refused as refused:
            reasons.append(Reason(refused.reasons[0].expected, (name,), f"the key {shown(name)}"))
            continue
        if received in _UNCATCHABLE | _KEPT:
            reasons.append(Reason("a signal that can be caught and forwarded", (name,), f"the key {shown(name)}"))
        elif received in rewritten:
            reasons.append(Reason("each signal only once", (name,), f"the key {shown(name)}"))
        try:
            rewritten[received] = _sent_instead(instead)
        except Refused as refused:
            expected = refused.reasons[0].expected.replace("15", "15, or none to drop it", 1)
            reasons.append(Reason(expected, (name,), shown(instead)))
    if reasons:
        raise Refused(*reasons)
    return rewritten


REWRITE = Kind(
    "mapping of signals",
    _rewrite,
    {"type": "object", "additionalProperties": {"anyOf": [*_SIGNAL_SCHEMA["anyOf"], {"type": "null"}]}},
    None,
)


def _umask(value: Any) -> int:
    if isinstance(value, int) and value == 0 and not isinstance(value, bool):
        return 0
    if isinstance(value, str) and _UMASK.fullmatch(value):
        return int(value.removeprefix("0o"), 8)
    quotes = "; a number without quotes may be decimal or octal" if isinstance(value, int) else ""
    raise Refused(Reason(f'three octal digits in quotes such as "027"{quotes}'))


UMASK = Kind("octal text", _umask, {"anyOf": [{"type": "string", "pattern": "^(0?[0-7]{3}|0)$"}, {"const": 0}]})


def _command(value: Any) -> tuple[str, ...]:
    expected = "a list of a program and its arguments such as [sleep, infinity]"
    if not isinstance(value, (list, tuple)) or not value:
        raise Refused(Reason(expected))
    reasons = [
        Reason("a text; put it in quotes", (at,), shown(word)) for at, word in enumerate(value) if not is_text(word)
    ]
    if value[0] == "":
        reasons.append(Reason("the name of a program", (0,), "''"))
    if reasons:
        raise Refused(*reasons)
    return tuple(value)


def split_command(text: str) -> Any:
    """The words of a command in a variable, as a shell divides them. Raises ValueError for an open quote."""
    return shlex.split(text)


COMMAND = Kind("list of texts", _command, {"type": "array", "items": {"type": "string"}, "minItems": 1}, None)


def is_variable(name: Any) -> bool:
    """The name of an environment variable as a shell can use it."""
    return isinstance(name, str) and bool(_VARIABLE.fullmatch(name))


def _env(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Refused(Reason("a mapping of variables such as {LOG_LEVEL: debug}", (), kind_of(value)))
    reasons = []
    for name, text in value.items():
        if not is_variable(name):
            reasons.append(Reason("letters, digits and _ as in LOG_LEVEL", (name,), f"the name {shown(name)}"))
        if not is_text(text):
            quotes = "; put it in quotes" if isinstance(text, (bool, int, float)) else ""
            reasons.append(Reason(f"a text{quotes}", (name,), kind_of(text)))
    if reasons:
        raise Refused(*reasons)
    return dict(value)


ENV = Kind(
    "mapping of texts",
    _env,
    {
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "additionalProperties": {"type": "string"},
    },
    None,
    secret=True,
)


def _env_file(value: Any, at: tuple[int, ...]) -> EnvFile | list[Reason]:
    if is_text(value) and value:
        return EnvFile(value)
    if not isinstance(value, dict):
        return [Reason("a path, or a mapping such as {path: /etc/default/demo, required: false}", at, shown(value))]
    reasons = [
        Reason(f"path or required{suggestion(key, ('path', 'required'))}", (*at, key), f"the key {shown(key)}")
        for key in value
        if key not in ("path", "required")
    ]
    path, required = value.get("path"), value.get("required", True)
    if not is_text(path) or not path:
        reasons.append(Reason("path: the path of a file", at, f"path: {shown(path)}"))
    if not isinstance(required, bool):
        reasons.append(Reason("required: true or false", (*at, "required"), shown(required)))
    return reasons or EnvFile(path, required)  # type: ignore[arg-type]  # a path by now


def _env_files(value: Any) -> tuple[EnvFile, ...]:
    several = isinstance(value, (list, tuple))
    found = [_env_file(one, (at,) if several else ()) for at, one in enumerate(value if several else [value])]
    reasons = [reason for one in found if isinstance(one, list) for reason in one]
    if reasons:
        raise Refused(*reasons)
    return tuple(one for one in found if isinstance(one, EnvFile))


def _env_file_schema() -> dict[str, Any]:
    path = {"type": "string", "minLength": 1}
    properties = {"path": path, "required": {"type": "boolean"}}
    entry = {"type": "object", "properties": properties, "required": ["path"], "additionalProperties": False}
    one: dict[str, Any] = {"anyOf": [path, entry]}
    return {"anyOf": [path, entry, {"type": "array", "items": one}]}


ENV_FILES = Kind("path, or list of paths or of `{path, required}`", _env_files, _env_file_schema(), None)


def _exit_codes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)):
        raise Refused(Reason("a list of exit codes such as [0, 3]"))
    reasons = [
        Reason("an exit code from 0 to 255", (at,), shown(code))
        for at, code in enumerate(value)
        if isinstance(code, bool) or not isinstance(code, int) or not 0 <= code <= 255
    ]
    if reasons:
        raise Refused(*reasons)
    return tuple(dict.fromkeys(value))


EXIT_CODES = Kind(
    "list of integers",
    _exit_codes,
    {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
    None,
)
