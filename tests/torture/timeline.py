"""A picture of it: who ran when, who held the lease, which fault was in force when."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

SCALE, WIDEST = 22.0, 16000.0
"""Pixels of a second, as long as the whole is not too wide to be shown."""
LEFT, ROW, BAR = 150, 26, 16
STEPS, APART = (5, 10, 30, 60, 300, 600), 60
"""Seconds between two lines of the grid, which are so many pixels apart at least."""


class Bar(NamedTuple):
    """From when to when, in seconds; what it is, for the eye and, on pointing at it, in words."""

    begin: float
    end: float
    colour: str
    words: str


class Lane(NamedTuple):
    title: str
    bars: Sequence[Bar]


def draw(title: str, lanes: Sequence[Lane], legend: Sequence[tuple[str, str]], seconds: float) -> str:
    """An SVG picture. `legend`: colour and meaning."""
    scale = min(SCALE, WIDEST / max(seconds, 1.0))
    width, top = max(LEFT + seconds * scale + 40, 1100), 64
    height = top + len(lanes) * ROW + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'font-family="sans-serif" font-size="12">',
        f'<rect width="{width:.0f}" height="{height}" fill="white"/>',
        f'<text x="10" y="20" font-size="15">{escape(title)}</text>',
    ]
    x = 10.0
    for colour, meaning in legend:
        parts.append(f'<rect x="{x:.0f}" y="32" width="14" height="14" fill="{colour}"/>')
        parts.append(f'<text x="{x + 19:.0f}" y="44">{escape(meaning)}</text>')
        x += 40 + 7 * len(meaning)
    bottom = top + len(lanes) * ROW
    step = next((one for one in STEPS if one * scale >= APART), STEPS[-1])
    for second in range(0, int(seconds) + 1, step):
        x = LEFT + second * scale
        parts.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{second} s</text>')
    for number, lane in enumerate(lanes):
        y = top + number * ROW
        parts.append(f'<text x="10" y="{y + 15}">{escape(lane.title)}</text>')
        parts.append(f'<line x1="{LEFT}" y1="{y + ROW - 3}" x2="{width - 40:.0f}" y2="{y + ROW - 3}" stroke="#eee"/>')
        for bar in lane.bars:
            wide = max(1.5, (bar.end - bar.begin) * scale)
            parts.append(
                f'<rect x="{LEFT + bar.begin * scale:.2f}" y="{y + 4}" width="{wide:.2f}" height="{BAR}" '
                f'fill="{bar.colour}"><title>{escape(bar.words)}</title></rect>'
            )
    return "\n".join([*parts, "</svg>", ""])
