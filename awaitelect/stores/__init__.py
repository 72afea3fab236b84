"""Where a lease lives: one protocol, one small module for each kind of store.

Boundary: a store reads and writes records and reports changes. It decides nothing, reads no clock to decide, and its
errors leave as Conflict and StoreUnavailable, the original as cause. Every write is conditional.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from awaitelect.core.lease import Observed, Record


class LeaseStore(Protocol):
    """One lease in one store. Time-outs are in seconds and bound the whole call."""

    @property
    def lock(self) -> str:
        """The lease's name as users write it: `kubernetes:NAMESPACE/NAME` or `file:PATH`."""

    async def read(self, timeout: float) -> Observed:
        """The lease as it is now; its `record` is None where there is none.

        Raises StoreUnavailable.
        """

    async def create(self, record: Record, timeout: float) -> Observed:
        """Write the first record of a lease that does not exist, and return it as stored.

        Raises Conflict where it exists, StoreUnavailable otherwise.
        """

    async def update(self, base: Observed, record: Record, timeout: float) -> Observed:
        """Write the record if the lease still has the version of `base`, and return it as stored.

        What others have put into the lease (labels, annotations, unknown fields) is kept. Raises Conflict where it has
        changed or is gone, StoreUnavailable otherwise.
        """

    def watch(self, since: Observed) -> AsyncIterator[Observed]:
        """Each change of the lease after `since`, as soon as the store tells; a deletion has no record.

        Never ends and never raises but CancelledError: it resumes by itself, and after a gap yields what the lease is
        now. It is a hint: nothing may depend on its being in time.
        """

    async def close(self) -> None:
        """Give back what it holds, without waiting for the network."""
