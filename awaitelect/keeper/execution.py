"""The last steps of a forked child on its way to a program: the command, a hook, or a question of a probe."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

from awaitelect import clock
from awaitelect.attributes import Attributes, NotApplied, apply, give_pipes
from awaitelect.cgroup import Cgroup
from awaitelect.errors import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND
from awaitelect.keeper import signals, tree
from awaitelect.values import Value


class NotExecuted(Value):
    """Why a program was not executed."""

    reason: str
    status: int | None = None
    """The exit status that it is worth; None: it came too late, and nothing is wrong with the program."""


def enter(cgroup: Cgroup | None) -> None:
    """Move ourselves into the cgroup, if there is one and it lets us: else session and mark have to do."""
    try:
        if cgroup:
            cgroup.enter()
    except OSError:
        pass


def execute(
    argv: Sequence[str],
    environment: Mapping[str, str],
    attributes: Attributes,
    caught: signals.Signals,
    keeper: int,
    start_by: float = math.inf,
) -> NotExecuted:
    """Take the attributes on and become the program. Returns only if that has failed.

    `caught` knows which dispositions and mask it is to find, `keeper` is the pid of our parent, which it does not
    outlive. It is not executed from `start_by` on, an instant in seconds.
    """
    give_pipes(attributes)
    try:
        apply(attributes)
        tree.die_with_parent()  # only now: a change of user undoes it
        if os.getppid() != keeper:
            return NotExecuted("the keeper has died")
        signals.set_for_command(caught.ignored, caught.original_mask)
        if clock.now() >= start_by:
            return NotExecuted("the time in which it may be started is over")
        os.execvpe(argv[0], list(argv), dict(environment))
    except (NotApplied, OSError, ValueError, MemoryError) as error:
        return not_executed(argv[0], error)


def not_executed(argv0: str, error: NotApplied | OSError | ValueError | MemoryError) -> NotExecuted:
    """What became of the attempt to execute this program, by the error that ended it."""
    what, cause = f"cannot execute {argv0!r}", error
    if isinstance(error, NotApplied):
        what, cause = f"cannot {error.what}", error.error
    if isinstance(cause, OSError):
        is_missing = isinstance(cause, (FileNotFoundError, NotADirectoryError))
        reason = f"{cause.strerror} (errno {cause.errno})"
        return NotExecuted(f"{what}: {reason}", EXIT_NOT_FOUND if is_missing else EXIT_NOT_EXECUTABLE)
    reason = "its limits leave too little memory" if isinstance(cause, MemoryError) else str(cause)
    return NotExecuted(f"{what}: {reason}", EXIT_NOT_EXECUTABLE)
