"""Many instances on one lease: what they ask of the API server, and how fast the lease changes hands among them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Row, spread
from tests.bench.instances import PATIENCE, Fleet, Instance, Sign, now
from tests.bench.leases import KubernetesLease
from tests.bench.measures import Bench, Measure

HAND_OVERS = 20
WINDOW = 65.0
"""Seconds of the steady state: a follower's minute fits in."""
AFTER = 5.0
"""Seconds after a change of leaders in which its requests are counted."""
LEASE = 15.0


def crowd(bench: Bench, size: int) -> Iterator[Row]:
    """`size` instances: one leads, the others follow."""
    cluster = bench.cluster(audit=True)
    lease = KubernetesLease(cluster, bench.folder, bench.new_name())
    with Fleet() as fleet:
        leader = fleet.start(lease.lock, "i0", lease.environment)
        leader.sign("first")
        others = [fleet.start(lease.lock, f"i{number}", lease.environment) for number in range(1, size)]
        for one in others:
            one.line("following", patience=PATIENCE + size)
        fleet.rest(AFTER)
        steady = _requests(fleet, cluster.audit_log, WINDOW)
        per_minute = {verb: count * 60 / WINDOW for verb, count in steady.items()}
        yield Row("crowd", f"requests, {size} instances, steady", per_minute, "a minute")
        samples: list[float] = []
        changed: Counter[str] = Counter()
        for turn in range(HAND_OVERS):
            began = cluster.audit_log.stat().st_size
            told = now()  # it may have lost the lease before, when so many others began at once
            leader.terminate()
            last = leader.sign("last", told)
            leader.wait()
            fleet.dismiss(leader)
            found, first = _next(fleet, others, last.at)
            samples.append(first.at - last.at)
            fleet.rest(1.0)
            changed += _counted(cluster.audit_log, began)
            others.remove(found)
            others.append(fleet.start(lease.lock, f"n{turn}", lease.environment))
            others[-1].line("following")
            leader = found
        yield Row("crowd", f"hand-over, {size} instances", spread(samples), remark=f"{len(samples)} times")
        each = {verb: count / HAND_OVERS for verb, count in changed.items()}
        yield Row("crowd", f"requests, {size} instances, each hand-over", each, "in its second")
        began, before = cluster.audit_log.stat().st_size, now()
        leader.kill_all()
        fleet.dismiss(leader)
        _, first = _next(fleet, others, before, LEASE * 2)
        fleet.rest(AFTER)
        seconds = first.at - before + AFTER
        counted = dict(_counted(cluster.audit_log, began))
        yield Row("crowd", f"requests, {size} instances, a crash", counted, f"in {seconds:.0f} s")


def _next(fleet: Fleet, others: list[Instance], after: float, patience: float = PATIENCE) -> tuple[Instance, Sign]:
    """Who of the others has started its command, and that sign. Raises AssertionError for two."""

    def found() -> list[tuple[Instance, Sign]]:
        return [(one, sign) for one in others for sign in one.signs.seen if sign.text == "first" and sign.at > after]

    one = fleet.until(found, "another one leads", patience)
    assert len(one) == 1, "two have started their commands"
    return one[0]


def _requests(fleet: Fleet, log: Path, seconds: float) -> Counter[str]:
    before = log.stat().st_size
    fleet.rest(seconds)
    return _counted(log, before)


def _counted(log: Path, since: int) -> Counter[str]:
    """Requests by verb from this byte of the audit log on."""
    with open(log, "rb") as file:
        file.seek(since)
        content = file.read()
    events = [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
    return Counter(
        event["verb"]
        for event in events
        if event["stage"] == "RequestReceived" and event.get("userAgent", "").startswith("awaitelect")
    )


CROWD_MEASURES: dict[str, Measure] = {
    f"crowd-{size}-kubernetes": lambda bench, size=size: crowd(bench, size)  # type: ignore[misc]
    for size in (2, 11, 101)
}
