"""The state machine, in one table and nowhere else.

`transitions` runs it; the diagram in the README is drawn from it. Guards are questions that the model answers, `after`
names what else happens; entering a state appends actions and never triggers.
"""

from __future__ import annotations

import functools
from enum import StrEnum
from typing import Any

from transitions import Machine


class State(StrEnum):
    """Where an instance stands."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"
    STEPPING_DOWN = "stepping_down"
    TERMINATED = "terminated"


FOLLOWER, CANDIDATE, LEADER, STEPPING_DOWN, TERMINATED = State

STATES: list[dict[str, Any]] = [
    {"name": FOLLOWER.value},
    {"name": CANDIDATE.value, "on_enter": "write_acquisition"},
    {"name": LEADER.value, "on_enter": "send_grant"},
    {"name": STEPPING_DOWN.value, "on_enter": "stop_command"},
    {"name": TERMINATED.value},
]

# trigger, source, destination (None: nothing changes), guard, what else happens
TABLE: list[tuple[str, State, State | None, str | None, str | None]] = [
    ("lease_available", FOLLOWER, CANDIDATE, None, None),
    ("acquired", CANDIDATE, LEADER, "is_enough_left", "begin_term"),
    ("acquired", CANDIDATE, CANDIDATE, None, None),
    ("acquired", TERMINATED, None, None, "begin_release"),
    ("refused", CANDIDATE, FOLLOWER, None, None),
    ("refused", TERMINATED, None, None, None),
    ("renewed", LEADER, LEADER, None, None),
    ("renewed", STEPPING_DOWN, None, None, "send_extension"),
    ("renewed", FOLLOWER, None, None, None),
    ("renewed", TERMINATED, None, None, None),
    ("lease_lost", LEADER, STEPPING_DOWN, None, None),
    ("lease_lost", STEPPING_DOWN, None, None, "kill_command"),
    ("deadline_near", LEADER, STEPPING_DOWN, None, None),
    ("deadline_near", STEPPING_DOWN, None, None, None),
    ("stop_requested", FOLLOWER, TERMINATED, None, None),
    ("stop_requested", CANDIDATE, TERMINATED, None, None),
    ("stop_requested", LEADER, STEPPING_DOWN, None, None),
    ("stop_requested", STEPPING_DOWN, None, None, None),
    ("stop_requested", TERMINATED, None, None, None),
    ("command_finished", LEADER, STEPPING_DOWN, None, None),
    ("command_finished", FOLLOWER, TERMINATED, None, None),
    ("command_finished", CANDIDATE, TERMINATED, None, None),
    ("command_finished", STEPPING_DOWN, None, None, None),
    ("command_finished", TERMINATED, None, None, None),
    ("gave_up", LEADER, STEPPING_DOWN, None, None),
    ("gave_up", FOLLOWER, None, None, None),
    ("gave_up", CANDIDATE, None, None, None),
    ("gave_up", STEPPING_DOWN, None, None, None),
    ("gave_up", TERMINATED, None, None, None),
    ("handover_requested", LEADER, STEPPING_DOWN, None, None),
    ("handover_requested", FOLLOWER, None, None, None),
    ("handover_requested", CANDIDATE, None, None, None),
    ("handover_requested", STEPPING_DOWN, None, None, None),
    ("handover_requested", TERMINATED, None, None, None),
    ("command_gone", STEPPING_DOWN, TERMINATED, "is_ending", "begin_release"),
    ("command_gone", STEPPING_DOWN, FOLLOWER, None, "begin_release"),
    ("command_gone", FOLLOWER, None, None, None),
    ("command_gone", CANDIDATE, None, None, None),
    ("command_gone", TERMINATED, None, None, None),
]

# event → the states in which it cannot happen, because only the core raises it and never there
IMPOSSIBLE: dict[str, set[State]] = {
    "lease_available": {CANDIDATE, LEADER, STEPPING_DOWN, TERMINATED},  # only a follower looks for a free lease
    "acquired": {FOLLOWER, LEADER, STEPPING_DOWN},  # only a candidate has an acquiring write under way
    "refused": {FOLLOWER, LEADER, STEPPING_DOWN},
    "renewed": {CANDIDATE},
    "lease_lost": {FOLLOWER, CANDIDATE, TERMINATED},  # what is not held is not lost
    "deadline_near": {FOLLOWER, CANDIDATE, TERMINATED},
    "command_gone": {LEADER},  # its cause comes first, and with it the step down
}

EVENTS = list(dict.fromkeys(row[0] for row in TABLE))


@functools.cache
def _machine() -> Machine:
    """The table, compiled once for all models."""
    rows = [
        {
            "trigger": trigger,
            "source": source.value,
            "dest": destination and destination.value,
            "conditions": guard,
            "after" if destination is None else "before": then,
        }
        for trigger, source, destination, guard, then in TABLE
    ]
    return Machine(
        model=None,
        states=STATES,
        transitions=rows,
        initial=FOLLOWER.value,
        auto_transitions=False,
        send_event=False,
    )


def attach(model: Any) -> None:
    """Give `model` the state `follower` and its triggers."""
    machine = _machine()
    machine.add_model(model)
    machine.remove_model(model)  # it keeps what it was given, and is not kept alive by the machine
