"""Writing a model as a Hugging Face folder that transformers and vLLM load."""

from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from services.errors import ArtifactError
from services.learner.checkpoint import latest, load_checkpoint, restore_model
from services.learner.durable import replaced_folder
from services.learner.models import load_policy, load_tokenizer, special_ids


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


def export_checkpoint(policy: str, checkpoints: str, out: str) -> None:
    """The newest checkpoint's weights, with the config and tokenizer of the policy it began as.

    Raises ArtifactError when there is no complete checkpoint.
    """
    found = latest(Path(checkpoints))
    if found is None:
        raise ArtifactError(f"{checkpoints}: no complete checkpoint to export")
    model = load_policy(policy)
    restore_model(model, load_checkpoint(found).tensors["model"])
    export_model(model, load_tokenizer(policy), Path(out))
