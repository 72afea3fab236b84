"""Events on the Lease and on the pod that tell of leadership, worded as client-go's are.

Events are for people who look: one that cannot be written after a few attempts is given up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from awaitelect import clock
from awaitelect.errors import Conflict, StoreError
from awaitelect.logs import Log
from awaitelect.publish.pod_label import PODS
from awaitelect.publish.pursuit import Complaints, end
from awaitelect.publish.requests import Missing, NotAllowed, Requests, Resource
from awaitelect.publish.standing import Standing
from awaitelect.stores.kubernetes_client import Pool
from awaitelect.values import Value

EVENTS = Resource("v1", "Event", "events")
BURST, REFILL = 10.0, 30.0
"""So many changes are told at once, and one more for each so many seconds."""
_TIMEOUT = 3.0
"""Seconds that a request may take."""
_TRIES, _PAUSE = 3, 0.5
"""Attempts for one event, and the seconds between them."""


class Pod(Value):
    """The pod that we are."""

    name: str
    namespace: str
    uid: str = ""
    """Empty: not known."""


class Events:
    """Tells of each term's beginning and end."""

    def __init__(self, identity: str, lock: str, pod: Pod | None, node: str, pool: Pool, log: Log) -> None:
        """`lock`: `kubernetes:NAMESPACE/NAME`. `node`: the name of our node; empty: not known."""
        self._identity, self._pod, self._log = identity, pod, log
        self._namespace, _, self._name = lock.removeprefix("kubernetes:").partition("/")
        self._pool = pool
        self._source = {"component": "awaitelect", **({"host": node} if node else {})}
        self._complaints = Complaints(log)
        self._tasks: set[asyncio.Task[None]] = set()
        self._led: bool | None = None
        self._left, self._counted_at = BURST, clock.now()
        self._suppressed = 0

    def note(self, standing: Standing) -> None:
        """This is how the instance stands now. Never waits."""
        leads = standing.token != 0
        # What goes on from the elector before us was told by it.
        before = standing.is_resumed if self._led is None else self._led
        self._led = leads
        if leads != before:
            self._tell("became leader" if leads else "stopped leading", standing.lease)

    @property
    def is_settled(self) -> bool:
        return not self._tasks

    async def finish(self, timeout: float) -> None:
        """Wait for what was begun, for so many seconds at most."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
            for task in list(self._tasks):
                await end(task)

    def _tell(self, what: str, lease: Any) -> None:
        now = clock.now()
        self._left = min(BURST, self._left + (now - self._counted_at) / REFILL)
        self._counted_at = now
        if self._left < 1:
            self._suppressed += 1
            self._log.debug(f"no Event for this: too many of late ({self._suppressed} left out)")
            return
        self._left -= 1
        text = f"{self._identity} {what}"
        metadata = lease.get("metadata", {}) if isinstance(lease, dict) else {}
        self._begin(
            self._post(text, "coordination.k8s.io/v1", "Lease", self._namespace, self._name, metadata.get("uid"))
        )
        if self._pod:
            self._begin(self._post_on_pod(text, self._pod))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post_on_pod(self, text: str, pod: Pod) -> None:
        if not pod.uid:
            # By the uid alone `kubectl describe` finds it; an Event without one is better than none.
            try:
                found = await Requests(self._pool, PODS, pod.namespace).send("get", pod.name, _TIMEOUT)
                uid = (found or {}).get("metadata", {}).get("uid", "")
                self._pod = pod = Pod(pod.name, pod.namespace, uid)
            except StoreError as error:
                self._log.debug(f"the pod's uid is not known: {error}")
        await self._post(text, "v1", "Pod", pod.namespace, pod.name, pod.uid)

    async def _post(self, text: str, version: str, kind: str, namespace: str, name: str, uid: str | None) -> None:
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        unique = f"{name[:230]}.{time.time_ns():x}"
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": unique, "namespace": namespace},
            "involvedObject": {
                "apiVersion": version,
                "kind": kind,
                "namespace": namespace,
                "name": name,
                **({"uid": uid} if uid else {}),
            },
            "type": "Normal",
            "reason": "LeaderElection",
            "message": text,
            "source": self._source,
            "reportingComponent": "awaitelect",
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
        requests = Requests(self._pool, EVENTS, namespace)
        for tries in range(1, _TRIES + 1):
            try:
                await requests.send("create", unique, _TIMEOUT, event)
                return
            except Conflict:
                return  # it exists: an earlier attempt was stored, and its answer lost
            except StoreError as error:
                if isinstance(error, (NotAllowed, Missing)) or tries == _TRIES:
                    self._complaints.tell(error, "leadership goes on without that Event")
                    return
            await asyncio.sleep(_PAUSE)
