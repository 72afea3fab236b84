"""What can stand between a client and an API server, and how it can misbehave.

Each runs in a thread of its own and is told by the test, at any moment, what to do from now on: a `Wire` knows only
bytes, a `Gate` ends TLS and knows requests, a `Tunnel` is an HTTP proxy that is asked to CONNECT.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Self

from tests.envtest import ControlPlane


class Between:
    """A server on a free loopback port, in a thread of its own, while it is entered."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.connections = 0
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        return int(self._server.sockets[0].getsockname()[1])

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.serve(reader, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.transport.abort()

    async def _close(self) -> None:
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, other: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    """Both ways until one side ends."""

    async def one_way(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while content := await source.read(65536):
            sink.write(content)
            await sink.drain()

    ways = [asyncio.ensure_future(one_way(reader, other[1])), asyncio.ensure_future(one_way(other[0], writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        other[1].transport.abort()


class Wire(Between):
    """A TCP connection that can be broken in each way that packets can get lost."""

    TROUBLES: ClassVar = ("half-open", "silent", "drip", "reset", "lost replies", "delay")

    def __init__(self, port: int) -> None:
        super().__init__()
        self._target = port
        self._trouble = ""
        self._epoch = 0
        self.deaf = 0
        """How many connections were made that will never pass anything."""

    def break_down(self, trouble: str) -> None:
        """From now on: `half-open`: the present connections are dead and do not know it, new ones work. `silent`: all
        are accepted and nothing passes. `drip`: a byte of a reply at a time. `reset`: whatever is sent is answered by a
        reset. `lost replies`: the server hears, and is not heard. `delay`: everything half a second late.
        `deaf`: the connections of before and those that are made while it lasts are dead for ever.
        """
        self._epoch += 1
        self._trouble = trouble

    def heal(self) -> None:
        """What was held up comes through; half-open connections stay as they are."""
        self._trouble = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._trouble == "deaf":
            self.deaf += 1
            await asyncio.Event().wait()
        upstream, sink = await asyncio.open_connection("127.0.0.1", self._target)
        epoch = self._epoch
        ways = [
            asyncio.ensure_future(self._forward(reader, sink, epoch, writer, False)),
            asyncio.ensure_future(self._forward(upstream, writer, epoch, writer, True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            sink.transport.abort()

    async def _forward(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        epoch: int,
        client: asyncio.StreamWriter,
        is_reply: bool,
    ) -> None:
        while content := await source.read(65536):
            trouble = self._trouble
            is_old = epoch != self._epoch
            if trouble in ("half-open", "deaf") and is_old:
                await asyncio.Event().wait()
            if trouble == "silent" or (trouble == "lost replies" and is_reply):
                # What was lost is sent again by TCP, and comes when there is a way again.
                while self._trouble == trouble:  # noqa: ASYNC110 - the test changes it, in another thread
                    await asyncio.sleep(0.02)
            if trouble == "reset":
                client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            if trouble == "delay":
                await asyncio.sleep(0.5)
            if trouble == "drip" and is_reply:
                for byte in content:
                    sink.write(bytes([byte]))
                    await sink.drain()
                    await asyncio.sleep(0.05 if self._trouble == "drip" else 0)
                continue
            sink.write(content)
            await sink.drain()


class Asked:
    """One request that has come to a gate."""

    def __init__(self, head: bytes, body: bytes) -> None:
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        self.method, self.target, _ = first.split()
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.body = body

    @property
    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def is_watch(self) -> bool:
        return "watch=1" in self.target

    def encode(self) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


LOSE = b"lose"
"""The answer of a gate that passes a request on, and whose own connection breaks before the reply."""


class Gate(Between):
    """The API server's own front, as far as a client can see: what `answer` returns goes back in its place.

    None: the request passes; it may have been changed. LOSE: it passes, and its reply is lost.
    """

    def __init__(self, cluster: ControlPlane, answer: Callable[[Asked], bytes | None] = lambda asked: None) -> None:
        front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        front.load_cert_chain(cluster.folder / "server.crt", cluster.folder / "server.key")
        super().__init__(front)
        self.answer = answer
        self.asked: list[Asked] = []
        self._back = ssl.create_default_context(cafile=str(cluster.ca))
        self._target = cluster.port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            asked = Asked(head, b"")
            asked.body = await reader.readexactly(int(asked.headers.get("content-length", 0)))
            self.asked.append(asked)
            answer = self.answer(asked)
            if answer is None or answer == LOSE:
                asked.headers["connection"] = "close"
                other = await asyncio.open_connection("127.0.0.1", self._target, ssl=self._back)
                other[1].write(asked.encode())
                if answer == LOSE:
                    await other[0].readuntil(b"\r\n\r\n")
                    other[1].transport.abort()
                    return
                await pump(reader, writer, other)
                await writer.drain()
                writer.close()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await writer.wait_closed()
                return
            writer.write(answer)
            await writer.drain()


class Tunnel(Between):
    """An HTTP proxy that connects whoever asks to one port of this machine, whatever name was asked for."""

    def __init__(self, port: int, credentials: str = "", refusal: int = 0) -> None:
        """`credentials`: `user:password`, which it then wants. `refusal`: the status with which it refuses all."""
        super().__init__()
        self._target = port
        self._wanted = "Basic " + base64.b64encode(credentials.encode()).decode() if credentials else ""
        self._refusal = refusal
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = Asked(await reader.readuntil(b"\r\n\r\n"), b"")
        self.asked.append(f"{asked.method} {asked.target}")
        status = 407 if asked.headers.get("proxy-authorization", "") != self._wanted else self._refusal
        if status:
            writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await pump(reader, writer, await asyncio.open_connection("127.0.0.1", self._target))
