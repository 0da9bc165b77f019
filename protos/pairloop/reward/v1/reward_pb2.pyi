from pairloop.data.v1 import pair_pb2 as _pair_pb2
from pairloop.data.v1 import rollout_pb2 as _rollout_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScoreRequest(_message.Message):
    __slots__ = ("prompt", "samples", "tokenizer_fingerprint")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    prompt: _rollout_pb2.Prompt
    samples: _containers.RepeatedCompositeFieldContainer[_rollout_pb2.Sample]
    tokenizer_fingerprint: str
    def __init__(self, prompt: _Optional[_Union[_rollout_pb2.Prompt, _Mapping]] = ..., samples: _Optional[_Iterable[_Union[_rollout_pb2.Sample, _Mapping]]] = ..., tokenizer_fingerprint: _Optional[str] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("scores",)
    SCORES_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedCompositeFieldContainer[_pair_pb2.Score]
    def __init__(self, scores: _Optional[_Iterable[_Union[_pair_pb2.Score, _Mapping]]] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("description", "tokenizer_fingerprint", "parts")
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    description: str
    tokenizer_fingerprint: str
    parts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, description: _Optional[str] = ..., tokenizer_fingerprint: _Optional[str] = ..., parts: _Optional[_Iterable[str]] = ...) -> None: ...
