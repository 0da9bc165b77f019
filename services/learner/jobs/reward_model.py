"""Reward-model training: a scalar head on a policy, Bradley-Terry on pairs."""

from services.data.rows import read_pairs
from services.errors import ConfigError
from services.learner.jobs.specs import RewardModelSpec
from services.learner.losses.objectives import RewardModelling
from services.learner.model.load import load_tokenizer, new_reward_model, special_ids
from services.learner.settings import AdamWSettings
from services.learner.train.distributed import Worker
from services.learner.train.encoding import encode_pairs
from services.learner.train.loop import Report, evaluate_sums
from services.learner.train.offline import finish, prepared, run_offline


def train_reward_model(spec: RewardModelSpec, report: Report) -> dict[str, float]:
    """Train and write the model to `spec.out`; returns its metrics.

    loss, accuracy, margin (last tenth of the steps), pairs, too_long, steps, tokens, seconds, and
    with a held-out source heldout_accuracy, heldout_loss, heldout_margin and heldout_pairs.
    """
    if not isinstance(spec.train.optimizer, AdamWSettings) and spec.train.optimizer.alpha > 0:
        raise ConfigError(
            "train.optimizer: a reward model has no reference to merge with; use adamw"
        )
    worker = Worker.current(spec.train.num_gpus)
    tokenizer = load_tokenizer(spec.policy)
    _, pad = special_ids(tokenizer)
    model = prepared(new_reward_model(spec.policy, tokenizer, spec.seed), spec.train, worker)
    objective = RewardModelling(model, pad, spec.train.dtype)
    pairs, too_long = encode_pairs(tokenizer, read_pairs(spec.pairs), spec.train.max_length)
    result = run_offline(
        model,
        objective,
        pairs,
        spec.train,
        stage=spec.stage,
        seed=spec.seed,
        tau=None,
        worker=worker,
        report=report,
    )
    heldout = {"pairs": float(len(pairs)), "too_long": float(too_long)}
    if spec.heldout is not None:
        held, _ = encode_pairs(tokenizer, read_pairs(spec.heldout), spec.train.max_length)
        heldout["heldout_pairs"] = float(len(held))
        if held:
            means = evaluate_sums(objective, held, worker)
            heldout |= {f"heldout_{name}": value for name, value in means.items()}
    return finish(model, tokenizer, spec.out, result, heldout, worker)
