"""The job that a shell sees: it stops, goes on and ends in the keeper's place.

A shell shows its prompt again once its job is stopped (Ctrl-Z). A keeper that is stopped acknowledges no grant, and the
command would be ended for it. So where a shell may suspend us, the program divides in two: the keeper goes on as a
child, in a process group of its own and always awake, and the process that the shell knows stays behind, passes every
signal on, and mirrors the keeper's stops and its end.

Only what the interpreter has in it is imported: signals are blocked meanwhile.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
from typing import NoReturn

_CATCHABLE = _signal.valid_signals() - {_signal.SIGKILL, _signal.SIGSTOP}


def may_be_suspended() -> bool:
    """A shell above us may suspend us: our controlling terminal is on standard input, and the session is another's."""
    if os.getpid() in (1, os.getsid(0)):
        return False
    try:
        os.tcgetpgrp(0)
    except OSError:
        return False
    return True


def divide() -> int | None:
    """Go on as the child; the pid of the job, our parent from now on, or None where no shell may suspend us.

    Call it with all signals blocked. Where no process can be had there is no job either: then nobody can suspend us.
    """
    if not may_be_suspended():
        return None
    job = os.getpid()
    try:
        keeper = os.fork()
    except OSError:
        return None
    if keeper:
        _stand_for(keeper)
    os.setpgid(0, 0)
    return job


def _stand_for(keeper: int) -> NoReturn:
    """Pass on and mirror, until the keeper has ended; then end as it has."""
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # ignored, it would cost us the exit status
    while True:
        came = _signal.sigwaitinfo(_CATCHABLE)
        if came.si_signo == _signal.SIGCHLD:
            _look_after(keeper)
        elif came.si_pid != keeper:
            os.kill(keeper, came.si_signo)
        elif came.si_signo == _signal.SIGTSTP:
            _suspend()
            os.kill(keeper, _signal.SIGCONT)


def _look_after(keeper: int) -> None:
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return
        if pid != keeper:
            continue  # a child that we had before we began, by an exec
        if not os.WIFSTOPPED(status):
            _end(keeper, status)
        # Somebody has stopped the keeper; or it has become the command, without an election.
        _suspend()
        _move_terminal(os.getpgrp(), keeper)
        os.killpg(keeper, _signal.SIGCONT)


def _suspend() -> None:
    """Stop with all of our process group, as a program that handles Ctrl-Z does. Returns when we may go on.

    Where nobody is there to continue us, the kernel does not stop us.
    """
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_signal.SIGTSTP})
    os.kill(0, _signal.SIGTSTP)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGTSTP})
    while _signal.sigtimedwait({_signal.SIGCONT}, 0):
        pass  # whoever has called us passes it on


def _move_terminal(owner: int, heir: int) -> None:
    try:
        if os.tcgetpgrp(0) == owner:
            os.tcsetpgrp(0, heir)
    except OSError:
        pass  # it is gone


def _end(keeper: int, status: int) -> NoReturn:
    _move_terminal(keeper, os.getpgrp())
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if os.WCOREDUMP(status):
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != _signal.SIGKILL:
            _signal.signal(number, _signal.SIG_DFL)
        os.kill(os.getpid(), number)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {number})
    os._exit(os.waitstatus_to_exitcode(status) & 255)
