"""The memory of one training worker, from its settings and the model's size.

Where it trains on a GPU the weights and all that is computed from them lie there. Figures:
docs/memory.md.
"""

from dataclasses import dataclass, replace

from services.learner.model.activations import activation_bytes, pass_tokens
from services.learner.settings import AdamWSettings, TrainSettings
from services.memory_plan import GIB, TOKENIZER_ENTRY, WIDTHS, Part, ProcessMemory
from services.model_size import ModelSize

_BASE = int(0.55 * GIB)
"""torch, transformers and Ray imported and at work: measured with a model of 4M parameters."""
_TILE = 4096 * 8192
"""Logits that the head holds at once at most (services/learner/model/head.py)."""


@dataclass(frozen=True)
class Training:
    """What a job trains on, as far as memory knows it."""

    example_tokens: int
    """Of the longest example."""
    reference_width: int | None = None
    """Bytes a value of the stored reference; None: the loss needs none."""
    always: bool = False
    """Every example is as long as the longest."""


def learner_memory(size: ModelSize, train: TrainSettings, what: Training) -> ProcessMemory:
    """One of `train.workers`."""
    on_gpu = train.num_gpus > 0
    parts = [
        Part("float32 weights", 4 * size.parameters),
        Part("gradients", 4 * size.parameters),
        _moments(size, train),
        *_copies(size, train),
        *_reference(size, train, what),
        *_tau(size, train),
        _activations(size, train, what),
        Part("head tiles", _head_tiles(size, what)),
    ]
    placed = [replace(part, on_gpu=on_gpu) for part in parts if part.bytes]
    process = Part("process", _BASE + TOKENIZER_ENTRY * size.vocab_size)
    gpus = train.num_gpus if on_gpu else 0.0
    return ProcessMemory("learner", (*placed, process), train.workers, gpus)


def _moments(size: ModelSize, train: TrainSettings) -> Part:
    if train.optimizer.moments == "int8":
        # A byte each, and a float32 scale for 256 of them.
        return Part("int8 moments", 2 * size.parameters + size.parameters // 32)
    return Part("float32 moments", 8 * size.parameters, "train.optimizer.moments=int8")


def _copies(size: ModelSize, train: TrainSettings) -> list[Part]:
    """Matrices that a bfloat16 pass works with."""
    return [Part("bfloat16 copies", 2 * size.matrices)] if train.dtype == "bfloat16" else []


def _reference(size: ModelSize, train: TrainSettings, what: Training) -> list[Part]:
    """Read from its file as it is stored; a copy where that is not what is computed with."""
    if what.reference_width is None:
        return []
    width = WIDTHS[train.dtype]
    if train.num_gpus or (train.dtype == "bfloat16" and what.reference_width != width):
        return [Part("reference", width * size.matrices)]
    # Before a phase of training; what that frees the process keeps (services/allocator.py).
    width = what.reference_width
    return [Part("reference's file", width * size.parameters, mapped=True, passing=True)]


def _tau(size: ModelSize, train: TrainSettings) -> list[Part]:
    """Held on a GPU alone: a CPU reads it from the files at each step. And Step-K's anchor."""
    how, parts = train.optimizer, []
    if isinstance(how, AdamWSettings):
        return []
    if train.num_gpus and how.alpha > 0:
        width, lower = WIDTHS[how.tau_dtype], "train.optimizer.tau_dtype=bfloat16"
        parts.append(Part("tau", width * size.parameters, lower if width == 4 else ""))
    if how.merge_every > 1:
        anchor = 4 * size.parameters
        parts.append(Part("weights at the last merge", anchor, "train.optimizer.merge_every=1"))
    return parts


def _activations(size: ModelSize, train: TrainSettings, what: Training) -> Part:
    width = WIDTHS[train.dtype]
    each = activation_bytes(size, width, train.gradient_checkpointing)
    device = "cuda" if train.num_gpus else "cpu"
    allowed = train.micro_batch_tokens or pass_tokens(
        size, width, train.gradient_checkpointing, device
    )
    tokens = min(allowed, -(-train.batch_size // train.workers) * what.example_tokens)
    if what.always:  # one that is longer than a pass goes through alone
        tokens = max(tokens, what.example_tokens)
    # What is kept of all layers, and what the backward pass of one works on.
    held = tokens * each * (size.num_hidden_layers + 1) // size.num_hidden_layers
    name = f"activations of {tokens} tokens"
    return Part(name, held, "train.micro_batch_tokens")


def _head_tiles(size: ModelSize, what: Training) -> int:
    """Logits, their slopes, and one of the two in the dtype of the pass."""
    return 3 * 4 * min(_TILE, what.example_tokens * size.vocab_size)
