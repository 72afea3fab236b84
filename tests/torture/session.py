"""One session of torture: from what was ordered to the report."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from awaitelect.core.lease import Timing
from tests.envtest import ControlPlane
from tests.misbehaving import Wire
from tests.torture import report
from tests.torture.judgement import MOST_DESCRIPTORS, Facts, judge, never_struck
from tests.torture.leases import FileLease, KubernetesLease, Lease, small_disk, unmount
from tests.torture.plan import episodes, kinds_for
from tests.torture.world import World

TIMING = Timing(lease_duration=4.0, renew_deadline=2.4, retry_period=0.5, kill_margin=1.0)
"""Short, for many hand-overs; the margin is the default's, as the machine is as slow as any."""
SERVER_TIME = 180.0
"""Seconds that the API server may take to come up."""
NAMESPACE, NAME = "torture", "victim"


class Order(NamedTuple):
    """What is wanted."""

    store: str
    instances: int
    minutes: float
    seed: int
    slack: float = 3.0
    """Seconds that a new leader may come late."""
    left_out: tuple[str, ...] = ()
    """Kinds of faults."""
    folder: Path | None = None
    """Where the report goes; None: nowhere."""

    @property
    def command(self) -> str:
        """By which it is repeated."""
        words = ["python", "-m", "tests.torture", "--instances", str(self.instances), "--minutes", f"{self.minutes:g}"]
        words += ["--store", self.store, "--seed", str(self.seed), "--slack", f"{self.slack:g}"]
        for one in self.left_out:
            words += ["--without", one]
        return shlex.join(words)


def torture(order: Order) -> tuple[dict[str, Any], str]:
    """Do it; the report, and the same in words."""
    with tempfile.TemporaryDirectory(prefix="torture-") as name, ExitStack() as stack:
        folder = Path(name)
        left_out = list(order.left_out)
        lease, wires = stack.enter_context(_stage(order, folder, left_out))
        world = World(folder, lease, order.instances, order.seed, TIMING, wires)
        with world:
            world.run(episodes(order.seed, kinds_for(order.store, left_out), TIMING.lease_duration), order.minutes * 60)
            left = world.left_behind()
        return _finish(order, world, left, left_out)


@contextmanager
def _stage(order: Order, folder: Path, left_out: list[str]) -> Iterator[tuple[Lease, list[Wire]]]:
    """The lease, and the wires to it; what cannot be done here is added to `left_out`."""
    if order.store == "file":
        disk = folder / "disk"
        disk.mkdir()
        is_small = small_disk(disk)
        if not is_small:
            left_out.append("disk full")
        try:
            yield FileLease(disk, TIMING.lease_duration), []
        finally:
            if is_small:
                unmount(disk)
        return
    with ExitStack() as stack:
        cluster = stack.enter_context(ControlPlane(patience=SERVER_TIME))
        cluster.create_namespace(NAMESPACE)
        wires = [stack.enter_context(Wire(cluster.port)) for _ in range(order.instances)]
        yield KubernetesLease(cluster, NAMESPACE, NAME, TIMING.lease_duration, folder), wires


def _finish(order: Order, world: World, left: list[str], left_out: Sequence[str]) -> tuple[dict[str, Any], str]:
    lives = list(world.watcher.lives.values())
    sound = {one.name: one.settled for one in world.seats}
    history = world.history
    seen = Facts(lives, history.versions, world.blows, world.exits, sound, world.began_at, world.ended_at)
    facts = seen._replace(blind=history.failure)
    found = judge(facts, TIMING, order.slack)
    open_files = {
        role: max((count for _, _, which, _, count in world.samples if which == role), default=0)
        for role in ("keeper", "elector")
    }
    crowded = [f"{role}: {count} open files" for role, count in open_files.items() if count > MOST_DESCRIPTORS]
    found["failures"] += [f"left behind: {one}" for one in [*left, *crowded]]
    found["failures"] += [f"not as planned: {one}" for one in world.broken]
    found["failures"] += [f"an error of its own in the log of {one}" for one in world.tracebacks()]
    found.update(
        {
            "store": order.store,
            "instances": order.instances,
            "minutes": order.minutes,
            "seed": order.seed,
            "timing": {name: getattr(TIMING, name) for name in ("lease_duration", "renew_deadline", "retry_period")},
            "episodes": world.episodes,
            "starts of instances": sum(one.starts for one in world.seats),
            "stamps": world.watcher.stamps,
            "looks": world.watcher.looks,
            "open files": open_files,
            "hidden daemons": world.can_hide,
            "left behind": left,
            "command": order.command,
            "left out": list(left_out),
            "never struck": never_struck(facts, kinds_for(order.store, left_out)),
        }
    )
    words = report.text(found)
    if order.folder:
        _write(order, world, facts, found, words)
    return found, words


def _write(order: Order, world: World, facts: Facts, found: dict[str, Any], words: str) -> None:
    assert order.folder is not None
    order.folder.mkdir(parents=True, exist_ok=True)
    (order.folder / "report.txt").write_text(words + "\n")
    (order.folder / "report.json").write_text(json.dumps(found, indent=1) + "\n")
    title = f"{order.instances} instances, one lease ({order.store}), {order.minutes:g} minutes, seed {order.seed}"
    names = [one.name for one in world.seats]
    (order.folder / "timeline.svg").write_text(report.picture(facts, names, title))
    for one in world.seats:
        shutil.copy(one.said, order.folder / f"{one.name}.log")
    shutil.copy(world.fleet.records, order.folder / "records")
