"""Sizes of the models that a run names: of folders, of the hub's cache, and still to be made."""

import json
from collections.abc import Mapping
from pathlib import Path

from orchestrator.artifacts.lineage import Lineage
from orchestrator.checks.models import model_config, stored_width, tensor_shapes
from orchestrator.jobs.job import Job
from services.data.settings import TokenizerSettings
from services.hub import cached_model, is_hub_name
from services.learner.model.shape import ModelShape
from services.model_size import ModelSize

_MADE_WIDTH = 4
"""Bytes a value of the models that our jobs write."""


class UnknownSizeError(Exception):
    """A model's size cannot be told before it is fetched; the text is its name."""


class Sizes:
    """Of the models of one run, by the path that names them."""

    def __init__(self, stages: Mapping[str, Job]) -> None:
        self.stages = stages
        self._lineage = Lineage(stages)
        self._found: dict[str, ModelSize] = {}

    def of(self, path: str) -> ModelSize:
        """Of a folder, hub name or "@stage". UnknownSizeError."""
        if path not in self._found:
            self._found[path] = self._look(path)
        return self._found[path]

    def started_from(self, stage: Job) -> ModelSize:
        """Of the model that a stage trains: one it is given, or one it makes from nothing."""
        if shape := stage.new_shape():
            return _of_shape(shape, self._vocabulary(stage))
        return self.of(str(getattr(stage, "policy", "")))

    def stored_width(self, path: str) -> int:
        """Bytes a value of a model's weights on disk."""
        if path.startswith("@"):
            return _MADE_WIDTH
        folder = cached_model(path) if is_hub_name(path) else Path(path)
        return stored_width(folder) if folder else 2

    def _look(self, path: str) -> ModelSize:
        made, first = self._lineage.new_shape(path), self._lineage.first(path)
        if made is not None:
            stage, shape = made
            return _of_shape(shape, self._vocabulary(self.stages[stage]))
        folder = cached_model(first) if is_hub_name(first) else Path(first)
        size = ModelSize.of(model_config(folder)) if folder else None
        if folder is None or size is None:
            raise UnknownSizeError(first)
        shapes = tensor_shapes(str(folder))
        if size.tie_word_embeddings:
            shapes.pop("lm_head.weight", None)
        return size.with_tensors(shapes.values()) if shapes else size

    def _vocabulary(self, stage: Job) -> int:
        """Of the tokenizer that a stage trains, or that it is given."""
        given = getattr(stage, "tokenizer", None)
        if isinstance(given, TokenizerSettings):
            return given.vocab_size
        path = str(given)
        folder = cached_model(path) if is_hub_name(path) else Path(path)
        try:
            found = json.loads((Path(folder or "") / "tokenizer.json").read_text(encoding="utf-8"))
            added = {token["id"] for token in found.get("added_tokens", [])}
            return len(set(found["model"]["vocab"].values()) | added)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UnknownSizeError(path) from None


def _of_shape(shape: ModelShape, vocabulary: int) -> ModelSize:
    return ModelSize(
        vocab_size=vocabulary,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.hidden_size // shape.heads,
        tie_word_embeddings=shape.tied_embeddings,
    )
