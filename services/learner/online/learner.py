"""The online learner: one training phase an episode, on the pairs the run sampled itself.

    while the pairs arrive: their log-probabilities under the reference
      -> the episode is TRAINING -> `epochs` passes of DPO over its pairs
      -> publish the weights as version e -> checkpoint, while the engines sample -> commit_trained

One step of it is these files:

    online/learner.py          an episode: its pairs, its batches, its way out
    online/reference_ahead.py  the reference's log-probabilities, pair by pair
    train/loop.py              a batch: a share a worker, gradients, their sum, the clip, the step
    losses/objectives.py       pairs through the policy, and what is reported of them
    model/policy.py            from token ids to log-probabilities
    losses/dpo.py              the DPO loss
    optim/omo.py               from gradients to weights: Adam, merged with the reference vector

Around it: episode_wait.py is the way to the queues, metrics.py what is measured of an episode,
engine_weights.py the form in which a version goes out, ports.py what others put in.

A crash anywhere in between is safe: what is not in the checkpoint is trained again from the same
kept pairs, and what is in it is only committed and published again. A stop is a return.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from pairloop.data.v1.pair_pb2 import PreferencePair
from services.data.chat import load_tokenizer
from services.full_disk import when_there_is_room
from services.learner.jobs.settings import OnlineDPOSettings, OnlinePlace, ReplayDPOSettings
from services.learner.losses.objectives import DirectPreference
from services.learner.model.load import load_frozen, load_policy
from services.learner.model.policy import Policy
from services.learner.model.reference import AnswerLogprobs, summed
from services.learner.online.engine_weights import Outgoing
from services.learner.online.episode_files import write_episode
from services.learner.online.episode_wait import EpisodeQueues, Sampled
from services.learner.online.metrics import divergence, sampler_gap
from services.learner.online.outcome import (
    outcome,
    outcome_state,
    read_outcome,
    restored_outcome,
)
from services.learner.online.ports import Connect, Publisher, Trained
from services.learner.online.published import told, without_foreign
from services.learner.online.reference_ahead import ReferenceAhead
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
)
from services.learner.train.checkpoint_thread import CheckpointThread
from services.learner.train.distributed import Worker
from services.learner.train.encoding import sampled_pairs
from services.learner.train.loop import Report, StepReporter, train_phase
from services.learner.train.offline import keep_model, prepared, reference_delta
from services.telemetry.record.events import Note
from services.telemetry.tracing.spans import now, process_spans


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
        queues.make_good(learner.version, learner.outcome_of)
        learner.publish()
        for episode in range(learner.version + 1, settings.episodes.count + 1):
            sampled = learner.wait(queues, episode)
            learner.commit(queues)
            if sampled is None:
                break
            learner.train(episode, sampled)
            learner.publish()
            learner.save()
        else:
            learner.commit(queues)
            queues.wait_for_completion(settings.episodes.count, learner.look)
            learner.export()
    finally:
        queues.close()
        learner.close()
    return learner.metrics | {"version": float(learner.version)}


def planned_steps(settings: OnlineDPOSettings | ReplayDPOSettings) -> int:
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
        self._report, self._worker = report, worker
        self._spans = process_spans("learner")
        self._tokenizer = load_tokenizer(settings.policy)
        source, train = settings.reference or settings.policy, settings.train
        reference = load_frozen(source, train.dtype, worker.device)
        self._reference = ReferenceAhead(reference, train.max_length, worker)
        self._policy = Policy(prepared(load_policy(settings.policy), train, worker), train.dtype)
        self._policy.train(False)
        self._named = self._policy.named_parameters()
        tau = reference_delta(source, settings.base, train, worker.device)
        self._optimizer = make_optimizer(self._named, train.optimizer, tau=tau, seed=place.seed)
        self._checkpoints = CheckpointThread(Path(place.folder) / "checkpoints", self._warn)
        self.version = 0
        self.metrics: dict[str, float] = {}
        self.done = Trained(0)
        """What became of the prompts of the last episode."""
        self._outgoing = Outgoing(publish, place, dict.fromkeys(self._named, 0), self._warn)
        self._uncommitted = False
        steps_done = self._restore()
        self._reporter = StepReporter(
            report, place.stage, planned_steps(settings) * settings.episodes.count, steps_done
        )

    def wait(self, queues: EpisodeQueues, episode: int) -> Sampled | None:
        """What an episode gave, once it can be trained; None when the run was ended."""
        meanwhile = partial(self.meanwhile, queues, episode)
        while queues.wait_for_training(episode, meanwhile):
            if (sampled := queues.sampled(episode)) is not None:
                return sampled
        return None

    def meanwhile(self, queues: EpisodeQueues, episode: int) -> None:
        """What is to be done while an episode is sampled."""
        if self._uncommitted and self._checkpoints.written:
            self.commit(queues)
        self.look()
        self._reference.look(partial(queues.arrived, episode))

    def look(self) -> None:
        """Whether the version handed out last is still there; the main worker alone does it."""
        if self._worker.is_main:
            self._outgoing.look()

    def train(self, episode: int, sampled: Sampled) -> None:
        """One episode's passes, and its files beside the checkpoint."""
        genuine = without_foreign(Path(self._place.folder), sampled)
        text = told(episode, sampled.pairs, genuine.pairs)
        if text and self._worker.is_main:
            self._report(Note(stage=self._place.stage, text=text, level="warning"))
        pairs, began = genuine.pairs, now()
        self.metrics = self._episode(episode, pairs, genuine.dropped)
        self.version = episode
        if self._worker.is_main:
            if self._spans is not None:
                self._spans.record_all("train", self.done.trained, began, {"version": episode})
            when_there_is_room(partial(self._write, episode, pairs), "the learner's", self._warn)

    def outcome_of(self, episode: int) -> Trained:
        """What became of the prompts of an episode that the checkpoint holds."""
        if episode == self.version:
            return self.done
        return read_outcome(Path(self._place.folder), episode)

    def publish(self) -> None:
        """Hand out the current version; the main worker alone does it."""
        if self._worker.is_main:
            fraction = self._outgoing.send(self._policy, self.version, self.metrics)
            if fraction is not None:
                self.metrics["changed_fraction"] = fraction

    def save(self) -> None:
        """Begin to write the checkpoint; the main worker alone does it."""
        self._uncommitted = True
        if not self._worker.is_main:
            return
        self._checkpoints.start(
            self.version,
            {
                "model": model_tensors(self._named),
                "optimizer": optimizer_tensors(self._named, self._optimizer),
                "rng": {"torch": torch.get_rng_state()},
            },
            {
                "run": self._place.run,
                "step": self._reporter.step,
                **outcome_state(self.done),
                "metrics": self.metrics,
                "changed": self._outgoing.changed,
            },
        )
        if not self.done.trained:
            self._checkpoints.wait()  # no pair is left whose commit would tell that it was written

    def commit(self, queues: EpisodeQueues) -> None:
        """Once the checkpoint is written, let its episode's pairs go."""
        if not self._uncommitted:
            return
        self._checkpoints.wait()
        queues.commit_trained(self.done)
        self._uncommitted = False

    def export(self) -> None:
        """Write the model folder; the main worker alone does it."""
        if self._worker.is_main:
            export = partial(self._policy.export, self._tokenizer, Path(self._place.out))
            when_there_is_room(export, "the learner's", self._warn)
        self._worker.barrier()

    def close(self) -> None:
        """What is told to others of what was done is on its way."""
        if self._spans is not None:
            self._spans.flush()

    def _write(self, episode: int, pairs: list[PreferencePair]) -> None:
        """Before the checkpoint: a crash in between trains, and writes, the same once more."""
        write_episode(Path(self._place.folder), self.done, pairs, self._settings.record)
        every = self._settings.episodes.keep_every
        if every and episode % every == 0:
            name = f"episode-{episode:04d}"
            keep_model(self._policy, self._tokenizer, self._place, name, self._report)

    def _warn(self, text: str) -> None:
        self._report(Note(stage=self._place.stage, text=text, level="warning"))

    def _episode(
        self, episode: int, kept: list[PreferencePair], dropped: Mapping[str, str]
    ) -> dict[str, float]:
        train = self._settings.train
        pairs, too_long = sampled_pairs(kept, train.max_length)
        batches = plan_batches(
            len(pairs),
            train.batch_size,
            epochs=train.epochs,
            key=(self._place.seed, episode),
            max_steps=train.max_steps,
        )
        self.done = outcome(episode, kept, dropped, pairs, batches)
        counts = {"trained_pairs": float(len(self.done.trained)), "too_long": float(too_long)}
        if not pairs:
            return counts | {"tokens": 0.0, "seconds": 0.0, "steps": 0.0}
        reference = self._reference.finish(kept)
        objective = DirectPreference(
            self._policy, self._settings.dpo, summed(pairs, reference, self._worker)
        )
        before: dict[str, AnswerLogprobs] = {}
        objective.seen = before
        result = train_phase(
            self._policy,
            self._optimizer,
            objective,
            pairs,
            batches,
            train,
            lr_at=lambda step: self._lr(episode, step / len(batches)),
            worker=self._worker,
            reporter=self._reporter,
            after_step=lambda step: setattr(objective, "seen", None),
        )
        return (
            result.mean()
            | counts
            | divergence(kept, reference, self._worker)
            | sampler_gap(kept, before, self.version, self._worker)
            | {
                "tokens": float(result.tokens),
                "seconds": result.seconds,
                "steps": float(len(batches)),
            }
        )

    def _lr(self, episode: int, done: float) -> float:
        """An episode spans its planned steps whatever was dropped, so the schedule always ends."""
        planned = planned_steps(self._settings)
        at = (episode - 1 + done) * planned
        schedule = self._settings.train.schedule
        peak = self._settings.train.optimizer.lr
        return peak * lr_factor(schedule, at, planned * self._settings.episodes.count)

    def _restore(self) -> int:
        """Go back to the last checkpoint, if there is one; returns the steps it has behind it."""
        path = latest(Path(self._place.folder) / "checkpoints")
        if path is None:
            return 0
        checkpoint = load_checkpoint(path)
        restore_model(self._named, checkpoint.tensors["model"])
        restore_optimizer(self._named, self._optimizer, checkpoint.tensors["optimizer"])
        torch.set_rng_state(checkpoint.tensors["rng"]["torch"])
        self._policy.refresh()
        self.version = int(checkpoint.state["episode"])
        self.done = restored_outcome(checkpoint.state)
        self._outgoing.changed = {name: int(v) for name, v in checkpoint.state["changed"].items()}
        self.metrics = {name: float(v) for name, v in checkpoint.state["metrics"].items()}
        return int(checkpoint.state["step"])
