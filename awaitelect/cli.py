"""The command line: what was typed → become the command, or the keeper.

The first instruction of `main` blocks all signals, so that none is lost while the rest is imported; until then the
kernel has its way with them.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself costs 5 ms of deafness
import errno
import io
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import argparse

_WITH_VALUE = {"-c", "--config", "--lock", "--identity", "--log-level", "--log-format"}
_WITHOUT_VALUE = ("-h", "--help", "--version", "--check")


def main() -> NoReturn:
    """`awaitelect [options] [--] COMMAND [ARG…]`."""
    mask = _block_signals()
    options, command = _parse(sys.argv[1:])
    _run(options, command, mask)


def main_legacy() -> NoReturn:
    """`k8s-await-election COMMAND [ARG…]`: the same program under its old name; the first argument is the command."""
    mask = _block_signals()
    if len(sys.argv) < 2:
        _fail("k8s-await-election: need at least one argument to run", 1)
    _run({"legacy": "1"}, sys.argv[1:], mask)


def _block_signals() -> set[int]:
    return set(_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals()))


def _run(options: dict[str, str], command: list[str], mask: set[int]) -> NoReturn:
    check = options.pop("check", None)
    if not asks_for_election(options, os.environ):
        if not is_configured(os.environ):
            if check:
                _say("nothing is configured: the command would be executed at once, without an election\n")
                sys.exit(0)
            _become(command, mask)
        options["alone"] = "1"
    from awaitelect.keeper import standard

    try:
        standard.open_closed()
    except OSError as error:
        _fail(f"awaitelect: cannot open {os.devnull} in place of a closed standard descriptor: {error}", 1)
    if check:
        _check(options, command, mask)
    job = None
    if os.isatty(0):
        from awaitelect.keeper.job import divide

        job = divide()
    from awaitelect.keeper.launch import launch

    try:
        launched = launch()  # it takes the longest to be ready, so it goes first
    except OSError:
        launched = None  # the keeper tries again, and says why
    from awaitelect.keeper.loop import Keeper

    os._exit(Keeper(options, command, mask, job).run(launched))


def asks_for_election(options: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    """An option, a file or a variable asks for an election.

    A variable that speaks of the election or of its lease counts: a command that was meant to run alone must not run
    unguarded because one line of the configuration is missing.
    """
    if options.keys() & {"config", "lock", "identity"} or environ.get("K8S_AWAIT_ELECTION_ENABLED"):
        return True
    return any(
        environ[name] and (name == "AWAITELECT_CONFIG" or name.startswith(("AWAITELECT_ELECTION_", "AWAITELECT_LOCK_")))
        for name in _configuring(environ)
    )


def is_configured(environ: Mapping[str, str]) -> bool:
    """A variable is a setting, or meant to be one: its misspelt name may have been to ask for the election."""
    names = _configuring(environ)
    if not names or any(environ[name] for name in names):
        return bool(names)
    from awaitelect.config.model import VARIABLES

    return any(name not in VARIABLES for name in names)  # an empty setting counts as not set


def _configuring(environ: Mapping[str, str]) -> list[str]:
    """As in variables.py, for which a command that is executed at once does not wait where there is none."""
    if not any(name.startswith("AWAITELECT_") for name in environ):
        return []
    from awaitelect.config import variables

    return variables.configuring(environ)


def _become(command: list[str], mask: set[int]) -> NoReturn:
    """Replace ourselves by the command, with everything as we found it."""
    if not command:
        _fail("awaitelect: nothing to run: give a command, or --help", 2)
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):  # ignored by the interpreter at its start
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    try:
        os.execvp(command[0], command)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        _fail(f"awaitelect: cannot execute {command[0]!r}: {error}", 127 if missing else 126)


def _check(options: dict[str, str], command: list[str], mask: set[int]) -> NoReturn:
    """Print what the configuration comes to, or all that is wrong with it."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    from awaitelect.config import check, sources
    from awaitelect.errors import EXIT_CONFIG, ConfigError

    try:
        _say(check.render(sources.load(options, command, os.environ)) + "\n")
    except ConfigError as error:
        _fail("\n".join(f"awaitelect: {problem}" for problem in error.problems), EXIT_CONFIG)
    sys.exit(0)


def _parse(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options and command. The command begins at the first word that is no option, or after `--`."""
    end = 0
    while end < len(argv) and argv[end].startswith("-") and argv[end] != "--":
        end += 2 if argv[end] in _WITH_VALUE else 1
    typed, command = argv[:end], argv[end:]
    if command and command[0] == "--":
        command = command[1:]
    if not typed:
        return {}, command
    parser = _parser()
    stdout, stderr, said = sys.stdout, sys.stderr, io.StringIO()
    sys.stdout, sys.stderr = said, stderr or io.StringIO()
    try:
        for word in typed:
            option, equals, value = word.partition("=")
            if equals and option in _WITHOUT_VALUE:
                parser.error(f"{option} takes no value: found {value!r}, expected {option} alone")
        parsed = vars(parser.parse_args(typed))
    finally:
        sys.stdout, sys.stderr = stdout, stderr
        if said.getvalue():
            _say(said.getvalue())
    return {name: value for name, value in parsed.items() if value is not None}, command


def _parser() -> argparse.ArgumentParser:
    import argparse

    from awaitelect import __version__

    parser = argparse.ArgumentParser(
        prog="awaitelect",
        usage="awaitelect [options] [--] COMMAND [ARG...]",
        description="Start a command only while this instance is the elected leader: of all instances that share a "
        "lease, exactly one runs its command; when it stops or dies, the next starts.",
        epilog="Without --config, --lock or --identity, or AWAITELECT_CONFIG, AWAITELECT_ELECTION_*, "
        "AWAITELECT_LOCK_* or K8S_AWAIT_ELECTION_ENABLED in the environment, there is no election: the command is "
        "executed at once, with what other AWAITELECT_* say of its process. "
        "Exit status: the command's (128+n for signal n), 127 not found, 126 not executable, 75 leadership lost with "
        "election.on_lost: exit, 78 bad configuration (an unknown AWAITELECT_* too), 2 bad usage.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-c", "--config", metavar="FILE", help="configuration in YAML (or AWAITELECT_CONFIG)")
    add("--lock", metavar="LOCK", help="the lease: kubernetes:[NAMESPACE/]NAME, or file:PATH on one machine")
    add(
        "--identity",
        metavar="NAME",
        help="our name in the lease (default: POD_NAME or host name; for a file + -RUN)",
    )
    add("--log-level", metavar="LEVEL", help="debug, info, warning or error (default: info)")
    add("--log-format", metavar="FORMAT", help="auto, text, json or logfmt (default: auto)")
    add("--check", action="store_const", const="1", help="print the resolved configuration and its timeline, and exit")
    add("--version", action="version", version=f"awaitelect {__version__}")
    return parser


def _say(text: str) -> None:
    """Write to standard output what was asked for; where that fails, say so and end with 1."""
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "it is closed")
        # Not by print(): what its buffer still holds would fail once more, in the interpreter's own end.
        left = text.encode(sys.stdout.encoding or "utf-8", "backslashreplace")
        while left:
            left = left[os.write(1, left) :]
    except BrokenPipeError:  # a reader that has seen enough, as head(1)
        _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_signal.SIGPIPE})
        os.kill(os.getpid(), _signal.SIGPIPE)
    except OSError as error:
        _fail(f"awaitelect: cannot write to standard output: {error.strerror}", 1)


def _fail(text: str, status: int) -> NoReturn:
    if sys.stderr:  # else it is closed, and its number may be another file's
        try:
            os.write(2, text.encode(sys.stderr.encoding or "utf-8", "backslashreplace") + b"\n")
        except OSError:
            pass  # the status tells it, too
    sys.exit(status)
