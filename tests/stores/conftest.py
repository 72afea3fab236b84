"""The places that the contract tests run in: memory, a folder, a real API server."""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from awaitelect.core.lease import Observed
from awaitelect.stores import LeaseStore
from awaitelect.stores.file import FileStore
from awaitelect.stores.kubernetes import KubernetesStore
from tests.envtest import ControlPlane
from tests.fakes import MemoryLease, MemoryStore


class Place(Protocol):
    """Where one lease lives, and what an operator can do to it behind the stores' backs."""

    async def store(self) -> LeaseStore: ...
    def delete(self) -> None: ...
    def edit(self, change: Callable[[dict[str, Any]], None]) -> None: ...


class MemoryPlace:
    def __init__(self) -> None:
        self.lease = MemoryLease()

    async def store(self) -> LeaseStore:
        return MemoryStore(self.lease)

    def delete(self) -> None:
        self.lease.delete()

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        change(self.lease.now.raw)
        self.lease.put(self.lease.now.raw)


class FilePlace:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "deep" / "lease"

    async def store(self) -> LeaseStore:
        return FileStore(str(self.path))

    def delete(self) -> None:
        shutil.rmtree(self.path)

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        newest = max(self.path.glob("*.json"))
        lease = json.loads(newest.read_text())
        change(lease)
        newest.write_text(json.dumps(lease))


class KubernetesPlace:
    def __init__(self, cluster: ControlPlane, folder: Path) -> None:
        self.cluster = cluster
        self.name = f"lease-{uuid.uuid4().hex[:12]}"
        self.kubeconfig = cluster.kubeconfig(folder / "kubeconfig")
        self.path = f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{self.name}"
        self._stores: list[KubernetesStore] = []

    async def store(self, **options: Any) -> KubernetesStore:
        made = await KubernetesStore.connect(
            self.name, "default", options.pop("kubeconfig", self.kubeconfig), **options
        )
        self._stores.append(made)
        return made

    def delete(self) -> None:
        status, answer = self.cluster.call("DELETE", self.path)
        assert status == 200, answer

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        _, lease = self.cluster.call("GET", self.path)
        change(lease)
        status, answer = self.cluster.call("PUT", self.path, lease)
        assert status == 200, answer

    async def close(self) -> None:
        for store in self._stores:
            await store.close()


@pytest.fixture
async def kubernetes(cluster: ControlPlane, tmp_path: Path) -> AsyncIterator[KubernetesPlace]:
    """A lease of its own on the API server."""
    place = KubernetesPlace(cluster, tmp_path)
    yield place
    await place.close()


@pytest.fixture(params=["memory", "file", "kubernetes"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A lease of its own in each kind of store."""
    if request.param == "kubernetes":
        yield request.getfixturevalue("kubernetes")
    else:
        yield MemoryPlace() if request.param == "memory" else FilePlace(tmp_path)


class Changes:
    """What a watch tells, collected as it comes."""

    def __init__(self, store: LeaseStore, since: Observed) -> None:
        self._queue: asyncio.Queue[Observed] = asyncio.Queue()
        self._task = asyncio.get_running_loop().create_task(self._collect(store, since))

    async def next(self, within: float = 10.0) -> Observed:
        async with asyncio.timeout(within):
            return await self._queue.get()

    async def until(self, wanted: Callable[[Observed], bool]) -> Observed:
        """The first change that is wanted, the ones before it dropped."""
        while not wanted(seen := await self.next()):
            pass
        return seen

    def empty(self) -> bool:
        return self._queue.empty()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _collect(self, store: LeaseStore, since: Observed) -> None:
        async for seen in store.watch(since):
            self._queue.put_nowait(seen)


@pytest.fixture
async def changes() -> AsyncIterator[Callable[[LeaseStore, Observed], Changes]]:
    """Watches that are ended with the test."""
    made: list[Changes] = []

    def watch(store: LeaseStore, since: Observed) -> Changes:
        made.append(Changes(store, since))
        return made[-1]

    yield watch
    for each in made:
        await each.close()
