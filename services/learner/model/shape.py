"""The shape of a new Qwen2 model."""

from pydantic import Field, model_validator

from services.settings import Settings


class ModelShape(Settings):
    """Qwen2 (arXiv 2407.10671, section 2.2): GQA, SwiGLU, RoPE, QKV bias, RMSNorm."""

    hidden_size: int = Field(896, ge=8)
    """Width of the residual stream."""
    layers: int = Field(24, ge=1)
    """Blocks of attention and feed-forward."""
    heads: int = Field(14, ge=1)
    """Query heads; they divide hidden_size."""
    kv_heads: int = Field(2, ge=1)
    """Key and value heads; they divide heads."""
    intermediate_size: int = Field(4864, ge=8)
    """Width inside the feed-forward layer."""
    tied_embeddings: bool = True
    """The output head is the matrix of the embeddings."""
    rope_theta: float = Field(1_000_000.0, gt=0.0)
    """RoPE's base."""
    max_positions: int = Field(32_768, ge=16)
    """Longest sequence, in tokens."""
    initializer_range: float = Field(0.02, gt=0.0)
    """Standard deviation of new weights; near 128 wide about 0.06, or learning starts slowly."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "ModelShape":
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is no multiple of kv_heads {self.kv_heads}")
        return self
