from pairloop.data.v1 import rollout_pb2 as _rollout_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DropReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_REASON_UNSPECIFIED: _ClassVar[DropReason]
    DROP_REASON_TIE: _ClassVar[DropReason]
    DROP_REASON_SINGLE_ANSWER: _ClassVar[DropReason]
    DROP_REASON_MARGIN: _ClassVar[DropReason]
    DROP_REASON_DEAD_LETTER: _ClassVar[DropReason]
    DROP_REASON_STALE: _ClassVar[DropReason]
    DROP_REASON_TOO_LONG: _ClassVar[DropReason]
    DROP_REASON_NOT_REACHED: _ClassVar[DropReason]
    DROP_REASON_FOREIGN_WEIGHTS: _ClassVar[DropReason]
DROP_REASON_UNSPECIFIED: DropReason
DROP_REASON_TIE: DropReason
DROP_REASON_SINGLE_ANSWER: DropReason
DROP_REASON_MARGIN: DropReason
DROP_REASON_DEAD_LETTER: DropReason
DROP_REASON_STALE: DropReason
DROP_REASON_TOO_LONG: DropReason
DROP_REASON_NOT_REACHED: DropReason
DROP_REASON_FOREIGN_WEIGHTS: DropReason

class Score(_message.Message):
    __slots__ = ("total", "parts")
    class PartsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    total: float
    parts: _containers.ScalarMap[str, float]
    def __init__(self, total: _Optional[float] = ..., parts: _Optional[_Mapping[str, float]] = ...) -> None: ...

class PreferencePair(_message.Message):
    __slots__ = ("id", "prompt", "chosen", "rejected", "chosen_score", "rejected_score", "margin", "length_gap", "provenance")
    ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_SCORE_FIELD_NUMBER: _ClassVar[int]
    REJECTED_SCORE_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    LENGTH_GAP_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    prompt: _rollout_pb2.Prompt
    chosen: _rollout_pb2.Sample
    rejected: _rollout_pb2.Sample
    chosen_score: Score
    rejected_score: Score
    margin: float
    length_gap: int
    provenance: PairProvenance
    def __init__(self, id: _Optional[str] = ..., prompt: _Optional[_Union[_rollout_pb2.Prompt, _Mapping]] = ..., chosen: _Optional[_Union[_rollout_pb2.Sample, _Mapping]] = ..., rejected: _Optional[_Union[_rollout_pb2.Sample, _Mapping]] = ..., chosen_score: _Optional[_Union[Score, _Mapping]] = ..., rejected_score: _Optional[_Union[Score, _Mapping]] = ..., margin: _Optional[float] = ..., length_gap: _Optional[int] = ..., provenance: _Optional[_Union[PairProvenance, _Mapping]] = ...) -> None: ...

class PairProvenance(_message.Message):
    __slots__ = ("min_policy_version", "max_policy_version", "rule", "group_size", "unique_answers", "scorer", "rollout_worker", "group_scores", "group_answers", "policy_versions")
    MIN_POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    UNIQUE_ANSWERS_FIELD_NUMBER: _ClassVar[int]
    SCORER_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_WORKER_FIELD_NUMBER: _ClassVar[int]
    GROUP_SCORES_FIELD_NUMBER: _ClassVar[int]
    GROUP_ANSWERS_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    min_policy_version: int
    max_policy_version: int
    rule: str
    group_size: int
    unique_answers: int
    scorer: str
    rollout_worker: str
    group_scores: _containers.RepeatedCompositeFieldContainer[Score]
    group_answers: _containers.RepeatedScalarFieldContainer[str]
    policy_versions: _containers.RepeatedCompositeFieldContainer[_rollout_pb2.VersionSpan]
    def __init__(self, min_policy_version: _Optional[int] = ..., max_policy_version: _Optional[int] = ..., rule: _Optional[str] = ..., group_size: _Optional[int] = ..., unique_answers: _Optional[int] = ..., scorer: _Optional[str] = ..., rollout_worker: _Optional[str] = ..., group_scores: _Optional[_Iterable[_Union[Score, _Mapping]]] = ..., group_answers: _Optional[_Iterable[str]] = ..., policy_versions: _Optional[_Iterable[_Union[_rollout_pb2.VersionSpan, _Mapping]]] = ...) -> None: ...
