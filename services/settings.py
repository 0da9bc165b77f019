"""The base of every settings model, and what a field can be: identity or operation.

    timeout_s: Operational[float] = 60.0     where, how fast, how long: never part of a fingerprint
    beta: float = 0.1                        identity: it changes what is computed

A field is identity unless it is marked, so a forgotten mark costs time and never a wrong reuse.
"""

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

T = TypeVar("T")


class _Operational:
    """The mark itself."""

    def __repr__(self) -> str:
        return "operational"


OPERATIONAL = _Operational()
Operational = Annotated[T, OPERATIONAL]
"""Of a field that says where, on what, how fast or how long something is computed, not what."""


class Settings(BaseModel):
    """Immutable settings of one part; a mistyped key is refused, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def is_operational(field: FieldInfo) -> bool:
    """Whether the field is marked so; the fields of settings inside it are then too."""
    return OPERATIONAL in field.metadata


def settings_in(annotation: Any) -> "Iterator[type[Settings]]":
    """The settings classes that a field's type holds: itself, in a union, in a list."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
        return
    for inner in get_args(annotation):
        yield from settings_in(inner)


def fields_of(settings: Settings) -> Iterator[tuple[str, FieldInfo, Any]]:
    """Name, declaration and value of every field."""
    for name, field in type(settings).model_fields.items():
        yield name, field, getattr(settings, name)


class _Extendable:
    """The mark itself."""

    def __repr__(self) -> str:
        return "extendable"


EXTENDABLE = _Extendable()
Extendable = Annotated[T, EXTENDABLE]
"""Of a count that more work can raise: a larger one goes on from where a smaller one ended."""
