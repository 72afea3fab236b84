"""A namespace of its own for each test on a real API server, and ways to it: with rights, without, and with faults."""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from awaitelect.logs import Log
from awaitelect.stores.kubernetes import KubernetesStore
from awaitelect.stores.kubernetes_client import Pool
from tests.envtest import TESTER_TOKEN, ControlPlane

PATIENCE = 20.0
"""Seconds until a test gives up on something that has to happen."""
SEED_VERBS = ("get", "watch", "list", "create", "update")
"""What the Role of k8s-await-election allows, on leases and endpoints."""


async def eventually(question: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """The first answer that is true."""
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    while not (answer := question()):
        assert loop.time() < until, f"not within {patience:g}s: {what}"
        await asyncio.sleep(0.01)
    return answer


class Said:
    """A log, and what it says."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"log-{uuid.uuid4().hex[:6]}"
        self._file: io.BufferedWriter = open(self._path, "wb")  # noqa: SIM115  # closed below
        self.log = Log(level="debug", form="text", fd=self._file.fileno())

    def lines(self, level: str = "") -> list[str]:
        """What was said at that level, without the time."""
        lines = self._path.read_text().splitlines()
        return [line.split(": ", 1)[1] for line in lines if not level or f" {level.upper()} " in line]

    @property
    def warnings(self) -> list[str]:
        return self.lines("warning") + self.lines("error")

    def close(self) -> None:
        self._file.close()


class Holding:
    """A TCP proxy that, when told to, keeps what clients send, and passes it on when it is told so, however late.

    A client that has gone meanwhile is not gone for the server before the end of the test.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self.caught = asyncio.Event()
        """Something is being held back."""
        self._all_pass = asyncio.Event()
        self._all_pass.set()
        self._present_pass = self._all_pass

    def hold(self) -> None:
        """Keep what comes on all connections, new ones too."""
        self.caught.clear()
        self._all_pass.clear()

    def hold_present(self) -> None:
        """Keep what comes on the connections that there are; those that are made later work."""
        self.caught.clear()
        self._present_pass.clear()
        self._all_pass = asyncio.Event()
        self._all_pass.set()

    def release(self) -> None:
        """What comes from now on passes, and what was held back too."""
        self._present_pass.set()
        self._all_pass.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passes = self._all_pass
        upstream, sink = await asyncio.open_connection("127.0.0.1", self._target)

        async def there() -> None:
            with suppress(ConnectionError):
                while content := await reader.read(65536):
                    if not passes.is_set():
                        self.caught.set()
                        await passes.wait()
                    sink.write(content)
            await asyncio.Event().wait()

        async def back() -> None:
            while content := await upstream.read(65536):
                with suppress(ConnectionError):
                    writer.write(content)

        try:
            await asyncio.gather(there(), back())
        except ConnectionError:
            pass
        finally:
            writer.close()
            sink.close()


class Site:
    """A namespace, and connections to its API server."""

    def __init__(self, cluster: ControlPlane, folder: Path) -> None:
        self.cluster, self._folder = cluster, folder
        self.namespace = cluster.create_namespace(f"p{uuid.uuid4().hex[:10]}")
        self._closing: list[Callable[[], Awaitable[None]]] = []

    async def pool(self, token: str | None = None, port: int | None = None) -> Pool:
        """Connections as admin, or by a token; directly, or through a port of this machine."""
        path = self._folder / f"kubeconfig-{uuid.uuid4().hex[:6]}"
        user = {"token": token} if token else None
        self.cluster.kubeconfig(path, user, server=f"https://127.0.0.1:{port or self.cluster.port}")
        store = await KubernetesStore.connect("unused", self.namespace, str(path))
        pool = store.pool()
        self._closing += [store.close, pool.close]
        return pool

    async def poor_pool(self, allowed: dict[str, tuple[str, ...]]) -> Pool:
        """Connections of somebody who may do only that: resource → verbs."""
        groups = {"endpointslices": "discovery.k8s.io", "leases": "coordination.k8s.io"}
        for resource, verbs in allowed.items():
            self.cluster.allow(self.namespace, *verbs, group=groups.get(resource, ""), resource=resource)
            await self._until_known(resource, groups.get(resource, ""), verbs[0])
        return await self.pool(TESTER_TOKEN)

    async def _until_known(self, resource: str, group: str, verb: str) -> None:
        review = {
            "spec": {
                "user": "tester",
                "resourceAttributes": {
                    "namespace": self.namespace, "verb": verb, "group": group, "resource": resource
                },
            }
        }  # fmt: skip
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        await eventually(
            lambda: self.cluster.call("POST", path, review)[1]["status"]["allowed"], f"RBAC knows of {resource}"
        )

    async def holding(self) -> Holding:
        """A proxy before the API server."""
        proxy = Holding(self.cluster.port)
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.add(asyncio.get_running_loop().create_task(proxy.serve(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]

        async def close() -> None:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._closing.append(close)
        return proxy

    def call(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = self.cluster.call(method, path.replace("NS", self.namespace), body)
        assert status in (200, 201, 404), answer
        return answer if status != 404 else None

    def slices(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", "/apis/discovery.k8s.io/v1/namespaces/NS/endpointslices")[
            "items"
        ]
        return found

    def slice(self, name: str = "web-awaitelect-ipv4") -> Any:
        return self.call("GET", f"/apis/discovery.k8s.io/v1/namespaces/NS/endpointslices/{name}")

    def endpoints(self, name: str = "web") -> Any:
        return self.call("GET", f"/api/v1/namespaces/NS/endpoints/{name}")

    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", "/api/v1/namespaces/NS/events")["items"]
        return found

    def create_pod(self, name: str = "web-0", **labels: str) -> Any:
        """A pod that nobody runs."""
        if self.call("GET", "/api/v1/namespaces/NS/serviceaccounts/default") is None:
            self.call("POST", "/api/v1/namespaces/NS/serviceaccounts", {"metadata": {"name": "default"}})
        spec = {"containers": [{"name": "one", "image": "none"}], "automountServiceAccountToken": False}
        return self.call(
            "POST", "/api/v1/namespaces/NS/pods", {"metadata": {"name": name, "labels": labels}, "spec": spec}
        )

    def pod(self, name: str = "web-0") -> Any:
        return self.call("GET", f"/api/v1/namespaces/NS/pods/{name}")

    async def close(self) -> None:
        for close in reversed(self._closing):
            await close()


def answered(site: Site, api: str) -> int:
    """How many writes of that kind the API server has answered, by its own count."""
    found = 0
    for line in site.call("GET", "/metrics").splitlines():
        if line.startswith("apiserver_request_total{") and f'resource="{api}"' in line:
            if 'verb="POST"' in line or 'verb="PUT"' in line or 'verb="PATCH"' in line:
                found += int(float(line.rsplit(" ", 1)[1]))
    return found


@pytest.fixture
async def site(cluster: ControlPlane, tmp_path: Path) -> AsyncIterator[Site]:
    one = Site(cluster, tmp_path)
    yield one
    await one.close()


@pytest.fixture
def said(tmp_path: Path) -> Any:
    one = Said(tmp_path)
    yield one
    one.close()
