"""Try many seeds, on all cores: `python -m tests.simulation --seeds N | A..B`; one again: `--seed N`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from tests.simulation import MUTATIONS, Violation, simulate

CHUNK = 20
TOLD_EVERY = 30.0
"""Seconds between two words about how far it is."""


class Tally(NamedTuple):
    """What some seeds came to."""

    schedules: int
    failures: list[tuple[int, str]]
    struck: Counter[str]
    gaps: list[tuple[float, float]]
    figures: Counter[str]


def attempt(task: tuple[range, str | None, int | None, float]) -> Tally:
    """Try these seeds."""
    seeds, mutation, nodes, drift = task
    tally = Tally(len(seeds), [], Counter(), [], Counter())
    for seed in seeds:
        try:
            outcome = simulate(seed, MUTATIONS[mutation]() if mutation else None, nodes, drift)
        except Violation as violation:
            tally.failures.append((seed, str(violation)))
        else:
            tally.struck.update(outcome.struck)
            tally.gaps.extend(outcome.gaps)
            tally.figures.update(events=outcome.events, starts=outcome.starts, seconds=round(outcome.seconds))
    return tally


def main() -> int:
    options = parse()
    began = told = time.perf_counter()
    total = Tally(0, [], Counter(), [], Counter())
    try:
        for tally in _tallies(options):
            for _, text in tally.failures[: max(0, options.show - len(total.failures))]:
                print(text, flush=True)
            total.failures.extend(tally.failures)
            total.struck.update(tally.struck)
            total.figures.update(tally.figures)
            total.gaps.extend(tally.gaps)
            total = total._replace(schedules=total.schedules + tally.schedules)
            if time.perf_counter() - told > TOLD_EVERY:
                told = time.perf_counter()
                print(f"{total.schedules} schedules, {len(total.failures)} failed", file=sys.stderr, flush=True)
            if options.stop and total.failures:
                break
    except KeyboardInterrupt:
        print("interrupted: this is how far it came", file=sys.stderr)
    report(total, time.perf_counter() - began, options.jobs)
    return 1 if total.failures else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="2000", help="how many, from 1 on; or first..last")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--mutation", choices=sorted(MUTATIONS), help="break one rule")
    parser.add_argument("--nodes", type=int, help="so many instances, in place of what the seed says")
    parser.add_argument("--drift", type=float, default=0.01, help="the share by which a clock may be fast or slow")
    parser.add_argument("--show", type=int, default=1, help="how many failures are told with their history")
    parser.add_argument("--stop", action="store_true", help="end with the first failures")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (all cores)")
    options = parser.parse_args()
    if options.seed is not None:
        options.seeds = f"{options.seed}..{options.seed}"
    return options


def _tallies(options: argparse.Namespace) -> Iterator[Tally]:
    first, dots, last = options.seeds.partition("..")
    low, high = (int(first), int(last)) if dots else (1, int(first))
    tasks = [
        (range(start, min(start + CHUNK, high + 1)), options.mutation, options.nodes, options.drift)
        for start in range(low, high + 1, CHUNK)
    ]
    if options.jobs == 1 or len(tasks) == 1:
        yield from map(attempt, tasks)
    else:
        with multiprocessing.Pool(options.jobs, _leave_interrupts_to_the_parent) as pool:
            yield from pool.imap(attempt, tasks)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def report(total: Tally, took: float, jobs: int) -> None:
    rate = total.schedules / took
    figures = total.figures
    print(f"{total.schedules} schedules in {took:.1f}s on {jobs} cores: {rate:.1f} schedules a second")
    hours = figures["seconds"] / 3600
    print(f"{figures['events']} events, {figures['starts']} starts of a command, {hours:.1f} hours of virtual time")
    if total.gaps:
        gaps = sorted(gap for gap, _ in total.gaps)
        nearest = max(gap / bound for gap, bound in total.gaps)
        p50, p99 = gaps[len(gaps) // 2], gaps[len(gaps) * 99 // 100]
        print(f"after a storm somebody led again: p50 {p50:.1f}s, p99 {p99:.1f}s, at most {gaps[-1]:.1f}s,", end=" ")
        print(f"and at most after {nearest:.0%} of the bound for it")
    for fault, times in total.struck.most_common():
        print(f"{times:>10} {fault}")
    seeds = sorted(seed for seed, _ in total.failures)
    print(f"{len(seeds)} failed: {seeds}" if seeds else "none failed")


if __name__ == "__main__":
    sys.exit(main())
