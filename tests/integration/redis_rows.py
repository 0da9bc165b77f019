"""What Redis has of an episode, written by hand."""

from orchestrator.episodes import EpisodeStore
from services.queues.keys import Keys


async def all_sampled(store: EpisodeStore, number: int) -> None:
    """Every prompt of the episode counts as dispatched and done: it may be trained, and then be
    completed, as if a checkpoint held it.
    """
    client, key = store._records._client, Keys(store.run).episode(number)
    planned = await client.field(key, "planned")
    await client._redis.hset(key, mapping={"dispatched": planned or b"0", "committed": number})
