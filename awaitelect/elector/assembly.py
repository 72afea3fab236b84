"""The composition root of the elector: the only place that builds things."""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING

from awaitelect.config.sources import Loaded
from awaitelect.core.election import Election
from awaitelect.elector.channel import Channel
from awaitelect.elector.guard import TreeGuard
from awaitelect.elector.library_logs import route
from awaitelect.elector.loop import ElectionLoop
from awaitelect.errors import ConfigError
from awaitelect.logs import Log
from awaitelect.protocol import Hello
from awaitelect.status.journal import Journal
from awaitelect.stores import LeaseStore

if TYPE_CHECKING:
    from awaitelect.publish.publisher import Publisher


async def elect(loaded: Loaded, hello: Hello, channel: Channel, log: Log) -> int:
    """Build everything, take part in the election until it is over, and return our exit status.

    Raises ConfigError where the store's own configuration (kubeconfig, service account) can't be used.
    """
    route(log)
    election = Election(
        loaded.identity,
        hello.instance,
        loaded.timing,
        random.random,
        on_lost=loaded.settings.election.on_lost,
        last_number=hello.number,
        last_kill_by=math.inf if hello.kill_by is None else hello.kill_by,
    )
    store = await _store(loaded)
    if hello.lock not in ("", store.lock):
        raise ConfigError(
            [f"the lock has changed from {hello.lock} to {store.lock}: that needs a restart of awaitelect"]
        )
    log.configure(loaded.settings.log.level, loaded.settings.log.format, lock=store.lock)
    guard = TreeGuard(hello.instance, log, channel.keeper, hello.cgroup)
    publisher = _publisher(loaded, hello, store, log)
    loop = ElectionLoop(election, store, channel, guard, log, Journal(hello), loaded.name, publisher)
    listen = loaded.settings.status.listen
    if listen:
        from awaitelect.status import http

        serving = asyncio.create_task(http.serve(listen, loop.snapshot, log))
        status = await loop.run()
        serving.cancel()
        return status
    return await loop.run()


async def _store(loaded: Loaded) -> LeaseStore:
    lock = loaded.settings.lock
    if lock.backend == "file":
        from awaitelect.stores.file import FileStore

        return FileStore(lock.path or "")
    from awaitelect.stores.kubernetes import KubernetesStore

    poll_period = loaded.settings.election.retry_period
    return await KubernetesStore.connect(
        lock.name or "", lock.namespace, lock.kubeconfig, lock.context, poll_period=poll_period
    )


def _publisher(loaded: Loaded, hello: Hello, store: LeaseStore, log: Log) -> Publisher | None:
    """What tells the cluster who leads; None where nothing of it is asked for."""
    one, routing, label, events = loaded.settings, None, None, None
    if not (one.service.name or one.pod_label.key or one.events):
        return None
    from awaitelect.publish.publisher import Publisher
    from awaitelect.stores.kubernetes import KubernetesStore

    if not isinstance(store, KubernetesStore):
        raise ConfigError([f"service, pod_label, events: need a cluster, and the lock is {store.lock}"])
    pool, pod = store.pool(), one.pod.name or ""
    lock_namespace = store.lock.removeprefix("kubernetes:").partition("/")[0]
    pod_namespace = one.pod.namespace or lock_namespace
    if one.service.name:
        from awaitelect.publish.service import ServiceRouting

        namespace = one.service.namespace or lock_namespace
        target = pod if namespace == pod_namespace else ""
        routing = ServiceRouting(one.service, target, namespace, pool, hello.instance, hello.number > 0, log)
    if one.pod_label.key:
        from awaitelect.publish.pod_label import PodLabel

        label = PodLabel(one.pod_label.key, one.pod_label.leader, one.pod_label.follower, pod, pod_namespace, pool, log)
    if one.events:
        from awaitelect.publish.events import Events, Pod

        own = Pod(pod, pod_namespace, one.pod.uid or "") if pod else None
        events = Events(loaded.identity, store.lock, own, one.service.node_name or "", pool, log)
    return Publisher(pool, routing, label, events)
