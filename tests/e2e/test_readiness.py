"""Readiness and liveness: the command's own word, and the answers that it gives."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.instances import Fleet, eventually, now
from tests.e2e.locks import Lock

NOTIFIER = """
import os, socket, sys, time
name = os.environ["NOTIFY_SOCKET"]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.connect("\\0" + name[1:] if name[0] == "@" else name)
    for word in sys.argv[1:]:
        s.send(word.encode())
time.sleep(1000)
"""


def notifying(*words: str) -> list[str]:
    """A command that says these words to its NOTIFY_SOCKET, then goes on."""
    return [sys.executable, "-I", "-S", "-c", NOTIFIER, *words]


@contextmanager
def web(statuses: list[int]) -> Iterator[tuple[int, list[str]]]:
    """A server that answers with these statuses, the last one for ever: its port, and the requests it got."""
    got: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            got.append(f"{self.path} {self.headers.get('X-Probe', '')}".strip())
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1], got
        server.shutdown()


def test_a_command_is_ready_when_it_says_so(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    """As systemd's services do, by NOTIFY_SOCKET. What runs after the start waits for it."""
    after = tmp_path / "after"
    settings = {"start": {"ready": "notify"}, "hooks": {"post_start": ["/usr/bin/touch", str(after)]}}
    one = fleet.start(
        "one", file_lock, command=notifying("STATUS=warming up", "READY=1\nSTATUS=at work"), settings=settings
    )
    one.says("the command is ready")
    assert one.stderr.index("the command says: warming up") < one.stderr.index("the command is ready")
    eventually(after.exists, "the hook after the start")
    one.tell(signal.SIGTERM)
    assert one.ends() == 143


def test_a_command_that_never_says_so_counts_as_failed(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    after = tmp_path / "after"
    settings = {
        "start": {"ready": "notify", "timeout": "200ms"},
        "restart": {"max_restarts": 1, "on_give_up": "exit", "backoff": {"initial": "10ms"}},
        "hooks": {"post_start": ["/usr/bin/touch", str(after)]},
    }
    one = fleet.start("one", file_lock, settings=settings)
    assert one.ends() == 1
    assert one.stderr.count("the command was not ready within 0.2s (start.timeout): stopping the command") == 2
    assert not after.exists()


def test_a_command_can_ask_for_more_time_to_get_ready(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    """Else a long recovery would be ended over and over."""
    timeout, go = 4, tmp_path / "go"
    program = NOTIFIER.replace(
        "s.send", "while word == 'READY=1' and not os.path.exists(go): time.sleep(0.01)\n        s.send"
    )
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"go = {str(go)!r}{program}",
        "EXTEND_TIMEOUT_USEC=60000000",
        "READY=1",
    ]
    settings = {"start": {"ready": "notify", "timeout": timeout}}
    one = fleet.start("one", file_lock, command=command, settings=settings)
    one.says("command started")
    started = now()
    eventually(lambda: now() > started + timeout + 0.5, "it would have failed by now")
    go.touch()
    one.says("the command is ready")
    assert "was not ready" not in one.stderr


def test_nobody_elses_socket_is_handed_on(fleet: Fleet, file_lock: Lock, tmp_path: Path) -> None:
    """That of our own service manager is meant for us."""
    seen = tmp_path / "seen"
    command = ["/bin/sh", "-c", f'echo "${{NOTIFY_SOCKET-none}} ${{WATCHDOG_USEC-none}}" > {seen}']
    environment = {"NOTIFY_SOCKET": "/run/systemd/notify", "WATCHDOG_USEC": "1"}
    fleet.start("one", file_lock, command=command, environment=environment).ends()
    assert seen.read_text() == "none none\n"


@pytest.mark.parametrize("form", ["ours", "kubernetes"])
def test_a_command_is_ready_when_its_page_answers(fleet: Fleet, file_lock: Lock, form: str) -> None:
    """With Kubernetes' fields, in either spelling."""
    with web([503, 500, 200]) as (port, got):
        header = {"name": "X-Probe", "value": "awaitelect"}
        if form == "ours":
            probe: dict[str, Any] = {"http_get": {"path": "/ready?x=1", "port": port, "http_headers": [header]}}
            probe |= {"period_seconds": 1, "timeout_seconds": 20}
        else:
            probe = {"httpGet": {"path": "/ready?x=1", "port": port, "httpHeaders": [header]}}
            probe |= {"periodSeconds": 1, "timeoutSeconds": 20}
        settings = {"start": {"ready": "probe", "probe": probe}}
        one = fleet.start("one", file_lock, settings=settings)
        one.says("the command is ready")
        assert got == ["/ready?x=1 awaitelect"] * 3
    assert "start.probe: status 503 of /ready?x=1" in one.stderr


@pytest.mark.parametrize("kind", ["http_get", "tcp_socket", "exec"])
def test_a_command_that_does_not_answer_is_started_again_and_counts_as_failed(
    fleet: Fleet, file_lock: Lock, tmp_path: Path, kind: str
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        port = taken.getsockname()[1]
        target = {"command": ["/bin/sh", "-c", "echo no life >&2; exit 4"]} if kind == "exec" else {"port": port}
        settings = {
            "probes": {"liveness": {kind: target, "period_seconds": 1, "failure_threshold": 1}},
            "restart": {"max_restarts": 1, "on_give_up": "exit", "backoff": {"initial": "10ms"}},
        }
        one = fleet.start("one", file_lock, settings=settings)
        assert one.ends() == 1
    said = "exited with 4: no life" if kind == "exec" else f"127.0.0.1:{port}: Connection refused"
    assert said in one.stderr
    assert one.stderr.count("probes.liveness: failed 1 times in a row") == 4
    assert "2 failures in a row: giving up" in one.stderr


def test_a_question_that_hangs_counts_as_a_failure(fleet: Fleet, file_lock: Lock) -> None:
    """And it is ended."""
    settings = {
        "probes": {
            "liveness": {"exec": {"command": ["/bin/sleep", "1000"]}, "period_seconds": 1, "failure_threshold": 2}
        },
        "restart": {"policy": "never"},
    }
    one = fleet.start("one", file_lock, settings=settings)
    assert one.ends() == 1
    assert one.stderr.count("probes.liveness: no answer in time") == 2


def test_a_command_that_answers_is_left_alone(fleet: Fleet, file_lock: Lock) -> None:
    with web([200, 500, 500, 200, 500, 500, 200]) as (port, got):
        liveness = {"http_get": {"path": "/live", "port": port}, "period_seconds": 1, "failure_threshold": 3}
        liveness["timeout_seconds"] = 20
        one = fleet.start("one", file_lock, settings={"probes": {"liveness": liveness}})
        eventually(lambda: len(got) >= 4, "four questions")
        assert one.stderr.count("command started") == 1


def test_a_question_delays_no_signal_and_no_stop(fleet: Fleet, file_lock: Lock) -> None:
    """The keeper asks through a child of its own."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        probe = {"http_get": {"port": silent.getsockname()[1]}, "timeout_seconds": 60, "period_seconds": 1}
        one = fleet.start("one", file_lock, settings={"probes": {"liveness": probe}})
        one.started()
        asked, _ = silent.accept()
        with asked:
            asked.recv(100)  # it is being asked, and gets no answer
            one.tell(signal.SIGUSR1)
            eventually(lambda: signal.SIGUSR1 in one.signals(), "the signal")
            one.tell(signal.SIGTERM)
            assert one.ends(20) == 0
        eventually(lambda: not fleet.left_behind(), "nothing is left")
