"""The list of metrics in the README, made from their definitions.

    python -m awaitelect.status.document            prints it
    python -m awaitelect.status.document --write    puts it into README.md, between its two marks

Not imported at run time.
"""

from __future__ import annotations

import sys
from pathlib import Path

from awaitelect.status.metrics import METRICS

BEGIN, END = "<!-- metrics:begin -->", "<!-- metrics:end -->"


def table() -> str:
    """All metrics as a Markdown table."""
    rows = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in ("name", *metric.labels))
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
    return "\n".join(rows)


def block() -> str:
    """What stands between the two marks, the marks included."""
    return f"{BEGIN}\n\n{table()}\n\n{END}"


def block_in(text: str) -> str:
    """The block as it stands in `text`. Raises ValueError where a mark is missing."""
    start = text.index(BEGIN)
    return text[start : text.index(END, start) + len(END)]


def write(path: Path) -> None:
    """Put the list of today into the file. Raises OSError, and ValueError where a mark is missing."""
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(block_in(text), block()), encoding="utf-8")


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        write(Path("README.md"))
    else:
        sys.stdout.write(table() + "\n")
