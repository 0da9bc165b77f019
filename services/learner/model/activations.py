"""What a forward pass keeps for its backward pass, and how many tokens that allows at once."""

from typing import Any

_GIB = 1 << 30
_ALLOWED = {"cpu": 2 * _GIB, "cuda": 8 * _GIB}
_MOST_TOKENS = 1 << 14
_LEAST_TOKENS = 64


def activation_bytes(config: Any, width: int, checkpointing: bool) -> int:
    """Bytes kept for each token by a model of a Hugging Face `config` that computes with
    values of `width` bytes.

    The residual stream and the norms are float32. A layer keeps about eight values of the hidden
    size for those, eight of queries, keys and values (projected, rotated, gathered, attended) and
    four of the feed-forward width; with checkpointing only its input, and one layer at a time the
    rest.
    """
    hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    size = int(getattr(config, "head_dim", None) or hidden // heads)
    layer = 8 * hidden * 4 + 8 * (heads + key_heads) * size * width
    layer += 4 * int(config.intermediate_size) * width
    layers = int(config.num_hidden_layers)
    return layers * hidden * 4 + layer if checkpointing else layers * layer


def pass_tokens(config: Any, width: int, checkpointing: bool, device: str) -> int:
    """Tokens whose activations fit the room that is allowed for them on a kind of device."""
    room = _ALLOWED.get(device, _ALLOWED["cuda"])
    fit = room // activation_bytes(config, width, checkpointing)
    return max(_LEAST_TOKENS, min(_MOST_TOKENS, fit))
