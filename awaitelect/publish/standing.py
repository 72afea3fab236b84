"""How an instance stands, as far as it is published."""

from __future__ import annotations

from typing import Any

from awaitelect.values import Value


class Standing(Value):
    """One instance's leadership and its command, at one instant."""

    _unseen = frozenset({"lease", "renewed_at"})

    leads: bool = False
    """It holds the lease and has not begun to step down."""
    token: int = 0
    """The fencing token, until the lease is lost or about to be released; 0: it holds nothing."""
    is_ready: bool = False
    """Its command runs and is ready for its users."""
    is_gone: bool = True
    """Nothing of its command is alive."""
    is_resumed: bool = False
    """An elector of this instance before this one held the lease already."""
    renewed_at: float = 0.0
    """The instant just before the last confirmed write of the lease was sent, in seconds."""
    lease: Any = None
    """The Lease object, as it was last seen."""
