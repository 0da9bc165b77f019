"""What a real server holds of a run, read without the product's code; and how it falls back."""

from dataclasses import dataclass

from redis import Redis

from services.queues.keys import GROUP, Keys
from tests.model.run_model import Entry, Run

Saved = list[tuple[bytes, bytes, int]]
STREAMS = ("prompts", "rollouts")


@dataclass
class Server:
    """One run on it."""

    redis: Redis
    keys: Keys

    def save(self) -> Saved:
        """Every key, its value and how many ms it lasts (0: for good)."""
        keys = self.redis.keys(self.keys.prefix + "*")
        with self.redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.dump(key).pttl(key)
            found = pipe.execute()
        return [
            (key, value, max(0, left))
            for key, value, left in zip(keys, found[::2], found[1::2], strict=True)
        ]

    def fall_back(self, saved: Saved) -> None:
        self.forget()
        with self.redis.pipeline(transaction=False) as pipe:
            for key, value, left in saved:
                pipe.restore(key, left, value)
            pipe.execute()

    def forget(self) -> None:
        if keys := self.redis.keys(self.keys.prefix + "*"):
            self.redis.delete(*keys)

    def grow_old(self, stream: str, entries: list[tuple[str, str]]) -> None:
        """Nobody has renewed these for a day: entry and who holds it."""
        for entry, holder in entries:
            self.redis.xclaim(
                self.keys.stream(stream), GROUP, holder, 0, [entry], idle=86400000, justid=True
            )

    def consumers(self, stream: str) -> set[str]:
        found = self.redis.xinfo_consumers(self.keys.stream(stream), GROUP)
        return {each["name"].decode() for each in found}

    def compare(self, run: Run) -> None:
        """Assert that the server holds what the model does; tells the model the entries' names."""
        with self.redis.pipeline(transaction=False) as pipe:
            for stream in STREAMS:
                pipe.xrange(self.keys.stream(stream))
                pipe.xpending_range(self.keys.stream(stream), GROUP, "-", "+", 1000)
                pipe.hgetall(self.keys.tries(stream))
            for number in run.episodes:
                pipe.hgetall(self.keys.episode(number))
                pipe.xrange(self.keys.ledger(number))
                pipe.xrange(self.keys.pairs(number))
            pipe.get(self.keys.credits)
            pipe.smembers(self.keys.fenced)
            pipe.xrange(self.keys.dead)
            pipe.get(self.keys.epoch)
            pipe.hget(self.keys.lease, "token")
            found = iter(pipe.execute(raise_on_error=False))
        for stream in STREAMS:
            _compare_stream(run.streams[stream], next(found), next(found), next(found))
        for number, episode in run.episodes.items():
            row = {name.decode(): value.decode() for name, value in next(found).items()}
            assert row["state"] == episode.state, f"episode {number}"
            counted = {name: n for name, n in episode.counters().items() if n}
            real = {
                name: int(row[name])
                for name in row
                if (name in _COUNTERS or name.startswith("dropped:")) and int(row[name])
            }
            assert real == counted, f"episode {number}"
            assert int(row.get("weight_version", 0)) == episode.version
            events = [
                tuple(event[name].decode() for name in (b"kind", b"id", b"detail"))
                for _, event in next(found)
            ]
            assert events == episode.ledger, f"episode {number}"
            assert [pair[b"id"].decode() for _, pair in next(found)] == episode.pairs
        assert int(next(found) or 0) == run.credits_in_use()
        assert {name.decode() for name in next(found)} == run.fenced
        dead = [
            (f[b"stream"].decode(), f[b"id"].decode(), int(f[b"failures"]), int(f[b"deaths"]))
            for _, f in next(found)
        ]
        assert dead == run.dead
        assert int(next(found) or 0) == run.epoch
        assert (next(found) or b"").decode() == run.lease


_COUNTERS = ("dispatched", "in_flight", "sampled", "scored", "paired", "trained")


def _compare_stream(model: list[Entry], entries: list, pending: object, tries: dict) -> None:
    assert [fields[b"id"].decode() for _, fields in entries] == [item.id for item in model]
    held = {each["message_id"]: each for each in pending} if isinstance(pending, list) else {}
    expected = {}
    for item, (entry, fields) in zip(model, entries, strict=True):
        item.entry = entry.decode()
        assert int(fields[b"episode"]) == item.episode
        holder = held.pop(entry)["consumer"].decode() if entry in held else ""
        assert holder == item.holder, f"who holds {item.id}"
        expected |= {f"failures:{item.entry}": item.failures, f"deaths:{item.entry}": item.deaths}
    assert not held, "held, and on no stream"
    real = {name.decode(): int(n) for name, n in tries.items()}
    assert real == {name: n for name, n in expected.items() if n}
