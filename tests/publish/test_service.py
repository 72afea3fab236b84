"""The Service's traffic goes to the leader alone: on a real API server, with its RBAC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from awaitelect import clock
from awaitelect.config.model import Service
from awaitelect.config.service_kinds import Port
from awaitelect.publish.service import ENDPOINTS, INSTANCE, SKIP_MIRROR, SLICES, TOKEN, ServiceRouting
from awaitelect.publish.standing import Standing
from awaitelect.stores.kubernetes_client import Pool
from tests.publish.conftest import PATIENCE, SEED_VERBS, Said, Site, answered, eventually

PORTS = (Port("rest", 3370, "TCP", "http"), Port("dns", 53, "UDP"))
READY = Standing(leads=True, token=7, is_ready=True, is_gone=False, renewed_at=1.0)
STOPPING = Standing(leads=False, token=7, is_ready=False, is_gone=False)
FOLLOWS = Standing()


class Router:
    """Makes the routings of several instances, and ends them."""

    def __init__(self, site: Site, said: Said) -> None:
        self.site, self.said = site, said
        self._made: list[ServiceRouting] = []

    def routing(
        self, pool: Pool, instance: str = "a", address: str = "10.1.0.1", resumed: bool = False, **more: Any
    ) -> ServiceRouting:
        more = {"ports": PORTS, "node_name": "node-1", **more}
        settings = Service(name="web", pod_ip=address, **more)
        pod, namespace, log = f"web-{instance}", self.site.namespace, self.said.log
        made = ServiceRouting(settings, pod, namespace, pool, instance, resumed, log)
        self._made.append(made)
        return made

    async def close(self) -> None:
        for one in self._made:
            await one.finish(0)


@pytest.fixture
async def router(site: Site, said: Said) -> AsyncIterator[Router]:
    one = Router(site, said)
    yield one
    await one.close()


async def settled(routing: ServiceRouting) -> None:
    await eventually(lambda: routing.is_settled, "it is published")


def addresses(object_: dict[str, Any]) -> list[tuple[str, dict[str, bool]]]:
    return [(one["addresses"][0], one["conditions"]) for one in object_["endpoints"] or []]


@pytest.mark.parametrize(("address", "family"), [("10.1.0.1", "IPv4"), ("fd00::7", "IPv6")])
async def test_a_ready_leader_is_named_by_a_slice_of_the_service(
    site: Site, router: Router, address: str, family: str
) -> None:
    """All that kube-proxy and the topology of a cluster go by."""
    routing = router.routing(await site.pool(), address=address)
    routing.note(READY)
    await settled(routing)
    (found,) = site.slices()
    assert found["metadata"]["name"] == f"web-awaitelect-{family.lower()}"
    assert found["metadata"]["labels"] == {
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "awaitelect",
    }
    assert found["metadata"]["annotations"] == {TOKEN: "7", INSTANCE: "a"}
    assert found["addressType"] == family
    (endpoint,) = found["endpoints"]
    assert endpoint["addresses"] == [address] and endpoint["conditions"]["ready"] is True
    assert endpoint["nodeName"] == "node-1"
    assert endpoint["targetRef"] == {"kind": "Pod", "name": "web-a", "namespace": site.namespace}
    assert found["ports"] == [
        {"name": "rest", "port": 3370, "protocol": "TCP", "appProtocol": "http"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]
    assert site.endpoints() is None, "nobody has asked for Endpoints where slices are allowed"
    assert router.said.warnings == []


async def test_the_endpoint_is_marked_before_the_stop_and_taken_off_after_the_end(site: Site, router: Router) -> None:
    """Connections that are open may finish; new ones go nowhere; what is left names nobody."""
    routing = router.routing(await site.pool())
    routing.note(READY)
    await settled(routing)
    routing.note(STOPPING)
    assert await routing.drained()
    await settled(routing)  # a first try may have failed
    ((address, conditions),) = addresses(site.slice())
    assert address == "10.1.0.1" and conditions["ready"] is False
    assert {"serving": True, "terminating": True}.items() <= conditions.items()
    routing.note(FOLLOWS)
    await settled(routing)
    assert addresses(site.slice()) == [] and site.slice()["metadata"]["annotations"][TOKEN] == "7"


async def test_a_command_that_crashes_and_starts_again_in_place_is_off_and_on_again(site: Site, router: Router) -> None:
    """Leadership is kept meanwhile; nobody answers at that address."""
    routing = router.routing(await site.pool())
    for _ in range(3):
        routing.note(READY)
        await settled(routing)
        assert addresses(site.slice())[0][1]["ready"] is True
        routing.note(Standing(leads=True, token=7, is_ready=False, is_gone=False))
        assert await routing.drained()
        await settled(routing)
        assert addresses(site.slice())[0][1]["ready"] is False


async def test_nothing_is_written_before_the_command_is_ready(site: Site, router: Router) -> None:
    """Leading is not serving."""
    routing = router.routing(await site.pool())
    for standing in (FOLLOWS, Standing(leads=True, token=7, is_gone=False), STOPPING, FOLLOWS):
        routing.note(standing)
        await settled(routing)
        assert await routing.drained()
    assert site.slices() == [] and site.endpoints() is None


async def test_with_the_rights_of_k8s_await_election_endpoints_are_written(site: Site, router: Router) -> None:
    """Its Role works unchanged; what would be better is said once, with what is missing."""
    pool = await site.poor_pool({"endpoints": SEED_VERBS})
    routing = router.routing(pool)
    for token in (7, 8):
        routing.note(Standing(leads=True, token=token, is_ready=True, is_gone=False))
        await settled(routing)
        found = site.endpoints()
        assert found["subsets"] == [
            {
                "addresses": [
                    {
                        "ip": "10.1.0.1",
                        "nodeName": "node-1",
                        "targetRef": {"kind": "Pod", "name": "web-a", "namespace": site.namespace},
                    }
                ],
                "ports": [
                    {"name": "rest", "port": 3370, "protocol": "TCP", "appProtocol": "http"},
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                ],
            }
        ]
        assert SKIP_MIRROR not in found["metadata"].get("labels", {}), "mirrored is how traffic comes to it"
        routing.note(Standing(token=token, is_ready=False, is_gone=False))
        assert await routing.drained()
        await settled(routing)
        (subset,) = site.endpoints()["subsets"]
        assert "addresses" not in subset and subset["notReadyAddresses"][0]["ip"] == "10.1.0.1"
        routing.note(FOLLOWS)
        await settled(routing)
        assert "subsets" not in site.endpoints()
    assert site.slices() == []
    assert router.said.warnings == [
        f"not allowed to get endpointslices (API group discovery.k8s.io) in namespace {site.namespace}; Service "
        f"{site.namespace}/web is routed by Endpoints instead; EndpointSlices need the verbs get, create and update"
    ]


async def test_where_endpoints_are_asked_for_nothing_else_is_tried(site: Site, router: Router) -> None:
    """`service.api: endpoints` with the rights for it is no reason for a warning."""
    routing = router.routing(await site.poor_pool({"endpoints": SEED_VERBS}), api="endpoints")
    routing.note(READY)
    await settled(routing)
    assert site.endpoints()["subsets"][0]["addresses"][0]["ip"] == "10.1.0.1"
    assert router.said.warnings == []


async def test_without_any_right_it_says_so_once_and_drains_at_once(site: Site, router: Router) -> None:
    """Leadership costs no more than the traffic, and a stop does not wait for what cannot be had."""
    routing = router.routing(await site.pool("tester-token"))
    routing.note(READY)
    await eventually(lambda: len(router.said.warnings) == 2, "both are refused")
    begun = clock.now()
    routing.note(STOPPING)
    assert await routing.drained()
    assert clock.now() - begun < 5
    routing.note(FOLLOWS)
    await routing.finish(PATIENCE)
    assert clock.now() - begun < 10, "nor does the end"
    assert [line.split(" in namespace")[0] for line in router.said.warnings] == [
        "not allowed to get endpointslices (API group discovery.k8s.io)",
        "not allowed to get endpoints",
    ]


async def test_what_others_have_put_on_the_object_is_kept(site: Site, router: Router) -> None:
    """Labels and annotations belong to whoever wrote them, before us and while we lead."""
    foreign = {"labels": {"team": "blue"}, "annotations": {"example.org/note": "kept"}}
    name = "web-awaitelect-ipv4"
    slice_ = {"metadata": {"name": name, **foreign}, "addressType": "IPv4", "endpoints": [], "ports": []}
    path = "/apis/discovery.k8s.io/v1/namespaces/NS/endpointslices"
    site.call("POST", path, slice_)
    routing = router.routing(await site.pool())
    routing.note(READY)
    await settled(routing)
    site.call("PATCH", f"{path}/{name}", {"metadata": {"labels": {"later": "too"}}})
    routing.note(STOPPING)
    await settled(routing)
    metadata = site.slice()["metadata"]
    assert {"team": "blue", "later": "too"}.items() <= metadata["labels"].items()
    assert metadata["annotations"] == {"example.org/note": "kept", TOKEN: "7", INSTANCE: "a"}
    assert addresses(site.slice())[0][1]["ready"] is False


async def test_endpoints_that_are_there_already_are_not_doubled(site: Site, router: Router) -> None:
    """Left behind by k8s-await-election: mirrored, they would send traffic to an address of long ago."""
    old = {"metadata": {"name": "web", "labels": {"a": "b"}}, "subsets": [{"addresses": [{"ip": "10.9.9.9"}]}]}
    site.call("POST", "/api/v1/namespaces/NS/endpoints", old)
    routing = router.routing(await site.pool())
    routing.note(READY)
    await settled(routing)
    found = site.endpoints()
    assert found["metadata"]["labels"] == {"a": "b", SKIP_MIRROR: "true"}
    assert [one["ip"] for one in found["subsets"][0]["addresses"]] == ["10.1.0.1"]
    assert addresses(site.slice())[0][0] == "10.1.0.1"
    routing.note(STOPPING)
    routing.note(FOLLOWS)
    await settled(routing)
    assert "subsets" not in site.endpoints() and addresses(site.slice()) == []
    assert router.said.warnings == []


@pytest.mark.parametrize("api", ["endpointslices", "endpoints"])
async def test_an_earlier_leader_writes_nothing_over_a_later_one(site: Site, router: Router, api: str) -> None:
    """It may not know yet that it leads no more, or be late with taking its address off."""
    old, new = router.routing(await site.pool(), api=api), router.routing(await site.pool(), "b", "10.1.0.2", api=api)
    read = site.slice if api == "endpointslices" else site.endpoints
    old.note(READY)
    await settled(old)
    new.note(Standing(leads=True, token=9, is_ready=True, is_gone=False))
    await settled(new)
    written = read()
    assert written["metadata"]["annotations"] == {TOKEN: "9", INSTANCE: "b"}
    for standing in (STOPPING, READY, STOPPING, FOLLOWS):
        old.note(standing)
        assert await old.drained() or standing == READY
        await eventually(lambda: old.is_settled or "higher than ours" in "".join(router.said.warnings), "it has tried")
        assert read() == written


@pytest.mark.parametrize("api", ["endpointslices", "endpoints"])
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("successor", [True, False])
async def test_a_write_that_arrives_late_loses(
    site: Site, router: Router, api: str, exists: bool, successor: bool
) -> None:
    """Held back on the way until another leads, a write of the leader before is refused. Without a successor, it is
    refused all the same once its own instance has stopped; and it does arrive, else this would show nothing.
    """
    proxy = await site.holding()
    old = router.routing(await site.pool(port=proxy.port), api=api)
    new = router.routing(await site.pool(), "b", "10.1.0.2", api=api)
    read = site.slice if api == "endpointslices" else site.endpoints
    if exists:
        new.note(Standing(leads=True, token=3, is_ready=True, is_gone=False))
        await settled(new)
        new.note(FOLLOWS)
        await settled(new)
    old.note(Standing(leads=True, token=7, is_gone=False))
    looked = old._looking
    assert looked is not None
    await looked
    proxy.hold_present()
    old.note(READY)
    async with asyncio.timeout(5):
        await proxy.caught.wait()
    if successor:
        new.note(Standing(leads=True, token=9, is_ready=True, is_gone=False))
        await settled(new)
    else:
        for standing in (STOPPING, FOLLOWS):
            old.note(standing)
            await settled(old)
    written = read()
    requests = answered(site, api)
    proxy.release()
    await eventually(lambda: answered(site, api) > requests, "the late write has been answered")
    assert read() == written
    assert written["metadata"]["annotations"][TOKEN] == ("9" if successor else "7")
    assert ("10.1.0.2" in str(written)) is successor and "10.1.0.1" not in str(written)


async def test_a_token_of_another_cluster_does_not_stand_in_the_way_for_ever(site: Site, router: Router) -> None:
    """Objects come back from backups. A renewal that was sent after we saw it shows that no later leader wrote it."""
    alien = {TOKEN: "999999999999", INSTANCE: "x"}
    slice_ = {"metadata": {"name": "web-awaitelect-ipv4", "annotations": alien}, "addressType": "IPv4", "endpoints": []}
    site.call("POST", "/apis/discovery.k8s.io/v1/namespaces/NS/endpointslices", slice_)
    routing = router.routing(await site.pool())
    routing.note(READY)
    await eventually(lambda: "higher than ours" in "".join(router.said.warnings), "it has seen it")
    tries = len([line for line in router.said.lines() if "higher than ours" in line])
    await eventually(
        lambda: len([line for line in router.said.lines() if "higher than ours" in line]) > tries, "it tries again"
    )
    assert addresses(site.slice()) == [], "an old renewal shows nothing"
    routing.note(Standing(leads=True, token=7, is_ready=True, is_gone=False, renewed_at=clock.now()))
    await settled(routing)
    assert addresses(site.slice())[0][0] == "10.1.0.1"
    assert len(router.said.warnings) == 1


async def test_an_outage_is_told_once_and_made_good(site: Site, router: Router) -> None:
    """The API server is away when the command becomes ready, and comes back."""
    proxy = await site.holding()
    routing = router.routing(await site.pool(port=proxy.port))
    proxy.hold()
    routing.note(READY)
    await eventually(lambda: router.said.warnings, "it is told")
    begun = clock.now()
    routing.note(STOPPING)
    assert await routing.drained()
    assert clock.now() - begun < 2.5, "whoever stops does not wait for an API server that is away"
    routing.note(READY)
    assert await routing._pursuit.tried() and not routing.is_settled, "it has failed and will try again"
    proxy.release()
    await eventually(lambda: site.slice() and addresses(site.slice()), "it is published after all")
    await settled(routing)
    assert addresses(site.slice())[0][1]["ready"] is True
    assert len(router.said.warnings) == len(set(router.said.warnings))
    assert f"routing of Service {site.namespace}/web again" in router.said.lines("info")


async def test_what_an_elector_before_has_published_is_taken_off_by_its_successor(site: Site, router: Router) -> None:
    """It died together with the command: nobody else knows that the address is empty."""
    first = router.routing(await site.pool())
    first.note(READY)
    await settled(first)
    other = router.routing(await site.pool(), "b", resumed=True)
    other.note(FOLLOWS)
    await settled(other)
    assert addresses(site.slice()) != [], "another instance's is its own"
    again = router.routing(await site.pool(), resumed=True)
    again.note(FOLLOWS)
    await settled(again)
    assert addresses(site.slice()) == []


def test_the_resources_are_named_as_a_role_names_them() -> None:
    """For the line that says what is missing."""
    assert (SLICES.shown, ENDPOINTS.shown) == ("endpointslices (API group discovery.k8s.io)", "endpoints")
