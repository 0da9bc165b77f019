"""The base of every settings model: unknown keys are errors, attribute docstrings are the docs."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Immutable settings of one part; a mistyped key is refused, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
