"""Probes in Kubernetes' form: `{http_get: {path: /ready, port: 8080}, period_seconds: 5}`; its own spelling, too."""

from __future__ import annotations

import re
from typing import Any

from awaitelect.config.kinds import Kind, Reason, Refused, is_text, shown, suggestion
from awaitelect.config.process_kinds import COMMAND
from awaitelect.protocol import Probe

_EXPECTED = "one of http_get, tcp_socket and exec, such as {http_get: {path: /healthz, port: 8080}}"
_TIMES = {
    "initial_delay_seconds": ("initial_delay", 0),
    "period_seconds": ("period", 1),
    "timeout_seconds": ("timeout", 1),
    "success_threshold": ("success_threshold", 1),
    "failure_threshold": ("failure_threshold", 1),
}
"""Kubernetes' fields, ours, and the least that they may be."""
_PARTS = {
    "http_get": ("path", "port", "host", "scheme", "http_headers"),
    "tcp_socket": ("port", "host"),
    "exec": ("command",),
}
_MOST = 86_400
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _snake(name: Any) -> Any:
    """`httpGet` as `http_get`."""
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower() if isinstance(name, str) else name


class _Reading:
    """One probe that is read: what is wrong with it so far."""

    def __init__(self) -> None:
        self.reasons: list[Reason] = []

    def probe(self, value: Any) -> Probe:
        if not isinstance(value, dict):
            raise Refused(Reason(_EXPECTED))
        known = (*_PARTS, *_TIMES)
        fields: dict[str, Any] = {}
        kinds = []
        for name, given in value.items():
            key = _snake(name)
            if key in _TIMES:
                field, least = _TIMES[key]
                fields[field] = self._whole(given, (name,), least, _MOST)
            elif key in _PARTS:
                kinds.append(key)
                fields |= {"kind": key, **self._target(key, given, name)}
            else:
                self._refuse(f"{', '.join(known)}{suggestion(key, known)}", (name,), f"the key {shown(name)}")
        if len(kinds) != 1:
            self._refuse(_EXPECTED, (), "none of them" if not kinds else " and ".join(kinds))
        if self.reasons:
            raise Refused(*self.reasons)
        return Probe(**fields)

    def _target(self, kind: str, given: Any, name: str) -> dict[str, Any]:
        if not isinstance(given, dict):
            self._refuse(f"a mapping of {', '.join(_PARTS[kind])}", (name,), shown(given))
            return {}
        parts: dict[str, Any] = {}
        for key, value in given.items():
            part, at = _snake(key), (name, key)
            if part not in _PARTS[kind]:
                self._refuse(f"{', '.join(_PARTS[kind])}{suggestion(part, _PARTS[kind])}", at, f"the key {shown(key)}")
            elif part == "port":
                parts["port"] = self._whole(value, at, 1, 65535)
            elif part == "command":
                parts["argv"] = self._command(value, at)
            elif part == "scheme":
                parts["scheme"] = str(value).lower()
                if value not in ("HTTP", "HTTPS", "http", "https"):
                    self._refuse("HTTP or HTTPS", at, shown(value))
            elif part == "http_headers":
                parts["headers"] = self._headers(value, at)
            elif not is_text(value) or not re.fullmatch(r"/[!-~]*" if part == "path" else r"[!-~]+", value):
                expected = "a path such as /healthz" if part == "path" else "a host name or address"
                self._refuse(expected, at, shown(value))
            else:
                parts[part] = value
        needed = "command" if kind == "exec" else "port"
        if not any(_snake(key) == needed for key in given):
            self._refuse(f"{needed}: {'a program and its arguments' if kind == 'exec' else 'a port'}", (name,), "none")
        return parts

    def _whole(self, value: Any, at: tuple[str, ...], least: int, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self._refuse(f"a whole number from {least} to {most}", at, shown(value))
            return least
        return value

    def _command(self, value: Any, at: tuple[str, ...]) -> list[str]:
        try:
            return list(COMMAND.parse(value))
        except Refused as refused:
            self.reasons += [Reason(one.expected, (*at, *one.at), one.found) for one in refused.reasons]
            return []

    def _headers(self, value: Any, at: tuple[str, ...]) -> dict[str, str]:
        headers: dict[str, str] = {}
        one: Any
        for one in value if isinstance(value, list) else [None]:
            fits = isinstance(one, dict) and one.keys() == {"name", "value"} and all(map(is_text, one.values()))
            if not fits or not _HEADER.fullmatch(one["name"]) or not one["value"].isprintable():
                self._refuse("a list such as [{name: Accept, value: text/plain}]", at, shown(value))
                return {}
            headers[one["name"]] = one["value"]
        return headers

    def _refuse(self, expected: str, at: tuple[str, ...], found: str) -> None:
        self.reasons.append(Reason(expected, at, found))


def _schema() -> dict[str, Any]:
    port = {"type": "integer", "minimum": 1, "maximum": 65535}
    text = {"type": "string", "minLength": 1}
    header = {
        "type": "object",
        "properties": {"name": text, "value": {"type": "string"}},
        "required": ["name", "value"],
    }
    parts: dict[str, Any] = {
        "path": {"type": "string", "pattern": "^/"},
        "port": port,
        "host": text,
        "scheme": {"enum": ["HTTP", "HTTPS", "http", "https"]},
        "http_headers": {"type": "array", "items": header},
        "command": COMMAND.schema,
    }
    properties: dict[str, Any] = {}
    for kind, names in _PARTS.items():
        properties[kind] = _object({name: parts[name] for name in names})
    for name, (_, least) in _TIMES.items():
        properties[name] = {"type": "integer", "minimum": least, "maximum": _MOST}
    return _object(properties)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    both = {spelling: one for name, one in properties.items() for spelling in (name, _camel(name))}
    return {"type": "object", "properties": both, "additionalProperties": False}


def _camel(name: str) -> str:
    """`http_get` as `httpGet`."""
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)


PROBE = Kind("probe", lambda value: _Reading().probe(value), _schema(), None)
