"""Models in and out of Hugging Face folders; master weights are float32."""

from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from services.errors import ArtifactError, one_line
from services.hub import find_model
from services.learner.model.frozen import FrozenPolicy
from services.learner.model.precision import Dtype
from services.learner.model.shape import ModelShape
from services.learner.model.special import special_ids
from services.learner.model.stored import StoredTensors

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def new_model(shape: ModelShape, tokenizer: Any, seed: int) -> nn.Module:
    """A Qwen2 model with random weights that depend on shape, vocabulary and seed alone."""
    ends, pad = special_ids(tokenizer)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=shape.tied_embeddings,
        initializer_range=shape.initializer_range,
        attn_implementation="sdpa",
        dtype=torch.float32,
        eos_token_id=ends[0],
        pad_token_id=pad,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = Qwen2ForCausalLM(config)
    return model


def load_policy(source: str) -> Any:
    """A causal language model in float32. Raises ArtifactError when it cannot be read or used."""
    model = _load(AutoModelForCausalLM, source)
    _check_head(model.config, source)
    return model


def load_frozen(source: str, dtype: Dtype, device: torch.device) -> FrozenPolicy:
    """A policy whose weights never change, read where they are stored. Errors as `load_policy`."""
    try:
        config = AutoConfig.from_pretrained(find_model(source))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{source}: the model cannot be loaded ({one_line(error)})") from error
    _check_head(config, source)
    return FrozenPolicy(StoredTensors(source), config, dtype, device)


def new_reward_model(policy: str, tokenizer: Any, seed: int) -> Any:
    """The policy's body with a scalar head (new, from `seed`), read at the last non-pad token."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _load(AutoModelForSequenceClassification, policy, num_labels=1)
    ends, pad = special_ids(tokenizer)
    model.config.pad_token_id = pad
    model.config.eos_token_id = ends[0]
    return model


def _load(loader: Any, source: str, **options: Any) -> Any:
    found = find_model(source)
    try:
        return loader.from_pretrained(
            found, dtype=torch.float32, attn_implementation="sdpa", **options
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{source}: the model cannot be loaded ({one_line(error)})") from error


def _check_head(config: Any, source: str) -> None:
    """The head here is a product: what else a model does to its logits would be left out."""
    capped = getattr(config, "final_logit_softcapping", None)
    scaled = {getattr(config, name, None) or 1.0 for name in ("logit_scale", "logits_scaling")}
    if capped or scaled != {1.0}:
        raise ArtifactError(
            f"{source}: a model that {'caps' if capped else 'scales'} its logits is not supported; "
            "its log-probabilities would be wrong"
        )
