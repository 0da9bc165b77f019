"""The vLLM adapter behind the Engine Protocol: one engine, stepped by its caller.

Prompts are admitted and weights are exchanged between two steps. Log-probabilities are of the
raw logits: what the policy itself assigns, before temperature, top_p and top_k.
"""

import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from pairloop.data.v1.rollout_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    Prompt,
    Rollout,
    Sample,
    VersionSpan,
)
from pairloop.data.v1.weights_pb2 import (
    WEIGHT_KIND_FULL,
    Attestation,
    TensorMismatch,
    WeightManifest,
)
from services.allocator import give_back_freed_memory
from services.errors import DataError, WeightsError, WorkerError
from services.rollout.settings import EngineSettings
from services.rollout.vllm import start as vllm_start
from services.weights.canary import compare, difference
from services.weights.manifest import Tensors, require_base, require_names, verify
from services.weights.snapshot import tensor_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vllm.outputs import CompletionOutput, RequestOutput

_REASONS = {"stop": FINISH_REASON_STOP, "length": FINISH_REASON_LENGTH}
_CANARY = "canary"


@dataclass(frozen=True)
class _Admitted:
    prompt: Prompt
    at: float


class VllmEngine:
    """Continuous batching on vLLM in this process (worker processes for tensor parallelism)."""

    def __init__(
        self,
        model: "str | Path",
        settings: EngineSettings,
        *,
        worker_id: str,
        seed: int = 0,
        version: int = 0,
    ) -> None:
        """Start an engine on a Hugging Face folder or hub name, whose weights are `version`.

        Raises ResourceError, ArtifactError or WorkerError, each with the key to change.
        """
        self._engine = vllm_start.start(str(model), settings, seed)
        self._settings = settings
        self._worker_id = worker_id
        self._version = version
        self._admitted: dict[str, _Admitted] = {}
        self._finished: list[Rollout] = []
        self._names = tensor_names(vllm_start.local_folder(str(model)))
        self._tokenizer = self._engine.get_tokenizer()
        self._stop_ids = _stop_ids(self._tokenizer)
        self._trusted = True
        give_back_freed_memory()

    def has_room(self, samples: int) -> bool:
        """Whether `samples` more sequences can run now; an empty engine takes any number."""
        running = int(self._engine.get_num_unfinished_requests())
        return running == 0 or running + samples <= self._settings.max_num_seqs

    def add(self, prompt: Prompt) -> None:
        """Admit a prompt. Raises DataError when this engine can never answer it."""
        if not self._trusted:
            raise WeightsError(f"worker {self._worker_id} holds weights that failed their canary")
        if prompt.id in self._admitted:
            raise DataError(f"prompt {prompt.id} is being answered already")
        self._check(prompt)
        self._submit(prompt.id, list(prompt.token_ids), self._sampling(prompt))
        self._admitted[prompt.id] = _Admitted(prompt, time.monotonic())

    def step(self) -> list[Rollout]:
        """Advance every running sequence by a token; the rollouts that are complete."""
        if self._engine.has_unfinished_requests():
            self._finished += [self._rollout(output) for output in self._engine.step()]
        finished, self._finished = self._finished, []
        return finished

    @property
    def running(self) -> int:
        """Prompts admitted and not yet returned."""
        return len(self._admitted) + len(self._finished)

    @property
    def version(self) -> int:
        """The weight version that the next token is sampled from."""
        return self._version

    def load_weights(self, manifest: WeightManifest, tensors: Tensors) -> Attestation:
        """Check, load, drop the prefix cache, score the canary, attest.

        Tensors that differ from the manifest are not loaded. Weights whose canary differs are
        in the engine then, and it refuses prompts until a good load.
        """
        started = time.monotonic()
        if self.running:
            raise WeightsError(
                f"worker {self._worker_id} was given weights with {self.running} prompts running"
            )
        require_base(manifest, self._version)
        if manifest.kind != WEIGHT_KIND_FULL:
            raise WeightsError(f"version {manifest.version}: this engine takes full versions alone")
        require_names(manifest, self._names)
        mismatches, gap = verify(manifest, tensors), 0.0
        if not mismatches:
            self._exchange(manifest.version, tensors)
            gap, mismatches = self._score_canary(manifest)
            self._trusted = not mismatches
            give_back_freed_memory()
        return Attestation(
            worker_id=self._worker_id,
            version=manifest.version,
            mismatches=mismatches,
            tensors_checked=len(manifest.tensors),
            max_canary_difference=gap,
            seconds=time.monotonic() - started,
        )

    def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """Log-probabilities of token_ids[1:] under the current weights, in nats.

        Raises DataError when they do not fit into engine.max_model_len with one token to spare.
        """
        from vllm import SamplingParams

        ids = list(token_ids)
        if not 1 <= len(ids) < self._settings.max_model_len:
            raise DataError(
                f"{len(ids)} tokens cannot be scored: 1 to {self._settings.max_model_len - 1} "
                "fit under engine.max_model_len"
            )
        self._submit(_CANARY, ids, SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0))
        while True:
            for output in self._engine.step():
                if output.request_id == _CANARY:
                    entries = zip(ids[1:], output.prompt_logprobs[1:], strict=True)
                    return [float(entry[token].logprob) for token, entry in entries]
                self._finished.append(self._rollout(output))

    def _exchange(self, version: int, tensors: Tensors) -> None:
        self._trusted = False
        with self._handed_over(tensors) as update_info:
            self._engine.collective_rpc("start_weight_update")
            self._engine.collective_rpc("update_weights", kwargs={"update_info": update_info})
            self._engine.collective_rpc("finish_weight_update")
        if not self._engine.reset_prefix_cache():
            raise WeightsError(f"worker {self._worker_id} could not drop its prefix cache")
        self._engine.set_weight_version(str(version))
        self._version = version

    @contextmanager
    def _handed_over(self, tensors: Tensors) -> "Iterator[dict[str, Any]]":
        """What `update_weights` takes: the arrays, or a file where other processes must read."""
        if self._settings.tensor_parallel_size == 1:
            yield {"tensors": tensors}
            return
        from services.rollout.vllm.weights import write_shared

        path = write_shared(tensors)
        try:
            yield {"path": str(path)}
        finally:
            path.unlink()

    def _score_canary(self, manifest: WeightManifest) -> tuple[float, list[TensorMismatch]]:
        """Largest difference in nats, and the mismatch when it is too large.

        A canary longer than the engine's context is cut: attention is causal, so the
        log-probabilities of what is left are the same.
        """
        fits = self._settings.max_model_len - 1
        ids = list(manifest.canary.token_ids)[:fits]
        if not ids:
            return 0.0, []
        expected = list(manifest.canary.logprobs)[: len(ids) - 1]
        found = self.logprobs(ids)
        mismatch = compare(expected, found, manifest.canary.tolerance)
        return difference(expected, found), [mismatch] if mismatch else []

    def _check(self, prompt: Prompt) -> None:
        asked, length = prompt.sampling, len(prompt.token_ids)
        if length == 0:
            raise DataError(f"prompt {prompt.id} has no tokens")
        if length + asked.max_tokens > self._settings.max_model_len:
            raise DataError(
                f"prompt {prompt.id}: {length} tokens and sampling.max_tokens={asked.max_tokens} "
                f"are more than engine.max_model_len={self._settings.max_model_len}"
            )
        if asked.temperature == 0.0 and asked.n > 1:
            raise DataError(
                f"prompt {prompt.id}: {asked.n} samples at temperature 0 would be one answer; "
                "set sampling.n to 1 or raise sampling.temperature"
            )

    def _sampling(self, prompt: Prompt) -> Any:
        """vLLM seeds sample i of a request with seed + i, so neighbouring seeds would share
        samples: the group's seed is hashed to keep groups apart."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        asked = prompt.sampling
        return SamplingParams(
            n=asked.n,
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.top_k,
            max_tokens=asked.max_tokens,
            seed=xxhash.xxh3_64_intdigest(asked.seed.to_bytes(8, "little")) >> 2,
            stop_token_ids=self._stop_ids,
            logprobs=0,
            flat_logprobs=True,
            detokenize=False,  # token by token, and once more for each log-probability
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _submit(self, request_id: str, token_ids: list[int], params: Any) -> None:
        from vllm.exceptions import VLLMClientError
        from vllm.inputs import tokens_input

        try:
            self._engine.add_request(request_id, tokens_input(token_ids), params)
        except (VLLMClientError, ValueError) as error:
            raise DataError(f"{request_id}: vLLM refused it: {error}") from error

    def _rollout(self, output: "RequestOutput") -> Rollout:
        admitted = self._admitted.pop(output.request_id)
        answers = sorted(output.outputs, key=lambda answer: answer.index)
        return Rollout(
            prompt=admitted.prompt,
            samples=[self._sample(answer) for answer in answers],
            worker_id=self._worker_id,
            seconds=time.monotonic() - admitted.at,
        )

    def _sample(self, answer: "CompletionOutput") -> Sample:
        if answer.finish_reason not in _REASONS:
            raise WorkerError(f"vLLM ended a sample with {answer.finish_reason!r}")
        ids, reason = list(answer.token_ids), _REASONS[answer.finish_reason]
        said = ids[:-1] if reason == FINISH_REASON_STOP else ids
        return Sample(
            index=answer.index,
            token_ids=ids,
            text=self._tokenizer.decode(said, skip_special_tokens=True),
            finish_reason=reason,
            logprobs=[e[token].logprob for token, e in zip(ids, answer.logprobs, strict=True)],
            policy_versions=[VersionSpan(version=self._version, token_count=len(ids))],
        )


def _stop_ids(tokenizer: Any) -> list[int]:
    """Ids that end an answer besides those of the generation config, which vLLM adds itself."""
    vocabulary = tokenizer.get_vocab()
    return [vocabulary[token] for token in ("<|im_end|>", "<|endoftext|>") if token in vocabulary]
