from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.learner.train.batches import micro_batches, permutation, plan_batches, shard


@given(st.integers(1, 60), st.integers(1, 20), st.sampled_from([0.5, 1.0, 2.0, 2.5]))
def test_a_plan_covers_its_passes_in_even_steps(count: int, size: int, epochs: float) -> None:
    plan = plan_batches(count, size, epochs=epochs, key=(1,))
    flat = [at for batch in plan for at in batch]
    assert len(flat) == max(1, round(count * epochs))
    assert set(Counter(flat).values()) <= {int(epochs), int(epochs) + 1}
    sizes = {len(batch) for batch in plan}
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


def test_every_pass_has_an_order_of_its_own() -> None:
    passes = plan_batches(20, 20, epochs=3, key=(5, 1))
    assert passes == [permutation(20, 5, 1, number) for number in range(3)]
    assert len({tuple(order) for order in passes}) == 3
    assert plan_batches(20, 20, epochs=1, key=(5, 2)) != passes[:1]


def test_max_steps_wins_over_epochs() -> None:
    plan = plan_batches(5, 4, epochs=9, key=(0,), max_steps=3)
    assert [len(batch) for batch in plan] == [4, 4, 4]


def test_shuffles_depend_on_their_key_alone() -> None:
    assert permutation(50, 1, 2, 3) == permutation(50, 1, 2, 3)
    assert permutation(50, 1, 2, 3) != permutation(50, 1, 2, 4)
    assert sorted(permutation(50, 1)) == list(range(50))


@given(st.lists(st.integers(1, 90), min_size=1, max_size=40), st.integers(1, 5))
def test_shards_are_a_partition(lengths: list[int], world: int) -> None:
    batch = list(range(len(lengths)))
    shares = [shard(batch, lengths, rank, world) for rank in range(world)]
    assert sorted(at for share in shares for at in share) == batch
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_shards_are_dealt_back_and_forth_so_that_tokens_are_even() -> None:
    lengths = [10, 80, 20, 70, 30, 60, 40, 50]
    two = [shard(range(8), lengths, rank, 2) for rank in range(2)]
    assert [[lengths[at] for at in share] for share in two] == [[80, 50, 40, 10], [70, 60, 30, 20]]
    three = [shard(range(8), lengths, rank, 3) for rank in range(3)]
    assert [[lengths[at] for at in share] for share in three] == [
        [80, 30, 20],
        [70, 40, 10],
        [60, 50],
    ]


@given(st.lists(st.integers(1, 90), min_size=1, max_size=40), st.integers(1, 5))
def test_shards_differ_by_one_longest_example_at_most(lengths: list[int], world: int) -> None:
    totals = [
        sum(lengths[at] for at in shard(range(len(lengths)), lengths, rank, world))
        for rank in range(world)
    ]
    assert max(totals) - min(totals) <= max(lengths)


@given(st.lists(st.integers(1, 90), max_size=40), st.integers(1, 200))
def test_passes_are_a_partition_within_the_budget(tokens: list[int], budget: int) -> None:
    parts = micro_batches(range(len(tokens)), tokens, budget)
    order = sorted(range(len(tokens)), key=lambda at: (-tokens[at], at))
    assert [at for part in parts for at in part] == order
    for part in parts:
        assert sum(tokens[at] for at in part) <= budget or len(part) == 1
    for part, after in pairwise(parts):
        assert sum(tokens[at] for at in part) + tokens[after[0]] > budget
