"""What strikes when: everything that chance decides, from a seed, and nothing that happens changes it.

Pure. An episode is one fault, or some that overlap; after it there is quiet until the instances are well again, so that
the time to a new leader can be put down to it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

SHORT, LONG = (0.1, 0.5), (1.15, 1.8)
"""How long a fault lasts, in lease durations: less than one, and more."""


class Kind(NamedTuple):
    """A sort of fault."""

    name: str
    scope: str
    """Whom it strikes: `process`, `network`: one instance. `lease`, `store`, `machine`: all of them."""
    lasting: tuple[tuple[float, float], ...] = ((0.0, 0.0),)
    """Spans to choose from, in lease durations; 0: it is over as soon as it has struck."""
    stores: tuple[str, ...] = ("kubernetes", "file")
    rare: bool = False
    """It takes long, or much of the machine: every other turn is enough."""
    upsets_newcomers: bool = False
    """It leaves nothing from which one who has just come could know that somebody leads: see `delete` in `faults`."""


BOTH = (SHORT, LONG)
KUBERNETES, FILE = ("kubernetes",), ("file",)
KINDS = (
    Kind("SIGTERM instance", "process"),
    Kind("SIGTERM elector", "process"),
    Kind("SIGTERM both", "process"),
    Kind("SIGTERM command", "process"),
    Kind("SIGKILL keeper", "process"),
    Kind("SIGKILL elector", "process"),
    Kind("SIGKILL both", "process"),
    Kind("SIGSTOP keeper", "process", BOTH),
    Kind("SIGSTOP elector", "process", BOTH),
    Kind("SIGSTOP both", "process", BOTH),
    Kind("SIGSTOP command", "process", BOTH),
    Kind("SIGKILL command", "process"),
    Kind("frozen whole", "process", BOTH),
    Kind("starved", "process", (SHORT, LONG)),
    Kind("blackhole", "network", BOTH, KUBERNETES),
    Kind("half-open", "network", stores=KUBERNETES),
    Kind("reset", "network", BOTH, KUBERNETES),
    Kind("lost replies", "network", BOTH, KUBERNETES),
    Kind("delay", "network", BOTH, KUBERNETES),
    Kind("slow drip", "network", BOTH, KUBERNETES),
    Kind("blackhole for all", "store", BOTH, KUBERNETES),
    Kind("server frozen", "store", BOTH, KUBERNETES),
    Kind("server killed", "store", stores=KUBERNETES, rare=True),
    Kind("lease deleted", "lease", upsets_newcomers=True),
    Kind("lease stolen", "lease"),
    Kind("lease edited", "lease"),
    Kind("lease emptied", "lease"),
    Kind("disk full", "store", BOTH, FILE),
    Kind("folder away", "store", BOTH, FILE),
    Kind("stopped in mid-write", "process", (LONG,), FILE),
    Kind("busy machine", "machine", (SHORT,), rare=True),
)


class Strike(NamedTuple):
    """One fault of an episode."""

    kind: Kind
    after: float
    """Seconds from the episode's begin."""
    lasting: float
    """In seconds."""
    at_leader: bool
    """Whom it strikes, where that is one instance: the one whose command runs, or another."""
    dice: float
    """From 0 to 1: what else is to be decided."""


class Episode(NamedTuple):
    strikes: tuple[Strike, ...]
    quiet: float
    """Seconds after all is well again."""


def kinds_for(store: str, left_out: Sequence[str] = ()) -> list[Kind]:
    return [one for one in KINDS if store in one.stores and one.name not in left_out]


def episodes(seed: int, kinds: Sequence[Kind], lease: float) -> Iterator[Episode]:
    """Without an end: each kind once, in some order, then each once again. `lease`: its duration in seconds."""
    chance = random.Random(seed)
    deck: list[Kind] = []
    turn = 0
    while True:
        count = chance.choices([1, 2, 3], [55, 30, 15])[0]
        chosen: list[Kind] = []
        while len(chosen) < count:
            if not deck:
                turn += 1
                deck = [one for one in kinds if not one.rare or turn % 2]
                chance.shuffle(deck)
            fitting = next((one for one in deck if _fits(one, chosen)), None)
            if fitting is None:
                break
            deck.remove(fitting)
            chosen.append(fitting)
        yield Episode(tuple(_strike(chance, kind, lease) for kind in chosen), chance.uniform(0.1, 1.0))


def _strike(chance: random.Random, kind: Kind, lease: float) -> Strike:
    low, high = chance.choice(kind.lasting)
    after, lasting = chance.uniform(0, 0.6 * lease), chance.uniform(low, high) * lease
    return Strike(kind, after, lasting, chance.random() < 0.7, chance.random())


def _fits(kind: Kind, others: Sequence[Kind]) -> bool:
    """One fault of the store at a time; and a lease is deleted only where nobody is killed or just coming."""
    wide = ("lease", "store", "machine")
    if any(kind.scope in wide and one.scope in wide for one in others):
        return False
    if kind.upsets_newcomers:
        return all(one.scope == "network" for one in others)
    return kind.scope == "network" or not any(one.upsets_newcomers for one in others)
