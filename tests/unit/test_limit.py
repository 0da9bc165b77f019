"""Operations of a pass, against torch's own count of what a model really multiplies."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from services.learner.train.limit import FlopCount, Work, matmul_rate
from services.model_size import known_size

CONFIG = Qwen2Config(
    vocab_size=300,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    tie_word_embeddings=True,
    attn_implementation="eager",
)
SIZE = known_size(CONFIG.to_dict())


@pytest.mark.parametrize("backward", [False, True])
def test_counts_what_torch_counts(backward: bool) -> None:
    model = Qwen2ForCausalLM(CONFIG)
    ids = torch.arange(40).reshape(2, 20)
    with FlopCounterMode(display=False) as counter:
        logits = model(input_ids=ids).logits
        if backward:
            logits.sum().backward()
    # Eager attention multiplies every query with every key, whatever it may look at.
    work = Work(tokens=40, learnt=40, attended=2 * 20 * 20)
    count = FlopCount.of(SIZE)
    expected = count.useful(work) if backward else count.forward(work)
    assert counter.get_total_flops() == expected


def test_counts_what_is_computed_again() -> None:
    count, work = FlopCount.of(SIZE), Work(tokens=10, learnt=4, attended=55)
    assert count.done(work) - count.useful(work) == 2 * 4 * 48 * 300
    assert count.done(work, checkpointing=True) - count.useful(work) == count.forward(work)


def test_a_prefix_is_counted_once_and_suffixes_do_not_see_each_other() -> None:
    work = Work.of(3, [2, 1], learnt=3)
    assert work == Work(tokens=6, learnt=3, attended=6 + (2 * 3 + 3) + (1 * 3 + 1))
    assert work + Work(1, 2, 3) == Work(7, 5, work.attended + 3)


def test_the_products_measured_weigh_as_much_as_the_model() -> None:
    shapes = FlopCount.of(SIZE).shapes(rows=7)
    model = Qwen2ForCausalLM(CONFIG)
    matrices = [p.numel() for name, p in model.named_parameters() if p.ndim == 2]
    assert sum(weight for *_, weight in shapes) == sum(matrices)
    assert {rows for rows, *_ in shapes} == {7}


def test_the_rate_is_measured_once_and_draws_no_random_numbers() -> None:
    shapes = FlopCount.of(SIZE).shapes(rows=16)
    state = torch.get_rng_state()
    rate = matmul_rate(torch.float32, torch.device("cpu"), shapes)
    assert rate > 0
    assert matmul_rate(torch.float32, torch.device("cpu"), shapes) == rate
    assert torch.equal(torch.get_rng_state(), state)
