"""The command of the end-to-end tests: it writes down what happens to it, with the time.

    actor.py RECORDS NAME [exit=STATUS] [after=SECONDS] [ignore=SIGTERM,…] [linger=SECONDS] [daemons=N] [end=SIGKILL]

A line: nanoseconds of CLOCK_BOOTTIME, the instance's name, the run, the pid, what, a detail. What is start, beat,
signal, daemon or end. `exit`, `end`: how it ends by itself `after` so many seconds. `linger`: how long it takes to end
after SIGTERM, SIGINT or SIGQUIT. `daemons`: so many processes that fork twice, begin a session of their own and outlive
it, unless somebody ends them. It imports nothing of the project.
"""

import os
import signal
import sys
import time

BEAT = 0.01
"""Seconds between two signs of life."""
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def main() -> None:
    path, name, *rest = sys.argv[1:]
    options = dict(word.split("=", 1) for word in rest)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    actor = Actor(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), name)
    token = os.environ.get("AWAITELECT_FENCING_TOKEN", "-")
    actor.note("start", f"{token},{os.getppid()}")
    ignored = {getattr(signal, one) for one in options.get("ignore", "").split(",") if one}
    linger = float(options.get("linger", 0))
    for _ in range(int(options.get("daemons", 0))):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                actor.note("daemon", "-")
                actor.live(None, ignored, linger)
            os._exit(0)
        os.wait()
    caught = actor.live(float(options["after"]) if "after" in options else None, ignored, linger)
    actor.note("end", caught)
    if "end" in options and not caught:
        number = getattr(signal, options["end"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(int(options.get("exit", 0)))


class Actor:
    def __init__(self, fd: int, name: str) -> None:
        self.fd, self.name = fd, name
        self.run = f"{name}-{os.getpid()}-{time.clock_gettime_ns(time.CLOCK_BOOTTIME)}"

    def note(self, what: str, detail: object) -> None:
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        os.write(self.fd, f"{now} {self.name} {self.run} {os.getpid()} {what} {detail}\n".encode())

    def live(self, lasting: float | None, ignored: set[int], linger: float) -> int:
        """Until a signal that stops, which is returned; 0 when the time is over."""
        now = time.monotonic()
        end = None if lasting is None else now + lasting
        caught = 0
        while end is None or time.monotonic() < end:
            came = signal.sigtimedwait(signal.valid_signals() - {signal.SIGCHLD}, BEAT)
            if came is None:
                self.note("beat", "-")
                continue
            self.note("signal", came.si_signo)
            if came.si_signo in STOPS and came.si_signo not in ignored and not caught:
                caught = came.si_signo
                end = time.monotonic() + linger
        return caught


main()
