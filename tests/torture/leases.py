"""The lease that is tortured, and what a person or a broken client can do to it.

Whoever takes it away leaves it for a whole lease duration, as every candidate does: one who lets it run out earlier
than its rightful holder has been promised breaks the promise himself, and no instance that cannot see him could do
anything about it. For the same reason nobody shortens its duration.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from awaitelect.core.lease import Observed, Record
from awaitelect.errors import Conflict
from awaitelect.stores.file import FileStore
from awaitelect.stores.wire import INSTANCE, merge_record, parse_record
from awaitelect.values import changed
from tests.e2e.locks import FileLock
from tests.envtest import ControlPlane
from tests.misbehaving import Wire
from tests.torture.history import FileHistory, History, KubernetesHistory

THIEF = "thief"
EDITS = ("labelled", "longer", "its times absurd", "its transitions set back", "the mark of its instance removed")


class NotThere(Exception):
    """There is nothing to strike at."""


class Lease(Protocol):
    """What the faults need of it."""

    def section(self, wire: Wire | None) -> dict[str, Any]:
        """`lock` of the configuration of an instance that has this wire."""

    def history(self) -> History: ...

    def steal(self) -> None:
        """Somebody else holds it. Raises NotThere, as the others."""

    def empty(self) -> None:
        """Its holder is wiped, unsigned."""

    def edit(self, how: str) -> None:
        """Change it in one of the ways of EDITS."""

    def delete(self) -> None: ...


def edited(record: Record, how: str, lease: int, wall: datetime) -> Record:
    """The record after an edit that an editor may make; labels are not in it."""
    match how:
        case "longer":
            return changed(record, duration=2 * lease)
        case "its times absurd":
            return changed(record, renew_time=wall + timedelta(days=400), acquire_time=wall - timedelta(days=4000))
        case "its transitions set back":
            return changed(record, transitions=0)
        case "the mark of its instance removed":
            return changed(record, instance="")
    return record


def stolen(record: Record, lease: int, wall: datetime) -> Record:
    return changed(
        record,
        holder=THIEF,
        duration=lease,
        acquire_time=wall,
        renew_time=wall,
        transitions=record.transitions + 1,
        released_by="",
    )


class KubernetesLease:
    """A Lease on a real API server."""

    def __init__(self, cluster: ControlPlane, namespace: str, name: str, duration: float, folder: Path) -> None:
        self.cluster = cluster
        self._namespace, self._name, self._folder = namespace, name, folder
        self._duration = math.ceil(duration)
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"

    def section(self, wire: Wire | None) -> dict[str, Any]:
        assert wire is not None
        file = self._folder / f"kubeconfig-{wire.port}"
        if not file.exists():
            self.cluster.kubeconfig(file, server=f"https://127.0.0.1:{wire.port}")
        return {
            "backend": "kubernetes",
            "name": self._name,
            "namespace": self._namespace,
            "kubeconfig": str(file),
        }

    def history(self) -> History:
        return KubernetesHistory(self.cluster, self._namespace, self._name)

    def steal(self) -> None:
        self._change(lambda record: stolen(record, self._duration, datetime.now(UTC)))

    def empty(self) -> None:
        self._change(lambda record: changed(record, holder=""))

    def edit(self, how: str) -> None:
        if how == "labelled":
            self._call("PATCH", {"metadata": {"labels": {"team": "billing"}, "annotations": {"note": "who did that?"}}})
        elif how == "the mark of its instance removed":
            self._call("PATCH", {"metadata": {"annotations": {INSTANCE: None}}})
        else:
            self._change(lambda record: edited(record, how, self._duration, datetime.now(UTC)))

    def delete(self) -> None:
        self._call("DELETE", None)

    def _change(self, change: Any) -> None:
        while True:
            lease = self._call("GET", None)
            status = self._try("PUT", merge_record(lease, change(parse_record(lease))))[0]
            if status != 409:
                return

    def _call(self, method: str, body: Any) -> Any:
        status, answer = self._try(method, body)
        if status == 404:
            raise NotThere("the lease")
        return answer

    def _try(self, method: str, body: Any) -> tuple[int, Any]:
        status, answer = self.cluster.call(method, self._path, body)
        if status not in (200, 404, 409):
            raise RuntimeError(f"cannot {method} the lease: {status} {answer}")
        return status, answer


class FileLease:
    """A lease in a folder, on a small disk of its own where we may have one."""

    def __init__(self, disk: Path, duration: float) -> None:
        self.disk = disk
        self._duration = math.ceil(duration)
        self.lock = FileLock(disk)
        self.path = self.lock.path

    def section(self, wire: Wire | None) -> dict[str, Any]:
        return self.lock.section()

    def history(self) -> History:
        return FileHistory(self.path)

    def steal(self) -> None:
        self._change(lambda seen: stolen(seen.record or Record(), self._duration, datetime.now(UTC)))

    def empty(self) -> None:
        self._change(lambda seen: changed(seen.record or Record(), holder=""))

    def edit(self, how: str) -> None:
        def change(seen: Observed) -> Record:
            if how == "labelled":
                seen.raw["metadata"]["labels"] = {"team": "billing"}
            return edited(seen.record or Record(), how, self._duration, datetime.now(UTC))

        self._change(change)

    def delete(self) -> None:
        try:
            self.lock.delete()
        except FileNotFoundError:
            raise NotThere("the lease") from None

    def drafts(self) -> list[str]:
        """The unfinished files in the folder."""
        return [one for one in os.listdir(self.path) if one.startswith(".draft-")] if self.path.is_dir() else []

    def _change(self, change: Any) -> None:
        asyncio.run(self._keep_trying(change))

    async def _keep_trying(self, change: Any) -> None:
        store = FileStore(str(self.path))
        while True:
            seen = await store.read(1)
            if seen.record is None:
                raise NotThere("the lease")
            with contextlib.suppress(Conflict):
                await store.update(seen, change(seen), 1)
                return


def small_disk(folder: Path) -> bool:
    """Mount a disk of 256 KiB there, which is gone with our mount namespace; False where we may not."""
    run = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=755", "tmpfs", str(folder)]
    return subprocess.run(run, capture_output=True).returncode == 0


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


@contextlib.contextmanager
def full(disk: Path) -> Iterator[Any]:
    """While this is entered there is no room; call what it yields now and then, as room may come free."""
    filler = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def fill() -> None:
        with contextlib.suppress(OSError):
            while True:
                os.write(filler, bytes(4096))

    try:
        fill()
        yield fill
    finally:
        os.close(filler)
        os.unlink(disk / "filler")
