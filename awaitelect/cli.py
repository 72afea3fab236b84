"""The command line: what was typed → become the command, or the keeper.

The first instruction of `main` blocks all signals, so that none is lost while the rest is imported; until then the
kernel has its way with them.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself costs 5 ms of deafness
import io
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import argparse

_EXPORTED = {
    "AWAITELECT_FENCING_TOKEN",
    "AWAITELECT_IDENTITY",
    "AWAITELECT_INSTANCE",
    "AWAITELECT_LEASE_TRANSITIONS",
    "AWAITELECT_LOCK",
}
"""Given to commands, so no sign of a configuration: awaitelect may run under awaitelect."""
_WITH_VALUE = {"-c", "--config", "--lock", "--identity", "--log-level", "--log-format"}


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
    if not is_configured(options, os.environ):
        if check:
            print("nothing is configured: the command would be executed at once, without an election")
            sys.exit(0)
        _become(command, mask)
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


def is_configured(options: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    """Anything asks for an election. Without that, awaitelect is not in the way of the command.

    A variable that speaks of the election or of its lock counts: a command that was meant to run alone must not run
    unguarded because one line of the configuration is missing.
    """
    if options.keys() & {"config", "lock", "identity"} or environ.get("K8S_AWAIT_ELECTION_ENABLED"):
        return True
    prefixes = ("AWAITELECT_ELECTION_", "AWAITELECT_LOCK_", "AWAITELECT_CONFIG")
    return any(name.startswith(prefixes) and value and name not in _EXPORTED for name, value in environ.items())


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
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)  # a reader that has seen enough, as head(1), is no error
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # whatever letters the reader's terminal has
    from awaitelect.config import check, sources
    from awaitelect.errors import EXIT_CONFIG, ConfigError

    try:
        print(check.render(sources.load(options, command, os.environ)))
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
    options = {name: value for name, value in vars(parser.parse_args(typed)).items() if value is not None}
    return options, command


def _parser() -> argparse.ArgumentParser:
    import argparse

    from awaitelect import __version__

    parser = argparse.ArgumentParser(
        prog="awaitelect",
        usage="awaitelect [options] [--] COMMAND [ARG...]",
        description="Start a command only while this instance is the elected leader: of all instances that share a "
        "lease, exactly one runs its command; when it stops or dies, the next starts.",
        epilog="Without any configuration (no option, no file, no AWAITELECT_ELECTION_*, AWAITELECT_LOCK_* or "
        "K8S_AWAIT_ELECTION_ENABLED in the environment) the command is executed at once, without an election. "
        "Exit status: the command's (128+n for signal n), 127 not found, 126 not executable, 75 leadership lost with "
        "election.on_lost: exit, 78 bad configuration, 2 bad usage.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-c", "--config", metavar="FILE", help="configuration in YAML")
    add("--lock", metavar="LOCK", help="the lease to share: kubernetes:NAMESPACE/NAME, or file:PATH on one machine")
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


def _fail(text: str, status: int) -> NoReturn:
    if sys.stderr:  # closed, it is None, which print() takes for standard output
        print(text, file=sys.stderr)
    sys.exit(status)
