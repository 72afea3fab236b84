"""The report: a table for people, the same as JSON, and the picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from tests.torture.faults import Blow
from tests.torture.judgement import Facts, Run, runs_of
from tests.torture.leases import THIEF
from tests.torture.seats import SECOND
from tests.torture.timeline import Bar, Lane, draw

COLOURS = ("#2b6cb0", "#2f855a", "#b7791f", "#6b46c1", "#0987a0", "#97266d", "#4a5568")
GREY, RED, ORANGE, SOFT = "#a0aec0", "#c53030", "#ed8936", "#cbd5e0"
NO_CGROUP = " (no cgroup can be made here: the commands had no daemons that only a cgroup finds)"
_COLUMNS = (
    "fault",
    "struck",
    "alone",
    "overlaps",
    "changes",
    "new leader p50",
    "new leader p99",
    "new leader max",
    "lived past p50",
    "lived past p99",
    "lived past max",
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The faults, in columns. Times are seconds."""
    lines = [_COLUMNS, *(tuple(_cell(row.get(name)) for name in _COLUMNS) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        " | ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def text(report: dict[str, Any]) -> str:
    """All of it for people."""
    statuses = "; ".join(
        f"{why}: " + ", ".join(f"{status} ({count}×)" for status, count in found.items())
        for why, found in report["exit statuses"].items()
    )
    error = report["judgement error ms"]
    past = report["lived past max"]
    lines = [
        table(report["faults"]),
        "",
        "changes: of those alone, how many ended the command. new leader: seconds from the strike to the first sign of",
        "the next command then. lived past: seconds from the instant at which another instance was allowed to start to",
        "the last sign of the command before; below 0: it was dead by then.",
        "",
        f"runs of commands           {report['runs']}, in {report['terms']} terms, {report['stamps']} stamps",
        f"overlaps                   {report['overlaps']}" + ("" if report["hidden daemons"] else NO_CGROUP),
        f"lived past, the most       {'-' if past is None else f'{past:.6f}'} s, of {report['hand-overs judged']}",
        f"the judgement's own error  {error.get('p50')} / {error.get('p99')} / {error.get('max')} ms (p50, p99, max); "
        f"{report['not proven apart']} of {report['runs'] - 1} changes not proven apart, by "
        f"{report['not proven apart, ms at most']} ms at most",
        f"no leader, the longest     {report['no leader max']} s; while an instance was sound "
        f"{report['no leader max while somebody was sound']} s (bound {report['no leader bound']} s)",
        f"exit statuses              {statuses}",
        "open files at rest         "
        f"keeper {report['open files']['keeper']}, elector {report['open files']['elector']}",
        f"left behind                {'; '.join(report['left behind']) or 'nothing'}",
        f"left out                   {', '.join(report['left out']) or 'nothing'}",
        f"never struck               {', '.join(report['never struck']) or 'none'}",
        f"repeat with                {report['command']}",
    ]
    lines += ["", *(f"FAILED: {one}" for one in report["failures"])] if report["failures"] else ["", "PASSED"]
    return "\n".join(lines)


def picture(facts: Facts, names: Sequence[str], title: str) -> str:
    """The timeline."""
    begin = facts.began_at
    runs = runs_of(facts.lives)
    end = max([facts.ended_at, *(one.last for one in runs)])

    def at(instant: int) -> float:
        return max(0.0, (instant - begin) / SECOND)

    colours = dict(zip(names, COLOURS, strict=False))
    lanes = [Lane("lease held by", _holders(facts, colours, end, at))]
    for name in names:
        lanes.append(Lane(f"{name}: command", [_run_bar(one, colours[name], at) for one in runs if one.name == name]))
        lanes.append(Lane(f"{name}: sound", [Bar(at(a), at(b), SOFT, "sound") for a, b in facts.sound[name]]))
    lanes += [Lane(kind, bars) for kind, bars in _faults(facts.blows, end, at).items()]
    legend = [
        *((colour, f"command of {name}, or its lease") for name, colour in colours.items()),
        (RED, "fault in force"),
        (ORANGE, "lease held by somebody else"),
        (SOFT, "instance sound"),
        (GREY, "a command's daemons after its end"),
    ]
    return draw(title, lanes, legend, (end - begin) / SECOND)


def _run_bar(run: Run, colour: str, at: Any) -> Bar:
    words = f"{run.run} ({run.behaviour}), token {run.token}, {at(run.first):.3f} to {at(run.last):.3f} s"
    return Bar(at(run.first), at(run.last), colour if run.took else GREY, words)


def _holders(facts: Facts, colours: dict[str, str], end: int, at: Any) -> list[Bar]:
    bars = []
    for version, after in zip_longest(facts.versions, facts.versions[1:]):
        record = version.record
        if record is None or not record.holder:
            continue
        until = after.seen_at if after else end
        colour = colours.get(record.holder, ORANGE if record.holder == THIEF else GREY)
        if bars and bars[-1].words == record.holder and abs(bars[-1].end - at(version.seen_at)) < 0.001:
            bars[-1] = bars[-1]._replace(end=at(until))
        else:
            bars.append(Bar(at(version.seen_at), at(until), colour, record.holder))
    return bars


def _faults(blows: Sequence[Blow], end: int, at: Any) -> dict[str, list[Bar]]:
    lanes: dict[str, list[Bar]] = {}
    for one in sorted(blows, key=lambda one: one.struck_at or 0):
        if one.struck_at is not None:
            bar = Bar(at(one.struck_at), at(one.healed_at or end), RED, f"{at(one.struck_at):.2f} s: {one.title}")
            lanes.setdefault(one.kind.name, []).append(bar)
    return lanes
