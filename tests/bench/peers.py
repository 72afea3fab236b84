"""awaitelect beside tini and dumb-init, in one run, and what only it has: restarts, and a process that waits to start.

The runners take turns, so that a machine that is busy for a while is busy for all of them. "bare" is awaitelect without
a configuration: it has become the command, so that this is what no init at all costs.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.bench import instances
from tests.bench.figures import Row, spread
from tests.bench.instances import (
    PATIENCE,
    Fleet,
    Instance,
    children,
    command_line,
    cpu_time,
    descendants,
    eventually,
    now,
    proportional_memory,
)
from tests.bench.measures import Bench, Measure

EXITS = 30
SIGNALS = 300
RESTARTS = 200
MANY_RESTARTS = 1000
BATCHES, BATCH = 20, 500
INIT = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
_PYTHON = (sys.executable, "-I", "-S", "-c")
_ENDS = ("/bin/sh", "-c", "trap 'exit 0' TERM; echo first; read line; exit 0")
_ANSWERS = (
    *_PYTHON,
    "import os, signal\n"
    "caught = {signal.SIGUSR1}\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, caught)\n"
    "os.write(1, b'first')\n"
    "while True:\n"
    "    signal.sigwait(caught)\n"
    "    os.write(1, b'got it')\n",
)
_ORPHANS = (
    *_PYTHON,
    "import os, sys\n"
    "os.write(1, b'first')\n"
    "os.read(0, 1)\n"
    "for turn in range(int(sys.argv[1])):\n"
    "    end, hold = os.pipe()\n"
    "    parent = os.fork()\n"
    "    if parent == 0:\n"
    "        os.close(hold)\n"
    "        for _ in range(int(sys.argv[2])):\n"
    "            if os.fork() == 0:\n"
    "                os.read(end, 1)\n"
    "                os._exit(0)\n"
    "        os._exit(0)\n"
    "    os.waitpid(parent, 0)\n"
    "    os.close(end)\n"
    "    os.close(hold)\n"  # all of them end at once
    "os.write(1, b'last')\n"
    "os.read(0, 1)\n",
    str(BATCHES),
    str(BATCH),
)
_WRITTEN = 50_000_000
_LINES = (
    *_PYTHON,
    "import os, sys\n"
    "os.write(1, b'first')\n"
    "while os.read(0, 9) == b'\\n':\n"
    "    os.write(2, b'here\\n')\n"
    "line = b'x' * 99 + b'\\n'\n"
    "for _ in range(int(sys.argv[1]) // 4000):\n"
    "    os.write(2, line * 40)\n"
    "os.write(1, b'written')\n"
    "os.read(0, 1)\n",
    str(_WRITTEN),
)
_AGAIN = ("/bin/sh", "-c", "echo first; read line; echo last")
_AT_ONCE = ("/bin/sh", "-c", "echo first")
_ALWAYS = {
    "AWAITELECT_RESTART_POLICY": "always",
    "AWAITELECT_RESTART_BACKOFF_INITIAL": "0",
    "AWAITELECT_LOG_LEVEL": "error",
}
_UNREADY = (
    "from awaitelect.keeper.supervision import Supervision; Supervision.prepare = lambda self: None; "
    "from awaitelect.cli import main; main()"
)
"""awaitelect without a process that waits ready."""

Start = Callable[[Fleet, tuple[str, ...], tuple[str, ...]], Instance]


def _runners(bench: Bench, *, bare: bool) -> dict[str, Start]:
    """How each starts a command, behind a prefix, by name. Says which peers are absent."""
    found: dict[str, Start] = {}
    for name, argv in {"tini": ("tini", "-s", "--"), "dumb-init": ("dumb-init", "--")}.items():
        if shutil.which(name):
            found[name] = lambda fleet, prefix, command, argv=argv: fleet.run([*prefix, *argv, *command])  # type: ignore[misc]
        else:
            print(f"{name} is left out, as it is not installed … ", end="", file=sys.stderr, flush=True)
    if bare:
        found["bare"] = lambda fleet, prefix, command: fleet.run([*prefix, instances.PROGRAM, "--", *command])
    found["awaitelect"] = lambda fleet, prefix, command: _elect(bench, fleet, command, prefix)
    return found


def _elect(
    bench: Bench,
    fleet: Fleet,
    command: tuple[str, ...],
    prefix: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    program: tuple[str, ...] = (),
) -> Instance:
    """An instance that leads by a lease of its own."""
    argv = [*prefix, *(program or (instances.PROGRAM,)), "--lock", bench.lease("file").lock, "--", *command]
    return fleet.run(argv, environment or {})


def exits(bench: Bench) -> Iterator[Row]:
    """The end of the command → the end of its runner, as one poll(2) sees both; and SIGTERM → the runner's end."""
    runners = _runners(bench, bare=False)
    own: dict[str, list[float]] = {name: [] for name in runners}
    asked: dict[str, list[float]] = {name: [] for name in runners}
    whole: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(EXITS):
        for name, start in runners.items():
            for by_signal in (False, True):
                with Fleet() as fleet:
                    one = start(fleet, (), _ENDS)
                    command = one.sign("first").pid
                    fleet.rest(0.15)  # the elector imports on, and the next process gets ready
                    told_at, command_at, runner_at = _end(one, command, by_signal)
                    (asked if by_signal else own)[name].append(runner_at - command_at)
                    if by_signal:
                        whole[name].append(runner_at - told_at)
                    status = one.wait()
                    if status not in (0, 143):
                        raise AssertionError(f"{name} ended with {status}")
    for what, samples in (
        ("command ends by itself → its runner ends", own),
        ("command ends after SIGTERM → its runner ends", asked),
        ("SIGTERM to the runner → it ends", whole),
    ):
        yield from (Row("peers-exit", f"{what}: {name}", spread(one, "p50", "max")) for name, one in samples.items())


def _end(one: Instance, command: int, by_signal: bool) -> tuple[float, float, float]:
    """When it was told, when the command and when the runner was seen to end."""
    fds = {os.pidfd_open(command): command, os.pidfd_open(one.pid): one.pid}
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    told_at = now()
    if by_signal:
        one.terminate()
    else:
        one.say(b"\n")
    ended: dict[int, float] = {}
    while len(ended) < 2:
        ready = poll.poll(PATIENCE * 1000)
        at = now()
        assert ready, "nothing ends"
        for fd, _ in ready:
            ended[fds[fd]] = at
            poll.unregister(fd)
    for fd in fds:
        os.close(fd)
    return told_at, ended[command], ended[one.pid]


def signals(bench: Bench) -> Iterator[Row]:
    """SIGUSR1 to the runner → the command's sign, stamped by the kernel."""
    for prefix, role in (((), "a child"), (INIT, "PID 1")):
        runners = _runners(bench, bare=True)
        samples: dict[str, list[float]] = {name: [] for name in runners}
        with Fleet() as fleet:
            running = {}
            for name, start in runners.items():
                one = start(fleet, prefix, _ANSWERS)
                one.sign("first")
                running[name] = one, _init_of(one) if prefix else one.pid
            fleet.rest(1.0)
            for _ in range(SIGNALS):
                for name, (one, pid) in running.items():
                    fleet.rest(random.uniform(0.001, 0.003))
                    sent_at = now()
                    os.kill(pid, signal.SIGUSR1)
                    samples[name].append(one.sign("got it", sent_at).at - sent_at)
        for name, found in samples.items():
            what = f"SIGUSR1 to the runner, as {role} → the command's sign: {name}"
            yield Row("peers-signal", what, spread(found, "p50", "p99"), remark=f"{len(found)} times")


def _init_of(one: Instance) -> int:
    """PID 1 of the new namespace, as we number it."""
    return eventually(
        lambda: next((pid for pid in children(one.pid) if not command_line(pid).startswith(b"unshare\0")), 0), "an init"
    )


def orphans(bench: Bench) -> Iterator[Row]:
    """PID 1 of a namespace in which orphans end by the hundreds: the last ends → none is left."""
    for name, start in _runners(bench, bare=False).items():
        with Fleet() as fleet:
            one = start(fleet, INIT, _ORPHANS)
            command = one.sign("first").pid
            pid = _init_of(one)
            fleet.rest(1.0)
            own = children(pid)
            used = cpu_time(pid)
            one.say(b"\n")
            most = 0
            while not any("last" in sign.text for sign in one.signs.seen):
                fleet.rest(0.02)
                most = max(most, sum(map(_is_zombie, children(pid) - own)))
            last_at = one.sign("last").at
            eventually(lambda pid=pid, own=own: not children(pid) - own, "no orphan is left")  # type: ignore[misc]
            gone_at = now()
            used = cpu_time(pid) - used
            if not command_line(command):
                raise AssertionError("the command has ended")
        figures = {"left after the last": 1000 * (gone_at - last_at), "CPU": 1000 * used}
        remark = f"{most} zombies at most, {used / (BATCHES * BATCH) * 1e6:.0f} µs of CPU each"
        yield Row("peers-orphans", f"{BATCHES * BATCH} orphans, {BATCH} at once: {name}", figures, remark=remark)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def memory(bench: Bench) -> Iterator[Row]:
    """PSS of the process that signals and exits go through; of awaitelect, all three too."""
    for name, start in _runners(bench, bare=False).items():
        with Fleet() as fleet:
            one = start(fleet, (), _ENDS)
            command = one.sign("first").pid
            fleet.rest(3.0)
            figures = {"runner": proportional_memory(one.pid)}
            if name == "awaitelect":
                figures["all"] = sum(
                    proportional_memory(pid) for pid in (one.pid, *descendants(one.pid)) if pid != command
                )
        yield Row("peers-memory", f"memory (PSS): {name}", figures, "MB")


def restart(bench: Bench) -> Iterator[Row]:
    """The last sign of a command that ends → the first of its next run, without a pause, by the same shell."""
    python = str(Path(instances.PROGRAM).parent / "python")
    ways = {"a process waits ready": (), "none waits": (python, "-P", "-c", _UNREADY)}
    samples: dict[str, list[float]] = {way: [] for way in ways}
    alone = []
    with ExitStack() as stack:
        fleet = stack.enter_context(Fleet())
        running = {way: _elect(bench, fleet, _AGAIN, (), _ALWAYS, program) for way, program in ways.items()}
        since = dict.fromkeys(ways, 0.0)
        for _ in range(RESTARTS):
            for way, one in running.items():
                first = one.sign("first", since[way]).at
                fleet.rest(random.uniform(0.02, 0.03))
                one.say(b"\n")
                last = one.sign("last", first).at
                samples[way].append(one.sign("first", last).at - last)
                since[way] = last
            if len(alone) < RESTARTS // 4:
                shell = fleet.run(_AT_ONCE)
                alone.append(shell.sign("first").at - shell.executed_at)
                shell.wait()
                fleet.dismiss(shell)
    mean = statistics.median(alone) * 1000
    for way, found in samples.items():
        remark = f"{len(found)} times; of it the shell's own start {mean:.1f} ms"
        yield Row("peers-restart", f"last sign → first sign of the next run, {way}", spread(found), remark=remark)


def stderr(bench: Bench) -> Iterator[Row]:
    """What it costs that the command's standard error passes through the keeper, or does not."""
    for lines in (0, 20):
        message = bench.folder / f"message-{lines}"
        passing = {
            "AWAITELECT_TERMINATION_MESSAGE_PATH": str(message),
            "AWAITELECT_TERMINATION_MESSAGE_STDERR_LINES": str(lines),
        }
        # The shell stands for a container runtime: the other end of a pipe.
        piped = ("/bin/sh", "-c", '"$@" 2>&1 >&3 3>&- | cat >&2', "sh")
        with Fleet() as fleet:
            one = _elect(bench, fleet, _LINES, ("/bin/sh", "-c", 'exec 3>&1; exec "$@"', "sh", *piped), passing)
            delays = []
            one.sign("first")
            for _ in range(SIGNALS):
                fleet.rest(random.uniform(0.001, 0.003))
                said_at = now()
                one.say(b"\n")
                delays.append(one.line("here", said_at).at - said_at)
            keeper = eventually(lambda one=one: _keeper_of(one), "a keeper")  # type: ignore[misc]
            used, began = cpu_time(keeper), now()
            one.say(b"x\n")
            took = one.sign("written", began, 60).at - began
            figures = {
                "MB/s": _WRITTEN / 1e6 / took,
                "keeper's CPU, ms per MB": 1000 * (cpu_time(keeper) - used) / (_WRITTEN / 1e6),
                **{f"delay {name}, ms": value for name, value in spread(delays, "p50", "p99").items()},
            }
        way = "passes through the keeper" if lines else "is the command's own"
        yield Row("peers-stderr", f"standard error {way}", figures, "", remark=f"{_WRITTEN / 1e6:g} MB of lines")


def _keeper_of(one: Instance) -> int:
    """The one that has an elector."""
    for pid in (one.pid, *descendants(one.pid)):
        if any(b"awaitelect.elector" in command_line(child) for child in children(pid)):
            return pid
    return 0


def many_restarts(bench: Bench) -> Iterator[Row]:
    """The keeper's memory and open files before and after a thousand restarts."""
    with Fleet() as fleet:
        one = _elect(bench, fleet, _AT_ONCE, (), {**_ALWAYS, "AWAITELECT_RESTART_MAX_RESTARTS": "1000000"})
        figures = {}
        for when, wanted in (("before", 20), ("after", MANY_RESTARTS + 20)):
            began = now()
            fleet.until(lambda wanted=wanted: len(one.signs.seen) >= wanted, f"{wanted} runs", 120)  # type: ignore[misc]
            took = now() - began
            looks = [proportional_memory(one.pid) for _ in range(20) if fleet.rest(0.02) is None]
            figures[when] = statistics.median(looks)
        files = len(os.listdir(f"/proc/{one.pid}/fd"))
        remark = f"{took / MANY_RESTARTS * 1000:.1f} ms each, {files} open files at the end"
        yield Row(
            "peers-restarts", f"the keeper's memory (PSS), {MANY_RESTARTS} restarts", figures, "MB", remark=remark
        )


PEER_MEASURES: dict[str, Measure] = {
    "peers-exit": exits,
    "peers-signal": signals,
    "peers-orphans": orphans,
    "peers-memory": memory,
    "peers-restart": restart,
    "peers-stderr": stderr,
    "peers-many-restarts": many_restarts,
}
