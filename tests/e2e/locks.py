"""Leases that a test can look at, take away and make unreachable, behind the instances' backs."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import socket
import threading
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from awaitelect.core.lease import Record
from awaitelect.errors import Conflict
from awaitelect.stores.file import FileStore
from awaitelect.stores.wire import parse_record
from awaitelect.values import changed
from tests.envtest import ControlPlane

T = TypeVar("T")

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


class Lock(Protocol):
    pace: float
    """Seconds between two looks at it: one on a cluster costs a TLS connection, and instances need the processor."""

    def section(self) -> dict[str, Any]:
        """`lock` of the configuration."""

    def record(self) -> Record | None:
        """What the lease says now."""

    def take(self, holder: str) -> None:
        """Make somebody else its holder, as a broken client or a person could."""

    def delete(self) -> None:
        """Delete the lease."""

    def outage(self) -> contextlib.AbstractContextManager[None]:
        """While this is entered, no instance can read or write it."""


class FileLock:
    pace = 0.01

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lease"
        self._store = FileStore(str(self.path))

    def section(self) -> dict[str, Any]:
        return {"backend": "file", "path": str(self.path)}

    def record(self) -> Record | None:
        return _run(self._store.read(1)).record

    def take(self, holder: str) -> None:
        _run(self._take(holder))

    async def _take(self, holder: str) -> None:
        while True:
            seen = await self._store.read(1)
            assert seen.record is not None
            taken = changed(seen.record, holder=holder, duration=1, transitions=seen.record.transitions + 1)
            with contextlib.suppress(Conflict):
                await self._store.update(seen, taken, 1)
                return

    def delete(self) -> None:
        gone = self.path.with_name("gone")
        self.path.rename(gone)
        shutil.rmtree(gone)

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """A file stands where the folder was: root is kept out too, and the lease never looks deleted."""
        away = self.path.with_name("away")
        away.write_text("no folder")
        self._exchange(away)
        try:
            yield
        finally:
            self._exchange(away)

    def _exchange(self, other: Path) -> None:
        paths = (os.fsencode(self.path), os.fsencode(other))
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
        assert failed == 0, os.strerror(ctypes.get_errno())


class KubernetesLock:
    """A Lease on a real API server, with a proxy between it and the instances."""

    pace = 0.2

    def __init__(self, cluster: ControlPlane, namespace: str, name: str, folder: Path) -> None:
        self._cluster, self._namespace, self._name = cluster, namespace, name
        self._leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self.proxy = Proxy(cluster.port)
        self._kubeconfig = cluster.kubeconfig(folder / "kubeconfig", server=f"https://127.0.0.1:{self.proxy.port}")

    def section(self) -> dict[str, Any]:
        return {
            "backend": "kubernetes",
            "name": self._name,
            "namespace": self._namespace,
            "kubeconfig": self._kubeconfig,
        }

    def record(self) -> Record | None:
        status, answer = self._cluster.call("GET", f"{self._leases}/{self._name}")
        return None if status == 404 else parse_record(answer)

    def take(self, holder: str) -> None:
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        known = self.record()
        assert known is not None
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": 1,
            "acquireTime": time,
            "renewTime": time,
            "leaseTransitions": known.transitions + 1,
        }
        status, answer = self._cluster.call("PATCH", f"{self._leases}/{self._name}", {"spec": spec})
        assert status == 200, answer

    def delete(self) -> None:
        status, answer = self._cluster.call("DELETE", f"{self._leases}/{self._name}")
        assert status == 200, answer

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """Nothing gets through, and nothing is refused: as in a network that loses all packets."""
        self.proxy.is_open.clear()
        try:
            yield
        finally:
            self.proxy.is_open.set()


def _run(work: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run, which would take away the loop that pytest-asyncio has set."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


class Proxy:
    """Forwards TCP connections to a port of this machine, while `is_open`."""

    def __init__(self, port: int, server: socket.socket | None = None) -> None:
        """`server` is where it listens, in another network namespace perhaps; None: on a free port of ours."""
        self.is_open = threading.Event()
        self.is_open.set()
        self.holds = threading.Event()
        """Something has come that waits until it is open."""
        self._target = port
        self._server = server or socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self.is_open.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._server.close()
        for one in self._connections:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for one in self._connections:
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            target = socket.create_connection(("127.0.0.1", self._target))
            self._connections += [client, target]
            for source, sink in ((client, target), (target, client)):
                thread = threading.Thread(target=self._forward, args=(source, sink), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while content := source.recv(65536):
                if not self.is_open.is_set():
                    self.holds.set()
                self.is_open.wait()
                sink.sendall(content)
        except OSError:
            pass
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
