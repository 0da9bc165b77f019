"""What a real Redis holds of a run in flight stays below what the plan states."""

from bench.redis_memory import answer, in_flight
from services.queues.settings import QueueSettings

SETTINGS = QueueSettings(credits=48)
MIB = 2**20


def test_what_is_large_takes_next_to_nothing_and_the_rest_no_more_than_is_stated() -> None:
    group = [answer(20_000, 0)]
    outside = in_flight(48, group, SETTINGS)
    assert outside["largest_payload_bytes"] > 3 * SETTINGS.inline_bytes
    assert outside["peak_bytes"] - outside["used_bytes"]["empty"] < MIB // 2
    largest = in_flight(48, [answer(1, 0)], SETTINGS, SETTINGS.inline_bytes)
    assert largest["peak_bytes"] - largest["used_bytes"]["empty"] > 48 * SETTINGS.inline_bytes
    assert largest["peak_bytes"] < largest["stated_bytes"] == outside["stated_bytes"]
    inline = in_flight(12, group, SETTINGS.model_copy(update={"payloads": "redis"}))
    assert 12 * 3 * SETTINGS.inline_bytes < inline["peak_bytes"] < inline["stated_bytes"]
