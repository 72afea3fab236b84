"""The traffic of a Service without a selector goes to the leader.

One EndpointSlice for each Service and address family is shared by all instances, or one Endpoints object. Each write is
conditional on the version that was read, and the object carries the fencing token of whoever wrote it last: what an
earlier leader sends late is refused by its version, and whoever reads a higher token than its own writes nothing. So
that this holds after a term too, the object is emptied rather than deleted.

Endpoints alone are mirrored to an EndpointSlice by the cluster, which is how traffic comes to them. Beside a slice of
ours they must not be: Endpoints that exist there already, from k8s-await-election say, get the label that forbids it.
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any

from awaitelect import clock
from awaitelect.config.model import Service
from awaitelect.config.service_kinds import Port
from awaitelect.errors import Conflict, StoreError, StoreUnavailable
from awaitelect.logs import Log
from awaitelect.publish.pursuit import Complaints, Pursuit, end
from awaitelect.publish.requests import Missing, NotAllowed, Requests, Resource
from awaitelect.publish.standing import Standing
from awaitelect.stores.kubernetes_client import Pool
from awaitelect.stores.wire import parse_version
from awaitelect.values import Value

SLICES = Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
ENDPOINTS = Resource("v1", "Endpoints", "endpoints")
TOKEN = "awaitelect.io/fencing-token"
INSTANCE = "awaitelect.io/instance"
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
SERVING, TERMINATING, GONE = "serving", "terminating", "gone"
PROMPT, PATIENT = 1.0, 3.0
"""Seconds that a request may take: where somebody waits for it, and where nobody does."""
_NEEDED = "EndpointSlices need the verbs get, create and update"
_ROUNDS = 5
"""Attempts to write over what others write at the same time, before a pause."""


class Endpoint(Value):
    """Where the traffic goes."""

    service: str
    address: str
    ports: tuple[Port, ...] = ()
    node: str = ""
    pod: str = ""
    """The name of its pod, which is in the Service's namespace; empty: not known, or elsewhere."""

    @property
    def family(self) -> str:
        return "IPv6" if ":" in self.address else "IPv4"


class Wish(Value):
    """How the endpoint should be published."""

    state: str
    token: int
    """The fencing token of the term that it belongs to; 0: of whichever term of this instance published it."""


class _Published:
    """One object on the cluster that names the endpoint, or will."""

    def __init__(self, requests: Requests, name: str, endpoint: Endpoint, instance: str) -> None:
        self._requests, self.name, self._endpoint, self._instance = requests, name, endpoint, instance
        self._known: dict[str, Any] | None = None
        """As last read or written; None: there was none."""
        self._is_known = False
        """It was read or written, and nothing since has shown that it is another now."""
        self._is_unsure = False
        """A write of ours may still arrive."""
        self._doubt: tuple[str, float] = ("", 0.0)
        """The version in which a higher token was seen, and when."""

    def forget(self) -> None:
        """Others may have written since."""
        self._is_known = False

    async def look(self, timeout: float) -> dict[str, Any] | None:
        """Read it; None where there is none."""
        self._known = await self._requests.send("get", self.name, timeout)
        self._is_known = True
        return self._known

    async def bring(self, wish: Wish, renewed_at: float) -> None:
        """Write the object so, unless a later leader has written it, or it says so already.

        `renewed_at`: the instant just before the last renewal that was confirmed while we lead; 0.0: we do not. Raises
        NotAllowed, StoreUnavailable.
        """
        timeout = PATIENT if wish.state == SERVING else PROMPT
        for _ in range(_ROUNDS):
            known = self._known if self._is_known else await self.look(timeout)
            if not self._may_write(known, wish, renewed_at):
                return
            wanted = self._wanted(known, wish)
            if wanted == known:
                return
            try:
                await self._write(known, wanted, timeout)
                return
            except Conflict:
                self.forget()
        raise StoreUnavailable(f"cannot write {self._requests.resource.plural} {self.name}: others write all the time")

    async def _write(self, known: dict[str, Any] | None, wanted: dict[str, Any], timeout: float) -> None:
        unsure, self._is_unsure = self._is_unsure, True
        try:
            stored = await self._requests.send("update" if known else "create", self.name, timeout, wanted)
        except Conflict:
            self._is_unsure = unsure
            raise
        except StoreUnavailable as error:
            self._is_unsure = unsure or error.uncertain
            self.forget()
            raise
        # Whatever was sent before this is refused from now on: the version is another.
        self._known, self._is_known, self._is_unsure = stored, True, False

    def _may_write(self, known: dict[str, Any] | None, wish: Wish, renewed_at: float) -> bool:
        """Is it ours to write? Raises StoreUnavailable where that will be seen."""
        if known is None:
            return wish.state == SERVING or self._is_unsure
        annotations = known["metadata"].get("annotations") or {}
        token, ours = parse_version(annotations.get(TOKEN)), annotations.get(INSTANCE) == self._instance
        if wish.state != SERVING:
            return ours or (self._is_unsure and token <= wish.token)
        if token <= wish.token or ours:
            return True
        # A renewal that was sent after we have seen it, and confirmed: nobody has led since that token was written, so
        # it is none of this lease's (the object was restored from another cluster, say).
        version = str(known["metadata"].get("resourceVersion"))
        if self._doubt[0] == version and renewed_at > self._doubt[1]:
            return True
        if self._doubt[0] != version:
            self._doubt = (version, clock.now())
        self.forget()
        raise StoreUnavailable(
            f"{self._requests.resource.plural} {self.name} has the fencing token {token}, higher than ours",
            uncertain=False,
        )

    def _wanted(self, known: dict[str, Any] | None, wish: Wish) -> dict[str, Any]:
        resource = self._requests.resource
        new: dict[str, Any] = {"apiVersion": resource.api_version, "kind": resource.kind}
        wanted = copy.deepcopy(known) if known else new
        metadata = wanted.setdefault("metadata", {"name": self.name, "namespace": self._requests.namespace})
        annotations = metadata.setdefault("annotations", {})
        if wish.token:
            annotations |= {TOKEN: str(wish.token), INSTANCE: self._instance}
        self._fill(wanted, metadata.setdefault("labels", {}), wish.state)
        for part in ("labels", "annotations"):
            if not metadata[part]:
                del metadata[part]
        return wanted

    def _fill(self, wanted: dict[str, Any], labels: dict[str, str], state: str) -> None:
        raise NotImplementedError

    @property
    def _reference(self) -> dict[str, Any]:
        """The pod behind the address, and its node."""
        found: dict[str, Any] = {}
        if self._endpoint.node:
            found["nodeName"] = self._endpoint.node
        if self._endpoint.pod:
            found["targetRef"] = {
                "kind": "Pod",
                "name": self._endpoint.pod,
                "namespace": self._requests.namespace,
            }
        return found

    def _ports(self) -> list[dict[str, Any]]:
        return [
            {
                "name": port.name,
                "port": port.port,
                "protocol": port.protocol,
                **({"appProtocol": port.app_protocol} if port.app_protocol else {}),
            }
            for port in self._endpoint.ports
        ]


class _Slice(_Published):
    """The EndpointSlice of one address family."""

    def _fill(self, wanted: dict[str, Any], labels: dict[str, str], state: str) -> None:
        labels["kubernetes.io/service-name"] = self._endpoint.service
        labels["endpointslice.kubernetes.io/managed-by"] = "awaitelect"
        wanted["addressType"] = self._endpoint.family
        conditions = {"ready": state == SERVING, "serving": True, "terminating": state == TERMINATING}
        endpoint = {"addresses": [self._endpoint.address], "conditions": conditions, **self._reference}
        wanted["endpoints"] = [] if state == GONE else [endpoint]
        wanted["ports"] = self._ports()


class _Endpoints(_Published):
    """The Endpoints of the Service: instead of a slice, or beside one."""

    stands_beside = False
    """A slice of ours is what counts."""

    def _fill(self, wanted: dict[str, Any], labels: dict[str, str], state: str) -> None:
        if self.stands_beside:
            labels[SKIP_MIRROR] = "true"
        else:
            labels.pop(SKIP_MIRROR, None)
        addresses = "addresses" if state == SERVING else "notReadyAddresses"
        subset = {addresses: [{"ip": self._endpoint.address, **self._reference}]}
        ports = [{name: value for name, value in port.items() if value} for port in self._ports()]
        wanted["subsets"] = [] if state == GONE else [subset | ({"ports": ports} if ports else {})]


class ServiceRouting:
    """Publishes the endpoint while the command is ready, marks it before the stop, and takes it off after the end."""

    def __init__(
        self, settings: Service, pod: str, namespace: str, pool: Pool, instance: str, is_resumed: bool, log: Log
    ) -> None:
        """`namespace`: the Service's. `pod`: the pod's name if it is in there, else empty. `is_resumed`: an elector of
        this instance before this one may have published.
        """
        name = settings.name or ""
        endpoint = Endpoint(name, settings.pod_ip or "", settings.ports, settings.node_name or "", pod)
        self._api = settings.api
        slice_name = f"{name}-awaitelect-{endpoint.family.lower()}"
        self._slice = _Slice(Requests(pool, SLICES, namespace), slice_name, endpoint, instance)
        self._endpoints = _Endpoints(Requests(pool, ENDPOINTS, namespace), name, endpoint, instance)
        self._shown = f"Service {namespace}/{name}"
        self._address = endpoint.address
        self._log = log
        self._complaints = Complaints(log)
        self._pursuit = Pursuit(
            f"routing of {self._shown}", self._attempt, self._complaints, cancels=True, persists=True
        )
        self._is_resumed = is_resumed
        self._standing = Standing()
        self._term = 0
        """The token of the newest term."""
        self._looking: asyncio.Task[None] | None = None
        """What there is already, looked up while the command starts."""
        self._without_slices = self._api == "endpoints"
        """In this term."""
        self._has_endpoints: bool | None = None
        """In this term, beside a slice; None: not known."""

    def note(self, standing: Standing) -> None:
        """This is how the instance stands now. Never waits."""
        self._standing = standing
        if standing.leads and standing.token != self._term:
            self._term = standing.token
            self._without_slices, self._has_endpoints = self._api == "endpoints", None
            self._slice.forget()
            self._endpoints.forget()
            self._looking = asyncio.get_running_loop().create_task(self._look())
        wish = self._wish(standing, self._pursuit.wish)
        if wish is not None and wish != self._pursuit.wish:
            self._pursuit.want(wish)

    async def _look(self) -> None:
        """The write that follows needs no other request then, and finds a connection."""
        try:
            await (self._endpoints if self._without_slices else self._slice).look(PROMPT)
        except StoreError:
            pass  # the write will say it

    def _wish(self, standing: Standing, known: Wish | None) -> Wish | None:
        if standing.leads and standing.is_ready:
            return Wish(SERVING, standing.token)
        if known is None:
            # The elector before us may have died together with the command.
            return Wish(GONE, 0) if self._is_resumed and standing.is_gone else None
        if known.state == GONE:
            return None
        return Wish(GONE if standing.is_gone else TERMINATING, known.token)

    async def drained(self) -> bool:
        """Wait until the endpoint is marked, or that has failed once. False: it serves again."""
        wish = self._pursuit.wish
        return wish is None or (wish.state != SERVING and await self._pursuit.tried())

    @property
    def is_settled(self) -> bool:
        return self._pursuit.is_settled

    async def finish(self, timeout: float) -> None:
        """Wait for what was begun, for so many seconds at most."""
        await self._pursuit.finish(timeout)
        if self._looking is not None:
            await end(self._looking)

    async def _attempt(self, wish: Wish) -> None:
        if self._looking is not None:
            await asyncio.wait([self._looking])
        renewed_at = self._standing.renewed_at if self._standing.leads else 0.0
        if not self._without_slices:
            try:
                await self._slice.bring(wish, renewed_at)
            except (NotAllowed, Missing) as error:
                if self._api != "auto":
                    raise
                self._without_slices = True
                self._complaints.tell(error, f"{self._shown} is routed by Endpoints instead; {_NEEDED}")
            else:
                await self._align_endpoints(wish, renewed_at)
                self._tell(wish, f"EndpointSlice {self._slice.name}")
                return
        self._endpoints.stands_beside = False
        await self._endpoints.bring(wish, renewed_at)
        self._tell(wish, f"Endpoints {self._endpoints.name}")

    async def _align_endpoints(self, wish: Wish, renewed_at: float) -> None:
        """Endpoints that are there already say the same as our slice, and are not mirrored to another."""
        if self._api != "auto" or self._has_endpoints is False:
            return
        if self._has_endpoints is None:
            try:
                self._has_endpoints = await self._endpoints.look(PROMPT) is not None
            except NotAllowed as error:
                self._has_endpoints = False
                self._log.debug(str(error))
        if self._has_endpoints:
            self._endpoints.stands_beside = True
            await self._endpoints.bring(wish, renewed_at)

    def _tell(self, wish: Wish, where: str) -> None:
        what = {
            SERVING: f"{self._shown} is routed to {self._address}",
            TERMINATING: f"{self._shown} is no longer routed to {self._address}",
            GONE: f"{self._address} is taken off {self._shown}",
        }[wish.state]
        self._log.write("info" if wish.state == SERVING else "debug", f"{what} ({where})")
