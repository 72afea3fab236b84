"""The measures. Each is a generator of rows, registered by its name."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType

from tests.bench.figures import Row, spread
from tests.bench.instances import (
    Fleet,
    Instance,
    children,
    command_line,
    cpu_time,
    eventually,
    now,
    proportional_memory,
    signal_sets,
)
from tests.bench.leases import NAMESPACE, Changes, FileLease, KubernetesLease, Lease
from tests.envtest import LEASE_VERBS, TESTER_TOKEN, ControlPlane

NAMES = {"file": "a file", "kubernetes": "Kubernetes"}
STARTS = 20
CRASHES = 10
REPLACED = 10
MEMORY_AGE = 10.0
"""Seconds that an instance runs before its memory is looked at."""
CPU_WINDOW = 30.0
REQUEST_WINDOW = 125.0
"""Seconds; a follower's minute fits in twice."""
CALM = 5.0
"""Seconds from the last change of roles to the steady state."""
ELECTOR_AGE = 5.2
"""Seconds: an elector that dies younger is followed after a pause."""
CRASH_LEASE = 4.0
CRASH_RETRY = 0.8
CRASH_TIMING = {
    "AWAITELECT_ELECTION_LEASE_DURATION": f"{CRASH_LEASE:g}s",
    "AWAITELECT_ELECTION_RENEW_DEADLINE": "2.5s",
    "AWAITELECT_ELECTION_RETRY_PERIOD": f"{CRASH_RETRY:g}s",
    "AWAITELECT_ELECTION_KILL_MARGIN": "500ms",
}
_TERM = 1 << (signal.SIGTERM - 1)


class Bench:
    """What the measures share: a folder, the API servers, how often to repeat."""

    def __init__(self, folder: Path, hand_overs: int = 50) -> None:
        self.folder = folder
        self.hand_overs = hand_overs
        self._count = 0
        self._stack = ExitStack()
        self._clusters: dict[bool, ControlPlane] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def cluster(self, audit: bool = False) -> ControlPlane:
        """A real API server, started when it is first asked for; the other kind is ended then."""
        if audit not in self._clusters:
            self._stack.close()
            self._clusters = {audit: self._stack.enter_context(ControlPlane(audit=audit))}
        return self._clusters[audit]

    def lease(self, kind: str) -> Lease:
        """A new lease that nobody has ever held."""
        name = self.new_name()
        return FileLease(self.folder, name) if kind == "file" else KubernetesLease(self.cluster(), self.folder, name)

    def new_name(self) -> str:
        self._count += 1
        return f"lease-{self._count}"


Measure = Callable[[Bench], Iterator[Row]]
MEASURES: dict[str, Measure] = {}
"""By name, in the order in which they are best run."""


def _start(fleet: Fleet, lease: Lease, identity: str, more: dict[str, str] | None = None) -> Instance:
    return fleet.start(lease.lock, identity, {**lease.environment, **(more or {})})


def _end(fleet: Fleet, one: Instance) -> None:
    one.terminate()
    one.wait()
    fleet.dismiss(one)


def hand_over(bench: Bench, kind: str) -> Iterator[Row]:
    """SIGTERM to the leader: the last sign of its command → the first sign of the other's."""
    lease, samples = bench.lease(kind), []
    with Fleet() as fleet:
        leader = _start(fleet, lease, "a")
        leader.sign("first")
        for turn in range(bench.hand_overs):
            follower = _start(fleet, lease, "ba"[turn % 2])
            follower.settle()
            leader.terminate()
            last, first = leader.sign("last").at, follower.sign("first").at
            if first <= last:
                raise AssertionError(f"two commands at once for {last - first:.6f} s")
            samples.append(first - last)
            leader.wait()
            fleet.dismiss(leader)
            leader = follower
    what = f"hand-over over {NAMES[kind]}: last sign → first sign"
    limits = {"p50": 20.0 if kind == "file" else 25.0, "p99": 60.0}
    yield Row("hand-over", what, spread(samples), allowed=limits, remark=f"{len(samples)} times")


def crash(bench: Bench, kind: str) -> Iterator[Row]:
    """Keeper, elector and command killed at once: the last renewal that was seen → the first sign of the next."""
    lease, samples = bench.lease(kind), []
    with Fleet() as fleet:
        leader = _start(fleet, lease, "a", CRASH_TIMING)
        leader.sign("first")
        with Changes(lease) as changes:
            for turn in range(CRASHES):
                follower = _start(fleet, lease, "ba"[turn % 2], CRASH_TIMING)
                follower.settle()
                changes.next(now())
                fleet.rest(random.uniform(0, CRASH_RETRY))
                leader.kill_all()
                first = follower.sign("first")
                held = "ab"[turn % 2]
                renewed = [one.at for one in changes.seen if one.holder == held and one.at < first.at]
                samples.append(first.at - renewed[-1])
                fleet.dismiss(leader)
                leader = follower
    what = f"crash take-over over {NAMES[kind]}, {CRASH_LEASE:g} s lease: last renewal → first sign"
    limits = {"max": (CRASH_LEASE + 0.2) * 1000}
    yield Row("crash", what, spread(samples, "p50", "max"), allowed=limits, remark=f"{len(samples)} times")


def start(bench: Bench, kind: str) -> Iterator[Row]:
    """exec of awaitelect → the first sign of the command, the lease released before."""
    lease, samples = bench.lease(kind), []
    with Fleet() as fleet:
        for turn in range(STARTS + 1):
            one = _start(fleet, lease, "a")
            took = one.sign("first").at - one.executed_at
            if turn:  # the first creates the lease
                samples.append(took)
            _end(fleet, one)
    what = f"exec of awaitelect → first sign, lease free, {NAMES[kind]}"
    limits = {"p50": 150.0 if kind == "file" else 450.0}
    yield Row("start", what, spread(samples, "p50", "max"), allowed=limits, remark=f"{len(samples)} times")


def deaf(bench: Bench, as_init: bool) -> Iterator[Row]:
    """exec of awaitelect → SIGTERM is blocked or caught; then one is sent, and has to be obeyed."""
    samples = []
    prefix = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child") if as_init else ()
    with Fleet() as fleet:
        for _ in range(STARTS):
            one = fleet.start(bench.lease("file").lock, "a", prefix=prefix)
            pid, since = one.pid, one.running_at
            if as_init:
                pid, since = _init_of(one)
            until = since + 5
            while not any(bits & _TERM for bits in signal_sets(pid)):
                assert now() < until, "SIGTERM is neither blocked nor caught"
            samples.append(now() - since)
            os.kill(pid, signal.SIGTERM)
            status = one.wait()
            if status != 0:
                raise AssertionError(f"SIGTERM {samples[-1]:.6f} s after exec: ended with {status}")
            fleet.dismiss(one)
    what = f"deaf to SIGTERM after exec, as {'PID 1' if as_init else 'a child'}"
    limits = {"p50": 60.0, "max": 60.0}
    yield Row("deaf", what, spread(samples, "p50", "max"), allowed=limits, remark=f"{len(samples)} times")


def _init_of(one: Instance) -> tuple[int, float]:
    """PID 1 of the new namespace as we number it, and the instant at which its exec was seen."""

    until = now() + 5
    while now() < until:
        for pid in children(one.pid):
            said = command_line(pid)
            if said and not said.startswith(b"unshare\0"):
                return pid, now()
    raise TimeoutError("unshare starts nothing")


def memory(bench: Bench, kind: str) -> Iterator[Row]:
    """PSS of each process after a while, with no other instance running."""
    for role in ("leader", "follower"):
        lease = bench.lease(kind)
        if role == "follower":
            lease.hold_by("somebody")
        with Fleet() as fleet:
            one = _start(fleet, lease, "a")
            if role == "leader":
                one.sign("first")
            else:
                one.line("following")
            shim = eventually(lambda one=one: one.shim, "a shim")  # type: ignore[misc]
            fleet.rest(max(0.0, one.executed_at + MEMORY_AGE - now()))
            keeper, waiting, elector = map(proportional_memory, (one.pid, shim, one.elector))
        figures = {"keeper": keeper, "shim": waiting, "elector": elector, "all": keeper + waiting + elector}
        yield Row("memory", f"memory (PSS), {NAMES[kind]}, {role}", figures, "MB", {"keeper": 10.0, "all": 55.0})


def elector(bench: Bench, kind: str) -> Iterator[Row]:
    """SIGKILL to the elector → the first renewal of its successor is seen; the command stays."""
    lease, samples = bench.lease(kind), []
    with Fleet() as fleet:
        one = _start(fleet, lease, "a")
        command = one.sign("first").pid
        renewed_at = now()
        with Changes(lease) as changes:
            for _ in range(REPLACED):
                fleet.rest(max(0.0, renewed_at + ELECTOR_AGE - now()))
                victim = one.elector
                changes.next(now())  # the next would be its own in two seconds
                killed_at = now()
                os.kill(victim, signal.SIGKILL)
                renewed_at = changes.next(killed_at).at
                samples.append(renewed_at - killed_at)
                fleet.rest(0)
                starts = [sign.pid for sign in one.signs.seen if sign.text == "first"]
                if starts != [command] or not command_line(command) or one.elector == victim:
                    raise AssertionError(f"the command did not go on, or the elector did: {starts}")
    what = f"elector killed → its successor renews, {NAMES[kind]}"
    yield Row("elector", what, spread(samples, "p50", "max"), allowed={"max": 1500.0}, remark=f"{len(samples)} times")


def requests(bench: Bench) -> Iterator[Row]:
    """Requests of a steady leader and a steady follower, by the server's own audit log, in which each is a user."""
    cluster = bench.cluster(audit=True)
    name = bench.new_name()
    lease = KubernetesLease(cluster, bench.folder, name)
    cluster.allow(NAMESPACE, *LEASE_VERBS)
    others = KubernetesLease(cluster, bench.folder, name, TESTER_TOKEN)
    with Fleet() as fleet:
        _start(fleet, lease, "a").sign("first")
        _start(fleet, others, "b").settle()
        fleet.rest(CALM)
        before = cluster.audit_log.stat().st_size
        fleet.rest(REQUEST_WINDOW)
        with open(cluster.audit_log, "rb") as log:
            log.seek(before)
            content = log.read(cluster.audit_log.stat().st_size - before)
    received: dict[str, dict[str, list[float]]] = {"admin": defaultdict(list), "tester": defaultdict(list)}
    for line in content[: content.rfind(b"\n")].splitlines():
        event = json.loads(line)
        user = event["user"].get("username")
        if event["stage"] == "RequestReceived" and user in received and event["userAgent"].startswith("awaitelect"):
            received[user][event["verb"]].append(datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp())
    for user, role, limits in (
        ("admin", "leader", {"update": 30.0, "get": 0.0, "watch": 0.2}),
        ("tester", "follower", {"update": 0.0, "get": 1.0, "watch": 0.2}),
    ):
        rates = {verb: _per_minute(times) for verb, times in sorted(received[user].items())}
        allowed = {**dict.fromkeys(rates, 0.0), **limits}
        remark = f"in {REQUEST_WINDOW:g} s: {', '.join(f'{len(at)} {verb}' for verb, at in received[user].items())}"
        figures = {**dict.fromkeys(allowed, 0.0), **rates}
        yield Row("requests", f"requests, {role}, 2 s retry period", figures, "a minute", allowed, remark)


def _per_minute(times: list[float]) -> float:
    """By the distances between them, as the window's edges fall where they will."""
    if len(times) < 2:
        return len(times) * 60 / REQUEST_WINDOW
    return round(60 / statistics.mean(later - one for one, later in itertools.pairwise(times)), 1)


def cpu(bench: Bench, kind: str) -> Iterator[Row]:
    """The share of a core that all processes of a leader, and of its follower, use; the command does not count."""
    lease = bench.lease(kind)
    with Fleet() as fleet:
        leader = _start(fleet, lease, "a")
        leader.sign("first")
        follower = _start(fleet, lease, "b")
        follower.settle()
        fleet.rest(CALM)
        both = {"follower": follower.processes(), "leader": leader.processes()}
        began_at = now()
        used = {role: -sum(map(cpu_time, pids)) for role, pids in both.items()}
        fleet.rest(CPU_WINDOW)
        for role, pids in both.items():
            used[role] += sum(map(cpu_time, pids))
        wall = now() - began_at
        assert both == {"follower": follower.processes(), "leader": leader.processes()}, "processes came and went"
    figures = {role: 100 * seconds / wall for role, seconds in used.items()}
    yield Row("cpu", f"CPU, {NAMES[kind]}, 2 s retry period", figures, "% of a core", {"follower": 0.1, "leader": 0.5})


def _register() -> None:
    for measure in (hand_over, crash, start, memory, elector, cpu):
        for kind in NAMES:
            name = f"{measure.__name__.replace('_', '-')}-{kind}"
            MEASURES[name] = lambda bench, measure=measure, kind=kind: measure(bench, kind)  # type: ignore[misc]
    MEASURES["deaf-child"] = lambda bench: deaf(bench, as_init=False)
    MEASURES["deaf-init"] = lambda bench: deaf(bench, as_init=True)
    MEASURES["requests-kubernetes"] = requests  # last: it has a server of its own


_register()
