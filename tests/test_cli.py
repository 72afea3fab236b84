"""The command line, as it is typed: real processes, nothing stands in for anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from awaitelect import __version__
from tests.e2e.instances import PROGRAM

LEGACY = str(Path(PROGRAM).parent / "k8s-await-election")


def run(*arguments: str, program: str = PROGRAM, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it with nothing of an election in the environment but `variables`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWAITELECT_", "K8S_"))}
    return subprocess.run(
        [program, *arguments],
        env={**kept, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("program", [PROGRAM, LEGACY])
def test_without_a_configuration_the_command_takes_our_place(program: str) -> None:
    """The same process, so that nothing of us is in its way: as k8s-await-election does it."""
    with subprocess.Popen(
        [program, "sh", "-c", "echo $$; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        said, _ = process.communicate("of standard input", timeout=60)
    assert said == f"{process.pid}\nof standard input"


def test_the_command_that_takes_our_place_finds_its_signals_as_we_did() -> None:
    """P11: all are blocked for a moment, and the interpreter ignores two: the command sees none of that."""
    said = run("grep", "-E", "Sig(Blk|Ign)", "/proc/self/status").stdout
    with_nothing = subprocess.run(
        ["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"], capture_output=True, text=True, check=True
    )
    assert said == with_nothing.stdout


CLOSED = ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"]
DESCRIPTORS = """import os, pathlib, sys
paths = [f"/proc/self/fd/{number}" for number in (0, 1, 2)]
found = [os.readlink(one) if os.path.lexists(one) else "closed" for one in paths]
pathlib.Path(sys.argv[1]).write_text(chr(10).join(found))
sys.exit(6)"""


def run_closed(closed: str, seen: Path, *options: str, **variables: str) -> tuple[list[str], str, int]:
    """Run it with these standard descriptors closed: what its command found on each, all that was told, the status."""
    command = [sys.executable, "-c", DESCRIPTORS, str(seen)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWAITELECT_", "K8S_"))}
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", PROGRAM, *options, "--", *command],
        env={**kept, **variables},
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return seen.read_text().splitlines(), done.stdout + done.stderr, done.returncode


def numbers_in(closed: str) -> set[int]:
    return {{"<": 0, ">": 1, "2": 2}[one[0]] for one in closed.split()}


@pytest.mark.parametrize("closed", CLOSED)
def test_closed_standard_descriptors_are_dev_null_for_all_of_us(closed: str, tmp_path: Path) -> None:
    """P1: a pipe of ours that got the number 2 would be sent log lines, and could take them for signals."""
    lock = f"file:{tmp_path}/lease"
    found, said, status = run_closed(closed, tmp_path / "seen", "--lock", lock, AWAITELECT_RESTART_POLICY="never")
    assert (status, "Traceback" in said) == (6, False), said
    given = {number for number, one in enumerate(found) if one != "/dev/null"}
    assert given == {0, 1, 2} - numbers_in(closed) and "closed" not in found


@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize("variables", [{}, {"AWAITELECT_ELECTION_ENABLED": "false"}])
def test_the_command_that_takes_our_place_finds_closed_what_was_closed(
    closed: str, variables: dict[str, str], tmp_path: Path
) -> None:
    """Passing through changes nothing, whether or not a configuration had to be read to know."""
    found, said, status = run_closed(closed, tmp_path / "seen", **variables)
    assert status == 6, said
    assert {number for number, one in enumerate(found) if one == "closed"} == numbers_in(closed)


def test_what_is_wrong_is_not_told_on_standard_output() -> None:
    """A closed standard error leaves nowhere to tell it; whoever reads the command's output must not get it."""
    done = run("-c", 'exec "$@" 2>&-', "sh", PROGRAM, "no-such-program", program="sh")
    assert (done.returncode, done.stdout) == (127, "")


def test_the_command_that_takes_our_place_ends_as_it_ends() -> None:
    """P1: its status is not even passed on, it is ours."""
    assert run("sh", "-c", "exit 42").returncode == 42
    assert run("sh", "-c", "kill -9 $$").returncode == -signal.SIGKILL


def test_a_command_that_cannot_take_our_place_is_named(tmp_path: Path) -> None:
    """P2: 127 and 126, without an election too."""
    missing = run("no-such-program")
    assert missing.returncode == 127 and "'no-such-program'" in missing.stderr
    folder = run(str(tmp_path))
    assert folder.returncode == 126 and str(tmp_path) in folder.stderr


def test_nothing_to_run_is_bad_usage() -> None:
    """There is no command to take our place."""
    for arguments in ((), ("--",)):
        done = run(*arguments)
        assert done.returncode == 2 and "nothing to run" in done.stderr


def test_help_goes_to_standard_output_and_names_every_option() -> None:
    """Asked for, it is no error."""
    done = run("--help")
    assert done.returncode == 0 and done.stderr == ""
    for option in ("--config", "--lock", "--identity", "--log-level", "--log-format", "--check", "--version"):
        assert option in done.stdout


def test_the_version_is_the_package_s() -> None:
    assert run("--version").stdout == f"awaitelect {__version__}\n"


@pytest.mark.parametrize("option", ["--no-such-option", "--conf=x", "-x"])
def test_an_unknown_option_is_bad_usage_and_starts_nothing(option: str, tmp_path: Path) -> None:
    """Abbreviations neither: what is short for one option today could be for two tomorrow."""
    done = run(option, "touch", str(tmp_path / "started"))
    assert done.returncode == 2 and option.split("=")[0] in done.stderr
    assert not (tmp_path / "started").exists()


def test_an_option_without_its_value_is_bad_usage() -> None:
    done = run("--lock")
    assert done.returncode == 2 and "--lock" in done.stderr


def test_options_after_the_command_are_the_command_s() -> None:
    """`--` is not needed before a command that does not look like an option, and is taken away once."""
    assert run("echo", "--lock", "--", "x").stdout == "--lock -- x\n"
    assert run("--", "printf", "%s", "--help").stdout == "--help"


def test_a_bad_configuration_tells_all_that_is_wrong_and_starts_nothing(tmp_path: Path) -> None:
    """78 is EX_CONFIG: a supervisor need not try again. All at once, as nobody wants to run it once for each."""
    path = tmp_path / "broken.yaml"
    path.write_text(
        f"lock: {{backend: file, path: {tmp_path}/lease}}\n"
        "election: {lease_durration: 15s}\nstop: {timeout: soon}\n"
    )
    done = run("-c", str(path), "--", "touch", str(tmp_path / "started"))
    assert done.returncode == 78
    assert "lease_durration" in done.stderr and "stop.timeout" in done.stderr
    assert not (tmp_path / "started").exists() and not (tmp_path / "lease").exists()


def test_a_missing_configuration_file_is_a_bad_configuration(tmp_path: Path) -> None:
    done = run("-c", str(tmp_path / "nowhere.yaml"), "--", "true")
    assert done.returncode == 78 and "nowhere.yaml" in done.stderr


@pytest.mark.parametrize("lock", ["file", "file:", "kubernetes:", "redis:x", ""])
def test_a_lock_that_cannot_be_read_is_a_bad_configuration(lock: str) -> None:
    """It must never mean: no election."""
    done = run("--lock", lock, "--", "echo", "started")
    assert done.returncode == 78 and "started" not in done.stdout


def test_a_check_prints_the_configuration_and_starts_nothing(tmp_path: Path) -> None:
    """What would be done, before it is done."""
    done = run("--check", "--lock", f"file:{tmp_path}/lease", "--identity", "me", "--", "touch", str(tmp_path / "x"))
    assert done.returncode == 0, done.stderr
    assert "me" in done.stdout and f"{tmp_path}/lease" in done.stdout
    assert os.listdir(tmp_path) == []


def test_a_check_of_a_bad_configuration_fails_as_the_start_would(tmp_path: Path) -> None:
    done = run("--check", "--lock", f"file:{tmp_path}/lease", "--log-level", "loud", "--", "true")
    assert done.returncode == 78 and "loud" in done.stderr


def test_a_check_of_nothing_says_that_there_is_no_election() -> None:
    done = run("--check", "true")
    assert done.returncode == 0 and "without an election" in done.stdout


def test_a_variable_is_a_configuration_too(tmp_path: Path) -> None:
    """A command that was meant to run alone must not run unguarded because one line is missing."""
    done = run("echo", "started", AWAITELECT_ELECTION_LEASE_DURATION="15s")
    assert done.returncode == 78 and "started" not in done.stdout
    done = run(
        "sh", "-c", "echo $AWAITELECT_LOCK", AWAITELECT_LOCK_BACKEND="file", AWAITELECT_LOCK_PATH=f"{tmp_path}/l"
    )
    assert done.returncode == 0 and done.stdout == f"file:{tmp_path}/l\n"


@pytest.mark.parametrize(
    "variables",
    [
        {"AWAITELECT_LCK_BACKEND": "file", "AWAITELECT_LCK_PATH": "/x"},
        {"AWAITELECT_ELECTION": "file"},
        {"AWAITELECT_RESTART_POLICY": "never", "AWAITELECT_BOGUS": "1"},
        {"AWAITELECT_LOKC_NAME": ""},
    ],
)
@pytest.mark.parametrize("program", [PROGRAM, LEGACY])
def test_a_misspelt_variable_starts_nothing(program: str, variables: dict[str, str]) -> None:
    """It may have been the one that asks for the election: without, two commands would run at once, in silence."""
    done = run("echo", "started", program=program, **variables)
    assert (done.returncode, done.stdout) == (78, "")
    assert f"{[*variables][-1]}: unknown variable; expected" in done.stderr


def test_a_misspelt_variable_fails_the_check_too() -> None:
    done = run("--check", "true", AWAITELECT_LCK_PATH="/x")
    assert done.returncode == 78 and "did you mean 'AWAITELECT_LOCK_PATH'?" in done.stderr


@pytest.mark.parametrize(
    "name",
    [
        *("FENCING_TOKEN", "IDENTITY", "LOCK", "LEASE_TRANSITIONS", "INSTANCE", "HOOK", "STOP_CAUSE"),
        *("SERVICE_HOST", "SERVICE_PORT", "PORT_80_TCP_ADDR", "LOCK_SERVICE_HOST", "CONFIG_PORT"),
    ],
)
def test_what_others_set_is_no_configuration(name: str) -> None:
    """awaitelect under awaitelect, in a hook, or beside a Service of that name: it is not in the command's way."""
    script = "echo $$"
    with subprocess.Popen(
        [PROGRAM, "sh", "-c", script],
        env={**os.environ, f"AWAITELECT_{name}": "x"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.communicate(timeout=60) == (f"{process.pid}\n", "")


def test_awaitelect_runs_in_the_command_of_awaitelect(tmp_path: Path) -> None:
    """The inner one finds what the outer one gives to commands, and the outer one's own settings."""
    inner = [PROGRAM, "--lock", f"file:{tmp_path}/inner", "--", PROGRAM, "sh", "-c", "echo $AWAITELECT_LOCK; exit 6"]
    done = run("--lock", f"file:{tmp_path}/outer", "--", *inner, AWAITELECT_RESTART_POLICY="never")
    assert (done.returncode, done.stdout) == (6, f"file:{tmp_path}/inner\n"), done.stderr


def test_a_command_in_a_variable_is_run_without_an_election() -> None:
    """Nothing asks for one; what the variables say of the command's process holds, and the process is the same."""
    assert run(AWAITELECT_COMMAND="[echo, hi]").stdout == "hi\n"
    done = run("sh", "-c", "echo $GREETING $(umask)", AWAITELECT_ENV="{GREETING: hi}", AWAITELECT_UMASK="027")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hi 0027\n", "")


def test_settings_of_an_election_that_is_not_asked_for_are_a_warning() -> None:
    """Its restarts were perhaps counted upon."""
    done = run("echo", "hi", AWAITELECT_RESTART_POLICY="always")
    assert (done.returncode, done.stdout) == (0, "hi\n")
    assert "restart.policy (AWAITELECT_RESTART_POLICY): without effect" in done.stderr


ASKED = [("--help",), ("--version",), ("--check", "true"), ("--check", "--lock", "file:/x", "true")]


@pytest.mark.parametrize("arguments", ASKED)
@pytest.mark.parametrize("output", [">/dev/full", ">&-"])
def test_what_was_asked_for_and_cannot_be_written_is_an_error(arguments: tuple[str, ...], output: str) -> None:
    """A script that keeps the answer would keep an empty one."""
    done = run("-c", f'exec "$@" {output}', "sh", PROGRAM, *arguments, program="sh")
    assert done.returncode == 1
    assert done.stderr.startswith("awaitelect: cannot write to standard output: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", ASKED)
def test_a_reader_that_has_seen_enough_is_no_error_of_ours(arguments: tuple[str, ...]) -> None:
    """Silent, as every program that is ended by SIGPIPE."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([PROGRAM, *arguments], stdout=write, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_an_error_that_cannot_be_told_keeps_its_status() -> None:
    """A full disk under the log must not turn 78 into another status."""
    done = run("-c", 'exec "$@" 2>/dev/full', "sh", PROGRAM, "--check", "--lock", "redis:x", "true", program="sh")
    assert (done.returncode, done.stdout, done.stderr) == (78, "", "")


@pytest.mark.parametrize("option", ["--check", "--version", "--help"])
def test_a_value_for_an_option_without_one_is_named(option: str) -> None:
    done = run(f"{option}=yes", "echo", "started")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{option} takes no value: found 'yes'" in done.stderr


def test_with_the_election_disabled_the_command_takes_our_place(tmp_path: Path) -> None:
    """Passing through: the configuration's part for the command holds, and the process is the same."""
    path = tmp_path / "off.yaml"
    path.write_text("election: {enabled: false}\nenv: {GREETING: hello}\numask: '027'\nworking_dir: /\n")
    script = "echo $$ $GREETING $(umask) $PWD; grep -E 'Sig(Blk|Ign)' /proc/self/status"
    with subprocess.Popen(
        [PROGRAM, "-c", str(path), "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as one:
        said, _ = one.communicate(timeout=60)
    first, *signals = said.splitlines()
    assert first == f"{one.pid} hello 0027 /"
    plain = subprocess.run(
        ["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"], capture_output=True, text=True, check=True
    )
    assert signals == plain.stdout.splitlines()


def test_with_the_election_disabled_a_missing_command_is_127(tmp_path: Path) -> None:
    path = tmp_path / "off.yaml"
    path.write_text("election: {enabled: false}\n")
    done = run("-c", str(path), "--", "no-such-program")
    assert done.returncode == 127 and "'no-such-program'" in done.stderr


def test_under_the_old_name_the_first_argument_is_the_command() -> None:
    """Even if it looks like an option of ours."""
    for word in ("--help", "--version", "--", "-c"):
        done = run(word, program=LEGACY)
        assert done.returncode == 127 and repr(word) in done.stderr


def test_under_the_old_name_no_argument_is_status_1() -> None:
    """Checked before everything else, as there."""
    for variables in ({}, {"K8S_AWAIT_ELECTION_ENABLED": "1"}):
        done = run(program=LEGACY, **variables)
        assert done.returncode == 1 and "need at least one argument" in done.stderr.lower()


def test_under_the_old_name_any_value_enables() -> None:
    """`0` too: what is missing then is told, and nothing is started."""
    done = run("echo", "started", program=LEGACY, K8S_AWAIT_ELECTION_ENABLED="0")
    assert done.returncode != 0 and "K8S_AWAIT_ELECTION_NAME" in done.stderr and "started" not in done.stdout


def test_the_elector_is_not_for_people() -> None:
    done = run("-m", "awaitelect.elector", program=sys.executable)
    assert done.returncode == 1 and "not by hand" in done.stderr


def test_as_a_module_it_is_the_same_program() -> None:
    assert run("-m", "awaitelect", "--version", program=sys.executable).stdout == f"awaitelect {__version__}\n"
