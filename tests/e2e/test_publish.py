"""What whole instances publish, with the rights that they have: on a real API server."""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.instances import LASTING, Fleet, Instance, eventually, kill, now, renews
from tests.e2e.locks import KubernetesLock
from tests.envtest import LEASE_VERBS, TESTER_TOKEN, ControlPlane

OLD = "K8S_AWAIT_ELECTION_"
ADDRESSES = {"first": "10.1.0.1", "second": "10.1.0.2"}


class Cluster:
    """A namespace with a lease, a Service, and a user who may do exactly what a test says."""

    def __init__(self, control_plane: ControlPlane, folder: Path) -> None:
        self._control_plane = control_plane
        self.namespace = control_plane.create_namespace(f"e{uuid.uuid4().hex[:10]}")
        self.lock = KubernetesLock(control_plane, self.namespace, "lock", folder)
        server = f"https://127.0.0.1:{self.lock.proxy.port}"
        self.poor = control_plane.kubeconfig(folder / "poor", {"token": TESTER_TOKEN}, server=server)
        self.admin = control_plane.kubeconfig(folder / "admin")

    def allow(self, group: str, resource: str, *verbs: str) -> None:
        """`list` is among the verbs. RBAC takes a moment to know: what comes first must not be refused for that."""
        self._control_plane.allow(self.namespace, *verbs, group=group, resource=resource)
        path = f"{f'/apis/{group}/v1' if group else '/api/v1'}/namespaces/{self.namespace}/{resource}"
        eventually(lambda: self._status_of(path) == 200, "the Role holds", pace=0.05)

    def _status_of(self, path: str) -> int:
        status, _ = self._control_plane.call("GET", path, token=TESTER_TOKEN)
        return status

    def call(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = self._control_plane.call(method, path.replace("NS", self.namespace), body)
        assert status in (200, 201, 404), answer
        return answer if status != 404 else None

    def slice(self) -> dict[str, Any]:
        path = "/apis/discovery.k8s.io/v1/namespaces/NS/endpointslices/web-awaitelect-ipv4"
        return self.call("GET", path) or {}

    def routed(self) -> list[tuple[str, bool]]:
        """The addresses of the slice, and whether traffic is sent to them."""
        found = self.slice().get("endpoints") or []
        return [(one["addresses"][0], one["conditions"]["ready"]) for one in found]

    def endpoints(self) -> list[str]:
        found = self.call("GET", "/api/v1/namespaces/NS/endpoints/web") or {}
        return [one["ip"] for subset in found.get("subsets") or [] for one in subset.get("addresses", [])]

    def create_pod(self, name: str) -> None:
        if self.call("GET", "/api/v1/namespaces/NS/serviceaccounts/default") is None:
            self.call("POST", "/api/v1/namespaces/NS/serviceaccounts", {"metadata": {"name": "default"}})
        spec = {"containers": [{"name": "one", "image": "none"}], "automountServiceAccountToken": False}
        self.call("POST", "/api/v1/namespaces/NS/pods", {"metadata": {"name": name}, "spec": spec})

    def role(self, pod: str) -> str:
        labels = self.call("GET", f"/api/v1/namespaces/NS/pods/{pod}")["metadata"].get("labels", {})
        return str(labels.get("role", ""))


@pytest.fixture
def routing(cluster: ControlPlane, tmp_path: Path) -> Iterator[Cluster]:
    one = Cluster(cluster, tmp_path)
    yield one
    one.lock.proxy.close()


def start(fleet: Fleet, routing: Cluster, name: str, *actor: str, **settings: Any) -> Instance:
    """An instance that routes a Service to its address."""
    ports = [{"name": "rest", "port": 3370}]
    service = {"name": "web", "ports": ports, "pod_ip": ADDRESSES[name]}
    # Long enough for a busy machine: what is tested here is not how soon a lease runs out.
    election = {"lease_duration": 15, "renew_deadline": 9}
    return fleet.start(name, routing.lock, *actor, settings={"service": service, "election": election, **settings})


def warnings(one: Instance) -> list[str]:
    """What it complains of, but for the short leases of these tests."""
    lines = [line for line in one.stderr.splitlines() if " WARNING " in line or " ERROR " in line]
    return [line for line in lines if "stop.timeout" not in line and "kill_margin" not in line]


def is_routed_to(routing: Cluster, name: str) -> None:
    """Which may be so before the command has said a word."""
    eventually(lambda: routing.routed() == [(ADDRESSES[name], True)], f"traffic goes to {name}", pace=0.02)


def test_traffic_follows_the_leader(fleet: Fleet, routing: Cluster) -> None:
    """From hand to hand; and when nobody is left, to nobody."""
    first = start(fleet, routing, "first")
    is_routed_to(routing, "first")
    first.started()
    second = start(fleet, routing, "second")
    second.follows()
    first.tell(signal.SIGTERM)
    assert first.ends() == 0
    second.started()
    is_routed_to(routing, "second")
    second.tell(signal.SIGTERM)
    assert second.ends() == 0
    assert routing.routed() == []
    record = routing.lock.record()
    assert record is not None and record.holder == ""
    assert warnings(first) == warnings(second) == []


def test_traffic_is_off_before_the_command_is_asked_to_stop(fleet: Fleet, routing: Cluster) -> None:
    """What the cluster says at the very moment at which the stop goes on: the pre_stop hook asks it."""
    seen = fleet.folder / "seen"
    kubectl = Path(os.environ["KUBEBUILDER_ASSETS"]) / "kubectl"
    if not kubectl.is_file():
        pytest.skip("KUBEBUILDER_ASSETS has no kubectl")
    ask = f"{kubectl} --kubeconfig {routing.admin} -n {routing.namespace} get endpointslice -o json"
    hook = ["sh", "-c", f"{ask} > {seen}.part && mv {seen}.part {seen}"]
    one = start(fleet, routing, "first", hooks={"pre_stop": hook})
    is_routed_to(routing, "first")
    one.started()
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    (found,) = json.loads(seen.read_text())["items"]
    (endpoint,) = found["endpoints"]
    assert endpoint["conditions"] == {"ready": False, "serving": True, "terminating": True}


def test_a_stop_waits_for_the_mark_and_not_longer_than_a_second(fleet: Fleet, routing: Cluster) -> None:
    """An API server that has fallen silent keeps nobody from stopping."""
    one = start(fleet, routing, "first", election=LASTING, stop={"timeout": "40s"})
    is_routed_to(routing, "first")
    one.started()
    with routing.lock.outage():
        told = now()
        one.tell(signal.SIGTERM)
        asked = eventually(lambda: one.entries("signal"), "the command is asked to stop")[0].at
    assert 0.7 < asked - told < 6, "a quarter of the stop's time, another limit, is ten seconds"
    assert one.ends() == 0


def test_a_command_that_crashes_is_off_until_it_is_ready_again(fleet: Fleet, routing: Cluster) -> None:
    """Leadership is kept; the address answers nobody meanwhile."""
    back = {"backoff": {"initial": "3s", "jitter": 0}}
    one = start(fleet, routing, "first", restart=back)
    is_routed_to(routing, "first")
    kill(one.started().pid)
    eventually(lambda: routing.routed() == [(ADDRESSES["first"], False)], "it is marked", pace=0.02)
    one.started(2)
    is_routed_to(routing, "first")


def test_a_dead_elector_leaves_the_traffic_where_it_is(fleet: Fleet, routing: Cluster) -> None:
    """The command runs on, and so does its traffic: its successor writes its own token, and no gap."""
    one = start(fleet, routing, "first", election=LASTING)
    is_routed_to(routing, "first")
    token = routing.slice()["metadata"]["annotations"]["awaitelect.io/fencing-token"]
    kill(one.elector)

    def is_renamed() -> bool:
        found = routing.slice()
        assert [each["conditions"]["ready"] for each in found["endpoints"]] == [True]
        return bool(found["metadata"]["annotations"]["awaitelect.io/fencing-token"] != token)

    eventually(is_renamed, "its successor has published", pace=0.02)
    assert len(one.entries("start")) == 1


def test_whoever_has_lost_the_lease_is_taken_off(fleet: Fleet, routing: Cluster) -> None:
    """Somebody else has it, who may publish what he likes: we are gone before we lead again."""
    one = start(fleet, routing, "first")
    is_routed_to(routing, "first")
    one.started()
    routing.lock.take("intruder")
    one.says("is taken off")
    one.started(2)
    is_routed_to(routing, "first")


def test_the_environment_and_the_role_of_k8s_await_election_are_enough(fleet: Fleet, routing: Cluster) -> None:
    """Unchanged, but for the entry point: Endpoints, and one line that says what would be better."""
    routing.allow("coordination.k8s.io", "leases", *LEASE_VERBS)
    routing.allow("", "endpoints", *LEASE_VERBS)
    old = {"metadata": {"name": "web", "labels": {"kept": "yes"}}, "subsets": [{"addresses": [{"ip": "10.9.9.9"}]}]}
    routing.call("POST", "/api/v1/namespaces/NS/endpoints", old)
    instances = []
    for name, address in ADDRESSES.items():
        environment = {
            "ENABLED": "1",
            "NAME": "web",
            "LOCK_NAME": "lock",
            "LOCK_NAMESPACE": routing.namespace,
            "IDENTITY": name,
            "LEASE_DURATION": "15",
            "RENEW_DEADLINE": "9",
            "RETRY_PERIOD": "1",
            "SERVICE_NAME": "web",
            "SERVICE_NAMESPACE": routing.namespace,
            "SERVICE_PORTS_JSON": '[{"Name":"rest","port":3370}]',
            "POD_IP": address,
            "NODE_NAME": "node-1",
        }
        settings = {"lock": {"kubeconfig": routing.poor}}
        made = fleet.start(
            name,
            routing.lock,
            settings=settings,
            environment={OLD + key: value for key, value in environment.items()},
        )
        if not instances:
            made.started()
        instances.append(made)
    first, second = instances
    eventually(lambda: routing.endpoints() == [ADDRESSES["first"]], "it is routed", pace=0.05)
    second.follows()
    first.tell(signal.SIGTERM)
    assert first.ends() == 0
    eventually(lambda: routing.endpoints() == [ADDRESSES["second"]], "it is routed to the second", pace=0.05)
    labels = routing.call("GET", "/api/v1/namespaces/NS/endpoints/web")["metadata"]["labels"]
    assert labels == {"kept": "yes"}
    for one in instances:
        (warning,) = warnings(one)
        assert "not allowed to get endpointslices" in warning and "routed by Endpoints instead" in warning


def test_what_is_not_allowed_costs_one_line_each_and_no_leadership(fleet: Fleet, routing: Cluster) -> None:
    """Label, Events and slices are asked for, and only the lease is allowed."""
    routing.allow("coordination.k8s.io", "leases", *LEASE_VERBS)
    one = start(
        fleet,
        routing,
        "first",
        lock={"kubeconfig": routing.poor},
        pod={"name": "web-0"},
        pod_label={"key": "role"},
        events=True,
    )
    one.started()
    for resource in ("create events", "patch pods", "get endpointslices", "get endpoints in"):
        one.says(f"not allowed to {resource}")
    renews(routing.lock, 3)
    kill(one.started().pid)
    one.started(2)
    assert len([line for line in warnings(one) if "not allowed" in line]) == 4
    one.tell(signal.SIGTERM)
    assert one.ends() == 0
    record = routing.lock.record()
    assert record is not None and record.holder == ""


def test_label_and_events_follow_leadership(fleet: Fleet, routing: Cluster) -> None:
    """With a crash between: the pod of the dead leader is a follower as soon as it is back."""
    for name in ADDRESSES:
        routing.create_pod(name)

    def begin(name: str, election: dict[str, int]) -> Instance:
        settings = {"pod": {"name": name}, "pod_label": {"key": "role"}, "events": True, "election": election}
        return fleet.start(name, routing.lock, settings=settings)

    first = begin("first", {"lease_duration": 5, "renew_deadline": 4})  # it is waited for
    eventually(lambda: routing.role("first") == "leader", "the first is labelled", pace=0.02)
    second = begin("second", LASTING)
    eventually(lambda: routing.role("second") == "follower", "the second is labelled", pace=0.02)
    first.wipe_out()
    eventually(lambda: routing.role("second") == "leader", "the second leads", pace=0.02)
    second.started()
    assert routing.role("first") == "leader", "nobody is there to correct it"
    again = begin("first", LASTING)
    eventually(lambda: routing.role("first") == "follower", "it is corrected", pace=0.02)
    second.tell(signal.SIGTERM)
    assert second.ends() == 0
    assert routing.role("second") == "follower"
    again.tell(signal.SIGTERM)
    again.ends()
    told = [
        (one["involvedObject"]["kind"], one["message"])
        for one in routing.call("GET", "/api/v1/namespaces/NS/events")["items"]
    ]
    for kind in ("Lease", "Pod"):
        assert told.count((kind, "first became leader")) >= 1
        assert told.count((kind, "second became leader")) == told.count((kind, "second stopped leading")) == 1
