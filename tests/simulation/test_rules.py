"""Each rule is needed: without it the simulation sees a promise broken, and only then."""

from __future__ import annotations

import pytest

from tests.simulation import MUTATIONS, Mutation, simulate
from tests.simulation.attempts import SEARCH, hunt

FIRST_SEEN = {
    "acquire-time-moves": 1,
    "anothers-released": 9,
    "any-gone-believed": 100,
    "bad-timing-accepted": 3,
    "clock-not-restarted": 1,
    "conflict-is-loss": 16,
    "counted-from-reply": 40,
    "created-at-once": 16,
    "error-is-loss": 8,
    "gone-with-survivors": 111,
    "grace-after-the-end": 219,
    "hung-elector-kept": 6,
    "kills-blindly": 20,
    "late-reply-leads": 111,
    "lease-no-limit": 51,
    "lost-with-grace": 16,
    "never-waits-for-ack": 136,
    "no-dead-man": 44,
    "no-kill-margin": 5,
    "no-third-eyes": 16,
    "nobody-acts-for-keeper": 16,
    "other-holder-ignored": 16,
    "own-duration": 3,
    "patient-requests": 31,
    "released-too-early": 1,
    "retry-after-obeyed": 244,
    "rounded-down": 1,
    "stamped-plainly": 1,
    "starts-late": 12,
    "term-lost": 1,
    "transitions-as-token": 12,
    "transitions-on-renewal": 1,
    "twin-taken-over": 15,
    "unconditional": 2,
    "unsigned-release-believed": 3,
    "useless-grant-kept": 11,
    "wall-clock-believed": 1,
    "watch-trusted": 1,
    "wipe-is-loss": 3,
}
"""Seeds that have shown it before: they are tried first."""


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_the_loss_of_a_rule_is_found(name: str) -> None:
    """Else the simulation would prove nothing."""
    found = hunt(name, FIRST_SEEN.get(name, 1))
    assert found, f"{name} was not found within {SEARCH} seeds"
    seed, mutation, violation = found
    assert mutation.applied, f"{violation.what}: it fails without the mutation having made a difference"
    if not mutation.timings:
        simulate(seed)  # and passes with the rule


def test_every_mutation_is_listed_and_names_its_rule() -> None:
    """One that nobody runs would rot."""
    assert set(Mutation.__subclasses__()) == set(MUTATIONS.values())
    assert set(FIRST_SEEN) == set(MUTATIONS) and max(FIRST_SEEN.values()) <= SEARCH
    assert all((mutation.__doc__ or "").startswith("Rule ") for mutation in MUTATIONS.values())


def test_every_rule_of_time_has_its_mutation() -> None:
    """All twelve of the README, and the first eight of the protocol: the last is about an exit status only."""
    named = [(mutation.__doc__ or "").split(":")[0] for mutation in MUTATIONS.values()]
    of_time = [name.split() for name in named if name.startswith("Rule of time")]
    numbers = {int(word) for words in of_time for word in words if word.isdigit()}
    assert numbers == set(range(1, 13))
    protocol = {int(name.split()[1]) for name in named if name.endswith("of the protocol")}
    assert protocol == set(range(1, 9))
