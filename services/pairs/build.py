"""From a scored rollout and the choice within it to the message the learner trains on."""

from collections import Counter
from collections.abc import Sequence

from pairloop.data.v1.pair_pb2 import PairProvenance, PreferencePair, Score
from pairloop.data.v1.rollout_pb2 import Rollout, VersionSpan
from services.errors import DataError
from services.pairs.select import Selection


def make_pair(
    rollout: Rollout, scores: Sequence[Score], selection: Selection, scorer: str
) -> PreferencePair:
    """The pair, with all that is needed to tell later where it came from.

    `scores` are of every sample, in sample order; `scorer` is the reward's description.
    """
    chosen, rejected = rollout.samples[selection.chosen], rollout.samples[selection.rejected]
    versions = policy_versions(rollout)
    return PreferencePair(
        id=rollout.prompt.id,
        prompt=rollout.prompt,
        chosen=chosen,
        rejected=rejected,
        chosen_score=scores[selection.chosen],
        rejected_score=scores[selection.rejected],
        margin=selection.margin,
        length_gap=len(chosen.token_ids) - len(rejected.token_ids),
        provenance=PairProvenance(
            min_policy_version=min(versions),
            max_policy_version=max(versions),
            rule=selection.rule,
            group_size=len(rollout.samples),
            unique_answers=selection.unique_answers,
            scorer=scorer,
            rollout_worker=rollout.worker_id,
            group_scores=scores,
            group_answers=[sample.text for sample in rollout.samples],
            policy_versions=_spans(rollout),
        ),
    )


def _spans(rollout: Rollout) -> list[VersionSpan]:
    """Tokens of the whole group by the weights that sampled them: version, then digest."""
    tokens = Counter[tuple[int, str]]()
    for sample in rollout.samples:
        for span in sample.policy_versions:
            tokens[span.version, span.weights_sha256] += span.token_count
    return [
        VersionSpan(version=version, token_count=count, weights_sha256=digest)
        for (version, digest), count in sorted(tokens.items())
    ]


def stale(rollout: Rollout) -> bool:
    """Whether any token was sampled by a policy too old for its episode.

    Version 0 is the starting policy and version e what episode e made of it, so episode e is
    strictly on-policy with version e-1 and may go back as many versions from there as its prompt
    allows; one that says nothing of it, as of an older version of this code, allows any.
    """
    oldest, prompt = min(policy_versions(rollout)), rollout.prompt
    if not prompt.HasField("max_staleness"):
        return False
    return oldest < prompt.episode - 1 - prompt.max_staleness


def policy_versions(rollout: Rollout) -> set[int]:
    """Every policy version that sampled a token. Raises DataError when a sample names none."""
    versions: set[int] = set()
    for sample in rollout.samples:
        if not sample.policy_versions:
            raise DataError(
                f"{rollout.prompt.id}: sample {sample.index} names no policy version; "
                f"rollout worker {rollout.worker_id or '(unnamed)'} must record it"
            )
        versions.update(span.version for span in sample.policy_versions)
    if not versions:
        raise DataError(f"{rollout.prompt.id}: the rollout holds no samples")
    return versions
