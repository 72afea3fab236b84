"""The command that is tortured: it writes down that it is alive, as often as it can bear.

    command.py RECORDS SEED NAME COUNTER [hiding]

A line: nanoseconds of CLOCK_BOOTTIME, the instance's name, the run, the pid, the role, what, a detail. The time is
taken before the line is written, so whoever is found in the records was alive at that instant. The role is main, forked
(a daemon that forks twice and begins a session of its own) or hidden (one that was started by `env -i setsid`, so that
nothing of its environment, its session or its parents tells whose it is: only with `hiding`); what is start, beat,
signal or end.

How a run behaves follows from the seed, the instance's name, and how many runs it has had, which COUNTER's size tells.
It imports nothing of the project.
"""

import os
import random
import signal
import sys
import time

BEAT = 0.005
"""Seconds between two signs of life."""
STOPS = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
AWAITED = {*STOPS, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}


def main() -> None:
    path, seed, name, rest, *words = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    if seed == "hidden":
        Life(fd, name, rest, "hidden").go_on()
    at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    life = Life(fd, name, f"{name}-{os.getpid()}-{at}", "main")
    behaviour = Behaviour(random.Random(f"{seed}/{name}/{how_often(rest)}"))
    instance, token = os.environ.get("AWAITELECT_INSTANCE", "-"), os.environ.get("AWAITELECT_FENCING_TOKEN", "-")
    life.note("start", f"{instance},{token},{behaviour.kind}", at)
    fork_away(lambda: Life(fd, name, life.run, "forked").go_on())
    again = [sys.executable, "-I", "-S", sys.argv[0], path, "hidden", name, life.run]
    if "hiding" in words:
        fork_away(lambda: os.execvp("env", ["env", "-i", "setsid", *again]))
    life.lead(behaviour)


def how_often(counter: str) -> int:
    """Count this run."""
    fd = os.open(counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, b".")
    return os.fstat(fd).st_size


def fork_away(action) -> None:
    """Do it in a process that is nobody's child."""
    if os.fork() == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                action()
        finally:
            os._exit(0)
    os.wait()


class Behaviour:
    """What one run does."""

    def __init__(self, chance: random.Random) -> None:
        self.kind = chance.choices(
            ["obedient", "slow", "deaf", "crashing", "killed", "finishing"], [40, 20, 20, 10, 5, 5]
        )[0]
        self.lasting = {"crashing": chance.uniform(0.05, 8), "killed": chance.uniform(1, 8), "finishing": 12.0}.get(
            self.kind
        )
        self.status = 0 if self.kind == "finishing" else chance.randrange(1, 65)
        self.linger = chance.uniform(0.1, 1.5) if self.kind == "slow" else 0.0


class Life:
    """One process of a run."""

    def __init__(self, fd: int, name: str, run: str, role: str) -> None:
        self.fd, self.name, self.run, self.role = fd, name, run, role

    def note(self, what: str, detail: object = "-", at: int = 0) -> None:
        at = at or time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        os.write(self.fd, f"{at} {self.name} {self.run} {os.getpid()} {self.role} {what} {detail}\n".encode())

    def go_on(self) -> None:
        """Until it is killed."""
        while True:
            self.note("beat")
            signal.sigtimedwait(AWAITED, BEAT)

    def lead(self, behaviour: Behaviour) -> None:
        """Until it is told to stop, or has had enough."""
        end = time.monotonic() + behaviour.lasting if behaviour.lasting else None
        caught = 0
        while end is None or time.monotonic() < end:
            came = signal.sigtimedwait(AWAITED, BEAT)
            if came is None:
                self.note("beat")
                continue
            self.note("signal", came.si_signo)
            if came.si_signo in STOPS and behaviour.kind != "deaf" and not caught:
                caught = came.si_signo
                end = time.monotonic() + behaviour.linger
        if behaviour.kind == "killed" and not caught:
            os.kill(os.getpid(), signal.SIGKILL)
        self.note("end", behaviour.status)
        os._exit(behaviour.status)


main()
