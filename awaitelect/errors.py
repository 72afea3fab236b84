"""What can go wrong, and the exit status that it leads to.

AwaitelectError
├── ConfigError         78  the configuration cannot be used (EX_CONFIG of sysexits.h)
├── UsageError           2  the command line cannot be understood
├── StoreError              the lease could not be read or written
│   ├── Conflict            it has changed since it was read: read again
│   └── StoreUnavailable    no answer, or one that says nothing of the lease: try again
└── SpawnError    126, 127  the command cannot be started
"""

EXIT_USAGE = 2
EXIT_INTERNAL = 70
EXIT_LOST = 75
EXIT_CONFIG = 78
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127


class AwaitelectError(Exception):
    """The root of all errors that awaitelect raises on purpose."""


class ConfigError(AwaitelectError):
    """The configuration cannot be used. `problems` holds every reason, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class UsageError(AwaitelectError):
    """The command line cannot be understood."""


class StoreError(AwaitelectError):
    """The lease could not be read or written."""


class Conflict(StoreError):
    """The write was refused because the lease is not, or no longer, what it was conditional on.

    Nothing was written; or it was, and has been overtaken already. Read again.
    """


class StoreUnavailable(StoreError):
    """No answer, or an answer that says nothing of the lease.

    `uncertain`: the write may have been stored all the same. `retry_after`: seconds that the server asked to wait,
    or None.
    """

    def __init__(self, reason: str, *, uncertain: bool = True, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.uncertain = uncertain
        self.retry_after = retry_after


class SpawnError(AwaitelectError):
    """The command cannot be started. `status` is the exit status that a shell would give: 126 or 127."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status
