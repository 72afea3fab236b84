"""The composition root of the elector: the only place that builds things."""

from __future__ import annotations

import asyncio
import math
import random

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
    loop = ElectionLoop(election, store, channel, guard, log, Journal(hello), loaded.name)
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
