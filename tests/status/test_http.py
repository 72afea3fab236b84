"""The status endpoint, over real connections."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from awaitelect import clock
from awaitelect.config.listen import Listen
from awaitelect.logs import Log
from awaitelect.status import http
from awaitelect.status.http import is_in_pod, serve
from awaitelect.status.snapshot import TOLERANCE, Snapshot

FOLLOWER = Snapshot("follower", "file:/x", "me", "other", 15.0, None)
PATIENCE = 20.0
"""Seconds until a test gives up."""


def led(ago: float, **fields: object) -> Snapshot:
    """A leader whose last renewal was sent so many seconds ago."""
    return Snapshot("leader", "file:/x", "me", "me", 15.0, clock.now() - ago, **fields)


def free_port(host: str = "127.0.0.1") -> int:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
        port: int = free.getsockname()[1]
    return port


@asynccontextmanager
async def serving(
    listen: Listen, snapshot: Snapshot = FOLLOWER, *, in_pod: bool = False, log: Log | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """An endpoint that shows this, while this is entered."""
    task = asyncio.create_task(serve(listen, lambda: snapshot, log or Log(level="error"), in_pod=in_pod))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def connected(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to who is about to listen there."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(OSError):
                return await asyncio.open_connection(host, port)
            await asyncio.sleep(0)


async def hang_up(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def served(snapshot: Snapshot, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """The address of an endpoint that shows this."""
    port = free_port(host)
    async with serving(Listen(host, port), snapshot):
        await hang_up((await connected(host, port))[1])
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@pytest.mark.parametrize("path", ["/", "/healthz", "/livez", "/readyz", "/any/thing?x=1", "//", "/%ff", "/leader/"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_every_path_and_method_tells_that_all_is_well(method: str, path: str) -> None:
    """Whatever probe was written for k8s-await-election goes on working."""
    async with served(FOLLOWER) as address, aiohttp.request(method, address + path) as answer:
        assert answer.status == 200
        assert await answer.json() == {"status": "ok"}


async def test_a_body_that_nobody_wants_is_no_trouble() -> None:
    """k8s-await-election doesn't read it either."""
    async with served(FOLLOWER) as address, aiohttp.request("POST", address, data=b"x" * 20_000) as answer:
        assert answer.status == 200
        assert await answer.json() == {"status": "ok"}


@pytest.mark.parametrize("path", ["/leader", "/status", "/metrics"])
async def test_pages_that_k8s_await_election_does_not_have_can_only_be_read(path: str) -> None:
    async with served(FOLLOWER) as address, aiohttp.ClientSession() as session:
        async with session.post(address + path) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
        async with session.get(address + path) as answer:
            length = answer.headers["Content-Length"]
        async with session.head(address + path) as answer:
            assert (answer.headers["Content-Length"], await answer.read()) == (length, b"")


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


async def test_status_is_json_and_metrics_are_what_prometheus_reads() -> None:
    """By the content type that each reader looks at; nobody keeps them, and nobody learns what serves them."""
    async with served(led(1.0, name="demo")) as address, aiohttp.ClientSession() as session:
        async with session.get(address + "/status") as answer:
            assert (await answer.json())["state"] == "leader"
            assert (answer.headers["Cache-Control"], answer.headers["Server"]) == ("no-store", "awaitelect")
        async with session.get(address + "/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert 'leader_election_master_status{name="demo"} 1.0' in await answer.text()
        async with session.get(address + "/metrics", headers={"Accept": "application/openmetrics-text"}) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
            assert (await answer.text()).endswith("# EOF\n")


# ---------------------------------------------------------------------- where it listens


async def test_it_serves_on_ipv6() -> None:
    """A cluster may have nothing else."""
    async with served(FOLLOWER, "::1") as address, aiohttp.request("GET", address) as answer:
        assert answer.status == 200


def listening(port: int) -> set[str]:
    """The addresses on which this machine listens at a port, as the kernel has them."""
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A" and int(local.split(":")[1], 16) == port:
                raw = bytes.fromhex(local.split(":")[0])
                words = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
                found.add(socket.inet_ntop(family, words))
    return found


@pytest.mark.parametrize(
    ("host", "in_pod", "addresses"),
    [
        ("", False, {"127.0.0.1", "::1"}),
        ("", True, {"::"}),
        ("0.0.0.0", False, {"::"}),
        ("::", False, {"::"}),
        ("127.0.0.1", True, {"127.0.0.1"}),
        ("::1", True, {"::1"}),
        ("localhost", False, None),
    ],
)
async def test_without_a_host_it_listens_everywhere_only_in_a_pod(
    host: str, in_pod: bool, addresses: set[str] | None
) -> None:
    """There it is others who ask. A host that stands there is meant, everywhere in both families, as in Go."""
    port = free_port()
    async with serving(Listen(host, port), in_pod=in_pod):
        await hang_up((await connected("::1" if host == "::1" else "127.0.0.1", port))[1])
        found = listening(port)
        assert found == addresses if addresses else found <= {"127.0.0.1", "::1"}
        if addresses == {"::"}:
            await hang_up((await connected("::1", port))[1])


async def test_a_port_that_is_any_is_the_same_on_both_addresses() -> None:
    """The line that tells of it names them."""
    read, write = os.pipe()
    async with serving(Listen("", 0), log=Log(fd=write)):
        line = await said(read)
    first, second = line.split("status on ")[1].split(" (")[0].split(", ")
    assert first.rpartition(":")[2] == second.rpartition(":")[2] != "0"
    assert "this machine alone" in line
    os.close(read)
    os.close(write)


def test_a_pod_is_known_by_its_environment_or_its_account(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert is_in_pod({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, nowhere)
    assert is_in_pod({}, str(tmp_path))
    assert not is_in_pod({"PATH": "/bin"}, nowhere)


async def said(fd: int) -> str:
    """The next line."""
    loop = asyncio.get_running_loop()
    line = loop.create_future()
    loop.add_reader(fd, lambda: line.done() or line.set_result(os.read(fd, 4096)))
    async with asyncio.timeout(PATIENCE):
        text: bytes = await line
    loop.remove_reader(fd)
    return text.decode()


async def test_an_address_that_is_taken_is_said_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint is no reason to lose a lease. It is tried again until it can be had."""
    monkeypatch.setattr(http, "RETRY", 0.01)
    read, write = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with serving(Listen("127.0.0.1", port), log=Log(fd=write)) as task:
            assert f"cannot listen on 127.0.0.1:{port} (status.listen)" in await said(read)
            assert not task.done()
            taken.close()
            assert f"status on 127.0.0.1:{port}" in await said(read)
            await hang_up((await connected("127.0.0.1", port))[1])
    os.close(read)
    os.close(write)


# ---------------------------------------------------------------------- whoever asks too much


async def is_cut(reader: asyncio.StreamReader) -> bool:
    """The connection ends without an answer."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


async def asked(port: int, path: str = "/") -> int:
    """The status of the answer to a client that is as quick as any."""
    async with aiohttp.request("GET", f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status


async def test_who_holds_all_connections_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest of them is cut off; else a few idle clients would have the kubelet restart the pod."""
    monkeypatch.setattr(http, "TIME", 10 * PATIENCE)
    port = free_port()
    async with serving(Listen("127.0.0.1", port)):
        idle = [await connected("127.0.0.1", port) for _ in range(http.CONNECTIONS)]
        for _ in range(3):
            assert await asked(port) == 200
        assert await is_cut(idle[0][0])
        assert not idle[-1][0].at_eof()
        await hang_up(*(writer for _, writer in idle))


async def test_who_is_slow_has_so_much_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a byte comes."""
    monkeypatch.setattr(http, "TIME", 0.1)
    port = free_port()
    async with serving(Listen("127.0.0.1", port)):
        reader, writer = await connected("127.0.0.1", port)
        cut = asyncio.create_task(is_cut(reader))
        writer.write(b"GET / HTTP/1.1\r\nX-Slow: ")
        while not cut.done():
            with suppress(ConnectionError):
                writer.write(b"x")
            await asyncio.sleep(0.01)
        assert await cut
        monkeypatch.setattr(http, "TIME", 10 * PATIENCE)
        assert await asked(port) == 200
        await hang_up(writer)


@pytest.mark.parametrize(
    "endless",
    [b"x" * 1024, b"X-Header: x\r\n" * 64],
    ids=["one line", "many lines"],
)
async def test_a_request_that_does_not_end_is_ended(endless: bytes) -> None:
    """By an answer, or without: whatever finds it too long first."""
    port = free_port()
    async with serving(Listen("127.0.0.1", port)):
        reader, writer = await connected("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-First: ")
        ended = asyncio.create_task(reader.read())
        sent = 0
        with suppress(ConnectionError):
            while not ended.done():
                writer.write(endless)
                sent += len(endless)
                await writer.drain()
        with suppress(ConnectionError):
            answer = await ended
            assert answer == b"" or answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
        assert await asked(port) == 200
        await hang_up(writer)


@pytest.mark.parametrize(("more", "is_answered"), [(0, True), (1, False)])
async def test_who_sends_more_than_he_may_has_no_answer(
    monkeypatch: pytest.MonkeyPatch, more: int, is_answered: bool
) -> None:
    """To the byte. The limit is lowered, so that each line and all of them together are short enough for anybody."""
    monkeypatch.setattr(http, "BYTES", 4000)
    monkeypatch.setattr(http, "TIME", 10 * PATIENCE)
    port = free_port()
    begin, end = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ", b"\r\n\r\n"
    async with serving(Listen("127.0.0.1", port)):
        reader, writer = await connected("127.0.0.1", port)
        writer.write(begin + b"x" * (http.BYTES + more - len(begin) - len(end)) + end)
        if is_answered:
            async with asyncio.timeout(PATIENCE):
                assert (await reader.read()).startswith(b"HTTP/1.1 200")
        else:
            assert await is_cut(reader)
        await hang_up(writer)


@pytest.mark.parametrize(
    "body",
    ["Transfer-Encoding: chunked", f"Content-Length: {10**12}"],
    ids=["in chunks", "of a length"],
)
async def test_who_sends_too_much_is_cut_off(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """No line of a body is too long, and after the answer the rest of it is read for a while, however much comes.

    The README promises 64 KiB; as much again is on its way.
    """
    monkeypatch.setattr(http, "TIME", 10 * PATIENCE)
    port = free_port()
    piece = b"3f9\r\n" + b"x" * 0x3F9 + b"\r\n"
    assert len(piece) == 1024
    async with serving(Listen("127.0.0.1", port)):
        reader, writer = await connected("127.0.0.1", port)
        writer.write(f"POST / HTTP/1.1\r\nHost: x\r\n{body}\r\n\r\n".encode())
        ended = asyncio.create_task(is_ended(reader))
        sent = 0
        with suppress(ConnectionError):
            while not ended.done() and sent < 128 * 1024:
                writer.write(piece)
                sent += len(piece)
                await writer.drain()
                await asyncio.sleep(0)  # the other end, in this same loop, has its turn
        assert sent < 128 * 1024
        await ended
        assert await asked(port) == 200
        await hang_up(writer)


async def is_ended(reader: asyncio.StreamReader) -> bool:
    """The connection ends, after an answer or without."""
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionError):
            await reader.read()
    return True


async def test_there_is_one_request_in_a_connection() -> None:
    """So nobody who sends many behind each other is served before the others."""
    port = free_port()
    async with serving(Listen("127.0.0.1", port)):
        reader, writer = await connected("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
        async with asyncio.timeout(PATIENCE):
            answers = await reader.read()
        assert answers.count(b"HTTP/1.1 200 OK") == 1 and b"Connection: close" in answers
        await hang_up(writer)


@pytest.mark.parametrize("said", [b"\x16\x03\x01\x02\x00\x01\x00", b"\r\n\r\n", b"GET\r\n\r\n", b"\0" * 100])
async def test_what_is_no_http_is_no_trouble(said: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """TLS, say. Not a line is logged about it: whoever sends it could fill a disk."""
    port = free_port()
    async with serving(Listen("127.0.0.1", port)):
        reader, writer = await connected("127.0.0.1", port)
        writer.write(said)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):
                await reader.read()
        assert await asked(port) == 200
        await hang_up(writer)
    assert capfd.readouterr().err == ""


async def test_whoever_asks_is_not_waited_for_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is released meanwhile, and a successor wants the port."""
    monkeypatch.setattr(http, "TIME", 10 * PATIENCE)
    port = free_port()
    async with serving(Listen("127.0.0.1", port)):
        reader, writer = await connected("127.0.0.1", port)
        assert await asked(port) == 200
    assert await is_cut(reader)
    with socket.create_server(("127.0.0.1", port)):
        pass
    await hang_up(writer)


def test_what_nobody_asks_for_is_not_imported() -> None:
    """Start-up time is a promise, and most instances are never asked for metrics."""
    code = "import sys, json, awaitelect.elector.assembly as a; from awaitelect.status import http; "
    code += "print(json.dumps([name for name in ('prometheus_client', 'aiohttp.web') if name in sys.modules]))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout) == []
    code = "import sys, awaitelect.elector.assembly; assert 'awaitelect.status.http' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_two_who_want_one_port_at_the_same_time_do_not_both_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel lets two bind what neither listens on: whoever comes second is told, and waits."""
    monkeypatch.setattr(http, "RETRY", 0.01)
    port = free_port()
    read, write = os.pipe()
    async with serving(Listen("127.0.0.1", port), log=Log(fd=write)) as first:
        assert "status on" in await said(read)
        async with serving(Listen("127.0.0.1", port), log=Log(fd=write)) as second:
            assert "cannot listen" in await said(read)
            assert not first.done() and not second.done()
    os.close(read)
    os.close(write)


async def test_an_endpoint_that_fails_is_said_and_raises_nothing() -> None:
    """Nobody waits for it, so nobody would hear of it."""
    read, write = os.pipe()
    async with serving(Listen("no..name", 9999), log=Log(fd=write)) as task:
        assert "the status endpoint has failed: UnicodeError" in await said(read)
        await task
    os.close(read)
    os.close(write)
