"""Try many seeds: `python -m tests.simulation --seeds A..B [--mutation NAME]`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation import MUTATIONS, Violation, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", default="1..300", help="first..last")
    parser.add_argument("--mutation", choices=sorted(MUTATIONS), help="break one rule")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--show", type=int, default=1, help="how many failures are told with their history")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("..")
    seeds = range(int(first), int(last or first) + 1)
    failed: list[int] = []
    events = starts = 0
    began = time.perf_counter()
    for seed in seeds:
        mutation = MUTATIONS[options.mutation]() if options.mutation else None
        try:
            outcome = simulate(seed, mutation, options.nodes, options.seconds)
        except Violation as violation:
            failed.append(seed)
            print(violation if len(failed) <= options.show else f"seed {seed}: {violation.what}", flush=True)
        else:
            events += outcome.events
            starts += outcome.starts
    took = time.perf_counter() - began
    print(f"{len(seeds)} schedules in {took:.1f}s: {len(seeds) / took:.1f} a second, {events} events, {starts} starts")
    print(f"{len(failed)} failed: {failed}" if failed else "none failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
