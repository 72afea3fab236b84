"""Whatever is sent to the status endpoint, it answers or hangs up, soon, and answers the next one."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from awaitelect.config.listen import Listen
from awaitelect.logs import Log
from awaitelect.status import http
from awaitelect.status.snapshot import Snapshot
from tests.fuzz.effort import examples
from tests.status.test_http import PATIENCE, asked, connected, free_port, hang_up, serving

PATHS = st.sampled_from(
    ["/", "/status", "/metrics", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/\0", "*", "x", "",
     "http://127.0.0.1/status", "http://other.example/metrics", "//other.example/leader", "/" + "a" * 9000, "/status#x",
     "/status?" + "a=b&" * 2000, "/%", "/%zz", "/\xff", "/status/..", "http://[::1", "127.0.0.1:80", "file:///etc/passwd"]
)  # fmt: skip
METHODS = st.sampled_from(
    ["GET", "HEAD", "POST", "CONNECT", "OPTIONS", "TRACE", "PRI", "get", "G" * 5000, "\0", "G\x00T", ""]
)
VERSIONS = st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "HTTP/1", "http/1.1", "", "HTTP/1.1 x"])
HEADERS = st.sampled_from(
    ["Host: x", "Host: a\r\nHost: b", "Content-Length: 5", "Content-Length: -1", "Content-Length: 9" + "9" * 30,
     "Transfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 3", "Transfer-Encoding: gzip, x",
     "Expect: 100-continue", "Expect: x", "Upgrade: websocket\r\nConnection: upgrade", "Connection: keep-alive",
     "A: " + "b" * 20_000, "A" * 9000 + ": b", ": x", "no colon", "A: b\x00c", " folded: x", "Range: bytes=0-1",
     "Accept: application/openmetrics-text", "Accept: */*;q=x", "Content-Encoding: gzip", "X: \xff",
     "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA", *[f"A{n}: b" for n in range(3)]]
)  # fmt: skip
ENDS = st.sampled_from(
    [b"\r\n\r\n", b"\n\n", b"\r\n", b"", b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"\r\n\r\nffffffffffffffff\r\n"]
)
SECOND = st.sampled_from([b"", b"GET /leader HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00", b"\0" * 100])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Near what HTTP has."""
    lines = [f"{draw(METHODS)} {draw(PATHS)} {draw(VERSIONS)}", *draw(st.lists(HEADERS, max_size=4))]
    return "\r\n".join(lines).encode("latin-1") + draw(ENDS) + draw(SECOND)


def _snapshot() -> Snapshot:
    return Snapshot("follower", "file:/x", "me", 'other"\n', 15.0, None, has_seen_lease=True)


@examples(70)
@given(st.lists(requests() | st.binary(min_size=1, max_size=100), min_size=1, max_size=4))
@example([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
@example([b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n" * 50])
@example([b"CONNECT \r\n\r\n"])
@example([b"GET / HTTP/2.0\r\n\r\n"])
async def test_no_request_breaks_it(caplog: pytest.LogCaptureFixture, pieces: list[bytes]) -> None:
    """It answers in HTTP with a page that is known, or hangs up; no page is anybody's file, the next one is served, and
    the log has no line about it: whoever may ask must not fill it.
    """
    port = free_port()
    said: list[str] = []
    log = Log(level="debug")
    log.write_by(lambda line: said.append(line.decode()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "TIME", 0.5)
        async with serving(Listen("127.0.0.1", port), _snapshot(), log=log) as task, asyncio.timeout(PATIENCE):
            for piece in pieces:
                answer = await _exchange(port, piece)
                assert not answer or answer.startswith(b"HTTP/1."), answer[:100]
                assert b"root:" not in answer and b"Traceback" not in answer
                assert b"\r\n\r\nHTTP/1." not in answer, "there is one request in each connection"
            assert await asked(port) == 200
            assert not task.done()
    assert [line for line in said if "status on" not in line] == []
    gc.collect()  # a task that nobody asks how it has ended says so then
    assert not caplog.records


async def _exchange(port: int, piece: bytes) -> bytes:
    reader, writer = await connected("127.0.0.1", port)
    try:
        writer.write(piece)
        await writer.drain()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        await hang_up(writer)


async def test_what_is_told_is_known() -> None:
    """Nobody is asked who they are, so nothing else may be added without a thought: no environment, no command line."""
    port = free_port()
    async with serving(Listen("127.0.0.1", port), _snapshot()):
        answer = await _exchange(port, b"GET /status HTTP/1.0\r\n\r\n")
    told: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert set(told) == {
        "version", "name", "identity", "lock", "state", "holder", "fencing_token", "lease_transitions",
        "seconds_until", "seconds_since_renewal", "command", "terms", "elector_restarts", "transitions",
    }  # fmt: skip
    assert set(told["command"]) == {"pid", "is_ready", "phase", "restarts"}
