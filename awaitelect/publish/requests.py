"""Requests to the API server for what is published.

Boundary: the answers end here as an object, as None for one that does not exist, as Conflict, as NotAllowed, or as
StoreUnavailable.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from awaitelect.errors import Conflict, StoreUnavailable
from awaitelect.stores.kubernetes_client import Pool
from awaitelect.values import Value

_METHODS = {"get": "GET", "create": "POST", "update": "PUT", "patch": "PATCH"}


class Resource(Value):
    """One kind of object of the API."""

    api_version: str
    """`v1`, or `GROUP/VERSION`."""
    kind: str
    plural: str

    @property
    def shown(self) -> str:
        """As a Role names it, with its API group."""
        group, slash, _ = self.api_version.partition("/")
        return f"{self.plural} (API group {group})" if slash else self.plural

    def path(self, namespace: str, name: str = "") -> str:
        """Where the objects of a namespace are, or one of them."""
        root = "/apis" if "/" in self.api_version else "/api"
        base = f"{root}/{self.api_version}/namespaces/{quote(namespace, safe='')}/{self.plural}"
        return f"{base}/{quote(name, safe='')}" if name else base


class NotAllowed(StoreUnavailable):
    """No Role allows it: trying again soon will not help."""

    def __init__(self, verb: str, resource: Resource, namespace: str) -> None:
        super().__init__(f"not allowed to {verb} {resource.shown} in namespace {namespace}", uncertain=False)
        self.verb = verb


class Missing(StoreUnavailable):
    """What is to be changed does not exist, or the API does not know its kind: trying again soon will not help."""


class Requests:
    """One pool's requests for objects of one kind in one namespace."""

    def __init__(self, pool: Pool, resource: Resource, namespace: str) -> None:
        self._pool = pool
        self.resource = resource
        self.namespace = namespace

    async def send(self, verb: str, name: str, timeout: float, body: Any = None) -> dict[str, Any] | None:
        """The object as stored; None only for a `get` of one that does not exist. `timeout` in seconds, for everything.

        `verb` is get, create, update (conditional on the resourceVersion in `body`) or patch (a merge patch). Raises
        Conflict where the object is not what the write was conditional on, NotAllowed, Missing, StoreUnavailable.
        """
        resource, namespace = self.resource, self.namespace
        doing = f"{verb} {resource.plural} {namespace}/{name}"
        path = resource.path(namespace, "" if verb == "create" else name)
        kind = "application/merge-patch+json" if verb == "patch" else "application/json"
        answer = await self._pool.request(_METHODS[verb], path, doing, timeout, body, content_type=kind)
        if 200 <= answer.status < 300 and isinstance(answer.body, dict):
            return answer.body
        if answer.status == 409:
            raise Conflict(f"cannot {doing}: it has changed")
        # A quota or a namespace that is being deleted answer with 403 too.
        if answer.status == 403 and (" cannot " in answer.message or not answer.message):
            raise NotAllowed(verb, resource, namespace)
        if answer.status == 404:
            if answer.reason == "NotFound" and answer.about == name and verb in ("get", "update"):
                if verb == "get":
                    return None
                raise Conflict(f"cannot {doing}: it is gone")
            raise Missing(str(answer.unavailable(doing)), uncertain=False)
        raise answer.unavailable(doing)
