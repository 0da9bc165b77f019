"""The work queues of a run: what the orchestrator, the rollout and the pairing workers share.

    dispatch -> [prompts] -> take, commit_rollout -> [rollouts] -> take, commit_pair -> [pairs]
                                                       or commit_drop

    pairs -> (train, checkpoint) -> commit_trained -> (publish, attest) -> published

Delivery is at least once, effect exactly once: whatever finishes an item does so in one Lua script
(`lua/commit.lua`) that does nothing the second time; commits that wait go together. A credit is
taken by `dispatch` and given back when the prompt is dropped or its pair trained.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Self

from pairloop.data.v1.pair_pb2 import DropReason, PreferencePair
from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from services.errors import LedgerError
from services.queues.changes import changed
from services.queues.client import Client, Patience, connect
from services.queues.commits import Commits, Event
from services.queues.items import DeadLetter, Dispatched, Item, Refusal, StreamName
from services.queues.keys import GROUP, PARKED, Keys
from services.queues.leases import Leases
from services.queues.ledger import LedgerEvent, reason_name
from services.queues.looks import Looks
from services.queues.reading import entries_of, read_dead_letters, read_ledger
from services.queues.settings import QueueSettings

_BATCH = 256
"""Outcomes in one script: the server does nothing else meanwhile."""
_PAYLOADS = 64
"""Prompts in one script."""
_SLICE_S = 1.0
"""Longest single wait for new items; between two, abandoned and failed ones are looked for."""
_STREAMS: tuple[StreamName, ...] = ("prompts", "rollouts")
_REFUSALS: dict[bytes, Refusal] = {b"credits": "credits", b"state": "state", b"order": "order"}
_COUNTERS = ("dispatched", "in_flight", "sampled", "scored", "paired", "trained")


class RunQueues:
    """Every method but `open` and `close` may raise UnreachableError and ResourceError."""

    def __init__(self, client: Client, run: str, settings: QueueSettings) -> None:
        self._client = client
        self._keys = Keys(run)
        self._settings = settings
        self._idle_ms = int(settings.reclaim_idle_s * 1000)
        self._leases = Leases(client, self._keys, settings.reclaim_idle_s)
        self._looks = Looks(settings.reclaim_idle_s)
        self._commits = Commits(client, self._keys)

    @classmethod
    async def open(cls, url: str, run: str, settings: QueueSettings, epoch: int = 0) -> Self:
        """Connect, and make the streams. For use on the running event loop alone.

        `epoch`: of the orchestrator that works on the run; every change raises ReplacedError once
        another has taken over. 0, for tools: never.
        Raises UnreachableError past `settings.connect_timeout_s`.
        """
        client = await connect(
            url, settings.connect_timeout_s, (Keys(run).epoch, epoch), Patience(settings.outage_s)
        )
        try:
            for name in _STREAMS:
                await client.ensure_group(Keys(run).stream(name), GROUP)
        except BaseException:
            await client.close()
            raise
        return cls(client, run, settings)

    async def close(self) -> None:
        """Close the connections. What was taken and not committed goes to another worker."""
        await self._leases.close()
        await self._commits.close()
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
                args += [prompt.id, prompt.index, prompt.SerializeToString()]
            reply = await self._client.script(
                "dispatch",
                [keys.stream("prompts"), *keys.account(episode)],
                args,
            )
            sent, known = sent + reply[0], known + reply[1]
            if reply[2]:
                return Dispatched(sent, known, _REFUSALS[reply[2]])
        return Dispatched(sent, known, "")

    async def take(
        self, stream: StreamName, consumer: str, count: int, block_s: float
    ) -> list[Item]:
        """Up to `count` items; waits up to `block_s` for the first.

        `consumer` names one live worker: what a predecessor of that name left comes at once. What
        was failed or given back comes before what is new; where this waits, and what another
        worker no longer renews after `settings.reclaim_idle_s`, it comes as looks.py has it.
        What is taken is renewed until it is committed, failed, or the queues are closed. An item
        that more than `settings.max_deaths` workers ended with goes to the dead letters instead.

        Raises ReplacedError when the consumer was taken for dead: see `give_back`.
        """
        deadline = time.monotonic() + block_s
        while True:
            items = list[Item]()
            if self._looks.due(stream, consumer):
                items = await self._reclaim(stream, consumer, count)
                self._looks.looked(stream, consumer, len(items))
            wait = min(deadline - time.monotonic(), _SLICE_S)
            if items and len(items) < count:
                items += await self._read_new(stream, consumer, count - len(items), 0.0)
            elif not items and wait > 0.0:
                items = await self._read_new(stream, consumer, count, wait)
            elif not items:
                items = await self._look(stream, consumer, count)
            for item in items:
                self._leases.hold(stream, item)
            if items or time.monotonic() >= deadline:
                return items

    async def commit_rollout(self, item: Item, rollout: Rollout) -> bool:
        """A prompt is sampled: hand its rollout to pairing. False: that was done before."""
        return await self._commit(
            "prompts", item, rollout.SerializeToString(), [("sampled", rollout.worker_id)]
        )

    async def commit_pair(self, item: Item, pair: PreferencePair) -> bool:
        """A rollout became a pair: keep it until it is trained. False: that was done before."""
        origin = pair.provenance
        versions = f"{origin.min_policy_version}-{origin.max_policy_version}"
        return await self._commit(
            "rollouts", item, pair.SerializeToString(),
            [("scored", origin.scorer), ("paired", versions)],
        )  # fmt: skip

    async def commit_drop(self, item: Item, reason: DropReason) -> bool:
        """A rollout gave no pair: count why, give its credit back. False: that was done before."""
        events = [("dropped", reason_name(reason))]
        if reason in (DropReason.DROP_REASON_TIE, DropReason.DROP_REASON_MARGIN):
            events.insert(0, ("scored", ""))
        return await self._commit("rollouts", item, b"", events)

    async def fail(self, stream: StreamName, item: Item, error: str) -> bool:
        """A try of this item failed. False: after `settings.retry_s` any worker gets it again.

        True: it failed `settings.max_failures` times by now; it is in the dead letters with
        `error`, dropped with the reason DEAD_LETTER, and its credit is back.
        """
        return await self._fail(stream, item, self._settings.max_failures, error)

    async def give_back(self, stream: StreamName, consumer: str, died: bool) -> int:
        """A consumer is gone: hand what it holds to whoever takes next; returns how much that is.

        From now on nothing of a consumer of this name is taken: whatever replaces it has another.
        `died`: with the items, each of which counts it.
        """
        keys = self._keys
        reply = await self._client.script(
            "give_back",
            [keys.stream(stream), keys.tries(stream), keys.fenced],
            [GROUP, consumer, int(died)],
        )
        return int(reply)

    async def give_back_all(self) -> int:
        """As `give_back` of everybody who took something, none of whom is there any more."""
        given = 0
        for stream in _STREAMS:
            for consumer in await self._client.consumers(self._keys.stream(stream), GROUP):
                if consumer not in PARKED:
                    given += await self.give_back(stream, consumer, died=False)
        return given

    async def pairs(self, episode: int) -> list[PreferencePair]:
        """The kept pairs of an episode in canonical order: by the index of their prompt."""
        pairs = [
            PreferencePair.FromString(fields[b"payload"])
            async for _, fields in entries_of(self._client, self._keys.pairs(episode))
        ]
        return sorted(pairs, key=lambda pair: pair.prompt.index)

    async def dropped(self, episode: int) -> dict[str, str]:
        """Of the prompts that gave no pair: why, by id."""
        events = await self.ledger(episode)
        return {event.id: event.detail for event in events if event.kind == "dropped"}

    async def commit_trained(
        self, episode: int, version: int, trained: Sequence[str], dropped: Mapping[str, str]
    ) -> int:
        """A checkpoint holds the episode: let its pairs go. How many; 0 the second time.

        `trained`: the ids of the prompts whose pairs it trained; `dropped`: why not, of all others.
        What Redis lost of that is made good. Raises LedgerError when the two contradict each other.
        """
        keys, now = self._keys, 0
        outcomes = [*((id_, "") for id_ in trained), *dropped.items()]
        streams = [key for name in _STREAMS for key in (keys.stream(name), keys.tries(name))]
        # At least once: an episode without a prompt is committed as well.
        for start in range(0, max(1, len(outcomes)), _BATCH):
            last = start + _BATCH >= len(outcomes)
            reply = await self._client.script(
                "trained",
                [keys.pairs(episode), *streams, *keys.account(episode)],
                [GROUP, version, int(last),
                 *(text for pair in outcomes[start : start + _BATCH] for text in pair)],
            )  # fmt: skip
            now += int(reply[0])
            if reply[1:]:
                raise _contradiction(episode, version, *(text.decode() for text in reply[1:]))
        return now

    async def published(self, episode: int, version: int) -> bool:
        """Every engine holds the episode's weights. False: that was recorded before."""
        keys = self._keys
        reply = await self._client.script("published", keys.account(episode), [version])
        return bool(reply)

    async def changed(self, seconds: float) -> None:
        """Until something of the run changes, or so many seconds are over.

        What changed since the calling task's last wait ends it at once.
        """
        await changed(self._client, self._keys, seconds)

    async def episode_state(self, episode: int) -> str:
        """Such as "SAMPLING"; "" when there is no such episode."""
        return (await self._client.field(self._keys.episode(episode), "state") or b"").decode()

    async def counters(self, episode: int) -> dict[str, int]:
        """dispatched, in_flight, sampled, scored, paired, trained, and dropped:<reason> if any."""
        return (await self.look(episode))[1]

    async def look(self, episode: int) -> tuple[str, dict[str, int]]:
        """State and counters of the same moment: as `episode_state` and `counters`."""
        (found,) = await self._client.hashes([self._keys.episode(episode)])
        fields = {name.decode(): value for name, value in found.items()}
        counters = {name: int(fields.get(name, 0)) for name in _COUNTERS}
        dropped = {name: int(n) for name, n in fields.items() if name.startswith("dropped:")}
        state = fields.get("state", b"").decode()
        return state, counters | {name: n for name, n in dropped.items() if n}

    async def credits_in_use(self) -> int:
        """Prompts dispatched and neither trained nor dropped, over all episodes."""
        return int(await self._client.get(self._keys.credits) or 0)

    async def ledger(self, episode: int) -> list[LedgerEvent]:
        """Every event of an episode, in order; none once it was forgotten."""
        return await read_ledger(self._client, self._keys.ledger(episode), episode)

    async def forget(self, episode: int) -> None:
        """An episode is over and its ledger is elsewhere: keep its state and counters alone."""
        keys = self._keys
        await self._client.unlink([keys.ledger(episode), keys.steps(episode), keys.pairs(episode)])

    async def expire(self, seconds: int) -> None:
        """Let Redis forget the run, episodes included, after so many seconds."""
        await self._client.expire(self._keys.prefix, seconds)

    async def dead_letters(self) -> list[DeadLetter]:
        """Every item that kept failing, oldest first."""
        return await read_dead_letters(self._client, self._keys.dead)

    async def _commit(
        self, stream: StreamName, item: Item, output: bytes, events: Sequence[Event]
    ) -> bool:
        done = await self._commits.commit(stream, item, output, events)
        self._leases.let_go(stream, item)
        return done

    async def _read_new(
        self, stream: StreamName, consumer: str, count: int, wait_s: float
    ) -> list[Item]:
        entries = await self._client.read_group(
            self._keys.stream(stream), GROUP, consumer, count, int(wait_s * 1000)
        )
        return [
            Item(entry, fields[b"id"].decode(), int(fields[b"episode"]), fields[b"payload"],
                 consumer)
            for entry, fields in entries
        ]  # fmt: skip

    async def _look(self, stream: StreamName, consumer: str, count: int) -> list[Item]:
        """What was given back, else what is new; one call where nothing was given back."""
        given_back, found = await self._client.script(
            "take",
            [self._keys.stream(stream), self._keys.fenced],
            [GROUP, consumer, count, self._idle_ms],
        )
        if given_back:
            items = await self._reclaim(stream, consumer, count)
            return items or await self._read_new(stream, consumer, count, 0.0)
        return [
            Item(entry.decode(), id_.decode(), int(episode), payload, consumer)
            for entry, (_, id_, _, episode, _, payload) in found
        ]

    async def _fail(self, stream: StreamName, item: Item, allowed: int, error: str) -> bool:
        keys = self._keys
        reply = await self._client.script(
            "fail",
            [keys.stream(stream), keys.dead, keys.tries(stream), *keys.account(item.episode)],
            [GROUP, item.entry_id, item.consumer, allowed, item.prompt_id, item.episode, stream,
             error, self._idle_ms, int(self._settings.retry_s * 1000)],
        )  # fmt: skip
        self._leases.let_go(stream, item)
        self._looks.soon(stream, item.consumer)
        return bool(reply)

    async def _reclaim(self, stream: StreamName, consumer: str, count: int) -> list[Item]:
        reply = await self._client.script(
            "reclaim",
            [self._keys.stream(stream), self._keys.tries(stream), self._keys.fenced],
            [GROUP, consumer, self._idle_ms, count, *self._leases.entries(stream, consumer)],
        )
        items = []
        for entry, id_, episode, payload, deaths, holder in reply:
            item = Item(entry.decode(), id_.decode(), int(episode), payload, consumer, deaths)
            if deaths < self._settings.max_deaths:
                items.append(item)
            else:
                await self._fail(
                    stream,
                    item,
                    0,
                    f"{deaths} workers ended while they held it, the last was {holder.decode()}: "
                    "it seems to end them",
                )
        if reply and not items:  # those that had to wait for the one that is buried now
            return await self._reclaim(stream, consumer, count)
        return items


def _contradiction(episode: int, version: int, id_: str, found: str) -> LedgerError:
    of = f"prompt {id_} is {found} there" if id_ else f"there are {found} there"
    return LedgerError(
        f"the checkpoint of version {version} and Redis do not agree on episode {episode}: {of};"
        " keep the run's folder and report it, or begin the stage anew with --fresh"
    )
