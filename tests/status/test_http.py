"""The status endpoint, over real connections."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest

from awaitelect import clock
from awaitelect.logs import Log
from awaitelect.status.http import serve
from awaitelect.status.snapshot import TOLERANCE, Snapshot

FOLLOWER = Snapshot("follower", "file:/x", "me", "other", 15.0, None)


def led(ago: float) -> Snapshot:
    """A leader whose last renewal was sent so many seconds ago."""
    return Snapshot("leader", "file:/x", "me", "me", 15.0, clock.now() - ago)


@asynccontextmanager
async def served(snapshot: Snapshot, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """The address of an endpoint that shows this."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
        port = free.getsockname()[1]
    serving = asyncio.create_task(serve(host, port, lambda: snapshot, Log(level="error")))
    try:
        async with asyncio.timeout(20):
            while True:
                with suppress(OSError):
                    (await asyncio.open_connection(host, port))[1].close()
                    break
                await asyncio.sleep(0)
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


@pytest.mark.parametrize("path", ["/", "/healthz", "/any/thing?x=1"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_every_path_and_method_tells_that_all_is_well(method: str, path: str) -> None:
    """Whatever probe was written for k8s-await-election goes on working."""
    async with served(FOLLOWER) as address, aiohttp.request(method, address + path) as answer:
        assert answer.status == 200
        assert await answer.json() == {"status": "ok"}


async def test_a_leader_that_has_not_renewed_for_its_lease_is_not_well() -> None:
    """E11. Its container is to be restarted."""
    async with served(led(15.0 + TOLERANCE + 0.1)) as address, aiohttp.ClientSession() as session:
        async with session.get(address + "/healthz") as answer:
            assert answer.status == 500
            assert await answer.json() == {"status": "expired"}
        async with session.head(address + "/healthz") as answer:
            assert (answer.status, await answer.read()) == (500, b"")


@pytest.mark.parametrize(("ago", "expired"), [(0.0, False), (16.5, False), (17.5, True)])
@pytest.mark.parametrize("state", ["leader", "stepping_down"])
def test_only_who_believes_to_hold_the_lease_can_be_expired(state: str, ago: float, expired: bool) -> None:
    """E11. A follower is well whatever has become of the other's lease; two seconds are forgiven to a leader."""
    assert Snapshot(state, "file:/x", "me", "me", 15.0, 100.0).is_expired(100.0 + ago) is expired
    assert not FOLLOWER.is_expired(100.0 + ago)


async def test_it_serves_on_ipv6() -> None:
    """A cluster may have nothing else."""
    async with served(FOLLOWER, "::1") as address, aiohttp.request("GET", address) as answer:
        assert answer.status == 200


async def test_an_address_that_is_taken_is_said_and_stops_nothing() -> None:
    """The endpoint is no reason to lose a lease."""
    read, write = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serving = asyncio.create_task(serve("127.0.0.1", port, lambda: FOLLOWER, Log(fd=write)))
        loop = asyncio.get_running_loop()
        said = loop.create_future()
        loop.add_reader(read, lambda: said.done() or said.set_result(os.read(read, 4096)))
        async with asyncio.timeout(20):
            line = (await said).decode()
        loop.remove_reader(read)
        assert f"cannot listen on 127.0.0.1:{port} (status.listen)" in line
        assert not serving.done()
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
    os.close(read)
    os.close(write)
