"""The promise, tried on schedules of faults that no example would think of: tests/simulation."""

from __future__ import annotations

import pytest

from tests.simulation import MUTATIONS, Mutation, Violation, simulate

SEEDS, CHUNK = 300, 20
SEARCH = 300
"""How many seeds a mutation may survive."""

FIRST_SEEN = {
    "any-gone-believed": 21,
    "clock-not-restarted": 1,
    "counted-from-reply": 3,
    "late-reply-leads": 3,
    "never-waits-for-ack": 11,
    "own-duration": 6,
    "released-too-early": 1,
    "starts-late": 14,
    "twin-taken-over": 14,
    "unconditional": 1,
    "unsigned-release-believed": 16,
}
"""Seeds that have shown it before: they are tried first."""


def hunt(name: str) -> tuple[int, Mutation]:
    """The first seed on which the mutation breaks a promise, and the mutation."""
    for seed in [FIRST_SEEN.get(name, 1), *range(1, SEARCH + 1)]:
        mutation = MUTATIONS[name]()
        try:
            simulate(seed, mutation)
        except Violation:
            return seed, mutation
    pytest.fail(f"{name} was not found within {SEARCH} seeds")


@pytest.mark.parametrize("first", range(1, SEEDS + 1, CHUNK))
def test_no_schedule_of_faults_breaks_a_promise(first: int) -> None:
    """At most one command, no early release, nothing late, no busy loop, and in the end somebody leads.

    What fails is repeated by `python -m tests.simulation --seeds N`.
    """
    started = sum(simulate(seed).starts for seed in range(first, first + CHUNK))
    assert started > CHUNK  # or nothing has been tried


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_each_rule_is_needed_and_its_loss_is_found(name: str) -> None:
    """Else the simulation would prove nothing: it must see what goes wrong without the rule, and only then."""
    seed, mutation = hunt(name)
    assert mutation.applied, "it fails without the mutation having made a difference"
    simulate(seed)


def test_every_mutation_is_listed_and_names_its_rule() -> None:
    """One that nobody runs would rot."""
    assert set(Mutation.__subclasses__()) == set(MUTATIONS.values())
    assert set(FIRST_SEEN) == set(MUTATIONS)
    assert all((mutation.__doc__ or "").startswith("Rule ") for mutation in MUTATIONS.values())


def test_a_seed_is_one_schedule() -> None:
    """A failure can be repeated."""
    assert simulate(5) == simulate(5)


def test_a_failure_tells_what_led_to_it() -> None:
    """The last line names seed and promise; before it stands who did what, and when."""
    seed, _ = hunt("unconditional")
    with pytest.raises(Violation) as caught:
        simulate(seed, MUTATIONS["unconditional"]())
    lines = str(caught.value).splitlines()
    assert lines[-1].startswith(f"seed {caught.value.seed}: at ")
    assert len(lines) > 20
    assert any("STARTS" in line for line in lines)


def test_fewer_and_more_nodes_keep_the_promise_too() -> None:
    """One alone has nobody to take over from it; five have many."""
    for seed in range(1, 11):
        simulate(seed, nodes=1, seconds=60)
        simulate(seed, nodes=5, seconds=60)
