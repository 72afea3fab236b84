"""The elector's start: signals, the keeper's greeting, the configuration; then the settings go to the keeper.

What is slow to import comes after that (assembly.py).
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from awaitelect.config.sources import Loaded, load
from awaitelect.elector.channel import Channel
from awaitelect.errors import EXIT_CONFIG, EXIT_INTERNAL, ConfigError
from awaitelect.logs import Log
from awaitelect.protocol import ELECTOR_SOCKET, Failed, Hello, Settings

FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGSYS, signal.SIGTRAP}
"""Whoever catches a fault of its own has it again at once, for ever."""
REASON = 4096
"""Characters of a failure that are told at most: as much as a termination message can hold."""


def main() -> NoReturn:
    """Run as the keeper's child, with the socket to it as descriptor 3."""
    _shield()
    try:
        channel = Channel(ELECTOR_SOCKET)
        hello = channel.greeting()
    except (EOFError, OSError):
        sys.exit("awaitelect.elector is started by awaitelect, not by hand")
    options = hello.options
    log = Log(level=options.get("log_level", "info"), form=options.get("log_format", "auto"))
    try:
        # A command that runs must not end because its directory, say, has gone: its next start shows that.
        loaded = load(options, hello.command, os.environ, instance=hello.instance, tries=hello.number == 0)
        log.configure(loaded.settings.log.level, loaded.settings.log.format, name=loaded.name)
        if hello.number == 0:
            for warning in loaded.warnings:
                log.warning(warning)
        status = _take_part(loaded, hello, channel, log)
    except ConfigError as error:
        for problem in error.problems:
            log.error(problem)
        channel.send(Failed(f"configuration: {'; '.join(error.problems)}"[:REASON]))
        status = EXIT_CONFIG
    except Exception as error:
        log.error(f"the elector has failed: {type(error).__name__}: {error}")
        channel.send(Failed(f"the elector has failed: {type(error).__name__}: {error}"[:REASON]))
        status = EXIT_INTERNAL
    os._exit(status)  # a name look-up that hangs in a thread must not hold us up


def _shield() -> None:
    """We end when the keeper says so, whoever signals the whole group or cgroup: it tells us, in good time.

    Caught and not ignored, so that programs that we start for credentials get the defaults.
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD} - FAULTS:
        try:
            quiet = number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE, signal.SIGXFSZ)
            signal.signal(number, signal.SIG_IGN if quiet else lambda number, frame: None)
        except OSError:
            pass
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _take_part(loaded: Loaded, hello: Hello, channel: Channel, log: Log) -> int:
    try:
        channel.send(Settings(loaded.command_settings()))  # first: the keeper gets ready meanwhile
    except ValueError as error:
        raise ConfigError([f"command, env and env_file are too large together: {error}"]) from error
    if not loaded.settings.election.enabled:
        return 0
    # Imported only now: meanwhile the keeper has a process ready.
    import asyncio

    from awaitelect.elector.assembly import elect

    async def part() -> int:
        # From in here: what is torn down first would complain, and take its time.
        os._exit(await elect(loaded, hello, channel, log))

    return asyncio.run(part())
