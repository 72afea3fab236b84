"""When a command that has ended is started again.

Pure, and only the standard library: the keeper imports it.
"""

from __future__ import annotations

from collections.abc import Callable

from awaitelect.protocol import BackoffSettings


class Backoff:
    """The pauses between restarts: exponential, with jitter, forgotten after a healthy run."""

    def __init__(self, settings: BackoffSettings, chance: Callable[[], float]) -> None:
        """`chance` returns evenly from 0 to 1."""
        self._settings = settings
        self._chance = chance
        self.failures = 0
        """How many runs in a row have failed."""

    def failed(self, ran_for: float) -> float:
        """Count a failed run that lasted `ran_for` seconds and return the pause before the next, in seconds."""
        if ran_for >= self._settings.reset_after:
            self.failures = 0
        self.failures += 1
        exponent = min(self.failures - 1, 64)  # beyond it the largest float is not far
        pause = min(self._settings.max, self._settings.initial * self._settings.factor**exponent)
        return pause * (1 + self._settings.jitter * self._chance())

    def forget(self) -> None:
        """A new term begins: whatever went wrong in the last one."""
        self.failures = 0


def is_restarted(policy: str, status: int, success_exit_codes: list[int]) -> bool:
    """Whether the policy starts a command again that ended with `status`: its exit code, or minus a signal's number.

    The names are those of systemd's Restart=; a death by any signal that we did not send counts as a failure.
    """
    if policy == "always":
        return True
    if policy == "on-failure":
        return not is_success(status, success_exit_codes)
    return policy == "on-abnormal" and status < 0


def is_success(status: int, success_exit_codes: list[int]) -> bool:
    return status in success_exit_codes


def exit_status(status: int) -> int:
    """What a shell would report: the exit code, or 128 + n for a death by signal n."""
    return 128 - status if status < 0 else status
