"""The status endpoint: is this instance well?

Every path answers as k8s-await-election does: 200 {"status": "ok"} for followers too, 500 {"status": "expired"} only
for a leader whose last renewal is older than its lease and a tolerance.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

from awaitelect import clock
from awaitelect.logs import Log
from awaitelect.status.snapshot import Snapshot

RETRY = 5.0
"""Seconds until an address that could not be had is tried again."""


async def serve(host: str | None, port: int, snapshot: Callable[[], Snapshot], log: Log) -> None:
    """Serve until cancelled. `host` None: all addresses. An address that is taken is tried again."""
    # In a thread, so that the 100 ms of this import stand before no renewal.
    web: Any = await asyncio.to_thread(importlib.import_module, "aiohttp.web")

    async def answer(request: Any) -> Any:
        expired = snapshot().is_expired(clock.now())
        return web.json_response({"status": "expired" if expired else "ok"}, status=500 if expired else 200)

    server = web.Server(answer, access_log=None)
    runner = web.ServerRunner(server)
    await runner.setup()
    try:
        await _listen(web, runner, host, port, log)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _listen(web: Any, runner: Any, host: str | None, port: int, log: Log) -> None:
    shown = f"{host or ''}:{port}"
    told = False
    while True:
        try:
            await web.TCPSite(runner, host, port, reuse_address=True).start()
        except OSError as error:
            if not told:
                log.error(f"cannot listen on {shown} (status.listen): {error.strerror}; trying again")
                told = True
            await asyncio.sleep(RETRY)
        else:
            log.info(f"status on {shown}")
            return
