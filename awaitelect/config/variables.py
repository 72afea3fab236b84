"""The names of our variables: which of them configure us, before it is known whether any of them is a setting.

Cheap to import, as it stands before a command that is executed at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

PREFIX = "AWAITELECT_"
CONFIG = PREFIX + "CONFIG"
"""The path of the configuration file."""

GIVEN_TO_COMMANDS = {
    PREFIX + name
    for name in ("FENCING_TOKEN", "IDENTITY", "LOCK", "LEASE_TRANSITIONS", "INSTANCE", "HOOK", "STOP_CAUSE")
}
"""awaitelect may run under awaitelect, whose command and hooks get these."""

_SERVICE_LINK = PREFIX + r"(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_\w+)?)?)"
"""What Kubernetes puts into every container for a Service that is named awaitelect or awaitelect-…."""


def configuring(environ: Iterable[str]) -> list[str]:
    """The variables that are settings of ours, or meant to be, in order: all but those that others set."""
    ours = sorted(name for name in environ if name.startswith(PREFIX) and name not in GIVEN_TO_COMMANDS)
    return [name for name in ours if not re.fullmatch(_SERVICE_LINK, name)]
