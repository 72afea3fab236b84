"""What a rule that is not kept looks like to the simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from awaitelect.core.election import Election
from awaitelect.core.lease import Timing

if TYPE_CHECKING:
    from tests.simulation.keeper import Keeper
    from tests.simulation.machines import Node
    from tests.simulation.store import Store


class Mutation:
    """A rule that is not kept."""

    starts_late = False
    """The shim does not look at the clock."""
    has_no_eyes = False
    """No shim that waits looks at a keeper that dies."""
    kills_blindly = False
    """Who kills for a dead keeper does not wait for the end of what it has killed."""
    stamps_plainly = False
    """A record's times are the wall clock's, whatever stood there before."""
    timings: list[Timing] = []
    """Configurations to take in place of the usual ones."""

    def __init__(self) -> None:
        self.applied = 0

    def change_election(self, election: Election, node: Node) -> None: ...

    def change_keeper(self, keeper: Keeper) -> None: ...

    def change_store(self, store: Store) -> None: ...


def over(kind: type, **members: Any) -> type:
    """A class like `kind` but for these members."""
    return type(kind.__name__, (kind,), members)
