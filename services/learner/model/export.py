"""Writing a model as a Hugging Face folder that transformers and vLLM load."""

from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from services.learner.model.load import special_ids
from services.learner.train.durable import replaced_folder


def export_model(model: Any, tokenizer: Any, out: Path) -> None:
    """Weights (safetensors), config, generation config and tokenizer; complete or absent.

    A policy's generation config ends answers at <|im_end|> and <|endoftext|>. What stood at `out`
    is replaced as a whole.
    """
    ends, pad = special_ids(tokenizer)
    if model.can_generate():
        model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=pad)
    with replaced_folder(out) as fresh:
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
