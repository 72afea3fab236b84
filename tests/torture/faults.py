"""What can befall the instances: each fault by its name, from its strike to its end.

Each is carried out by a thread of its own, so that they overlap as the plan says.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e.instances import kill
from tests.torture.leases import EDITS, FileLease, KubernetesLease, NotThere, full
from tests.torture.lives import Life, now_ns
from tests.torture.plan import Kind, Strike
from tests.torture.seats import SECOND, Held, Seat

if TYPE_CHECKING:
    from tests.torture.world import World

STOPPED_IN_WRITE = str(Path(__file__).parent / "stop_in_write.py")
JITTER = (0.045, 0.005)
"""Seconds that a starved instance is stopped, and that it may run, in turn."""
HOGS = 4
HEED = 1.0
"""Seconds in which an elector that heeds a SIGTERM would have ended."""
TROUBLES = {"slow drip": "drip", "blackhole": "silent", "blackhole for all": "silent"}
"""Our names for those of a wire, where they differ."""


class Blow:
    """One strike that is being carried out, or was."""

    def __init__(self, strike: Strike, episode: int) -> None:
        self.strike, self.episode = strike, episode
        self.seats: list[Seat] = []
        self.struck_at: int | None = None
        """None: there was nothing to strike at."""
        self.healed_at: int | None = None
        self.run = ""
        """The run of a command that was going on when it struck."""
        self.remark = ""
        self.elector_ended = False
        """The elector that it told to end did so, which it must not: its keeper decides."""

    @property
    def kind(self) -> Kind:
        return self.strike.kind

    @property
    def title(self) -> str:
        where = ", ".join(one.name for one in self.seats) if self.kind.scope in ("process", "network") else ""
        return " ".join(filter(None, (self.kind.name, where and f"({where})", self.remark)))


class Carried:
    """Carries out one blow."""

    def __init__(self, world: World, blow: Blow) -> None:
        self.world, self.blow, self.strike = world, blow, blow.strike
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.world.pause(self.strike.after)
            FAULTS[self.blow.kind.name](self)
        except NotThere:
            pass
        except Exception as error:
            self.world.broken.append(f"{self.blow.kind.name}: {type(error).__name__}: {error}")
        finally:
            for seat in self.blow.seats:
                seat.troubles -= 1
            if self.blow.struck_at is not None:
                self.blow.healed_at = now_ns()

    # ------------------------------------------------------------------ for the faults

    @property
    def seat(self) -> Seat:
        """The instance to strike at. Raises NotThere."""
        return self.seats_to_strike()[0]

    def seats_to_strike(self, fitting: Callable[[Seat], bool] = lambda seat: True) -> list[Seat]:
        leader = self.world.leader
        there = [one for one in self.world.seats if one.instance is not None and fitting(one)]
        if not there:
            raise NotThere("an instance")
        there.sort(key=lambda one: one.name)
        turn = int(self.strike.dice * len(there))
        there = there[turn:] + there[:turn]
        return sorted(there, key=lambda one: (one.name == leader) != self.strike.at_leader)

    def strikes(self, *seats: Seat) -> None:
        """From now on it is in force."""
        for seat in seats:
            seat.troubles += 1
            seat.deeds.append(self.blow.kind.name)
        self.blow.seats = list(seats)
        if self.blow.kind.scope not in ("process", "network"):
            for seat in self.world.seats:
                seat.deeds.append(self.blow.kind.name)
        mains = self.world.watcher.mains()
        self.blow.run = mains[-1].run if mains else ""
        self.blow.struck_at = now_ns()

    def lasts(self) -> None:
        self.world.pause(self.strike.lasting)

    def command_of(self, seat: Seat) -> list[Life]:
        """The processes of the command that runs there."""
        return [one for one in self.world.watcher.living() if one.name == seat.name]


def _alive(pid: int) -> int:
    if not pid:
        raise NotThere("a process")
    return pid


def tell_instance(self: Carried) -> None:
    seat = self.seat
    self.strikes(seat)
    seat.tell(signal.SIGTERM, bool(self.command_of(seat)))


def tell_elector(self: Carried) -> None:
    """As whoever signals all that has its name: nothing must come of it."""
    seat = self.seat
    held = Held([_alive(seat.elector)])
    self.strikes(seat)
    held.send(signal.SIGTERM)
    self.world.pause(HEED, lambda: held.any_ended)
    self.blow.elector_ended = held.any_ended
    held.close()


def tell_both(self: Carried) -> None:
    """As whoever signals the whole group or cgroup: it is the keeper's alone to hear."""
    seat = self.seat
    held = Held([_alive(seat.elector)])
    self.strikes(seat)
    ran = bool(self.command_of(seat))
    if self.strike.dice < 0.5:
        seat.tell(signal.SIGTERM, ran)
        held.send(signal.SIGTERM)
    else:
        held.send(signal.SIGTERM)
        seat.tell(signal.SIGTERM, ran)
    held.close()


def tell_command(self: Carried) -> None:
    """It ends as it likes, or not at all: it was not awaitelect that told it to."""
    _send_command(self, signal.SIGTERM)


def kill_keeper(self: Carried) -> None:
    seat = self.seat
    self.strikes(seat)
    kill(_alive(seat.keeper))


def kill_elector(self: Carried) -> None:
    seat = self.seat
    held = Held([_alive(seat.elector)])
    self.strikes(seat)
    held.send(signal.SIGKILL)
    held.close()


def kill_both(self: Carried) -> None:
    seat = self.seat
    held = Held([_alive(seat.keeper), _alive(seat.elector)][:: 1 if self.strike.dice < 0.5 else -1])
    self.strikes(seat)
    held.send(signal.SIGKILL)
    held.close()


def _stop(self: Carried, seat: Seat, pids: list[int]) -> None:
    held = Held(pids)
    if not held:
        raise NotThere("a process")
    self.strikes(seat)
    held.send(signal.SIGSTOP)
    self.lasts()
    held.send(signal.SIGCONT)
    held.close()


def stop_keeper(self: Carried) -> None:
    seat = self.seat
    _stop(self, seat, [_alive(seat.keeper)])


def stop_elector(self: Carried) -> None:
    seat = self.seat
    _stop(self, seat, [_alive(seat.elector)])


def stop_both(self: Carried) -> None:
    seat = self.seat
    _stop(self, seat, [_alive(seat.keeper), _alive(seat.elector)][:: 1 if self.strike.dice < 0.5 else -1])


@contextlib.contextmanager
def _stilled(self: Carried, fitting: Callable[[Seat], bool] = lambda seat: True) -> Iterator[Seat]:
    """An instance whose command this fault may stop: the end of another one would wake it up, which is none's to do
    while the instance is frozen whole.
    """
    seat = self.seats_to_strike(lambda one: one not in self.world.stilled and fitting(one))[0]
    self.world.stilled.append(seat)
    try:
        yield seat
    finally:
        self.world.stilled.remove(seat)


def stop_command(self: Carried) -> None:
    every = self.strike.dice < 0.5
    with _stilled(self, lambda one: bool(self.command_of(one))) as seat:
        _stop(self, seat, [one.pid for one in self.command_of(seat) if every or one.role == "main"])


def kill_command(self: Carried) -> None:
    _send_command(self, signal.SIGKILL)


def _send_command(self: Carried, number: int) -> None:
    mains = {one.name: one.pid for one in self.world.mains}
    seat = next((one for one in self.seats_to_strike() if one.name in mains), None)
    if seat is None:
        raise NotThere("a command")
    held = Held([mains[seat.name]])
    self.strikes(seat)
    held.send(number)
    held.close()


def freeze_whole(self: Carried) -> None:
    """As a machine that sleeps, but that we don't wake up the command: whether it may go on is awaitelect's to say.

    A command that goes on by itself before awaitelect has looked at the clock is what no lease can prevent; it is what
    the fencing token is for.
    """
    with _stilled(self) as seat:
        lives = self.command_of(seat)
        ours = {one.pid for one in lives}
        command = Held(ours)
        rest = Held([*(pid for pid in seat.children if pid not in ours), seat.keeper])
        self.strikes(seat)
        command.send(signal.SIGSTOP)
        rest.send(signal.SIGSTOP)
        self.world.watcher.freeze(lives)
        self.lasts()
        rest.send(signal.SIGCONT)
        command.close()
        rest.close()


def starve(self: Carried) -> None:
    """The instance gets a tenth of a processor, in slices."""
    with _stilled(self) as seat:
        self.strikes(seat)
        until = now_ns() + round(self.strike.lasting * SECOND)
        while now_ns() < until and seat.instance is not None:
            held = Held([seat.keeper, *seat.children])
            held.send(signal.SIGSTOP)
            time.sleep(JITTER[0])
            held.send(signal.SIGCONT)
            held.close()
            time.sleep(JITTER[1])


def _break_wires(self: Carried, seats: list[Seat]) -> None:
    wires = [one.wire for one in seats if one.wire is not None]
    name = self.blow.kind.name
    self.strikes(*seats)
    for wire in wires:
        wire.break_down(TROUBLES.get(name, name))
    self.lasts()
    for wire in wires:
        wire.heal()


def break_wire(self: Carried) -> None:
    free = self.seats_to_strike(lambda seat: seat not in self.world.cut_off)[0]
    self.world.cut_off.append(free)
    try:
        _break_wires(self, [free])
    finally:
        self.world.cut_off.remove(free)


def break_all_wires(self: Carried) -> None:
    if self.world.cut_off:
        raise NotThere("a network that is well")
    self.world.cut_off += self.world.seats
    try:
        _break_wires(self, self.world.seats)
    finally:
        self.world.cut_off.clear()


def freeze_server(self: Carried) -> None:
    assert isinstance(self.world.lease, KubernetesLease)
    server = Held([self.world.lease.cluster.server.pid])
    self.strikes()
    server.send(signal.SIGSTOP)
    self.lasts()
    server.send(signal.SIGCONT)
    server.close()


def kill_server(self: Carried) -> None:
    assert isinstance(self.world.lease, KubernetesLease)
    self.strikes()
    # Its life is that of the thread that starts it, and ours ends with the fault.
    self.world.lasting.submit(self.world.lease.cluster.restart_server).result()


def delete_lease(self: Carried) -> None:
    """Only where every instance has seen it: by the rules, one that never did creates it at once.

    So nobody is started until it is there again: one who knows nothing could not be told from the first of all.
    """
    world = self.world
    world.holds_starts += 1
    try:
        if not all(one.is_settled for one in world.seats):
            raise NotThere("instances that have all seen the lease")
        self.strikes()
        world.lease.delete()
        world.pause(20, lambda: bool(world.history.versions) and world.history.versions[-1].record is not None)
    finally:
        world.holds_starts -= 1


def _takes_effect(self: Carried) -> None:
    """What was written may be waited out: for twice a lease duration it counts as a trouble for all."""
    self.world.pause(2 * self.world.timing.lease_duration, lambda: self.world.holder in self.world.instances)


def steal_lease(self: Carried) -> None:
    self.strikes()
    self.world.lease.steal()
    _takes_effect(self)


def empty_lease(self: Carried) -> None:
    self.strikes()
    self.world.lease.empty()
    _takes_effect(self)


def edit_lease(self: Carried) -> None:
    how = EDITS[int(self.strike.dice * len(EDITS))]
    self.blow.remark = how
    self.strikes()
    self.world.lease.edit(how)
    _takes_effect(self)


def fill_disk(self: Carried) -> None:
    assert isinstance(self.world.lease, FileLease)
    until = now_ns() + round(self.strike.lasting * SECOND)
    with full(self.world.lease.disk) as fill:
        self.strikes()
        while now_ns() < until and not self.world.is_over:
            fill()
            time.sleep(0.01)


def put_folder_away(self: Carried) -> None:
    assert isinstance(self.world.lease, FileLease)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(self.world.lease.lock.outage())
        except AssertionError:
            raise NotThere("the folder") from None
        self.strikes()
        self.lasts()


def stop_in_write(self: Carried) -> None:
    assert isinstance(self.world.lease, FileLease)
    leader = self.world.leader
    seat = next((one for one in self.world.seats if one.name == leader), self.seat)
    elector = _alive(seat.elector)  # who follows does not write
    held = Held([elector])
    argv = [sys.executable, "-I", "-S", STOPPED_IN_WRITE, str(self.world.lease.path), str(elector), "3"]
    try:
        if subprocess.run(argv).returncode != 0:
            raise NotThere("a write")
        self.strikes(seat)
        self.lasts()
    finally:
        held.send(signal.SIGCONT)
        held.close()


def be_busy(self: Carried) -> None:
    """So many processes that only compute, and go before everybody else."""
    spin = "import os\nos.nice(-10)\nwhile True: pass"
    self.strikes()
    hogs = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", spin]) for _ in range(HOGS * (os.cpu_count() or 1) // 2)
    ]
    try:
        self.lasts()
    finally:
        for one in hogs:
            one.kill()
        for one in hogs:
            one.wait()


FAULTS: dict[str, Callable[[Carried], None]] = {
    "SIGTERM instance": tell_instance,
    "SIGTERM elector": tell_elector,
    "SIGTERM both": tell_both,
    "SIGTERM command": tell_command,
    "SIGKILL keeper": kill_keeper,
    "SIGKILL elector": kill_elector,
    "SIGKILL both": kill_both,
    "SIGSTOP keeper": stop_keeper,
    "SIGSTOP elector": stop_elector,
    "SIGSTOP both": stop_both,
    "SIGSTOP command": stop_command,
    "SIGKILL command": kill_command,
    "frozen whole": freeze_whole,
    "starved": starve,
    "blackhole": break_wire,
    "half-open": break_wire,
    "reset": break_wire,
    "lost replies": break_wire,
    "delay": break_wire,
    "slow drip": break_wire,
    "blackhole for all": break_all_wires,
    "server frozen": freeze_server,
    "server killed": kill_server,
    "lease deleted": delete_lease,
    "lease stolen": steal_lease,
    "lease edited": edit_lease,
    "lease emptied": empty_lease,
    "disk full": fill_disk,
    "folder away": put_folder_away,
    "stopped in mid-write": stop_in_write,
    "busy machine": be_busy,
}
