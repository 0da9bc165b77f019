"""Messages of the size that a run moves, for the benches of the data plane."""

from dataclasses import dataclass
from random import Random

from pairloop.data.v1.pair_pb2 import PreferencePair, Score
from pairloop.data.v1.rollout_pb2 import (
    FINISH_REASON_STOP,
    ChatMessage,
    Prompt,
    Rollout,
    Sample,
    SamplingSettings,
    VersionSpan,
)
from services.pairs.build import make_pair
from services.pairs.select import Selection, select

_VOCABULARY = 151_936
_PROMPT_TOKENS = 128
_CHARACTERS = 4
"""Of text, a token."""


@dataclass(frozen=True)
class Payloads:
    """One prompt on its way; the same for every prompt but for the id and the index."""

    prompt: Prompt
    rollout: Rollout
    pair: PreferencePair

    def prompts(self, run: str, episode: int, count: int) -> list[Prompt]:
        """Those of an episode."""
        made = []
        for index in range(count):
            prompt = Prompt()
            prompt.CopyFrom(self.prompt)
            prompt.id, prompt.run = f"{run}/e{episode:05d}/p{index:05d}", run
            prompt.episode, prompt.index = episode, index
            made.append(prompt)
        return made


def payloads(samples: int, tokens: int) -> Payloads:
    """Groups of so many samples, each of so many tokens with their log-probabilities."""
    draw = Random(0)
    text = _text(draw, _PROMPT_TOKENS)
    prompt = Prompt(
        id="bench/e00001/p00000",
        run="bench",
        episode=1,
        messages=[ChatMessage(role="user", content=text)],
        text=text,
        token_ids=_ids(draw, _PROMPT_TOKENS),
        metadata={"answer": "42"},
        sampling=SamplingSettings(n=samples, temperature=1.0, max_tokens=tokens, seed=7),
    )
    group = [
        Sample(
            index=index,
            token_ids=_ids(draw, tokens),
            text=_text(draw, tokens),
            finish_reason=FINISH_REASON_STOP,
            logprobs=[-draw.expovariate(1.0) for _ in range(tokens)],
            policy_versions=[VersionSpan(version=0, token_count=tokens)],
        )
        for index in range(samples)
    ]
    rollout = Rollout(prompt=prompt, samples=group, worker_id="rollout-0", seconds=1.0)
    scores = [Score(total=draw.random(), parts={"checker": 1.0}) for _ in group]
    choice = select([score.total for score in scores], [each.text for each in group], 0.0, 7)
    if not isinstance(choice, Selection):
        raise SystemExit(f"the group gave no pair: {choice}")
    return Payloads(prompt, rollout, make_pair(rollout, scores, choice, "1.0*checker"))


def _ids(draw: Random, count: int) -> list[int]:
    return [draw.randrange(_VOCABULARY) for _ in range(count)]


def _text(draw: Random, tokens: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz     "
    return "".join(draw.choice(letters) for _ in range(tokens * _CHARACTERS))
