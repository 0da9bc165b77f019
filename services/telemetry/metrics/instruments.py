"""What is exported of a run: names, units and meanings, as Prometheus wants them.

Base units, `_total` for what only grows, and never an id (of a prompt, an episode, a worker) as a
label: there would be a series for each for ever.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, Summary

from pairloop.data.v1.pair_pb2 import DropReason

MEASURED = {
    "reward_mean": ("reward_mean", "Reward of an answer, mean over the last episode's groups"),
    "reward_max": ("reward_best", "Reward of a group's best answer, mean over groups"),
    "reward_min": ("reward_worst", "Reward of a group's worst answer, mean over groups"),
    "margin": ("margin", "Score of chosen minus score of rejected, mean over pairs"),
    "length_gap": ("length_gap_tokens", "Length of chosen minus rejected, mean over pairs"),
    "answer_tokens": ("answer_length_tokens", "Length of an answer, mean over groups"),
    "unique_answers": ("unique_answers", "Different answers in a group, mean over groups"),
    "truncated": ("truncated_ratio", "Share of answers cut at the most tokens they may have"),
    "kl": ("kl_nats", "KL of the policy to the reference, nats an answer"),
    "chosen_drift": ("chosen_drift_nats", "Log-probability of chosen above the reference's"),
    "rejected_drift": ("rejected_drift_nats", "Log-probability of rejected above the reference's"),
    "sampler_gap": ("sampler_gap_max_nats", "Largest gap of a token between sampler and learner"),
    "sampler_gap_mean": ("sampler_gap_mean_nats", "Mean gap of a token, sampler and learner"),
    "loss": ("loss", "Training loss; nats a pair or token"),
    "accuracy": ("accuracy_ratio", "Share of pairs that the trained model orders rightly"),
    "chosen_reward": ("implicit_reward_chosen", "beta * log(policy / reference) of chosen"),
    "rejected_reward": ("implicit_reward_rejected", "beta * log(policy / reference) of rejected"),
    "dpo_margin": ("implicit_reward_margin", "Implicit reward of chosen minus rejected"),
    "lr": ("learning_rate", "Of the last step told"),
    "grad_norm": ("gradient_norm", "Of the last step told, before clipping"),
    "changed_fraction": ("changed_values_ratio", "Share of the weights' values that moved"),
    "tokens_per_s": ("train_tokens_per_second", "Of all learner ranks, in the last step told"),
    "limit_fraction": ("train_limit_ratio", "Of what the device multiplies at most"),
}
"""By the name that events have: what follows "pairloop_", and the meaning."""
DROPS = tuple(name.removeprefix("DROP_REASON_").lower() for name in DropReason.keys()[1:])
"""Every reason; what never happened is exported as 0, so that an alert can tell it from silence."""
PARTS = (
    *("rollout", "pairs", "learner", "reward gateway", "weight version store", "event sink"),
    *("start of the engines", "start of the reward"),
)
"""What is replaced when it dies, without the number of its place."""
PHASES = ("sample", "train", "sync")


class Instruments:
    """Every metric that events feed, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.run = Info("pairloop_run", "Name, job and version of the run", registry=registry)
        self.attempts = self._gauge("run_attempts", "Times that the command was given")
        self.last_event = self._gauge("last_event_timestamp_seconds", "When something was recorded")
        self.paused = self._gauge("paused", "1 while everything is paused")
        self.worked = self._counter("work_seconds", "Time without pauses")
        self.held = self._counter("paused_seconds", "Time that everything was paused")
        self.warnings = self._counter("warnings", "Warnings told to the reader")
        self.restarts = self._counter(
            "restarts", "Parts that died or hung and were replaced", "part"
        )
        self.running = self._gauge(
            "stage_running", "1 while the stage is under way", "stage", "job"
        )
        self.stage_number = self._gauge("stage_number", "Of the stage under way, from 1")
        self.stages = self._gauge("stages", "Stages of the run")
        self.step = self._gauge("train_step", "Optimizer steps of this phase so far", "stage")
        self.steps = self._gauge("train_steps", "Optimizer steps of this phase", "stage")
        self.trained_tokens = self._counter("trained_tokens", "Tokens trained on", "stage")
        self.sampled_tokens = self._counter(
            "sampled_tokens", "Tokens of the scored answers, told at an episode's end", "stage"
        )
        self.episode = self._gauge("episode", "Latest episode under way", "stage")
        self.episodes = self._gauge("episodes", "Episodes by state", "stage", "state")
        self.dispatched = self._counter("prompts_dispatched", "Prompts sent to be sampled", "stage")
        self.in_flight = self._gauge(
            "prompts_in_flight", "Sent, not yet paired or dropped", "stage"
        )
        self.pairs = self._counter("pairs", "Groups that gave a pair", "stage")
        self.drops = self._counter("drops", "Groups that gave none, by reason", "stage", "reason")
        self.trained = self._counter("trained_pairs", "Pairs in a checkpoint", "stage")
        self.staleness = self._gauge(
            "staleness_versions", "Versions that sampling runs ahead of the weights", "stage"
        )
        self.phases = self._counter(
            "phase_seconds", "Of ended episodes, no pauses", "stage", "phase"
        )
        self.version = self._gauge("weight_version", "Newest that every engine holds", "stage")
        self.syncs = Summary(
            "pairloop_sync_seconds", "A version onto every engine, attested", ["stage"],
            registry=registry,
        )  # fmt: skip
        self.sync_bytes = self._counter("sync_bytes", "Weights handed to engines, each", "stage")
        self.attestations = self._counter("attestations", "Engines that proved a version", "stage")
        self.mismatches = self._counter(
            "attestation_mismatches", "Engines that needed a second full sync", "stage"
        )
        self.attested = self._gauge("attested_engines", "Hold the newest version", "stage")
        self.canary = self._gauge(
            "canary_difference_nats", "Largest of the newest version, engine and learner", "stage"
        )
        self.evaluated = self._gauge(
            "evaluation_accuracy_ratio", "On held-out data", "policy", "how"
        )
        self.heldout = self._gauge("evaluation_loss_nats", "Held-out nats a token", "policy")
        self.measured = {
            name: self._gauge(exported, about, "stage")
            for name, (exported, about) in MEASURED.items()
        }
        self.part = self._gauge("reward_part_mean", "One part of the reward, mean", "stage", "part")
        self.other = self._gauge("measure", "What else the job reports, by name", "stage", "name")
        for part in PARTS:
            self.restarts.labels(part)

    def online(self, stage: str) -> None:
        """Every counter of an online stage, from 0."""
        for counter in (
            self.dispatched, self.pairs, self.trained, self.sampled_tokens, self.trained_tokens,
            self.syncs, self.sync_bytes, self.attestations, self.mismatches,
        ):  # fmt: skip
            counter.labels(stage)
        for reason in DROPS:
            self.drops.labels(stage, reason)
        for phase in PHASES:
            self.phases.labels(stage, phase)

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"pairloop_{name}", about, labels, registry=self._registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"pairloop_{name}", about, labels, registry=self._registry)
