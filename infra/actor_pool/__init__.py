"""One pool of Ray actors, with one fault policy, for every step that hands out work: recording, encoding, arms.

pool.py      hands items to actors and says what became of each
slot.py      one actor: placed by Ray, started, watched, stopped, replaced
placement.py what an actor needs of a node, how many the nodes hold, what is lacking
limits.py    how often and how long an actor or an item is tried, when an actor is replaced
watching.py  what the pool tells of its actors
"""

from .limits import ItemTimeout, Limits, Recycling
from .placement import Needs, alive_nodes, assigned_cores, await_nodes
from .pool import ActorPool, ActorsFail, FatalFault, ItemQueue, NoActor, Outcome, PoolError
from .slot import Answer, Phase, PoolActor
from .watching import LOSSES, ActorEnd, ActorState, PoolWatcher, Usage

__all__ = [
    "LOSSES",
    "ActorEnd",
    "ActorPool",
    "ActorState",
    "ActorsFail",
    "Answer",
    "FatalFault",
    "ItemQueue",
    "ItemTimeout",
    "Limits",
    "Needs",
    "NoActor",
    "Outcome",
    "Phase",
    "PoolActor",
    "PoolError",
    "PoolWatcher",
    "Recycling",
    "Usage",
    "alive_nodes",
    "assigned_cores",
    "await_nodes",
]
