"""The kinds of values that say where a Service's traffic goes, and how the pod is labelled."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from awaitelect.config.kinds import Kind, Reason, Refused, is_text, shown, suggestion
from awaitelect.values import Value

PROTOCOLS = ("TCP", "UDP", "SCTP")
PORT_KEYS = ("name", "port", "protocol", "app_protocol")
_EXPECTED = "a list of ports such as [{name: rest, port: 3370, protocol: TCP}]"
_PART = "[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_DOMAIN = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
_QUALIFIED = rf"(?:(?=[^/]{{1,253}}/){_DOMAIN}/)?{_PART}"
_PORT_NAME = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


class Port(Value):
    """A port that the command serves."""

    name: str
    """As the Service's port is named; empty where it has only one."""
    port: int
    protocol: str = "TCP"
    app_protocol: str = ""
    """What is spoken there, for those who balance loads by it; empty: not said."""

    def __str__(self) -> str:
        name = f"{self.name} " if self.name else ""
        return f"{name}{self.port}/{self.protocol}" + (f" ({self.app_protocol})" if self.app_protocol else "")


def _is_qualified(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(_QUALIFIED, value))


_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (
        lambda value: value == "" or (isinstance(value, str) and bool(re.fullmatch(_PORT_NAME, value))),
        "a name of lower-case letters, digits and '-', 63 at most",
    ),
    "port": (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535,
        "a whole number from 1 to 65535",
    ),
    "protocol": (lambda value: value in PROTOCOLS, f"one of {', '.join(PROTOCOLS)}"),
    "app_protocol": (_is_qualified, "a name such as http or kubernetes.io/h2c"),
}


def _ports(value: Any) -> tuple[Port, ...]:
    if not isinstance(value, (list, tuple)):
        raise Refused(Reason(_EXPECTED))
    reasons: list[Reason] = []
    ports = [_port(one, at, reasons) for at, one in enumerate(value)]
    seen: set[str] = set()
    for at, port in enumerate(ports):
        if len(ports) > 1 and not port.name and not reasons:
            reasons.append(Reason("a name for each port where there are several", (at,), "a port without a name"))
        elif port.name in seen:
            reasons.append(Reason("each name only once", (at, "name"), repr(port.name)))
        seen.add(port.name)
    if reasons:
        raise Refused(*reasons)
    return tuple(ports)


def _port(value: Any, at: int, reasons: list[Reason]) -> Port:
    if not isinstance(value, dict):
        reasons.append(Reason("a mapping such as {name: rest, port: 3370}", (at,), shown(value)))
        return Port("", 0)
    fields: dict[str, Any] = {"name": ""}
    refused = len(reasons)
    for key, given in value.items():
        name = "app_protocol" if key == "appProtocol" else key
        if name not in _FIELDS:
            expected = f"{', '.join(PORT_KEYS)}{suggestion(key, PORT_KEYS)}"
            reasons.append(Reason(expected, (at, key), f"the key {shown(key)}"))
        elif not _FIELDS[name][0](given):
            near = suggestion(given, PROTOCOLS) if name == "protocol" else ""
            reasons.append(Reason(_FIELDS[name][1] + near, (at, key), shown(given)))
        else:
            fields[name] = given
    if "port" not in value:
        reasons.append(Reason("port: a whole number from 1 to 65535", (at,), "no port"))
    return Port(**fields) if len(reasons) == refused else Port(f"\0{at}", 0)


_TEXT = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"}
_APP_PROTOCOL = {"type": "string", "minLength": 1}
PORTS = Kind(
    "list of `{name, port, protocol, app_protocol}`",
    _ports,
    {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "name": {"anyOf": [_TEXT, {"const": ""}]},
                "port": {"type": "integer", "minimum": 1, "maximum": 65535},
                "protocol": {"enum": list(PROTOCOLS)},
                "app_protocol": _APP_PROTOCOL,
                "appProtocol": _APP_PROTOCOL,
            },
            "required": ["port"],
            "additionalProperties": False,
        },
    },
    None,
)


def _address(value: Any) -> str:
    import socket  # Only this needs it.

    expected = "an IPv4 or IPv6 address such as 10.0.0.7 or fd00::7"
    if is_text(value):
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                return socket.inet_ntop(family, socket.inet_pton(family, value))
            except OSError:
                continue
    raise Refused(Reason(expected))


ADDRESS = Kind("IP address", _address, {"type": "string", "minLength": 1})


def _label_key(value: Any) -> str:
    if not _is_qualified(value):
        raise Refused(Reason("the key of a label such as awaitelect.io/role"))
    return str(value)


LABEL_KEY = Kind("label key", _label_key, {"type": "string", "minLength": 1})


def _label_value(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(_PART, value):
        raise Refused(Reason("the value of a label: letters, digits, '-', '_' and '.', 63 at most"))
    return value


LABEL_VALUE = Kind("label value", _label_value, {"type": "string", "minLength": 1})
