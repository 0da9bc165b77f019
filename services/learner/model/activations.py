"""What a forward pass keeps for its backward pass, and how many tokens that allows at once."""

from services.model_size import ModelSize

_GIB = 1 << 30
_ALLOWED = {"cpu": 3 * _GIB // 2, "cuda": 8 * _GIB}
_MOST_TOKENS = 1 << 14
_LEAST_TOKENS = 64


def activation_bytes(size: ModelSize, width: int, checkpointing: bool) -> int:
    """Bytes kept for each token by a model of this size.

    It computes in values of `width` bytes; the residual stream is float32. As counted at the
    tensors that autograd saves, a layer keeps two values of the hidden size in float32 and two in
    `width` (around its norms), three of the queries, three of the keys and three of the
    feed-forward width; with checkpointing only its input, and one layer at a time the rest.
    """
    hidden, layers = size.hidden_size, size.num_hidden_layers
    layer = 2 * hidden * (4 + width) + 3 * (size.queries + size.keys) * width
    layer += 3 * size.intermediate_size * width
    return layers * hidden * 4 + layer if checkpointing else layers * layer


def pass_tokens(size: ModelSize, width: int, checkpointing: bool, device: str) -> int:
    """Tokens whose activations fit the room that is allowed for them on a kind of device."""
    room = _ALLOWED.get(device, _ALLOWED["cuda"])
    fit = room // activation_bytes(size, width, checkpointing)
    return max(_LEAST_TOKENS, min(_MOST_TOKENS, fit))
