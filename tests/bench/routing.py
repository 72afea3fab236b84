"""Where the traffic goes: how soon an EndpointSlice names the leader that has just begun."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from typing import Any

from tests.bench.figures import Row, spread
from tests.bench.instances import Fleet, now
from tests.bench.leases import NAMESPACE, KubernetesLease
from tests.bench.measures import Bench, Measure
from tests.envtest import ADMIN_TOKEN, ControlPlane

SLICES = f"/apis/discovery.k8s.io/v1beta1/namespaces/{NAMESPACE}/endpointslices"
ADDRESSES = ("10.1.0.1", "10.1.0.2")
PORTS = '[{"name": "rest", "port": 3370}]'


class Traffic:
    """Watches the addresses that are ready, on a thread of its own while it is entered."""

    def __init__(self, cluster: ControlPlane, service: str) -> None:
        tls = ssl.create_default_context(cafile=str(cluster.ca))
        self._connection = http.client.HTTPSConnection("127.0.0.1", cluster.port, context=tls, timeout=600)
        self._query = f"?watch=1&labelSelector=kubernetes.io%2Fservice-name%3D{service}"
        self._thread = threading.Thread(target=self._live, daemon=True)
        self.seen: list[tuple[float, str]] = []
        """When we saw it, and the address."""

    def __enter__(self) -> Traffic:
        self._connection.request("GET", SLICES + self._query, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection.sock:
            self._connection.sock.shutdown(2)
        self._thread.join(5)

    def _live(self) -> None:
        answer = self._connection.getresponse()
        assert answer.status == 200, answer.read()
        while line := answer.readline():
            at, event = now(), json.loads(line)
            endpoints: list[Any] = event["object"].get("endpoints") or []
            ready = [each for each in endpoints if each.get("conditions", {}).get("ready")]
            if event["type"] != "DELETED":
                self.seen += [(at, address) for each in ready for address in each["addresses"]]


def routing(bench: Bench) -> Iterator[Row]:
    """SIGTERM to the leader: the last sign of its command → an EndpointSlice that calls the next leader ready."""
    cluster, service = bench.cluster(), bench.new_name()
    lease = KubernetesLease(cluster, bench.folder, service)
    ports = [{"name": "rest", "port": 3370}]
    made = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": service}, "spec": {"ports": ports}}
    status, answer = cluster.call("POST", f"/api/v1/namespaces/{NAMESPACE}/services", made)
    assert status == 201, answer

    def environment(turn: int) -> dict[str, str]:
        named = {"NAME": service, "NAMESPACE": NAMESPACE, "PORTS": PORTS, "POD_IP": ADDRESSES[turn % 2]}
        return {**lease.environment, **{f"AWAITELECT_SERVICE_{key}": value for key, value in named.items()}}

    changed, routed, after_first = [], [], []
    with Fleet() as fleet, Traffic(cluster, service) as traffic:
        leader = fleet.start(lease.lock, "i0", environment(0))
        leader.sign("first")
        fleet.until(lambda: traffic.seen, "the first leader is routed to")
        for turn in range(1, bench.hand_overs + 1):
            follower = fleet.start(lease.lock, f"i{turn}", environment(turn))
            follower.settle()
            leader.terminate()
            last, first = leader.sign("last").at, follower.sign("first").at

            def is_routed(since: float = last, address: str = ADDRESSES[turn % 2]) -> float | None:
                return next((at for at, named in traffic.seen if at > since and named == address), None)

            at = fleet.until(is_routed, "the next leader is routed to")
            changed.append(first - last)
            routed.append(at - last)
            after_first.append(at - first)
            leader.wait()
            fleet.dismiss(leader)
            leader = follower
    remark = f"{len(routed)} times"
    yield Row("routing", "hand-over with a Service: last sign → first sign", spread(changed), remark=remark)
    yield Row("routing", "last sign → EndpointSlice names the next leader", spread(routed), remark=remark)
    yield Row("routing", "its first sign → EndpointSlice names it", spread(after_first), remark=remark)


ROUTING_MEASURES: dict[str, Measure] = {"routing-kubernetes": routing}
