"""The work queues of a run: what the orchestrator, the rollout and the pairing workers share.

    dispatch -> [prompts] -> take, commit_rollout -> [rollouts] -> take, commit_pair -> [pairs]
                                                       or commit_drop

    pairs -> (train, checkpoint) -> commit_trained -> (publish, attest) -> published

Delivery is at least once, effect exactly once: whatever finishes an item does so in one Lua script
(`lua/commit.lua`) that does nothing the second time. A credit is taken by `dispatch` and given
back when the prompt is dropped or its pair trained.
"""

import time
from collections.abc import Sequence
from typing import Self

from pairloop.data.v1.pair_pb2 import DropReason, PreferencePair
from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from services.queues.client import Client, connect
from services.queues.items import DeadLetter, Dispatched, Item, StreamName
from services.queues.keys import GROUP, Keys
from services.queues.ledger import LedgerEvent
from services.queues.settings import QueueSettings

_BATCH = 256
_PAYLOADS = 64
"""Entries with payloads that are read or written at once."""
_SLICE_S = 1.0
"""Longest single wait for new items; between two, abandoned and failed ones are looked for."""
_STREAMS: tuple[StreamName, ...] = ("prompts", "rollouts")
_COUNTERS = ("dispatched", "in_flight", "sampled", "scored", "paired", "trained")


class RunQueues:
    """Every method but `open` and `close` may raise UnreachableError and ResourceError."""

    def __init__(self, client: Client, run: str, settings: QueueSettings) -> None:
        self._client = client
        self._keys = Keys(run)
        self._settings = settings
        self._held: dict[StreamName, set[str]] = {name: set() for name in _STREAMS}

    @classmethod
    async def open(cls, url: str, run: str, settings: QueueSettings) -> Self:
        """Connect, and make the streams. For use on the running event loop alone.

        Raises UnreachableError past `settings.connect_timeout_s`.
        """
        client = await connect(url, settings.connect_timeout_s)
        for name in _STREAMS:
            await client.ensure_group(Keys(run).stream(name), GROUP)
        return cls(client, run, settings)

    async def close(self) -> None:
        """Close the connections. What was taken and not committed goes to another worker."""
        await self._client.close()

    async def dispatch(self, episode: int, prompts: Sequence[Prompt]) -> Dispatched:
        """Send prompts to the rollout workers, in order, while the state and credits allow.

        Stops at the first that is refused: `prompts[sent + known:]` are to be asked again.
        """
        keys = self._keys
        sent = known = 0
        for start in range(0, len(prompts), _PAYLOADS):
            args: list[str | bytes | int] = [self._settings.credits, episode]
            for prompt in prompts[start : start + _PAYLOADS]:
                args += [prompt.id, prompt.SerializeToString()]
            reply = await self._client.script(
                "dispatch",
                [keys.stream("prompts"), keys.episode(episode), keys.dispatched(episode),
                 keys.ledger, keys.credits],
                args,
            )  # fmt: skip
            sent, known = sent + reply[0], known + reply[1]
            if reply[2] == b"state":
                return Dispatched(sent, known, "state")
            if reply[2] == b"credits":
                return Dispatched(sent, known, "credits")
        return Dispatched(sent, known, "")

    async def take(
        self, stream: StreamName, consumer: str, count: int, block_s: float
    ) -> list[Item]:
        """Up to `count` items, abandoned ones first; waits up to `block_s` for the first.

        `consumer` names one live worker: what a predecessor of that name left comes at once, what
        another worker left after `settings.reclaim_idle_s`. An item that was taken
        `settings.max_deliveries` times and neither committed nor failed (it kills its workers)
        goes to the dead letters instead.
        """
        deadline = time.monotonic() + block_s
        while True:
            items = await self._reclaim(stream, consumer, count)
            if len(items) < count:
                wait = 0.0 if items else min(deadline - time.monotonic(), _SLICE_S)
                entries = await self._client.read_group(
                    self._keys.stream(stream), GROUP, consumer, count - len(items),
                    int(wait * 1000),
                )  # fmt: skip
                items += [Item(entry, fields[b"payload"], 1) for entry, fields in entries]
            self._held[stream].update(item.entry_id for item in items)
            if items or time.monotonic() >= deadline:
                return items

    async def commit_rollout(self, item: Item, rollout: Rollout) -> bool:
        """A prompt is sampled: hand its rollout to pairing. False: that was done before."""
        return await self._commit(
            "prompts", item, rollout.prompt, rollout.SerializeToString(),
            [("sampled", rollout.worker_id)],
        )  # fmt: skip

    async def commit_pair(self, item: Item, pair: PreferencePair) -> bool:
        """A rollout became a pair: keep it until it is trained. False: that was done before."""
        origin = pair.provenance
        versions = f"{origin.min_policy_version}-{origin.max_policy_version}"
        return await self._commit(
            "rollouts", item, pair.prompt, pair.SerializeToString(),
            [("scored", origin.scorer), ("paired", versions)],
        )  # fmt: skip

    async def commit_drop(self, item: Item, prompt: Prompt, reason: DropReason) -> bool:
        """A rollout gave no pair: count why, give its credit back. False: that was done before."""
        events = [("dropped", _reason(reason))]
        if reason in (DropReason.DROP_REASON_TIE, DropReason.DROP_REASON_MARGIN):
            events.insert(0, ("scored", ""))
        return await self._commit("rollouts", item, prompt, b"", events)

    async def fail(self, stream: StreamName, item: Item, error: str) -> bool:
        """A try of this item failed. False: the next `take` of any worker gets it again.

        True: that was its last try; it is in the dead letters with `error`, dropped with the
        reason DEAD_LETTER, and its credit is back.
        """
        prompt = _prompt(stream, item)
        keys = self._keys
        reply = await self._client.script(
            "fail",
            [keys.stream(stream), keys.dead, keys.episode(prompt.episode), keys.ledger,
             keys.credits],
            [GROUP, item.entry_id, item.deliveries, self._settings.max_deliveries, prompt.id,
             prompt.episode, stream, error],
        )  # fmt: skip
        self._held[stream].discard(item.entry_id)
        return bool(reply)

    async def pairs(self, episode: int) -> list[PreferencePair]:
        """The kept pairs of an episode in canonical order: by the index of their prompt."""
        pairs: list[PreferencePair] = []
        after = "-"
        while entries := await self._client.read(self._keys.pairs(episode), after, _PAYLOADS):
            pairs += [PreferencePair.FromString(fields[b"payload"]) for _, fields in entries]
            after = entries[-1][0]
        return sorted(pairs, key=lambda pair: pair.prompt.index)

    async def commit_trained(self, episode: int, version: int) -> int:
        """A checkpoint holds the episode's pairs: forget them. How many; 0 the second time."""
        keys = self._keys
        reply = await self._client.script(
            "trained",
            [keys.pairs(episode), keys.episode(episode), keys.ledger, keys.credits],
            [episode, version],
        )
        return int(reply)

    async def published(self, episode: int, version: int) -> bool:
        """Every engine holds the episode's weights. False: that was recorded before."""
        keys = self._keys
        reply = await self._client.script(
            "published", [keys.episode(episode), keys.ledger], [episode, version]
        )
        return bool(reply)

    async def episode_state(self, episode: int) -> str:
        """Such as "SAMPLING"; "" when there is no such episode."""
        return (await self._client.field(self._keys.episode(episode), "state") or b"").decode()

    async def counters(self, episode: int) -> dict[str, int]:
        """dispatched, in_flight, sampled, scored, paired, trained, and dropped:<reason> if any."""
        (found,) = await self._client.hashes([self._keys.episode(episode)])
        fields = {name.decode(): value for name, value in found.items()}
        counters = {name: int(fields.get(name, 0)) for name in _COUNTERS}
        return counters | {
            name: int(value) for name, value in fields.items() if name.startswith("dropped:")
        }

    async def credits_in_use(self) -> int:
        """Prompts dispatched and neither trained nor dropped, over all episodes."""
        return int(await self._client.get(self._keys.credits) or 0)

    async def ledger(self, after: str = "-") -> list[LedgerEvent]:
        """Every event after the one with this entry id, in order; "-": from the first."""
        events: list[LedgerEvent] = []
        while entries := await self._client.read(self._keys.ledger, after, _BATCH):
            for entry, fields in entries:
                text = {name.decode(): value.decode() for name, value in fields.items()}
                events.append(
                    LedgerEvent(
                        entry, text["kind"], text["id"], int(text["episode"]), text["detail"]
                    )
                )
            after = entries[-1][0]
        return events

    async def expire(self, seconds: int) -> None:
        """Let Redis forget the run, episodes included, after so many seconds."""
        await self._client.expire(self._keys.prefix, seconds)

    async def dead_letters(self) -> list[DeadLetter]:
        """Every item that kept failing, oldest first."""
        letters: list[DeadLetter] = []
        after = "-"
        while entries := await self._client.read(self._keys.dead, after, _PAYLOADS):
            for entry, fields in entries:
                letters.append(
                    DeadLetter(
                        entry_id=entry,
                        stream=fields[b"stream"].decode(),
                        prompt_id=fields[b"id"].decode(),
                        episode=int(fields[b"episode"]),
                        deliveries=int(fields[b"deliveries"]),
                        error=fields[b"error"].decode(),
                        payload=fields[b"payload"],
                    )
                )
            after = entries[-1][0]
        return letters

    async def _commit(
        self,
        stream: StreamName,
        item: Item,
        prompt: Prompt,
        output: bytes,
        events: list[tuple[str, str]],
    ) -> bool:
        keys = self._keys
        downstream = keys.stream("rollouts") if stream == "prompts" else keys.pairs(prompt.episode)
        reply = await self._client.script(
            "commit",
            [keys.stream(stream), downstream, keys.episode(prompt.episode), keys.ledger,
             keys.credits],
            [GROUP, item.entry_id, prompt.id, prompt.episode, output,
             *(text for event in events for text in event)],
        )  # fmt: skip
        self._held[stream].discard(item.entry_id)
        return bool(reply)

    async def _reclaim(self, stream: StreamName, consumer: str, count: int) -> list[Item]:
        idle_ms = int(self._settings.reclaim_idle_s * 1000)
        reply = await self._client.script(
            "reclaim",
            [self._keys.stream(stream)],
            [GROUP, consumer, idle_ms, count, *sorted(self._held[stream])],
        )
        items = []
        for entry, payload, deliveries, holder in reply:
            item = Item(entry.decode(), payload, deliveries)
            if deliveries <= self._settings.max_deliveries:
                items.append(item)
            else:
                await self.fail(
                    stream,
                    item,
                    f"taken {deliveries - 1} times and never finished, last by {holder.decode()}: "
                    "it seems to end its workers",
                )
        return items


def _prompt(stream: StreamName, item: Item) -> Prompt:
    if stream == "prompts":
        return Prompt.FromString(item.payload)
    return Rollout.FromString(item.payload).prompt


def _reason(reason: DropReason) -> str:
    return DropReason.Name(reason).removeprefix("DROP_REASON_")
