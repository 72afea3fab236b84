"""The status pages of real instances, while things happen to them."""

from __future__ import annotations

import json
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client.parser import text_string_to_metric_families as parse

from tests.e2e.instances import LASTING, Fleet, Instance, eventually, kill, now, renews
from tests.e2e.locks import Lock

CLIENTS = 60
"""More than may be connected at a time."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


class Pages:
    """The pages of one instance."""

    def __init__(self, port: int) -> None:
        self._port = port

    @property
    def environment(self) -> dict[str, str]:
        """What makes an instance serve them."""
        return {"AWAITELECT_STATUS_LISTEN": f":{self._port}"}

    def get(self, path: str) -> tuple[int, str]:
        """The status and the text; 0 where nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def shows(self, path: str, status: int) -> None:
        eventually(lambda: self.get(path)[0] == status, f"{path} answers {status}", pace=0.02)

    def details(self) -> dict[str, Any]:
        return eventually(lambda: json.loads(self.get("/status")[1] or "{}"), "/status answers", pace=0.02)

    def value(self, name: str, **labels: str) -> float | None:
        for family in parse(self.get("/metrics")[1]):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None


def test_the_leader_and_the_ready_are_told_apart_across_a_hand_over(fleet: Fleet, lock: Lock) -> None:
    """A load balancer follows /leader, a rollout /readyz."""
    pages = {name: Pages(free_port()) for name in ("first", "second")}
    first = fleet.start("first", lock, environment=pages["first"].environment)
    first.started()
    second = fleet.start("second", lock, environment=pages["second"].environment)
    second.follows()
    pages["first"].shows("/leader", 200)
    for one in pages.values():
        one.shows("/readyz", 200)
        one.shows("/livez", 200)
    pages["second"].shows("/leader", 503)
    told = pages["second"].details()
    assert (told["state"], told["holder"], told["command"]["pid"]) == ("follower", "first", None)
    first.tell(signal.SIGTERM)
    second.started()
    pages["second"].shows("/leader", 200)
    told = pages["second"].details()
    assert (told["state"], told["holder"]) == ("leader", "second")
    assert f"fencing token {told['fencing_token']}" in second.stderr
    assert [change["to"] for change in told["transitions"]] == ["candidate", "leader"]
    assert pages["second"].value("leader_election_master_status") == 1


def test_the_leader_is_not_ready_before_its_command_is(fleet: Fleet, file_lock: Lock) -> None:
    """It leads, and nobody could use it yet."""
    pages = Pages(free_port())
    settings = {"start": {"ready": "notify"}}
    one = fleet.start("one", file_lock, settings=settings, environment=pages.environment)
    one.started()
    pages.shows("/", 200)
    eventually(lambda: pages.details()["state"] == "leader", "it leads")
    assert pages.get("/leader")[0] == 503
    assert pages.get("/readyz") == (
        503,
        '{"status": "not ready", "reason": "leading, and the command is not ready"}',
    )


def test_what_the_keeper_counts_outlives_an_elector(fleet: Fleet, file_lock: Lock) -> None:
    """The successor serves on the same port, knows the command, and counts anew what is its own."""
    pages = Pages(free_port())
    settings = {"restart": {"backoff": {"initial": "10ms", "jitter": 0}}, "election": LASTING}
    one = fleet.start("one", file_lock, settings=settings, environment=pages.environment)
    kill(one.started().pid)
    command = one.started(times=2)
    eventually(lambda: pages.details()["command"]["restarts"] == 1, "the restart is counted")
    elector = one.elector
    kill(elector)
    one.other_elector(elector)
    pages.shows("/leader", 200)
    told = pages.details()
    assert told["command"]["pid"] == command.pid
    assert (told["command"]["restarts"], told["elector_restarts"]) == (1, 1)
    assert pages.value("awaitelect_elector_restarts_total") == 1
    assert pages.value("awaitelect_command_start_duration_seconds_count") == 0


def test_a_restart_that_is_yet_to_come_is_known_to_the_next_elector(fleet: Fleet, file_lock: Lock) -> None:
    """The keeper greets it with the count; the command's next start may be far off."""
    pages = Pages(free_port())
    settings = {"restart": {"backoff": {"initial": "60s", "max": "60s"}}, "election": LASTING}
    one = fleet.start("one", file_lock, settings=settings, environment=pages.environment)
    kill(one.started().pid)
    one.says("starting it again in")
    elector = one.elector
    kill(elector)
    one.other_elector(elector)
    eventually(lambda: pages.details()["elector_restarts"] == 1, "the next elector serves")
    assert pages.details()["command"]["restarts"] == 1
    assert pages.get("/leader")[0] == 503


def test_renewals_are_counted(fleet: Fleet, file_lock: Lock) -> None:
    pages = Pages(free_port())
    fleet.start("one", file_lock, settings={"election": LASTING}, environment=pages.environment).started()
    renews(file_lock, 3)
    eventually(lambda: (pages.value("awaitelect_renewals_total", result="success") or 0) >= 3, "three renewals")
    with file_lock.outage():
        eventually(lambda: (pages.value("awaitelect_renewals_total", result="error") or 0) > 0, "a failed one")
    assert (pages.value("awaitelect_lease_remaining_seconds") or 99) < LASTING["lease_duration"]


@contextmanager
def pestered(port: int) -> Iterator[list[int]]:
    """Clients that ask for the dearest page as fast as they can, and as many that say nothing. How often they asked."""
    over = threading.Event()
    asked = [0] * 3

    def hurry(number: int) -> None:
        while not over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), 5) as one:
                    one.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                    while one.recv(65536):
                        pass
                asked[number] += 1
            except OSError:
                continue

    idle = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(CLIENTS)]
    threads = [threading.Thread(target=hurry, args=(number,)) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        over.set()
        for thread in threads:
            thread.join()
        for one in idle:
            one.close()


def test_whoever_asks_much_delays_no_renewal(fleet: Fleet, file_lock: Lock) -> None:
    """Nor does whoever asks nothing. The same processor serves them: a tenth of the deadline is forgiven. A renewal is
    due each second, and one that got no turn would be six seconds old.
    """
    port = free_port()
    pages = Pages(port)
    settings = {"election": {**LASTING, "retry_period": 1}}
    one = fleet.start("one", file_lock, settings=settings, environment=pages.environment)
    start = one.started()
    pages.shows("/metrics", 200)
    ages = []
    with pestered(port) as asked:
        until = now() + 6
        while now() < until:
            ages.append(pages.value("awaitelect_last_renewal_age_seconds") or 0.0)
    assert min(asked) > 10 and len(ages) > 5, "there was something to delay it"
    assert max(ages) < 4, sorted(ages)[-5:]
    assert one.entries("start") == [start] and one.signals() == []


def test_an_instance_that_ends_leaves_the_port_to_its_successor(fleet: Fleet, file_lock: Lock) -> None:
    """Even while somebody is connected: a container that is restarted in place gets it back."""
    port = free_port()
    pages = Pages(port)
    for name in ("first", "second"):
        one: Instance = fleet.start(name, file_lock, environment=pages.environment)
        one.started()
        pages.shows("/leader", 200)
        with socket.create_connection(("127.0.0.1", port)):
            one.tell(signal.SIGTERM)
            one.ends()
        assert "cannot listen" not in one.stderr
