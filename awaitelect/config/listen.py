"""Listen addresses in Go's way of writing: `:9999`, `127.0.0.1:9999`, `[::1]:9999`, `:http`."""

from __future__ import annotations

import re
from typing import Any

from awaitelect.config.kinds import Kind, Reason, Refused, is_text
from awaitelect.values import Value

_EXPECTED = "an address to listen on such as ':9999', '127.0.0.1:9999' or '[::1]:9999', or '' for none"
_ADDRESS = re.compile(r"(?:\[(?P<inner>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[A-Za-z0-9._-]*)):(?P<port>[^:\[\]]*)")


class Listen(Value):
    """Where to listen."""

    host: str
    """A name or an address without brackets; empty: all addresses, of both families."""
    port: int
    """0: any that is free."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _port(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,5}", text) and int(text) <= 65535:
        return int(text)
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", text):
        import socket  # Only a named port needs it.

        try:
            return socket.getservbyname(text.lower(), "tcp")
        except OSError:
            raise Refused(Reason(f"{_EXPECTED}; no port is named {text!r}")) from None
    raise Refused(Reason(f"{_EXPECTED}; the port is a number from 0 to 65535"))


def parse_listen(value: Any) -> Listen | None:
    """The host and port of a listen address; None for the empty one. Raises Refused."""
    if value == "":
        return None
    if not is_text(value):
        raise Refused(Reason(_EXPECTED))
    if re.fullmatch(r"[0-9]+", value):
        raise Refused(Reason(f"{_EXPECTED}; the port follows a colon: ':{value[:5]}'"))
    found = _ADDRESS.fullmatch(value)
    if not found:
        brackets = "; an IPv6 address stands in brackets" if value.count(":") > 1 and "[" not in value else ""
        raise Refused(Reason(_EXPECTED + brackets))
    inner = found["inner"]
    if inner is not None and not _is_ipv6(inner):
        raise Refused(Reason(f"{_EXPECTED}; in brackets stands an IPv6 address"))
    return Listen(inner if inner is not None else found["host"], _port(found["port"]))


def _is_ipv6(text: str) -> bool:
    import socket

    try:
        socket.inet_pton(socket.AF_INET6, text.partition("%")[0])
    except OSError:
        return False
    return True


LISTEN = Kind("listen address", parse_listen, {"type": "string"})
