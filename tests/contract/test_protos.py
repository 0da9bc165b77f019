"""The messages as contracts: what survives a round trip, what zero means, names and numbers."""

import pytest
from google.protobuf.message import Message

from pairloop.admin.v1 import admin_pb2
from pairloop.data.v1 import pair_pb2, rollout_pb2, weights_pb2
from pairloop.reward.v1 import reward_pb2

FILES = [admin_pb2, pair_pb2, rollout_pb2, weights_pb2, reward_pb2]

PROMPT = rollout_pb2.Prompt(
    id="run/e3/p11",
    run="run",
    episode=3,
    index=11,
    dataset_row=2**40,
    messages=[rollout_pb2.ChatMessage(role="user", content="Größe? 你好")],
    text="<|im_start|>user\n",
    token_ids=[0, 151_645, 2**31],
    metadata={"answer": "3", "skill": ""},
    sampling=rollout_pb2.SamplingSettings(n=8, temperature=0.0, top_p=1.0, seed=2**64 - 1),
)
SAMPLE = rollout_pb2.Sample(
    index=0,
    token_ids=[5, 6],
    text="x",
    finish_reason=rollout_pb2.FINISH_REASON_STOP,
    logprobs=[-0.5, -1.25],
    policy_versions=[rollout_pb2.VersionSpan(version=0, token_count=2, weights_sha256="ab")],
)
PAIR = pair_pb2.PreferencePair(
    id=PROMPT.id,
    prompt=PROMPT,
    chosen=SAMPLE,
    rejected=SAMPLE,
    chosen_score=pair_pb2.Score(total=1e-300, parts={"model": -0.0}),
    margin=0.1,
    length_gap=-7,
    provenance=pair_pb2.PairProvenance(max_policy_version=2**63, group_scores=[pair_pb2.Score()]),
)
MANIFEST = weights_pb2.WeightManifest(
    run="run",
    version=4,
    kind=weights_pb2.WEIGHT_KIND_DELTA,
    base_version=3,
    tensors=[weights_pb2.TensorManifest(name="a", dtype="float32", shape=[2, 0], checksum="ff")],
    canary=weights_pb2.Canary(token_ids=[1, 2], logprobs=[-0.5], tolerance=5e-4),
)


@pytest.mark.parametrize(
    "message",
    [
        PROMPT,
        rollout_pb2.Rollout(prompt=PROMPT, samples=[SAMPLE, SAMPLE], worker_id="w", seconds=0.5),
        PAIR,
        MANIFEST,
        reward_pb2.ScoreRequest(prompt=PROMPT, samples=[SAMPLE], tokenizer_fingerprint="abc"),
    ],
    ids=lambda message: message.DESCRIPTOR.name,
)
def test_a_round_trip_keeps_everything(message: Message) -> None:
    again = type(message).FromString(message.SerializeToString())
    assert again == message
    assert again.SerializeToString(deterministic=True) == message.SerializeToString(
        deterministic=True
    )


def test_values_at_the_edge_of_their_types() -> None:
    pair = pair_pb2.PreferencePair.FromString(PAIR.SerializeToString())
    assert pair.prompt.sampling.seed == 2**64 - 1
    assert pair.provenance.max_policy_version == 2**63
    assert pair.length_gap == -7
    assert pair.chosen_score.total == 1e-300
    assert pair.margin == 0.1  # a double: nothing is rounded on the way
    assert list(pair.prompt.token_ids) == [0, 151_645, 2**31]


def test_what_is_absent_can_be_told_from_what_is_zero() -> None:
    pair = pair_pb2.PreferencePair.FromString(PAIR.SerializeToString())
    assert pair.HasField("chosen_score")
    assert not pair.HasField("rejected_score")
    assert len(pair.provenance.group_scores) == 1
    assert "skill" in pair.prompt.metadata
    assert not weights_pb2.WeightManifest().HasField("canary")


def test_every_enum_starts_at_unspecified() -> None:
    enums = {
        enum.name: enum for file in FILES for enum in file.DESCRIPTOR.enum_types_by_name.values()
    }
    assert sorted(enums) == [
        *("DropReason", "EpisodeState", "FinishReason", "RunState"),
        *("WeightKind", "WorkerKind", "WorkerState"),
    ]
    for enum in enums.values():
        assert enum.values_by_number[0].name.endswith("_UNSPECIFIED")


def test_numbers_of_what_is_stored_do_not_change() -> None:
    assert dict(pair_pb2.DropReason.items()) == {
        "DROP_REASON_UNSPECIFIED": 0,
        "DROP_REASON_TIE": 1,
        "DROP_REASON_SINGLE_ANSWER": 2,
        "DROP_REASON_MARGIN": 3,
        "DROP_REASON_DEAD_LETTER": 4,
        "DROP_REASON_STALE": 5,
        "DROP_REASON_TOO_LONG": 6,
        "DROP_REASON_NOT_REACHED": 7,
        "DROP_REASON_FOREIGN_WEIGHTS": 8,
    }
    fields = pair_pb2.PreferencePair.DESCRIPTOR.fields_by_name
    assert {name: field.number for name, field in fields.items()} == {
        "id": 1,
        "prompt": 2,
        "chosen": 3,
        "rejected": 4,
        "chosen_score": 5,
        "rejected_score": 6,
        "margin": 7,
        "length_gap": 8,
        "provenance": 9,
    }


def test_a_newer_writers_field_survives_an_older_reader() -> None:
    newer = rollout_pb2.Prompt(id=PROMPT.id).SerializeToString() + bytes(
        [0xFA, 0x07, 1, 0x41]
    )  # field 127, "A"
    assert rollout_pb2.Prompt.FromString(newer).id == PROMPT.id
    assert rollout_pb2.Prompt.FromString(newer).SerializeToString() == newer


def test_services_and_their_methods() -> None:
    methods = {
        service.full_name: sorted(method.name for method in service.methods)
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
    }
    assert methods == {
        "pairloop.admin.v1.AdminService": [
            "CancelEpisode",
            "DrainWorker",
            "GetConfig",
            "GetCurves",
            "GetEpisode",
            "GetLedgerProof",
            "GetRun",
            "ListAudit",
            "ListDeadLetters",
            "ListEpisodes",
            "ListPairs",
            "ListRuns",
            "ListWorkers",
            "PauseEpisode",
            "PauseRun",
            "ResumeEpisode",
            "ResumeRun",
            "RetryDeadLetters",
            "ScaleWorkers",
            "SetStaleness",
            "StopRun",
            "Watch",
        ],
        "pairloop.reward.v1.RewardService": ["Describe", "Score"],
    }
