"""API servers that misbehave: one that follows a script, and a proxy before a real one that can stop forwarding."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.envtest import write_kubeconfig


@dataclass
class Request:
    """One request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: Any
    writer: asyncio.StreamWriter

    @property
    def is_watch(self) -> bool:
        return "watch=1" in self.target


Play = Callable[[Request], Awaitable[bytes | None]]


def status(code: int, reason: str = "", message: str = "", name: str = "x", headers: str = "") -> bytes:
    """The answer of a Kubernetes API server that says no."""
    body = {"kind": "Status", "code": code, "reason": reason, "message": message, "details": {"name": name}}
    return raw(code, json.dumps(body), "application/json", headers)


def raw(code: int, body: str, kind: str = "text/html", headers: str = "") -> bytes:
    """Any answer."""
    content = body.encode()
    head = f"HTTP/1.1 {code} Told\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n{headers}\r\n"
    return head.encode() + content


def lease(version: int | str, holder: str = "a", name: str = "x") -> dict[str, Any]:
    return {
        "kind": "Lease",
        "metadata": {"name": name, "resourceVersion": str(version), "uid": "u"},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15},
    }


def found(version: int | str, holder: str = "a") -> bytes:
    return raw(200, json.dumps(lease(version, holder)), "application/json")


def stream(*events: dict[str, Any] | bytes) -> bytes:
    """A watch that tells these events and ends."""
    lines = b"".join(event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n" for event in events)
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + lines


@dataclass
class Scripted:
    """A server that answers each request with what `play` returns; None: it closes the connection."""

    play: Play
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    def kubeconfig(self, path: Path, user: dict[str, Any] | None = None) -> str:
        write_kubeconfig(path, f"http://127.0.0.1:{self.port}", user or {"token": "sesame-sesame"}, None, None)
        return str(path)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                content = await reader.readexactly(int(headers.get("content-length", 0)))
                method, target, _ = first.split()
                request = Request(method, target, headers, json.loads(content) if content else None, writer)
                self.requests.append(request)
                answer = await self.play(request)
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()
                if b"Connection: close" in answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()


@asynccontextmanager
async def scripted(play: Play) -> AsyncIterator[Scripted]:
    """A scripted server on a free port."""
    server = Scripted(play)
    async with _listening(server.serve) as server.port:
        yield server


class Stalling:
    """A TCP proxy that, once `stalled`, leaves its connections open and forwards nothing on them."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        self.connections = 0
        self._passing = asyncio.Event()

    def stall(self) -> None:
        """The present connections fall silent for ever; later ones work."""
        self._passing = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        passing = self._passing
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target)

        async def forward(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while content := await source.read(65536):
                if passing is not self._passing:
                    await asyncio.Event().wait()
                target.write(content)

        try:
            await asyncio.gather(forward(reader, upstream_writer), forward(upstream_reader, writer))
        except ConnectionError:
            pass
        finally:
            writer.close()
            upstream_writer.close()


@asynccontextmanager
async def stalling(port: int) -> AsyncIterator[Stalling]:
    """A proxy before a port of this machine."""
    proxy = Stalling(port)
    async with _listening(proxy.serve) as proxy.port:
        yield proxy


@asynccontextmanager
async def _listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def one() -> None:
            await serve(reader, writer)

        task = asyncio.get_running_loop().create_task(one())
        tasks.add(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
