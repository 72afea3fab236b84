"""Rows of the table, and the limits that the design sets."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One line of the table: what was measured, the figures by their names, what is allowed."""

    measure: str
    what: str
    figures: dict[str, float]
    unit: str = "ms"
    allowed: dict[str, float] = {}
    """The most that a figure of this name may be."""
    remark: str = ""

    @property
    def exceeded(self) -> list[str]:
        """The names of the figures that are above their limit."""
        return [name for name, most in self.allowed.items() if self.figures.get(name, most) > most]

    def cells(self) -> tuple[str, str, str]:
        """What, figure, allowed: as text."""
        shown = [
            f"{name} {_number(value)}{' (!)' if name in self.exceeded else ''}" for name, value in self.figures.items()
        ]
        figure = " / ".join(shown) + f" {self.unit}" + (f"; {self.remark}" if self.remark else "")
        limits = " / ".join(f"{name} {_number(value)}" for name, value in self.allowed.items())
        return self.what, figure, f"{limits} {self.unit}" if limits else ""

    def plain(self) -> dict[str, Any]:
        """The row for JSON."""
        return {**self._asdict(), "exceeded": self.exceeded}


def spread(samples: Sequence[float], *names: str) -> dict[str, float]:
    """Of samples in seconds, in milliseconds: those of p50, p99, max that are named, all three by default."""
    ordered = sorted(one * 1000 for one in samples)
    found = {
        "p50": statistics.median(ordered),
        "p99": statistics.quantiles(ordered, n=100, method="inclusive")[98],
        "max": ordered[-1],
    }
    return {name: found[name] for name in names or found}


def table(rows: Iterable[Row]) -> str:
    """All rows under a heading, in columns."""
    lines = [("what", "figure", "allowed by design"), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    lines.insert(1, ("-" * widths[0], "-" * widths[1], "-" * widths[2]))
    return "\n".join(" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.3g}"
