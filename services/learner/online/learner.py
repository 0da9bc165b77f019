"""The online learner: one training phase an episode, on the pairs the run sampled itself.

    wait until the episode is TRAINING
      -> its pairs -> log-probabilities under policy and reference -> `epochs` passes of DPO
      -> checkpoint -> commit_trained -> publish the weights as version e

One step of it is five files:

    online/learner.py       an episode: its pairs, their reference log-probabilities, its batches
    train/loop.py           a batch: each worker's share, gradients, their sum, the clip, the step
    losses/objectives.py    two answers through the model, and what is reported of them
    losses/dpo.py           the DPO loss
    optim/omo.py            from gradients to weights: Adam, merged with the reference vector

Around it: episode_wait.py is the way to the queues, metrics.py what is measured of an episode,
engine_weights.py the form in which a version goes out, ports.py what others put in.

A crash anywhere in between is safe: what is not in the checkpoint is trained again from the same
kept pairs, and what is in it is only committed and published again. A stop is a return.
"""

import math
from pathlib import Path

import torch

from pairloop.data.v1.pair_pb2 import PreferencePair
from services.data.chat import load_tokenizer
from services.learner.jobs.settings import OnlineDPOSettings, OnlinePlace
from services.learner.losses.objectives import DirectPreference
from services.learner.model.export import export_model
from services.learner.model.forward import each_row_logprobs
from services.learner.model.load import load_frozen, load_policy, special_ids
from services.learner.model.reference import AnswerLogprobs, share_of_logprobs, summed
from services.learner.online.engine_weights import engine_tensors, rounded
from services.learner.online.episode_wait import EpisodeQueues
from services.learner.online.metrics import divergence, sampler_gap
from services.learner.online.pair_record import write_pairs
from services.learner.online.ports import Connect, Publisher, WeightVersion
from services.learner.online.rollouts import write_rollouts
from services.learner.optim.build import make_optimizer
from services.learner.optim.schedule import lr_factor
from services.learner.train.batches import plan_batches
from services.learner.train.checkpoint import (
    latest,
    load_checkpoint,
    model_tensors,
    optimizer_tensors,
    restore_model,
    restore_optimizer,
    save_checkpoint,
)
from services.learner.train.distributed import Worker
from services.learner.train.encoding import EncodedPair, sampled_pairs
from services.learner.train.loop import Report, StepReporter, train_phase
from services.learner.train.offline import keep_model, prepared, reference_delta
from services.weights.manifest import changed_values


def online_learner(
    settings: OnlineDPOSettings,
    place: OnlinePlace,
    report: Report,
    connect: Connect,
    publish: Publisher,
) -> dict[str, float]:
    """Train every episode of a run; returns the last episode's metrics and `version`.

    The last version is then in `place.out`, as a Hugging Face folder.

    Raises StallError, StateError, LineageError, ArtifactError, UnreachableError, and WorkerError
    when a loss is not finite.
    """
    worker = Worker.current(settings.train.num_gpus)
    learner = _Learner(settings, place, report, publish, worker)
    queues = EpisodeQueues(settings, place, connect, worker)
    try:
        if learner.version:
            queues.commit_trained(learner.version)
        learner.publish()
        for episode in range(learner.version + 1, settings.episodes.count + 1):
            if not queues.wait_for_training(episode):
                break
            learner.train(episode, queues.pairs(episode))
            queues.commit_trained(episode)
            learner.publish()
            worker.barrier()
        else:
            queues.wait_for_completion(settings.episodes.count)
            learner.export()
    finally:
        queues.close()
    return learner.metrics | {"version": float(learner.version)}


def planned_steps(settings: OnlineDPOSettings) -> int:
    """Steps an episode takes when every prompt gives a pair: the room the schedule plans for.

    `max_steps`, when set, is the number of steps of each episode.
    """
    train = settings.train
    if train.max_steps is not None:
        return train.max_steps
    return max(1, math.ceil(round(settings.episodes.prompts * train.epochs) / train.batch_size))


class _Learner:
    """Policy, frozen reference and optimizer, and the version they have come to."""

    def __init__(
        self,
        settings: OnlineDPOSettings,
        place: OnlinePlace,
        report: Report,
        publish: Publisher,
        worker: Worker,
    ) -> None:
        self._settings, self._place = settings, place
        self._report, self._publish, self._worker = report, publish, worker
        self._tokenizer = load_tokenizer(settings.policy)
        _, self._pad = special_ids(self._tokenizer)
        self._reference = load_frozen(settings.reference or settings.policy, worker.device)
        tau = reference_delta(self._reference, settings.base, settings.train, worker)
        self._model = prepared(load_policy(settings.policy), settings.train, worker).eval()
        self._optimizer = make_optimizer(
            self._model, settings.train.optimizer, tau=tau, seed=place.seed
        )
        self._checkpoints = Path(place.folder) / "checkpoints"
        self.version = 0
        self.metrics: dict[str, float] = {}
        self._changed = dict.fromkeys(model_tensors(self._model), 0)
        steps_done = self._restore()
        self._reporter = StepReporter(
            report, place.stage, planned_steps(settings) * settings.episodes.count, steps_done
        )
        self._weights = engine_tensors(self._model, place.engine_dtype)

    def train(self, episode: int, pairs: list[PreferencePair]) -> None:
        """One episode's passes, then the checkpoint that holds them."""
        self.metrics = self._episode(episode, pairs)
        before = self._weights
        self._weights = engine_tensors(self._model, self._place.engine_dtype)
        self._changed = changed_values(before, self._weights)
        values = sum(array.size for array in self._weights.values())
        self.metrics["changed_fraction"] = sum(self._changed.values()) / values
        self.version = episode
        if self._worker.is_main:
            write_pairs(Path(self._place.folder), episode, pairs)
            if self._settings.record:
                write_rollouts(Path(self._place.folder), episode, pairs)
            self._keep(episode)
            self._save([pair.id for pair in pairs])
        self._worker.barrier()

    def publish(self) -> None:
        """Hand out the current version; the main worker alone does it."""
        place = self._place
        if not self._worker.is_main:
            return
        canary = [(place.canary_tokens, 1)]
        with rounded(self._model, place.engine_dtype):
            (logprobs,) = each_row_logprobs(self._model, canary, self._pad, "float32")
        self._publish(
            WeightVersion(
                run=place.run,
                version=self.version,
                base_version=max(0, self.version - 1),
                dtype=place.engine_dtype,
                tensors=self._weights,
                changed=self._changed,
                canary_tokens=place.canary_tokens,
                canary_logprobs=logprobs.tolist(),
                canary_tolerance=place.canary_tolerance,
                metrics=self.metrics,
            )
        )

    def export(self) -> None:
        """Write the model folder; the main worker alone does it."""
        if self._worker.is_main:
            export_model(self._model, self._tokenizer, Path(self._place.out))
        self._worker.barrier()

    def _keep(self, episode: int) -> None:
        """Before the checkpoint: a crash in between trains, and keeps, the same once more."""
        every = self._settings.episodes.keep_every
        if every and episode % every == 0:
            name = f"episode-{episode:04d}"
            keep_model(self._model, self._tokenizer, self._place, name, self._report)

    def _episode(self, episode: int, kept: list[PreferencePair]) -> dict[str, float]:
        train = self._settings.train
        pairs, too_long = sampled_pairs(kept, train.max_length)
        counts = {"trained_pairs": float(len(pairs)), "too_long": float(too_long)}
        if not pairs:
            return counts | {"tokens": 0.0, "seconds": 0.0, "steps": 0.0}
        share = share_of_logprobs(self._reference, pairs, self._pad, train.dtype, self._worker)
        reference = summed(pairs, share, self._worker)
        before = self._measured_before(kept, pairs, share)
        batches = plan_batches(
            len(pairs),
            train.batch_size,
            epochs=train.epochs,
            key=(self._place.seed, episode),
            max_steps=train.max_steps,
        )
        result = train_phase(
            self._model,
            self._optimizer,
            DirectPreference(self._model, self._pad, train.dtype, self._settings.dpo, reference),
            pairs,
            batches,
            train,
            lr_at=lambda step: self._lr(episode, step / len(batches)),
            worker=self._worker,
            reporter=self._reporter,
        )
        return (
            result.mean()
            | counts
            | before
            | {
                "tokens": float(result.tokens),
                "seconds": result.seconds,
                "steps": float(len(batches)),
            }
        )

    def _measured_before(
        self,
        kept: list[PreferencePair],
        pairs: list[EncodedPair],
        reference: dict[str, AnswerLogprobs],
    ) -> dict[str, float]:
        """What is measured under the policy before the update, each worker doing a share."""
        worker = self._worker
        policy = share_of_logprobs(
            self._model, pairs, self._pad, self._settings.train.dtype, worker
        )
        return divergence(kept, policy, reference, worker) | sampler_gap(
            kept, policy, self.version, worker
        )

    def _lr(self, episode: int, done: float) -> float:
        """An episode spans its planned steps whatever was dropped, so the schedule always ends."""
        planned = planned_steps(self._settings)
        at = (episode - 1 + done) * planned
        schedule = self._settings.train.schedule
        peak = self._settings.train.optimizer.lr
        return peak * lr_factor(schedule, at, planned * self._settings.episodes.count)

    def _save(self, pair_ids: list[str]) -> None:
        save_checkpoint(
            self._checkpoints,
            self.version,
            {
                "model": model_tensors(self._model),
                "optimizer": optimizer_tensors(self._model, self._optimizer),
                "rng": {"torch": torch.get_rng_state()},
            },
            {
                "run": self._place.run,
                "episode": self.version,
                "step": self._reporter.step,
                "pairs": pair_ids,
                "metrics": self.metrics,
                "changed": self._changed,
            },
        )

    def _restore(self) -> int:
        """Go back to the last checkpoint, if there is one; returns the steps it has behind it."""
        path = latest(self._checkpoints)
        if path is None:
            return 0
        checkpoint = load_checkpoint(path)
        restore_model(self._model, checkpoint.tensors["model"])
        restore_optimizer(self._model, self._optimizer, checkpoint.tensors["optimizer"])
        torch.set_rng_state(checkpoint.tensors["rng"]["torch"])
        self.version = int(checkpoint.state["episode"])
        self._changed = {name: int(v) for name, v in checkpoint.state["changed"].items()}
        self.metrics = {name: float(v) for name, v in checkpoint.state["metrics"].items()}
        return int(checkpoint.state["step"])
