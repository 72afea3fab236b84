"""The grants sent to the keeper, and what it has said of them. Pure."""

from __future__ import annotations

import math


class GrantBook:
    """The grants sent to the keeper: numbered, one unacknowledged at a time."""

    def __init__(self, last_number: int) -> None:
        self.last_number = last_number
        """The highest number that the keeper was sent, by this elector or one before it."""
        self._acknowledged = True
        self._term_by = self._kill_by = math.inf
        self.is_open = False
        """A grant was sent, and it is not known that nothing is started under it any more."""
        self._waiting = False

    def issue(self, term_by: float, kill_by: float, may_start: bool) -> int | None:
        """The number of the grant to send now; None while the keeper has one to acknowledge."""
        if self.is_open and not self._acknowledged:
            self._waiting = True
            return None
        self.last_number += 1
        self._acknowledged, self._waiting, self.is_open = False, False, True
        self._term_by, self._kill_by = term_by, kill_by
        return self.last_number

    def acknowledge(self, number: int) -> bool:
        """The keeper knows of this grant. True: a newer one was held back meanwhile, and can go now."""
        if not self.is_open or number != self.last_number:
            return False
        self._acknowledged = True
        return self._waiting

    def is_last(self, number: int) -> bool:
        """It is the last grant that was sent: what the keeper says of it is the last word."""
        return self.is_open and number == self.last_number

    def close(self) -> None:
        """Nothing will be started under any of them."""
        self.is_open, self._waiting, self._acknowledged = False, False, True

    def silent_at(self, patience: float) -> float:
        if not self.is_open:
            return math.inf
        return self._kill_by + patience if self._acknowledged else self._term_by

    @property
    def start_by(self) -> float:
        """The instant from which on the keeper starts nothing under the grants that it has: no command from the last
        one's `term_by` on, and no hook of a stop from its `kill_by` on.
        """
        return self._kill_by
