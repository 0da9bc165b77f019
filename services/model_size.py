"""How large a decoder is, from the numbers of its config alone: no weights, no torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from services.errors import ArtifactError


@dataclass(frozen=True)
class ModelSize:
    """A dense decoder with grouped-query attention and a gated feed-forward layer, as Qwen2.

    The fields are named as in a Hugging Face config.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    tie_word_embeddings: bool = True
    counted: tuple[int, int] | None = None
    """Values of all tensors, and of its matrices among them, where they are known exactly."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "ModelSize | None":
        """From a config.json; None when it does not say what it takes."""
        try:
            heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
            return cls(
                vocab_size=int(config["vocab_size"]),
                hidden_size=hidden,
                intermediate_size=int(config["intermediate_size"]),
                num_hidden_layers=int(config["num_hidden_layers"]),
                num_attention_heads=heads,
                num_key_value_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=int(config.get("head_dim") or hidden // heads),
                tie_word_embeddings=bool(config.get("tie_word_embeddings")),
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None

    def with_tensors(self, shapes: Iterable[tuple[int, ...]]) -> "ModelSize":
        """The same, counted by the shapes of its tensors: right for models of other makes too."""
        found = list(shapes)
        matrices = sum(prod(shape) for shape in found if len(shape) > 1)
        vectors = sum(prod(shape) for shape in found if len(shape) < 2)
        return replace(self, counted=(matrices + vectors, matrices))

    @property
    def embedding(self) -> int:
        """Values of the embedding, the largest tensor; an output head of its own has as many."""
        return self.vocab_size * self.hidden_size

    @property
    def matrices(self) -> int:
        """Values of all matrices, a tied output head once."""
        if self.counted is not None:
            return self.counted[1]
        hidden, kept = self.hidden_size, self.queries + self.keys
        layer = hidden * (2 * kept + 3 * self.intermediate_size)
        ends = self.embedding * (1 if self.tie_word_embeddings else 2)
        return self.num_hidden_layers * layer + ends

    @property
    def parameters(self) -> int:
        """Values of all tensors, a tied output head once; the biases are those of Qwen2."""
        if self.counted is not None:
            return self.counted[0]
        biases = self.queries + 2 * self.keys
        vectors = self.num_hidden_layers * (2 * self.hidden_size + biases) + self.hidden_size
        return self.matrices + vectors

    @property
    def key_values(self) -> int:
        """Values that a KV cache holds for each token."""
        return 2 * self.num_hidden_layers * self.keys

    @property
    def queries(self) -> int:
        """Width of a layer's queries, over all heads."""
        return self.num_attention_heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of a layer's keys, over all heads; its values have the same."""
        return self.num_key_value_heads * self.head_dim


def known_size(config: Mapping[str, Any]) -> ModelSize:
    """As ModelSize.of. Raises ArtifactError where the config does not say what it takes."""
    size = ModelSize.of(config)
    if size is None:
        kind = config.get("model_type") or "of no type"
        raise ArtifactError(
            f"a model {kind!r}: its config does not name the sizes of a decoder with attention and "
            "a gated feed-forward layer, as Qwen2's and Llama's do"
        )
    return size
