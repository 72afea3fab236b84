"""Events as client-go writes them: on a real API server, with its RBAC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from awaitelect.publish.events import BURST, Events, Pod
from awaitelect.publish.standing import Standing
from awaitelect.stores.kubernetes import KubernetesStore
from awaitelect.stores.kubernetes_client import Pool
from tests.publish.conftest import Said, Site, eventually
from tests.stores.scripted import Request, raw, scripted, status

LEASE = {"metadata": {"name": "lock", "uid": "1b4e28ba-2fa1-11d2-883f-0016d3cca427"}}
LEADS = Standing(leads=True, token=7, lease=LEASE)
STEPS_DOWN = Standing(leads=False, token=7, lease=LEASE)
FOLLOWS = Standing(lease=LEASE)
Make = Callable[..., Events]


@pytest.fixture
async def make(site: Site, said: Said) -> AsyncIterator[Make]:
    made: list[Events] = []

    def one(pool: Pool, pod: bool = False, uid: str = "") -> Events:
        known = Pod("web-0", site.namespace, uid) if pod else None
        made.append(Events("me", f"kubernetes:{site.namespace}/lock", known, "node-1", pool, said.log))
        return made[-1]

    yield one
    for events in made:
        await events.finish(0)


async def settled(events: Events) -> None:
    await eventually(lambda: events.is_settled, "they are written")


def messages(site: Site, kind: str = "Lease") -> list[str]:
    return sorted(one["message"] for one in site.events() if one["involvedObject"]["kind"] == kind)


async def test_a_term_is_told_as_client_go_tells_it(site: Site, said: Said, make: Make) -> None:
    """Whoever watches for these words in a mixed fleet sees ours too. The end is that of the lease, not of the wish."""
    events = make(await site.poor_pool({"events": ("create",)}))
    for standing in (FOLLOWS, LEADS, LEADS, STEPS_DOWN):
        events.note(standing)
    await settled(events)
    (event,) = site.events()
    assert (event["type"], event["reason"], event["message"]) == ("Normal", "LeaderElection", "me became leader")
    involved: dict[str, Any] = event["involvedObject"]
    assert involved == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "namespace": site.namespace,
        "name": "lock",
        "uid": LEASE["metadata"]["uid"],
    }
    assert event["source"] == {"component": "awaitelect", "host": "node-1"} and event["count"] == 1
    events.note(FOLLOWS)
    await settled(events)
    assert messages(site) == ["me became leader", "me stopped leading"]
    assert said.warnings == []


@pytest.mark.parametrize("is_known", [True, False])
async def test_the_pod_has_them_too_under_its_uid(site: Site, make: Make, is_known: bool) -> None:
    """By the uid `kubectl describe pod` finds them; where nobody gives it, the API server knows."""
    uid = site.create_pod()["metadata"]["uid"]
    events = make(await site.pool(), pod=True, uid=uid if is_known else "")
    events.note(LEADS)
    await settled(events)
    assert messages(site, "Pod") == messages(site) == ["me became leader"]
    (of_pod,) = (one["involvedObject"] for one in site.events() if one["involvedObject"]["kind"] == "Pod")
    assert (of_pod["name"], of_pod["uid"], of_pod["apiVersion"]) == ("web-0", uid, "v1")


async def test_a_missing_right_is_one_warning(site: Site, said: Said, make: Make) -> None:
    """Even with two objects and many changes."""
    events = make(await site.pool("tester-token"), pod=True)
    for standing in (LEADS, FOLLOWS, LEADS):
        events.note(standing)
        await settled(events)
    assert said.warnings == [
        f"not allowed to create events in namespace {site.namespace}; leadership goes on without that Event"
    ]


async def test_a_successor_of_an_elector_tells_nothing_again(site: Site, make: Make) -> None:
    """Leadership has gone on all the time; its end is told all the same."""
    events = make(await site.pool())
    events.note(Standing(leads=True, token=9, is_resumed=True, lease=LEASE))
    await settled(events)
    assert site.events() == []
    events.note(Standing(is_resumed=True, lease=LEASE))
    await settled(events)
    assert messages(site) == ["me stopped leading"]


async def test_leadership_that_flaps_does_not_flood_the_cluster(site: Site, said: Said, make: Make) -> None:
    """Somebody fights for the lease every second, for a day."""
    events = make(await site.pool())
    for _ in range(20):
        events.note(LEADS)
        events.note(FOLLOWS)
    await settled(events)
    assert len(site.events()) == BURST
    assert "(30 left out)" in said.lines("debug")[-1]


@pytest.mark.parametrize(
    ("answers", "warnings"),
    [
        ([status(503, "ServiceUnavailable"), status(503, "ServiceUnavailable"), raw(201, "{}")], 0),
        ([status(503, "ServiceUnavailable")] * 3, 1),
        ([None, status(409, "AlreadyExists")], 0),
    ],
    ids=["at last", "given up", "its answer was lost"],
)
async def test_an_event_is_tried_again_a_few_times_and_then_given_up(
    tmp_path: Path, said: Said, answers: list[bytes | None], warnings: int
) -> None:
    """Under the same name, so that one whose answer was lost is not told twice; and nobody is bothered for ever."""
    left = iter(answers)

    async def play(request: Request) -> bytes | None:
        return next(left, raw(500, "one more"))

    async with scripted(play) as server:
        store = await KubernetesStore.connect("lock", "ns", server.kubeconfig(tmp_path / "kubeconfig"))
        pool = store.pool()
        events = Events("me", "kubernetes:ns/lock", None, "", pool, said.log)
        events.note(LEADS)
        await settled(events)
        names = [one.body["metadata"]["name"] for one in server.requests]
        assert len(names) == len(answers) and len(set(names)) == 1
        assert len(said.warnings) == warnings
        await pool.close()
        await store.close()
