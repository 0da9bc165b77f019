"""Writing a model as a Hugging Face folder that transformers and vLLM load."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from services.learner.model.special import special_ids
from services.learner.train.durable import replaced_folder


def export_model(
    model: Any, tokenizer: Any, out: Path, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Weights (safetensors), config, generation config and tokenizer; complete or absent.

    `weights` by name are written in place of the model's own.

    A policy's generation config ends answers at <|im_end|> and <|endoftext|>. What stood at `out`
    is replaced as a whole.
    """
    ends, pad = special_ids(tokenizer)
    if model.can_generate():
        model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=pad)
    with replaced_folder(out) as fresh:
        # A name less for a tied head, which is the embedding.
        state = None if weights is None else {n: value.detach() for n, value in weights.items()}
        model.save_pretrained(fresh, state_dict=state)
        tokenizer.save_pretrained(fresh)
