from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WeightKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WEIGHT_KIND_UNSPECIFIED: _ClassVar[WeightKind]
    WEIGHT_KIND_FULL: _ClassVar[WeightKind]
    WEIGHT_KIND_DELTA: _ClassVar[WeightKind]
WEIGHT_KIND_UNSPECIFIED: WeightKind
WEIGHT_KIND_FULL: WeightKind
WEIGHT_KIND_DELTA: WeightKind

class TensorManifest(_message.Message):
    __slots__ = ("name", "dtype", "shape", "changed_values", "checksum")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_VALUES_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    changed_values: int
    checksum: str
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., changed_values: _Optional[int] = ..., checksum: _Optional[str] = ...) -> None: ...

class Canary(_message.Message):
    __slots__ = ("token_ids", "logprobs", "tolerance")
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    tolerance: float
    def __init__(self, token_ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[float]] = ..., tolerance: _Optional[float] = ...) -> None: ...

class WeightManifest(_message.Message):
    __slots__ = ("run", "version", "base_version", "kind", "tensors", "canary")
    RUN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    run: str
    version: int
    base_version: int
    kind: WeightKind
    tensors: _containers.RepeatedCompositeFieldContainer[TensorManifest]
    canary: Canary
    def __init__(self, run: _Optional[str] = ..., version: _Optional[int] = ..., base_version: _Optional[int] = ..., kind: _Optional[_Union[WeightKind, str]] = ..., tensors: _Optional[_Iterable[_Union[TensorManifest, _Mapping]]] = ..., canary: _Optional[_Union[Canary, _Mapping]] = ...) -> None: ...

class TensorMismatch(_message.Message):
    __slots__ = ("tensor", "expected", "found")
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    tensor: str
    expected: str
    found: str
    def __init__(self, tensor: _Optional[str] = ..., expected: _Optional[str] = ..., found: _Optional[str] = ...) -> None: ...

class Attestation(_message.Message):
    __slots__ = ("worker_id", "version", "mismatches", "tensors_checked", "max_canary_difference", "seconds", "weights_sha256")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MISMATCHES_FIELD_NUMBER: _ClassVar[int]
    TENSORS_CHECKED_FIELD_NUMBER: _ClassVar[int]
    MAX_CANARY_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_SHA256_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    version: int
    mismatches: _containers.RepeatedCompositeFieldContainer[TensorMismatch]
    tensors_checked: int
    max_canary_difference: float
    seconds: float
    weights_sha256: str
    def __init__(self, worker_id: _Optional[str] = ..., version: _Optional[int] = ..., mismatches: _Optional[_Iterable[_Union[TensorMismatch, _Mapping]]] = ..., tensors_checked: _Optional[int] = ..., max_canary_difference: _Optional[float] = ..., seconds: _Optional[float] = ..., weights_sha256: _Optional[str] = ...) -> None: ...
