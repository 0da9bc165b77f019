"""Models of a given shape with random weights, for measuring: time and memory know no training.

    .venv/bin/python bench/models.py OUT [--shape qwen2-0.5b] [--dtype bfloat16] [--seed 0]

Writes OUT/policy, a model folder that transformers and vLLM load, and OUT/base, of the same shape
and tokenizer with every value a little off: what an OMO run takes for its base. Their tokenizer
really has as many entries as the embedding has rows, each with its merge, as a trained one has:
both cost memory in every process that reads them. Needs about the size of one model in memory.
"""

import argparse
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from services.data.tokenizer import CONTROL_TOKENS, wrap
from services.learner.model.shape import ModelShape

SHAPES: dict[str, tuple[int, ModelShape]] = {
    "0.1m": (
        512,
        ModelShape(
            hidden_size=64,
            layers=2,
            heads=2,
            kv_heads=1,
            intermediate_size=128,
            max_positions=512,
        ),
    ),
    "4m": (
        4096,
        ModelShape(
            hidden_size=256,
            layers=4,
            heads=4,
            kv_heads=2,
            intermediate_size=688,
            max_positions=1024,
        ),
    ),
    "60m": (
        32_768,
        ModelShape(hidden_size=512, layers=12, heads=8, kv_heads=2, intermediate_size=2048),
    ),
    "qwen2-0.5b": (151_936, ModelShape()),
    "qwen2-1.5b": (
        151_936,
        ModelShape(hidden_size=1536, layers=28, heads=12, kv_heads=2, intermediate_size=8960),
    ),
}
"""Vocabulary and shape, by name."""

_NEAR = 0.01
"""How far the base's values are from the policy's, relative."""


def main() -> None:
    """Make them."""
    parser = argparse.ArgumentParser(description="A policy and its base with random weights.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=list(SHAPES), default="qwen2-0.5b")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    made = make(options.out, options.shape, dtype=options.dtype, seed=options.seed)
    paths = {name: str(path) for name, path in made.items()}
    print(json.dumps(paths | {"shape": options.shape, "dtype": options.dtype}))


def make(out: Path, shape: str, *, dtype: str = "bfloat16", seed: int = 0) -> dict[str, Path]:
    """The folders "policy" and "base" under `out`; those that are there whole are left alone.

    `dtype` is that of the weights on disk. The same arguments give the same bytes.
    """
    vocabulary, form = SHAPES[shape]
    folders = {name: out / name for name in ("policy", "base")}
    tokenizer: Any = None
    for name, folder in folders.items():
        if (folder / "config.json").is_file():
            continue
        tokenizer = tokenizer or big_tokenizer(vocabulary, form.max_positions)
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save_pretrained(folder)
        _write_weights(folder, vocabulary, form, dtype, seed, near=name == "base")
        config = _config(vocabulary, form, dtype)
        (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return folders


def big_tokenizer(vocabulary: int, max_length: int) -> Any:
    """A ChatML tokenizer of exactly so many entries: bytes, then strings of two and three."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    wanted = vocabulary - len(CONTROL_TOKENS)
    vocab = {letter: at for at, letter in enumerate(letters)}
    merges: list[list[str]] = []
    shorter = letters
    while len(vocab) < wanted:
        longer = []
        for first in shorter:
            for letter in letters[: max(1, wanted - len(vocab))]:
                merges.append([first, letter])
                longer.append(first + letter)
                vocab[first + letter] = len(vocab)
            if len(vocab) >= wanted:
                break
        shorter = longer
    return wrap(vocab, merges, max_length)


def _write_weights(
    folder: Path, vocabulary: int, shape: ModelShape, dtype: str, seed: int, *, near: bool
) -> None:
    import torch
    from safetensors.torch import save_file

    draw, move = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed + 1)
    tensors = {}
    for name, size in _sizes(vocabulary, shape).items():
        if name.endswith("norm.weight"):
            values = torch.ones(size)
        else:
            values = torch.randn(size, generator=draw) * shape.initializer_range
        if near:
            values += torch.randn(size, generator=move) * (_NEAR * shape.initializer_range)
        tensors[name] = values.to(getattr(torch, dtype))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _sizes(vocabulary: int, shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Of every tensor of Qwen2, by its Hugging Face name."""
    wide, middle = shape.hidden_size, shape.intermediate_size
    keys = wide // shape.heads * shape.kv_heads
    sizes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, wide)}
    for layer in range(shape.layers):
        at = f"model.layers.{layer}."
        sizes |= {
            f"{at}self_attn.q_proj.weight": (wide, wide),
            f"{at}self_attn.q_proj.bias": (wide,),
            f"{at}self_attn.k_proj.weight": (keys, wide),
            f"{at}self_attn.k_proj.bias": (keys,),
            f"{at}self_attn.v_proj.weight": (keys, wide),
            f"{at}self_attn.v_proj.bias": (keys,),
            f"{at}self_attn.o_proj.weight": (wide, wide),
            f"{at}mlp.gate_proj.weight": (middle, wide),
            f"{at}mlp.up_proj.weight": (middle, wide),
            f"{at}mlp.down_proj.weight": (wide, middle),
            f"{at}input_layernorm.weight": (wide,),
            f"{at}post_attention_layernorm.weight": (wide,),
        }
    sizes["model.norm.weight"] = (wide,)
    if not shape.tied_embeddings:
        sizes["lm_head.weight"] = (vocabulary, wide)
    return sizes


def _config(vocabulary: int, shape: ModelShape, dtype: str) -> dict[str, Any]:
    end = vocabulary - 1  # <|im_end|> is the last control token
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": vocabulary,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.max_positions,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "tie_word_embeddings": shape.tied_embeddings,
        "initializer_range": shape.initializer_range,
        "attention_dropout": 0.0,
        "use_cache": True,
        "dtype": dtype,
        "transformers_version": importlib.metadata.version("transformers"),
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": vocabulary - len(CONTROL_TOKENS),
    }


if __name__ == "__main__":
    main()
