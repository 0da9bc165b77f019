"""The episodes of a run: a durable store whose moves are those of the table in services/states.py.

A move is a compare-and-set in Redis, so two that race cannot both succeed.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from google.protobuf.timestamp_pb2 import Timestamp

from pairloop.admin.v1.admin_pb2 import Change, DeadLetter, Episode
from services.errors import StateError, UnknownEpisodeError
from services.queues.client import Patience
from services.queues.episode_records import Answer, EpisodeRecords
from services.states import HELD, OVER, PAUSE, REPLAYED, TRANSITIONS, State, message_state

_RACES = 10
"""Times a change is tried again because the state moved under it."""


Rows = Mapping[int, Mapping[str, str]]
"""The hash of each episode that a change may be about, by number, in order."""


class EpisodeStore:
    """The episodes of one run, durable in Redis. Every method may raise UnreachableError."""

    def __init__(self, records: EpisodeRecords, run: str) -> None:
        self.run = run
        self._records = records
        self._completed = 0
        """Episodes from the first that are known to be: they are not looked at again."""

    @classmethod
    async def open(
        cls,
        url: str,
        run: str,
        timeout_s: float,
        epoch: int = 0,
        patience: Patience | None = None,
    ) -> Self:
        """Connect to Redis, for use on the running event loop. Raises UnreachableError.

        `epoch`: of the orchestrator; its changes are refused once another took the run over.
        `patience`: when Redis goes away later.
        """
        return cls(
            await EpisodeRecords.open(url, run, timeout_s, epoch, patience or Patience()), run
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._records.close()

    async def create(self, count: int, prompts: int, published: int = 0) -> None:
        """Make episodes 1 to `count` of `prompts` prompts each; those that are there stay.

        In a run that has none yet the first `published` are made COMPLETED: an earlier one, which
        this one goes on from, has trained them.

        Raises StateError when the run was begun with another number of prompts or with more
        episodes.
        """
        before, planned = await self._records.create(count, prompts, published)
        if planned != prompts:
            raise StateError(
                f"run {self.run} was begun with {planned} prompts an episode: set "
                f"episodes.prompts to {planned}, or give this run a new name"
            )
        if before > count:
            raise StateError(
                f"run {self.run} has {before} episodes already: set episodes.count to {before} "
                "or more, or give this run a new name"
            )

    async def changed(self, seconds: float) -> None:
        """Until something of the run changes, or so many seconds are over.

        What changed since the calling task's last wait ends it at once.
        """
        await self._records.changed(seconds)

    async def list(self, first: int = 1, count: int | None = None) -> list[Episode]:
        """Every episode, or so many from number `first`, in order."""
        rows = await self._records.read(first, count)
        return [self._episode(number, row) for number, row in enumerate(rows, start=first)]

    async def get(self, number: int) -> Episode:
        """One episode; 0 is the current one: the first that is not over, else the last.

        Raises UnknownEpisodeError.
        """
        rows = await self._rows(number)
        if not number:
            going = (n for n, row in rows.items() if _state(row) not in OVER)
            number = next(going, max(rows, default=0))
        await self._require(rows, number)
        return self._episode(number, rows[number])

    async def move(self, number: int, to: str, change: Change | None = None) -> Episode:
        """Move an episode; the loop's own moves need no `change` and leave the last one shown.

        The reason of a change to FAILED is the episode's error. Idempotent by request id.
        Raises StateError when the table does not have the move, when it is to TRAINING and a prompt
        is not dispatched or not done yet, or to COMPLETED before the episode before is;
        UnknownEpisodeError.
        """

        def choose(rows: Rows) -> tuple[int, State]:
            state = _state(rows[number])
            if to not in TRANSITIONS[state]:
                allowed = " or ".join(TRANSITIONS[state])
                raise StateError(
                    f"episode {number} is {state} and cannot become {to}: "
                    + (f"it can become {allowed}" if allowed else "it is over")
                )
            return number, State(to)

        return await self._change(f"move:{number}:{to}", number, change, choose)

    async def pause(self, number: int, change: Change) -> Episode:
        """Dispatch no more prompts of an episode; PAUSED once what is in flight is finished.

        0 is the current one, or the next when that trains or publishes already. The same
        `change.request_id` again changes nothing and answers the same. Raises StateError,
        UnknownEpisodeError.
        """

        def choose(rows: Rows) -> tuple[int, State]:
            chosen = number or self._first(rows, lambda state: state in (*PAUSE, *HELD), "pause")
            state = _state(rows[chosen])
            if state not in PAUSE:
                raise StateError(
                    f"episode {chosen} is {state}: only a {' or '.join(PAUSE)} one can be paused"
                )
            return chosen, PAUSE[state]

        return await self._change(f"pause:{number}", number, change, choose)

    async def resume(self, number: int, change: Change) -> Episode:
        """Let a paused episode go on from where it was paused; 0 is the first paused one.

        Idempotent by `change.request_id` as `pause` is. Raises StateError, UnknownEpisodeError.
        """

        def choose(rows: Rows) -> tuple[int, State]:
            chosen = number or self._first(rows, lambda state: state in HELD, "resume")
            row = rows[chosen]
            if _state(row) not in HELD:
                raise StateError(
                    f"episode {chosen} is {_state(row)}: only a {' or '.join(HELD)} one "
                    "can be resumed"
                )
            return chosen, State(row["paused_from"])

        return await self._change(f"resume:{number}", number, change, choose)

    async def cancel(self, number: int, change: Change) -> Episode:
        """End an episode that is not sampled yet; idempotent by `change.request_id`.

        Raises StateError, UnknownEpisodeError.
        """
        return await self.move(number, State.CANCELLED, change)

    async def dead_letters(self, number: int) -> Sequence[DeadLetter]:
        """The prompts of an episode that kept failing, oldest first; 0: of all.

        Raises UnknownEpisodeError.
        """
        if number:
            await self.get(number)
        return [
            DeadLetter(
                prompt_id=letter.prompt_id,
                episode=letter.episode,
                stream=letter.stream,
                failures=letter.failures,
                deaths=letter.deaths,
                error=letter.error,
            )
            for letter in await self._records.dead_letters()
            if number in (0, letter.episode)
        ]

    async def replay(self, number: int) -> int:
        """Try the dead letters of an episode again, 0: of all that are still sampled; how many.

        In a paused episode they are in flight at once: a pause stops dispatch. Raises StateError
        for an episode of this number that is not sampled or is so no more, UnknownEpisodeError.
        """
        if not number:
            lost = {letter.episode for letter in await self._records.dead_letters()}
            return sum([(await self._records.replay(each))[0] for each in sorted(lost)])
        await self.get(number)
        replayed, state = await self._records.replay(number)
        if state not in REPLAYED:
            raise StateError(
                f"episode {number} is {state}: dead letters are tried again only while it is"
                f" {', '.join(REPLAYED[:-1])} or {REPLAYED[-1]}; what it lost is in"
                " dead_letters.jsonl"
            )
        return replayed

    async def _change(
        self,
        operation: str,
        number: int,
        change: Change | None,
        choose: Callable[[Rows], tuple[int, State]],
    ) -> Episode:
        """Compare and set until nobody else moved the episode in between.

        `number`: the episode that `choose` looks at; 0 when it is to find one.
        """
        request = (change.request_id or uuid.uuid4().hex) if change else ""
        for _ in range(_RACES):
            # In this order: what `rows` shows is then never this request's own effect.
            rows = await self._rows(number)
            if request and (answer := await self._records.answered(request)):
                return self._repeated(answer, operation, request)
            if number:
                await self._require(rows, number)
            chosen, to = choose(rows)
            state = _state(rows[chosen])
            fields = {"number": str(chosen), **_fields(change, request)}
            if to in (State.PAUSING, State.PAUSED) and state != State.PAUSING:
                fields["paused_from"] = state
            if State.FAILED in (to, state):
                fields["error"] = change.reason if change and to == State.FAILED else ""
            moved = await self._records.move(
                chosen, state, to, request_id=request, operation=operation, fields=fields
            )
            if moved.outcome == "refused":
                raise StateError(f"episode {chosen} {moved.why}")
            if moved.answer:
                return self._repeated(moved.answer, operation, request)
        raise StateError(f"the episodes of run {self.run} keep changing: ask again")

    async def _rows(self, number: int) -> Rows:
        """The one, {} when there is none; for 0 every one that may not be over, or the last.

        Of the one the cost is the same at episode 10 and at 10,000: the loop polls for it.
        """
        if number:
            row = await self._records.one(number) if number > 0 else {}
            return {number: row} if row else {}
        first = max(1, self._completed)
        found = dict(enumerate(await self._records.read(first), start=first))
        if first > 1 and found and _state(found[first]) != State.COMPLETED:
            # A server that lost its last second has it going again. They are completed in order:
            # the last tells of all.
            self._completed = 0
            return await self._rows(0)
        going = (n - 1 for n, row in found.items() if _state(row) != State.COMPLETED)
        self._completed = next(going, max(found, default=0))
        return found

    def _repeated(self, answer: Answer, operation: str, request: str) -> Episode:
        if answer.operation != operation:
            raise StateError(
                f"request id {request} was used for another change ({answer.operation}): "
                "use a new one"
            )
        return self._episode(int(answer.fields["number"]), answer.fields)

    async def _require(self, rows: Rows, number: int) -> None:
        if number in rows:
            return
        count = await self._records.count()
        raise UnknownEpisodeError(
            f"run {self.run} has no episode {number}: it has 1 to {count}"
            if count
            else f"run {self.run} has no episodes yet"
        )

    def _first(self, rows: Rows, fits: Callable[[State], bool], verb: str) -> int:
        for number, row in rows.items():
            if fits(_state(row)):
                return number
        raise StateError(f"run {self.run} has no episode left to {verb}")

    def _episode(self, number: int, row: Mapping[str, str]) -> Episode:
        episode = Episode(
            run=self.run,
            number=number,
            state=message_state(row["state"]),
            prompts=int(row["planned"]),
            error=row.get("error", ""),
            weight_version=int(row.get("weight_version", 0)),
            dispatched=int(row.get("dispatched", 0)),
            in_flight=int(row.get("in_flight", 0)),
            paired=int(row.get("paired", 0)),
            trained=int(row.get("trained", 0)),
        )
        for name, value in row.items():
            kind, _, of = name.partition(":")
            if kind == "dropped" and int(value):
                episode.dropped[of] = int(value)
            elif kind == "version":
                episode.versions.add(weight_version=int(of), pairs=int(value))
        episode.versions.sort(key=lambda each: each.weight_version)
        if "request_id" in row:
            change = episode.last_change
            change.actor, change.reason = row["actor"], row["reason"]
            change.request_id = row["request_id"]
            change.time.FromNanoseconds(int(row["time_ns"]))
        return episode


def _state(row: Mapping[str, str]) -> State:
    return State(row["state"])


def _fields(change: Change | None, request: str) -> dict[str, str]:
    if change is None:
        return {}
    time = change.time
    if not change.HasField("time"):
        time = Timestamp()
        time.GetCurrentTime()
    return {
        "actor": change.actor,
        "reason": change.reason,
        "request_id": request,
        "time_ns": str(time.ToNanoseconds()),
    }
