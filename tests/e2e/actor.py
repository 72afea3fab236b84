"""The command of the end-to-end tests: it writes down what happens to it, with the time.

    actor.py RECORDS NAME [exit=STATUS] [after=SECONDS] [ignore=SIGTERM,…] [linger=SECONDS] [end=SIGKILL]
             [daemons=N [bare=1] [chain=SECONDS] [daemons_ignore=SIGTERM,…]]

A line: nanoseconds of the machine's CLOCK_BOOTTIME, the instance's name, the run, the pid, what, a detail. What is
start, beat, signal, daemon or end. `exit`, `end`: how it ends by itself `after` so many seconds. `linger`: how long it
takes to end after SIGTERM, SIGINT or SIGQUIT. `daemons`: so many processes that fork twice, begin a session of their
own and outlive it, unless somebody ends them; `bare`: with an empty environment; `chain`: each gives way to a successor
every so many seconds. It imports nothing of the project.
"""

import os
import signal
import sys
import time

BEAT = 0.01
"""Seconds between two signs of life."""
AWAITED = signal.valid_signals() - {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def main() -> None:
    path, name, *rest = sys.argv[1:]
    options = dict(word.split("=", 1) for word in rest)
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    actor = Actor(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), name)
    ignored = signals_of(options.get("ignore", ""))
    daemons_ignore = signals_of(options.get("daemons_ignore", options.get("ignore", "")))
    linger = float(options.get("linger", 0))
    chain = float(options.get("chain", 0))
    if "run" in options:  # a bare daemon begins anew here
        actor.run = options["run"]
        actor.be_daemon(daemons_ignore, linger, chain)
    token = os.environ.get("AWAITELECT_FENCING_TOKEN", "-")
    actor.note("start", f"{token},{os.getppid()}")
    for _ in range(int(options.get("daemons", 0))):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                if "bare" in options:
                    again = [sys.executable, "-I", "-S", *sys.argv, f"run={actor.run}"]
                    os.execve(sys.executable, again, {})
                actor.be_daemon(daemons_ignore, linger, chain)
            os._exit(0)
        os.wait()
    caught = actor.live(float(options["after"]) if "after" in options else None, ignored, linger)
    actor.note("end", caught)
    if "end" in options and not caught:
        number = getattr(signal, options["end"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(int(options.get("exit", 0)))


def signals_of(names: str) -> set[int]:
    return {getattr(signal, one) for one in names.split(",") if one}


def offset() -> int:
    """Nanoseconds that the clock of a time namespace is ahead of the machine's own."""
    try:
        with open("/proc/self/timens_offsets") as file:
            offsets = {line.split()[0]: line.split()[1:] for line in file}
    except FileNotFoundError:
        return 0
    seconds, nanoseconds = offsets["boottime"]
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


class Actor:
    def __init__(self, fd: int, name: str) -> None:
        self.fd, self.name = fd, name
        self.offset = offset()
        self.run = f"{name}-{os.getpid()}-{time.clock_gettime_ns(time.CLOCK_BOOTTIME)}"

    def note(self, what: str, detail: object) -> None:
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self.offset
        os.write(self.fd, f"{now} {self.name} {self.run} {os.getpid()} {what} {detail}\n".encode())

    def be_daemon(self, ignored: set[int], linger: float, chain: float) -> None:
        """Until a signal that stops; never returns."""
        self.note("daemon", "-")
        if not chain:
            self.live(None, ignored, linger)
            os._exit(0)
        while True:
            self.note("beat", "-")
            time.sleep(chain)
            if os.fork() != 0:
                os._exit(0)

    def live(self, lasting: float | None, ignored: set[int], linger: float) -> int:
        """Until a signal that stops, which is returned; 0 when the time is over."""
        now = time.monotonic()
        end = None if lasting is None else now + lasting
        caught = 0
        while end is None or time.monotonic() < end:
            came = signal.sigtimedwait(AWAITED - {signal.SIGCHLD}, BEAT)
            # Where a stop and a continuation outlast the time, Python 3.11 returns what was never filled in.
            if came is None or came.si_signo not in AWAITED:
                self.note("beat", "-")
                continue
            self.note("signal", came.si_signo)
            if came.si_signo in STOPS and came.si_signo not in ignored and not caught:
                caught = came.si_signo
                end = time.monotonic() + linger
        return caught


main()
