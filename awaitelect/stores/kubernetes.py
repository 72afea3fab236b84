"""The lease on Kubernetes.

Boundary: only this module knows the Lease API (coordination.k8s.io/v1). A lease is kept as the plain object that the
server sent, so that whatever others have put into it survives an update.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from awaitelect.core.lease import Observed, Record
from awaitelect.errors import Conflict, StoreUnavailable
from awaitelect.stores.kubernetes_access import SERVICE_ACCOUNT, AccessSource
from awaitelect.stores.kubernetes_client import Answer, Pool, parse_object
from awaitelect.stores.lean_aiohttp import aiohttp
from awaitelect.stores.wire import merge_record, parse_record, parse_version

_log = logging.getLogger("awaitelect.stores")

_WATCH_SECONDS = 300
"""How long the server is asked to keep one watch open."""
_SILENCE = _WATCH_SECONDS + 15.0
"""Seconds after which a watch that has not ended is taken for dead."""
_FIRST_BYTE = 15.0
"""Seconds in which a watch must begin and a read of its own must end."""
_LONGEST_LINE = 8 * 2**20
_BACKOFF = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts of a watch that fails, each times a random 0.5 to 1; the last is repeated."""
_HEALTHY = 10.0
"""Seconds after which a watch that ends has not failed."""
_WATCH_AGAIN = 180.0
"""Seconds of polling after which a watch that was forbidden is tried again."""


class KubernetesStore:
    """One Lease in one namespace. `connect` makes one."""

    def __init__(self, name: str, namespace: str, source: AccessSource, poll_period: float = 2.0) -> None:
        """`poll_period`: seconds between looks where watching is forbidden."""
        self._name = name
        self._namespace = namespace
        self._source = source
        self._poll_period = poll_period
        self._pool = Pool(source)
        # On its own connections: a broken watch costs no write its connection, nor the other way round.
        self._watch_pool = Pool(source)
        self._may_watch = True
        self._leases = f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace, safe='')}/leases"
        self._lease = f"{self._leases}/{quote(name, safe='')}"

    @classmethod
    async def connect(
        cls,
        name: str,
        namespace: str | None = None,
        kubeconfig: str | None = None,
        context: str | None = None,
        *,
        poll_period: float = 2.0,
        service_account: Path = SERVICE_ACCOUNT,
    ) -> KubernetesStore:
        """A store whose configuration was read; the network is not touched, a credential plugin not waited for.

        An explicit `kubeconfig` wins, a `context` means a kubeconfig; without both: in-cluster, KUBECONFIG,
        ~/.kube/config. Without a `namespace`: the service account's, the context's, `default`. Raises ConfigError.
        """
        source = AccessSource(kubeconfig, context, service_account)
        named = await source.prepare()
        return cls(name, namespace or named, source, poll_period)

    @property
    def lock(self) -> str:
        """`kubernetes:NAMESPACE/NAME`."""
        return f"kubernetes:{self._namespace}/{self._name}"

    def pool(self) -> Pool:
        """Connections with the same credentials for somebody else's requests, who closes them."""
        return Pool(self._source)

    async def read(self, timeout: float) -> Observed:
        """The Lease as it is now. Raises StoreUnavailable."""
        return await self._read(self._pool, timeout)

    async def create(self, record: Record, timeout: float) -> Observed:
        """POST the Lease. Raises Conflict where it exists, StoreUnavailable otherwise."""
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
        }
        doing = f"create {self.lock}"
        answer = await self._pool.request("POST", self._leases, doing, timeout, merge_record(lease, record))
        if answer.status == 409 and answer.reason == "AlreadyExists":
            raise Conflict(f"cannot {doing}: it exists")
        return self._stored(answer, doing)

    async def update(self, base: Observed, record: Record, timeout: float) -> Observed:
        """PUT the Lease over the very object and version of `base`.

        Raises Conflict where it has changed, is gone, or was made anew (its uid stands in the request), and
        StoreUnavailable otherwise. A record that changes nothing is not written: the answer has the version of `base`.
        """
        doing = f"update {self.lock}"
        lease = merge_record(base.raw, record)
        # Without a version the server would write unconditionally.
        if base.record is None or not base.version:
            raise Conflict(f"cannot {doing}: there was none")
        lease["metadata"]["resourceVersion"] = str(base.version)
        answer = await self._pool.request("PUT", self._lease, doing, timeout, lease)
        if answer.status == 409 and answer.reason in ("Conflict", "AlreadyExists"):
            raise Conflict(f"cannot {doing}: it has changed")
        if self._is_absent(answer):
            raise Conflict(f"cannot {doing}: it is gone")
        return self._stored(answer, doing)

    async def watch(self, since: Observed) -> AsyncIterator[Observed]:
        """Each change after `since`; polls where watching is forbidden, which is logged once."""
        watch = _Watch(since)
        loop = asyncio.get_running_loop()
        failures, polling_ends_at = 0, 0.0
        while True:
            began_at = loop.time()
            polls = began_at < polling_ends_at
            try:
                async with aclosing(self._poll(watch) if polls or watch.has_gap else self._stream(watch)) as changes:
                    async for seen in changes:
                        failures = 0
                        yield seen
                if polls:
                    watch.has_gap = True
                    await asyncio.sleep(self._poll_period * random.uniform(1.0, 1.2))
                continue
            except _Forbidden as error:
                watch.has_gap = True
                polling_ends_at = loop.time() + _WATCH_AGAIN
                if self._may_watch:
                    self._may_watch = False
                    _log.warning("%s; looking every %g s instead", error, self._poll_period)
                continue
            except StoreUnavailable as error:
                _log.debug("%s", error)
            except Exception:
                # The watch is a hint that must not end: whatever is wrong, the next attempt starts from a fresh look.
                watch.has_gap = True
                _log.exception("cannot watch %s: an error of awaitelect's own", self.lock)
            failures = 0 if loop.time() - began_at > _HEALTHY else failures
            watch.has_gap = watch.has_gap or failures > 0
            await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF) - 1)] * random.uniform(0.5, 1.0))
            failures += 1

    async def close(self) -> None:
        """Abort all connections."""
        self._source.close()
        await self._pool.close()
        await self._watch_pool.close()

    async def _read(self, pool: Pool, timeout: float) -> Observed:
        doing = f"read {self.lock}"
        answer = await pool.request("GET", self._lease, doing, timeout)
        if self._is_absent(answer):
            return Observed()
        return self._stored(answer, doing)

    async def _poll(self, watch: _Watch) -> AsyncGenerator[Observed, None]:
        seen = await self._read(self._watch_pool, _FIRST_BYTE)
        watch.has_gap = False
        if watch.is_news(seen):
            yield seen

    async def _stream(self, watch: _Watch) -> AsyncGenerator[Observed, None]:
        """The changes of one watch request, until it ends."""
        doing = f"watch {self.lock}"
        query = {
            "watch": "1",
            "fieldSelector": f"metadata.name={self._name}",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        # Without a version the server begins with what there is.
        if watch.version:
            query["resourceVersion"] = str(watch.version)
        async with self._watch_pool.stream(self._leases, query, doing, _FIRST_BYTE) as response:
            if response.status != 200:
                watch.has_gap = True
                raise await self._refusal(response, doing)
            lines = _lines(response)
            while not watch.has_gap:
                # Around each line, never around the yield: a time-out cancels whoever has the generator run.
                async with asyncio.timeout(_SILENCE):
                    line = await anext(lines, None)
                if line is None:
                    raise StoreUnavailable(f"cannot {doing}: it ended")
                seen = watch.understand(line, self._name)
                if seen is not None and watch.is_news(seen):
                    yield seen
        raise StoreUnavailable(f"cannot {doing}: it must begin anew")

    async def _refusal(self, response: aiohttp.ClientResponse, doing: str) -> StoreUnavailable:
        async with asyncio.timeout(_FIRST_BYTE):
            content = await response.content.read(65536)
        error = Answer(response.status, parse_object(content)).unavailable(doing)
        return _Forbidden(str(error)) if response.status == 403 else error

    def _is_absent(self, answer: Answer) -> bool:
        """The API itself says that this Lease does not exist; a proxy's or an unknown API's 404 says nothing of it."""
        return answer.status == 404 and answer.reason == "NotFound" and answer.about == self._name

    def _stored(self, answer: Answer, doing: str) -> Observed:
        seen = _observed(answer.body, self._name) if 200 <= answer.status < 300 else None
        if seen is None:
            raise answer.unavailable(doing)
        return seen


class _Forbidden(StoreUnavailable):
    """Watching is not allowed."""


class _Watch:
    """How far a watch has come."""

    def __init__(self, since: Observed) -> None:
        self.version = since.version
        """Where the next request goes on; 0: not known."""
        self.has_gap = False
        """Changes may have been missed: look before going on."""
        self._last = since

    def is_news(self, seen: Observed) -> bool:
        """It differs from what the watcher was last told; if so, it counts as told."""
        self.version = seen.version
        same = seen.record == self._last.record and (seen.record is None or seen.version == self._last.version)
        if not same:
            self._last = seen
        return not same

    def understand(self, line: bytes, name: str) -> Observed | None:
        """The change that a line of the stream tells; None for a bookmark and for lines that open a gap."""
        event = parse_object(line)
        body = event.get("object") if event else None
        kind = event.get("type") if event else None
        if kind == "BOOKMARK" and isinstance(body, dict):
            self.version = _version(body) or self.version
            return None
        seen = _observed(body, name) if kind in ("ADDED", "MODIFIED", "DELETED") else None
        if seen is None:
            self.has_gap = True
        elif kind == "DELETED":
            return Observed(seen.version)
        return seen


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The lines of a response, however long (aiohttp's own iteration refuses those beyond its buffer)."""
    rest = b""
    async for chunk in response.content.iter_any():
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            if line.strip():
                yield line
        if len(rest) > _LONGEST_LINE:
            raise StoreUnavailable("cannot watch: the server sent a line without end")


def _version(lease: dict[str, Any]) -> int:
    metadata = lease.get("metadata")
    return parse_version(metadata.get("resourceVersion")) if isinstance(metadata, dict) else 0


def _observed(lease: Any, name: str) -> Observed | None:
    """The Lease; None where it is no object, has no version, or is another's."""
    if not isinstance(lease, dict) or not _version(lease) or lease["metadata"].get("name") != name:
        return None
    uid = lease["metadata"].get("uid")
    return Observed(_version(lease), parse_record(lease), lease, uid if isinstance(uid, str) else "")
