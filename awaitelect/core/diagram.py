"""The diagram of the state machine, drawn from its table.

    python -m awaitelect.core.diagram            prints it
    python -m awaitelect.core.diagram --write    puts it into README.md, between its two marks

Not imported at run time. Rows that change nothing are left out: a diagram of what moves says more.
"""

from __future__ import annotations

import sys
from pathlib import Path

from awaitelect.core.machine import FOLLOWER, TABLE, TERMINATED, State

BEGIN, END = "<!-- diagram:begin -->", "<!-- diagram:end -->"


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


def block() -> str:
    """What stands between the two marks, the marks included."""
    return f"{BEGIN}\n\n```mermaid\n{diagram()}\n```\n\n{END}"


def block_in(text: str) -> str:
    """The block as it stands in `text`. Raises ValueError where a mark is missing."""
    start = text.index(BEGIN)
    return text[start : text.index(END, start) + len(END)]


def write(path: Path) -> None:
    """Put the diagram of today into the file. Raises OSError, and ValueError where a mark is missing."""
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(block_in(text), block()), encoding="utf-8")


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        write(Path("README.md"))
    else:
        sys.stdout.write(diagram() + "\n")
