"""What the lease has said, all along: seen behind the instances' backs, by nobody's proxy."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import ssl
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from awaitelect.core.lease import Record
from awaitelect.stores.file import FileStore
from awaitelect.stores.wire import parse_record, parse_version
from tests.envtest import ADMIN_TOKEN, ControlPlane
from tests.torture.lives import now_ns


class Version(NamedTuple):
    """The lease as it was at one time."""

    seen_at: int
    """When we saw it, in nanoseconds of CLOCK_BOOTTIME: the store had it before."""
    number: int
    record: Record | None
    """None: it was deleted."""
    written_at: int | None
    """The instant just before it was written, where the record tells: of one that takes the lease from another or gives
    it back. A renewal's time may be ahead of the clock.
    """


class History(Protocol):
    versions: list[Version]
    failure: str
    """Why it does not look any more; empty while it does."""

    def __enter__(self) -> History: ...

    def __exit__(self, *_: object) -> None: ...


class _Watch:
    """Takes what is seen, in a thread of its own."""

    def __init__(self) -> None:
        self.versions: list[Version] = []
        self.failure = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        is_alive = self._thread.is_alive()
        self._stopping.set()
        self._end()
        self._thread.join(20)
        if not is_alive:
            self.failure = self.failure or "its thread has ended early"
        elif not any(one.record for one in self.versions):
            self.failure = "it has never seen the lease"

    def _keep_looking(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.failure = f"{type(error).__name__}: {error}"
            raise

    def _run(self) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        pass

    def _take(self, number: int, record: Record | None) -> None:
        last = self.versions[-1] if self.versions else None
        if last and (last.number, last.record) == (number, record):
            return
        seen_at = now_ns()
        self.versions.append(Version(seen_at, number, record, _written_at(record, last, seen_at)))


def _written_at(record: Record | None, last: Version | None, seen_at: int) -> int | None:
    if record is None or record.renew_time is None:
        return None
    before = last.record if last else None
    if before is not None and before.holder == record.holder:
        return None
    # Both clocks of this machine: the times in a record are its wall clock's.
    ahead = time.time_ns() - now_ns()
    return min(seen_at, round(record.renew_time.timestamp() * 1e9) - ahead)


class FileHistory(_Watch):
    """Of a lease in a folder."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._store = FileStore(str(path))

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(Exception):  # whatever befalls the instances befalls us: the next look tells
                seen = asyncio.run(self._store.read(1))
                self._take(seen.version, seen.record)
            time.sleep(0.01)


class KubernetesHistory(_Watch):
    """Of a Lease: a watch of our own, which resumes where it was cut."""

    def __init__(self, cluster: ControlPlane, namespace: str, name: str) -> None:
        super().__init__()
        self._port = cluster.port
        self._tls = ssl.create_default_context(cafile=str(cluster.ca))
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases?fieldSelector=metadata.name%3D{name}"
        self._since = ""
        self._connection: http.client.HTTPSConnection | None = None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if not self._since:
                    self._list()
                self._follow()
            except (OSError, ValueError, http.client.HTTPException, AttributeError):
                time.sleep(0.1)  # the server is not there: nothing changes meanwhile, or the watch tells it later

    def _end(self) -> None:
        connection = self._connection
        if connection and connection.sock:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(2)

    def _ask(self, more: str) -> http.client.HTTPResponse:
        if self._connection:
            self._connection.close()
        self._connection = http.client.HTTPSConnection("127.0.0.1", self._port, context=self._tls, timeout=10)
        self._connection.request("GET", self._path + more, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
        answer = self._connection.getresponse()
        if answer.status != 200:
            self._since = ""
            raise OSError(f"status {answer.status}")
        return answer

    def _list(self) -> None:
        found = json.loads(self._ask("").read())
        for one in found["items"]:
            self._note(one)
        self._since = found["metadata"]["resourceVersion"]

    def _follow(self) -> None:
        answer = self._ask(f"&watch=1&resourceVersion={self._since}&timeoutSeconds=60")
        while line := answer.readline():
            event = json.loads(line)
            if event["type"] == "ERROR":
                self._since = ""
                return
            self._since = event["object"]["metadata"]["resourceVersion"]
            if event["type"] == "DELETED":
                self._take(parse_version(self._since), None)
            else:
                self._note(event["object"])

    def _note(self, lease: Any) -> None:
        self._take(parse_version(lease["metadata"]["resourceVersion"]), parse_record(lease))
