"""What is published stands in nobody's way: the loop, a lease in memory, and a real API server behind a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from awaitelect import clock, protocol
from awaitelect.config.model import Service
from awaitelect.publish.events import Events
from awaitelect.publish.pod_label import PodLabel
from awaitelect.publish.publisher import Publisher
from awaitelect.publish.service import ServiceRouting
from tests.elector.test_loop import Rig
from tests.fakes import MemoryLease, MemoryStore
from tests.publish.conftest import Holding, Said, Site, eventually


class Scene:
    """One elector whose lease is in memory, and what it publishes through a proxy."""

    def __init__(self, rig: Rig, proxy: Holding, site: Site) -> None:
        self.rig, self.proxy, self.site = rig, proxy, site
        self.running: asyncio.Task[int] | None = None
        self.granted: list[int] = []

    async def lead(self) -> None:
        """Until the command is ready."""
        self.running = asyncio.create_task(self.rig.loop.run())
        grant = await self.rig.hear(protocol.Grant)
        assert isinstance(grant, protocol.Grant)
        self.granted.append(grant.number)
        self.rig.say(protocol.Ack(grant.number))
        self.rig.say(protocol.Spawned(1))
        self.rig.say(protocol.Ready())

    async def published(self) -> None:
        await eventually(lambda: self.ready_at() == [True], "it is published")

    def ready_at(self) -> list[bool]:
        found = self.site.slice()
        return [one["conditions"]["ready"] for one in (found or {}).get("endpoints") or []]

    def gone(self) -> None:
        """The command has ended, by whichever grant was the last."""
        self.rig.say(protocol.Gone(self.rig.election._grants.last_number, "shutdown", 0))

    @property
    def is_released(self) -> bool:
        record = self.rig.store.lease.now.record
        return record is not None and record.holder == ""


@pytest.fixture
async def scene(site: Site, said: Said, tmp_path: Path) -> AsyncIterator[Scene]:
    site.create_pod()
    proxy = await site.holding()
    pool = await site.pool(port=proxy.port)
    settings = Service(name="web", pod_ip="10.1.0.1")
    publisher = Publisher(
        pool,
        ServiceRouting(settings, "web-0", site.namespace, pool, "instance", False, said.log),
        PodLabel("role", "leader", "follower", "web-0", site.namespace, pool, said.log),
        Events("me", f"kubernetes:{site.namespace}/lock", None, "", pool, said.log),
    )
    rig = Rig(tmp_path, MemoryStore(MemoryLease()))
    rig.loop._publisher = publisher
    one = Scene(rig, proxy, site)
    yield one
    if one.running is not None:
        one.running.cancel()
        await asyncio.gather(one.running, return_exceptions=True)
    await publisher.close()
    rig.close()


async def test_a_term_from_beginning_to_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three, in order; the stop is told to go on when the traffic is off; nothing is left when we leave."""
    monkeypatch.setattr("awaitelect.publish.publisher.CLOSING", 20.0)
    await scene.lead()
    await scene.published()
    await eventually(lambda: scene.site.pod()["metadata"]["labels"] == {"role": "leader"}, "the pod is labelled")
    scene.rig.say(protocol.Shutdown(15))
    scene.rig.say(protocol.Ready(False))
    await scene.rig.hear(protocol.Drained)
    await eventually(lambda: scene.ready_at() == [False], "it is marked")
    scene.gone()
    await scene.rig.hear(protocol.Leave)
    assert scene.is_released and scene.ready_at() == []
    assert scene.site.pod()["metadata"]["labels"] == {"role": "follower"}
    assert sorted(one["message"] for one in scene.site.events()) == ["me became leader", "me stopped leading"]


async def test_an_api_server_that_does_not_answer_delays_no_renewal_and_no_release(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is given back at once; only our own end waits for what hangs, and for so long at most."""
    closing = 5.0
    monkeypatch.setattr("awaitelect.publish.publisher.CLOSING", closing)
    await scene.lead()
    await scene.published()
    scene.proxy.hold()
    version = scene.rig.store.lease.version
    await eventually(lambda: scene.rig.store.lease.version > version + 3, "it is renewed")
    scene.rig.say(protocol.Shutdown(15))
    scene.rig.say(protocol.Ready(False))
    stopped = clock.now()
    scene.gone()
    await eventually(lambda: scene.is_released, "the lease is released")
    assert clock.now() - stopped < closing / 2
    await scene.rig.hear(protocol.Leave)
    assert closing / 2 < clock.now() - stopped < 2 * closing


async def test_a_stop_is_told_to_go_on_when_the_mark_cannot_be_written(scene: Scene) -> None:
    """As soon as that is known, which an API server that is gone says at once."""
    await scene.lead()
    await scene.published()
    scene.proxy.hold()
    scene.rig.say(protocol.Ready(False))
    begun = clock.now()
    await scene.rig.hear(protocol.Drained)
    assert clock.now() - begun < 2.9
    assert scene.ready_at() == [True], "it could not be written"
    scene.proxy.release()
    await eventually(lambda: scene.ready_at() == [False], "it is written after all")


async def test_a_lost_lease_takes_the_address_off_at_once(scene: Scene) -> None:
    """Before the keeper has said a word: another may be about to be published."""
    await scene.lead()
    await scene.published()
    scene.rig.store.lease.put({"spec": {"holderIdentity": "other", "leaseDurationSeconds": 9}, "metadata": {}})
    await eventually(lambda: scene.ready_at() == [False], "it is marked")
    scene.gone()
    await eventually(lambda: scene.ready_at() == [], "it is taken off")
