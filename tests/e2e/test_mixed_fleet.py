"""E21: awaitelect and candidates of client-go on one lease."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import NAMESPACE
from tests.e2e.instances import (
    DEADLINE,
    LEASE,
    MARK,
    PATIENCE,
    RETRY,
    Entry,
    Fleet,
    eventually,
    kill,
    now,
    renews,
    stop,
)
from tests.e2e.locks import KubernetesLock
from tests.e2e.test_handover import LONG, SLACK
from tests.envtest import ADMIN_TOKEN, ControlPlane

PROGRAM = str(Path(__file__).parent / "candidate.py")
LONG_TOO = (20, 18, RETRY)
"""That of LONG for a candidate, in seconds."""


class GoFleet:
    """A lease and the candidates of client-go that contend for it."""

    def __init__(self, fleet: Fleet, cluster: ControlPlane, folder: Path) -> None:
        self.fleet, self.cluster, self.name = fleet, cluster, f"lease-{uuid.uuid4().hex[:8]}"
        self.lock = KubernetesLock(cluster, cluster.create_namespace(NAMESPACE), self.name, folder)
        self.path = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{self.name}"
        self.processes: list[subprocess.Popen[bytes]] = []

    def candidate(
        self, name: str, durations: tuple[float, float, float] = (LEASE, DEADLINE, RETRY)
    ) -> subprocess.Popen[bytes]:
        where = [f"127.0.0.1:{self.cluster.port}", str(self.cluster.ca), ADMIN_TOKEN, NAMESPACE, self.name]
        with open(self.fleet.folder / f"{name}.stderr", "ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-I", PROGRAM, str(self.fleet.records), name, *where, *map(str, durations)],
                env={MARK: self.fleet.mark},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        self.processes.append(process)
        return process

    def entries(self, name: str, what: str) -> list[Entry]:
        return [one for one in self.fleet.entries() if one.name == name and one.what == what]

    def leads(self, name: str, patience: float = PATIENCE) -> Entry:
        """Wait until this candidate has begun to lead."""
        return eventually(lambda: self.entries(name, "start"), f"{name} leads", patience)[-1]

    def lease(self) -> dict[str, Any]:
        status, lease = self.cluster.call("GET", self.path)
        assert status == 200, lease
        return dict(lease)


@pytest.fixture
def go(fleet: Fleet, cluster: ControlPlane, tmp_path: Path) -> Iterator[GoFleet]:
    one = GoFleet(fleet, cluster, tmp_path)
    yield one
    fleet.end()
    for process in one.processes:
        process.wait()
        said = (tmp_path / f"{process.args[4]}.stderr").read_text()  # type: ignore[index]
        assert "Traceback" not in said, said
    one.lock.proxy.close()


def test_a_dead_candidate_s_lease_is_taken_when_it_runs_out(fleet: Fleet, go: GoFleet) -> None:
    """Neither sooner nor much later: the time counts from when its last renewal was seen."""
    candidate = go.candidate("go")
    go.leads("go")
    ours = fleet.start("ours", go.lock)
    ours.says("following 'go'")
    renews(go.lock, 3)
    assert ours.entries("start") == []
    begun = now()
    renews(go.lock, 1)
    candidate.kill()
    candidate.wait(PATIENCE)
    last = go.entries("go", "beat")[-1].at
    assert begun + LEASE < ours.started().at < last + LEASE + SLACK
    spec = go.lease()["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("ours", 1)


def test_a_released_lease_changes_hands_at_once_both_ways(fleet: Fleet, go: GoFleet) -> None:
    """Theirs is not signed and is believed; ours is seen by them at their next look, and nobody waits for an expiry."""
    first = go.candidate("go", LONG_TOO)
    go.leads("go")
    ours = fleet.start("ours", go.lock, settings={"election": LONG})
    ours.follows()
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE) == 0
    assert ours.started().at < go.entries("go", "beat")[-1].at + SLACK
    go.candidate("next")
    renews(go.lock, 2)
    assert go.entries("next", "start") == []
    ours.tell(signal.SIGTERM)
    ours.ends()
    ended = ours.entries("end")[-1].at
    assert go.leads("next").at < ended + SLACK
    assert go.lease()["spec"]["leaseTransitions"] == 2


def test_a_dead_instance_s_lease_is_theirs_when_it_runs_out(fleet: Fleet, go: GoFleet) -> None:
    """What we write says to them for how long they must wait."""
    ours = fleet.start("ours", go.lock)
    ours.started()
    go.candidate("go")
    renews(go.lock, 3)
    begun = now()
    renews(go.lock, 1)
    ours.wipe_out()
    assert go.leads("go").at > begun + LEASE
    again = fleet.start("again", go.lock)
    again.says("following 'go'")
    assert again.entries("start") == []


def test_many_of_both_kinds_take_turns(fleet: Fleet, go: GoFleet) -> None:
    """Whoever leads ends, again and again: somebody always takes over, and never two."""
    candidates = {name: go.candidate(name, LONG_TOO) for name in ("go-a", "go-b", "go-c")}
    ours = {name: fleet.start(name, go.lock, settings={"election": LONG}) for name in ("we-a", "we-b")}
    ended: set[str] = set()
    while len(ended) < 5:

        def leader() -> str:
            begun = [one for one in fleet.entries() if one.what == "start" and one.name not in ended]
            return begun[-1].name if begun else ""

        who = eventually(leader, "somebody leads")
        ended.add(who)
        if who in ours:
            ours[who].tell(signal.SIGTERM)
            ours[who].ends()
        else:
            candidates[who].send_signal(signal.SIGTERM)
            assert candidates[who].wait(PATIENCE) == 0
    assert go.lease()["spec"]["leaseTransitions"] == 4


def test_a_late_release_by_them_is_undone_and_nothing_overlaps(fleet: Fleet, go: GoFleet) -> None:
    """One that was stopped for longer than its lease believes what it remembers, and empties ours as it ends. We take
    it back, and our command never notices.
    """
    late = go.candidate("late")
    go.leads("late")
    ours = fleet.start("ours", go.lock, settings={"election": LONG})
    ours.follows()

    def is_at_rest() -> bool:
        """Stop it, but in no request, for which it would have a connection: the answer would tell it who leads."""
        stop(late.pid)
        if not any("socket:" in os.readlink(fd) for fd in Path(f"/proc/{late.pid}/fd").iterdir()):
            return True
        kill(late.pid, signal.SIGCONT)
        return False

    eventually(is_at_rest, "it is stopped between two requests")
    start = ours.started()
    second = fleet.start("second", go.lock, settings={"election": LONG})
    second.follows()
    late.send_signal(signal.SIGTERM)
    late.send_signal(signal.SIGCONT)
    assert late.wait(PATIENCE) == 0
    ours.says("the lease was emptied by somebody else while we hold it: taking it back")
    renews(go.lock, 2)
    assert ours.entries("start") == [start] and ours.signals() == []
    assert second.entries("start") == [], "an unsigned wipe is waited out"
    assert "follower → candidate" not in second.stderr, "and not contended for, which it might lose"
    assert go.lease()["spec"]["holderIdentity"] == "ours"


def test_what_others_put_into_the_lease_survives_every_change_of_hands(fleet: Fleet, go: GoFleet) -> None:
    """E12: labels and annotations, over acquiring, renewals and releases of both kinds."""
    first = go.candidate("go")
    go.leads("go")
    marks = {"labels": {"team": "storage"}, "annotations": {"example.org/note": "keep me"}}
    is_marked: Callable[[], bool] = lambda: go.cluster.call("PATCH", go.path, {"metadata": marks})[0] == 200  # noqa: E731
    eventually(is_marked, "the lease is marked")
    ours = fleet.start("ours", go.lock)
    ours.follows()
    first.send_signal(signal.SIGTERM)
    ours.started()
    renews(go.lock, 2)
    ours.tell(signal.SIGTERM)
    ours.ends()
    assert not go.lease()["spec"].get("holderIdentity")
    metadata = go.lease()["metadata"]
    assert metadata["labels"] == marks["labels"]
    assert metadata["annotations"]["example.org/note"] == "keep me"
    go.candidate("next")
    go.leads("next")
    again = go.lease()["metadata"]
    assert again["annotations"]["example.org/note"] == "keep me" and again["labels"] == marks["labels"]
