"""The online learner on fake queues and a fake board: order of events, crashes, determinism."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import SecretStr
from safetensors.numpy import load_file

from pairloop.data.v1.rollout_pb2 import VersionSpan
from services.errors import LedgerError, StallError, StateError
from services.learner.jobs.settings import OnlineDPOSettings, OnlinePlace
from services.learner.model.load import load_frozen, load_policy
from services.learner.model.policy import Policy
from services.learner.model.reference import pair_logprobs
from services.learner.online.learner import online_learner, planned_steps
from services.learner.online.reference_ahead import ReferenceAhead
from services.learner.settings import OnDARESettings, ScheduleSettings, TrainSettings
from services.learner.train.batches import plan_batches
from services.learner.train.distributed import Worker
from services.learner.train.encoding import sampled_pairs
from services.queues.ledger import LedgerEvent
from services.telemetry.record.events import Event, Note, TrainProgress
from tests.unit import learner_parts as parts


def setting(
    tmp_path: Path, folder: str, **changes: object
) -> tuple[OnlineDPOSettings, OnlinePlace]:
    """Settings with another `train` or other episodes, and a place in a folder of its own."""
    policy, base = tmp_path / "policy", tmp_path / "base"
    if not policy.exists():
        parts.policy(policy, seed=1)
        parts.policy(base, seed=2)
    how = changes.pop("train", train())
    settings = OnlineDPOSettings.model_validate(
        {
            "policy": str(policy),
            "reference": str(policy),
            "base": str(base),
            "episodes": {"count": 3, "prompts": 8, "timeout_s": 5.0} | changes,
            "train": how,
        }
    )
    place = OnlinePlace(
        stage="online",
        seed=11,
        run="run",
        redis_url=SecretStr("redis://:secret@nowhere"),
        folder=str(tmp_path / folder),
        out=str(tmp_path / folder / "out"),
        canary_tokens=[5, 6, 7, 8],
    )
    return settings, place


def queues() -> parts.FakeQueues:
    held = parts.tokenizer()
    counts = {1: 8, 2: 0, 3: 7}
    return parts.FakeQueues(
        {e: [parts.sampled_pair(held, e, i) for i in range(n)] for e, n in counts.items()}
    )


def train(**changes: object) -> TrainSettings:
    return TrainSettings(
        optimizer=OnDARESettings(lr=1e-3, reserve=0.2, rescale=True, alpha=1e-6),
        batch_size=4,
        epochs=2,
        max_length=128,
    ).model_copy(update=changes)


def test_episodes_are_published_then_checkpointed_then_committed(tmp_path: Path) -> None:
    source, events = queues(), list[Event]()
    board = parts.FakeBoard(source.history)
    settings, place = setting(tmp_path, "a")
    metrics = online_learner(settings, place, events.append, source.open, board)
    assert source.history == [
        "published 0",
        *("published 1", "trained 1", "published 2", "trained 2", "published 3", "trained 3"),
        "closed",
    ]
    assert sorted(p.name for p in (tmp_path / "a" / "checkpoints").iterdir()) == [
        "step-000000002",
        "step-000000003",
    ]
    assert metrics["version"] == 3
    recorded = sorted(path.name for path in (tmp_path / "a" / "pairs").iterdir())
    assert recorded == [f"episode-0000{n}.jsonl" for n in (1, 2, 3)]
    assert metrics["trained_pairs"] == 7
    assert [board.versions[v].base_version for v in range(4)] == [0, 0, 1, 2]
    written = load_file(tmp_path / "a" / "out" / "model.safetensors")
    for name, value in board.versions[3].tensors.items():
        assert np.array_equal(written[name], value)
    first = board.versions[1].metrics
    # Four steps, each keeping a fifth of the step and a fifth of tau.
    assert first["changed_fraction"] == pytest.approx(1 - 0.8**8, abs=0.03)
    assert board.versions[2].metrics["changed_fraction"] == 0
    assert board.versions[3].changed.keys() == board.weights(3).keys()
    changed = {n: int((board.weights(2)[n] != a).sum()) for n, a in board.weights(3).items()}
    assert dict(board.versions[3].changed) == changed
    steps = [event for event in events if isinstance(event, TrainProgress)]
    assert steps[-1].step == 8
    assert steps[-1].steps == 12
    assert "secret" not in repr(place) + place.model_dump_json()


def test_pairs_that_no_step_has_are_left_out_with_the_reason(tmp_path: Path) -> None:
    source = queues()
    lengths = {pair.id: pair.length for pair in sampled_pairs(source.kept[1], 128)[0]}
    longest = max(lengths.values())
    too_long = {id_ for id_, length in lengths.items() if length == longest}
    settings, place = setting(
        tmp_path, "a", count=1, train=train(max_length=longest - 1, max_steps=1, batch_size=2)
    )
    metrics = online_learner(
        settings, place, lambda event: None, source.open, parts.FakeBoard(source.history)
    )
    dropped = source.committed[1]
    assert dropped["tie of 1"] == "TIE"
    assert {id_ for id_, why in dropped.items() if why == "TOO_LONG"} == too_long
    assert Counter(dropped.values())["NOT_REACHED"] == len(lengths) - len(too_long) - 2
    assert metrics["trained_pairs"] == 2
    # A restart says the same of it, from its checkpoint.
    source.committed.clear()
    source.states.clear()
    online_learner(
        settings, place, lambda event: None, source.open, parts.FakeBoard(source.history)
    )
    assert source.committed[1] == dropped


def signed(source: parts.FakeQueues, episode: int, digest: str) -> None:
    """Every pair of the episode was sampled by the version before it, with this digest."""
    for pair in source.kept[episode]:
        pair.provenance.policy_versions.add(
            version=episode - 1, token_count=1, weights_sha256=digest
        )


def test_pairs_of_weights_that_were_never_published_are_left_out(tmp_path: Path) -> None:
    source, events = queues(), list[Event]()
    for episode in (1, 2, 3):
        signed(source, episode, "ours")
    spans = [pair.provenance.policy_versions for pair in source.kept[3]]
    spans[0][0].weights_sha256 = "theirs"  # the right number, other weights
    spans[1][0].weights_sha256 = ""  # of an engine that attested nothing
    spans[2][0].version = 7  # the right weights, a number they never had
    spans[3].add(version=1, token_count=1, weights_sha256="theirs")  # half of the group
    del spans[4][:]  # nothing is said
    source.kept[3][0].provenance.rollout_worker = "rollout-9"
    foreign = [pair.id for pair in source.kept[3][:5]]
    board = parts.FakeBoard(source.history, digest="ours")
    metrics = online_learner(*setting(tmp_path, "a"), events.append, source.open, board)
    assert source.committed[1] == {"tie of 1": "TIE"}
    assert source.committed[3] == {
        "tie of 3": "TIE",
        **dict.fromkeys(foreign, "FOREIGN_WEIGHTS"),
    }
    assert metrics["trained_pairs"] == 2
    (note,) = (event for event in events if isinstance(event, Note))
    assert note.text.startswith(
        "episode 3: 5 of 7 pairs were sampled by weights that were never published under their"
        " number (by ?, rollout-9) and are left out; "
    )
    # What is trained is what would have been trained without them.
    alone = queues()
    alone.kept[3] = alone.kept[3][5:]
    expected = parts.FakeBoard(alone.history)
    online_learner(*setting(tmp_path, "b"), lambda _: None, alone.open, expected)
    for name, array in expected.weights(3).items():
        assert np.array_equal(board.weights(3)[name], array)


def test_a_version_that_is_made_again_keeps_the_digest_it_had_before(tmp_path: Path) -> None:
    source, events = queues(), list[Event]()
    signed(source, 1, "first")
    signed(source, 3, "again")
    source.states[2] = "FAILED"
    board = parts.FakeBoard(source.history, digest="first")
    online_learner(*setting(tmp_path, "a"), events.append, source.open, board)
    source.states.pop(2)
    source.kept[2] = [parts.sampled_pair(parts.tokenizer(), 2, i) for i in range(2)]
    for pair, digest in zip(source.kept[2], ("first", "again"), strict=True):
        pair.provenance.policy_versions.add(version=1, weights_sha256=digest)
    board = parts.FakeBoard(source.history, digest="again")
    online_learner(*setting(tmp_path, "a"), events.append, source.open, board)
    published = tmp_path / "a" / "published"
    assert [json.loads(path.read_text()) for path in sorted(published.iterdir())] == [
        ["first"], ["first", "again"], ["again"], ["again"],
    ]  # fmt: skip
    assert [source.committed[e] for e in (1, 2, 3)] == [{f"tie of {e}": "TIE"} for e in (1, 2, 3)]
    assert not [event for event in events if isinstance(event, Note)]


def test_an_episode_whose_pairs_are_not_all_there_is_not_trained(tmp_path: Path) -> None:
    source = queues()
    settings, place = setting(tmp_path, "a", count=1)
    source.lost = 1
    with pytest.raises(LedgerError, match="has 8 pairs by its counters and Redis holds 7"):
        online_learner(
            settings, place, lambda event: None, source.open, parts.FakeBoard(source.history)
        )
    assert "published 1" not in source.history


def test_the_schedule_spans_the_planned_steps_of_every_episode(tmp_path: Path) -> None:
    source, events = queues(), list[Event]()
    board = parts.FakeBoard(source.history)
    schedule = ScheduleSettings(kind="linear")
    settings, place = setting(tmp_path, "a", train=train(schedule=schedule))
    online_learner(settings, place, events.append, source.open, board)
    # Of 12 planned steps, 4 an episode. All 8 pairs of the first make its 4 steps; the 7 of the
    # third make 14 / 4 steps, so 4 as well, of 3 or 4 pairs each.
    lr = [1e-3 * (1 - step / 12) for step in range(12)]
    assert board.versions[1].metrics["lr"] == pytest.approx(sum(lr[:4]) / 4)
    sizes = [4, 3, 3, 4]
    third = sum(size * of_step for size, of_step in zip(sizes, lr[8:], strict=True)) / 14
    assert board.versions[3].metrics["lr"] == pytest.approx(third)
    steps = [event for event in events if isinstance(event, TrainProgress)]
    assert [event.metrics["lr"] for event in steps if event.step in (4, 8)] == [
        pytest.approx(lr[3]),
        pytest.approx(lr[11]),
    ]


@pytest.mark.parametrize(
    ("prompts", "epochs", "batch_size", "max_steps", "steps"),
    [
        (8, 2.0, 4, None, 4),
        (9, 1.0, 4, None, 3),  # a step for the ninth
        (3, 0.5, 4, None, 1),
        (192, 2.0, 16, None, 24),
        (8, 2.0, 4, 7, 7),
    ],
)
def test_planned_steps_are_those_of_an_episode_that_drops_nothing(
    tmp_path: Path,
    prompts: int,
    epochs: float,
    batch_size: int,
    max_steps: int | None,
    steps: int,
) -> None:
    asked = train(epochs=epochs, batch_size=batch_size, max_steps=max_steps)
    settings, _ = setting(tmp_path, "a", prompts=prompts, train=asked)
    assert planned_steps(settings) == steps
    plan = plan_batches(prompts, batch_size, epochs=epochs, key=(0,), max_steps=max_steps)
    assert len(plan) == steps


@pytest.mark.parametrize("crash_at", [1, 2, 3])
def test_a_crash_and_a_restart_give_the_weights_of_an_undisturbed_run(
    tmp_path: Path, crash_at: int
) -> None:
    undisturbed = queues()
    expected = parts.FakeBoard(undisturbed.history)
    online_learner(*setting(tmp_path, "a"), lambda _: None, undisturbed.open, expected)

    source = queues()
    crashing = parts.FakeBoard(source.history, fail_at=crash_at)
    with pytest.raises(ConnectionError):
        online_learner(*setting(tmp_path, "b"), lambda _: None, source.open, crashing)
    assert source.history[-1] == "closed"
    source.history.clear()
    source.states.clear()  # Redis lost what it knew
    again = parts.FakeBoard(source.history)
    online_learner(*setting(tmp_path, "b"), lambda _: None, source.open, again)
    # What the checkpoint holds is committed and published again; the episode that was to be
    # published when it crashed is in none, and is trained again.
    before = [f"trained {episode}" for episode in range(1, crash_at)]
    expected_history = [*before, f"published {crash_at - 1}", f"published {crash_at}"]
    assert source.history[: len(expected_history)] == expected_history
    for version, held in again.versions.items():
        wanted = expected.versions[version]
        assert dict(held.changed) == dict(wanted.changed)
        assert {**held.metrics, "seconds": 0} == {**wanted.metrics, "seconds": 0}
        for name, array in wanted.tensors.items():
            assert np.array_equal(held.tensors[name], array), (version, name)


def test_pairs_whose_checkpoint_was_never_written_are_trained_again(tmp_path: Path) -> None:
    source = queues()
    board = parts.FakeBoard(source.history)
    source.states[3] = "FAILED"
    online_learner(*setting(tmp_path, "a"), lambda _: None, source.open, board)
    assert source.history[-2:] == ["trained 2", "closed"]
    source.states.pop(3)
    resumed, events = parts.FakeBoard(source.history), list[Event]()
    online_learner(*setting(tmp_path, "a"), events.append, source.open, resumed)
    # The step counter goes on from the four steps of the checkpoint.
    steps = [event.step for event in events if isinstance(event, TrainProgress)]
    assert (steps[0], steps[-1]) == (5, 8)
    straight = queues()
    whole = parts.FakeBoard(straight.history)
    online_learner(*setting(tmp_path, "b"), lambda _: None, straight.open, whole)
    for name, array in whole.weights(3).items():
        assert np.array_equal(resumed.weights(3)[name], array)


def test_a_waiting_learner_stalls_after_its_deadline(tmp_path: Path) -> None:
    source = queues()
    source.states[1] = "SAMPLING"
    settings, place = setting(tmp_path, "a", timeout_s=0.2)
    with pytest.raises(StallError, match="episode 1"):
        online_learner(
            settings, place, lambda _: None, source.open, parts.FakeBoard(source.history)
        )


def test_the_learner_lives_until_the_last_ledger_is_put_away(tmp_path: Path) -> None:
    """Redis may lose the last commit until then, and only the learner can make that good."""

    class PutAway(parts.FakeQueues):
        looks = 0

        async def ledger(self, episode: int) -> list[LedgerEvent]:
            self.looks += 1
            if self.looks == 2:
                self.states[episode] = "TRAINING"  # fell back
            return [] if self.looks > 3 else [LedgerEvent("1-0", "trained", "a", episode, "3")]

    source = PutAway(queues().kept)
    online_learner(
        *setting(tmp_path, "a"), lambda _: None, source.open, parts.FakeBoard(source.history)
    )
    assert source.history[-3:] == ["trained 3", "trained 3", "closed"]
    assert source.looks == 4


def test_an_episode_trained_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    source = queues()
    source.states[1] = "COMPLETED"
    with pytest.raises(StateError, match="no checkpoint holds it"):
        online_learner(
            *setting(tmp_path, "a"), lambda _: None, source.open, parts.FakeBoard(source.history)
        )


def test_the_sampler_gap_compares_tokens_of_the_current_version_alone(tmp_path: Path) -> None:
    source = queues()
    settings, place = setting(tmp_path, "a", count=1)
    encoded, _ = sampled_pairs(source.kept[1], 128)
    policy = Policy(load_policy(settings.policy), "float32")
    known = [pair_logprobs(policy, pair) for pair in encoded]
    for pair, logprobs in zip(source.kept[1], known, strict=True):
        for sample, values in zip((pair.chosen, pair.rejected), logprobs, strict=True):
            sample.logprobs.extend(values.tolist())
            count = len(sample.logprobs)
            sample.policy_versions.append(VersionSpan(version=0, token_count=count))
    source.kept[1][0].chosen.logprobs[0] += 0.5
    source.kept[1][1].chosen.logprobs[0] += 9.0
    source.kept[1][1].chosen.policy_versions[0].version = 7
    metrics = online_learner(
        settings, place, lambda _: None, source.open, parts.FakeBoard(source.history)
    )
    assert metrics["sampler_gap"] == pytest.approx(0.5, abs=1e-4)
    assert metrics["sampler_gap_mean"] < 0.1
    # The reference is the policy, so the two changed tokens alone differ: k3 of d = -0.5 and -9.
    k3 = (math.expm1(-0.5) + 0.5) + (math.expm1(-9.0) + 9.0)
    assert metrics["kl"] == pytest.approx(k3 / 16, rel=1e-3)


def test_what_was_computed_ahead_is_what_would_have_been_computed_at_the_end(
    tmp_path: Path,
) -> None:
    source = queues()
    settings, _ = setting(tmp_path, "a")
    frozen = load_frozen(settings.policy, "float32", torch.device("cpu"))
    late = ReferenceAhead(frozen, 128, Worker()).finish(source.kept[1])
    ahead = ReferenceAhead(frozen, 128, Worker())
    ahead.look(lambda: source.kept[1][:5])
    ahead._join()
    assert len(ahead._found) == 5
    found = ahead.finish(source.kept[1][2:])  # two of them were dropped since
    assert list(found) == [pair.id for pair in source.kept[1][2:]]
    for name, answers in found.items():
        for one, other in zip(answers, late[name], strict=True):
            assert torch.equal(one, other)


def test_an_error_of_the_thread_that_works_ahead_is_the_learners(tmp_path: Path) -> None:
    source = queues()
    settings, _ = setting(tmp_path, "a")
    frozen = load_frozen(settings.policy, "float32", torch.device("cpu"))
    source.kept[1][0].chosen.token_ids[0] = 10**6  # no such word
    ahead = ReferenceAhead(frozen, 128, Worker())
    ahead.look(lambda: source.kept[1])
    with pytest.raises(IndexError):
        ahead.finish(source.kept[1])
