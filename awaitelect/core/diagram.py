"""The diagram of the state machine, drawn from its table.

    python -m awaitelect.core.diagram            prints it
    python -m awaitelect.core.diagram --write    puts it into README.md, between its two marks

Not imported at run time. Rows that change nothing are left out: a diagram of what moves says more.
"""

from __future__ import annotations

from awaitelect.core.machine import FOLLOWER, TABLE, TERMINATED, State
from awaitelect.readme import Block


def diagram() -> str:
    """The state machine as a Mermaid stateDiagram-v2."""
    moves: dict[tuple[State, State], list[str]] = {}
    for event, source, destination, guard, _ in TABLE:
        if destination is not None:
            moves.setdefault((source, destination), []).append(f"{event} [{guard}]" if guard else event)
    lines = ["stateDiagram-v2", "    direction LR", f"    [*] --> {FOLLOWER}"]
    for (source, destination), events in moves.items():
        lines.append(f"    {source} --> {destination}: {'<br/>'.join(events)}")
    return "\n".join([*lines, f"    {TERMINATED} --> [*]"])


BLOCK = Block("diagram", f"```mermaid\n{diagram()}\n```")
"""Of the README."""


if __name__ == "__main__":
    BLOCK.main()
