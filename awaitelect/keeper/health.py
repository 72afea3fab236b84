"""Whether the command is ready, and whether it still answers.

Pure: no question is asked here and no clock is read. One Health belongs to one run of the command.
"""

from __future__ import annotations

import math

from awaitelect.protocol import CommandSettings, Probe


class Health:
    """What is known of one run. At most one question is out at a time."""

    def __init__(self, settings: CommandSettings, now: float) -> None:
        """The command was executed at `now`, in seconds."""
        self._settings = settings
        self.is_ready = settings.ready == "exec"
        self.failure = ""
        """Why it has to be taken for failed; empty while it need not."""
        self._ready_by = now + settings.start_timeout
        self._is_asking = False
        self._in_a_row = 0
        self._next_at = math.inf
        self._begin(now)

    @property
    def _probe(self) -> Probe | None:
        if self.is_ready:
            return self._settings.liveness
        return self._settings.start_probe if self._settings.ready == "probe" else None

    def _begin(self, now: float) -> None:
        self._in_a_row = 0
        self._next_at = now + self._probe.initial_delay if self._probe else math.inf

    @property
    def wake_at(self) -> float:
        """The instant, in seconds, at which to call `on_wake` at the latest; infinite for never."""
        next_at = math.inf if self._is_asking else self._next_at
        return next_at if self.is_ready else min(next_at, self._ready_by)

    def on_wake(self, now: float) -> Probe | None:
        """A date may have come. Returns the question to ask now; `on_answer` must follow."""
        if not self.is_ready and now >= self._ready_by:
            self.failure = f"the command was not ready within {self._settings.start_timeout:g}s (start.timeout)"
            return None
        if self._is_asking or now < self._next_at or self._probe is None:
            return None
        self._is_asking = True
        self._next_at = now + self._probe.period
        return self._probe

    def on_answer(self, trouble: str, now: float) -> None:
        """The question was answered well, or this is the trouble with the answer."""
        self._is_asking = False
        self._next_at = max(now, self._next_at)
        if self._probe is None:
            return
        if self.is_ready:
            self._in_a_row = self._in_a_row + 1 if trouble else 0
            if self._in_a_row >= self._probe.failure_threshold:
                self.failure = f"probes.liveness: failed {self._in_a_row} times in a row, last with: {trouble}"
        else:
            self._in_a_row = 0 if trouble else self._in_a_row + 1
            if self._in_a_row >= self._probe.success_threshold:
                self._be_ready(now)

    def on_notified(self, now: float) -> None:
        """The command says that it is ready."""
        if not self.is_ready and self._settings.ready == "notify":
            self._be_ready(now)

    def on_extended(self, seconds: float, now: float) -> None:
        """The command asks for time: it needs no more than so many seconds from now to be ready."""
        if self._settings.ready == "notify":
            self._ready_by = max(self._ready_by, now + seconds)

    def _be_ready(self, now: float) -> None:
        self.is_ready = True
        self._begin(now)
