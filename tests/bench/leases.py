"""Leases to share, on files and on a real API server, and what the bench sees of their changes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, cast

from awaitelect.core.lease import Observed, Record
from awaitelect.stores import LeaseStore
from awaitelect.stores.file import FileStore
from awaitelect.stores.wire import merge_record
from tests.bench.instances import PATIENCE, now
from tests.envtest import ADMIN_TOKEN, ControlPlane

NAMESPACE = "bench"


class Lease:
    """One lease. `kind` is file or kubernetes."""

    kind = ""
    lock = ""
    environment: dict[str, str] = {}
    """What an instance needs besides `--lock`."""

    async def store(self) -> LeaseStore:
        """The bench's own access to it."""
        raise NotImplementedError

    def hold_by(self, holder: str) -> None:
        """Create it, held by somebody who does not run, for an hour."""
        moment = datetime.now(UTC)
        asyncio.run(self._create(Record(holder, 3600, moment, moment)))

    async def _create(self, record: Record) -> None:
        store = await self.store()
        try:
            await store.create(record, PATIENCE)
        finally:
            await store.close()


class FileLease(Lease):
    kind = "file"

    def __init__(self, folder: Path, name: str) -> None:
        self._path = str(folder / name)
        self.lock = f"file:{self._path}"

    async def store(self) -> LeaseStore:
        return FileStore(self._path)


class KubernetesLease(Lease):
    kind = "kubernetes"

    def __init__(self, cluster: ControlPlane, folder: Path, name: str, token: str = ADMIN_TOKEN) -> None:
        """`token`: as whom the instances speak to the server."""
        cluster.create_namespace(NAMESPACE)
        self._name = name
        self._kubeconfig = cluster.kubeconfig(folder / f"kubeconfig-{name}-{token}", {"token": token})
        self.lock = f"kubernetes:{NAMESPACE}/{name}"
        self.environment = {"AWAITELECT_LOCK_KUBECONFIG": self._kubeconfig}
        self._cluster = cluster

    async def store(self) -> LeaseStore:
        from awaitelect.stores.kubernetes import KubernetesStore

        return cast(LeaseStore, await KubernetesStore.connect(self._name, NAMESPACE, self._kubeconfig))

    def hold_by(self, holder: str) -> None:
        moment = datetime.now(UTC)
        named: dict[str, Any] = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        lease = merge_record({**named, "metadata": {"name": self._name}}, Record(holder, 3600, moment, moment))
        path = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
        status, answer = self._cluster.call("POST", path, lease)
        assert status == 201, answer


class Change(NamedTuple):
    """The lease as it came to be."""

    at: float
    """The instant at which the bench saw it."""
    observed: Observed

    @property
    def holder(self) -> str:
        return self.observed.record.holder if self.observed.record else ""


class Changes:
    """Watches a lease on a thread of its own while it is entered."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._seen: list[Change] = []
        self._news = threading.Condition()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> Changes:
        self._thread.start()
        assert self._ready.wait(PATIENCE), f"{self._lease.lock} cannot be watched"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(5)

    @property
    def seen(self) -> list[Change]:
        """All changes so far."""
        with self._news:
            return list(self._seen)

    def next(self, after: float, wanted: Callable[[Change], bool] = bool, patience: float = PATIENCE) -> Change:
        """The first change of that kind seen after the instant; waits for it."""
        with self._news:
            found: list[Change] = []

            def is_there() -> bool:
                found[:] = [one for one in self._seen if one.at > after and wanted(one)][:1]
                return bool(found)

            if not self._news.wait_for(is_there, patience):
                raise TimeoutError(f"no such change of {self._lease.lock} within {patience:g} s")
            return found[0]

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._watch())
        self._loop.close()

    async def _watch(self) -> None:
        store = await self._lease.store()
        watching = asyncio.create_task(self._follow(store))
        await asyncio.wait({watching, asyncio.create_task(self._end.wait())}, return_when=asyncio.FIRST_COMPLETED)
        watching.cancel()
        await asyncio.wait({watching})
        await store.close()

    async def _follow(self, store: LeaseStore) -> None:
        first = await store.read(PATIENCE)
        self._note(first)
        self._ready.set()
        async with aclosing(cast(Any, store.watch(first))) as changes:
            async for observed in changes:
                self._note(observed)

    def _note(self, observed: Observed) -> None:
        at = now()
        with self._news:
            self._seen.append(Change(at, observed))
            self._news.notify_all()
