"""A label on our own pod that says whether it leads.

It is written at our start and at our own changes, and never because somebody else has changed it.
"""

from __future__ import annotations

from awaitelect.logs import Log
from awaitelect.publish.pursuit import Complaints, Pursuit
from awaitelect.publish.requests import Requests, Resource
from awaitelect.publish.standing import Standing
from awaitelect.stores.kubernetes_client import Pool

PODS = Resource("v1", "Pod", "pods")
_TIMEOUT = 3.0
"""Seconds that a request may take."""


class PodLabel:
    """One label with two values."""

    def __init__(self, key: str, leader: str, follower: str, pod: str, namespace: str, pool: Pool, log: Log) -> None:
        self._key, self._leader, self._follower, self._pod, self._log = key, leader, follower, pod, log
        self._requests = Requests(pool, PODS, namespace)
        # Two patches at once could arrive in the wrong order: the second waits for the end of the first.
        self._pursuit = Pursuit(
            f"label {key} on pod {namespace}/{pod}", self._attempt, Complaints(log), cancels=False, persists=False
        )

    def note(self, standing: Standing) -> None:
        """This is how the instance stands now. Never waits."""
        value = self._leader if standing.leads else self._follower
        if value != self._pursuit.wish:
            self._pursuit.want(value)

    @property
    def is_settled(self) -> bool:
        return self._pursuit.is_settled

    async def finish(self, timeout: float) -> None:
        """Wait for what was begun, for so many seconds at most."""
        await self._pursuit.finish(timeout)

    async def _attempt(self, value: str) -> None:
        await self._requests.send("patch", self._pod, _TIMEOUT, {"metadata": {"labels": {self._key: value}}})
        self._log.debug(f"the pod is labelled {self._key}={value}")
