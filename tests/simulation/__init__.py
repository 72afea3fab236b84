"""A seeded simulation of whole fleets in virtual time: the real election and the real guard, models of all else.

`python -m tests.simulation --seeds 1..1000` tries schedules of faults; a failing seed is told with its history.
"""

from tests.simulation.faults import Outcome, simulate
from tests.simulation.mutations import MUTATIONS, Mutation
from tests.simulation.world import Violation

__all__ = ["MUTATIONS", "Mutation", "Outcome", "Violation", "simulate"]
