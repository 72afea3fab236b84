"""Asking over the network whether the command is ready, or alive.

It is done by a forked child, which is killed if it takes too long: the keeper itself touches no network.
"""

from __future__ import annotations

import socket

from awaitelect.protocol import Probe

_LONGEST = 65536
"""Bytes in which the first line of an answer must end."""


def ask(probe: Probe) -> str:
    """The trouble with the answer, on one line; empty for a good one. `probe` is http_get or tcp_socket."""
    try:
        with socket.create_connection((probe.host, probe.port), probe.timeout) as connection:
            return "" if probe.kind == "tcp_socket" else _get(probe, connection)
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        return f"{_named(probe.host)}:{probe.port}: {reason}"


def _get(probe: Probe, connection: socket.socket) -> str:
    """HTTP by hand, as far as it matters: http.client takes longer to import than most answers to come."""
    if probe.scheme == "https":
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = context.wrap_socket(connection, server_hostname=probe.host)
    headers = {"Host": f"{_named(probe.host)}:{probe.port}", "User-Agent": "awaitelect", "Accept": "*/*"}
    given = {name.lower() for name in probe.headers}
    headers = {name: value for name, value in headers.items() if name.lower() not in given} | probe.headers
    lines = [f"GET {probe.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
    answer = b""
    while b"\n" not in answer and len(answer) < _LONGEST:
        part = connection.recv(4096)
        if not part:
            break
        answer += part
    words = answer.split(b"\n")[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return f"{_named(probe.host)}:{probe.port} does not speak HTTP"
    status = int(words[1])
    return "" if 200 <= status < 400 else f"status {status} of {probe.path}"


def _named(host: str) -> str:
    return f"[{host}]" if ":" in host else host
