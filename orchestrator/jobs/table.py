"""The jobs: each module has `run(job, work) -> metrics` and fills `work.out`."""

from collections.abc import Awaitable, Callable
from typing import Any

from orchestrator.jobs import (
    demo_data,
    offline_dpo,
    online_dpo,
    preferences,
    pretrain,
    reward_model,
    sft,
)

JOBS: dict[str, Callable[[Any, Any], Awaitable[dict[str, float]]]] = {
    "demo_data": demo_data.run,
    "pretrain": pretrain.run,
    "sft": sft.run,
    "preferences": preferences.run,
    "reward_model": reward_model.run,
    "offline_dpo": offline_dpo.run,
    "online_dpo": online_dpo.run,
}
