"""A model's rotary positions, changed: a larger base, or YaRN, as transformers and vLLM read them.

Both take `rope_parameters` and `max_position_embeddings` of the config and nothing else: no default
is relied on, since a missing base becomes 10,000 in either.
"""

from typing import Any


def set_rope(model: Any, theta: float, positions: int, yarn_factor: float = 1.0) -> None:
    """Give a model of one kind of rotary positions (such as Qwen2) another base, in place.

    `positions` is the longest sequence that it is trained on. With a factor s above 1 YaRN (arXiv
    2309.00071) stretches them to s times as many, without training: frequencies whose wave is
    longer than `positions` are divided by s, and attention is sharpened by (0.1 ln s + 1)^2. It is
    static: it changes what the model does with short texts too.
    """
    config, body = model.config, model.base_model
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": float(theta)}
    if yarn_factor > 1.0:
        parameters |= {
            "rope_type": "yarn",
            "factor": float(yarn_factor),
            "original_max_position_embeddings": positions,
        }
    config.rope_parameters = parameters
    config.max_position_embeddings = round(yarn_factor * positions)
    before = body.rotary_emb
    # The frequencies are made as the module is; they are no weights, and in no file.
    body.rotary_emb = type(before)(config=config).to(before.inv_freq.device)
