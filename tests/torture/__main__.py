"""`python -m tests.torture --instances 3 --minutes 10 --store kubernetes|file [--seed S] [--report FOLDER]`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from tests.envtest import assets
from tests.torture.plan import KINDS
from tests.torture.session import TIMING, Order, torture
from tests.torture.world import NAMES, can_unshare, go_on_in_own_mounts


def main(arguments: list[str]) -> int:
    """0: nothing was found. 1: something was. 2: it cannot be done here."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--store", choices=("kubernetes", "file"), default="kubernetes")
    parser.add_argument("--instances", type=int, default=3, choices=range(1, len(NAMES) + 1), metavar="N")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument(
        "--seed", type=int, default=None, help="what is struck, when and how; default: another each time"
    )
    parser.add_argument("--report", type=Path, help="a folder for report.txt, report.json, timeline.svg and the logs")
    parser.add_argument("--slack", type=float, default=3.0, help="seconds over the bound on the time without a leader")
    parser.add_argument(
        "--only", action="append", choices=[one.name for one in KINDS], help="only this fault, and others"
    )
    parser.add_argument("--without", action="append", default=[], choices=[one.name for one in KINDS])
    parser.add_argument("--mounted", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.store == "kubernetes" and assets() is None:
        print("KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver", file=sys.stderr)
        return 2
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    if options.store == "file" and not options.mounted and can_unshare():
        # The small disk that is to be filled must not outlive us, nor be seen by others.
        go_on_in_own_mounts([*arguments, "--mounted", *([] if options.seed is not None else ["--seed", str(seed)])])
    left_out = [one.name for one in KINDS if options.only and one.name not in options.only] + options.without
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # nothing is left behind then either
    order = Order(
        options.store, options.instances, options.minutes, seed, options.slack, tuple(left_out), options.report
    )
    print(f"seed {seed}; {TIMING.lease_duration:g} s leases; repeat with: {order.command}", flush=True)
    report, words = torture(order)
    print(words)
    return 1 if report["failures"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
