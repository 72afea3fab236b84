"""The seeds of the normal run, and how they are tried."""

from __future__ import annotations

from tests.simulation import MUTATIONS, THEMES, Mutation, Violation, simulate, theme_of

SEEDS, CHUNK = 2000, 20
SEARCH = 300
"""How many seeds a mutation may survive."""


def seeds_of(theme: str) -> list[tuple[int, ...]]:
    """Those of the normal run that are about this, in portions."""
    assert theme in THEMES
    seeds = [seed for seed in range(1, SEEDS + 1) if theme_of(seed) == theme]
    return [tuple(seeds[start : start + CHUNK]) for start in range(0, len(seeds), CHUNK)]


def check(seeds: tuple[int, ...]) -> None:
    """At most one command, no early release, nothing late, no busy loop, each stop ends, and somebody leads.

    Raises Violation, which tells the history and the command to repeat it.
    """
    started = sum(simulate(seed).starts for seed in seeds)
    assert started > len(seeds)  # or nothing has been tried


def hunt(name: str, first: int = 1) -> tuple[int, Mutation, Violation] | None:
    """The first seed on which the mutation breaks a promise, beginning with this one; None: none within SEARCH."""
    for seed in [first, *range(1, SEARCH + 1)]:
        mutation = MUTATIONS[name]()
        try:
            simulate(seed, mutation)
        except Violation as violation:
            return seed, mutation, violation
    return None
