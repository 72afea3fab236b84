"""As the first process of a container, and as a child: exit statuses, moments, floods, surroundings.

What needs a namespace or another user says so where it is skipped: it needs root.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.e2e.instances import (
    LONG,
    PATIENCE,
    PROGRAM,
    Fleet,
    Watched,
    children_of,
    eventually,
    is_alive,
    kill,
    now,
    renews,
    state_of,
)
from tests.e2e.locks import FileLock, Lock
from tests.e2e.test_exits import open_files

NEVER = {"restart": {"policy": "never"}}
BEFORE = (
    "import os, signal, sys; signal.signal(signal.SIGUSR1, signal.SIG_IGN); "
    "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]); os.execvp(sys.argv[1], sys.argv[1:])"
)
"""Starts the rest of its command line with SIGUSR1 ignored and SIGUSR2 blocked."""
INIT = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
AT_ONCE = 2
"""Instances at the same time where a test starts hundreds: the processors that it may count on."""
DEADLY = [
    number
    for number in sorted(signal.valid_signals())
    if number
    not in {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
    | {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
]


def prefix_of(place: str) -> list[str]:
    """What starts awaitelect as a child or as PID 1 of a namespace; skips where that can't be had."""
    if place == "init" and subprocess.run([*INIT, "true"], capture_output=True).returncode:
        pytest.skip("no PID namespace is to be had here: it needs root")
    return INIT if place == "init" else []


def keeper_of(pid: int) -> int:
    """The keeper that was started with a prefix."""
    return eventually(lambda: Fleet.child_running(pid, PROGRAM), "the keeper runs", pace=0.0005)


# ---------------------------------------------------------------------- exit statuses


def statuses(folder: Path, endings: list[str]) -> list[int]:
    """The exit statuses of instances whose commands end so, each with an election over a file of its own."""
    # By variables: reading YAML costs a tenth of such an instance.
    environment = {**os.environ, "AWAITELECT_RESTART_POLICY": "never", "AWAITELECT_LOG_LEVEL": "error"}

    def run(number: int) -> int:
        lock = f"file:{folder}/lease-{number}"
        words = [PROGRAM, "--lock", lock, "--", "sh", "-c", f"ulimit -c 0; {endings[number]}"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        done = subprocess.run(words, env=environment, timeout=PATIENCE, check=False, **quiet)
        assert FileLock(folder).path.with_name(f"lease-{number}").is_dir(), "there was an election"
        return done.returncode

    with ThreadPoolExecutor(AT_ONCE) as several:
        return list(several.map(run, range(len(endings))))


def test_all_exit_codes_are_passed_on(tmp_path: Path) -> None:
    """P1: 0 to 255, each by an instance of its own that was elected, has run its command and has released the lease."""
    assert statuses(tmp_path, [f"exit {status}" for status in range(256)]) == list(range(256))


def test_each_signal_that_can_kill_is_told_as_a_shell_does(tmp_path: Path) -> None:
    """P1: 128 + n, the real-time ones too."""
    assert statuses(tmp_path, [f"kill -{number} $$" for number in DEADLY]) == [128 + number for number in DEADLY]


def test_a_parent_that_ignores_the_end_of_children_costs_no_status(fleet: Fleet, file_lock: Lock) -> None:
    """With SIGCHLD ignored the kernel keeps no exit status, and whether it is, is inherited."""
    ignoring = "signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])"
    prefix = [sys.executable, "-c", f"import os, signal, sys; {ignoring}"]
    one = fleet.start("one", file_lock, command=["sh", "-c", "exit 7"], settings=NEVER, prefix=prefix)
    assert one.ends() == 7


# ---------------------------------------------------------------------- signals


def test_a_burst_of_real_time_signals_arrives_in_order_and_in_number(fleet: Fleet, file_lock: Lock) -> None:
    """P5: the kernel queues them, so programs count on each."""
    one = fleet.start("one", file_lock, settings={"election": LONG})
    one.started()
    burst = [signal.SIGRTMIN + step % 3 for step in range(300)]
    kill(one.pid, signal.SIGSTOP)
    eventually(lambda: state_of(one.pid) == "T", "all of them are waiting when it goes on")
    for number in burst:
        one.tell(number)
    kill(one.pid, signal.SIGCONT)
    eventually(lambda: len(one.signals()) == len(burst), "all arrive")
    assert sorted(one.signals()) == sorted(burst)


def test_each_real_time_signal_is_forwarded(fleet: Fleet, file_lock: Lock) -> None:
    """P5: but for those that the C library keeps to itself."""
    one = fleet.start("one", file_lock)
    one.started()
    sent = list(range(signal.SIGRTMIN, signal.SIGRTMAX + 1))
    for count, number in enumerate(sent, 1):
        one.tell(number)
        eventually(lambda count=count: len(one.signals()) == count, f"signal {number} arrives")
    assert one.signals() == sent


def test_a_command_without_room_for_another_signal_is_no_end_of_ours(fleet: Fleet, file_lock: Lock) -> None:
    """The kernel queues no more real-time signals where as many are pending as may be (RLIMIT_SIGPENDING)."""
    one = fleet.start("one", file_lock, "exit=6", prefix=["prlimit", "--sigpending=30"])
    pid = one.started().pid
    kill(pid, signal.SIGSTOP)
    eventually(lambda: state_of(pid) == "T", "it is suspended")
    for count in range(100):
        one.tell(signal.SIGRTMIN + count % 20)
    renews(file_lock, 2)
    one.tell(signal.SIGTERM)
    assert one.ends() == 6


@pytest.mark.parametrize("place", ["child", "init"])
def test_no_stop_is_lost_in_a_flood_of_all_kinds(fleet: Fleet, file_lock: Lock, place: str) -> None:
    """P13: whatever overflows, the one that counts is among what is remembered."""
    one = fleet.start("one", file_lock, "exit=5", prefix=prefix_of(place))
    one.started()
    keeper = keeper_of(one.pid) if place == "init" else one.pid
    kinds = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGWINCH, signal.SIGRTMIN, signal.SIGALRM]
    for step in range(3000):
        kill(keeper, kinds[step % len(kinds)])
    kill(keeper, signal.SIGTERM)
    assert one.ends() == 5
    assert one.signals().count(signal.SIGTERM) == 1


def test_a_suspension_is_for_all_of_the_command(fleet: Fleet, file_lock: Lock) -> None:
    """P9: half of it asleep would be no suspension; whoever gets other signals (`signals.target`) does not matter."""
    command = ["sh", "-c", '"$@" & wait; wait', "sh", *fleet.actor("one")]
    one = fleet.start("one", file_lock, command=command, settings={"election": LONG})
    pid = one.started().pid
    shell = os.getpgid(pid)
    assert shell != pid
    for _ in range(2):
        one.tell(signal.SIGTSTP)
        eventually(lambda: state_of(pid) == state_of(shell) == "T", "both are suspended")
        renews(file_lock, 2)
        one.tell(signal.SIGCONT)
        eventually(lambda: "T" not in (state_of(pid), state_of(shell)), "both go on")


MALFORMED = [
    {"SIGFOO": "SIGTERM"},
    {"SIGHUP": "SIGFOO"},
    {"SIGKILL": "SIGTERM"},
    {"SIGSTOP": "none"},
    {"SIGCHLD": "SIGUSR1"},
    {"SIGHUP": 65},
    {0: "SIGTERM"},
    {"SIGHUP": "SIGUSR1", 1: "SIGUSR2"},
    {"SIGHUP": ["SIGUSR1"]},
    {"RTMIN+99": "SIGUSR1"},
    "SIGHUP:SIGUSR1",
    ["SIGHUP"],
]


@pytest.mark.parametrize("rewrite", MALFORMED, ids=str)
def test_a_malformed_rewrite_is_refused_before_anything_is_started(
    fleet: Fleet, file_lock: Lock, rewrite: object
) -> None:
    """P6: by the file, with its place; status 78."""
    one = fleet.start("one", file_lock, settings={"signals": {"target": "main"}})
    one.tell(signal.SIGKILL)
    one.ends()
    path = fleet.folder / "one.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "signals": {"rewrite": rewrite}}))
    done = subprocess.run(
        [PROGRAM, "-c", str(path), "--", "echo", "started"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (78, "")
    assert "signals.rewrite" in done.stderr and f"{path}:" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--lock"],
        ["--config"],
        ["--lokc", "file:x"],
        ["--lock=file:x", "--no-such"],
        ["-x"],
        ["--identity", "a"],
        ["--check=yes", "true"],
        ["--version=1"],
        ["-c"],
        [
            "--",
        ],
    ],
    ids=" ".join,
)
def test_a_malformed_command_line_is_refused_with_the_usage(words: list[str]) -> None:
    """P6: status 2 for what cannot be understood; what is understood and leaves something out is 78."""
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == (78 if words[0] == "--identity" else 2), done.stderr
    assert done.stdout == "" and done.stderr


# ---------------------------------------------------------------------- the moment of a stop


class Moment(NamedTuple):
    """What became of one SIGTERM."""

    after: float
    """Seconds from the exec."""
    was_ready: bool
    """The first instruction had been executed when it was sent."""
    used: float
    """Seconds of processor time that the program had had by then."""
    was_lost: bool


def try_moment(fleet: Fleet, lock: Lock, prefix: list[str], number: int, after: float) -> Moment:
    """Start an instance, stop it so many seconds after its exec, and see whether it has heard."""
    command = ["sh", "-c", "echo up; exec sleep 1000"]
    one = fleet.start(
        f"one{number}",
        lock,
        command=command,
        prefix=prefix,
        stdout=subprocess.PIPE,
        settings={"log": {"level": "error"}},
    )
    keeper = keeper_of(one.pid) if prefix else one.pid
    until = now() + after
    while now() < until:
        select.select([], [], [], max(0.0, min(0.001, until - now())))
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{keeper}/status").read_text().splitlines() if ":\t" in line
    )
    heeded = int(status["SigBlk"], 16) | int(status["SigCgt"], 16)
    used = int(Path(f"/proc/{keeper}/schedstat").read_text().split()[0]) / 1e9
    was_ready = bool(heeded & 1 << (signal.SIGTERM - 1))
    kill(keeper, signal.SIGTERM)
    assert one.process.stdout is not None
    with one.process.stdout as pipe:
        ended = os.pidfd_open(one.pid)
        ready, _, _ = select.select([ended, pipe], [], [], PATIENCE)
        if ended not in ready:  # it has started its command, and may be stopping it
            may_be_lost = prefix and not was_ready
            ready, _, _ = select.select([ended], [], [], 0.2 if may_be_lost else PATIENCE)
        os.close(ended)
    was_lost = not ready
    if was_lost:
        kill(keeper, signal.SIGTERM)
    one.ends()
    return Moment(after, was_ready, used, was_lost)


@pytest.mark.parametrize("place", ["child", "init"])
def test_a_stop_at_any_moment_is_heard(fleet: Fleet, file_lock: Lock, place: str) -> None:
    """P13: from our first instruction on. Before it the kernel ends a child, and drops the signal for a PID 1."""
    prefix = prefix_of(place)
    moments = [0.004 * step for step in range(40)] + [0.16 + 0.03 * step for step in range(9)]
    tried = [try_moment(fleet, file_lock, prefix, number, after) for number, after in enumerate(moments)]
    lost = [one for one in tried if one.was_lost]
    assert not [one for one in lost if one.was_ready]
    assert place == "init" or not lost
    deaf = min((one.used for one in tried if one.was_ready), default=max(one.used for one in tried))
    print(f"deaf for {deaf * 1000:.0f} ms of processor time")
    assert deaf < 0.080  # with all that is imported it would be more than a tenth of a second


STOPPED_AT = (
    "import os, signal, sys; module = sys.argv.pop(1)\n"
    "class Finder:\n"
    "    def find_spec(self, name, *_):\n"
    "        if name == module:\n"
    "            os.write(2, b'importing it\\n'); os.kill(os.getpid(), signal.SIGTERM)\n"
    "sys.meta_path.insert(0, Finder())\n"
    "from awaitelect.cli import main; main()\n"
)
"""Runs the program and has it stopped at the moment when it imports the module that its first argument names."""


@pytest.mark.parametrize("place", ["child", "init"])
@pytest.mark.parametrize("module", ["argparse", "awaitelect.keeper.launch", "awaitelect.keeper.loop", "_json"])
def test_a_stop_while_something_is_imported_is_heard(tmp_path: Path, place: str, module: str) -> None:
    """P13: the first instruction blocks all signals. Without that a child dies of it, and a PID 1 never hears it.

    A child that dies so leaves the elector behind that it has launched.
    """
    lock = f"file:{tmp_path}/lease"
    words = [sys.executable, "-c", STOPPED_AT, module, "--lock", lock, "--log-level", "debug", "--", "sleep", "1000"]
    with subprocess.Popen(
        [*prefix_of(place), *words], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as one:
        try:
            _, said = one.communicate(timeout=PATIENCE)
        finally:
            one.kill()
    assert "importing it" in said
    assert "SIGTERM: shutting down" in said
    assert one.returncode == 0


# ---------------------------------------------------------------------- what is left behind


def test_an_orphan_that_holds_the_output_does_not_delay_the_end(fleet: Fleet, file_lock: Lock) -> None:
    """P15: it is gone when we are, so that whoever reads the output to its end has it then."""
    script = "trap '' TERM HUP; setsid sleep 1000 & exit 4"
    settings = {**NEVER, "stop": {"timeout": "200ms"}}
    one = fleet.start("one", file_lock, command=["sh", "-c", script], settings=settings, stdout=subprocess.PIPE)
    assert one.process.stdout is not None
    with one.process.stdout as pipe:
        begun = now()
        assert pipe.read() == b""
        assert one.ends() == 4
        assert now() < begun + PATIENCE, "the orphan would have held it for 1,000 s"
    assert fleet.left_behind() == []


def test_output_that_nobody_reads_delays_no_renewal_and_no_stop(fleet: Fleet, file_lock: Lock) -> None:
    """P18: the command is stuck in its writing, and that is its own affair."""
    read, write = os.pipe()
    try:
        settings = {"election": LONG}
        one = fleet.start("one", file_lock, command=["yes"], stdout=write, stderr=write, settings=settings)
        command = eventually(lambda: Fleet.child_running(one.pid, "yes"), "the command runs")
        known = f"/proc/{command}/wchan"
        eventually(lambda: "pipe" in Path(known).read_text() or state_of(command) == "S", "it is stuck")
        renews(file_lock, 8)
        assert is_alive(command)
        told = now()
        one.tell(signal.SIGTERM)
        assert one.ends() == 128 + signal.SIGTERM
        assert now() < told + 9
    finally:
        os.close(read)
        os.close(write)
    record = file_lock.record()
    assert record is not None and record.holder == ""


def test_a_thousand_restarts_leave_nothing_behind(fleet: Fleet, file_lock: Lock) -> None:
    """P19: neither files nor zombies nor memory: what is lost with each run adds up in months."""
    settings = {
        "restart": {"policy": "always", "backoff": {"initial": "1ms", "factor": 1, "jitter": 0}},
        "log": {"level": "info"},
    }
    one = fleet.start("one", file_lock, command=["true"], settings=settings)

    def runs(count: int) -> float:
        eventually(lambda: one.stderr.count("starting it again") >= count, f"{count} restarts", 300, 0.1)
        return now()

    begun = runs(100)
    files, memory = open_files(one.pid), proportional(one.pid)
    took = runs(1100) - begun
    print(f"1,000 restarts in {took:.1f} s; {memory:.2f} MB before, {proportional(one.pid):.2f} MB after")
    assert open_files(one.pid) <= files + 8, "a run in flight has a few"
    assert proportional(one.pid) < memory + 0.5
    eventually(lambda: not any(state_of(pid) == "Z" for pid in children_of(one.pid)), "no zombie is left")
    assert len(children_of(one.pid)) <= 4
    one.tell(signal.SIGTERM)
    assert one.ends() in (0, 128 + signal.SIGTERM), "a run in flight may get it"


def proportional(pid: int) -> float:
    """The keeper's own memory in MB: what it shares with a shim that comes and goes would swing."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
    return sizes["Rss"] / 1024


# ---------------------------------------------------------------------- surroundings


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder for everybody; pytest's own are their owner's alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def test_another_user_than_root_can_run_it(open_folder: Path) -> None:
    """P17: nothing of the promise needs a privilege."""
    if os.geteuid():
        pytest.skip("to become another user needs root")
    # The interpreter of the tests may be in a folder of root's: nobody may read it, and may do nothing else.
    caps = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"]
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", *caps]
    lock = FileLock(open_folder)
    with Fleet(open_folder) as fleet:
        fleet.records.chmod(0o666)
        one = fleet.start("one", lock, "daemons=2", "exit=4", prefix=nobody)
        one.started()
        daemons = one.daemons(2)
        renews(lock, 2)
        one.tell(signal.SIGTERM)
        assert one.ends() == 4
        assert not any(is_alive(pid) for pid in daemons)
        record = lock.record()
        assert record is not None and record.holder == ""
        two = fleet.start("two", lock, prefix=nobody)
        command = Watched(two.started().pid)
        kill(two.pid)
        command.wait()


def test_a_root_that_cannot_be_written_is_enough(fleet: Fleet, file_lock: Lock) -> None:
    """P17: but for the lease's own folder, nothing is ever written."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace is to be had here: it needs root")
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && ! touch /not-here 2>/dev/null && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", script, str(fleet.folder)]
    one = fleet.start("one", file_lock, "exit=3", prefix=prefix, environment={"HOME": "/nonexistent"})
    one.started()
    renews(file_lock, 2)
    one.tell(signal.SIGTERM)
    assert one.ends() == 3
    assert "rror" not in one.stderr


def test_under_another_init_it_leaves_nothing_to_it(fleet: Fleet, file_lock: Lock) -> None:
    """P17: what the command has left behind is swept by us, not handed up to a process that does not expect it."""
    script = '"$@"; status=$?; set -- /proc/[0-9]*; echo $#; exit $status'
    one = fleet.start(
        "one",
        file_lock,
        "daemons=3",
        "exit=9",
        prefix=[*prefix_of("init"), "sh", "-c", script, "init"],
        stdout=subprocess.PIPE,
    )
    one.started()
    one.daemons(3)
    init = eventually(lambda: children_of(one.pid), "the namespace has an init")[0]
    kill(keeper_of(init), signal.SIGTERM)
    assert one.process.stdout is not None
    with one.process.stdout as pipe:
        assert int(pipe.read()) == 1, "the shell alone"
    assert one.ends() == 9


def test_children_that_were_there_before_us_are_left_alone(fleet: Fleet, file_lock: Lock) -> None:
    """P17: a wrapper that starts something and then executes us, in a PID namespace that others share."""
    marker = fleet.folder / "sibling"
    script = 'sleep 1000 & echo $! > "$0"; exec "$@"'
    one = fleet.start("one", file_lock, "after=0.3", "exit=1", prefix=["sh", "-c", script, str(marker)])
    one.started(2)
    sibling = int(marker.read_text())
    assert is_alive(sibling)
    one.tell(signal.SIGTERM)
    one.ends()
    assert is_alive(sibling)


def test_what_the_command_inherits_is_the_same_at_each_start(fleet: Fleet, file_lock: Lock) -> None:
    """P11: the first run and the fifth: no mask, no disposition and no descriptor of ours."""
    path = fleet.folder / "seen"
    script = (
        "import os, sys; kinds = ('SigPn', 'SigBl', 'SigIg', 'SigCg'); "
        "lines = [line for line in open('/proc/self/status') if line[:5] in kinds]; "
        "print(*lines, sorted(os.listdir('/proc/self/fd')), file=open(sys.argv[1], 'a'), sep=''); sys.exit(1)"
    )
    settings = {"restart": {"max_restarts": 4, "on_give_up": "exit", "backoff": {"initial": "1ms", "max": "1ms"}}}
    before = [sys.executable, "-c", BEFORE]
    one = fleet.start(
        "one",
        file_lock,
        command=[sys.executable, "-I", "-S", "-c", script, str(path)],
        prefix=before,
        settings=settings,
    )
    assert one.ends() == 1
    lines = path.read_text().splitlines()
    size = len(lines) // 5
    runs = [lines[at : at + size] for at in range(0, len(lines), size)]
    assert len(runs) == 5 and all(run == runs[0] for run in runs)
    assert f"SigBlk:\t{1 << (signal.SIGUSR2 - 1):016x}" in runs[0]
    hidden = (signal.SIGUSR1, signal.SIGPIPE, signal.SIGXFSZ)  # the last two by the command's own interpreter
    assert f"SigIgn:\t{sum(1 << (number - 1) for number in hidden):016x}" in runs[0]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/no/such/python", "/no/such/python: No such file"),
        ("/bin/false", "the elector exited with 1, 3 times in a row before it could begin: giving up"),
    ],
)
def test_three_electors_that_cannot_begin_are_enough(tmp_path: Path, program: str, said: str) -> None:
    """Nothing is held and nothing runs: whoever started us has to know, and not wait for ever."""
    started = tmp_path / "started"
    counted = tmp_path / "python"
    counted.write_text(f"#!/bin/sh\necho >> {started}\nexec {program}\n")
    counted.chmod(0o755)
    elector = counted if program == "/bin/false" else program
    begin = f"import sys; sys.executable = '{elector}'; from awaitelect.cli import main; main()"
    words = [sys.executable, "-c", begin, "--lock", f"file:{tmp_path}/unused", "--", "true"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    assert done.returncode == 70
    assert said in done.stderr
    assert not started.exists() or started.read_text() == "\n" * 3
