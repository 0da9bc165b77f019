"""vLLM's entry point into Pairloop: `vllm.general_plugins` calls `register` in every process."""

from functools import cache

BACKEND = "pairloop"


@cache
def register() -> None:
    """Make our weight-transfer backend known to vLLM; further calls change nothing."""
    from vllm.distributed.weight_transfer import WeightTransferEngineFactory

    WeightTransferEngineFactory.register_engine(
        BACKEND, "services.rollout.vllm.weights", "PairloopWeightTransfer"
    )
