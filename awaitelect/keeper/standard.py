"""Standard input, output and error: open, before anything else gets one of their numbers.

A pipe or socket of ours that is number 2 would get log lines and the command's words; the elector and the command would
inherit it. Only what the interpreter has in it is imported: signals are blocked meanwhile.
"""

from __future__ import annotations

import os

_opened: list[int] = []


def open_closed() -> None:
    """Open /dev/null on each standard descriptor that is closed, for us and all that we start.

    Call it before anything else opens a descriptor. Raises OSError where there is no /dev/null.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if number else os.O_RDONLY)  # the lowest number that is free: this one
            os.set_inheritable(number, True)
            _opened.append(number)


def close_at_exec() -> None:
    """What we become finds closed what we have found closed; until then it stays open."""
    for number in _opened:
        os.set_inheritable(number, False)
