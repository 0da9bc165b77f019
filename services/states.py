"""The states of an episode, and every move between them: the one table.

    PENDING -> SAMPLING -> TRAINING -> PUBLISHING -> COMPLETED
       |         |  ^
       |      PAUSING | resume
       |         v  |
       +------> PAUSED          FAILED and CANCELLED end an episode from where TRANSITIONS says;
                                the same command may sample a FAILED one on

The store, the loop, the learner, the admin API, the views and the docs all read this file. One
step is not asked for by anyone: PAUSING becomes PAUSED in the same Redis script that brings
`in_flight` to zero, so it needs no live orchestrator.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import cast

from pairloop.admin.v1.admin_pb2 import (
    RUN_STATE_PAUSED,
    RUN_STATE_PAUSING,
    RUN_STATE_RUNNING,
    Episode,
    EpisodeState,
)

_PREFIX = "EPISODE_STATE_"


class State(StrEnum):
    """Of an episode; equal to the name in EpisodeState without its prefix."""

    PENDING = "PENDING"
    SAMPLING = "SAMPLING"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    TRAINING = "TRAINING"
    PUBLISHING = "PUBLISHING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


TRANSITIONS: Mapping[State, tuple[State, ...]] = {
    State.PENDING: (State.SAMPLING, State.PAUSED, State.FAILED, State.CANCELLED),
    State.SAMPLING: (State.PAUSING, State.TRAINING, State.FAILED, State.CANCELLED),
    State.PAUSING: (State.PAUSED, State.SAMPLING, State.FAILED, State.CANCELLED),
    State.PAUSED: (State.SAMPLING, State.PENDING, State.FAILED, State.CANCELLED),
    State.TRAINING: (State.PUBLISHING, State.FAILED),
    State.PUBLISHING: (State.COMPLETED, State.FAILED),
    State.COMPLETED: (),
    State.FAILED: (State.SAMPLING,),
    State.CANCELLED: (),
}
"""Where an episode may go. A paused one goes back to what it was paused from; a failed one is
sampled on when its run is begun again and can try again what was lost."""

OVER = (State.COMPLETED, State.FAILED, State.CANCELLED)
"""The loop does nothing more with these."""
ABORTED = (State.FAILED, State.CANCELLED)
"""Over without weights: the run does not go on past such an episode."""
HELD = (State.PAUSING, State.PAUSED)
"""By an admin: no deadline runs, and a resume is possible."""
REPLAYED = (State.SAMPLING, *HELD)
"""Where dead letters may be tried again: lua/replay.lua."""
SAMPLED = (State.TRAINING, State.PUBLISHING, State.COMPLETED)
"""In the order they come: every prompt is paired or dropped."""
WORKING = (State.SAMPLING, *HELD, State.TRAINING, State.PUBLISHING)
"""Neither waiting for their turn nor over."""
PAUSE: Mapping[State, State] = {State.PENDING: State.PAUSED, State.SAMPLING: State.PAUSING}
"""What pausing makes of a state; in every other state it is refused."""


LIVE = (RUN_STATE_RUNNING, RUN_STATE_PAUSING, RUN_STATE_PAUSED)
"""Of a run whose process is there."""


def state_of(episode: Episode) -> State:
    """The state of an episode's message."""
    return State(EpisodeState.Name(episode.state).removeprefix(_PREFIX))


def message_state(state: str) -> EpisodeState:
    """The state as the message has it. ValueError for a name that is none."""
    return cast(EpisodeState, EpisodeState.Value(_PREFIX + State(state)))
