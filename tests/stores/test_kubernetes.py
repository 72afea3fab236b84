"""What only the store on Kubernetes has to stand: odd answers, dead connections, missing rights."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from awaitelect.core.lease import ABSENT, Observed, Record
from awaitelect.errors import Conflict, StoreError, StoreUnavailable
from awaitelect.stores import kubernetes as subject
from awaitelect.stores.kubernetes import KubernetesStore
from awaitelect.stores.wire import parse_record
from awaitelect.values import changed
from tests.envtest import LEASE_VERBS, TESTER_TOKEN, ControlPlane
from tests.stores.scripted import Request, Scripted, found, lease, raw, scripted, stalling, status, stream

T = 5.0
HELD = Record("a", 15, instance="run-1", instance_holder="a")
BASE = Observed(7, parse_record(lease(7)), lease(7))
HTML = "<html><body>Bad gateway</body></html>"
Watch = Callable[[Any, Observed], Any]


@asynccontextmanager
async def served(
    tmp_path: Path, play: Callable[[Request], Awaitable[bytes | None]], **options: Any
) -> AsyncIterator[tuple[KubernetesStore, Scripted]]:
    """A store whose API server follows the script."""
    async with scripted(play) as server:
        store = await KubernetesStore.connect("x", "ns", server.kubeconfig(tmp_path / "kc"), **options)
        try:
            yield store, server
        finally:
            await store.close()


def always(answer: bytes | None) -> Callable[[Request], Awaitable[bytes | None]]:
    async def play(request: Request) -> bytes | None:
        return answer

    return play


async def attempts(store: KubernetesStore) -> dict[str, StoreError | Observed]:
    """What each call comes to."""
    calls = {"read": store.read(T), "create": store.create(HELD, T), "update": store.update(BASE, HELD, T)}
    results = {}
    for verb, call in calls.items():
        try:
            results[verb] = await call
        except StoreError as error:
            results[verb] = error
    return results


async def until(condition: Callable[[], Awaitable[bool]], within: float = 10.0) -> None:
    """Return as soon as the condition holds."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.005)


async def holds(condition: bool) -> bool:
    return condition


async def allowed(store: KubernetesStore) -> bool:
    """RBAC takes a moment to know a new role."""
    try:
        await store.read(T)
    except StoreUnavailable:
        return False
    return True


@pytest.mark.parametrize(
    ("code", "reason", "uncertain"),
    [
        (400, "BadRequest", False),
        (401, "Unauthorized", False),
        (403, "Forbidden", False),
        (408, "Timeout", True),
        (422, "Invalid", False),
        (429, "TooManyRequests", False),
        (500, "InternalError", True),
        (503, "ServiceUnavailable", True),
        (504, "Timeout", True),
    ],
)
async def test_a_refusal_is_unavailability_with_its_reason(
    tmp_path: Path, code: int, reason: str, uncertain: bool
) -> None:
    """None of these says that the lease is lost, and the operator reads status and message, and no token."""
    answer = status(code, reason, "because of this", headers="Retry-After: 7\r\n")
    async with served(tmp_path, always(answer)) as (store, _):
        for verb, error in (await attempts(store)).items():
            assert isinstance(error, StoreUnavailable)
            assert str(error).startswith(f"cannot {verb} kubernetes:ns/x: ")
            assert str(code) in str(error) and "because of this" in str(error) and "sesame" not in str(error)
            assert (error.uncertain, error.retry_after) == (uncertain, 7.0)


@pytest.mark.parametrize("code", [200, 201, 302, 404, 409, 410, 500, 502])
@pytest.mark.parametrize(
    "body", [HTML, "", "[]", "{", "null", "[" * 100_000, '{"kind": "Lease"}', json.dumps(lease("seven"))]
)
async def test_an_answer_that_is_no_lease_says_nothing_of_the_lease(tmp_path: Path, code: int, body: str) -> None:
    """A proxy's page with status 404 or 409 must not look like a lost or a deleted lease."""
    async with served(tmp_path, always(raw(code, body, "text/html"))) as (store, _):
        for error in (await attempts(store)).values():
            assert isinstance(error, StoreUnavailable)


async def test_the_api_s_own_404_and_409_are_answers(tmp_path: Path) -> None:
    """Absent for a reader, a conflict for a writer."""
    async with served(tmp_path, always(status(404, "NotFound"))) as (store, _):
        results = await attempts(store)
        assert results["read"] == ABSENT
        assert isinstance(results["update"], Conflict)
    async with served(tmp_path, always(status(409, "AlreadyExists"))) as (store, _):
        assert isinstance((await attempts(store))["create"], Conflict)
    async with served(tmp_path, always(status(409, "Conflict"))) as (store, _):
        assert isinstance((await attempts(store))["update"], Conflict)


async def test_a_missing_namespace_or_api_is_not_an_absent_lease(tmp_path: Path) -> None:
    """The 404 must be about this lease."""
    for name in ("ns", ""):
        async with served(tmp_path, always(status(404, "NotFound", "no such thing", name))) as (store, _):
            for error in (await attempts(store)).values():
                assert isinstance(error, StoreUnavailable) and not error.uncertain


async def test_a_connection_that_breaks_leaves_a_write_uncertain(tmp_path: Path) -> None:
    """The server may have stored it before it died; where nobody listened it surely has not."""
    async with served(tmp_path, always(None)) as (store, server):
        for error in (await attempts(store)).values():
            assert isinstance(error, StoreUnavailable) and error.uncertain
    closed = server.kubeconfig(tmp_path / "closed")
    store = await KubernetesStore.connect("x", "ns", closed)
    for error in (await attempts(store)).values():
        assert isinstance(error, StoreUnavailable) and not error.uncertain and "no connection" in str(error)
    await store.close()


async def test_a_time_out_bounds_the_whole_call(tmp_path: Path) -> None:
    """A server that drips an answer must not outlast the renew deadline."""

    async def drip(request: Request) -> bytes | None:
        request.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            request.writer.write(b" ")
            await asyncio.sleep(0.02)

    async with served(tmp_path, drip) as (store, server):
        for number in range(1, 4):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match=r"in 0\.3 s") as caught:
                await store.update(BASE, HELD, 0.3)
            assert 0.29 < time.monotonic() - began < 3
            assert caught.value.uncertain
            assert server.connections == number


async def test_connections_are_kept_between_calls(tmp_path: Path) -> None:
    """A TLS handshake for each renewal would cost more than the renewal."""
    async with served(tmp_path, always(found(7))) as (store, server):
        for _ in range(5):
            await store.read(T)
        assert server.connections == 1


async def test_a_half_open_connection_costs_one_call(
    kubernetes: Any, cluster: ControlPlane, tmp_path: Path, changes: Watch
) -> None:
    """A firewall forgot the connection: the next attempt must use a fresh one, and the watch's go on unharmed."""
    async with stalling(cluster.port) as proxy:
        config = cluster.kubeconfig(tmp_path / "proxied", server=f"https://127.0.0.1:{proxy.port}")
        store = await kubernetes.store(kubeconfig=config)
        last = await store.create(HELD, T)
        proxy.stall()
        with pytest.raises(StoreUnavailable, match="no answer"):
            await store.update(last, changed(HELD, holder="b"), 0.5)
        last = await store.read(T)
        assert (await store.update(last, changed(HELD, holder="c"), T)).record.holder == "c"


async def test_a_time_out_gives_up_the_idle_connections_too(
    kubernetes: Any, cluster: ControlPlane, tmp_path: Path
) -> None:
    """What has forgotten one has forgotten the others: else each of them would cost another time-out."""
    async with stalling(cluster.port) as proxy:
        config = cluster.kubeconfig(tmp_path / "proxied", server=f"https://127.0.0.1:{proxy.port}")
        store = await kubernetes.store(kubeconfig=config)
        await asyncio.gather(*(store.read(T) for _ in range(3)))
        assert proxy.connections == 3
        proxy.stall()
        with pytest.raises(StoreUnavailable, match="no answer"):
            await store.read(0.5)
        assert await store.read(T) == ABSENT
        assert proxy.connections == 4


async def test_exactly_the_documented_rights_are_enough(
    kubernetes: Any, cluster: ControlPlane, tmp_path: Path, changes: Watch
) -> None:
    """What the manifests grant is what is used."""
    kubernetes.cluster.allow("default", *LEASE_VERBS)
    config = cluster.kubeconfig(tmp_path / "tester", {"token": TESTER_TOKEN})
    store = await kubernetes.store(kubeconfig=config)
    await until(lambda: allowed(store))
    seen = changes(store, ABSENT)
    created = await store.create(HELD, T)
    assert await seen.next() == created
    updated = await store.update(created, changed(HELD, holder="b"), T)
    assert await seen.next() == updated


async def test_missing_rights_are_named(cluster: ControlPlane, tmp_path: Path) -> None:
    """The operator reads which verb on which resource is missing."""
    cluster.create_namespace("closed")
    store = await KubernetesStore.connect("x", "closed", cluster.kubeconfig(tmp_path / "kc", {"token": TESTER_TOKEN}))
    with pytest.raises(StoreUnavailable, match=r'cannot get resource "leases".*namespace "closed"'):
        await store.read(T)
    await store.close()


async def test_a_missing_namespace_is_named(cluster: ControlPlane, tmp_path: Path) -> None:
    """A typing error in the configuration, as seen on a real server."""
    store = await KubernetesStore.connect("x", "nowhere", cluster.kubeconfig(tmp_path / "kc"))
    with pytest.raises(StoreUnavailable, match='namespaces "nowhere" not found'):
        await store.create(HELD, T)
    await store.close()


async def test_a_cut_watch_resumes_where_it_was(tmp_path: Path, changes: Watch) -> None:
    """The second request begins at the last version, at once."""

    async def play(request: Request) -> bytes | None:
        if len(server.requests) == 1:
            bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "12"}}}
            return stream({"type": "MODIFIED", "object": lease(9)}, bookmark)
        if len(server.requests) == 2:
            return stream({"type": "DELETED", "object": lease(14)})
        return await asyncio.Future()

    async with served(tmp_path, play) as (store, server):
        seen = changes(store, BASE)
        assert (await seen.next()).version == 9
        assert await seen.next() == Observed(14)
        await until(lambda: holds(len(server.requests) == 3))
        starts = [request.target.partition("resourceVersion=")[2].partition("&")[0] for request in server.requests]
        assert starts == ["7", "12", "14"]


@pytest.mark.parametrize(
    "gone",
    [
        status(410, "Expired"),
        stream({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}),
        stream(b"not json\n"),
        stream(b'{"type": "MODIFIED", "object": 5}\n'),
        status(504, "Timeout", "Too large resource version"),
        raw(502, HTML),
    ],
)
async def test_a_watch_that_lost_its_place_looks_again(tmp_path: Path, changes: Watch, gone: bytes) -> None:
    """A gap is closed by the present state; it must not be skipped, nor end the watch."""

    async def play(request: Request) -> bytes | None:
        if not request.is_watch:
            return found(20, "b")
        return gone if "resourceVersion=7" in request.target else await asyncio.Future()

    async with served(tmp_path, play) as (store, server):
        seen = changes(store, BASE)
        assert (await seen.next()).version == 20
        await until(lambda: holds("resourceVersion=20" in server.requests[-1].target))
        assert seen.empty()


async def test_a_server_that_always_says_gone_is_not_flooded(tmp_path: Path, changes: Watch) -> None:
    """Back-off between attempts that get nowhere."""

    async def play(request: Request) -> bytes | None:
        return status(410, "Expired") if request.is_watch else found(7)

    async with served(tmp_path, play) as (store, server):
        changes(store, BASE)
        await asyncio.sleep(1.0)
        assert len(server.requests) < 20


async def test_a_long_line_is_read_whole(tmp_path: Path, changes: Watch) -> None:
    """Managed fields of many writers make an object longer than aiohttp's line limit."""
    big = lease(9)
    big["metadata"]["annotations"] = {"example.org/big": "x" * 3_000_000}

    async def play(request: Request) -> bytes | None:
        return stream({"type": "MODIFIED", "object": big}) if len(server.requests) == 1 else await asyncio.Future()

    async with served(tmp_path, play) as (store, server):
        assert (await changes(store, BASE).next()).raw == big


async def test_a_silent_watch_is_opened_again(tmp_path: Path, changes: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-open watch would tell nothing for ever."""
    monkeypatch.setattr(subject, "_SILENCE", 0.2)

    async def play(request: Request) -> bytes | None:
        if len(server.requests) == 1:
            request.writer.write(stream())
            return await asyncio.Future()
        return stream({"type": "MODIFIED", "object": lease(9)})

    async with served(tmp_path, play) as (store, server):
        assert (await changes(store, BASE).next(5.0)).version == 9


async def test_where_watching_is_forbidden_one_looks_and_says_so_once(
    tmp_path: Path, changes: Watch, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role without `watch` still works, and a role that is mended is noticed."""
    monkeypatch.setattr(subject, "_WATCH_AGAIN", 0.3)
    mended = False
    version = 7

    async def play(request: Request) -> bytes | None:
        if not request.is_watch:
            return found(version)
        if not mended:
            return status(403, "Forbidden", "may not watch")
        return stream({"type": "MODIFIED", "object": lease(99)})

    async with served(tmp_path, play, poll_period=0.02) as (store, _):
        seen = changes(store, BASE)
        for version in range(8, 40):
            assert (await seen.next()).version == version
        mended = True
        assert (await seen.next()).version == 99
    assert [record.levelname for record in caplog.records if record.levelno >= logging.WARNING] == ["WARNING"]
    assert "may not watch" in caplog.text


async def test_a_real_watch_without_the_right_polls(
    kubernetes: Any, cluster: ControlPlane, tmp_path: Path, changes: Watch
) -> None:
    """As RBAC says it."""
    cluster.create_namespace("nowatch")
    cluster.allow("nowatch", "get", "create", "update")
    config = cluster.kubeconfig(tmp_path / "tester", {"token": TESTER_TOKEN})
    store = await KubernetesStore.connect("x", "nowatch", config, poll_period=0.05)
    await until(lambda: allowed(store))
    seen = changes(store, ABSENT)
    created = await store.create(HELD, T)
    assert await seen.next() == created
    await store.close()


async def test_a_write_is_not_held_up_by_many_watches(kubernetes: Any, changes: Watch) -> None:
    """Watches have connections of their own."""
    store = await kubernetes.store()
    watches = [changes(store, ABSENT) for _ in range(150)]
    patience = 4 * T  # so many connections begin at once
    created = await store.create(HELD, patience)
    assert await watches[0].next() == created
    assert (await store.update(created, changed(HELD, holder="b"), patience)).version > created.version


async def test_a_lease_that_was_made_again_is_told_from_the_first(kubernetes: Any, changes: Watch) -> None:
    """Even if it says the same, and its deletion was never seen."""
    store = await kubernetes.store()
    first = await store.create(HELD, T)
    kubernetes.delete()
    watch = changes(store, ABSENT)
    again = await store.create(HELD, T)
    assert first.uid and again.uid and first.uid != again.uid
    assert (await store.read(T)).uid == (await watch.next()).uid == again.uid


async def test_unknown_fields_of_the_spec_are_sent_back(tmp_path: Path) -> None:
    """`strategy` and `preferredHolder` belong to newer servers and other clients."""
    stored = lease(7)
    stored["spec"]["strategy"] = "OldestEmulationVersion"
    base = Observed(7, parse_record(stored), stored)
    async with served(tmp_path, always(found(8))) as (store, server):
        await store.update(base, HELD, T)
        sent = server.requests[0].body
    assert sent["spec"]["strategy"] == "OldestEmulationVersion"
    assert (sent["metadata"]["resourceVersion"], sent["metadata"]["uid"]) == ("7", "u")
