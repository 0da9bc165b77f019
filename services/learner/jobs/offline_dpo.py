"""Offline DPO: a fixed preference set against a frozen reference, by AdamW or OMO."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from services.data.chat import load_tokenizer
from services.data.rows import read_pairs
from services.learner.jobs.settings import REFERENCE, OfflineDPOSettings, Place
from services.learner.losses.objectives import DirectPreference
from services.learner.model.load import load_frozen, load_policy
from services.learner.model.policy import Policy
from services.learner.model.reference import summed_pair_logprobs
from services.learner.model.reference_cache import ReferenceCache, Sums
from services.learner.settings import TrainSettings
from services.learner.train.distributed import Worker
from services.learner.train.encoding import EncodedPair, encode_pairs
from services.learner.train.loop import Report, evaluate_sums
from services.learner.train.offline import finish, prepared, reference_delta, run_offline


def train_offline_dpo(
    settings: OfflineDPOSettings, place: Place, report: Report
) -> dict[str, float]:
    """Train and write the policy to `place.out`; returns its metrics.

    loss, accuracy, dpo_margin, chosen_reward, rejected_reward (last tenth of the steps),
    trained_pairs, too_long, steps, tokens, seconds, and with a held-out source those of the loss
    as heldout_<name> and heldout_pairs. The reference's log-probabilities are computed once, before
    the first step, and kept in `place.folder`; the artifact has them too, in reference/.
    """
    worker = Worker.current(settings.train.num_gpus)
    tokenizer = load_tokenizer(settings.policy)
    pairs, too_long = encode_pairs(tokenizer, read_pairs(settings.pairs), settings.train.max_length)
    held: list[EncodedPair] = []
    if settings.heldout is not None:
        held, _ = encode_pairs(tokenizer, read_pairs(settings.heldout), settings.train.max_length)

    source, train = settings.reference or settings.policy, settings.train
    tau = reference_delta(source, settings.base, train, worker.device)
    folder = Path(place.folder) / REFERENCE if place.folder else None
    cache = ReferenceCache(folder, source, train.dtype, worker)
    reference, held_reference = _reference_sums(cache, source, train, worker, pairs, held)

    policy = Policy(prepared(load_policy(settings.policy), train, worker), train.dtype)
    result = run_offline(
        policy,
        tokenizer,
        DirectPreference(policy, settings.dpo, reference),
        pairs,
        train,
        place,
        tau=tau,
        worker=worker,
        report=report,
    )
    heldout = {"trained_pairs": float(len(pairs)), "too_long": float(too_long)}
    if settings.heldout is not None:
        heldout["heldout_pairs"] = float(len(held))
    if held:
        objective = DirectPreference(policy, settings.dpo, held_reference)
        means = evaluate_sums(objective, held, worker)
        heldout |= {f"heldout_{name}": value for name, value in means.items()}
    metrics = finish(policy, tokenizer, place.out, result, heldout, worker)
    cache.copy_used(Path(place.out) / REFERENCE)
    return metrics


def _reference_sums(
    cache: ReferenceCache,
    source: str,
    train: TrainSettings,
    worker: Worker,
    *sets: Sequence[EncodedPair],
) -> list[Sums]:
    """Of each set of pairs. The reference is loaded where one is not kept yet, and let go here."""
    loaded = lru_cache(lambda: load_frozen(source, train.dtype, worker.device))

    def of(pairs: Sequence[EncodedPair]) -> Sums:
        return cache.sums(pairs, lambda: summed_pair_logprobs(loaded(), pairs, worker))

    return [of(pairs) for pairs in sets]
