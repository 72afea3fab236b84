"""The status endpoint: the pages, served over HTTP to whoever asks, at no cost to the lease.

Boundary: only this module knows HTTP. Whoever is slow, or comes in numbers, is cut off here: so many connections at
most, so much time and so many bytes for each.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import logging
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, cast

from awaitelect import clock
from awaitelect.config.listen import Listen
from awaitelect.logs import Log
from awaitelect.status import metrics, pages
from awaitelect.status.snapshot import Snapshot

RETRY = 2.0
"""Seconds until an address that could not be had is tried again."""
CONNECTIONS = 32
"""At a time; one more cuts off the oldest, so that whoever holds many keeps nobody out."""
TIME = 5.0
"""Seconds from the beginning of a connection to its end. There is one request in each."""
BYTES = 64 * 1024
"""That a client may send."""
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def is_in_pod(environ: Mapping[str, str], account: str = _ACCOUNT) -> bool:
    """Kubernetes runs us, as far as can be seen from here."""
    return "KUBERNETES_SERVICE_HOST" in environ or os.path.isdir(account)


async def serve(listen: Listen, snapshot: Callable[[], Snapshot], log: Log, *, in_pod: bool | None = None) -> None:
    """Serve until cancelled. An address that is taken is tried again, for ever.

    Without a host: on all addresses in a pod, where it is others who ask; elsewhere on this machine's own alone. Raises
    nothing: a failure is logged, and costs no lease.
    """
    try:
        await _serve(listen, snapshot, log, is_in_pod(os.environ) if in_pod is None else in_pod)
    except Exception as error:
        log.error(f"the status endpoint has failed: {type(error).__name__}: {error}")


async def _serve(listen: Listen, snapshot: Callable[[], Snapshot], log: Log, in_pod: bool) -> None:
    # In a thread, so that the time of this import stands before no renewal.
    web: Any = await asyncio.to_thread(importlib.import_module, "aiohttp.web")

    async def answer(request: Any) -> Any:
        try:
            found = await _page(request, snapshot)
        except Exception as error:
            log.error(f"the status endpoint has no answer: {type(error).__name__}: {error}")
            raise
        headers = {"Allow": found.allow} if found.allow else {}
        headers |= {"Cache-Control": "no-store", "Content-Type": found.content_type, "Server": "awaitelect"}
        response = web.Response(status=found.status, body=found.body, headers=headers)
        response.force_close()
        return response

    server = web.Server(answer, access_log=None, lingering_time=1.0, logger=_nobody_s_mistakes())
    server.request_factory = _as_http_1(server.request_factory)
    gate = _Gate(server)
    listeners = await _listen(listen, in_pod, gate, log)
    try:
        await asyncio.Event().wait()
    finally:
        for listener in listeners:
            listener.close()
        gate.close()


def _nobody_s_mistakes() -> logging.Logger:
    """Where aiohttp complains of requests that are none: whoever may reach us must not fill our log."""
    logger = logging.getLogger("awaitelect.status.http")
    logger.disabled = True
    return logger


def _as_http_1(make_request: Callable[..., Any]) -> Callable[..., Any]:
    """aiohttp would answer in any version that it is asked in. And its parser gives no address to a CONNECT without a
    target, of which its task would die, loudly.
    """
    nowhere = importlib.import_module("yarl").URL("/")
    version = importlib.import_module("aiohttp.http").HttpVersion10

    def make(message: Any, *rest: Any) -> Any:
        if message.url is None or message.version.major != 1:
            message = message._replace(url=message.url or nowhere, path=message.path or "/", version=version)
        return make_request(message, *rest)

    return make


async def _page(request: Any, snapshot: Callable[[], Snapshot]) -> pages.Page:
    if request.path != pages.METRICS_PATH:
        return pages.page(request.method, request.path, snapshot(), clock.now())
    if request.method not in ("GET", "HEAD"):
        return pages.not_allowed()
    if not metrics.is_prepared():
        await asyncio.to_thread(metrics.prepare)
    content_type, text = metrics.render(snapshot(), clock.now(), request.headers.get("Accept", ""))
    return pages.Page(200, text, content_type)


# ---------------------------------------------------------------------- who may come in


class _Gate:
    """The connections that are open."""

    def __init__(self, server: Callable[[], asyncio.BaseProtocol]) -> None:
        self._server = server
        self.open: dict[_Connection, None] = {}  # the oldest first

    def __call__(self) -> asyncio.BaseProtocol:
        return _Connection(self, cast(asyncio.Protocol, self._server()))

    def enter(self, one: _Connection) -> None:
        if len(self.open) >= CONNECTIONS:
            next(iter(self.open)).cut()
        self.open[one] = None

    def leave(self, one: _Connection) -> None:
        self.open.pop(one, None)

    def close(self) -> None:
        for one in list(self.open):
            one.cut()


class _Connection(asyncio.Protocol):
    """Passes on what a client sends, as long as it may."""

    def __init__(self, gate: _Gate, inner: asyncio.Protocol) -> None:
        self._gate, self._inner = gate, inner
        self._received = 0
        self._transport: asyncio.Transport | None = None
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._limit = asyncio.get_running_loop().call_later(TIME, self.cut)
        self._gate.enter(self)
        self._inner.connection_made(transport)

    def cut(self) -> None:
        """End the connection now, whatever is under way in it."""
        self._gate.leave(self)
        if self._transport:
            self._transport.abort()

    def data_received(self, content: bytes) -> None:
        self._received += len(content)
        if self._received > BYTES:
            self.cut()
        else:
            self._inner.data_received(content)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._gate.leave(self)
        if self._limit:
            self._limit.cancel()
        self._inner.connection_lost(error)


# ---------------------------------------------------------------------- where we listen


async def _listen(listen: Listen, in_pod: bool, gate: _Gate, log: Log) -> list[asyncio.Server]:
    loop = asyncio.get_running_loop()
    told = False
    while True:
        try:
            sockets = await _sockets(listen, in_pod)
        except OSError as error:
            if not told:
                log.error(f"cannot listen on {listen} (status.listen): {error.strerror or error}; trying again")
                told = True
            await asyncio.sleep(RETRY)
            continue
        shown = ", ".join(str(Listen(*one.getsockname()[:2])) for one in sockets)
        where = "" if listen.host or in_pod else " (outside a pod this machine alone: status.listen names no address)"
        log.info(f"status on {shown}{where}")
        return [await loop.create_server(gate, sock=one, backlog=CONNECTIONS) for one in sockets]


async def _sockets(listen: Listen, in_pod: bool) -> list[socket.socket]:
    """Listening, and nobody accepts yet. Raises OSError where one of the addresses cannot be had."""
    if listen.host in _EVERYWHERE or (not listen.host and in_pod):
        return [_everywhere(listen.port)]
    if listen.host:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    else:
        addresses = [(socket.AF_INET, ("127.0.0.1", listen.port))]
        if socket.has_ipv6:
            addresses.append((socket.AF_INET6, ("::1", listen.port, 0, 0)))
    bound: list[socket.socket] = []
    trouble: OSError | None = None
    try:
        for family, address in addresses:
            try:
                # Of a free port that was found for the first address, the others want the same.
                port = bound[0].getsockname()[1] if bound else address[1]
                bound.append(_bound(family, (address[0], port, *address[2:])))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                trouble = error  # a machine without this family, or without this address: the others may do
        if not bound:
            raise trouble or OSError(None, "no such address")
    except BaseException:
        for one in bound:
            one.close()
        raise
    return bound


def _everywhere(port: int) -> socket.socket:
    """All addresses of both families, or of the only one that there is."""
    try:
        return _bound(socket.AF_INET6, ("::", port, 0, 0), both=True)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return _bound(socket.AF_INET, ("0.0.0.0", port))


def _bound(family: int, address: tuple[Any, ...], *, both: bool = False) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both))
        one.bind(address)
        one.listen(CONNECTIONS)  # now: two may bind an address that neither listens on yet
    except BaseException:
        one.close()
        raise
    return one


_EVERYWHERE = {"0.0.0.0", "::"}  # of both families, whichever is written, as in Go
_ABSENT = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
