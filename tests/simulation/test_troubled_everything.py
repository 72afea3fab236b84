"""The promise, tried on seeded schedules: all of it at once."""

from __future__ import annotations

import pytest

from tests.simulation.attempts import check, seeds_of


@pytest.mark.parametrize("seeds", seeds_of("everything"), ids=lambda seeds: f"{seeds[0]}..{seeds[-1]}")
def test_no_schedule_breaks_a_promise(seeds: tuple[int, ...]) -> None:
    """At most one command, whatever fails; `python -m tests.simulation --seed N` shows a failure again."""
    check(seeds)
