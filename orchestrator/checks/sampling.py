"""Checks of jobs that sample a policy and score its answers."""

from orchestrator.artifacts.lineage import Lineage
from orchestrator.checks.models import (
    check_chat,
    check_positions,
    check_same_tokenizer,
    positions_of,
    reads_chatml,
)
from orchestrator.checks.prompt_lengths import check_prompt_lengths, prompt_length_warnings
from orchestrator.checks.reward import call_warnings, check_answers, check_calls
from services.data.settings import DataSource
from services.reward.settings import CheckerReward, FunctionReward, ModelReward, RewardSettings
from services.rollout.settings import EngineSettings, SamplingSettings
from services.rollout.vllm.fit import check_fit, check_head_size


def check_sampling(sampling: SamplingSettings, engine: EngineSettings) -> None:
    """ValueError for samples that no pair can be made of, or that do not fit the engine."""
    if sampling.n < 2:
        raise ValueError("sampling.n is 1: a pair needs two answers to choose from")
    if sampling.temperature == 0:
        raise ValueError("sampling.temperature is 0: every answer to a prompt would be the same")
    if wrong := no_room(sampling.max_tokens, engine, "sampling.max_tokens"):
        raise ValueError(wrong)


def no_room(max_tokens: int, engine: EngineSettings, key: str) -> str:
    """What is said when an answer of `max_tokens` leaves no room for a prompt, or ""."""
    if max_tokens < engine.max_model_len:
        return ""
    limit = f"engine.max_model_len {engine.max_model_len}"
    return f"{key} {max_tokens} leaves no room for a prompt in {limit}"


def check_sampled_policy(
    policy: str,
    engine: EngineSettings,
    sampling: SamplingSettings,
    reward: RewardSettings,
    prompts: DataSource,
    lineage: Lineage,
) -> None:
    """The policy fits its engine, reward models read its tokens, the checker finds its answers,
    functions can be called, and prompts leave room for an answer."""
    check_engine(policy, engine, lineage)
    first = lineage.first(policy)
    check_prompt_lengths(first, prompts, engine.max_model_len - sampling.max_tokens)
    for at, part in enumerate(reward.parts):
        key = f"reward.parts.{at}.path"
        if isinstance(part, ModelReward):
            check_same_tokenizer(first, part.path, key)
        elif isinstance(part, CheckerReward):
            check_answers(prompts)
        elif isinstance(part, FunctionReward):
            chatml = lineage.new_shape(policy) is not None or reads_chatml(first)
            check_calls(part.path, key, prompts, chatml=chatml)


def sampling_warnings(
    policy: str,
    engine: EngineSettings,
    sampling: SamplingSettings,
    reward: RewardSettings,
    prompts: DataSource,
) -> list[str]:
    """Of prompts that are too long, and of functions whose trial proved nothing."""
    room = engine.max_model_len - sampling.max_tokens
    return [
        *prompt_length_warnings(policy, prompts, room),
        *call_warnings(reward, prompts),
    ]


def check_engine(policy: str, engine: EngineSettings, lineage: Lineage) -> None:
    """A policy, made already or by an earlier stage, against the engine that is to hold it."""
    made, first = lineage.new_shape(policy), lineage.first(policy)
    check_chat(first, "policy")
    positions = positions_of(first) if made is None else made[1].max_positions
    if positions is not None:
        check_positions(first, positions, engine.max_model_len, "engine.max_model_len")
    if made is None:
        check_fit(first, engine)
    elif not engine.num_gpus:
        stage, shape = made
        check_head_size(f"'stages.{stage}.model'", shape.hidden_size // shape.heads)
