"""Which prompts an episode takes, and the message each becomes."""

import random
from collections.abc import Awaitable, Callable, Sequence

from pairloop.data.v1.rollout_pb2 import ChatMessage, Prompt
from pairloop.data.v1.rollout_pb2 import SamplingSettings as SamplingMessage
from services.data.rows import Messages, PromptRow
from services.rollout.settings import SamplingSettings

Render = Callable[[Sequence[Messages]], Awaitable[Sequence[tuple[str, Sequence[int]]]]]
"""Dialogues to their texts and token ids; an engine does it, which has the tokenizer."""


def rows_of_episode(rows: int, episode: int, count: int, seed: int) -> list[int]:
    """Row numbers of one episode's prompts: every row once a pass, each pass in its own order.

    Depends on (rows, episode, count, seed) alone, so a restart gives the same episode.
    """
    first = (episode - 1) * count
    chosen: list[int] = []
    order: list[int] = []
    current = -1
    for place in range(first, first + count):
        turn, inside = divmod(place, rows)
        if turn != current:
            order = list(range(rows))
            random.Random(f"{seed}/{turn}").shuffle(order)
            current = turn
        chosen.append(order[inside])
    return chosen


def prompt_id(run: str, episode: int, index: int) -> str:
    """Of a prompt; the same in every attempt."""
    return f"{run}/e{episode:05d}/p{index:05d}"


def make_prompt(
    row: PromptRow,
    rendered: tuple[str, Sequence[int]],
    sampling: SamplingSettings,
    *,
    run: str,
    episode: int,
    index: int,
    dataset_row: int,
    seed: int,
) -> Prompt:
    """The message of one prompt; its id and its sampling seed do not depend on the attempt.

    `rendered` is the row's text and token ids.
    """
    text, token_ids = rendered
    return Prompt(
        id=prompt_id(run, episode, index),
        run=run,
        episode=episode,
        index=index,
        dataset_row=dataset_row,
        messages=[ChatMessage(role=m["role"], content=m["content"]) for m in row.messages],
        text=text,
        token_ids=token_ids,
        metadata=row.metadata,
        sampling=SamplingMessage(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=sampling.max_tokens,
            # Engines derive one seed a sample by counting up: leave room between prompts.
            seed=random.Random(f"{seed}/{episode}/{index}").getrandbits(40) << 8,
        ),
    )


async def episode_prompts(
    rows: Sequence[PromptRow],
    render: Render,
    sampling: SamplingSettings,
    *,
    run: str,
    episode: int,
    count: int,
    seed: int,
) -> list[Prompt]:
    """An episode's prompts in canonical order."""
    chosen = rows_of_episode(len(rows), episode, count, seed)
    rendered = await render([rows[row].messages for row in chosen])
    return [
        make_prompt(
            rows[row],
            text_and_ids,
            sampling,
            run=run,
            episode=episode,
            index=index,
            dataset_row=row,
            seed=seed,
        )
        for index, (row, text_and_ids) in enumerate(zip(chosen, rendered, strict=True))
    ]
