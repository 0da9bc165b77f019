"""What Redis holds of a run at most. Figures: bench/redis_memory.py, docs/memory.md."""

from services.queues.settings import EpisodeSettings, QueueSettings

_BASE = 8 * 2**20
"""An empty server, and the connections of a run."""
_PROMPT = 1_500
"""Of a prompt until its episode is archived: its entry without the payload, its lease, its last
step, and the events of its ledger, two more than usual."""
_EPISODE = 1_000
"""State, counters and last change; they stay as long as the run."""
_ROUNDED = 1.25
"""What the allocator makes of a large value at most."""
_PAGE = 64
"""Entries with payloads that one call writes or reads."""
_CALLS = 4
"""Such calls at a time, with their values once more in the server's buffers."""


def redis_bytes(queues: QueueSettings, episodes: EpisodeSettings, payload: int) -> int:
    """Bytes of used_memory that a run takes at its fullest.

    As if each payload were the largest that lies in Redis: of `queues.inline_bytes`, or of
    `payload` bytes where all do. Beside it, each change through the admin API takes some 1,000.
    """
    if queues.payloads == "folder":
        payload = queues.inline_bytes
    # One is trained or not yet archived, one is sampled, and those that staleness lets run ahead.
    open_prompts = episodes.prompts * min(episodes.count, 2 + episodes.max_staleness)
    # Dead letters have given their credit back. An episode fails above max_failed, when what was
    # in flight then may have failed as well.
    dead = min(episodes.prompts, int(episodes.max_failed * episodes.prompts) + episodes.in_flight)
    held = min(open_prompts, queues.credits + dead * (2 + episodes.max_staleness))
    entry = int(_ROUNDED * payload)
    return (
        _BASE
        + _EPISODE * episodes.count
        + _PROMPT * open_prompts
        + entry * (held + _CALLS * min(_PAGE, held))
    )
