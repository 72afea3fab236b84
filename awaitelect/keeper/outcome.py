"""How one run of the command went: in words, in systemd's variables, and whether it went well."""

from __future__ import annotations

from awaitelect.core.restart import is_success
from awaitelect.keeper.signals import name as signal_name
from awaitelect.protocol import CommandSettings

_CLEAN_SIGNALS = {1, 2, 13, 15}
"""A service that ends by one of these has ended well, says systemd.service(5): SIGHUP, SIGINT, SIGPIPE, SIGTERM."""


class Outcome:
    """What is known of one run, from its first hook on."""

    def __init__(self, now: float) -> None:
        """It begins at `now`, in seconds."""
        self.started_at = self.ended_at = now
        self.status: int | None = None
        """Exit code, or minus the signal's number; None as long as nothing has ended."""
        self.refusal = ""
        """Why the command was never executed."""
        self.failure = ""
        """Why it counts as failed, whatever status it ended with."""
        self.result = ""
        """SERVICE_RESULT, where the status does not tell it."""
        self.is_starved = False
        """The kernel has killed the main process for want of memory."""

    @property
    def lasted(self) -> float:
        """Seconds."""
        return self.ended_at - self.started_at

    def ended(self, status: int, now: float) -> None:
        """It has, with this exit code or minus the number of a signal."""
        self.status, self.ended_at = status, now

    @property
    def words(self) -> str:
        """How it ended, in words; empty where nothing ran."""
        if self.failure or self.status is None:
            return self.failure
        how = "was killed for want of memory (oom_kill of its cgroup rose)" if self.is_starved else ""
        return f"the command {how or describe(self.status)} after {self.lasted:.1f}s"

    def variables(self, settings: CommandSettings, stop_signal: int) -> dict[str, str]:
        """As systemd gives them to ExecStopPost= (systemd.exec(5)). `stop_signal`: one that ends it well."""
        status = self.status
        if status is None:
            return {"SERVICE_RESULT": self.result or "success"}
        is_well = is_success(status, settings.success_exit_codes) or -status in {*_CLEAN_SIGNALS, stop_signal}
        result = self.result or ("success" if is_well else "signal" if status < 0 else "exit-code")
        return {
            "SERVICE_RESULT": result,
            "EXIT_CODE": "killed" if status < 0 else "exited",
            "EXIT_STATUS": signal_name(-status).removeprefix("SIG") if status < 0 else str(status),
        }


def describe(status: int) -> str:
    """How a process ended, in words: `exited with 3`, `was killed by SIGKILL`."""
    return f"was killed by {signal_name(-status)}" if status < 0 else f"exited with {status}"
