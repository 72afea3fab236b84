"""What is to be said of it all: from what was seen to a verdict. Pure; instants are nanoseconds of CLOCK_BOOTTIME.

**Overlaps.** A run of a command lasts from the first sign of any of its processes to the last: stamps, and looks at a
pidfd. Both are proofs of life, so an overlap that is reported has happened. One is overlooked only if it is shorter
than what lies between the last proof of life of a process and the instant at which its end was seen; that error is
measured for each process. Where a run began after the end of all before it had been seen, there was none, without any
error: how often that could not be said, and how long an overlap may have been then, is reported too. (Commands that a
fault has stopped for good count to their last stamp: they are as good as dead unless they stamp again.)

**Lived past.** Another instance may start its command from the instant at which its write that takes the lease was
sent. That is what the record's acquireTime says, where the holder has changed; else the instant at which we saw the
record, which is later by a few milliseconds. And it may send that write, whether or not it does, once the holder's last
record is as old as it says; we count from when we saw it, which is later by as much. A command that has given a sign of
life after either has outlived its lease, even if nobody else has started anything. It must be never.

**No leader.** An instance is sound while it runs, its elector has seen the lease, and no fault is in force on it; the
lease, the store and the machine are sound while no fault is in force on them. While all of that holds without a break,
somebody's command has to come up within

    lease duration (the last holder may have vanished just after a renewal)
    + request time-out + 0.5 s (a request of the sound one may be on a connection that an earlier fault has killed)
    + 2.4 × retry period (that request again, and one more for a conflict)
    + the pause before a command that has crashed is started again, and 1 s for the start itself

plus the slack that is given for a busy machine. A lease stolen or edited counts as a fault until somebody of ours
holds it again, or for two lease durations.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from awaitelect.core.lease import Timing
from tests.torture.faults import Blow
from tests.torture.history import Version
from tests.torture.lives import Life
from tests.torture.plan import Kind
from tests.torture.seats import SECOND, Exit

LONGEST_PAUSE, START = 1.1, 1.0
"""Seconds: between two starts of a command that crashes, and for a start."""
LATE = SECOND
"""So much later than it was written we may see a record, on a machine that is busy."""
MOST_DESCRIPTORS = 40
"""An instance at rest has fewer files open in each of its processes."""
KILLED, TOLD = 9, 15
FAREWELL = 5 * SECOND
"""So much later than its elector an instance may end, on a machine that is busy."""
Span = tuple[int, int]


class Run(NamedTuple):
    """One run of a command, with all its processes."""

    name: str
    run: str
    first: int
    last: int
    """The last sign of life of any of its processes."""
    main_last: int
    dead_by: int
    """When the end of the last of them was seen: later than it happened."""
    last_of: str
    """Which process gave it."""
    instance: str
    token: int
    behaviour: str
    took: bool
    """Its main process was seen to start."""


class Facts(NamedTuple):
    """All that was seen."""

    lives: Sequence[Life]
    versions: Sequence[Version]
    blows: Sequence[Blow]
    exits: Sequence[Exit]
    sound: dict[str, Sequence[Span]]
    """By instance: when it was well, and nothing was being done to it."""
    began_at: int
    ended_at: int
    """Of the strikes; what comes after is the end in peace."""
    blind: str = ""
    """Why the lease was not looked at to the end; empty where it was."""


def runs_of(lives: Iterable[Life]) -> list[Run]:
    """In order of their begin."""
    by_run: dict[str, list[Life]] = defaultdict(list)
    for one in lives:
        by_run[one.run].append(one)
    found = []
    for run, members in by_run.items():
        last = max(members, key=lambda one: one.alive_at)
        main = next((one for one in members if one.role == "main"), None)
        found.append(
            Run(
                members[0].name,
                run,
                min(one.first for one in members),
                last.alive_at,
                main.alive_at if main else last.alive_at,
                max(one.alive_at if one.is_frozen else one.ended_by or one.alive_at for one in members),
                f"{last.role} {last.pid}",
                main.instance if main else "",
                main.token if main else 0,
                main.behaviour if main else "",
                main is not None,
            )
        )
    return sorted(found, key=lambda one: one.first)


def overlaps(runs: Sequence[Run], within: int = 0) -> list[str]:
    """The pairs that were alive at the same moment, in words, with the instant relative to `within`."""
    found = []
    open_runs: list[Run] = []
    for run in runs:
        open_runs = [one for one in open_runs if one.last >= run.first]
        found += [
            f"{run.run} began at {(run.first - within) / SECOND:.3f}s, {(one.last - run.first) / 1e6:.3f} ms before "
            f"the last sign of {one.run} ({one.last_of}, {one.behaviour})"
            for one in open_runs
        ]
        open_runs.append(run)
    return found


def unproven(runs: Sequence[Run]) -> list[float]:
    """For each run but the first by how many milliseconds at most it may have overlapped with one before it; 0: it has
    not, as that was seen to be dead before.
    """
    found = []
    latest = runs[0].dead_by if runs else 0
    for run in runs[1:]:
        found.append(max(0, latest - run.first) / 1e6)
        latest = max(latest, run.dead_by)
    return found


class Acquired(NamedTuple):
    """An instance has taken the lease."""

    at: int
    instance: str
    number: int


def acquisitions(versions: Sequence[Version], ours: set[str]) -> list[Acquired]:
    """Each time that the lease came to a run of awaitelect, `ours`, that did not have it before."""
    found = []
    holder = ""
    for version in versions:
        record = version.record
        if record is None or not record.holder:
            continue  # nobody has taken it: who had it may take it back
        if record.holder_instance != holder and record.holder_instance in ours:
            at = version.written_at if version.written_at is not None else version.seen_at
            found.append(Acquired(at, record.holder_instance, version.number))
        holder = record.holder_instance
    return found


def lived_past(runs: Sequence[Run], versions: Sequence[Version]) -> list[tuple[float, Run]]:
    """For each run for how many seconds it lived on when another instance was allowed to start; below 0: it did not."""
    acquired = acquisitions(versions, {one.instance for one in runs if one.instance})
    found = []
    for run in runs:
        ends = [one.at for one in acquired if one.number > run.token and one.instance != run.instance][:1]
        known = [one for one in versions if one.seen_at <= run.last + LATE]
        held = [one for one in known if one.record and one.record.holder_instance == run.instance]
        ends += [one.seen_at + one.record.duration * SECOND for one in held[-1:] if one.record]
        if ends and run.took:
            found.append(((run.last - min(ends)) / SECOND, run))
    return found


def gaps(runs: Sequence[Run], begin: int, end: int) -> list[Span]:
    """When no command ran."""
    found = []
    at = begin
    for run in sorted(runs, key=lambda one: one.first):
        if not run.took:
            continue
        if run.first > at:
            found.append((at, min(run.first, end)))
        at = max(at, run.main_last)
    if at < end:
        found.append((at, end))
    return [one for one in found if one[1] > one[0]]


def intersect(some: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    return [(max(a, c), min(b, d)) for a, b in some for c, d in others if max(a, c) < min(b, d)]


def without(whole: Sequence[Span], holes: Sequence[Span]) -> list[Span]:
    """The spans, less the holes."""
    found = list(whole)
    for begin, end in holes:
        found = [piece for a, b in found for piece in ((a, min(b, begin)), (max(a, end), b)) if piece[0] < piece[1]]
    return found


def bound(timing: Timing, slack: float) -> float:
    """Seconds within which somebody leads, where one instance and all that it needs are sound."""
    return (
        timing.wire_duration + timing.request_timeout + 0.5 + 2.4 * timing.retry_period + LONGEST_PAUSE + START + slack
    )


def leaderless(facts: Facts, runs: Sequence[Run]) -> tuple[float, float]:
    """The longest time without a command, in seconds: all in all, and while somebody was sound without a break."""
    wide = [
        (one.struck_at, one.healed_at or facts.ended_at)
        for one in facts.blows
        if one.struck_at is not None and one.kind.scope in ("lease", "store", "machine")
    ]
    empty = gaps(runs, facts.began_at, facts.ended_at)
    longest = 0
    for spans in facts.sound.values():
        for begin, end in intersect(empty, without(spans, wide)):
            longest = max(longest, end - begin)
    return max((b - a for a, b in empty), default=0) / SECOND, longest / SECOND


# ---------------------------------------------------------------------- the ends of instances


def cause(one: Exit) -> str:
    """Why it has ended, in a word for the table."""
    deeds = set(one.deeds)
    if {"SIGKILL keeper", "SIGKILL both"} & deeds:
        return "SIGKILL to the keeper"
    if one.status == -9:
        stops = {"SIGSTOP keeper", "SIGSTOP both", "frozen whole", "starved", "SIGSTOP elector", "busy machine"}
        return "ended by its own side: keeper silent" if stops & deeds else "ended by its own side, unasked"
    if one.told_at is not None:
        return "SIGTERM, command ran" if one.ran else "SIGTERM, nothing ran"
    return "its command finished" if one.command_status == 0 else "of its own accord"


def lost_statuses(exits: Iterable[Exit]) -> list[str]:
    """Instances to which nothing was done but by SIGTERM, and that did not end with their command's status.

    Of those that nobody has told to end: a SIGTERM to the command or to the elector tells the instance nothing. So they
    go on, but after a command that has finished. (That one side ends the other, unasked, is in the table.)
    """
    found = []
    for one in exits:
        if not one.deeds or any(not deed.startswith("SIGTERM") for deed in one.deeds):
            continue
        if one.told_at is None and one.status == -KILLED:
            continue
        if one.status not in _allowed(one):
            found.append(f"{one.name} ended with {one.status}, its command with {one.command_status}")
    return found


def _allowed(one: Exit) -> set[int]:
    """The statuses with which it may end."""
    if one.told_at is None:
        return {0} & {one.command_status}
    if one.command_last is not None and one.command_last >= one.told_at:
        # A status that is written down is given at once; only SIGKILL leaves none, as SIGTERM is blocked.
        return {128 + KILLED if one.command_status is None else one.command_status}
    # One that was about to start gives no sign before it has blocked SIGTERM; where there was none, the last one counts
    # as long as it may be started again.
    before = set() if one.command_status is None else {one.command_status}
    return before | {128 + TOLD, 128 + KILLED} | (set() if one.ran else {0})


def never_struck(facts: Facts, kinds: Iterable[Kind]) -> list[str]:
    """The names of the kinds that were planned for, and that came too late or found nothing to strike at."""
    struck = {one.kind.name for one in facts.blows if one.struck_at is not None}
    return [one.name for one in kinds if one.name not in struck]


def heeded(facts: Facts) -> list[str]:
    """Electors that a SIGTERM has ended, where nothing else had been done and no command had finished."""
    per_episode = Counter(one.episode for one in facts.blows)
    found = []
    for one in facts.blows:
        if not one.elector_ended or per_episode[one.episode] > 1 or one.struck_at is None:
            continue
        until = (one.healed_at or facts.ended_at) + FAREWELL
        ends = [end for end in facts.exits if one.struck_at <= end.at <= until and end.status == end.command_status]
        if not any(end.name == seat.name for end in ends for seat in one.seats):
            found.append(one.title)
    return found


# ---------------------------------------------------------------------- the tables


def spread(samples: Sequence[float]) -> dict[str, float]:
    """p50, p99 and max; empty where there are no samples."""
    if not samples:
        return {}
    ordered = sorted(samples)
    many = len(ordered) > 1
    p99 = statistics.quantiles(ordered, n=100, method="inclusive")[98] if many else ordered[0]
    return {"p50": round(statistics.median(ordered), 4), "p99": round(p99, 4), "max": round(ordered[-1], 4)}


def by_kind(facts: Facts, runs: Sequence[Run], pairs: Sequence[str], lease: float) -> list[dict[str, Any]]:
    """For each kind of fault: how often it struck, and what came of it where it was alone.

    A change of the command is put down to a fault if it came while that was in force, or within a lease duration after
    and before the next.
    """
    per_episode: dict[int, list[Blow]] = defaultdict(list)
    for one in facts.blows:
        if one.struck_at is not None:
            per_episode[one.episode].append(one)
    past = {run.run: seconds for seconds, run in lived_past(runs, facts.versions)}
    rows: dict[str, dict[str, Any]] = {}
    begins = {episode: min(one.struck_at or 0 for one in blows) for episode, blows in per_episode.items()}
    for episode, blows in per_episode.items():
        title = blows[0].kind.name if len(blows) == 1 else "several at once"
        for one in blows:
            row = rows.setdefault(one.kind.name, _row(one.kind.name))
            row["struck"] += 1
        row = rows.setdefault(title, _row(title))
        row["struck"] += len(blows) > 1
        row["alone"] += 1
        first = begins[episode]
        healed = max(one.healed_at or facts.ended_at for one in blows)
        later = [at for at in begins.values() if at > first]
        last = min([healed + round(lease * SECOND), *later])
        before = next((one for one in reversed(runs) if one.first <= first), None)
        row["overlaps"] += sum(before is not None and before.run in text for text in pairs)
        if before is None or before.run not in {one.run for one in blows}:
            continue
        after = next((one for one in runs if one.first > before.first and one.took), None)
        if after is None or before.main_last > last:
            continue  # the command has not noticed
        row["changes"] += 1
        row["times"].append((after.first - first) / SECOND)
        if before.run in past:
            row["past"].append(past[before.run])
    for row in rows.values():
        row.update({f"new leader {name}": value for name, value in spread(row.pop("times")).items()})
        row.update({f"lived past {name}": value for name, value in spread(row.pop("past")).items()})
    return sorted(rows.values(), key=lambda row: (row["fault"] == "several at once", row["fault"]))


def _row(name: str) -> dict[str, Any]:
    return {"fault": name, "struck": 0, "alone": 0, "overlaps": 0, "changes": 0, "times": [], "past": []}


def _ours(runs: Sequence[Run]) -> set[str]:
    return {one.instance for one in runs if one.instance}


def judge(facts: Facts, timing: Timing, slack: float) -> dict[str, Any]:
    """All figures, and under `failures` what must not be."""
    runs = runs_of(facts.lives)
    pairs = overlaps(runs, facts.began_at)
    past = lived_past(runs, facts.versions)
    doubts = unproven(runs)
    longest, sound = leaderless(facts, runs)
    limit = bound(timing, slack)
    errors = [one.error / 1e6 for one in facts.lives if one.error is not None]
    statuses: dict[str, Counter[int]] = defaultdict(Counter)
    for one in facts.exits:
        statuses[cause(one)][one.status] += 1
    failures = [f"two commands at once: {text}" for text in pairs]
    failures += [
        f"lived past: {run.run} ({run.last_of}) by {seconds * 1000:.3f} ms" for seconds, run in past if seconds >= 0
    ]
    if sound > limit:
        failures.append(f"no leader for {sound:.2f}s while an instance was sound: more than {limit:.2f}s")
    failures += [f"status lost: {text}" for text in lost_statuses(facts.exits)]
    if facts.blind:
        failures.append(
            f"the lease was not looked at to the end, so nothing is known of what lived past: {facts.blind}"
        )
    failures += [f"an elector has heeded a signal: {text}" for text in heeded(facts)]
    return {
        "runs": len(runs),
        "terms": len(acquisitions(facts.versions, _ours(runs))),
        "overlaps": len(pairs),
        "lived past max": round(max((seconds for seconds, _ in past), default=0.0), 6) if past else None,
        "hand-overs judged": len(past),
        "no leader max": round(longest, 3),
        "no leader max while somebody was sound": round(sound, 3),
        "no leader bound": round(limit, 3),
        "judgement error ms": spread(errors),
        "not proven apart": sum(one > 0 for one in doubts),
        "not proven apart, ms at most": round(max(doubts, default=0.0), 3),
        "longest pause between two stamps ms": round(max((one.longest_pause for one in facts.lives), default=0) / 1e6),
        "exit statuses": {why: dict(sorted(found.items())) for why, found in sorted(statuses.items())},
        "faults": by_kind(facts, runs, pairs, timing.lease_duration),
        "failures": failures,
    }
