"""`python -m tests.bench [--only NAME]… [--hand-overs N] [--json FILE] [--program FILE]`: a table, figure by limit.

A name is that of a measure or its beginning: `hand-over` runs both, `hand-over-file` one. Those on Kubernetes need
KUBEBUILDER_ASSETS and are skipped without it; all need Linux, unshare(1) and the right to use it. The exit status is 1
if a measure has failed; a figure above its limit is marked with (!) and is no failure, as machines differ.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import instances
from tests.bench.crowd import CROWD_MEASURES
from tests.bench.figures import Row, table
from tests.bench.measures import MEASURES, Bench
from tests.bench.peers import PEER_MEASURES
from tests.bench.routing import ROUTING_MEASURES
from tests.envtest import assets

ALL = MEASURES | PEER_MEASURES | ROUTING_MEASURES | CROWD_MEASURES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.split("\n")[0])
    parser.add_argument("--only", action="append", metavar="NAME", help=f"any of {', '.join(ALL)}, or a beginning")
    parser.add_argument("--hand-overs", type=int, default=50, metavar="N", help="how often to hand over (default: 50)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument(
        "--program",
        default=instances.PROGRAM,
        metavar="FILE",
        help="the awaitelect to measure (default: the one beside this Python; an editable installation starts slower)",
    )
    typed = parser.parse_args()
    instances.PROGRAM = typed.program
    chosen = [name for name in ALL if not typed.only or name.startswith(tuple(typed.only))]
    if not chosen:
        parser.error(f"no measure is called so; there are: {', '.join(ALL)}")
    if typed.hand_overs < 2:
        parser.error("--hand-overs must be 2 or more")
    if assets() is None:
        skipped = [name for name in chosen if name.endswith("-kubernetes")]
        chosen = [name for name in chosen if name not in skipped]
        print(f"skipped, as there is no KUBEBUILDER_ASSETS: {', '.join(skipped) or 'nothing'}", file=sys.stderr)
    rows, failed = _run(chosen, typed.hand_overs)
    print(table(rows))
    if typed.json:
        machine = {"cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
        found = {"machine": machine, "failed": failed, "rows": [row.plain() for row in rows]}
        typed.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return 1 if failed else 0


def _run(chosen: list[str], hand_overs: int) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, Bench(Path(folder), hand_overs) as bench:
        for name in chosen:
            began = time.monotonic()
            load = os.getloadavg()[0]
            print(f"{name} … ", end="", file=sys.stderr, flush=True)
            try:
                rows += ALL[name](bench)
            except (AssertionError, OSError, RuntimeError, ValueError) as error:
                failed.append(name)
                print(f"FAILED: {type(error).__name__}: {error}", file=sys.stderr)
            else:
                print(f"{time.monotonic() - began:.0f} s (load before it {load:.1f})", file=sys.stderr)
    return rows, failed


if __name__ == "__main__":
    sys.exit(main())
