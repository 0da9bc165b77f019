"""An engine without a model, behind the Engine Protocol: seeded, deterministic, instant.

What a sample says depends on the prompt's id and seed, the sample's index and the weight version
alone, never on what runs beside it. With metadata "answer" it is right with probability `skill`
(more with every version), else a permutation of the answer's words or a filler word.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from pairloop.data.v1.rollout_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    Prompt,
    Rollout,
    Sample,
    VersionSpan,
)
from pairloop.data.v1.weights_pb2 import Attestation, WeightManifest
from services.errors import DataError, WeightsError
from services.weights.manifest import Tensors, require_base, verify

FILLERS = ("um", "well", "so", "maybe")


@dataclass
class _Running:
    prompt: Prompt
    steps_left: int


@dataclass
class FakeEngine:
    """`steps` calls of `step` complete a prompt. `bad_loads` loads fail their canary first."""

    worker_id: str = "fake-0"
    steps: int = 2
    max_num_seqs: int = 64
    max_model_len: int = 256
    vocabulary: int = 320
    eos: int = 2
    skill: float = 0.4
    skill_per_version: float = 0.05
    held: int = 0
    bad_loads: int = 0
    tensors: Tensors = field(default_factory=dict)
    loads: list[int] = field(default_factory=list)
    admitted: list[str] = field(default_factory=list)
    _running: dict[str, _Running] = field(default_factory=dict)

    def has_room(self, samples: int) -> bool:
        used = sum(each.prompt.sampling.n for each in self._running.values())
        return used == 0 or used + samples <= self.max_num_seqs

    def add(self, prompt: Prompt) -> None:
        length = len(prompt.token_ids) + prompt.sampling.max_tokens
        if not prompt.token_ids or length > self.max_model_len:
            raise DataError(f"prompt {prompt.id}: {length} tokens do not fit {self.max_model_len}")
        if prompt.id in self._running:
            raise DataError(f"prompt {prompt.id} is being answered already")
        self._running[prompt.id] = _Running(prompt, self.steps)
        self.admitted.append(prompt.id)

    def step(self) -> list[Rollout]:
        for each in self._running.values():
            each.steps_left -= 1
        done = [id for id, each in self._running.items() if each.steps_left <= 0]
        return [self.answer(self._running.pop(id).prompt) for id in done]

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def version(self) -> int:
        return self.held

    def load_weights(self, manifest: WeightManifest, tensors: Tensors) -> Attestation:
        if self._running:
            raise WeightsError(f"worker {self.worker_id} was given weights while prompts run")
        require_base(manifest, self.held)
        attestation = Attestation(worker_id=self.worker_id, version=manifest.version)
        attestation.tensors_checked = len(manifest.tensors)
        attestation.mismatches.extend(verify(manifest, tensors))
        if self.bad_loads > 0:
            self.bad_loads -= 1
            attestation.mismatches.add(tensor="canary", expected="close", found="far")
        if not attestation.mismatches:
            self.held, self.tensors = manifest.version, tensors
            self.loads.append(manifest.version)
        return attestation

    def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        draw = Random(f"{self.held}/{list(token_ids)}")
        return [-draw.expovariate(1.0) for _ in token_ids[1:]]

    def answer(self, prompt: Prompt) -> Rollout:
        """The rollout of a prompt under the version that is held."""
        samples = [self._sample(prompt, index) for index in range(prompt.sampling.n)]
        return Rollout(prompt=prompt, samples=samples, worker_id=self.worker_id, seconds=0.01)

    def _sample(self, prompt: Prompt, index: int) -> Sample:
        draw = Random(f"{prompt.id}/{prompt.sampling.seed}/{index}/{self.held}")
        text = self._text(prompt.metadata.get("answer", "yes no"), draw)
        ids = [3 + sum(word.encode()) % (self.vocabulary - 3) for word in text.split()]
        ids = [*ids, self.eos]
        limit = prompt.sampling.max_tokens
        reason = FINISH_REASON_STOP if len(ids) <= limit else FINISH_REASON_LENGTH
        ids = ids[:limit]
        return Sample(
            index=index,
            token_ids=ids,
            text=" ".join(text.split()[:limit]),
            finish_reason=reason,
            logprobs=[-draw.expovariate(1.0) for _ in ids],
            policy_versions=[VersionSpan(version=self.held, token_count=len(ids))],
        )

    def _text(self, answer: str, draw: Random) -> str:
        if draw.random() < self.skill + self.skill_per_version * self.held:
            return answer
        words = answer.split()
        if len(words) > 1 and draw.random() < 0.5:
            return " ".join(draw.sample(words, len(words)))
        return " ".join([*words, draw.choice(FILLERS)])
