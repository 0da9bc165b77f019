"""Reward-model training: a scalar head on a policy, Bradley-Terry on pairs."""

from services.data.chat import load_tokenizer
from services.data.rows import read_pairs
from services.learner.jobs.settings import Place, RewardModelSettings
from services.learner.losses.objectives import RewardModelling
from services.learner.model.load import new_reward_model
from services.learner.model.policy import ScoreModel
from services.learner.train.distributed import Worker
from services.learner.train.encoding import encode_pairs
from services.learner.train.loop import Report, evaluate_sums
from services.learner.train.offline import finish, prepared, run_offline


def train_reward_model(
    settings: RewardModelSettings, place: Place, report: Report
) -> dict[str, float]:
    """Train and write the model to `place.out`; returns its metrics.

    loss, accuracy, margin (last tenth of the steps), trained_pairs, too_long, steps, tokens,
    seconds, and with a held-out source heldout_accuracy, heldout_loss, heldout_margin and
    heldout_pairs.
    """
    worker = Worker.current(settings.train.num_gpus)
    tokenizer = load_tokenizer(settings.policy)
    module = new_reward_model(settings.policy, tokenizer, place.seed)
    model = ScoreModel(prepared(module, settings.train, worker), settings.train.dtype)
    objective = RewardModelling(model)
    pairs, too_long = encode_pairs(tokenizer, read_pairs(settings.pairs), settings.train.max_length)
    result = run_offline(
        model,
        tokenizer,
        objective,
        pairs,
        settings.train,
        place,
        tau=None,
        worker=worker,
        report=report,
    )
    heldout = {"trained_pairs": float(len(pairs)), "too_long": float(too_long)}
    if settings.heldout is not None:
        held, _ = encode_pairs(tokenizer, read_pairs(settings.heldout), settings.train.max_length)
        heldout["heldout_pairs"] = float(len(held))
        if held:
            means = evaluate_sums(objective, held, worker)
            heldout |= {f"heldout_{name}": value for name, value in means.items()}
    return finish(model, tokenizer, place.out, result, heldout, worker)
