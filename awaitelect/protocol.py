"""The messages between keeper and elector, and nothing else.

One message is one JSON datagram on a SOCK_SEQPACKET pair: {"is": its name, and its fields}. Instants are whole
nanoseconds of CLOCK_BOOTTIME on the wire, seconds in here. Unknown fields are ignored and missing ones have defaults,
so that a keeper outlives an upgrade of its elector.

    elector → keeper    Settings, Grant, Stop, Alive, Failed, Drained, Leave
    keeper → elector    Hello, Ack, Spawned (with a pidfd), Ready, Gone, Shutdown
"""

from __future__ import annotations

import json
from typing import Any

from awaitelect import clock
from awaitelect.attributes import Attributes
from awaitelect.values import V, Value, as_dict, misfit

MARK = "AWAITELECT_INSTANCE"
"""The variable that every process of the command carries, so that it can be found whatever became of its parents."""

MAX_MESSAGE = 131_072
"""Bytes of one message at most: well below the default socket buffer, so that sending never has to wait."""


KILL_LEAD = 0.2
"""Seconds before a grant's `kill_by` at which SIGKILL is sent, so that everything is dead by then."""

TERMINATION_LOG = "/dev/termination-log"
"""Where Kubernetes has the termination message unless a container's terminationMessagePath says otherwise."""

ELECTOR_SOCKET = 3
"""The descriptor at which the elector finds its end of the pair."""


class BackoffSettings(Value):
    """The pauses between restarts."""

    initial: float = 0.5
    """Seconds before the first restart."""
    factor: float = 2.0
    max: float = 30.0
    """Seconds at most."""
    jitter: float = 0.1
    """Up to this share more, evenly at random."""
    reset_after: float = 60.0
    """Seconds that the command must have run for the count of failures to start anew."""


class Probe(Value):
    """How to ask the command whether it is ready, or alive. Defaults are Kubernetes'; durations in seconds."""

    kind: str
    """http_get, tcp_socket or exec."""
    argv: list[str] = []
    """exec: success is its exit code 0."""
    host: str = "127.0.0.1"
    port: int = 0
    path: str = "/"
    """http_get: success is an answer from 200 to 399."""
    scheme: str = "http"
    """http or https, whose certificate is not looked at."""
    headers: dict[str, str] = {}
    initial_delay: float = 0.0
    """From the start, or from being ready, to the first question."""
    period: float = 10.0
    """From one question to the next."""
    timeout: float = 1.0
    """A question without an answer counts as failed after so long."""
    success_threshold: int = 1
    """So many successes in a row make it ready."""
    failure_threshold: int = 3
    """So many failures in a row make it failed."""


class CommandSettings(Attributes):
    """All that the keeper knows of the configuration: how to run the command, and with which attributes."""

    argv: list[str] = []
    enabled: bool = True
    """False: no election; the keeper becomes the command."""
    environment: dict[str, str] = {}
    """Variables set over the inherited ones."""
    inherit_env: bool = True
    stop_signal: int = 15
    stop_timeout: float = 10.0
    """Seconds from the stop signal to SIGKILL, if the lease leaves as much."""
    kill_mode: str = "mixed"
    """Who gets the stop signal. mixed: the main process, and all SIGKILL at the end; group: its group; process: the
    main process, and the rest is left alone until it has ended; tree: every process of the command."""
    cgroup: bool = True
    """The command runs in a cgroup of its own, where we may make one."""
    signal_target: str = "main"
    """main or group: who gets the signals that are forwarded."""
    signal_rewrite: dict[int, int] = {}
    """Signal number → the one sent instead, 0: none."""
    restart_policy: str = "on-failure"
    """on-failure, always, on-abnormal, never."""
    backoff: BackoffSettings = BackoffSettings()
    max_restarts: int = 5
    """More failures in a row than this: give up."""
    on_give_up: str = "release"
    """release, exit, hold."""
    success_exit_codes: list[int] = [0]
    hooks: dict[str, list[str]] = {}
    """pre_start, post_start, pre_stop, post_stop → program and arguments; and `stop`, which asks the command to stop
    in the stop signal's place."""
    hook_timeout: float = 10.0
    """Seconds that each of them may take, if the lease leaves as much."""
    ready: str = "exec"
    """When the command counts as ready: exec (at once), notify (it says so), probe."""
    start_timeout: float = 90.0
    """Seconds from its start in which it must be ready."""
    start_probe: Probe | None = None
    liveness: Probe | None = None
    drain_timeout: float = 0.0
    """Seconds that a stop waits for Drained, so that traffic is off before the command is told; 0: it does not wait."""
    termination_path: str = TERMINATION_LOG
    """Where the cause of our end is written; TERMINATION_LOG is written only where it exists."""
    termination_lines: int = 0
    """The last lines of the command's standard error that go there too; 0: it has our standard error itself."""
    renew_deadline: float = 10.0
    """Seconds: how long the elector may be silent while it leads."""
    kill_margin: float = 1.0
    """Seconds from a grant's `kill_by` to the instant at which others may start."""
    log_level: str = "info"
    log_format: str = "auto"
    name: str = ""
    """The election's name, for log lines."""


class Settings(Value):
    """elector → keeper, first: the configuration is good, this is the command's part of it."""

    command: CommandSettings


class Grant(Value):
    """elector → keeper: the command may run, until these two dates."""

    number: int
    """Grows by one with each grant, over all electors of one keeper."""
    term_by: float
    """Without a newer grant: begin to stop it at this instant, in seconds."""
    kill_by: float
    """Everything is dead at this instant, in seconds."""
    may_start: bool = True
    """False: only the dates move; nothing is started."""
    term: int = 0
    """The fencing token: which term this grant belongs to."""
    environment: dict[str, str] = {}
    """Variables of this term: the fencing token and the like."""


class Stop(Value):
    """elector → keeper: stop the command and say Gone."""

    cause: str
    grace: bool = True
    """False: somebody else holds the lease; kill at once."""


class Alive(Value):
    """elector → keeper: no grant, but not hung either; and how things stand, where that has changed."""

    state: str = ""
    """Of the state machine; empty: the lease has never been seen yet, or nothing has changed."""
    status: str = ""
    """How things stand, in a line for people; empty: as before."""


class Failed(Value):
    """elector → keeper, before it ends with 78 or 70: why."""

    reason: str


class Drained(Value):
    """elector → keeper, after a Ready of false: no traffic is sent to the command any more, or that cannot be had."""


class Leave(Value):
    """elector → keeper, last: it is over for good; end with this status, or with the command's if None."""

    status: int | None = None
    reason: str = ""


class Hello(Value):
    """keeper → elector, first: who we are and what was said on the command line."""

    instance: str
    number: int
    """The highest grant number that the keeper has seen."""
    kill_by: float | None = None
    """When everything under that grant is dead, in seconds; None: there was none."""
    options: dict[str, str] = {}
    command: list[str] = []
    lock: str = ""
    """The lock of that grant: another one would be another election. Empty: there was none."""
    cgroup: str = ""
    """The directory of the cgroup below which the commands run, if they have any; it may not exist."""
    restarts: int = 0
    """How often the command was started again."""
    electors: int = 0
    """How many electors there were before this one."""


class Ack(Value):
    """keeper → elector: this grant has been taken note of. The keeper's heartbeat."""

    number: int
    phase: str = ""


class Spawned(Value):
    """keeper → elector: the command runs; its pidfd comes with this."""

    pid: int
    restarts: int = 0
    """How often it was started again."""


class Ready(Value):
    """keeper → elector: the command is ready for its users from now on, or no more."""

    is_ready: bool = True


class Gone(Value):
    """keeper → elector: nothing of the command is alive, and nothing is started under any grant up to this number."""

    number: int
    cause: str
    """finished, gave_up, deadline, stopped, shutdown."""
    status: int | None = None
    """The exit status of the command's last run; None if it never ran."""


class Shutdown(Value):
    """keeper → elector: we were told to end; the command is being stopped."""

    signal: int


Message = Settings | Grant | Stop | Alive | Failed | Drained | Leave | Hello | Ack | Spawned | Ready | Gone | Shutdown

_INSTANTS = {"term_by", "kill_by"}
_RANGES = {
    "signal": (1, 64),
    "stop_signal": (1, 64),
    "status": (0, 255),
    "pid": (0, 2**31 - 1),
    "umask": (0, 0o777),
    "uid": (0, 2**32 - 2),
    "gid": (0, 2**32 - 2),
    "port": (0, 65535),
}
_MOST = {int: 2**64, float: 2**53}
"""No other number is larger: what is made of it fits into the kernel's types."""
_TYPES: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (Settings, Grant, Stop, Alive, Failed, Drained, Leave, Hello, Ack, Spawned, Ready, Gone, Shutdown)
}


def encode(message: Message) -> bytes:
    """The message as one datagram."""
    fields = as_dict(message)
    for name in _INSTANTS & fields.keys():
        if fields[name] is not None:
            fields[name] = clock.to_ns(fields[name])
    return json.dumps({"is": type(message).__name__, **fields}, separators=(",", ":")).encode()


class UnknownMessage(ValueError):
    """A message of a kind that is not known here: of a newer version, perhaps."""


def decode(datagram: bytes) -> Message:
    """The message in a datagram. Raises UnknownMessage for another kind of one, ValueError for whatever is none."""
    try:
        fields = json.loads(datagram)
        name = fields.pop("is")
        if isinstance(name, str) and name not in _TYPES:
            raise UnknownMessage(f"not a message that is known here: {name[:40]!r}")
        kind = _TYPES[name]
        known = _known(kind, fields)
        for name in _INSTANTS & known.keys():
            if known[name] is not None:
                known[name] = clock.from_ns(known[name])
        if kind is Settings:
            known["command"] = _command_settings(known["command"])
        return _checked(kind(**known))
    except UnknownMessage:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a message: {datagram[:80]!r}: {error}") from error


def _known(kind: type[Value], fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in kind.FIELDS}


def _command_settings(fields: dict[str, Any]) -> CommandSettings:
    known = _known(CommandSettings, fields)
    if "backoff" in known:
        known["backoff"] = _checked(BackoffSettings(**_known(BackoffSettings, known["backoff"])))
    for probe in ("start_probe", "liveness"):
        if known.get(probe) is not None:
            known[probe] = _checked(Probe(**_known(Probe, known[probe])))
    if "signal_rewrite" in known:  # JSON has no numbers as keys
        known["signal_rewrite"] = {int(caught): sent for caught, sent in known["signal_rewrite"].items()}
    settings = _checked(CommandSettings(**known))
    if not all(1 <= caught <= 64 and 0 <= sent <= 64 for caught, sent in settings.signal_rewrite.items()):
        raise ValueError("signal_rewrite has a number that is no signal's")
    words = [*settings.argv, *(word for argv in settings.hooks.values() for word in argv)]
    if any("\0" in word for word in (*words, *settings.environment, *settings.environment.values())):
        raise ValueError("a program or its environment has a NUL")
    if not all([settings.argv, *settings.hooks.values()]):
        raise ValueError("a program is missing")
    return settings


def _checked(value: V) -> V:
    """The value, if whoever acts upon it can rely on what its fields hold."""
    name = misfit(value)
    if name:
        raise ValueError(f"{type(value).__name__}.{name} is not {value.TYPES[name]}")
    for name in value.FIELDS:
        held = getattr(value, name)
        if isinstance(held, (int, float)):
            most = _MOST[float if value.TYPES[name].startswith("float") else int]
            least, most = _RANGES.get(name, (-most, most))
            if not least <= held <= most:
                raise ValueError(f"{type(value).__name__}.{name} is not from {least} to {most}")
    return value
