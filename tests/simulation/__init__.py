"""A seeded simulation of whole fleets in virtual time: the real election and the real guard, models of all else.

`python -m tests.simulation --seeds 1000` tries schedules of faults; a failing seed is told with its history.
"""

from tests.simulation.mutation import Mutation
from tests.simulation.mutations import MUTATIONS
from tests.simulation.schedule import THEMES, Outcome, simulate, theme_of
from tests.simulation.world import Violation

__all__ = ["MUTATIONS", "THEMES", "Mutation", "Outcome", "Violation", "simulate", "theme_of"]
