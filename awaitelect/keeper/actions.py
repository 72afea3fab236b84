"""What the guard says: the actions that are to be carried out, each by supervision.py."""

from __future__ import annotations

from awaitelect.protocol import Grant, Message, Probe
from awaitelect.values import Value


class Start(Value):
    """Start the command, unless the grant's `term_by` has passed by the time of the exec."""

    grant: Grant


class Signal(Value):
    """Send a signal to the command's main process, or to its whole group."""

    number: int
    group: bool = False


class SignalTree(Value):
    """Send a signal to every process of the command."""

    number: int


class TellSurvivors(Value):
    """SIGTERM to whatever the main process has left behind, in its group or not."""


class RunHook(Value):
    """Run a hook; `on_hook_ended` follows, unless it is abandoned."""

    name: str
    environment: dict[str, str] = {}
    """Variables over the command's."""


class Ask(Value):
    """Ask the command by a probe; `on_answer` follows, unless it is abandoned."""

    probe: Probe


class Abandon(Value):
    """End what was begun by RunHook or Ask: nobody waits for it any more."""

    name: str


class NoteSurvivors(Value):
    """Tell people, and name what is alive of the command."""

    level: str
    text: str


class KillAll(Value):
    """SIGKILL to the group and to every descendant, until none is left."""


class Tell(Value):
    """Send a message to the elector."""

    message: Message


class Note(Value):
    """Tell people."""

    level: str
    text: str


Action = Start | Signal | SignalTree | TellSurvivors | RunHook | Ask | Abandon | KillAll | Tell | Note | NoteSurvivors
