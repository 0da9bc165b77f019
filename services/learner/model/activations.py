"""What a forward pass keeps for its backward pass, and how many tokens that allows at once."""

from typing import Protocol

_GIB = 1 << 30
_ALLOWED = {"cpu": 3 * _GIB // 2, "cuda": 8 * _GIB}
_MOST_TOKENS = 1 << 14
_LEAST_TOKENS = 64


class Shape(Protocol):
    """What is read of a Hugging Face config."""

    @property
    def hidden_size(self) -> int: ...  # noqa: D102
    @property
    def intermediate_size(self) -> int: ...  # noqa: D102
    @property
    def num_hidden_layers(self) -> int: ...  # noqa: D102
    @property
    def num_attention_heads(self) -> int: ...  # noqa: D102


def activation_bytes(config: Shape, width: int, checkpointing: bool) -> int:
    """Bytes kept for each token by a model of a Hugging Face `config`.

    It computes in values of `width` bytes; the residual stream is float32. As counted at the
    tensors that autograd saves, a layer keeps two values of the hidden size in float32 and two in
    `width` (around its norms), three of the queries, three of the keys and three of the
    feed-forward width;
    with checkpointing only its input, and one layer at a time the rest.
    """
    hidden, heads = config.hidden_size, config.num_attention_heads
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    size = int(getattr(config, "head_dim", None) or hidden // heads)
    layer = 2 * hidden * (4 + width) + 3 * (heads + key_heads) * size * width
    layer += 3 * config.intermediate_size * width
    layers = config.num_hidden_layers
    return layers * hidden * 4 + layer if checkpointing else layers * layer


def pass_tokens(config: Shape, width: int, checkpointing: bool, device: str) -> int:
    """Tokens whose activations fit the room that is allowed for them on a kind of device."""
    room = _ALLOWED.get(device, _ALLOWED["cuda"])
    fit = room // activation_bytes(config, width, checkpointing)
    return max(_LEAST_TOKENS, min(_MOST_TOKENS, fit))
