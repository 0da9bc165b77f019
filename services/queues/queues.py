"""The work queues of a run: what the orchestrator, the rollout and the pairing workers share.

    dispatch -> [prompts] -> take, commit_rollout -> [rollouts] -> take, commit_pair -> [pairs]
                                                       or commit_drop

    pairs -> (train, checkpoint) -> commit_trained -> (publish, attest) -> published

Delivery is at least once, effect exactly once: whatever finishes an item does so in one Lua script
(`lua/commit.lua`) that does nothing the second time; commits that wait go together. A credit is
taken by `dispatch` and given back when the prompt is dropped or its pair trained.
"""

from collections.abc import Mapping, Sequence
from typing import NoReturn, Self

from pairloop.data.v1.pair_pb2 import DropReason, PreferencePair
from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from services.errors import LedgerError
from services.queues import retention
from services.queues.changes import changed
from services.queues.client import Client, Patience, connect
from services.queues.commits import Commits, Event
from services.queues.items import DeadLetter, Dispatched, Item, Refusal, StreamName
from services.queues.keys import GROUP, PARKED, Keys
from services.queues.leases import Leases
from services.queues.ledger import LedgerEvent, reason_name
from services.queues.payloads import Payloads, PayloadStore
from services.queues.reading import PairReader, read_dead_letters, read_ledger
from services.queues.settings import QueueSettings
from services.queues.taking import Taking

_BATCH = 256
"""Outcomes in one script: the server does nothing else meanwhile."""
_PAYLOADS = 64
"""Prompts in one script."""
_STREAMS: tuple[StreamName, ...] = ("prompts", "rollouts")
_REFUSALS: dict[bytes, Refusal] = {b"credits": "credits", b"state": "state", b"order": "order"}
_COUNTERS = ("dispatched", "in_flight", "sampled", "scored", "paired", "trained")


class RunQueues:
    """Every method but `open` and `close` may raise UnreachableError and ResourceError."""

    def __init__(
        self,
        client: Client,
        run: str,
        settings: QueueSettings,
        payloads: PayloadStore | None = None,
    ) -> None:
        self._client = client
        self._keys = Keys(run)
        self._settings = settings
        self._leases = Leases(client, self._keys, settings.reclaim_idle_s)
        self._payloads = Payloads(payloads, settings)
        self._taking = Taking(client, self._keys, settings, self._leases, self._payloads)
        self._pairs = PairReader(client, self._payloads)
        self._commits = Commits(client, self._keys)

    @classmethod
    async def open(
        cls,
        url: str,
        run: str,
        settings: QueueSettings,
        epoch: int = 0,
        payloads: PayloadStore | None = None,
        joining: bool = False,
    ) -> Self:
        """Connect, and make the streams. For use on the running event loop alone.

        `epoch`: of the orchestrator that works on the run; every change raises ReplacedError once
        another has taken over. 0, for tools: never. `payloads`: where large ones lie.
        Raises UnreachableError past `settings.connect_timeout_s`; `joining` a run that is up, past
        `settings.outage_s`.
        """
        marked, patience = (Keys(run).epoch, epoch), Patience(settings.outage_s)
        client = await connect(url, settings.connect_timeout_s, marked, patience, joining)
        try:
            for name in _STREAMS:
                await client.ensure_group(Keys(run).stream(name), GROUP)
        except BaseException:
            await client.close()
            raise
        return cls(client, run, settings, payloads)

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
                payload = prompt.SerializeToString()
                field, value = await self._payloads.put(episode, prompt.id, payload)
                args += [prompt.id, prompt.index, field, value]
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
        return await self._taking.take(stream, consumer, count, block_s)

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
        return await self._taking.fail(stream, item, error)

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
        """The kept pairs of an episode in canonical order: by the index of their prompt.

        Raises DataError for one that lies outside of Redis and is missing or damaged.
        """
        pairs = await self._pairs.read(self._keys.pairs(episode))
        return sorted(pairs, key=lambda pair: pair.prompt.index)

    async def dropped(self, episode: int) -> dict[str, str]:
        """Of the prompts that gave no pair: why, by id."""
        # By its last event: a dead letter that was tried again may have become a pair.
        last = {event.id: event for event in await self.ledger(episode)}
        return {id_: event.detail for id_, event in last.items() if event.kind == "dropped"}

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

    async def forget(self, episode: int) -> bool:
        """An episode is over, its ledger and dead letters are elsewhere: keep its state and
        counters alone. False, and all is kept, where Redis fell back to before its end."""
        keys = self._keys
        own = [keys.episode(episode), keys.dead]
        whole = [keys.ledger(episode), keys.steps(episode), keys.pairs(episode)]
        if not await self._client.script("forget", [*own, *whole], [episode]):
            return False
        await self._payloads.forget(episode)
        return True

    async def expire(self, seconds: int | None) -> None:
        """Let Redis forget the run, episodes included, after so many seconds; None: never."""
        await retention.expire(self._client, self._keys, seconds)

    async def keep(self) -> NoReturn:
        """Keep Redis from forgetting the run: it does `settings.expire_s` after this ends."""
        await retention.keep(self._client, self._keys, self._settings.expire_s)

    async def dead_letters(self) -> list[DeadLetter]:
        """Every item that kept failing, oldest first."""
        return await read_dead_letters(self._client, self._keys.dead, self._payloads)

    async def _commit(
        self, stream: StreamName, item: Item, output: bytes, events: Sequence[Event]
    ) -> bool:
        put = ("", b"")
        if output:
            put = await self._payloads.put(item.episode, item.prompt_id, output)
        done = await self._commits.commit(stream, item, put, events)
        self._leases.let_go(stream, item)
        return done


def _contradiction(episode: int, version: int, id_: str, found: str) -> LedgerError:
    of = f"prompt {id_} is {found} there" if id_ else f"there are {found} there"
    return LedgerError(
        f"the checkpoint of version {version} and Redis do not agree on episode {episode}: {of};"
        " keep the run's folder and report it, or begin the stage anew with --fresh"
    )
