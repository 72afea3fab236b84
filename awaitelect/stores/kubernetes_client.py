"""Requests to the API server: plain dictionaries, one time-out for each call, fresh connections after a failure.

Boundary: the errors of HTTP, TLS and JSON end here as StoreUnavailable, with a reason that a person understands and
without secrets. Built on the client's REST layer without its retries and without a rate limiter.

Host names are looked up in the event loop's default executor: getaddrinfo cannot be cancelled, so a look-up that hangs
outlives its time-out, and the interpreter's exit would wait for it.
"""

from __future__ import annotations

import asyncio
import copy
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from awaitelect.errors import StoreUnavailable
from awaitelect.stores.kubernetes_access import Access, AccessSource
from awaitelect.stores.lean_aiohttp import aiohttp

_NOT_STORED = frozenset({400, 401, 403, 404, 405, 409, 413, 415, 422, 429})
"""Answers that a server gives before it stores anything."""
_KEEP_ALIVE = 90.0
"""Seconds that an idle connection is kept: more than a follower's minute between two requests."""
_MEANINGS = {
    401: "our credentials are not accepted",
    403: "not allowed",
    404: "not found",
    408: "the server waited too long",
    429: "the server is too busy",
}
# The time-outs are asyncio's, around everything: aiohttp's would round those above 5 s up, and start after the set-up.
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=None, ceil_threshold=1e9)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said, whatever the status."""

    status: int
    body: Any
    """The JSON object; None where it is not one."""
    retry_after: float | None = None

    @property
    def reason(self) -> str:
        """The machine-readable reason of a Kubernetes Status; empty for anything else."""
        return self._of_status("reason")

    @property
    def message(self) -> str:
        """The message of a Kubernetes Status on one line, cut if long; empty for anything else."""
        return " ".join(self._of_status("message").split())[:400]

    @property
    def about(self) -> str:
        """The name of the object that a Kubernetes Status speaks of."""
        details = self.body.get("details") if isinstance(self.body, dict) else None
        name = details.get("name") if isinstance(details, dict) else None
        return name if isinstance(name, str) else ""

    def _of_status(self, key: str) -> str:
        if not isinstance(self.body, dict) or self.body.get("kind") != "Status":
            return ""
        value = self.body.get(key)
        return value if isinstance(value, str) else ""

    def unavailable(self, doing: str) -> StoreUnavailable:
        """The answer as an error: `cannot DOING: …`."""
        if 200 <= self.status < 300:
            return StoreUnavailable(f"cannot {doing}: the answer ({self.status}) is not a Kubernetes object")
        meaning = _MEANINGS.get(self.status, "the server failed" if self.status >= 500 else "the server refused")
        detail = f": {self.message}" if self.message else ", and the answer is not from a Kubernetes API"
        return StoreUnavailable(
            f"cannot {doing}: {meaning} ({self.status}){detail}",
            uncertain=self.status not in _NOT_STORED,
            retry_after=self.retry_after,
        )


class _Session:
    """Connections made with one access. Retired, it serves those who use it and no others."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.connector = aiohttp.TCPConnector(
            ssl=access.tls,
            keepalive_timeout=_KEEP_ALIVE,
            resolver=aiohttp.ThreadedResolver(),
            socket_factory=_socket,
        )
        # A copy shares the TLS context: the files that it was made from may be gone.
        self.rest = copy.copy(access.template)
        self.rest.configuration = copy.copy(access.configuration)
        # The proxy is known from the access; more of the surroundings, as a ~/.netrc, is not to be trusted.
        self.rest.configuration.client_session_kwargs = {"connector": self.connector, "trust_env": False}
        self.users = 0
        self.retired = False
        self.closing: asyncio.Future[None] | None = None

    def retire(self) -> None:
        self.retired = True
        if self.users == 0:
            self.close()

    def close(self) -> None:
        """Abort the connections; the network is not waited for."""
        if self.rest.pool_manager is not None:
            self.rest.pool_manager.detach()
        if self.closing is None:
            self.closing = asyncio.ensure_future(self.connector.close(abort_ssl=True))


class Pool:
    """Keep-alive connections to the API server, for one purpose: what goes wrong on them hurts no other pool."""

    def __init__(self, source: AccessSource) -> None:
        self._source = source
        self._session: _Session | None = None
        self._closed = False

    async def request(
        self,
        method: str,
        path: str,
        doing: str,
        timeout: float,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        """The server's answer, of any status. `doing` completes "cannot …" in the error.

        `timeout` in seconds is for everything: credentials, name look-up, connection, answer. A 401 is tried once more
        if the credentials have changed since they were read. Raises StoreUnavailable, whose `uncertain` tells whether
        the request may have been carried out.
        """
        async with self._errors(doing, timeout), asyncio.timeout(timeout):
            answer, access = await self._request(method, path, body, query, content_type)
            if answer.status == 401 and (await self._source.current()).authorization != access.authorization:
                answer, access = await self._request(method, path, body, query, content_type)
            return answer

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], doing: str, timeout: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response of a GET that goes on; `timeout` seconds are for its beginning. Raises StoreUnavailable."""
        async with self._errors(doing, timeout), self._borrowed() as session:
            async with asyncio.timeout(timeout):
                response = await self._send(session, "GET", path, None, query, "application/json")
            try:
                if response.status == 401:
                    self._source.refuse(session.access)
                yield response
            finally:
                # Closed in good order, TLS would wait for a peer that may be gone.
                if response.connection is not None and response.connection.transport is not None:
                    response.connection.transport.abort()
                response.close()

    def drop(self) -> None:
        """Use none of the present connections again."""
        session, self._session = self._session, None
        if session is not None:
            session.retire()

    async def close(self) -> None:
        """End all connections, those in use too, without waiting for the network. Later requests fail at once."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            session.close()
            if session.closing is not None:
                await asyncio.wait([session.closing], timeout=0.1)

    async def _request(
        self, method: str, path: str, body: Any, query: Mapping[str, str] | None, content_type: str
    ) -> tuple[Answer, Access]:
        async with self._borrowed() as session:
            response = await self._send(session, method, path, body, query, content_type)
            try:
                answer = Answer(response.status, parse_object(await response.read()), _retry_after(response.headers))
            finally:
                response.release()
            if answer.status == 401:
                self._source.refuse(session.access)
            return answer, session.access

    async def _send(
        self,
        session: _Session,
        method: str,
        path: str,
        body: Any,
        query: Mapping[str, str] | None,
        content_type: str,
    ) -> aiohttp.ClientResponse:
        access = session.access
        url = access.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": "awaitelect"}
        if access.authorization:
            headers["Authorization"] = access.authorization
        # aiohttp sends a GET or PUT again, once, where the server has closed the idle connection that it was sent on.
        # That is wanted: every write here is conditional, so the second of two cannot overwrite anything.
        answer = await session.rest.request(method, url, headers=headers, body=body, _request_timeout=_NO_TIMEOUT)
        response: aiohttp.ClientResponse = answer.response
        return response

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[_Session]:
        access = await self._source.current()
        if self._closed:
            raise StoreUnavailable("cannot send a request: the connections are closed", uncertain=False)
        if self._session is not None and self._session.access is not access:
            self.drop()
        if self._session is None:
            self._session = _Session(access)
        session = self._session
        session.users += 1
        try:
            yield session
        finally:
            session.users -= 1
            if session.retired and session.users == 0:
                session.close()

    @asynccontextmanager
    async def _errors(self, doing: str, timeout: float) -> AsyncIterator[None]:
        session = self._session
        try:
            yield
        except (TimeoutError, aiohttp.ServerTimeoutError) as error:
            self.drop()
            who = self._source.waits_for or self._where(session)
            what = "credentials" if self._source.waits_for else "answer"
            raise StoreUnavailable(f"cannot {doing}: no {what} from {who} in {timeout:g} s") from error
        except aiohttp.ClientConnectorError as error:
            self.drop()
            reason = f"cannot {doing}: no connection to {self._where(session, error)}: {_cause(error)}"
            raise StoreUnavailable(reason, uncertain=False) from error
        except aiohttp.ClientHttpProxyError as error:
            self.drop()
            reason = f"cannot {doing}: no way to {self._where(session)}: its proxy refuses ({error.status})"
            raise StoreUnavailable(reason, uncertain=False) from error
        except (aiohttp.ClientError, OSError, ValueError, EOFError) as error:
            self.drop()
            where = self._where(session)
            raise StoreUnavailable(f"cannot {doing}: the connection to {where} broke: {_cause(error)}") from error
        except (RuntimeError, AssertionError) as error:
            # aiohttp's words for a connector that was closed under a request.
            if not self._closed:
                raise
            raise StoreUnavailable(f"cannot {doing}: the connections are closed") from error

    def _where(self, session: _Session | None, error: Exception | None = None) -> str:
        access = session.access if session is not None else self._source.known
        if access is None:
            return "the API server"
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            return f"the proxy {access.proxy}"
        return urlsplit(access.configuration.host).netloc.rpartition("@")[2] or "the API server"


def _socket(address: Any) -> socket.socket:
    """A socket that notices within half a minute that its peer is gone: a watch may otherwise be silent for long."""
    family, kind, protocol, _name, _address = address
    made = socket.socket(family, kind, protocol)
    with suppress(OSError):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    return made


def parse_object(content: bytes) -> dict[str, Any] | None:
    """A JSON object; None for anything else."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds. The other form, a date, is somebody else's clock and not used by API servers."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdecimal() and len(value) < 10 else None


def _cause(error: BaseException) -> str:
    """The reason on one line, without what the request contained."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted ({getattr(error.certificate_error, 'verify_message', '') or 'invalid'})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return " ".join((error.os_error.strerror or str(error.os_error) or type(error).__name__).split())[:300]
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it was closed by the other side"
    return type(error).__name__
