"""The list of metrics in the README, made from their definitions.

    python -m awaitelect.status.document            prints it
    python -m awaitelect.status.document --write    puts it into README.md, between its two marks

Not imported at run time.
"""

from __future__ import annotations

from awaitelect.readme import Block
from awaitelect.status.metrics import METRICS


def table() -> str:
    """All metrics as a Markdown table."""
    rows = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in ("name", *metric.labels))
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
    return "\n".join(rows)


BLOCK = Block("metrics", table())
"""Of the README."""


if __name__ == "__main__":
    BLOCK.main()
